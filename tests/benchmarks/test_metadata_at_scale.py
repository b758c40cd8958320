"""The benchmark of long lists runs small; the command needs no more memory for a list ten times as long."""

from pathlib import Path

import metadata_at_scale
import pytest
from click.testing import CliRunner


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_hardly_grows_with_the_list(tmp_path: Path) -> None:
    sizes = ("--videos", "200", "--videos", "2000")
    result = CliRunner().invoke(metadata_at_scale.main, [*sizes, "--work", str(tmp_path / "work")])
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.output.splitlines()[2:]]
    assert [row[2] for row in rows] == 2 * ["start", "resume", "finish"]
    small, large = ([float(row[6].replace(",", "")) for row in part] for part in (rows[:3], rows[3:]))
    # 54,000 clips more: their skips, paths and texts as objects would be 40 MB.
    assert all(after < before + 25 for before, after in zip(small, large, strict=True)), result.output
    assert not (tmp_path / "work").exists()

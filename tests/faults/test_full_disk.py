"""No room to write.

One clear line, nothing half-written under its name, and the same bytes when there is room again.
"""

import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from commands import run_to_end
from outputs import content
from resources import lack
from stage_commands import COMMANDS

# On a busy machine a stage may take minutes to start.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HINT = "make room, then the same command goes on from here"
KIB = 1024


def limit_file_size(num_bytes: int) -> None:
    """Let this process, and those that it starts, write no file beyond a size."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def named_files(out: Path) -> dict[str, bytes]:
    """What is there under a final name, without notes of no lasting worth."""
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if not name.endswith((".open", "lock"))}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("shard", [0, 20, 200, 900, 10 * KIB, 30 * KIB]),
        ("subset", [300, 20 * KIB]),
        ("caption", [1500]),
        ("nmi", [500]),
        ("transcribe", [20, 120]),
    ],
)
def test_files_that_find_no_room_are_not_there_at_all(name: str, sizes: list[int], tmp_path: Path) -> None:
    """Each attempt gets a little further than the one before, like a disk on which others make room."""
    command = COMMANDS[name](tmp_path)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run_to_end(*command, "--out", whole)[0] == 0
    final = content(whole)
    largest = max(len(data) for data in named_files(whole).values())
    for size in sizes:
        assert size < largest
        code, line = run_to_end(*command, "--out", out, preexec_fn=lambda size=size: limit_file_size(size))
        assert code == 1, size
        # Hashes of keys are put down in the system's folder for temporary files.
        assert line.startswith((f"Error: {out}/", f"Error: {tempfile.gettempdir()}:")), (size, line)
        assert HINT in line, (size, line)
        for path, data in named_files(out).items():
            assert path == "report.json" or data == final[path], (size, path)
        assert not [path for path in out.rglob("*.partial")], size
    assert run_to_end(*command, "--out", out)[0] == 0
    assert content(out) == final


FULL = """
mkdir -p {disk} && mount -t tmpfs -o size={first}k,nr_inodes=200 none {disk} || exit 77
for size in {sizes}; do
  mount -o remount,size=${{size}}k {disk} || exit 77
  {command} --out {disk}/out 2> {results}/$size.errors
  echo $? > {results}/$size.code
  rm -rf {results}/$size; cp -a {disk}/out {results}/$size || mkdir {results}/$size
done
"""


@pytest.mark.needs("linux", "mount")
def test_a_disk_that_is_full_and_then_larger(tmp_path: Path) -> None:
    """A disk of its own, in memory: smaller than one shard, than two, than the whole, and large enough."""
    command = COMMANDS["shard"](tmp_path)
    whole, results = tmp_path / "whole", tmp_path / "results"
    results.mkdir()
    assert run_to_end(*command, "--out", whole)[0] == 0
    final = content(whole)
    shard_kib = max(len(data) for data in named_files(whole).values()) // KIB
    sizes = [4, 40, shard_kib + 60, 4 * shard_kib, 100_000]
    code = "from clipvip.pipeline.cli import main; main()"
    words = shlex.join([sys.executable, "-c", code, *map(str, command)])
    script = FULL.format(
        disk=tmp_path / "disk",
        first=sizes[0],
        sizes=" ".join(map(str, sizes)),
        command=words,
        results=results,
    )
    found = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script], timeout=200, check=False
    )
    if found.returncode in {1, 77} and not list(results.iterdir()):
        lack("mount")
    codes = [int((results / f"{size}.code").read_text()) for size in sizes]
    assert codes == [1, 1, 1, 1, 0]
    for size in sizes[:-1]:
        errors = (results / f"{size}.errors").read_text()
        assert "Traceback" not in errors
        last = errors.strip().splitlines()[-1]
        assert last.startswith(f"Error: {tmp_path}/disk/out") and "no space left on device" in last, last
        for path, data in named_files(results / str(size)).items():
            assert path == "report.json" or data == final[path], (size, path)
    assert content(results / "100000") == final

"""examples/demo.ipynb: it is checked in as it was written, and runs from its first cell to its last."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

import clipvip

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "demo.ipynb"
# Part of the notebook -> its pictures: three clips, three captioned frames, the heat map, three clips found
# for each of two sentences.
PICTURES = {"Shards": 3, "Captions": 3, "The domain gap": 1, "Search": 6}
STAGES = ("shard", "caption", "nmi", "train", "search")


@pytest.fixture
def notebook() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cells: list[NotebookNode]) -> str:
    """What the cells wrote to standard output."""
    streams = [output for cell in cells for output in cell.outputs if output.output_type == "stream"]
    return "".join(output.text for output in streams if output.name == "stdout")


def pictures_of(notebook: NotebookNode) -> dict[str, int]:
    """Heading -> how many PNG pictures the cells below it show; headings without pictures are left out."""
    heading, counts = "", {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings = [line for line in cell.source.splitlines() if line.startswith("#")]
            heading = headings[-1].lstrip("# ") if headings else heading
            continue
        count = sum("image/png" in output.get("data", {}) for output in cell.outputs)
        if count:
            counts[heading] = counts.get(heading, 0) + count
    return counts


def test_it_is_checked_in_without_outputs(notebook: NotebookNode) -> None:
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None, cell.source
    source = "\n".join(cell.source for cell in code_cells(notebook))
    assert [stage for stage in STAGES if f"clipvip.{stage}(" not in source] == []


@pytest.mark.slow
def test_every_cell_runs_and_pictures_are_shown(
    notebook: NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A kernel of the user's own would be another Python; ours inherits PYTHONPATH.
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    asked = nbformat.v4.new_code_cell("import sys\nprint(sys.executable, clipvip.__file__)")
    notebook.cells.append(asked)
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # CellExecutionError, with the cell and its traceback, where one fails
    assert printed([asked]).split() == [sys.executable, clipvip.__file__]
    assert pictures_of(notebook) == PICTURES
    said = printed(code_cells(notebook))
    for line in ("shard: 24 videos, 144 clips", "caption: 144 clips, 144 captions", "nmi: ", "train: "):
        assert line in said
    assert [path.name for path in tmp_path.iterdir()] == ["demo-notebook"]

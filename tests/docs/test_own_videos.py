"""docs/howto/own_videos.md: from a folder of videos to a search, by its commands as they stand there."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from doc_blocks import ROOT, Block, read_blocks
from doc_folder import copy_doc_folder, make_doc_folder
from doc_runs import outputs, run_block
from make_videos import make_video
from resources import SHARED

PAGE = ROOT / "docs" / "howto" / "own_videos.md"


def first_section() -> list[Block]:
    text = PAGE.read_text()
    end = text[: text.index("\n## The list of clips")].count("\n")
    return [block for block in read_blocks(PAGE) if block.line < end]


def make_folder(folder: Path) -> None:
    """Videos of several kinds, and files that are none, where the real ones are not there."""
    make_video(folder / "a.mp4", num_frames=300)
    make_video(folder / "below" / "with blanks.webm", num_frames=60, codec="libvpx")
    make_video(folder / "c.avi", num_frames=60, codec="mpeg4", time_base=Fraction(1, 30))
    (folder / "broken.mp4").write_bytes(b"\0" * 100)
    (folder / "empty.flv").write_bytes(b"")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_folder_goes_from_clips_to_search(tmp_path: Path) -> None:
    blocks = first_section()
    assert [block.not_run for block in blocks] == ["", ""]
    (tmp_path / "given").mkdir()
    make_doc_folder(tmp_path / "given")
    folder = tmp_path / "here"
    copy_doc_folder(tmp_path / "given", folder, written=set(outputs(blocks)))
    shutil.rmtree(folder / "videos")
    if SHARED.is_dir():
        (folder / "videos").symlink_to(SHARED / "data" / "videos")
    else:
        make_folder(folder / "videos")
    for block in blocks:
        run_block(block, folder)
    assert (folder / "page.html").stat().st_size > 10_000 and (folder / "found.html").stat().st_size > 10_000
    listed = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
    report = json.loads((folder / "first" / "report.json").read_text())
    # What `clips` lists, `shard` can cut, but for files whose damage only decoding shows.
    lost = report["skipped"]
    assert report["counts"]["clips"] + lost == sum(len(row["clip"]) for row in listed)
    assert lost <= 1
    assert (folder / "clips.jsonl.report" / "skipped.jsonl").read_text().count("undecodable_video") >= 2

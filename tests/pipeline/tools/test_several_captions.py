"""Tools for finished shards with several folders of captions, one of several captions a clip."""

import json
from pathlib import Path

import pytest

import clipvip
from clipvip.model import ClipVip
from clipvip.pipeline.caption.report import finish_captions
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.shards.errors import Skip
from clipvip.shards.files.claims import claim_folder
from clipvip.shards.format.captions import (
    FRAME_SKIP,
    SeenFrame,
    read_caption_file,
    shard_source,
    write_captions,
)
from clipvip.shards.tar.reader import list_shards, read_shard
from commands import run, run_well
from make_shards import make_shard_folder
from outputs import content
from tiny_clip import make_clip, tiny_tokenizer

BLIP = {"model": "blip", "revision": "1", "num_beams": 5}
OFA = {"model": "ofa", "revision": "2", "num_beams": 3, "frames": 2}
CLIPS, SHARDS = 5, 2
LOST = "video1_00003"  # of its two frames one has no caption


def write_folder(shards: Path, out: Path, made_by: dict[str, object]) -> Path:
    """A folder of captions as `clipvip-data caption` leaves it, of two frames a clip where it is asked."""
    paths = list_shards(shards)
    options = {name: value for name, value in made_by.items() if name not in ("model", "revision")}
    with claim_folder(out, made_by, outputs="*.parquet"):  # type: ignore[arg-type]
        for path in paths:
            samples = list(read_shard(path))
            numbers = {sample.key: [2, 6] if "frames" in made_by else [4] for sample in samples}
            skips = []
            if "frames" in made_by and LOST in numbers:
                numbers[LOST] = [2]
                skips = [Skip(FRAME_SKIP, LOST, "frame 6: empty_caption")]
            texts = {key: [f"{made_by['model']} {key} {n}" for n in some] for key, some in numbers.items()}
            times = {sample.key: sample.record.frame_seconds for sample in samples}
            write_captions(
                out / f"{path.stem}.parquet",
                [(key, some[0]) for key, some in texts.items()],
                model=str(made_by["model"]),
                revision=str(made_by["revision"]),
                options=options,
                skips=skips,
                source=shard_source(path),
                alternatives={key: some for key, some in texts.items() if len(some) > 1},
                frames={key: [SeenFrame(n, times[key][n]) for n in some] for key, some in numbers.items()}
                if "frames" in made_by
                else {},
            )
        finish_captions(out, paths, made_by).write(out, seconds=1.0, done_now=0, unit="captions")  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    shards = make_shard_folder(folder / "clips", num_shards=SHARDS, clips_per_shard=CLIPS)
    write_folder(shards, folder / "blip", BLIP)
    write_folder(shards, folder / "ofa", OFA)
    return folder


def both(world: Path) -> tuple[object, ...]:
    return ("--captions", world / "blip", "--captions", world / "ofa")


def texts_in(shards: Path, *folders: Path) -> dict[str, list[tuple[str, str, int | None]]]:
    """Key -> model, text and frame of each caption."""
    return {
        sample.key: [(one.model, one.text, one.frame) for one in sample.captions]
        for path in list_shards(shards)
        for sample in read_shard(path, captions=list(folders), with_pixels=False)
    }


def expected(key: str) -> list[tuple[str, str, int | None]]:
    numbers = [2] if key == LOST else [2, 6]
    of_ofa: list[tuple[str, str, int | None]] = [("ofa", f"ofa {key} {n}", n) for n in numbers]
    return [("blip", f"blip {key} 4", 4), *of_ofa]


def test_the_captions_of_all_folders_are_read_with_their_sources(world: Path) -> None:
    found = texts_in(world / "clips", world / "blip", world / "ofa")
    assert len(found) == SHARDS * CLIPS
    assert found == {key: expected(key) for key in found}


@pytest.mark.parametrize("tool", ["subset", "split", "merge"])
def test_copies_take_them_along(world: Path, tmp_path: Path, tool: str) -> None:
    """With frames, sources and what was lost; a second run changes nothing; and they verify."""
    outs = ("--captions-out", tmp_path / "blip", "--captions-out", tmp_path / "ofa")
    if tool == "merge":
        folders, captions = (world / "clips",), both(world)
        command = (tool, *folders, "--out", tmp_path / "out", *captions, *outs, "--shard-size", 4)
        parts = [""]
    elif tool == "split":
        halves = ("--part", "a=0.5", "--part", "b=0.5", "--seed", 1)
        command = (tool, world / "clips", *halves, "--out", tmp_path / "out", *both(world), *outs)
        parts = ["a", "b"]
    else:
        command = (tool, world / "clips", "--num", 7, "--out", tmp_path / "out", *both(world), *outs)
        parts = [""]
    run_well(*command)
    before = [content(tmp_path / name / part) for part in parts for name in ("out", "blip", "ofa")]
    run_well(*command)
    assert [content(tmp_path / name / part) for part in parts for name in ("out", "blip", "ofa")] == before
    found = {}
    lost = []
    for part in parts:
        beside = [tmp_path / name / part for name in ("blip", "ofa")]
        found |= texts_in(tmp_path / "out" / part, *beside)
        run_well("verify", tmp_path / "out" / part, "--captions", beside[0], "--captions", beside[1])
        for path in sorted(beside[1].glob("*.parquet")):
            lost += [skip.what for skip in read_caption_file(path).skips]
    assert len(found) == (7 if tool == "subset" else SHARDS * CLIPS)
    assert found == {key: expected(key) for key in found}
    assert lost == [LOST] * (LOST in found)
    assert json.loads((tmp_path / "ofa" / parts[0] / "manifest.json").read_text())["options"] == OFA


@pytest.mark.slow
def test_merge_takes_a_folder_of_captions_for_each_folder_and_captioner(world: Path, tmp_path: Path) -> None:
    keys = sorted(texts_in(world / "clips", world / "blip"))
    halves = {"even": keys[::2], "odd": keys[1::2]}
    for name, some in halves.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(some))
        run_well(
            *("subset", world / "clips", "--keys", tmp_path / f"{name}.txt", "--out", tmp_path / name),
            *(
                *both(world),
                "--captions-out",
                tmp_path / f"{name}-b",
                "--captions-out",
                tmp_path / f"{name}-o",
            ),
        )
    captions = [tmp_path / f"{name}-{letter}" for letter in "bo" for name in halves]
    given = {"captions": captions, "captions_out": [tmp_path / "b", tmp_path / "o"]}
    clipvip.merge(folders=[tmp_path / name for name in halves], out=tmp_path / "all", **given)
    found = texts_in(tmp_path / "all", tmp_path / "b", tmp_path / "o")
    assert found == {key: expected(key) for key in keys}
    few = [word for folder in captions[:3] for word in ("--captions", folder)]
    result = run("merge", *(tmp_path / name for name in halves), "--out", tmp_path / "no", *few,
                 "--captions-out", tmp_path / "x", "--captions-out", tmp_path / "y")  # fmt: skip
    assert result.exit_code == 2 and "once for each of the 2 folders, and as often for each" in result.output
    crossed = [word for n in (0, 3, 2, 1) for word in ("--captions", captions[n])]
    result = run("merge", *(tmp_path / name for name in halves), "--out", tmp_path / "no", *crossed,
                 "--captions-out", tmp_path / "x", "--captions-out", tmp_path / "y")  # fmt: skip
    assert result.exit_code == 1 and "captioned by another model or other options" in result.output


@pytest.mark.parametrize("outs", [0, 1, 3])
def test_each_folder_goes_into_one_of_its_own(world: Path, tmp_path: Path, outs: int) -> None:
    given = [word for n in range(outs) for word in ("--captions-out", tmp_path / str(n))]
    result = run("subset", world / "clips", "--num", 2, "--out", tmp_path / "out", *both(world), *given)
    assert result.exit_code == 2
    assert "--captions-out" in result.output and not (tmp_path / "out").exists()


def test_verify_names_the_folder_and_repairs_it(world: Path, tmp_path: Path) -> None:
    beside = [
        write_folder(world / "clips", tmp_path / name, made) for name, made in (("b", BLIP), ("o", OFA))
    ]
    words = [word for folder in beside for word in ("--captions", folder)]
    result = run("verify", world / "clips", *words, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["captions"] == list(map(str, beside))
    data = bytearray((tmp_path / "o" / "000001.parquet").read_bytes())
    data[len(data) // 3] ^= 0xFF
    (tmp_path / "o" / "000001.parquet").write_bytes(data)
    result = run("verify", world / "clips", *words, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["broken"] == ["o/000001.parquet"]
    assert {row["file"] for row in found["listed"]} == {"o/000001.parquet"}
    result = run("verify", world / "clips", *words, "--json", "--repair")
    assert json.loads(result.stdout)["removed"] == [str(tmp_path / "o" / "000001.parquet")]
    assert sorted(path.name for path in (tmp_path / "b").glob("*.parquet")) == [
        "000000.parquet",
        "000001.parquet",
    ]


def test_stats_count_each_folder(world: Path, tmp_path: Path) -> None:
    made = clipvip.stats(world / "clips", captions=[world / "blip", world / "ofa"], out=tmp_path)
    found = made.content["captions"]
    assert found["captions"] == 29 and found["files_missing"] == 0
    assert found["by_folder"] == {str(world / "blip"): 10, str(world / "ofa"): 19}
    assert found["skipped_by_reason"] == {FRAME_SKIP: 1}
    page = (tmp_path / "stats.html").read_text().replace("<wbr>", "")  # where a path may break
    assert "blip video0_00000 4" in page and "ofa video0_00000 6" in page and f"of {world / 'ofa'}" in page
    alone = clipvip.stats(world / "clips", captions=world / "ofa")
    assert alone.content["captions"]["captions"] == 19 and "by_folder" not in alone.content["captions"]


def test_inspect_says_whose_caption_it_is_and_when(world: Path, tmp_path: Path) -> None:
    result = run_well(
        "inspect", world / "clips", *both(world), "--key", "video1_00002", "--html", tmp_path / "p.html"
    )
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "caption blip  blip video1_00002 4" in lines
    assert "caption ofa at 20.67 s  ofa video1_00002 2" in lines
    assert "caption ofa at 22.00 s  ofa video1_00002 6" in lines
    assert "caption ofa at 22.00 s" in (tmp_path / "p.html").read_text()
    report = clipvip.inspect(world / "clips", captions=world / "blip", num=1)
    assert report.clips[0].captions_are == ("caption",)
    with pytest.raises(
        clipvip.UserError if hasattr(clipvip, "UserError") else Exception, match="no such folder"
    ):
        clipvip.inspect(world / "clips", captions=[world / "blip", world / "nowhere"])


def test_captions_that_were_copied_lose_nothing_on_import(world: Path, tmp_path: Path) -> None:
    run_well(
        "import-captions", "--shards", world / "clips", "--from", world / "ofa", "--out", tmp_path / "out"
    )
    found = read_caption_file(tmp_path / "out" / "000000.parquet").all_captions()
    assert found == {f"video0_{n:05d}": [f"ofa video0_{n:05d} {k}" for k in (2, 6)] for n in range(CLIPS)}


def test_nmi_reads_the_first_caption_of_each_clip(world: Path) -> None:
    from clipvip.shards.sources.texts import read_texts

    keys = [f"video{shard}_{number:05d}" for shard in range(SHARDS) for number in range(CLIPS)]
    assert list(read_texts(world / "ofa")) == [f"ofa {key} 2" for key in keys]


def test_retrieval_searches_by_the_captions_of_all_folders(world: Path, tmp_path: Path) -> None:
    model = ClipVip.from_clip(str(make_clip(tmp_path / "clip")))
    model.save_pretrained(tmp_path / "vip")
    tiny_tokenizer().save_pretrained(tmp_path / "vip")
    words = ("retrieval", "--model", tmp_path / "vip", "--shards", world / "clips", *both(world))
    refused = run(*words, program=evaluate)
    assert refused.exit_code == 1 and "has 3 captions" in refused.output
    found = json.loads(run_well(*words, "--all-captions", "--json", program=evaluate).stdout)["result"]
    assert (found["num_queries"], found["num_clips"]) == (29, 10)

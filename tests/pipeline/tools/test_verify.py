"""The command `clipvip-data verify`: what it finds, and how it survives it."""

import io
import json
import random
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from clipvip.pipeline.tools.verify_run import verify_folder
from clipvip.shards.format.captions import write_captions
from clipvip.shards.format.manifest import ShardRecord, write_manifest
from clipvip.shards.tar.writer import write_shard
from commands import run
from make_shards import changed, stored_clip
from make_videos import write_metadata
from outputs import content
from unit_functions import die_of_marked_samples
from verify_folders import damage, make_captions, verify


@pytest.fixture
def shards(intact: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(intact, tmp_path / "clips"))


def test_an_intact_folder_has_no_problems(intact: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in intact.rglob("*")}
    found = verify(intact, "--captions", make_captions(intact, tmp_path / "captions"))
    assert found["counts"] == {"shards": 3, "clips": 15, "frames": 135, "clips_decoded": 15, "problems": 0}
    assert found["notes"] == []
    assert before == {path: path.read_bytes() for path in intact.rglob("*")}
    assert verify(intact, "--decode", "2")["counts"]["clips_decoded"] == 6
    assert verify(intact, "--decode", "none")["counts"]["clips_decoded"] == 0


def test_the_result_is_written_where_asked(shards: Path, tmp_path: Path) -> None:
    (shards / "000001.tar").unlink()
    result = run("verify", shards, "--out", tmp_path / "found", "--workers", 1)
    assert result.exit_code == 1
    assert "missing" in result.stdout and "000001.tar" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("Error: 1 problem, 1 broken file; --repair")
    written = json.loads((tmp_path / "found" / "verify.json").read_text())
    assert written["problems"] == {"missing": 1}
    assert written["broken"] == ["000001.tar"]


def test_every_flipped_byte_of_a_tar_is_found(shards: Path) -> None:
    generator = random.Random(0)
    paths = [shards / f"00000{n}.tar" for n in range(3)]
    intact = [path.read_bytes() for path in paths]
    for _ in range(2):
        flipped = set()
        for path, data in zip(paths, intact, strict=True):
            path.write_bytes(data)
            if generator.random() < 0.7:
                place, bit = generator.randrange(len(data)), 1 << generator.randrange(8)
                damage(path, lambda d, place=place, bit=bit: d.__setitem__(place, d[place] ^ bit))
                flipped.add(path.name)
        found = verify(shards)
        assert set(found["broken"]) == flipped
        assert found["problems"].get("checksum_differs", 0) == len(flipped)


def test_damage_without_a_manifest_is_one_line_at_most(shards: Path) -> None:
    """Where no checksum tells, structure, records and pixels do, and nothing makes the command stumble."""
    (shards / "manifest.json").unlink()
    path = shards / "000000.tar"
    intact = path.read_bytes()
    generator = random.Random(1)
    num_found = 0
    for _ in range(4):
        changed = bytearray(intact)
        for _ in range(8):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        path.write_bytes(changed[: generator.choice([len(changed), generator.randrange(1, len(changed))])])
        num_found += verify(shards)["counts"]["problems"] > 0
    assert num_found >= 3  # a change in padding is none


def test_each_kind_of_damage_has_its_name(shards: Path) -> None:
    tars = [shards / f"00000{n}.tar" for n in range(3)]
    with tars[0].open("ab") as file:
        file.write(b"x" * 512)
    tars[1].write_bytes(tars[1].read_bytes()[:3000])
    (shards / ".000009.tar.partial").write_bytes(b"")
    (shards / "notes.txt").write_text("mine")
    found = verify(shards)
    kinds = {(row["file"], row["kind"]) for row in found["listed"]}
    assert kinds == {
        ("000000.tar", "size_differs"),
        ("000000.tar", "damaged_tar"),
        ("000001.tar", "size_differs"),
        ("000001.tar", "damaged_tar"),
        ("000001.tar", "samples_differ"),
    }
    assert [note.split(": ")[1] for note in found["notes"]] == [
        "temporary file of a run that was killed, or is at work",
        "stray, nothing lists it",
    ]


def test_a_file_that_the_manifest_does_not_name_is_told_and_kept(
    made_by_stage: tuple[Path, tuple[object, ...]], tmp_path: Path
) -> None:
    shards = Path(shutil.copytree(made_by_stage[0], tmp_path / "clips"))
    captions = make_captions(shards, tmp_path / "captions")
    strangers = [shards / "000009.tar", shards / "copy.tar", captions / "000009.parquet"]
    for path in strangers:
        shutil.copy(next(path.parent.glob(f"000000{path.suffix}")), path)
    result = run("verify", shards, "--captions", captions, "--repair", "--workers", 1)
    assert result.exit_code == 1
    told = [line.split()[:2] for line in result.stdout.splitlines() if line.startswith("unlisted")]
    assert told == [
        ["unlisted", f"{path.parent.name}/{path.name}"] for path in (strangers[2], *strangers[:2])
    ]
    assert all(path.exists() for path in strangers), "no stage could make them again"
    for path in strangers:
        path.unlink()
    assert verify(shards, "--captions", captions)["counts"]["problems"] == 0


def test_a_run_that_could_store_no_clip_is_whole_and_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    metadata = write_metadata(tmp_path / "clips.jsonl", {"gone": [(0, 1)]})
    clips = tmp_path / "clips"
    assert (
        run("shard", "--metadata", metadata, "--videos", tmp_path / "videos", "--out", clips).exit_code == 1
    )
    assert verify(clips)["counts"] == dict.fromkeys(
        ("shards", "clips", "frames", "clips_decoded", "problems"), 0
    )
    result = run("stats", clips)
    assert result.exit_code == 1
    assert (
        result.stderr.strip() == f"Error: {clips}: no clip could be stored there; its skipped.jsonl says why"
    )


def rewrite_record(path: Path, sample: str, /, **changes: Any) -> None:
    """Change KEY.json within a tar, whatever that does to the checksum of the whole."""
    with tarfile.open(path) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            if member.name == f"{sample}.json":
                data = json.dumps(json.loads(data) | changes).encode()
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schema": 2}, "schema"),
        ({"key": "video0_00003"}, "key"),
        ({"video_id": "another"}, "key"),
        ({"span_seconds": [20.0, 20.0]}, "span_seconds"),
        ({"span_seconds": [21.0, 30.0]}, "frame_seconds"),
        ({"frame_seconds": [20.0]}, "frame_bytes"),
        ({"frame_bytes": [1] * 9}, "frame_bytes"),
        ({"width": "48"}, "width"),
        ({"subtitle": "something else"}, "subtitle"),
        ({"sentences": ["one", "two"]}, "sentences"),
        ({"sentences": [1], "sentences_are": "paragraph"}, "sentences.0"),
    ],
)
def test_a_record_that_disagrees_is_named(shards: Path, changes: dict[str, Any], named: str) -> None:
    (shards / "manifest.json").unlink()
    rewrite_record(shards / "000000.tar", "video0_00002", **changes)
    (row,) = verify(shards)["listed"]
    assert (row["kind"], row["key"]) == ("wrong_record", "video0_00002")
    assert row["detail"].startswith(f"{named}:")


def test_frames_of_another_size_are_undecodable(shards: Path) -> None:
    (shards / "manifest.json").unlink()
    rewrite_record(shards / "000000.tar", "video0_00002", width=50)
    (row,) = verify(shards)["listed"]
    assert (row["kind"], row["key"]) == ("undecodable", "video0_00002")
    assert verify(shards, "--decode", "none")["counts"]["problems"] == 0


def test_a_key_in_two_shards_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    numbers = [(0, 1, 2), (3, 1), (4, 2, 2)]
    records = [
        write_shard(folder / f"{shard:06d}.tar", [stored_clip("v", n) for n in of_shard])
        for shard, of_shard in enumerate(numbers)
    ]
    write_manifest(folder, stage="shard", options={}, shards=records)
    found = verify(folder)
    rows = {(row["kind"], row["file"], row["key"], row["detail"]) for row in found["listed"]}
    assert rows == {
        ("duplicate_key", "000002.tar", "v_00002", "2 times in one shard"),
        ("key_in_several_shards", "000000.tar", "v_00001", "also in 000001.tar"),
        ("key_in_several_shards", "000000.tar", "v_00002", "also in 000002.tar"),
    }
    assert found["broken"] == ["000002.tar"]


def test_a_sample_that_ends_the_process_is_named_and_the_others_are_checked(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    texts = {1: "crash", 2: "hang"}
    records = []
    for shard in range(2):
        clips = [stored_clip(f"v{shard}", n, num_frames=2) for n in range(4)]
        clips = [changed(c, subtitle=texts.get(n, "fine") if shard else "fine") for n, c in enumerate(clips)]
        records.append(write_shard(folder / f"{shard:06d}.tar", clips))
    write_manifest(folder, stage="shard", options={}, shards=records)
    common: dict[str, Any] = {"captions": (), "num_decoded": None, "workers": 2}
    found = verify_folder(folder, timeout_seconds=2.0, decode=die_of_marked_samples, **common)
    listed = {(problem.kind, problem.file, problem.key) for problem in found.findings.listed}
    assert listed == {
        ("decoder_crashed", "000001.tar", "v1_00001"),
        ("timeout", "000001.tar", "v1_00002"),
    }
    assert (found.num_samples, found.num_decoded) == (8, 8)


def test_captions_that_do_not_fit_their_shards_are_named(intact: Path, tmp_path: Path) -> None:
    captions = make_captions(intact, tmp_path / "captions", without="video1_00002", extra="elsewhere_00000")
    write_captions(captions / "000002.parquet", [], model="other", source="1 bytes")
    (captions / "000000.parquet").write_bytes(b"PAR1")
    (captions / "000007.parquet").write_bytes(b"")
    found = verify(intact, "--captions", captions)
    rows = {(row["kind"], row["file"], row["key"]) for row in found["listed"]}
    assert {
        ("captions_unreadable", "000000.parquet", ""),
        ("captions_of_another_shard", "000001.parquet", "video1_00002"),
        ("captions_of_another_shard", "000001.parquet", "elsewhere_00000"),
        ("captions_checksum_differs", "000002.parquet", ""),
        ("captions_of_another_shard", "000002.parquet", ""),
        ("captions_of_another_shard", "000002.parquet", "video2_00004"),
    } <= rows
    assert not [row for row in rows if row[1].endswith(".tar")]
    assert found["broken"] == [f"00000{n}.parquet" for n in range(3)]
    assert ("unlisted", "captions/000007.parquet", "") in rows


def test_a_manifest_and_marks_that_disagree_are_told(made_by_stage: tuple[Path, tuple[object, ...]]) -> None:
    folder, command = made_by_stage
    before = content(folder)
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0', 1))
    assert verify(folder)["problems"] == {"damaged_manifest": 1}
    assert run(*command).exit_code == 0
    assert content(folder) == before
    manifest = json.loads(path.read_text())
    manifest["shards"][1]["sha256"] = "0" * 64
    write_records = [
        ShardRecord(r["name"], r["samples"], r["bytes"], r["sha256"]) for r in manifest["shards"]
    ]
    write_manifest(folder, stage="shard", options=manifest["options"], shards=write_records)
    assert verify(folder, "--repair")["problems"] == {"checksum_differs": 1, "mark_differs": 1}
    assert run(*command).exit_code == 0
    assert content(folder) == before


def test_records_with_sentences_pass(shards: Path) -> None:
    (shards / "manifest.json").unlink()
    for number, kind in enumerate(("paragraph", "alternatives")):
        changes = {"sentences": ["one", "two"], "sentences_are": kind, "later_field": {}}
        rewrite_record(shards / "000000.tar", f"video0_0000{number}", **changes)
    assert verify(shards)["counts"]["problems"] == 0


def test_damaged_lists_and_reports_are_told(shards: Path) -> None:
    (shards / "skipped.jsonl").write_text('{"reason": "timeout", "what": "a"}\n{"reason": "ti')
    (shards / "report.json").write_text("{")
    assert verify(shards)["problems"] == {"damaged_report": 1, "damaged_skips": 1}


def test_bad_arguments_are_one_line(tmp_path: Path, shards: Path) -> None:
    for arguments, code, words in (
        ((tmp_path / "nowhere",), 1, "no such folder"),
        ((tmp_path,), 1, "holds no *.tar files"),
        ((shards, "--captions", tmp_path), 1, "holds no *.parquet files"),
        ((shards, "--decode", "some"), 2, "neither 'all' nor 'none'"),
    ):
        result = run("verify", *arguments)
        assert result.exit_code == code
        assert words in result.stderr.splitlines()[-1]

"""Published annotation files, read as they are.

Real ones, small ones of the same layout, and damaged ones.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from clipvip.shards.errors import DatasetError
from clipvip.shards.sources.annotations import read_annotations, with_published_names
from clipvip.shards.sources.video_sets import find_annotation_file


def captions(name: str, path: Path) -> dict[str, tuple[str, ...]]:
    """Video -> sentences; no row may be bad."""
    sources = list(read_annotations(name, path))
    assert not [skip for source in sources for skip in source.skips]
    assert all(len(source.clips) == 1 and source.video_id for source in sources)
    assert len({source.line for source in sources}) == len(sources)
    return {source.video_id: source.clips[0].sentences for source in sources}


def write_msrvtt(folder: Path) -> Path:
    """Four videos in three splits, 2 sentences each; and the tables of the 1k-A protocol."""
    splits = ["train", "train", "validate", "test"]
    content = {
        "info": {"year": "2016"},
        "videos": [
            {"category": 9, "video_id": f"video{n}", "split": split, "id": n}
            for n, split in enumerate(splits)
        ],
        "sentences": [
            {"caption": f"sentence {k}  of {n} ", "video_id": f"video{n}", "sen_id": 2 * n + k}
            for k in range(2)
            for n in range(4)
        ],
    }
    (folder / "MSRVTT_data.json").write_text(json.dumps(content))
    (folder / "MSRVTT_train.9k.csv").write_text("video_id\nvideo0\nvideo2\n")
    (folder / "MSRVTT_JSFUSION_test.csv").write_text(
        'key,vid_key,video_id,sentence\nret0,msr3,video3,"a man, who talks"\nret1,msr1,video1,a dog\n'
    )
    return folder


def test_msrvtt(tmp_path: Path) -> None:
    folder = write_msrvtt(tmp_path)
    data = folder / "MSRVTT_data.json"
    assert captions("msrvtt/train", data) == {
        "video0": ("sentence 0 of 0", "sentence 1 of 0"),
        "video1": ("sentence 0 of 1", "sentence 1 of 1"),
    }
    assert list(captions("msrvtt/validate", data)) == ["video2"]
    assert list(captions("msrvtt/test", data)) == ["video3"]
    for given_path in (find_annotation_file("msrvtt/train9k", folder), data):
        assert list(captions("msrvtt/train9k", given_path)) == ["video0", "video2"]
    one_sentence = {"video3": ("a man, who talks",), "video1": ("a dog",)}
    for name in ("msrvtt/1ka", "msrvtt/test1ka"):
        assert captions(name, find_annotation_file(name, folder)) == one_sentence
    (source, *_) = read_annotations("msrvtt/train", data)
    assert source.clips[0].sentences_are == "alternatives"
    assert source.clips[0].text == ""  # two alternatives: none of them is the text


def test_msrvtt_under_the_names_of_its_challenge(tmp_path: Path) -> None:
    write_msrvtt(tmp_path)
    (tmp_path / "MSRVTT_data.json").rename(tmp_path / "train_val_videodatainfo.json")
    for split, videos in (("train", ["video0", "video1"]), ("validate", ["video2"])):
        assert list(captions(f"msrvtt/{split}", find_annotation_file(f"msrvtt/{split}", tmp_path))) == videos
    (tmp_path / "train_val_videodatainfo.json").rename(tmp_path / "MSRVTT_v2.json")
    assert len(captions("msrvtt/train9k", find_annotation_file("msrvtt/train9k", tmp_path))) == 2


def write_full_size(folder: Path) -> None:
    """Files of the sizes that the sets are published in and of their layout, with made-up words."""
    splits = ["train"] * 6513 + ["validate"] * 497 + ["test"] * 2990
    videos = [{"video_id": f"video{n}", "split": split} for n, split in enumerate(splits)]
    sentences = [{"caption": f"words {k}", "video_id": f"video{n}"} for n in range(10000) for k in range(20)]
    (folder / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    tested = list(range(7010, 9990, 3))[:990] + list(range(7011, 7041, 3))
    rows = [f'ret{k},msr{n},video{n},"a man, number {k % 996}"' for k, n in enumerate(tested)]
    (folder / "MSRVTT_JSFUSION_test.csv").write_text(
        "key,vid_key,video_id,sentence\n" + "\n".join(rows) + "\n"
    )
    listed = "".join(f"video{n}\n" for n in range(10000) if n not in set(tested))
    (folder / "MSRVTT_train.9k.csv").write_text("video_id\n" + listed)
    for name, count in (("train", 10009), ("val_1", 4917), ("val_2", 4885)):
        entry = {"duration": 9, "timestamps": [[0, 4], [4, 9]], "sentences": ["One.", " Two."]}
        (folder / f"{name}.json").write_text(json.dumps({f"v_{n:011d}": entry for n in range(count)}))
    # Of LSMDC's training clips some have several sentences, a line each.
    for name, lines, clips in (("annos_training", 101079, 101020), ("challenge_1000_publictect", 1000, 1000)):
        times = "00.00.01.000\t00.00.02.000\t00.00.01.000\t00.00.02.000"
        rows = [
            f"0001_A_Film_{n % clips:06d}.000-00.00.02.000\t{times}\tSOMEONE {n}.\n" for n in range(lines)
        ]
        (folder / f"LSMDC16_{name}.csv").write_text("".join(rows))


@pytest.mark.slow
def test_counts_of_files_of_published_size(tmp_path: Path) -> None:
    write_full_size(tmp_path)
    expected = {
        "msrvtt/train9k": (9000, 180_000),
        "msrvtt/1ka": (1000, 1000),
        "msrvtt/train": (6513, 130_260),
        "msrvtt/validate": (497, 9940),
        "msrvtt/test": (2990, 59_800),
        "activitynet/train": (10009, 20018),
        "activitynet/val1": (4917, 9834),
        "activitynet/val2": (4885, 9770),
        "lsmdc/train": (101_020, 101_079),
        "lsmdc/test1k": (1000, 1000),
    }
    for name, counts in expected.items():
        found = captions(name, find_annotation_file(name, tmp_path))
        assert (len(found), sum(map(len, found.values()))) == counts, name


@pytest.mark.needs_shared
@pytest.mark.parametrize(("split", "num_videos", "num_captions"), [("val", 1065, 4180), ("test", 1004, 4021)])
def test_the_published_didemo(shared_dir: Path, split: str, num_videos: int, num_captions: int) -> None:
    folder = shared_dir / "data" / "annotations"
    found = captions(f"didemo/{split}", find_annotation_file(f"didemo/{split}", folder))
    assert len(found) == num_videos
    assert sum(map(len, found.values())) == num_captions
    records = json.loads((folder / f"didemo_{split}_data.json").read_text())
    said = Counter(record["video"].rpartition(".")[0] for record in records)
    assert {video: len(sentences) for video, sentences in found.items()} == said


def test_a_didemo_paragraph_is_in_order_of_time(tmp_path: Path) -> None:
    spans = {
        "last": [[4, 5], [0, 0], [5, 5]],
        "first": [[0, 0], [0, 1]],
        "tie a": [[2, 3]],
        "tie b": [[2, 3]],
    }
    records = [
        {"video": "a@N0_1_b.mov", "description": text, "times": times} for text, times in spans.items()
    ]
    (tmp_path / "train_data.json").write_text(json.dumps(records))
    (source,) = read_annotations("didemo/train", find_annotation_file("didemo/train", tmp_path))
    assert source.video_id == "a@N0_1_b"
    assert source.clips[0].text == "first tie a tie b last"
    assert source.clips[0].sentences_are == "paragraph"


def test_activitynet(tmp_path: Path) -> None:
    entry = {"duration": 9.5, "timestamps": [[4.0, 9.5], [0, 4.2]], "sentences": [" then b. ", "first a."]}
    (tmp_path / "val_1.json").write_text(json.dumps({"v_x1": entry, "v_x2": {"sentences": ["c."]}}))
    path = find_annotation_file("activitynet/val1", tmp_path)
    assert captions("activitynet/val1", path) == {"v_x1": ("first a.", "then b."), "v_x2": ("c.",)}
    files = {"x1": "/a/x1.mkv", "v_x2": "/a/v_x2.mp4", "-x3": "/a/-x3.webm", "x4.avi": "/a/x4.avi.mp4"}
    paths = with_published_names("activitynet/val1", files)
    assert {f"v_{name.removeprefix('v_').removesuffix('.avi')}": file for name, file in files.items()} == {
        video: paths[video] for video in ("v_x1", "v_x2", "v_-x3", "v_x4")
    }


@pytest.mark.parametrize("header", ["", "video_id\tstart\tend\tstart\tend\tcaption\n"])
def test_lsmdc(tmp_path: Path, header: str) -> None:
    times = "\t".join(["00.00.51.926", "00.00.54.129"] * 2)
    rows = f"0001_American_Beauty_00.00.51.926-00.00.54.129\t{times}\tSOMEONE's eyes close.\n"
    rows += f"1010_TITANIC_00.41.32.072-00.41.40.196\t{times}\tA ship\t\n"
    (tmp_path / "LSMDC16_annos_training.csv").write_text(header + rows, encoding="cp1252")
    path = find_annotation_file("lsmdc/train", tmp_path)
    assert captions("lsmdc/train", path) == {
        "0001_American_Beauty_00.00.51.926-00.00.54.129": ("SOMEONE's eyes close.",),
        "1010_TITANIC_00.41.32.072-00.41.40.196": ("A ship",),
    }


def test_webvid(tmp_path: Path) -> None:
    text = "videoid,contentUrl,duration,page_dir,name\n"
    text += '11,https://host/11.mp4,PT00H00M30S,01_02,"Red, blue and\n green"\n12,https://host/12.mp4,x,01_02,Sea\n'
    (tmp_path / "results_10M_val.csv").write_text(text)
    path = find_annotation_file("webvid/val", tmp_path)
    assert captions("webvid/val", path) == {"11": ("Red, blue and green",), "12": ("Sea",)}


def test_the_released_codes_rows_stand_for_any_set(tmp_path: Path) -> None:
    rows = [{"clip_id": "dir/video7", "text": ["b", "a"]}, {"clip_id": "video8", "text": "c"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    expected = {"video7": ("b", "a"), "video8": ("c",)}
    assert captions("msrvtt/train9k", path) == expected
    assert captions("didemo/train", path) == expected
    assert [source.clips[0].text for source in read_annotations("didemo/train", path)] == ["b a", "c"]
    assert captions("captions", path) == expected


def test_records_are_in_order_of_their_times(tmp_path: Path) -> None:
    row = {"clip_id": "v_a", "text": ["last", "first"], "timestamps": [[3, 9], [0, 4]], "num_frame": 28}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (source,) = read_annotations("activitynet/val1", tmp_path / "rows.jsonl")
    assert source.clips[0].text == "first last"
    of_video = {"v_a": {"text": ["last", "first"], "start": [3, 0], "end": [9, 4]}}
    (tmp_path / "rows.json").write_text(json.dumps(of_video))
    (source,) = read_annotations("activitynet/val1", tmp_path / "rows.json")
    assert source.clips[0].text == "first last"


LSMDC_CLIP = "3086_UGLY_TRUTH_00.23.23.000-00.23.28.886"


@pytest.mark.parametrize(
    "content",
    [
        {LSMDC_CLIP: {"text": ["SOMEONE stands below."], "start": [0], "end": [5.88]}},
        [{"video": f"3086_UGLY_TRUTH/{LSMDC_CLIP}.avi", "caption": "SOMEONE stands below."}],
        [{"video": f"{LSMDC_CLIP}.mp4", "caption": ["SOMEONE stands  below."]}, {"video": 3}],
    ],
)
def test_lists_that_others_pass_on_stand_for_any_set(tmp_path: Path, content: object) -> None:
    path = tmp_path / "lsmdc_test.json"
    path.write_text(json.dumps(content))
    for name in ("lsmdc/test1k", "msrvtt/1ka", "msrvtt/test", "didemo/test", "activitynet/val1", "captions"):
        found = [source for source in read_annotations(name, path) if source.clips]
        assert [(s.video_id, s.clips[0].sentences) for s in found] == [
            (LSMDC_CLIP, ("SOMEONE stands below.",))
        ]


def test_a_test_with_several_sentences_for_a_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test1ka.jsonl"
    path.write_text('{"clip_id": "video7010", "text": ["a clip", "a tutorial"]}\n')
    for name, file in (("msrvtt/1ka", "MSRVTT_JSFUSION_test"), ("lsmdc/test1k", "LSMDC16_challenge")):
        with pytest.raises(DatasetError, match=f"has 2 sentences for video7010, but .*give {file}") as caught:
            list(read_annotations(name, path))
        assert "\n" not in str(caught.value)
    assert len(captions("msrvtt/train9k", path)["video7010"]) == 2


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    text = "a\u2028b\u0085c"  # JSON may hold these as they are
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"clip_id": "v", "text": text}, ensure_ascii=False) + "\r\n")
    assert captions("captions", path) == {"v": ("a b c",)}


def test_tables_are_utf8_or_windows_1252(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(
        b'\xef\xbb\xbf\nvideo,caption\r\na,"caf\xc3\xa9,\nnext line"\r\nb,caf\xe9 \x85\nc,\x81\n'
    )
    expected = {"a": ("café, next line",), "b": ("café …",), "c": ("�",)}
    assert captions("captions", path) == expected


def test_odd_numbers_and_characters_of_json(tmp_path: Path) -> None:
    path = tmp_path / "val_1.json"
    path.write_text(
        '{"v_a": {"sentences": ["b", "a \\ud800"], "timestamps": [[NaN, 1], [1, 2]]},'
        ' "v_b": {"sentences": ["b", "a"], "timestamps": [[1' + "0" * 400 + ", 1], [1, 2]]}}"
    )
    found = captions("activitynet/val1", path)
    assert found == {"v_a": ("b", "a ?"), "v_b": ("b", "a")}  # their order in the file


def test_tables_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("caption,video\nhello there,one\nagain,one.mp4\nother,folder/two.webm\n")
    assert captions("captions", path) == {"one": ("hello there", "again"), "two": ("other",)}
    assert [s.clips[0].text for s in read_annotations("paragraphs", path)] == ["hello there again", "other"]

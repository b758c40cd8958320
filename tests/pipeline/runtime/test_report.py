"""The closing report of a stage."""

import doctest
import json
from pathlib import Path

from clipvip.pipeline.runtime import report as report_module
from clipvip.pipeline.runtime.report import Report
from clipvip.shards.errors import Skip


def test_skips_are_counted_by_reason_and_all_listed(tmp_path: Path) -> None:
    report = Report("shard", options={"fps": 3.0}, counts={"clips": 7})
    report.skips += [Skip("bad_span", f"v.{n}.mp4", "reversed") for n in range(9)]
    report.skips.append(Skip("missing_video", "w"))
    report.write(tmp_path, seconds=2.0, done_now=4, unit="clips")

    content = json.loads((tmp_path / "report.json").read_text())
    assert content["counts"] == {"clips": 7}
    assert content["skipped"] == 10
    assert {reason: entry["count"] for reason, entry in content["skipped_by_reason"].items()} == {
        "bad_span": 9,
        "missing_video": 1,
    }
    assert len(content["skipped_by_reason"]["bad_span"]["examples"]) == 5
    assert content["this_run"] == {"seconds": 2.0, "clips": 4, "clips_per_second": 2.0}
    lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    assert lines[-1] == {"reason": "missing_video", "what": "w", "detail": ""}
    assert "bad_span 9, missing_video 1" in report.summary(tmp_path)


def test_one_of_them_is_not_many() -> None:
    """The examples of what the terminal is told."""
    found = doctest.testmod(report_module)
    assert found.attempted >= 4 and found.failed == 0
    assert report_module.counted(1, "classes") == "1 class"

"""`clipvip-data download` of what a web server on this machine has."""

import json
from pathlib import Path

from click.testing import Result

import commands
from video_server import VideoServer

QUICK = ["--sleep", "0", "--retry-wait", "0.05", "--workers", "2"]


def download(metadata: Path, out: Path, *options: str) -> Result:
    return commands.run("download", "--metadata", str(metadata), "--out", str(out), *QUICK, *options)


def outcomes(out: Path) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in (out / "archive.jsonl").read_text().splitlines()]
    return {row["video_id"]: (row["outcome"], row.get("reason", "")) for row in rows}


def write_list(path: Path, site: VideoServer, *names: str) -> Path:
    rows = [{"video_id": name.split(".")[0], "url": f"{site.url}/{name}"} for name in names]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

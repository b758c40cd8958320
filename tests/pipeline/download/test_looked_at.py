"""What was fetched is looked at before it is kept: it must be a video, whatever its tags say."""

from pathlib import Path
from typing import Any

import av
import numpy as np

from download_runs import download, outcomes, write_list
from video_server import VideoServer


def test_tags_in_any_encoding_are_no_matter_and_what_is_no_video_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    with av.open(str(folder / "tagged.mp4"), "w") as container:
        container.metadata["title"] = "cafe"
        pictures: Any = container.add_stream("libx264", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 96, "yuv420p"
        container.mux([*pictures.encode(av.VideoFrame(160, 96, "yuv420p")), *pictures.encode(None)])
    with av.open(str(folder / "sound.mp4"), "w") as container:
        sound: Any = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux([*sound.encode(frame), *sound.encode(None)])
    tagged = (folder / "tagged.mp4").read_bytes()
    assert tagged.count(b"cafe") == 1
    (folder / "tagged.mp4").write_bytes(tagged.replace(b"cafe", b"caf\xe9"))
    (folder / "playlist.mp4").write_text("ffconcat version 1.0\nfile tagged.mp4\n")
    with VideoServer(folder).running() as site:
        metadata = write_list(tmp_path / "list.jsonl", site, "tagged.mp4", "sound.mp4", "playlist.mp4")
        result = download(metadata, tmp_path / "out", "--retries", "0")
    assert result.exit_code == 0, result.output
    assert outcomes(tmp_path / "out") == {
        "tagged": ("fetched", ""),
        "sound": ("permanent", "not_a_video"),
        "playlist": ("passing", "damaged"),
    }
    assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == {"tagged.mp4"}

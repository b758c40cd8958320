"""Single frames of the world to train the tiny models on, as a stage would read them: through H.264 and JPEG.

Says nothing of motion: a frame is taken out of a clip that is never seen.
"""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
import simplejpeg

from clipvip.experiments.demo.render import HEIGHT, WIDTH, render_frame
from clipvip.experiments.demo.world import Scene, World, chance_of, draw_scene
from clipvip.media.jpeg import encode_jpeg

FPS = 8
_CHUNK = 500


def write_mp4(file: Any, pictures: Iterable[np.ndarray], **options: str) -> None:
    """Encode pictures, uint8 (HEIGHT, WIDTH, 3), as H.264 into `file`; `options` are x264's."""
    with av.open(file, "w", format="mp4") as container:
        settings = {"preset": "veryfast", "threads": "1", **options}
        stream: Any = container.add_stream("libx264", rate=FPS, options=settings)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def draw_pictures(
    world: World, name: str, *, count: int, times: tuple[float, float]
) -> Iterator[tuple[list[Scene], np.ndarray]]:
    """Yield up to 500 scenes and one frame of each, uint8 (scenes, HEIGHT, WIDTH, 3), `count` in all.

    Frames are taken at random between `times`, 0 to 1. `name` keeps draws for different uses apart.
    """
    chance = chance_of(world, "pictures", name)
    for start in range(0, count, _CHUNK):
        scenes = [draw_scene(chance, world) for _ in range(min(_CHUNK, count - start))]
        frames = [render_frame(scene, chance.uniform(*times)) for scene in scenes]
        compressed = _through_h264(frames, crf=chance.choice((20, 24, 28)))
        stored = [simplejpeg.decode_jpeg(encode_jpeg(frame, quality=90)) for frame in compressed]
        yield scenes, np.stack(stored)


def _through_h264(frames: list[np.ndarray], *, crf: int) -> list[np.ndarray]:
    """Each frame as it looks after it was shown three times running in a video: the last of the three."""
    buffer = io.BytesIO()
    write_mp4(buffer, (frame for frame in frames for _ in range(3)), crf=str(crf))
    buffer.seek(0)
    with av.open(buffer, "r") as video:
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    return shown[2::3]

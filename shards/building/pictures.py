"""A picture of others as a stored clip of one frame, by the rules of frames of videos."""

from fractions import Fraction

import av
from av.video.reformatter import VideoReformatter

from clipvip.media.errors import MediaError
from clipvip.media.images import decode_image
from clipvip.media.jpeg import encode_jpeg_planes
from clipvip.media.mp4 import Mp4Encoder
from clipvip.media.pictures import geometry_of, scale, split_planes
from clipvip.shards.building.cutting import CutOptions
from clipvip.shards.errors import Skip
from clipvip.shards.format.clip import Clip, StoredClip

_MOST_PIXELS = 1 << 28


def cut_picture(data: bytes, clip: Clip, *, subtitle: str, options: CutOptions) -> StoredClip | Skip:
    """The stored clip, which takes no time; a Skip (`undecodable_picture`) where it does not decode."""
    try:
        picture = decode_image(data, _MOST_PIXELS)
        if min(picture.shape[:2]) < 2:
            raise MediaError(f"is of {picture.shape[1]} x {picture.shape[0]} pixels")
    except MediaError as error:
        return Skip("undecodable_picture", clip.clip_id, str(error))
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    shape = geometry_of(frame, Fraction(1), options.size)
    planar = scale(frame, shape, VideoReformatter())
    if options.store == "frames":
        planes = split_planes(planar, shape.width, shape.height)
        pixels = encode_jpeg_planes(*planes, quality=options.quality)
    else:
        encoder = Mp4Encoder(shape.width, shape.height, fps=options.fps, crf=options.quality)
        encoder.add(planar, 0.0)
        pixels = encoder.finish()
    return StoredClip.of(
        Clip(clip.key, clip.video_id, clip.clip_id, 0.0, 0.0, clip.sentences, clip.sentences_are),
        subtitle=subtitle,
        pixels=pixels,
        frame_seconds=(0.0,),
        frame_bytes=[len(pixels)] if options.store == "frames" else [],
        width=shape.width,
        height=shape.height,
        source_width=shape.source_width,
        source_height=shape.source_height,
        source_fps=0.0,
    )

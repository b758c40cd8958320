"""The names that annotations may call a clip by, for questions and labels that are about clips.

Reading annotations, and shards, is done elsewhere.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

from clipvip.shards.sources.hdvila import VIDEO_EXTENSIONS
from clipvip.shards.tar.reader import Sample


@dataclass(frozen=True)
class ClipName:
    """What the metadata of a clip says that it is."""

    key: str
    clip_id: str
    video_id: str

    @classmethod
    def of(cls, sample: Sample) -> "ClipName":
        """The names of a clip of a shard."""
        return cls(sample.key, sample.record.clip_id, sample.record.video_id)

    def all(self) -> list[str]:
        """From the most to the least particular."""
        return [name for name in (self.key, self.clip_id, self.video_id) if name]


def names_for(name: str) -> list[str]:
    """What a clip that annotations call `name` may be called in shards: so, or without folders and extension.

    JSFusion's `msr7010` is MSR-VTT's `video7010`.
    """
    base = name.strip().rpartition("/")[2]
    path = PurePosixPath(base)
    stem = path.stem if path.suffix.lower() in VIDEO_EXTENSIONS else base
    found = [name.strip(), base, stem]
    if stem.startswith("msr") and stem[3:].isdecimal():
        found.append(f"video{stem[3:]}")
    return list(dict.fromkeys(found))

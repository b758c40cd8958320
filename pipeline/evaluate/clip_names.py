"""The names that annotations may call a clip by, for questions and labels that are about clips."""

from dataclasses import dataclass

from clipvip.shards.files.names import same_name
from clipvip.shards.sources.video_set_files import video_name
from clipvip.shards.tar.reader import Sample


@dataclass(frozen=True)
class ClipName:
    """What the metadata of a clip says that it is, as `same_name` has it."""

    key: str
    clip_id: str
    video_id: str

    @classmethod
    def of(cls, sample: Sample) -> "ClipName":
        """The names of a clip of a shard."""
        return cls(sample.key, same_name(sample.clip_id), same_name(sample.video_id))

    def all(self) -> list[str]:
        """From the most to the least particular."""
        return [name for name in (self.key, self.clip_id, self.video_id) if name]


def names_for(name: str) -> list[str]:
    """What shards may call a clip: `name`, also without folders and extension; `msr7010` is `video7010`.

    They are as `same_name` has them.
    """
    name = same_name(name)
    stem = video_name(name)
    found = [name.strip(), name.strip().rpartition("/")[2], stem]
    if stem.startswith("msr") and stem[3:].isdecimal():
        found.append(f"video{stem[3:]}")
    return list(dict.fromkeys(found))

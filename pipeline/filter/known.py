"""All tables of a folder together: what a choice among the clips is made by."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clipvip.pipeline.filter.scores import known_table
from clipvip.pipeline.filter.selection import NO_GROUP, Clips
from clipvip.pipeline.filter.table import FAMILIES, NUMBERS, Family
from clipvip.pipeline.search.index import Shard
from clipvip.shards.errors import Skip
from clipvip.shards.files.hashes import key_hash, key_hashes
from clipvip.shards.files.stores import Location


@dataclass(frozen=True)
class Known:
    """The clips of `shards` in order, 68 bytes each; `made_of` has the families that all have alike.

    `hashes` are those of their keys, which two shards may have alike.
    """

    out: Location
    shards: Sequence[Shard]
    clips: Clips
    made_of: dict[Family, str]
    ends: np.ndarray
    hashes: np.ndarray

    def keys(self, chosen: np.ndarray) -> Iterator[str]:
        """The keys of the chosen, a bool for each clip, in order."""
        first = 0
        for shard, end in zip(self.shards, self.ends, strict=True):
            if chosen[first:end].any():
                keys = known_table(self.out, shard).keys
                yield from (keys[place] for place in np.flatnonzero(chosen[first:end]))
            first = int(end)

    def find(self, places: Sequence[int]) -> list[tuple[Shard, str]]:
        """The shard and the key of clips by their places."""
        numbers = np.searchsorted(self.ends, places, side="right")
        keys = {int(number): known_table(self.out, self.shards[number]).keys for number in set(numbers)}
        starts = self.ends - np.diff(self.ends, prepend=0)
        return [
            (self.shards[number], keys[int(number)][place - int(starts[number])])
            for place, number in zip(places, numbers, strict=True)
        ]

    def similar_to(self, places: Sequence[int]) -> list[str]:
        """The keys of the clips that these are most like."""
        found: dict[str, str | None] = {}
        for shard, key in self.find(places):
            if key not in found:
                table = known_table(self.out, shard)
                found |= dict(zip(table.keys, table.texts("similar_to"), strict=True))
        return [found[key] or "" for _, key in self.find(places)]

    def counts_of_languages(self) -> Counter[str]:
        names, counts = np.unique(self.clips.languages, return_counts=True)
        pairs = zip(names.tolist(), counts.tolist(), strict=True)
        return Counter({self.clips.language_names[name]: count for name, count in pairs if name >= 0})


@dataclass(frozen=True)
class TableSkips:
    """What the tables say of clips that were left out or not measured, as often as it is asked for."""

    out: Location
    shards: Sequence[Shard]

    def __iter__(self) -> Iterator[Skip]:
        for shard in self.shards:
            yield from known_table(self.out, shard).skips


def read_known(out: Location, shards: Sequence[Shard]) -> Known:
    """Read the tables of all shards; DatasetError: one is damaged."""
    made_of: dict[Family, str] = {}
    shared: set[Family] = set(FAMILIES)
    numbers: dict[str, list[np.ndarray]] = {name: [] for name in NUMBERS}
    languages: dict[str, int] = {}
    language, groups, leaks, hashes = (list[np.ndarray]() for _ in range(4))
    counts = list[int]()
    for shard in shards:
        table = known_table(out, shard)
        count = len(table.keys)
        counts.append(count)
        hashes.append(key_hashes(table.keys))
        # What a shard is measured by differs from shard to shard.
        shared &= {f for f, of in table.made_of.items() if f == "measures" or made_of.get(f, of) == of}
        made_of = table.made_of | made_of
        unknown = np.full(count, np.nan, np.float32)
        for name, parts in numbers.items():
            parts.append(table.numbers(name) if name in table.columns else unknown)
        names = table.texts("language")
        codes = [-1 if name is None else languages.setdefault(name, len(languages)) for name in names]
        language.append(np.array(codes, np.int16))
        first = table.texts("duplicates") if "duplicates" in table.columns else [None] * count
        groups.append(np.array([NO_GROUP if key is None else key_hash(key) for key in first], np.uint64))
        leak = table.texts("leak") if "leak" in table.columns else [None] * count
        leaks.append(np.array([one is not None for one in leak], bool))
    clips = Clips(
        numbers={name: np.concatenate(parts) for name, parts in numbers.items()},
        languages=np.concatenate(language),
        language_names=list(languages),
        groups=np.concatenate(groups),
        leaks=np.concatenate(leaks),
    )
    of = {family: made_of[family] for family in FAMILIES if family in shared}
    return Known(out, shards, clips, of, np.cumsum(counts), np.concatenate(hashes))

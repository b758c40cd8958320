"""Which clips are kept: a pure function of what is known of all clips, and conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

NO_GROUP = 0


@dataclass(frozen=True)
class Clips:
    """What is known of all clips, in the order of the data set: arrays of one length.

    `numbers` are columns by name, float32 with NaN where it is not known. `languages` are numbers of names in
    `language_names`, -1 for none; `groups` tells which clips are near-duplicates of each other, NO_GROUP:
    of none; `leaks`: whether a test set has the clip.
    """

    numbers: Mapping[str, np.ndarray]
    languages: np.ndarray
    language_names: Sequence[str]
    groups: np.ndarray
    leaks: np.ndarray

    def __len__(self) -> int:
        return len(self.languages)


@dataclass(frozen=True)
class Bound:
    """A condition on a column, `least` or `most` (itself included); what is not known does not meet it."""

    option: str
    column: str
    least: float | None = None
    most: float | None = None

    @property
    def cut(self) -> float:
        value = self.least if self.least is not None else self.most
        assert value is not None
        return value

    def __str__(self) -> str:
        return f"{self.option} {self.cut:g}"

    def met(self, values: np.ndarray) -> np.ndarray:
        """bool for each value; compared as float32, which the values are."""
        if self.least is not None:
            found: np.ndarray = values >= np.float32(self.least)
            return found
        return values <= np.float32(self.cut)


@dataclass(frozen=True)
class Conditions:
    """What a clip has to meet. `top` is a part of those that meet all else, those of the highest `by`."""

    bounds: Sequence[Bound] = ()
    languages: Sequence[str] = ()
    drops_leaks: bool = False
    max_duplicates: int | None = None
    top: float | None = None
    by: str = "score"

    def __bool__(self) -> bool:
        others = (self.languages, self.drops_leaks, self.max_duplicates is not None, self.top is not None)
        return bool(self.bounds) or any(others)


@dataclass(frozen=True)
class Selection:
    """`kept`: bool for each clip; `dropped`: how many each condition drops.

    Of those of a clip by itself each is counted alone. `cut` is the least `by` that `top` keeps.
    """

    kept: np.ndarray
    dropped: dict[str, int] = field(default_factory=dict)
    cut: float | None = None


def select(clips: Clips, conditions: Conditions) -> Selection:
    """Keep the clips that meet all conditions.

    Those on clips by themselves come first, then of near-duplicates the best are taken, and at last the top.
    """
    kept = np.ones(len(clips), bool)
    dropped: dict[str, int] = {}
    alone = [(str(bound), bound.met(clips.numbers[bound.column])) for bound in conditions.bounds]
    if conditions.languages:
        wanted = [n for n, name in enumerate(clips.language_names) if name in conditions.languages]
        alone.append((f"--language {','.join(conditions.languages)}", np.isin(clips.languages, wanted)))
    if conditions.drops_leaks:
        alone.append(("--drop-leaks", ~clips.leaks))
    for name, met in alone:
        dropped[name] = int((~met).sum())
        kept &= met
    by = clips.numbers.get(conditions.by, np.zeros(len(clips), np.float32))
    if conditions.max_duplicates is not None:
        few = kept & _few_of_each(kept, clips.groups, by, conditions.max_duplicates)
        dropped[f"--max-duplicates {conditions.max_duplicates}"] = int(kept.sum() - few.sum())
        kept = few
    if conditions.top is None:
        return Selection(kept, dropped)
    known = kept & ~np.isnan(by)
    order = _best_first(np.flatnonzero(known), by)
    best = order[: max(1, round(conditions.top * len(order)))]
    in_top = np.zeros(len(clips), bool)
    in_top[best] = True
    dropped[f"--top {conditions.top:g}"] = int(kept.sum() - len(best))
    return Selection(in_top, dropped, float(by[best].min()) if len(best) else None)


def _best_first(places: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Places by falling value, unknown ones last; equal ones in order."""
    values = np.where(np.isnan(by[places]), -np.inf, by[places])
    return places[np.argsort(-values, kind="stable")]


def _few_of_each(kept: np.ndarray, groups: np.ndarray, by: np.ndarray, most: int) -> np.ndarray:
    """Of the kept clips of each group the `most` best; those of no group all."""
    result = kept & (groups == NO_GROUP)
    order = _best_first(np.flatnonzero(kept & (groups != NO_GROUP)), by)
    order = order[np.argsort(groups[order], kind="stable")]
    sorted_groups = groups[order]
    # 7 7 7 9 9 begin at 0 0 0 3 3, and so are their group's numbers 0, 1, 2, 0 and 1.
    starts = np.searchsorted(sorted_groups, sorted_groups, side="left")
    result[order[np.arange(len(order)) - starts < most]] = True
    return result

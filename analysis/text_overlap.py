"""Which of some texts another text is, or has most of: exact by words, or near by runs of three."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

_RUN = 3
_FEWEST_RUNS = 4
NEAR = 0.8
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """The number of a text that was found, and how much of it: `share` of its runs, 1 of the same words."""

    number: int
    share: float
    is_exact: bool


def words_of(text: str) -> list[str]:
    """Words without case and punctuation, in compatible characters: "Ｏne-TWO!" is one, two."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


@dataclass
class TextIndex:
    """Texts to be found in others. Memory grows by these alone: some hundred bytes a word."""

    texts: Sequence[str]
    _exact: dict[str, int] = field(default_factory=dict, init=False)
    _runs: dict[tuple[str, ...], list[int]] = field(default_factory=dict, init=False)
    _num_runs: dict[int, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for number, text in enumerate(self.texts):
            words = words_of(text)
            if words:
                self._exact.setdefault(" ".join(words), number)
            runs = _runs_of(words)
            if len(runs) >= _FEWEST_RUNS:
                self._num_runs[number] = len(runs)
                for run in runs:
                    self._runs.setdefault(run, []).append(number)

    def find(self, text: str) -> Overlap | None:
        """The text with the same words; or that of which `text` has the most, NEAR of its runs or more.

        A run is three words that follow each other; texts of fewer than four different ones, such as one of
        five words, are found by the same words alone. Of equals the first.
        """
        words = words_of(text)
        exact = self._exact.get(" ".join(words)) if words else None
        if exact is not None:
            return Overlap(exact, 1.0, is_exact=True)
        shared = Counter(number for run in _runs_of(words) for number in self._runs.get(run, ()))
        shares = {number: count / self._num_runs[number] for number, count in shared.items()}
        best = min(shares, key=lambda number: (-shares[number], number), default=None)
        if best is None or shares[best] < NEAR:
            return None
        return Overlap(best, shares[best], is_exact=False)


def _runs_of(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)}

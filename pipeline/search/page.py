"""What a search found, with the clips' records; and as a page, the clips of each sentence, best first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from clipvip.pipeline.pages.cards import Cards, Pick, draw_cards, pick_keys, texts_of
from clipvip.pipeline.pages.html import Section, render_page
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.search.index import Hit
from clipvip.shards.files.stores import Location

_CARDS_PER_WORKER = 8


@dataclass(frozen=True)
class Found:
    """One line of an answer: rank from 1, cosine similarity, and the clip with its record and texts."""

    rank: int
    similarity: float
    clip: Pick

    @property
    def text(self) -> str:
        """The subtitle, or the first sentence of a clip that has several."""
        return next((text for _, text in texts_of(self.clip)), "")


def look_up(answers: Sequence[Sequence[Hit]]) -> list[list[Found]]:
    """Read the clips of each answer, each shard's headers once; one that is not found has a `problem`."""
    keys: dict[Location, set[str]] = {}
    for hit in chain.from_iterable(answers):
        keys.setdefault(hit.shard, set()).add(hit.key)
    records: dict[tuple[Location, str], Pick] = {}
    for shard, wanted in keys.items():
        for pick in pick_keys([shard], list(wanted)):
            records.setdefault((shard, pick.key), pick)
    problem = "its record cannot be read; 'clipvip-data verify' says why"

    def found(rank: int, hit: Hit) -> Found:
        missing = Pick(hit.shard, 0, hit.key, problem=problem)
        return Found(rank, hit.similarity, records.get((hit.shard, hit.key), missing))

    return [[found(rank, hit) for rank, hit in enumerate(hits, start=1)] for hits in answers]


def search_page(
    sentences: Sequence[str], answers: Sequence[Sequence[Found]], *, num_clips: int, num_frames: int
) -> bytes:
    """For each sentence its clips with `num_frames` frames each."""
    picks = [
        replace(found.clip, notes=((f"rank {found.rank}", f"similarity {found.similarity:.4f}"),))
        for found in chain.from_iterable(answers)
    ]
    # A process takes as long to start as some cards to draw.
    workers = min(num_cores(), -(-len(picks) // _CARDS_PER_WORKER))
    cards = iter(draw_cards(picks, num_frames=num_frames, workers=workers))
    sections = []
    for sentence, answer in zip(sentences, answers, strict=True):
        note = f"{len(answer):,} of {num_clips:,} clips"
        sections.append(Section(sentence, note, [Cards(list(islice(cards, len(answer))))]))
    return render_page("Clips by sentence", sections)

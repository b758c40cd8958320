"""What a search found, with the clips' records; and as a page, the clips of each sentence, best first."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from clipvip.pipeline.pages.cards import Cards, Pick, draw_cards, pick_keys
from clipvip.pipeline.pages.html import Section, render_page
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.search.index import Hit
from clipvip.shards.files.stores import Location

_CARDS_PER_WORKER = 8


def look_up(hits: Collection[Hit]) -> dict[Hit, Pick]:
    """Read the clips of hits, each shard's headers once; one that is not found has a `problem`."""
    keys: dict[Location, set[str]] = {}
    for hit in hits:
        keys.setdefault(hit.shard, set()).add(hit.key)
    picks: dict[tuple[Location, str], Pick] = {}
    for shard, wanted in keys.items():
        for pick in pick_keys([shard], list(wanted)):
            picks.setdefault((shard, pick.key), pick)
    problem = "its record cannot be read; 'clipvip-data verify' says why"
    return {
        hit: picks.get((hit.shard, hit.key)) or Pick(hit.shard, 0, hit.key, problem=problem) for hit in hits
    }


def search_page(
    answers: Sequence[tuple[str, Sequence[Sequence[Hit]]]],
    picks: Mapping[Hit, Pick],
    *,
    models: Sequence[str],
    num_clips: int,
    num_frames: int,
) -> bytes:
    """For each sentence its clips, as `picks` has them, with `num_frames` frames each.

    A sentence has an answer of each of `models`; those of several stand side by side under their names.
    """
    shown = [
        replace(picks[hit], notes=((f"rank {rank}", f"similarity {hit.similarity:.4f}"),))
        for _, of_models in answers
        for hits in of_models
        for rank, hit in enumerate(hits, start=1)
    ]
    # A process takes as long to start as some cards to draw.
    workers = min(num_cores(), -(-len(shown) // _CARDS_PER_WORKER))
    cards = iter(draw_cards(shown, num_frames=num_frames, workers=workers))
    titles = models if len(models) > 1 else [""]
    sections = []
    for sentence, of_models in answers:
        note = f"{len(of_models[0]):,} of {counted(num_clips, 'clips')}"
        blocks = [
            Cards(list(islice(cards, len(hits))), title)
            for hits, title in zip(of_models, titles, strict=True)
        ]
        sections.append(Section(sentence, note, blocks))
    return render_page("Clips by sentence", sections)

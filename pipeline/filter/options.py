"""The options of the stage `filter`."""

from collections.abc import Mapping
from typing import Literal, get_args

from clipvip.pipeline.evaluate.options import EncodingOptions
from clipvip.pipeline.filter.selection import Bound, Conditions
from clipvip.pipeline.runtime.options import (
    ALSO,
    Captions,
    Listed,
    Named,
    PlaceType,
    at_least,
    finite,
    opt,
    options,
)
from clipvip.shards.files.stores import Location

KEEP_NAME, INDEX_FOLDER = "keep.txt", "embeddings"
SIMILARITY = 0.95
By = Literal["score", "caption_score", "motion", "words", "seconds"]
BY: tuple[By, ...] = get_args(By)
BOUNDS = ("score", "caption_score", "words", "seconds", "motion")


def bound(help: str, least: float, most: float | None = None) -> float | None:
    found: float | None = opt(help, finite(least, most), default=None)
    return found


@options
class FilterOptions(EncodingOptions):
    """Options of `filter`."""

    shards: Location = opt(f"Folder of shards; {ALSO}.")
    captions: Captions = ()
    out: Location = opt(f"Folder for the columns, a file for each shard, the list and the page; {ALSO}.")
    model: str | None = opt(
        f"A CLIP-ViP model, or a plain CLIP or SigLIP, to score clips and texts by, and to find "
        f"near-duplicates; {ALSO}.",
        metavar="FOLDER_OR_NAME",
        shown="none; known scores are kept",
        default=None,
    )
    index: Location | None = opt(
        f"Folder of the embeddings, which may be an index of 'clipvip-eval search'; {ALSO}.",
        PlaceType(file_okay=False),
        shown=f"{INDEX_FOLDER}/ in --out",
        default=None,
    )
    tests: Mapping[str, str | Location] = opt(
        "A test set by name: a folder of shards, or a file with a text a line; clips that it has too are "
        f"reported; {ALSO}; repeatable.",
        Named(),
        names=("--test",),
        metavar="NAME=PATH",
        default=(),
    )
    duplicate_similarity: float | None = opt(
        "Least cosine of two near-duplicates, or of a clip and the same clip in a test set.",
        finite(0, 1, above=True),
        shown=f"{SIMILARITY}; without --model, that of the last run",
        default=None,
    )
    min_score: float | None = bound("Keep clips whose subtitle scores at least this.", -1, 1)
    min_caption_score: float | None = bound("Keep clips whose caption scores at least this.", -1, 1)
    min_words: float | None = bound("Keep clips whose subtitle has at least this many words.", 0)
    max_words: float | None = bound("Keep clips whose subtitle has at most this many words.", 0)
    min_seconds: float | None = bound("Keep clips of this length or longer.", 0)
    max_seconds: float | None = bound("Keep clips of this length or shorter.", 0)
    min_motion: float | None = bound("Keep clips with at least this much motion; 0: a still picture.", 0, 255)
    max_motion: float | None = bound("Keep clips with at most this much motion, of 255.", 0, 255)
    language: tuple[str, ...] = opt(
        "Keep clips whose subtitle is in one of these languages, such as en,de; und: language unknown.",
        Listed(r"[a-z]{2,3}", "codes of languages, as en,de"),
        default=(),
    )
    drop_leaks: bool = opt("Drop clips that a test set has too.", default=False)
    max_duplicates: int | None = opt(
        "Keep at most this many clips of each group of near-duplicates, those with the highest --by.",
        at_least(1),
        default=None,
    )
    top: float | None = opt(
        "Keep this fraction of the clips that meet all other conditions, those with the highest --by.",
        finite(0, 1, above=True),
        default=None,
    )
    by: By = opt("Column by which --top and --max-duplicates choose.", default="score")
    keep: Location | None = opt(
        f"File for the list of clips to keep, one key a line; {ALSO}.",
        PlaceType(dir_okay=False),
        shown=f"{KEEP_NAME} in --out",
        default=None,
    )
    num: int = opt("Clips on the page at each side of a cut.", at_least(0), default=4)

    def conditions(self) -> Conditions:
        """What a clip has to meet."""
        bounds = []
        for column in BOUNDS:
            least, most = (getattr(self, f"{side}_{column}", None) for side in ("min", "max"))
            option = column.replace("_", "-")
            if least is not None:
                bounds.append(Bound(f"--min-{option}", column, least=least))
            if most is not None:
                bounds.append(Bound(f"--max-{option}", column, most=most))
        return Conditions(bounds, self.language, self.drop_leaks, self.max_duplicates, self.top, self.by)

    def packages(self) -> dict[str, str]:
        wanted = {"py3langid": "--language"} if self.language else {}
        return super().packages() | wanted | ({"faiss": "filter --model"} if self.model is not None else {})

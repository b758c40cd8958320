"""Which clips are kept, against a plain account of the conditions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipvip.pipeline.filter.selection import NO_GROUP, Bound, Clips, Conditions, select

LANGUAGES = ["en", "de", "und"]
UNKNOWN = float("nan")
ROW = st.tuples(
    st.sampled_from([UNKNOWN, 0.0, 0.25, 0.5, 0.75, 1.0]),
    st.integers(0, 5),
    st.integers(-1, 2),
    st.sampled_from([NO_GROUP, 7, 8]),
    st.booleans(),
)
Row = tuple[float, int, int, int, bool]


def clips_of(rows: list[Row]) -> Clips:
    score, words, language, group, leak = zip(*rows, strict=True) if rows else ((),) * 5
    return Clips(
        numbers={"score": np.array(score, np.float32), "words": np.array(words, np.float32)},
        languages=np.array(language, np.int16),
        language_names=LANGUAGES,
        groups=np.array(group, np.uint64),
        leaks=np.array(leak, bool),
    )


def meets(row: Row, conditions: Conditions) -> bool:
    score, words, language, _, leak = row
    for bound in conditions.bounds:
        value = {"score": score, "words": words}[bound.column]
        if bound.least is not None and not value >= bound.least:
            return False
        if bound.most is not None and not value <= bound.most:
            return False
    if conditions.languages and (language < 0 or LANGUAGES[language] not in conditions.languages):
        return False
    return not (conditions.drops_leaks and leak)


BOUNDS = st.lists(
    st.builds(
        lambda column, value, is_least: Bound(
            f"--x-{column}", column, **{"least" if is_least else "most": value}
        ),
        st.sampled_from(["score", "words"]),
        st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0]),
        st.booleans(),
    ),
    max_size=2,
)
CONDITIONS = st.builds(
    Conditions,
    bounds=BOUNDS,
    languages=st.lists(st.sampled_from(["en", "de", "fr"]), max_size=2, unique=True),
    drops_leaks=st.booleans(),
)


@given(st.lists(ROW, max_size=25), CONDITIONS)
def test_what_meets_all_conditions_is_kept(rows: list[Row], conditions: Conditions) -> None:
    chosen = select(clips_of(rows), conditions)
    assert chosen.kept.tolist() == [meets(row, conditions) for row in rows]
    assert chosen.cut is None


@given(st.lists(ROW, max_size=25), CONDITIONS, st.integers(1, 3), st.floats(0.01, 1))
def test_the_best_are_kept_of_each_group_and_at_the_top(
    rows: list[Row], conditions: Conditions, most: int, top: float
) -> None:
    def rank(number: int) -> tuple[float, int]:
        score = rows[number][0]
        return (np.inf if np.isnan(score) else -score, number)

    alone = [number for number, row in enumerate(rows) if meets(row, conditions)]
    few = []
    for number in sorted(alone, key=rank):
        group = rows[number][3]
        if group == NO_GROUP or sum(rows[other][3] == group for other in few) < most:
            few.append(number)
    both = Conditions(conditions.bounds, conditions.languages, conditions.drops_leaks, most)
    assert np.flatnonzero(select(clips_of(rows), both).kept).tolist() == sorted(few)

    scored = sorted((number for number in few if not np.isnan(rows[number][0])), key=rank)
    wanted = scored[: max(1, round(top * len(scored)))]
    with_top = Conditions(both.bounds, both.languages, both.drops_leaks, most, top)
    chosen = select(clips_of(rows), with_top)
    assert np.flatnonzero(chosen.kept).tolist() == sorted(wanted)
    assert chosen.cut == (rows[wanted[-1]][0] if wanted else None)


@given(st.lists(ROW, min_size=1, max_size=25), CONDITIONS, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_smaller_top_lies_in_a_larger(
    rows: list[Row], conditions: Conditions, one: float, other: float
) -> None:
    kept = []
    for top in sorted((one, other)):
        asked = Conditions(conditions.bounds, conditions.languages, conditions.drops_leaks, top=top)
        kept.append(select(clips_of(rows), asked).kept)
    assert (kept[0] <= kept[1]).all()

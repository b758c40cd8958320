"""The order of samples: each once an epoch, in groups of shards, the same for everybody."""

import pickle
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.pipeline.train.order import BatchOrder, SampleOrder, share, split_by_weight

counts = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def walk(order: SampleOrder, epoch: int) -> list[tuple[int, int]]:
    return [order.locate(epoch, position) for position in range(order.num_samples)]


@given(counts, st.integers(0, 5), st.integers(1, 5), st.integers(0, 3))
def test_every_sample_once_an_epoch(samples: list[int], seed: int, group: int, epoch: int) -> None:
    order = SampleOrder(samples, seed=seed, group_shards=group)
    expected = [(shard, index) for shard, count in enumerate(samples) for index in range(count)]
    assert sorted(walk(order, epoch)) == expected


@given(counts, st.integers(1, 5))
def test_only_so_many_shards_are_in_use_at_a_time(samples: list[int], group: int) -> None:
    visited = [shard for shard, _ in walk(SampleOrder(samples, seed=1, group_shards=group), 0)]
    groups = []
    for shard in visited:
        if not groups or (shard not in groups[-1] and len(groups[-1]) == group):
            groups.append({shard})
        groups[-1].add(shard)
    assert sum(len(members) for members in groups) == len(samples)


def test_order_depends_on_seed_and_epoch_and_on_nothing_that_was_asked_before() -> None:
    order = SampleOrder([40, 50, 60, 70], seed=3, group_shards=2)
    first = walk(order, 0)
    assert walk(order, 1) != first
    assert walk(SampleOrder([40, 50, 60, 70], seed=4, group_shards=2), 0) != first
    fresh = pickle.loads(pickle.dumps(order))  # noqa: S301 - as a loading process gets it
    assert [fresh.locate(0, position) for position in reversed(range(220))] == first[::-1]


@settings(max_examples=60)
@given(counts, st.integers(0, 5), st.integers(1, 4), st.data())
def test_batches_run_on_and_hold_no_sample_twice(
    samples: list[int], seed: int, group: int, data: st.DataObject
) -> None:
    """Any batch size up to the whole data set; each batch is found alone, as after resuming."""
    total = sum(samples)
    rows = data.draw(st.integers(1, total))
    order = SampleOrder(samples, seed=seed, group_shards=group)
    batches = BatchOrder(order, rows=rows)
    everything = {(shard, index) for shard, count in enumerate(samples) for index in range(count)}
    flat = []
    for step in range(batches.num_steps(4)):
        batch = [batches.at(step, row)[1] for row in range(rows)]
        assert len(set(batch)) == rows
        flat += batch
        own = [at[1] for row in range(rows) for at in batches.substitutes(step, row, most=300)]
        assert len(set(own)) == len(own) and not set(own) & set(batch)
        outside = [at[1] for at in batches.outside(step)]
        assert len(outside) == total - rows and set(outside) == everything - set(batch)
    for epoch in range(4):
        assert set(flat[epoch * total : (epoch + 1) * total]) == everything
    step = data.draw(st.integers(0, batches.num_steps(4) - 1))
    fresh = pickle.loads(pickle.dumps(batches))  # noqa: S301 - as a loading process gets it
    assert [fresh.at(step, row)[1] for row in range(rows)] == flat[step * rows : (step + 1) * rows]


def test_any_step_of_a_hundred_million_samples_is_found_at_once() -> None:
    batches = BatchOrder(SampleOrder([1000] * 100_000, seed=1, group_shards=16), rows=1024)
    began = time.perf_counter()
    batch = [batches.at(97_656, row) for row in range(1024)]  # the one across the end of the first epoch
    assert {epoch for epoch, _ in batch} == {0, 1}
    assert len({sample for _, sample in batch}) == 1024
    assert time.perf_counter() - began < 5


@given(st.integers(1, 3000), st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_split_by_weight_adds_up_and_is_within_one(total: int, weights: list[float]) -> None:
    parts = split_by_weight(total, weights)
    assert sum(parts) == total
    assert all(
        abs(part - total * w / sum(weights)) < 1 + 1e-6 for part, w in zip(parts, weights, strict=True)
    )


@given(st.integers(0, 100), st.integers(1, 9))
def test_shares_cover_all_rows_in_order(total: int, parts: int) -> None:
    rows = [row for part in range(parts) for row in range(*share(total, part, parts))]
    assert rows == list(range(total))
    sizes = [stop - start for start, stop in (share(total, part, parts) for part in range(parts))]
    assert max(sizes) - min(sizes) <= 1

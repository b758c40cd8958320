"""Whatever is done to a shard and to what is in it, each reader has the right sample or says why not, at
once.
"""

import os
import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipvip.media.sampling import uniform_indices
from clipvip.pipeline.loading.pixels import PixelsWriter
from clipvip.pipeline.pages.cards import Cards, draw_card, pick_evenly
from clipvip.pipeline.pages.html import render_block
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.tools.copy_work import SurveyTask, survey_shard
from clipvip.pipeline.tools.tally import tally_shard
from clipvip.pipeline.train.recipe import Source
from clipvip.pipeline.train.samples import Example, SampleLoader, SampleSettings
from clipvip.pipeline.train.shard_set import open_shards
from clipvip.shards.building.copying import Piece, copy_samples
from clipvip.shards.checking.shard import check_shard, decode_all
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.sources.texts import read_texts
from clipvip.shards.tar.reader import read_samples
from mutate_shards import Mutant, Tar, mutants, originals

SECONDS_AT_MOST = 1.0  # of the processor: others may be at work
BYTES_AT_MOST = 300 << 20


class Readers:
    """Everything that reads shards, over one file `path`; `seen` counts what came of it."""

    def __init__(self, folder: Path, tars: list[Tar]) -> None:
        self.path = folder / "shards" / "000000.tar"
        self.path.parent.mkdir()
        self.out = folder / "copies"
        self.out.mkdir()
        self.expected = {tar.name: dict(tar.members) for tar in tars}
        self.seen: Counter[str] = Counter()

    def run(self, tar: Tar, mutant: Mutant) -> None:
        self.path.write_bytes(mutant.data)
        ways: list[Callable[[Tar, Mutant], None]] = [
            self.read,
            self.train,
            self.texts,
            self.check,
            self.tally,
        ]
        for way in (*ways, self.copy, self.show):
            started = time.process_time()
            try:
                way(tar, mutant)
            except (DatasetError, UserError) as error:
                assert len(str(error).splitlines()) == 1
                assert "000000.tar" in str(error) or "shards" in str(error), error
                self.seen[f"{way.__name__}: refused"] += 1
            assert time.process_time() - started < SECONDS_AT_MOST, way

    def read(self, tar: Tar, mutant: Mutant) -> None:
        """As captions, search and evaluation do."""
        for sample in read_samples(self.path):
            if isinstance(sample, Skip):
                self._skipped("read", sample)
                continue
            try:
                frames = sample.decode(uniform_indices(sample.num_frames, 2))
            except DatasetError as error:
                assert len(str(error).splitlines()) == 1
                self.seen["read: undecodable"] += 1
                continue
            self.seen["read: right"] += 1
            assert frames.shape == (2, sample.record.height, sample.record.width, 3)
            " ".join([sample.subtitle, *sample.sentences]).encode()
            if mutant.must_agree:
                members = self.expected[tar.name]
                assert sample.pixels == members[f"{sample.key}.{sample.extension}"]

    def train(self, tar: Tar, mutant: Mutant) -> None:
        settings = SampleSettings(
            num_frames=2,
            jitter=False,
            fast_decode=len(mutant.data) % 2 == 0,
            needs_subtitle=True,
            needs_caption=False,
            needs_frame=tar.kind == "clips",
        )
        source = Source(shards=str(self.path), kind=tar.kind)  # type: ignore[arg-type]
        shards = open_shards("s", source, cache=self.path.parent, in_use=1)
        loader = SampleLoader(shards, settings, image_size=16, resizes=len(mutant.data) % 3 == 0)
        rng = np.random.default_rng(0)
        for index in range(shards.num_samples[0] + 1):
            video, frame = PixelsWriter(), PixelsWriter()
            video.begin()
            frame.begin()
            found = loader.load(0, index, rng, video=video, frame=frame)
            if isinstance(found, Skip):
                self._skipped("train", found)
                continue
            assert isinstance(found, Example)
            self.seen["train: right"] += 1
            found.text.encode()
            assert len(video.finish().values)
            if mutant.must_agree and tar.kind == "images":
                assert found.text == self.expected[tar.name][f"{found.key}.txt"].decode()

    def texts(self, tar: Tar, mutant: Mutant) -> None:
        for text in read_texts(self.path.parent):
            if isinstance(text, Skip):
                self._skipped("texts", text)
            else:
                self.seen["texts: right"] += 1
                text.encode()
                if mutant.must_agree and tar.kind == "clips":
                    assert text.encode() in self.expected[tar.name].values()

    def check(self, tar: Tar, mutant: Mutant) -> None:
        found = check_shard(self.path, record=None, places=range, decode=decode_all)
        assert all(problem.detail and len(problem.detail) < 2000 for problem in found.findings.listed)
        self.seen["check: found"] += bool(found.findings.counts)

    def tally(self, tar: Tar, mutant: Mutant) -> None:
        tally, _ = tally_shard((0, self.path, ()))
        tally.clip_milliseconds.summary()
        self.seen["tally: right"] += tally.frames.count

    def copy(self, tar: Tar, mutant: Mutant) -> None:
        surveyed = survey_shard(SurveyTask(0, self.path, None, seed=0, by_video=False, check=False))
        for skip in surveyed.skips:
            self._skipped("copy", skip)
        copied = copy_samples(self.out, 0, [Piece(self.path, tuple(surveyed.places.tolist()))])
        assert copied.record is not None and copied.record.num_samples == len(surveyed.places)
        self.seen["copy: right"] += len(surveyed.places)

    def show(self, tar: Tar, mutant: Mutant) -> None:
        damage: list[str] = []
        for pick in pick_evenly([self.path], 3, damage=damage):
            render_block(Cards([draw_card(pick, num_frames=2)])).encode()
            self.seen["show: right"] += 1

    def _skipped(self, way: str, skip: Skip) -> None:
        assert skip.reason
        assert len(skip.what) <= 100 and len(skip.detail.splitlines()) <= 1, skip
        f"{skip.what}{skip.detail}".encode()
        self.seen[f"{way}: {skip.reason}"] += 1


WAYS = ("read", "train", "texts", "tally", "copy", "show")
EXPECTED = (*(f"{way}: right" for way in WAYS), "check: found", "read: damaged_sample")


def run_mutants(folder: Path, *, seed: int, count: int, first: int = 0) -> Counter[str]:
    tars = originals(folder)
    readers = Readers(folder, tars)
    for tar in tars:
        readers.run(tar, Mutant("nothing", tar.data(), True))
    assert not [
        name for name in readers.seen if "refused" in name and "train" not in name and "texts" not in name
    ]
    assert all(readers.seen[f"{way}: right"] > 1 for way in WAYS), readers.seen
    for number, (tar, mutant) in enumerate(mutants(tars, seed=seed, count=count)):
        if number < first:
            continue
        try:
            readers.run(tar, mutant)
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, mutant {number} of {tar.name}: {mutant.how}: {error!r}"
            ) from error
    return readers.seen


@pytest.mark.slow  # test_streaming.py has fewer of them
def test_mutated_shards_are_read_right_or_refused(tmp_path: Path) -> None:
    seen = run_mutants(tmp_path, seed=20261127, count=300)
    assert all(seen[way] > 20 for way in EXPECTED), seen


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_mutated_shards(tmp_path: Path) -> None:
    """`CLIPVIP_SEED=n` repeats a run; the error names the mutant."""
    seed = int(os.environ.get("CLIPVIP_SEED") or random.randrange(1 << 30))
    print(f"seed {seed}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = run_mutants(tmp_path, seed=seed, count=10_000)
    print(seen)
    assert all(seen[way] > 500 for way in EXPECTED), seen
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < BYTES_AT_MOST

"""`MtebModel`: what mteb's own evaluation finds with it is what the model's embeddings say."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import clipvip.extras
from clipvip.extras import MissingPackage
from clipvip.media.sampling import uniform_indices
from clipvip.model import ClipVip
from clipvip.pipeline.evaluate.leaderboard import MtebModel
from tiny_clip import make_clip

TEXTS = ["a cat sleeps", "dogs run", "rain falls", "somebody sings", "a red ball"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    ClipVip.from_clip(make_clip(folder / "clip"), num_frames=4).save_pretrained(folder / "vip")
    return folder / "vip"


def videos(lengths: list[int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (length, 20, 30, 3), np.uint8) for length in lengths]


class Decoder:
    """Frames in memory behind what mteb asks of torchcodec's VideoDecoder."""

    def __init__(self, frames: np.ndarray) -> None:
        self._frames = torch.from_numpy(frames).permute(0, 3, 1, 2)
        self.metadata = SimpleNamespace(num_frames=len(frames))

    def get_frames_at(self, indices: list[int]) -> Any:
        return SimpleNamespace(data=self._frames[indices])


class Rows(list):  # type: ignore[type-arg]
    """Rows with the names of their columns, as a Dataset of Hugging Face has them."""

    @property
    def features(self) -> dict[str, None]:
        return dict.fromkeys(self[0])


def test_without_mteb_it_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipvip.extras, "find_spec", lambda _: None)
    with pytest.raises(MissingPackage, match="MtebModel needs mteb, which is not installed; run pip install"):
        MtebModel(str(model))


@pytest.mark.needs("mteb")
def test_embeddings_are_the_models(model: Path) -> None:
    from mteb.models.models_protocols import EncoderProtocol

    adapter, plain = MtebModel(str(model), device="cpu"), ClipVip.from_pretrained(model).eval()
    assert isinstance(adapter, EncoderProtocol)
    clips = videos([9, 4, 13])
    seen = [frames[uniform_indices(len(frames), 4)] for frames in clips]
    expected = plain.encode_video(seen).numpy()
    rows = Rows({"video": Decoder(frames)} for frames in clips)
    found = adapter.encode(DataLoader(rows, batch_size=2), task_metadata=None, hf_split="", hf_subset="")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    both = Rows({"video": Decoder(frames), "text": text} for frames, text in zip(clips, TEXTS, strict=False))
    found = adapter.encode(DataLoader(both, batch_size=3))
    np.testing.assert_allclose(found, expected + plain.encode_text(TEXTS[:3]).numpy(), atol=1e-6)
    cosines = adapter.similarity(found, expected)
    assert cosines.shape == (3, 3)
    np.testing.assert_allclose(adapter.similarity_pairwise(found, expected), cosines.diagonal(), atol=1e-6)
    with pytest.raises(ValueError, match="rows have audio: no text, image or video"):
        adapter.encode(DataLoader(Rows({"audio": 1} for _ in range(2))))


@pytest.mark.needs("mteb")
def test_mtebs_evaluation_finds_what_the_embeddings_say(model: Path) -> None:
    import mteb
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageColumn
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    pictures = [Image.fromarray(frames[0]) for frames in videos([1] * len(TEXTS))]
    ids = [str(n) for n in range(len(TEXTS))]

    class Tiny(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = TaskMetadata(
            name="TinyT2I", description="Five pictures.", dataset={"path": "none/none", "revision": "none"},
            type="Any2AnyRetrieval", category="t2i", modalities=["text", "image"], eval_splits=["test"],
            eval_langs=["eng-Latn"], main_score="hit_rate_at_1", reference=None, date=None, domains=None,
            task_subtypes=None, license=None, annotations_creators=None, dialect=None, sample_creation=None,
            bibtex_citation=None,
        )  # fmt: skip

        def load_data(self, *_: Any, **more: Any) -> None:
            queries = Dataset.from_dict({"id": ids, "text": TEXTS})
            features = Features({"id": Value("string"), "image": ImageColumn()})
            corpus = Dataset.from_dict({"id": ids, "image": pictures}, features=features)
            relevant = {number: {number: 1} for number in ids}
            split = RetrievalSplitData(
                queries=queries, corpus=corpus, relevant_docs=relevant, top_ranked=None
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    result = mteb.evaluate(MtebModel(str(model), device="cpu", shown_name="me/vip"), Tiny(), cache=None)
    assert result.model_name == "me/vip"
    plain = ClipVip.from_pretrained(model).eval()
    similarity = plain.encode_text(TEXTS) @ plain.encode_video(pictures).T
    ranks = (similarity > similarity.diagonal()[:, None]).sum(1)
    (scores,) = result.task_results[0].scores["test"]
    for most in (1, 3):
        assert scores[f"recall_at_{most}"] == pytest.approx(float((ranks < most).float().mean()), abs=1e-5)

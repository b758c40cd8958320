"""A CLIP-ViP as a model of the package mteb, whose leaderboards have tests of searching videos by text."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipvip.extras import require_package
from clipvip.media.sampling import uniform_indices
from clipvip.pipeline.evaluate.embeddings import load_clip_vip
from clipvip.pipeline.runtime.device import torch_device
from clipvip.pipeline.runtime.models import model_at_hand


class MtebModel:
    """What `mteb.evaluate` takes for a model: a CLIP-ViP, or a plain CLIP or SigLIP, by folder or name.

    A video is seen by evenly spaced frames, an image as a video of one frame. What is of several kinds, such
    as a video with a text, gets the sum of their embeddings, as of the other models of mteb.

    Args:
        model_name: a folder, also of a store, or a name on the hub.
        revision: only for results to name.
        device: None for a GPU where there is one.
        num_frames, max_text_tokens: None for what the model was trained on.
        shown_name: `owner/name`, which results are kept by; by default the model's.

    Raises:
        MissingPackage: mteb is not installed.
        UserError, CheckpointError: there is no such model, or none that embeds texts.

    Examples:
        import mteb
        from clipvip.pipeline.evaluate.leaderboard import MtebModel

        mteb.evaluate(MtebModel("runs/b32/model"), mteb.get_tasks(tasks=["MSRVTTT2V"]))
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        num_frames: int | None = None,
        max_text_tokens: int | None = None,
        shown_name: str | None = None,
        **_: Any,
    ) -> None:
        require_package("mteb", "MtebModel")
        with model_at_hand(model_name) as local:
            self.model = load_clip_vip(
                local,
                device=torch_device("auto") if device is None else torch.device(device),
                num_frames=num_frames,
                max_text_tokens=max_text_tokens,
            )
        folder = Path(model_name)
        self._name = shown_name or (f"clipvip/{folder.resolve().name}" if folder.exists() else model_name)
        self._revision = revision

    @property
    def mteb_model_meta(self) -> Any:
        """What results say of the model."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        config = self.model.config
        meta = ModelMeta.create_empty({"name": self._name})
        about = {
            "revision": self._revision or meta.revision,
            "embed_dim": config.projection_dim,
            "max_tokens": config.scored_text_tokens,
            "n_parameters": self.model.num_parameters(),
            "modalities": ["video", "image", "text"],
            "framework": ["PyTorch", "Transformers"],
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": False,
        }
        return meta.model_copy(update=about)

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        """Embeddings (rows, dim), float32, of a DataLoader of rows with `text`, `image` or `video`.

        ValueError: they have none of these.
        """
        if "video" in inputs.dataset.features:
            inputs.collate_fn = partial(_with_frames, num_frames=self.model.config.scored_frames)
        return np.concatenate([self._encode_batch(batch) for batch in inputs])

    def _encode_batch(self, batch: dict[str, Any]) -> np.ndarray:
        parts = []
        if "text" in batch:
            parts.append(self.model.encode_text(list(batch["text"])))
        if "image" in batch:
            parts.append(self.model.encode_video([image.convert("RGB") for image in batch["image"]]))
        if "video" in batch:
            parts.append(self.model.encode_video(list(batch["video"])))
        if not parts:
            raise ValueError(f"rows have {', '.join(batch)}: no text, image or video to embed")
        return torch.stack(parts).sum(dim=0).numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosines of all pairs, (n, m)."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosines of pairs, (n,)."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=-1)


def _with_frames(rows: list[dict[str, Any]], *, num_frames: int) -> dict[str, list[Any]]:
    """Rows as columns, with uint8 (frames, 3, height, width) for a `video`, which torchcodec decodes.

    The frames are those of all our tests; mteb's own collator rounds to others.
    """
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    indices = [uniform_indices(one.metadata.num_frames, num_frames).tolist() for one in columns["video"]]
    found = zip(columns["video"], indices, strict=True)
    return columns | {"video": [video.get_frames_at(some).data for video, some in found]}


def _unit(embeddings: Any) -> torch.Tensor:
    rows = torch.atleast_2d(torch.as_tensor(embeddings, dtype=torch.float32))
    return torch.nn.functional.normalize(rows, dim=-1)

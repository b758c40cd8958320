"""`ClipVip`: CLIP whose image encoder reads video. The network, and embeddings of video files and strings.

Where weights come from is `weights.py`; pixels and tokens are made in `preprocess.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers import initialization as init
from transformers.models.clip.modeling_clip import CLIPPreTrainedModel, CLIPTextModel, CLIPVisionModel
from transformers.utils.generic import ModelOutput

from clipvip.model import weights
from clipvip.model.baselines import FrameTransformer, mean_pool
from clipvip.model.config import ClipVipConfig
from clipvip.model.encoder import VideoEmbeddings, VideoTransformer
from clipvip.model.linear import use_fast_linear
from clipvip.model.model_card import write_card
from clipvip.model.preprocess import MAX_TEXT_TOKENS, load_tokenizer, tokenize
from clipvip.model.videos import Video, list_videos, to_pixels


@dataclass
class ClipVipOutput(ModelOutput):
    """What a forward pass gives; the fields of an input that was not given are None.

    video_embeds, text_embeds: (batch, dim), L2-normalised.
    logit_scale: the logarithm of the inverse temperature, a scalar.
    vision_last_hidden_state: the image tower's tokens before its last LayerNorm: for `vip` and
        `full_attention` (batch, proxies + frames * patches, width); for the baselines that encode frames one
        by one (batch * frames, 1 + patches, width).
    text_last_hidden_state: (batch, tokens, width).
    """

    video_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    logit_scale: Tensor | None = None
    vision_last_hidden_state: Tensor | None = None
    text_last_hidden_state: Tensor | None = None


class ClipVip(CLIPPreTrainedModel):
    """A CLIP that embeds videos and texts into one space (sections 3.3 and 3.4 of the paper)."""

    config_class = ClipVipConfig
    config: ClipVipConfig  # type: ignore[assignment]
    base_model_prefix = "clip_vip"
    main_input_name = "pixel_values"

    def __init__(self, config: ClipVipConfig) -> None:
        super().__init__(config)
        self.tokenizer: Any = None
        self.text_model = CLIPTextModel._from_config(config.text_config)
        if config.encoder in {"vip", "full_attention"}:
            self.vision_model: nn.Module = VideoTransformer(config)
        else:
            self.vision_model = CLIPVisionModel._from_config(config.vision_config)
        self.visual_projection = nn.Linear(
            config.vision_config.hidden_size, config.projection_dim, bias=False
        )
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        if config.encoder == "seq_transformer":
            self.frame_transformer = FrameTransformer(
                config.projection_dim,
                num_layers=config.num_frame_layers,
                num_heads=config.num_frame_heads,
                max_frames=config.text_config.max_position_embeddings,
            )
        use_fast_linear(self)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # CLIP's rules know neither of these; models built on the meta device need them set here.
        if isinstance(module, VideoEmbeddings):
            init.normal_(module.added_cls, std=1.0)
            init.zeros_(module.temporal_embedding)
        elif isinstance(module, FrameTransformer):
            init.normal_(module.frame_position_embeddings.weight, std=0.02)
        elif isinstance(module, nn.MultiheadAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)
        elif isinstance(module, ClipVip):
            init.normal_(module.visual_projection.weight, std=self.config.vision_config.hidden_size**-0.5)
            init.normal_(module.text_projection.weight, std=self.config.text_config.hidden_size**-0.5)
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        embeds_only: bool = False,
    ) -> ClipVipOutput:
        """Embed videos, texts or both.

        Args:
            pixel_values: (batch, frames, 3, height, width), normalised; any number of frames.
            input_ids, attention_mask: (batch, tokens).
            embeds_only: for training: the proxy encoders compute of their last layer only what the embedding
                needs, and `vision_last_hidden_state` is None.

        Raises:
            ValueError: pixels of another shape or size than the model's.
        """
        output = ClipVipOutput(logit_scale=self.logit_scale)
        if pixel_values is not None:
            output.video_embeds, output.vision_last_hidden_state = self._embed_video(
                pixel_values, embeds_only=embeds_only
            )
        if input_ids is not None:
            output.text_embeds, output.text_last_hidden_state = self._embed_text(input_ids, attention_mask)
        return output

    def get_video_features(self, pixel_values: Tensor) -> Tensor:
        """(batch, frames, 3, height, width) -> (batch, dim), L2-normalised."""
        return self._embed_video(pixel_values, embeds_only=True)[0]

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(batch, tokens) -> (batch, dim), L2-normalised."""
        return self._embed_text(input_ids, attention_mask)[0]

    def _embed_text(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        text = self.text_model(input_ids=input_ids, attention_mask=attention_mask)
        return F.normalize(self.text_projection(text.pooler_output), dim=-1), text.last_hidden_state

    def _embed_video(self, pixel_values: Tensor, *, embeds_only: bool) -> tuple[Tensor, Tensor | None]:
        size = self.config.vision_config.image_size
        if pixel_values.ndim != 5 or tuple(pixel_values.shape[-2:]) != (size, size):
            raise ValueError(
                f"pixel_values is {tuple(pixel_values.shape)}, expected (batch, frames, 3, {size}, {size})"
            )
        if isinstance(self.vision_model, VideoTransformer):
            hidden, feature = self.vision_model(pixel_values, feature_only=embeds_only)
            return F.normalize(self.visual_projection(feature), dim=-1), hidden
        batch, num_frames = pixel_values.shape[:2]
        images = self.vision_model(pixel_values.flatten(0, 1))
        frames = self.visual_projection(images.pooler_output).unflatten(0, (batch, num_frames))
        if self.config.encoder == "seq_transformer":
            frames = self.frame_transformer(frames)
        return mean_pool(frames), None if embeds_only else images.last_hidden_state

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *args: Any,
        tokenizer: str | Path | None = None,
        **kwargs: Any,
    ) -> "ClipVip":
        """Load a folder in Hugging Face layout, a name on the hub, or a released `.pt` file of the paper.

        Args:
            tokenizer: a CLIP folder or name on the hub whose tokenizer `encode_text` shall use; None for the
                one beside the weights. Released files have none: give openai/clip-vit-base-patch32.
            args, kwargs: of `PreTrainedModel.from_pretrained`; for a file only `config` and `dtype`.

        Raises:
            CheckpointError: it is not there, is another kind of model, or does not fit its configuration.
        """
        source = str(pretrained_model_name_or_path)
        if Path(source).is_file():
            model = weights.load_released_file(cls, source, *args, **kwargs)
            if tokenizer is not None:
                model.tokenizer = load_tokenizer(str(tokenizer), required=True)
            return model
        where = {name: kwargs[name] for name in weights.HUB_OPTIONS if name in kwargs}
        weights.require_kind(source, {"clip_vip"}, **where)
        model = weights.load_checked(super().from_pretrained, source, *args, **kwargs)
        if tokenizer is not None:
            model.tokenizer = load_tokenizer(str(tokenizer), required=True)
        else:
            model.tokenizer = load_tokenizer(source, **where)
        return model

    @classmethod
    def from_clip(cls, folder_or_name: str | Path, **overrides: Any) -> "ClipVip":
        """Start from a plain CLIP in Hugging Face layout (a ClipVip model works as well).

        Every parameter that CLIP has is taken over: its class embedding is the first proxy. Further proxies
        are drawn from a normal distribution of standard deviation 1, temporal positions are zero: then all
        frames look alike, as in the reference. `overrides` are settings of `ClipVipConfig`.

        Raises:
            CheckpointError: not a CLIP, or files are missing or do not fit.
        """
        return weights.load_clip(cls, folder_or_name, overrides)

    @classmethod
    def from_released(
        cls, path_or_state_dict: str | Path | Mapping[str, Tensor], config: ClipVipConfig | None = None
    ) -> "ClipVip":
        """Load weights in the reference's layout, whose keys begin with `clipmodel.`.

        Args:
            path_or_state_dict: `pretrain_clipvip_base_32.pt` or `_16.pt` (read with `weights_only=True`), a
                .safetensors file, or the tensors themselves.
            config: None to read the sizes off the tensors (64 per attention head, as in every CLIP).

        Raises:
            CheckpointError: naming the keys that are missing, unexpected or of another shape.
        """
        return weights.load_released(cls, path_or_state_dict, config)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write config.json, model.safetensors, the tokenizer's files and a model card (see `model_card`)."""
        super().save_pretrained(save_directory, *args, **kwargs)
        write_card(Path(save_directory), self.config)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)

    # Not inference_mode, whose tensors cannot be trained on.
    @torch.no_grad()
    def encode_video(
        self, videos: Video | Sequence[Video], *, num_frames: int | None = None, batch_size: int = 16
    ) -> Tensor:
        """Embed videos.

        Args:
            videos: one video or a list of them: paths of video files, of which `num_frames` evenly spaced frames
                are read, or arrays or tensors of frames, of which all are used: uint8 RGB
                (frames, height, width, 3) or (frames, 3, height, width), or floating point and normalised,
                (frames, 3, size, size); or one array of such videos. Numbers of frames may differ.
            num_frames: None for the model's temporal size.
            batch_size: videos encoded at a time; only those of equal length share a batch.

        Returns:
            (number of videos, dim), L2-normalised, on the CPU.

        Raises:
            ValueError: a file that does not decode, an array of another shape or type, or something else.
        """
        size = self.config.vision_config.image_size
        wanted = self.config.temporal_size if num_frames is None else num_frames
        if wanted < 1 or batch_size < 1:
            raise ValueError(f"{num_frames = } and {batch_size = }: give 1 or more")
        listed = list_videos(videos)
        embeds = torch.empty(len(listed), self.config.projection_dim)
        for start in range(0, len(listed), batch_size):
            by_length: dict[int, list[tuple[int, Tensor]]] = {}
            for row, video in enumerate(listed[start : start + batch_size], start=start):
                pixels = to_pixels(video, image_size=size, num_frames=wanted)
                by_length.setdefault(len(pixels), []).append((row, pixels))
            for alike in by_length.values():
                batch = torch.stack([pixels for _, pixels in alike]).to(self.device)
                embeds[[row for row, _ in alike]] = self.get_video_features(batch).float().cpu()
        return embeds

    @torch.no_grad()
    def encode_text(self, texts: str | Sequence[str], *, batch_size: int = 256) -> Tensor:
        """Embed one string or a list: (number of strings, dim), L2-normalised, on the CPU. Long ones are cut to 70 tokens.

        Raises:
            ValueError: the model was loaded from a place that has no tokenizer, or a text is no string.
        """
        if self.tokenizer is None:
            raise ValueError(
                "this model came without a tokenizer: name one, as in "
                "from_pretrained(..., tokenizer='openai/clip-vit-base-patch32')"
            )
        texts = [texts] if isinstance(texts, str) else list(texts)
        others = {type(text).__name__ for text in texts if not isinstance(text, str)}
        if others:
            raise ValueError(f"among the texts are {', '.join(sorted(others))}: give strings alone")
        limit = min(MAX_TEXT_TOKENS, self.config.text_config.max_position_embeddings)
        rows = []
        for start in range(0, len(texts), batch_size):
            tokens = tokenize(self.tokenizer, texts[start : start + batch_size], max_tokens=limit)
            tokens = {name: ids.to(self.device) for name, ids in tokens.items()}
            rows.append(self(**tokens).text_embeds.float().cpu())
        return torch.cat(rows) if rows else torch.empty(0, self.config.projection_dim)


AutoConfig.register("clip_vip", ClipVipConfig)
AutoModel.register(ClipVipConfig, ClipVip)

"""`ClipVip`: CLIP whose image encoder reads video. The network, and embeddings of video files and strings.

Where weights come from is `weights.py`; pixels and tokens are made in `preprocess.py`.
"""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers import initialization as init
from transformers.models.clip.modeling_clip import CLIPPreTrainedModel
from transformers.utils.generic import ModelOutput

from clipvip.model import weights
from clipvip.model.baselines import FrameTransformer, mean_pool
from clipvip.model.config import ClipVipConfig
from clipvip.model.embedding import VideoFailure, embed_texts, embed_videos
from clipvip.model.encoder import VideoEmbeddings
from clipvip.model.hub import UPLOAD_OPTIONS, file_times, upload
from clipvip.model.linear import use_fast_linear
from clipvip.model.model_card import write_card
from clipvip.model.preprocess import check_tokenizer, load_tokenizer
from clipvip.model.seen import EVERYTHING, Seen
from clipvip.model.starts import load_clip, load_plain
from clipvip.model.towers import towers_of
from clipvip.model.variants import ENCODERS, JOINT_ENCODERS
from clipvip.model.videos import Video
from clipvip.model.writing import writing


@dataclass
class ClipVipOutput(ModelOutput):
    """What a forward pass gives; the fields of an input that was not given are None.

    video_embeds, text_embeds: (batch, dim), L2-normalised.
    logit_scale: the logarithm of the inverse temperature, a scalar.
    vision_last_hidden_state: the image tower's tokens before its last LayerNorm: (batch, proxies + frames *
        patches, width) for `vip` and `full_attention`, else (batch * frames, 1 + patches, width).
    text_last_hidden_state: (batch, tokens, width).
    """

    video_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    logit_scale: Tensor | None = None
    vision_last_hidden_state: Tensor | None = None
    text_last_hidden_state: Tensor | None = None


class ClipVip(CLIPPreTrainedModel):
    """A CLIP that embeds videos and texts into one space (sections 3.3 and 3.4 of the paper).

    Examples:
        >>> from clipvip.model import ClipVip
        >>> model = ClipVip.from_pretrained("runs/b32/model")
        >>> videos = model.encode_video(["clip.mp4"])
        >>> texts = model.encode_text(["a red circle rolls", "rain on a window"])
        >>> (texts @ videos.T).shape  # a row a text, a column a video
        torch.Size([2, 1])
    """

    config_class = ClipVipConfig
    config: ClipVipConfig  # type: ignore[assignment]
    base_model_prefix = "clip_vip"
    main_input_name = "pixel_values"

    def __init__(self, config: ClipVipConfig) -> None:
        super().__init__(config)
        self._tokenizer: Any = None
        towers = towers_of(config)
        self.text_model, self.vision_model = towers.text, towers.vision
        self.visual_projection, self.text_projection = towers.visual_projection, towers.text_projection
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        bias = config.logit_bias_init_value
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))
        if config.encoder == "seq_transformer":
            self.frame_transformer = FrameTransformer(
                config.projection_dim,
                num_layers=config.num_frame_layers,
                num_heads=config.num_frame_heads,
                max_frames=config.text_config.max_position_embeddings,
            )
        make_head = ENCODERS[config.encoder]
        self.frame_head: nn.Module | None = make_head(config) if make_head else None
        use_fast_linear(self)
        self.post_init()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of `encode_text`, or None; one that does not fit the model is a CheckpointError."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        if tokenizer is not None:
            check_tokenizer(tokenizer, self.config.text_config)
        self._tokenizer = tokenizer

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # CLIP's rules know neither of these; models built on the meta device need them set here.
        if isinstance(module, VideoEmbeddings):
            if self.config.proxy_start == "class":
                init.copy_(module.added_cls, module.class_copies())
            else:
                init.normal_(module.added_cls, std=1.0)
            if self.config.temporal_std:
                init.normal_(module.temporal_embedding, std=self.config.temporal_std)
            else:
                init.zeros_(module.temporal_embedding)
        elif isinstance(module, FrameTransformer):
            init.normal_(module.frame_position_embeddings.weight, std=0.02)
        elif isinstance(module, nn.MultiheadAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)
        elif isinstance(module, ClipVip):
            for part in (module.visual_projection, module.text_projection):
                if isinstance(part, nn.Linear):
                    init.normal_(part.weight, std=part.in_features**-0.5)
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)
            if module.logit_bias is not None:
                init.constant_(module.logit_bias, self.config.logit_bias_init_value or 0.0)
            if self.config.is_siglip:
                from clipvip.model.siglip import start_siglip

                start_siglip(module)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        embeds_only: bool = False,
        seen: Seen = EVERYTHING,
    ) -> ClipVipOutput:
        """Embed videos, texts or both.

        Args:
            pixel_values: (batch, frames, 3, height, width), normalised; any number of frames.
            input_ids, attention_mask: (batch, tokens). Without a mask all tokens count, which is right, and
                faster, where texts are padded at the end alone, as `tokenize` does: only what follows a text
                in `text_last_hidden_state` differs.
            embeds_only: for training: of their last layer the proxy encoders compute only what the embedding
                needs, and `vision_last_hidden_state` is None.
            seen: for training: what of the videos is dropped.

        Raises:
            ValueError: pixels of another shape or size than the model's, or too many frames or tokens.
            IndexError: a token that the model's table does not have.
        """
        output = ClipVipOutput(logit_scale=self.logit_scale)
        if pixel_values is not None:
            output.video_embeds, output.vision_last_hidden_state = self._embed_video(
                pixel_values, embeds_only=embeds_only, seen=seen
            )
        if input_ids is not None:
            output.text_embeds, output.text_last_hidden_state = self._embed_text(input_ids, attention_mask)
        return output

    def get_video_features(self, pixel_values: Tensor) -> Tensor:
        """(batch, frames, 3, height, width) -> (batch, dim), L2-normalised. Raises as `forward`."""
        return self._embed_video(pixel_values, embeds_only=True)[0]

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(batch, tokens) -> (batch, dim), L2-normalised. Raises as `forward`."""
        return self._embed_text(input_ids, attention_mask)[0]

    def check_length(self, num_frames: int) -> None:
        """ValueError where the encoder takes fewer frames; all but `seq_transformer` take any number."""
        if self.config.encoder == "seq_transformer":
            self.frame_transformer.check_length(num_frames)

    def _embed_text(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        text = self.text_model(input_ids=input_ids, attention_mask=attention_mask)
        return F.normalize(self.text_projection(text.pooler_output), dim=-1), text.last_hidden_state

    def _embed_video(
        self, pixel_values: Tensor, *, embeds_only: bool, seen: Seen = EVERYTHING
    ) -> tuple[Tensor, Tensor | None]:
        size = self.config.vision_config.image_size
        if pixel_values.ndim != 5 or tuple(pixel_values.shape[-2:]) != (size, size):
            raise ValueError(
                f"pixel_values is {tuple(pixel_values.shape)}, expected (batch, frames, 3, {size}, {size})"
            )
        seen.check(pixel_values)
        if self.config.encoder in JOINT_ENCODERS:
            hidden, feature = self.vision_model(pixel_values, feature_only=embeds_only, seen=seen)
            return F.normalize(self.visual_projection(feature), dim=-1), hidden
        batch, num_frames = pixel_values.shape[:2]
        with seen.in_images(self.vision_model.embeddings):
            images = self.vision_model(pixel_values.flatten(0, 1))
        frames = self.visual_projection(images.pooler_output).unflatten(0, (batch, num_frames))
        if self.config.encoder == "seq_transformer":
            frames = self.frame_transformer(frames, seen=seen)
        pooled = F.normalize(self.frame_head(frames), dim=-1) if self.frame_head else mean_pool(frames)
        return pooled, None if embeds_only else images.last_hidden_state

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *args: Any,
        tokenizer: str | Path | None = None,
        **kwargs: Any,
    ) -> "ClipVip":
        """Load a folder in Hugging Face layout, a name on the hub, or a released `.pt` file of the paper.

        A plain CLIP or SigLIP is taken too: it embeds each frame, and a video by their mean (`mean_pool`).

        Args:
            tokenizer: a CLIP folder or name on the hub whose tokenizer `encode_text` shall use; None for the
                one beside the weights. Released files have none: give openai/clip-vit-base-patch32.
            args, kwargs: of `PreTrainedModel.from_pretrained`; for a file only `config` and `dtype`, for a
                plain CLIP `dtype` and where it is looked up (`revision`, `cache_dir`, ...).

        Raises:
            CheckpointError: it is absent, damaged or of another kind, or weights or tokenizer do not fit.
            ValueError: options that a file or a plain CLIP does not take.
        """
        source = str(pretrained_model_name_or_path)
        if Path(source).is_file():
            model = weights.load_released_file(cls, source, *args, **kwargs)
        else:
            where = {name: kwargs[name] for name in weights.HUB_OPTIONS if name in kwargs}
            if weights.require_kind(source, **where) == cls.config_class.model_type:
                model = weights.load_checked(super().from_pretrained, source, *args, **kwargs)
                if tokenizer is None:
                    model.tokenizer = load_tokenizer(source, **where)
            else:
                model = load_plain(cls, source, *args, **kwargs)
        if tokenizer is not None:
            model.tokenizer = load_tokenizer(str(tokenizer), required=True)
        return model

    @classmethod
    def from_clip(cls, folder_or_name: str | Path, **overrides: Any) -> "ClipVip":
        """Start from a CLIP or SigLIP in Hugging Face layout, or a ClipVip; `overrides`: of `ClipVipConfig`.

        CLIP's class embedding is the first proxy. As in the reference, further proxies are drawn from a
        normal distribution of deviation 1, and temporal positions are zero; `proxy_start` and
        `temporal_start` say otherwise. What a ClipVip has of them is kept. `image_size` is an override too:
        positions of patches are interpolated for it (see `positions`), bicubic with antialiasing.

        Raises:
            CheckpointError: no such model, files are missing or damaged, or weights or tokenizer do not fit.
            ValueError: overrides that no configuration can have.
        """
        return load_clip(cls, folder_or_name, overrides)

    @classmethod
    def from_released(
        cls, path_or_state_dict: str | Path | Mapping[str, Tensor], config: ClipVipConfig | None = None
    ) -> "ClipVip":
        """Load weights in the reference's layout, whose keys begin with `clipmodel.`.

        Args:
            path_or_state_dict: a .pt file (read with `weights_only=True`), a .safetensors file, or tensors.
            config: None to read the sizes off the tensors (64 per attention head, as in every CLIP).

        Raises:
            CheckpointError: the file is damaged, or keys are missing, unexpected or of another shape. The
                temporal table alone may be missing: it is zeros then.
        """
        return weights.load_released(cls, path_or_state_dict, config)

    def save_pretrained(
        self,
        save_directory: Any,
        is_main_process: bool = True,
        state_dict: Any = None,
        push_to_hub: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Write config.json, model.safetensors, the tokenizer's files and a model card (see `model_card`).

        Args:
            push_to_hub: upload them, to `repo_id` or by the folder's name (see `hub.upload`).
            is_main_process, state_dict, args, kwargs: of `PreTrainedModel.save_pretrained`.

        Raises:
            OSError: the folder cannot be written, or the hub cannot be reached or refuses.
        """
        folder = Path(save_directory)
        before = file_times(folder)
        repo_id = kwargs.pop("repo_id", folder.name)
        options = {name: kwargs.pop(name) for name in UPLOAD_OPTIONS if name in kwargs}
        with writing(folder):
            super().save_pretrained(folder, is_main_process, state_dict, False, *args, **kwargs)
            if is_main_process:
                write_card(folder, self.config)
                if self.tokenizer is not None:
                    self.tokenizer.save_pretrained(folder)
        if push_to_hub and is_main_process:
            upload(self, folder, repo_id, before, token=kwargs.get("token"), **options)

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        max_shard_size: int | str | None = "50GB",
        tags: list[str] | None = None,
        token: str | bool | None = None,
        **options: Any,
    ) -> Any:
        """Upload weights, configuration, tokenizer and model card; returns what `huggingface_hub` says of it.

        Args:
            tags: more words for the card's header.
            options: commit_message, commit_description, private, revision, create_pr.

        Raises:
            OSError: the hub cannot be reached or refuses.
        """
        with tempfile.TemporaryDirectory() as name:
            self.save_pretrained(name, max_shard_size=max_shard_size)
            write_card(Path(name), self.config, tags=tags or ())
            return upload(self, Path(name), repo_id, {}, token=token, **options)

    @overload
    def encode_video(
        self,
        videos: Video | Iterable[Video],
        *,
        num_frames: int | None = None,
        batch_size: int = 16,
        on_error: Literal["raise"] = "raise",
    ) -> Tensor: ...

    @overload
    def encode_video(
        self,
        videos: Video | Iterable[Video],
        *,
        num_frames: int | None = None,
        batch_size: int = 16,
        on_error: Literal["nan"],
    ) -> tuple[Tensor, list[VideoFailure]]: ...

    # Not inference_mode, whose tensors cannot be trained on.
    @torch.no_grad()
    def encode_video(
        self,
        videos: Video | Iterable[Video],
        *,
        num_frames: int | None = None,
        batch_size: int = 16,
        on_error: Literal["raise", "nan"] = "raise",
    ) -> Tensor | tuple[Tensor, list[VideoFailure]]:
        """Embed videos.

        A video is the path of a file, of which `num_frames` evenly spaced frames are read; or an array or
        tensor with all its frames, uint8 RGB (frames, height, width, 3) or (frames, 3, height, width), or
        floating point and normalised by CLIP's mean and deviation, (frames, 3, size, size); or a list of
        frames, each a PIL image or an array without the first dimension; or one PIL image.

        Args:
            videos: one video, an array of videos, or any iterable of them, read `batch_size` at a time. One
                video that is a list of frames is given as `[[frame, frame]]`. Sizes may differ.
            num_frames: None for as many as the model was trained on, `config.scored_frames`.
            batch_size: videos encoded at a time; only those of equal length share a batch.
            on_error: `raise` stops at the first video that cannot be embedded; `nan` gives it a row of NaN.

        Returns:
            (videos, dim), L2-normalised, on the CPU; with `on_error="nan"` also the list of failures.

        Raises:
            ValueError: a file that does not decode, an array of another shape or range, too many frames.
        """
        if on_error not in ("raise", "nan"):
            raise ValueError(f"{on_error = }: is neither 'raise' nor 'nan'")
        embeds, failures = embed_videos(
            self, videos, num_frames=num_frames, batch_size=batch_size, raises=on_error == "raise"
        )
        return embeds if on_error == "raise" else (embeds, failures)

    @torch.no_grad()
    def encode_text(
        self, texts: str | Iterable[str], *, max_tokens: int | None = None, batch_size: int = 256
    ) -> Tensor:
        """Embed one string or some: (number of strings, dim), L2-normalised, on the CPU.

        Args:
            max_tokens: longer texts are cut to so many; None for `config.scored_text_tokens`, as in training.

        Raises:
            ValueError: the model has no tokenizer or does not take `max_tokens`, or a text is no string.
        """
        return embed_texts(self, texts, max_tokens=max_tokens, batch_size=batch_size)


AutoConfig.register("clip_vip", ClipVipConfig)
AutoModel.register(ClipVipConfig, ClipVip)

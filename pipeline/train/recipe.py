"""What a training run is: its settings as dataclasses, read from YAML with `key=value` overrides.

The sections say what comes out of a run, except `run`, which says how it is computed and may change between
resumptions.
"""

import dataclasses
import math
import re
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from clipvip.model.variants import (
    ENCODERS,
    VARIANTS,
    Contrast,
    Precision,
    ProxyStart,
    TemporalStart,
    Weighting,
    check_temporal_start,
)
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import MOST_NUMBER
from clipvip.pipeline.train.recipe_names import read_recipe
from clipvip.pipeline.train.recipe_yaml import nearest, parse_value, parse_yaml, put
from clipvip.plugins import Registry
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS

_STRICT_KEYS = ConfigDict(extra="forbid", allow_inf_nan=False)

# Weights, gradients and learning rates are computed in float32, which has no larger number.
_MOST_FLOAT = 3.4e38


def _one_of(registry: Registry[Any], what: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in registry:
            raise ValueError(registry.refusal(what, name))
        return name

    return AfterValidator(check)


def _checked_chunk_size(value: object) -> object:
    if value is None or value == "auto" or (isinstance(value, int) and value >= 1):
        return value
    raise ValueError(f"give a number of samples, 1 or more, or auto, or null (given: {value!r})")


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class Source:
    """One data set that batches draw from."""

    kind: Literal["clips", "images"] = "clips"
    """`clips`: shards of `clipvip-data shard`. `images`: an ordinary image-text WebDataset such as CC12M
    (KEY.jpg, .png or .webp beside KEY.txt); an image is a clip of one frame, and is contrasted with its
    own text only."""
    shards: str | list[str] = ""
    """A folder, or URLs (`https://host/{000000..000099}.tar`, `s3://`), or commands that write a shard
    (`pipe:ssh host cat {000000..000099}.tar`)."""
    captions: str | list[str] | None = None
    """The folder that `clipvip-data caption` wrote for these shards, or one for each folder of shards.
    A file counts for the shard that it was made of, also where names are equal."""
    weight: float = Field(default=1.0, gt=0)
    """Share of each batch, relative to the other sources."""
    samples_per_shard: int | None = Field(default=None, gt=0)
    """Only for URLs without a manifest beside them: how many samples a shard holds at most."""


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class Data:
    """What the batches are made of."""

    sources: dict[str, Source] = Field(default_factory=lambda: {"clips": Source()}, min_length=1)
    num_frames: int = Field(default=12, ge=1, le=10_000)
    """Frames taken of a clip."""
    sampling: Literal["jittered", "uniform"] = "jittered"
    """`jittered`: evenly spaced between a random first and a random last frame; `uniform`: no chance."""
    drop_frames: float = Field(default=0.0, ge=0, lt=1)
    """The fraction of these that is left out in training, at random, others on each pass; one at least stays.
    What stays keeps its temporal position among `num_frames`."""
    max_text_tokens: int = Field(default=70, ge=3)
    keep: str | None = None
    """A text file of keys, one a line, as `clipvip-data filter` writes it: of sources of clips only these are
    trained on. The others are not decoded, and do not count. Null: all clips."""
    captions: Literal["one", "all"] = "one"
    """Of a clip with several captions, be they of one folder or of several: `one` draws one on each pass;
    `all` encodes all of them, further positives of the clip that are no negatives of each other, and the
    clip counts as one. Each costs a pass of the text encoder."""
    max_captions: int = Field(default=16, ge=1)
    """For `captions: all`: of a clip with more, so many are drawn on each pass."""
    shuffle_shards: int = Field(default=16, ge=1)
    """Samples are shuffled within groups of this many shards, and the shards among themselves."""
    fast_decode: bool = False
    """Let libjpeg shrink large frames while it decodes them; changes pixels slightly."""
    max_pixels: int = Field(default=DEFAULT_MAX_PIXELS, ge=1)
    """A frame or image that claims more pixels is taken for damage. The default is 8192 x 8192."""
    resize: Literal["auto", "loader", "device"] = "auto"
    """Who resizes frames to the model's size. `loader`: the loading processes, within 2 of 255 of exact.
    `device`: the training process, on its GPU, in floating point, exactly as the reference's transform;
    loading processes are then 1.5 times as fast, and hand over frames in the size in which they are stored.
    At 256 x 456 pixels these are 2.3 times the bytes, 4.2 MB a clip of 12 frames, which each loading process
    holds `run.chunk_size` x (`run.prefetch` + 1) times. `auto`: `device` on a GPU, `loader` on a CPU."""


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class Model:
    """Where training starts from."""

    init: str = ""
    """A CLIP or CLIP-ViP model: a folder in Hugging Face layout, or a name on the hub."""
    from_scratch: bool = False
    """Draw all weights at random: of `init` only the sizes and the tokenizer are taken (Table 8)."""
    encoder: Annotated[str, _one_of(ENCODERS, "encoder")] | None = None
    """A row of Table 2, or a plug-in's. Null here and in the next five: as `init`, or the default."""
    num_proxies: int | None = Field(default=None, ge=1, le=10_000)
    """Video proxy tokens, the class token included."""
    temporal_size: int | None = Field(default=None, ge=1, le=10_000)
    """Frames that the temporal position table is made for."""
    proxy_start: ProxyStart | None = None
    """How proxies begin that `init` does not have: `random`, as in the released code, or `class`, copies of
    its class embedding with a little noise."""
    temporal_start: Annotated[TemporalStart, PlainValidator(check_temporal_start)] | None = None
    """How the temporal table begins, if `init` has none: `zero`, as in the released code, or drawn at random
    with this standard deviation."""
    num_frame_layers: int | None = Field(default=None, ge=1)
    """Layers of the `seq_transformer` over frames."""
    image_size: int | None = Field(default=None, ge=1)
    """Side of the images in pixels, a multiple of the patches'; null: as `init`. For another size than
    its own the positions of patches are interpolated (bicubic, antialiased)."""
    drop_patches: float = Field(default=0.0, ge=0, lt=1)
    """The fraction of the patches of each frame and image that is left out in training, at random (FLIP).
    Proxies and class tokens stay."""
    logit_scale: float | None = Field(default=4.60, ge=0)
    """The logarithm of the inverse temperature at the start; null keeps that of `init`."""


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class Loss:
    """Which pairs are contrasted: V video, S subtitle, F middle frame, C its caption (Table 3)."""

    pairs: Annotated[str, _one_of(VARIANTS, "loss")] = "d"
    """`baseline` V-S; `a` V-S, F-C; `b` V-S, V-C; `c` V-S, V-C, F-C; `d` V-S,C, F-C; `V-C` captions only."""
    contrast: Contrast = "softmax"
    """`softmax`: InfoNCE, as in the paper. `sigmoid`: the loss of SigLIP, with a learnable bias: for each
    pair of inputs that `pairs` names, V-S, V-C or F-C, every combination of samples is right or wrong by
    itself. To it `d` is `c`, and it has no `weighting`."""
    weighting: Weighting = "released"
    """Weights of the terms: as in the released code, or as the paper's text says."""


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class Optim:
    """AdamW with linear warm-up and cosine decay to zero."""

    batch_size: int = Field(default=1024, ge=2)
    """Samples in a step, over all processes."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the first source; or give `steps`."""
    steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=5e-6, gt=0)
    multipliers: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Factors of the learning rate by patterns of parameters' names, such as `{"vision_model.*": 0.1,
    logit_scale: 10}`; the last that matches counts. 0 freezes: no gradient, no optimizer state."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer of a tower has this times the rate of the layer above; embeddings have the lowest."""
    weight_decay: float = Field(default=0.05, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.98, ge=0, lt=1)
    epsilon: float = Field(default=1e-6, gt=0)
    warmup_fraction: float = Field(default=0.01, ge=0, le=1)
    clip_norm: float = Field(default=5.0, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay a step of a moving average of the weights, such as 0.999, which is then what is validated and
    written as the model; null: the weights themselves."""
    max_scale: float = Field(default=200.0, gt=1, le=20_000)
    """The inverse temperature is kept between 1 and this."""
    precision: Literal["auto"] | Precision = "auto"
    """`bf16`, `fp16`: autocast, with weights and optimizer state in fp32.
    `auto`: on a GPU bf16, or fp16 where it does not compute in that; else fp32."""

    def __post_init__(self) -> None:
        if self.epochs is None and self.steps is None:
            raise ValueError("give either epochs or steps")
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give either epochs or steps: --set optim.epochs=null or --set optim.steps=null")


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class Evaluation:
    """Retrieval scores: on a validation split during training, on the test split once, at the end."""

    validation: str | None = None
    """A folder of shards; `--validation` sets it."""
    test: str | None = None
    """A folder of shards that shares none with the others; `--test` sets it."""
    every_steps: int | None = Field(default=None, ge=1)
    """Steps between validations; null: one after each epoch of the first source. The last step has one."""
    at_start: bool = False
    """Score the validation split before the first step too."""
    select: Literal["best", "last"] = "last"
    """Which weights become OUT/model: those of the best validation, by the mean of text-to-video R@1, R@5 and
    R@10 (the earlier of equals), or those of the last step."""
    baseline: str | None = "auto"
    """A model that is scored once on both splits, beside the trained one, such as a plain CLIP, whose frames
    are averaged. `auto`: `model.init`, where that is a plain CLIP; null: none."""
    clips_at_once: int = Field(default=16, ge=1)
    """Clips that go through the model together."""


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class Run:
    """How the run is computed; another value gives the same model up to rounding."""

    out: str = ""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    processes: int = Field(default=1, ge=1)
    """One per GPU on this machine; `--gpus` sets it. Under torchrun, torchrun's number holds."""
    chunk_size: Annotated[int | Literal["auto"] | None, BeforeValidator(_checked_chunk_size)] = "auto"
    """Samples encoded at a time by a process; null encodes its whole share of the batch at once. Smaller
    needs less memory and one forward pass more; the gradient is the same but for rounding. `auto`: as many as
    fit into the memory of the GPU or, on a CPU, of the machine, which a run keeps when it goes on."""
    workers: int = Field(default=4, ge=0)
    """Loading processes per training process; 0 loads in the training process itself."""
    prefetch: int = Field(default=2, ge=1)
    """Chunks that each loading process prepares ahead."""
    cache: str | None = None
    """A folder for copies of remote shards; null makes one in the system's temporary folder."""
    compile: bool | None = None
    """Compile the encoders' layers with torch.compile; null: on a GPU, where there is a
    C compiler. The first step of each shape then takes some seconds more."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    log_every_steps: int = Field(default=10, ge=1)
    save_every_steps: int = Field(default=1000, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    keep_models_every_steps: int | None = Field(default=None, ge=1)
    """Also keep the model after every so many steps, as OUT/models/step-000123, to load like OUT/model."""
    tensorboard: bool = True
    wandb_project: str | None = None
    """Also log to this Weights & Biases project; needs the package wandb."""


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class Recipe:
    """All settings of a training run."""

    seed: int = Field(default=42, ge=0, lt=2**63)
    data: Data = Field(default_factory=Data)
    model: Model = Field(default_factory=Model)
    loss: Loss = Field(default_factory=Loss)
    optim: Optim = Field(default_factory=lambda: Optim(epochs=1))
    evaluation: Evaluation = Field(default_factory=Evaluation)
    run: Run = Field(default_factory=Run)

    def __post_init__(self) -> None:
        start, most = self.model.logit_scale, math.log(self.optim.max_scale)
        if start is not None and start > most:
            raise ValueError(
                f"model.logit_scale is {start:g}, above {most:.4g}, the logarithm of optim.max_scale, "
                "which bounds it"
            )


def load_recipe(
    name: str, overrides: tuple[str, ...] = (), *, options: dict[str, Any] | None = None
) -> Recipe:
    """Read the recipe `name`, a path or the name of a packaged one, and apply the overrides.

    These are `key=value` texts with dotted keys and YAML values; `options` are values by dotted key.

    Raises:
        UserError: no such recipe, an unknown key (the nearest known one is named), a value that does not fit.
    """
    tree = parse_yaml(read_recipe(name), name=name)
    if tree.get("data") is None:
        tree["data"] = {}
    if isinstance(tree["data"], dict):  # so that --set data.sources.NAME adds to the default source
        tree["data"].setdefault("sources", {"clips": {}})
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UserError(f"--set {text}: write it as key=value, such as optim.learning_rate=1e-5")
        if not value.strip():
            raise UserError(f"--set {text}: has no value; give one, or {key}=null for none")
        put(tree, key, parse_value(value, name=f"--set {text}"))
    for key, value in (options or {}).items():
        put(tree, key, value)
    return recipe_from_tree(tree, name=name)


def recipe_from_tree(tree: dict[str, Any], *, name: str) -> Recipe:
    """Check a tree of plain values against the dataclasses above; UserError in one line."""
    try:
        recipe = TypeAdapter(Recipe).validate_python(tree)
    except ValidationError as error:
        raise UserError(f"{name}: {_explain(error)}") from error
    # Python's true is the number 1, which pydantic takes for a number.
    values = flatten(recipe_tree(recipe))
    for key, number in values.items():
        if key == "seed" or not isinstance(number, int | float):
            continue
        most = MOST_NUMBER if isinstance(number, int) else _MOST_FLOAT
        if abs(number) > most:
            raise UserError(f"{name}: {key}: {number} is more than {most:,}; give a smaller number")
    for key, given in flatten(tree).items():
        if isinstance(given, bool) and not isinstance(values.get(key), bool):
            raise UserError(f"{name}: {key}: input should be a number (given: {given})")
    return recipe


def _explain(error: ValidationError) -> str:
    """The first mistake in a recipe, in words."""
    # Unknown keys first: a mistyped key often brings a second complaint with it.
    mistake = min(error.errors(), key=lambda item: item["type"] != "unexpected_keyword_argument")
    place = [str(part) for part in mistake["loc"] if part not in {"str", "list[str]"}]
    key = ".".join(place)
    if mistake["type"] == "unexpected_keyword_argument":
        known = _known_keys(place[:-1])
        moved = [other for other in known if other.split(".")[-1] == place[-1]]
        return f"unknown key {key}{nearest(key, moved or known)}"
    message, given = mistake["msg"].removeprefix("Value error, "), mistake["input"]
    is_shown = mistake["type"] != "value_error" and not isinstance(given, dict | ArgsKwargs)
    shown = f" (given: {given!r})" if is_shown else ""
    return f"{key or 'recipe'}: {message[:1].lower()}{message[1:]}{shown}"


def _known_keys(place: list[str]) -> list[str]:
    """The dotted keys beside one at `place`, then those of all sections: it may be in the wrong one."""
    of_recipe = {field.name: field.type for field in dataclasses.fields(Recipe)}
    sections: dict[str, Any] = {name: of for name, of in of_recipe.items() if dataclasses.is_dataclass(of)}
    owner = Source if place[:2] == ["data", "sources"] else sections.get("".join(place[:1]), Recipe)
    owners = [(".".join(place), owner), *sections.items()]
    return [f"{name}.{field.name}".strip(".") for name, of in owners for field in dataclasses.fields(of)]


def recipe_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, as YAML and JSON know them."""
    return TypeAdapter(Recipe).dump_python(recipe, mode="json")


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML that `load_recipe` reads back to an equal one."""
    return yaml.safe_dump(recipe_tree(recipe), sort_keys=False)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a tree of plain values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


_PATH_OF_DATA = re.compile(
    r"evaluation\.validation|data\.keep|data\.sources\..+\.(shards|captions|samples_per_shard)"
)
_OF_TEST = ("evaluation.test", "evaluation.baseline", "evaluation.clips_at_once")


def differences(first: Recipe, second: Recipe, *, paths: bool = True) -> list[str]:
    """Where two recipes differ in the weights that come out; the test split may change when all is done.

    Without `paths` it is left out where the data lie, for whoever compares what they are.
    """
    left, right = flatten(recipe_tree(first)), flatten(recipe_tree(second))
    return [
        f"{key}: {left.get(key)!r}, now {right.get(key)!r}"
        for key in dict.fromkeys([*left, *right])
        if left.get(key) != right.get(key)
        and not key.startswith(("run.", *_OF_TEST))
        and (paths or not _PATH_OF_DATA.fullmatch(key))
    ]

"""Which captioner a model folder holds: OFA, a plug-in's, or any image-to-text model of transformers."""

from typing import NamedTuple

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from clipvip.model.errors import CheckpointError
from clipvip.model.image_captioner import CaptionerKind, Decoding
from clipvip.model.image_to_text import ImageToTextCaptioner, default_decoding
from clipvip.model.ofa.captioner import CAPTIONERS
from clipvip.model.weights import model_type
from clipvip.plugins import HINT


class Found(NamedTuple):
    """What loads the captioner of a folder, and how it captions where nothing is asked."""

    load: CaptionerKind
    default: Decoding


def find_captioner(folder_or_name: str) -> Found:
    """The captioner of a model folder or name, and what is asked of it by default.

    Raises:
        CheckpointError: it holds no image-to-text model, or one whose processor does not load.
    """
    load, kind = captioner_kind(folder_or_name), model_type(folder_or_name)
    return Found(load, Decoding() if is_our_own(kind) else default_decoding(folder_or_name, kind))


def captioner_kind(folder_or_name: str) -> CaptionerKind:
    """What loads the captioner of a model folder or name, by the model type in its config.json.

    Raises:
        CheckpointError: it holds no image-to-text model.
    """
    kind = model_type(folder_or_name)
    if is_our_own(kind):
        return CAPTIONERS[kind]
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return ImageToTextCaptioner
    raise CheckpointError(
        f"{folder_or_name}: holds a model of type {kind!r}, which does not turn images into text; give "
        f"{' or '.join(sorted(CAPTIONERS))}, or an image-to-text model of transformers such as BLIP, GIT or "
        f"a chat model that takes images; {HINT}"
    )


def is_our_own(kind: str) -> bool:
    """Whether a model type is OFA or a plug-in's."""
    return kind in CAPTIONERS

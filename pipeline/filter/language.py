"""The language of a text, by py3langid."""

from collections.abc import Callable
from functools import cache

UNDETERMINED = "und"
"""As ISO 639 has it: no letters, or too few for one language to be likelier than all others."""
_LEAST_PROBABILITY = 0.5


def language_detector() -> str:
    """Package and version, which the answers depend on; "none" where it is not installed."""
    try:
        import py3langid
    except ImportError:
        return "none"
    return f"py3langid {py3langid.__version__}"


@cache
def _classify() -> Callable[[str], tuple[str, float]] | None:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found: Callable[[str], tuple[str, float]] = identifier.classify
    return found


def language_of(text: str) -> str | None:
    """The ISO 639 code of the language of a text, or "und"; None for an empty text, or without py3langid."""
    classify = _classify()
    if classify is None or not text:
        return None
    if not any(letter.isalpha() for letter in text):
        return UNDETERMINED
    language, probability = classify(text)
    return language if probability > _LEAST_PROBABILITY else UNDETERMINED

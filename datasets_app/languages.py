"""Languages says in which language a document is written, or why that cannot be told.

Pure. By py3langid (langid.py: Lui & Baldwin 2012), restricted to languages that much text is written in: among its 140
the rare neighbours of a large language (Scots, Venetian, Pidgin) would win too many short documents.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

NAMES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian",
    "bn": "Bengali", "bs": "Bosnian", "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "ga": "Irish", "gl": "Galician", "gu": "Gujarati", "ha": "Hausa", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "ig": "Igbo",
    "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer",
    "kn": "Kannada", "ko": "Korean", "ku": "Kurdish", "ky": "Kyrgyz", "lo": "Lao", "lt": "Lithuanian",
    "lv": "Latvian", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ms": "Malay",
    "mt": "Maltese", "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "om": "Oromo", "or": "Odia",
    "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "so": "Somali", "sq": "Albanian", "sr": "Serbian",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish",
    "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "xh": "Xhosa", "yo": "Yoruba",
    "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip
SHORT, UNSURE, MIXED = "short", "unsure", "mixed"
UNDETERMINED = (SHORT, UNSURE, MIXED)

PIECE = 120  # characters that are looked at, at the beginning, in the middle and at the end
LEAST_BYTES = 20  # of letters; below, even "ok thanks" gets some language
SURE = 0.75  # the least probability: true sentences of 60 characters mostly have 0.9 and more


def language_of(text: str) -> str:
    """The ISO 639 code of `text`, a key of NAMES; or "short", "unsure", or "mixed" when its parts differ."""
    pieces = _pieces(text)
    if len("".join(filter(str.isalpha, "".join(pieces))).encode("utf-8", "ignore")) < LEAST_BYTES:
        return SHORT
    found = {code for code, probability in map(_identifier().classify, pieces) if probability >= SURE}
    if len(found) > 1:
        return MIXED
    return found.pop() if found else UNSURE


def _pieces(text: str) -> list[str]:
    """The whole of a short text; the beginning, the middle and the end of a long one."""
    text = text.strip()
    if len(text) <= 3 * PIECE:
        return [text]
    middle = (len(text) - PIECE) // 2
    return [text[:PIECE], text[middle : middle + PIECE], text[-PIECE:]]


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """py3langid's own model with probabilities, restricted to NAMES; loading takes 1 s and 100 MB."""
    from py3langid import langid

    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    identifier.set_languages(sorted(set(NAMES) & set(identifier.labels)))
    return identifier


def let_go() -> None:
    """Free the 90 MB that the model takes; the next question loads it again."""
    _identifier.cache_clear()

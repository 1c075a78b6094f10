"""Which engine writes for an opened model: transformers, the reference, or CTranslate2 where it writes the same.

Engine and precision change the texts that are evaluated. So what nobody asked for is taken only where it is exact
(fp32, equal on probes), and what somebody asked for is used or refused, never replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from models_registry.decoding import Decoding, wanted
from models_registry.model_folder import digest
from models_registry.providers import ProviderError, Spec
from models_registry.translating import Translation, converted, least_new_tokens, reason_against
from models_registry.writing import Writer

log = logging.getLogger(__name__)

PROBE_TOKENS = 12
PROBES = (
    "The bridge opened on Monday.",
    "The council met until midnight and agreed, by nine votes to eight, to repair the old bridge before winter. The "
    "work will cost 2.4 million; the harbour pays a third of it.",
    "A train that was to leave at dawn stood in the station until noon: its driver had been sent to the wrong town. "
    "Two hundred travellers waited in the cold. The company gave them tea and, in the end, their money back. The "
    "town's teacher had used the hours for a lesson on maps; the children asked for more.",
)
"""What both engines are given when a model opens: a second or two for a model of 400 M parameters."""

SHA256 = 64
"""Digits of a local folder's revision; a commit of the hub has fewer."""


class Engine(Protocol):
    """What turns rows of token ids into the new token ids of each row, up to and with its end token."""

    def write(self, rows: Sequence[Sequence[int]]) -> list[list[int]]: ...


@dataclass(frozen=True)
class Choice:
    """The engine, and why it is this one, in words for the record; `dtype` "" is that of the loaded model."""

    engine: Engine
    name: str
    note: str
    dtype: str = ""
    version: str = ""


def choose(
    spec: Spec, writer: Writer, decoding: Decoding, *, device: str, threads: int, encode: Callable[[str], list[int]]
) -> Choice:
    """CTranslate2 where the spec asks for it, or leaves the choice and the probes come out equal; else `writer`.

    Raises ProviderError(code="bad_parameter") when it is asked for and cannot be used.
    """
    engine, dtype = wanted(spec, "engine"), wanted(spec, "dtype")
    asked = engine == "ctranslate2" or dtype == "int8"
    if engine == "transformers" or (not asked and dtype not in ("auto", "float32")):
        return Choice(writer, "transformers", "asked for" if engine == "transformers" else f"{dtype} asked for")
    dtype = "float32" if dtype == "auto" else dtype
    model = writer.model
    reason = _reason_against(spec, device) or reason_against(
        model.config, decoding.settings, model.generation_config, dtype
    )
    if not reason:
        found = _translation(spec, model, decoding, dtype, threads)
        if isinstance(found, Translation):
            note = _proof(found, writer, decoding, encode) if dtype == "float32" else f"{dtype} asked for"
            if asked or note == "":
                return Choice(found, "ctranslate2", note or "equal to transformers on probes", dtype, found.version)
            found = note
        reason = found
    if asked:
        raise ProviderError(
            f"ctranslate2 cannot run this candidate: {reason}. Choose the engine transformers, or other parameters",
            code="bad_parameter",
            failure="stop",
        )
    log.info("%s is run by transformers: %s", spec.get("uri") or "the model", reason)
    return Choice(writer, "transformers", reason)


def _reason_against(spec: Spec, device: str) -> str:
    if device != "cpu":
        return "on a GPU transformers is the faster one"
    return "" if spec.get("cache") else "no folder for conversions was given"


def _translation(spec: Spec, model: Any, decoding: Decoding, dtype: str, threads: int) -> Translation | str:
    """The converted model, or why there is none."""
    path, revision = str(spec["path"]), str(spec.get("revision") or "")
    try:
        fingerprint = revision if len(revision) == SHA256 else digest(Path(path))
        folder = converted(model, path, fingerprint, Path(str(spec["cache"])), dtype)
        return Translation(folder, decoding.settings, model.generation_config, dtype=dtype, threads=threads)
    except Exception as error:  # another library's loaders and files: whatever they raise, transformers can go on
        return f"ctranslate2 cannot take the model: {type(error).__name__}: {error}"[:400]


def _proof(translation: Translation, writer: Writer, decoding: Decoding, encode: Callable[[str], list[int]]) -> str:
    """ "" when both engines write the same first tokens for every probe, else how many differ."""
    rows = [encode(text) for text in PROBES]
    longest = min(PROBE_TOKENS, decoding.max_new_tokens)
    least = min(least_new_tokens(decoding.settings), longest)
    try:
        ours = translation.write(rows, longest)
    except Exception as error:  # a library's own, as above
        return f"ctranslate2 failed on the probes: {type(error).__name__}: {error}"[:400]
    theirs = writer.write(rows, max_new_tokens=longest, min_new_tokens=least, min_length=None)
    different = sum(one != other for one, other in zip(ours, theirs, strict=True))
    return f"ctranslate2 wrote other tokens than transformers on {different} of {len(rows)} probes" if different else ""

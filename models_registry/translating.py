"""CTranslate2 as the engine of a loaded encoder-decoder model on a CPU: the same tokens in less time.

A model is converted once, into a folder named after its weights, the library's version and the precision. Tokens go
in and come out as numbers in words ("17"), so that no tokenizer's notion of a vocabulary can come between.

What CTranslate2 4.8 decodes otherwise than transformers 5 (measured on tiny models, 40 documents a setting), and is
therefore left to transformers: sampling; repetition penalties (the start token counts in one and not in the other);
beams with early_stopping other than true (another rule of when to stop); beams with forbidden n-grams or least lengths
(what is forbidden is taken out before probabilities are computed here, after in transformers, so that beams score
differently). Everything else was equal, 40 of 40.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NORMS: dict[str, dict[str, bool]] = {
    "bart": {"normalize_before": False, "normalize_embedding": True, "add_final_layer_norm": False},
    "pegasus": {"normalize_before": True, "normalize_embedding": False, "add_final_layer_norm": True},
    "t5": {},
    "mt5": {},
}
"""The architectures, and what the converter asks their configuration for that transformers 5 no longer keeps."""

UNDERSTOOD = {
    "max_new_tokens", "min_new_tokens", "min_length", "num_beams", "early_stopping", "length_penalty",
    "no_repeat_ngram_size", "repetition_penalty", "encoder_no_repeat_ngram_size", "do_sample",
}  # fmt: skip
FOLDER = "ctranslate2"


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where conversions are kept: in LUMIGATOR_HOME, else in HF_HOME, else in the user's cache."""
    for name in ("LUMIGATOR_HOME", "HF_HOME"):
        if home := environment.get(name):
            return Path(home).expanduser().absolute() / FOLDER
    return Path(environment.get("HOME") or "~").expanduser().absolute() / ".cache" / "lumigator" / FOLDER


def reason_against(config: Any, settings: Mapping[str, Any], generation_config: Any, dtype: str = "float32") -> str:
    """Why CTranslate2 would not write what transformers writes, in words; "" where it does.

    `config` is the model's, `settings` those of `decoding.Decoding`, `generation_config` what they led to.
    """
    if find_spec("ctranslate2") is None:
        return "ctranslate2 is not installed: pip install 'lumigator[fast-cpu]'"
    if config.model_type not in NORMS:
        return f"ctranslate2 runs {', '.join(NORMS)}, not {config.model_type}"
    import ctranslate2

    if dtype not in (offered := ctranslate2.get_supported_compute_types("cpu")):
        return f"on this CPU ctranslate2 has no {dtype}, but {', '.join(sorted(offered))}"
    return _against_settings(settings) or _against_tokens(settings, generation_config)


def _against_settings(settings: Mapping[str, Any]) -> str:
    if settings.get("do_sample"):
        return "sampling is left to transformers, whose draws follow the seed"
    if unknown := sorted(set(settings) - UNDERSTOOD):
        return f"ctranslate2 does not know {', '.join(unknown)}"
    if settings.get("repetition_penalty") not in (None, 1, 1.0):
        return "ctranslate2 counts other tokens in a repetition_penalty"
    if settings.get("encoder_no_repeat_ngram_size"):
        return "ctranslate2 has no encoder_no_repeat_ngram_size"
    if _beams(settings) > 1:
        if settings.get("early_stopping") is not True:
            return "ctranslate2 stops beams as with early_stopping=true only"
        if settings.get("no_repeat_ngram_size") or least_new_tokens(settings):
            return "ctranslate2 scores beams otherwise under a least length or no_repeat_ngram_size"
    return ""


def _against_tokens(settings: Mapping[str, Any], generation_config: Any) -> str:
    ends = generation_config.eos_token_id
    if isinstance(ends, list) and len(ends) > 1:
        return "the model has several end tokens"
    if _beams(settings) > 1 and generation_config.forced_eos_token_id is not None:
        return "ctranslate2 scores beams otherwise under a forced end token"
    for name in ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "forced_decoder_ids"):
        if getattr(generation_config, name, None):
            return f"the model's {name} is left to transformers"
    return ""


def _beams(settings: Mapping[str, Any]) -> int:
    return int(settings.get("num_beams") or 1)


def least_new_tokens(settings: Mapping[str, Any]) -> int:
    """New tokens before the end token may come; min_length counts the start token and the end."""
    return max((settings.get("min_length") or 0) - 1, settings.get("min_new_tokens") or 0, 0)


class Translation:
    """A converted model. `write` gives the new token ids of each row, up to and with its end token."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], generation_config: Any, *, dtype: str, threads: int
    ) -> None:
        """Raises RuntimeError or ValueError when the folder holds no whole conversion or the CPU lacks the dtype."""
        import ctranslate2

        self.version = str(ctranslate2.__version__)
        self._translator = ctranslate2.Translator(
            str(folder), device="cpu", compute_type=dtype, inter_threads=1, intra_threads=threads
        )
        ends = generation_config.eos_token_id
        self._end = int(ends[0] if isinstance(ends, list) else ends)
        self._first = generation_config.forced_bos_token_id
        self._last = generation_config.forced_eos_token_id
        self._settings = settings

    def write(self, rows: Sequence[Sequence[int]], max_new_tokens: int | None = None) -> list[list[int]]:
        """`max_new_tokens` below that of the settings cuts a probe short."""
        longest = max_new_tokens or int(self._settings["max_new_tokens"])
        free = longest if self._last is None else longest - 1
        if free < 1:
            return [[int(self._last)] for _ in rows]
        found = self._translator.translate_batch(
            [[str(token) for token in row] for row in rows],
            target_prefix=None if self._first is None else [[str(self._first)]] * len(rows),
            end_token=str(self._end),
            return_end_token=True,
            max_input_length=0,
            max_decoding_length=free,
            min_decoding_length=min(least_new_tokens(self._settings), free),
            beam_size=_beams(self._settings),
            length_penalty=float(self._settings.get("length_penalty", 1.0)),
            no_repeat_ngram_size=int(self._settings.get("no_repeat_ngram_size") or 0),
        )
        return [self._closed([int(token) for token in each.hypotheses[0]], longest) for each in found]

    def _closed(self, ids: list[int], longest: int) -> list[int]:
        """The end token that the model is forced to write in the last place."""
        if self._last is not None and len(ids) == longest - 1 and ids[-1] != self._end:
            return [*ids, int(self._last)]
        return ids


def converted(model: Any, path: str, fingerprint: str, cache: Path, dtype: str) -> Path:
    """The folder of `model` (loaded from `path` in fp32) converted to `dtype`; made now unless it is there.

    `fingerprint` names the weights. A conversion that was interrupted leaves nothing at the folder's place; of two at
    the same time the first one stays. Raises OSError when `cache` cannot be written, and whatever the converter raises.
    """
    import ctranslate2

    folder = cache / f"{fingerprint[:40]}-{ctranslate2.__version__}-{dtype}"
    if (folder / "model.bin").is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".converting-", dir=cache))
    try:
        _convert(model, path, building / "model", dtype)
        with contextlib.suppress(OSError):  # another process may have been faster
            os.rename(building / "model", folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    if not (folder / "model.bin").is_file():
        raise OSError(f"{folder} cannot be put in its place: remove it, or make its parent writable")
    return folder


def _convert(model: Any, path: str, folder: Path, dtype: str) -> None:
    from ctranslate2.converters import TransformersConverter

    described = copy.copy(model)
    described.config = copy.deepcopy(model.config)
    for name, value in NORMS[model.config.model_type].items():
        setattr(described.config, name, value)

    class OfLoaded(TransformersConverter):  # type: ignore[misc]
        """Takes what is in memory: loading it again would need the memory twice."""

        def load_model(self, *arguments: Any, **names: Any) -> Any:
            return described

        def load_tokenizer(self, *arguments: Any, **names: Any) -> Any:
            return _Numbers(described.config, described.generation_config)

    OfLoaded(path).convert(str(folder), quantization=None if dtype == "float32" else dtype)


class _Numbers:
    """What the converter asks a tokenizer, for a vocabulary in which every token is its number."""

    def __init__(self, config: Any, generation_config: Any) -> None:
        ends = generation_config.eos_token_id
        self._size = int(config.vocab_size)
        self.pad_token = str(generation_config.pad_token_id)
        self.eos_token = str(ends[0] if isinstance(ends, list) else ends)
        self.bos_token = self.pad_token
        self.unk_token = self.pad_token

    def get_vocab(self) -> dict[str, int]:
        return {str(token): token for token in range(self._size)}

    def convert_ids_to_tokens(self, token: int) -> str:
        return str(token)

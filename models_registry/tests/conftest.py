"""Tiny models, made once for all tests here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from models_registry import testing

MAKERS: dict[str, Callable[[Path], Path]] = {
    "bart": testing.tiny_bart,
    "t5": testing.tiny_t5,
    "pegasus": testing.tiny_pegasus,
    "led": testing.tiny_led,
    "llama": testing.tiny_llama,
    "gpt2": testing.tiny_gpt2,
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model by its name; read only."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = MAKERS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture
def fakes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIGATOR_FAKES", "1")

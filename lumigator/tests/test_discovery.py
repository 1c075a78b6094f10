"""Discovering: what lies in a package is found, what is wrong in it is refused, nothing is passed over in silence."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from lumigator.discovery import discover


@dataclass(frozen=True)
class Tool:
    name: str


SAW = "from lumigator.tests.test_discovery import Tool\ntool = Tool('{}')\n"
Shed = Callable[..., ModuleType]


@pytest.fixture
def shed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shed]:
    """shed(saw="…source…") is a package with one module for each keyword."""

    def build(**modules: str) -> ModuleType:
        folder = tmp_path / "shed_of_tools"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, source in modules.items():
            (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module("shed_of_tools")

    monkeypatch.syspath_prepend(tmp_path)
    yield build
    for name in [name for name in sys.modules if name.partition(".")[0] == "shed_of_tools"]:
        del sys.modules[name]


def test_every_module_of_the_package_is_found_in_the_order_of_its_name(shed: Shed) -> None:
    found = discover(shed(z=SAW.format("axe"), a=SAW.format("saw")), "tool", Tool)
    assert list(found.items()) == [("axe", Tool("axe")), ("saw", Tool("saw"))]


def test_private_modules_and_folders_are_left_alone(shed: Shed) -> None:
    package = shed(saw=SAW.format("saw"), _drawer="raise RuntimeError('opened')")
    tests = Path(str(package.__file__)).parent / "tests"
    tests.mkdir()
    (tests / "__init__.py").write_text("raise RuntimeError('opened')")
    assert list(discover(package, "tool", Tool)) == ["saw"]


def test_a_module_without_the_object_is_refused_by_name(shed: Shed) -> None:
    with pytest.raises(TypeError, match=r"shed_of_tools\.hammer must define `tool`, a Tool"):
        discover(shed(hammer="tol = 1"), "tool", Tool)


def test_a_module_with_something_else_in_its_place_is_refused(shed: Shed) -> None:
    with pytest.raises(TypeError, match=r"hammer must define `tool`"):
        discover(shed(hammer="tool = 'hammer'"), "tool", Tool)


def test_two_modules_cannot_claim_one_name(shed: Shed) -> None:
    with pytest.raises(ValueError, match=r"shed_of_tools\.other defines the tool 'saw'"):
        discover(shed(first=SAW.format("saw"), other=SAW.format("saw")), "tool", Tool)


def test_a_module_that_cannot_be_imported_is_not_skipped(shed: Shed) -> None:
    with pytest.raises(ZeroDivisionError):
        discover(shed(broken="1 / 0"), "tool", Tool)

"""Modules of Hugging Face's `evaluate` that an administrator of the machine registers as metrics.

LUMIGATOR_EVALUATE_MODULES names their folders. A folder holds the script and a `metric.json` that describes it, so
that nothing of it runs until a worker scores with it; docs/evaluate.md says how to write one. What cannot be
registered is left out with a sentence in `problems`, and never keeps the product from starting.
"""

from __future__ import annotations

import ast
import json
import logging
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluations.metrics import Absent, Item, Metric, Options, Part, Value
from evaluations.metrics._admitting import EMPTY, NO_REFERENCE, everywhere, usable
from evaluations.metrics._evaluate_host import SEED, ModuleHost
from evaluations.metrics._sentences import installed

log = logging.getLogger(__name__)
VARIABLE = "LUMIGATOR_EVALUATE_MODULES"
DESCRIPTION = "metric.json"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
FETCHES = re.compile(r"^\s*(?:from|import)\s+\.[^#]*#\s+From:", re.MULTILINE)
"""evaluate downloads and runs what such a comment names."""
SLACK = 1e-6  # sums of floats may leave a range by so much

NUMBER, FLAG, TEXT, NOTHING = (int, float), (bool,), (str,), (type(None),)
FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "name": (TEXT, ...), "label": (TEXT, ...), "about": (TEXT, ...), "parts": ((list,), ...),
    "needs_reference": (FLAG, True), "needs_source": (FLAG, False), "queue": (TEXT, "cpu"), "languages": ((list,), []),
    "cost": (TEXT, ""), "compute": ((dict,), {}),
}  # fmt: skip
PART_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "name": (TEXT, ...), "label": (TEXT, ...), "about": (TEXT, ...), "key": (TEXT, ""),
    "low": (NUMBER, 0.0), "high": (NUMBER + NOTHING, 1.0), "higher_is_better": (FLAG + NOTHING, True),
}  # fmt: skip
"""{field: (what it may be, its default, or ... where there is none)}."""

_hosts: dict[tuple[Path, str], ModuleHost] = {}
_hosts_lock = threading.Lock()


problems: list[str] = []
"""One sentence for each folder that the last call of `registered` refused: where, why, and what to do."""


def registered(ours: Mapping[str, Metric]) -> dict[str, Metric]:
    """{name: metric} of every folder that can be registered beside `ours`; for the others see `problems`."""
    found: dict[str, Metric] = {}
    problems.clear()
    for folder in folders():
        try:
            metric = described(folder)
            _refuse_taken(metric, {**ours, **found})
            found[metric.name] = metric
        except (ValueError, OSError) as error:
            problems.append(f"{VARIABLE} names {folder}, which is not registered as a metric: {error}")
            log.warning(problems[-1])
    return found


def folders() -> list[Path]:
    """What LUMIGATOR_EVALUATE_MODULES names."""
    return [Path(each.strip()) for each in os.environ.get(VARIABLE, "").split(os.pathsep) if each.strip()]


def _refuse_taken(metric: Metric, others: Mapping[str, Metric]) -> None:
    if metric.name in others:
        raise ValueError(f"there is a metric {metric.name!r} already: choose another name in {DESCRIPTION}")
    taken = {part.name: other.name for other in others.values() for part in other.all_parts}
    for part in metric.parts:
        if part.name in taken:
            raise ValueError(
                f"the metric {taken[part.name]!r} has a part {part.name!r} already: choose another name for it "
                f'("key" says what the module\'s result calls it)'
            )


# The description


def described(folder: Path) -> Metric:
    """The metric that `folder` describes; its script is read and hashed, not run.

    Raises ValueError or OSError saying what is wrong with the folder or its metric.json.
    """
    if not folder.is_absolute():
        raise ValueError("the path is not absolute: write it in full")
    _refuse_open_to_all(folder)
    file = folder / DESCRIPTION
    if not file.is_file():
        raise ValueError(f"there is no {DESCRIPTION} in it: write one, or correct the path")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{DESCRIPTION} is no JSON: {error}") from None
    told = _fields(content, FIELDS, DESCRIPTION)
    if not NAME.fullmatch(told["name"]):
        raise ValueError(f"the name {told['name']!r} is not made of at most 40 letters, digits and _, a letter first")
    if told["queue"] not in ("cpu", "gpu"):
        raise ValueError(f'"queue" is {told["queue"]!r}: choose "cpu" or "gpu"')
    if not all(isinstance(each, str) for each in told["languages"]):
        raise ValueError('"languages" is a list of codes such as "en"')
    parts, keys = _parts(told["parts"])
    code = digest(folder)
    opening = {
        "folder": str(folder), "keys": sorted(set(keys.values())), "compute": told["compute"],
        "needs_reference": told["needs_reference"], "needs_source": told["needs_source"],
    }  # fmt: skip
    return Metric(
        name=told["name"],
        label=told["label"],
        parts=parts,
        about=told["about"],
        score=_scoring(folder, code, opening, parts, keys),
        signature=_signing(folder, code, told["compute"]),
        needs_reference=told["needs_reference"],
        needs_source=told["needs_source"],
        queue=told["queue"],
        available=lambda options: missing(folder, code),
        languages=tuple(told["languages"]),
        cost=told["cost"],
    )


def _parts(content: Sequence[Any]) -> tuple[tuple[Part, ...], dict[str, str]]:
    """The parts, and {part name: key in the module's result}."""
    parts, keys = [], {}
    for number, each in enumerate(content):
        told = _fields(each, PART_FIELDS, f"parts[{number}]")
        key = told.pop("key") or told["name"]
        part = Part(
            **{**told, "low": float(told["low"]), "high": None if told["high"] is None else float(told["high"])}
        )
        if not NAME.fullmatch(part.name) or part.name in keys:
            raise ValueError(f"parts[{number}] needs a name of its own, of letters, digits and _: not {part.name!r}")
        if not math.isfinite(part.low) or (part.high is not None and not part.low < part.high < math.inf):
            raise ValueError(f'parts[{number}]: "low" must lie below "high", and both be finite ("high" may be null)')
        if part.higher_is_better is False and part.high is None:
            raise ValueError(f'parts[{number}]: lower is better, so "high" must say what the worst value is')
        parts.append(part)
        keys[part.name] = key
    if not parts:
        raise ValueError('"parts" is empty: describe at least one number of the module\'s result')
    return tuple(parts), keys


def _fields(content: Any, fields: Mapping[str, tuple[tuple[type, ...], Any]], place: str) -> dict[str, Any]:
    """Every field of `content`, or its default. Raises ValueError for a missing, an unknown or a wrongly typed one."""
    if not isinstance(content, dict):
        raise ValueError(f"{place} must be an object {{…}}")
    if unknown := sorted(content.keys() - fields.keys()):
        raise ValueError(f"{place} has a field {unknown[0]!r}: known are {', '.join(fields)}")
    told = {}
    for name, (kind, default) in fields.items():
        value = content.get(name, default)
        if value is ... or (kind is TEXT and default is ... and not str(value).strip()):
            raise ValueError(f"{place} lacks {name!r}")
        # True is an int to Python, and would pass for a number.
        if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
            raise ValueError(f"{place}: {name!r} is {value!r}, of the wrong type")
        told[name] = value
    return told


def _refuse_open_to_all(folder: Path) -> None:
    """Code that anybody on the machine may write is not run with a worker's rights."""
    for path in (folder, *_covered(folder)):
        if path.exists() and path.stat().st_mode & 0o002:
            raise ValueError(f"everybody may write to {path}: take that right away (chmod o-w)")


# The code


def _covered(folder: Path) -> list[Path]:
    """The files that the digest is of: every .py file in the folder at any depth, and metric.json."""
    return [*sorted(folder.rglob("*.py")), folder / DESCRIPTION]


def digest(folder: Path) -> str:
    """SHA-256 in hex over names and contents of what `_covered` lists; empty when the folder cannot be read."""
    whole = sha256()
    try:
        for path in _covered(folder):
            content = path.read_bytes()
            whole.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    except OSError:
        return ""
    return whole.hexdigest()


def missing(folder: Path, code: str) -> str:
    """An empty string, or why the module cannot be run here; `code` is the digest of when it was registered."""
    script = folder / f"{folder.name}.py"
    if not find_spec("evaluate"):
        return "evaluate is not installed: install the `worker` extra"
    if not folder.is_dir():
        return f"its folder {folder} is gone"
    if not script.is_file():
        return f"its script {script} is missing: evaluate wants it named like its folder"
    if digest(folder) != code:
        return f"the files in {folder} have changed since this process started: restart Lumigator"
    try:
        text = script.read_text(encoding="utf-8")
        ast.parse(text)
    except (SyntaxError, ValueError) as error:
        return f"its script {script} is no Python: {error}"
    if FETCHES.search(text):
        return f"its script {script} imports code from an address (# From:): put that file into the folder instead"
    return ""


def _signing(folder: Path, code: str, compute: Mapping[str, Any]) -> Callable[[Options], dict[str, Any]]:
    def signature(options: Options) -> dict[str, Any]:
        """evaluate's version, the code, the libraries it imports, and how it is called."""
        return {
            "library": "evaluate",
            "version": installed("evaluate"),
            "module": folder.name,
            "code": code,
            "imports": _libraries(folder, code),
            "compute": dict(compute),
            "seed": SEED,
            "references": "the module's own way, or the best where it takes one",
        }

    return signature


@cache
def _libraries(folder: Path, code: str) -> str:
    """The distributions that the .py files import, with their versions, such as "nltk 3.10.0, rouge-score 0.1.2"."""
    names = set()
    for path in folder.rglob("*.py"):
        try:
            nodes = list(ast.walk(ast.parse(path.read_bytes())))
        except (SyntaxError, ValueError, OSError):
            continue
        for node in nodes:
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    known = packages_distributions()
    found = {package for name in names - sys.stdlib_module_names for package in known.get(name, [name])}
    return ", ".join(f"{package} {installed(package)}" for package in sorted(found))


# The numbers


def _scoring(
    folder: Path, code: str, opening: Mapping[str, Any], parts: tuple[Part, ...], keys: Mapping[str, str]
) -> Callable[[Sequence[Item], Options], list[dict[str, Value]]]:
    def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
        """Every part of every item, one `compute` each. Raises RuntimeError when the module's process dies."""
        absences = [_absence(item, opening) for item in items]
        if all(absences):
            return [everywhere(absent, parts) for absent in absences if absent]
        if reason := missing(folder, code):
            return [everywhere(absent or Absent("not_computed", reason), parts) for absent in absences]
        try:
            host = _host(folder, code, opening)
        except RuntimeError as error:
            broken = Absent("not_computed", f"the module cannot be loaded: {error}")
            return [everywhere(absent or broken, parts) for absent in absences]
        with host.lock:
            return [
                everywhere(absent, parts) if absent else _scored(host, item, parts, keys)
                for item, absent in zip(items, absences, strict=True)
            ]

    return score


def _absence(item: Item, opening: Mapping[str, Any]) -> Absent | None:
    if not item.text.strip():
        return EMPTY
    if opening["needs_reference"] and not usable(item):
        return NO_REFERENCE
    if opening["needs_source"] and not item.source.strip():
        return Absent("not_applicable", "no source document")
    return None


def _host(folder: Path, code: str, opening: Mapping[str, Any]) -> ModuleHost:
    """The process that holds this code, started when there is none."""
    with _hosts_lock:
        host = _hosts.get((folder, code))
        if host is None or not host.alive:
            host = _hosts[folder, code] = ModuleHost(opening)
        return host


def _scored(host: ModuleHost, item: Item, parts: tuple[Part, ...], keys: Mapping[str, str]) -> dict[str, Value]:
    """The parts of one item. A module that takes one reference is asked for each, and the best value counts."""
    references = usable(item)
    rounds = [references] if host.many or len(references) < 2 else [[reference] for reference in references]
    answers = [host.ask({"text": item.text, "references": each, "source": item.source}) for each in rounds]
    return {part.name: _best(part, [_value(part, keys[part.name], answer) for answer in answers]) for part in parts}


def _best(part: Part, values: Sequence[Value]) -> Value:
    for value in values:
        if isinstance(value, Absent):
            return value
    numbers = [float(value) for value in values if not isinstance(value, Absent)]
    return min(numbers) if part.higher_is_better is False else max(numbers)


def _value(part: Part, key: str, answer: Mapping[str, Any]) -> Value:
    if "failed" in answer:
        return Absent("not_computed", f"the module fails on this output ({answer['failed']})")
    value = answer["values"][key]
    if isinstance(value, str):
        return Absent("not_computed", value)
    high = math.inf if part.high is None else part.high
    if not part.low - SLACK <= value <= high + SLACK:
        told = f"{part.low:g} to {part.high:g}" if part.high is not None else f"{part.low:g} or more"
        return Absent("not_computed", f"the module gave {value:g}, but {DESCRIPTION} says {told}: correct it")
    return float(min(max(value, part.low), high))

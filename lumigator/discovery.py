"""Find the plug-ins of a package: one module, one named object, no registry to edit."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def discover(package: ModuleType, attribute: str, kind: type[T]) -> dict[str, T]:
    """Import every module of `package` and collect its `attribute`, keyed by the object's `name`.

    Modules whose name begins with an underscore, and folders of tests, are left alone. The result is in order
    of name. Raises TypeError for a module that lacks the attribute or holds something else in it, ValueError
    when two modules claim one name: a plug-in that is silently ignored is worse than a refusal to start.
    """
    found: dict[str, T] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if info.name.startswith("_") or info.ispkg:
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        plug_in = getattr(module, attribute, None)
        if not isinstance(plug_in, kind):
            raise TypeError(f"{module.__name__} must define `{attribute}`, a {kind.__name__}")
        name = plug_in.name  # type: ignore[attr-defined]
        if name in found:
            raise ValueError(f"{module.__name__} defines the {attribute} {name!r}, which another module defines too")
        found[name] = plug_in
    return dict(sorted(found.items()))

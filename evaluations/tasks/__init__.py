"""Task types: what a candidate is asked to do with a document. One module each, found by `available()`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from lumigator.discovery import discover

PLACEHOLDER = "{document}"


@dataclass(frozen=True)
class Task:
    """A plug-in. `prompt` is the default template for models that follow instructions; it holds `{document}` once.

    `metrics` are the names scored by default, `primary` the metric part that decides.
    """

    name: str
    label: str
    about: str
    prompt: str
    metrics: tuple[str, ...]
    primary: str


@cache
def available() -> dict[str, Task]:
    """Every task type of this installation by name."""
    return discover(sys.modules[__name__], "task", Task)


def problems_of(prompt: str) -> list[str]:
    """What is wrong with a prompt template, in words."""
    count = prompt.count(PLACEHOLDER)
    if count != 1:
        return [f"the prompt must hold {PLACEHOLDER} exactly once, where the document goes; it holds it {count} times"]
    return []


def render(prompt: str, document: str) -> str:
    """The prompt with the document in its place. Other braces are left as they are: documents may hold any text."""
    return prompt.replace(PLACEHOLDER, document, 1)


def version_of(prompt: str) -> str:
    """A prompt's version: the first 12 hex digits of the SHA-256 of its text."""
    return sha256(prompt.encode()).hexdigest()[:12]

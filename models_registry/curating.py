"""Curating moves a model through its life: draft, checked, enabled, retired. Every step is kept, with who took it.

What is added is a draft; a check that works makes it checked; an editor enables it, or retires it. New experiments
choose among what is checked or enabled. Retiring never touches an experiment: its candidates are frozen copies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction

from models_registry.models import ModelChange, ModelEntry


@dataclass(frozen=True)
class State:
    """A state with its label, its tone on a page, what it means, and what may follow."""

    name: str
    label: str
    tone: str
    words: str
    after: tuple[str, ...]


STATES = {
    state.name: state
    for state in (
        State(
            "draft",
            "Draft",
            "calm",
            "it is a draft: check it or enable it on its page, then new experiments may choose it",
            ("checked", "enabled", "retired"),
        ),
        State("checked", "Checked", "good", "a check found that it works", ("enabled", "retired", "draft")),
        State("enabled", "Enabled", "good", "new experiments may choose it", ("retired", "draft")),
        State(
            "retired",
            "Retired",
            "calm",
            "it is retired: an editor enables it again on its page",
            ("enabled", "draft"),
        ),
    )
}
VERBS = {"enable": "enabled", "retire": "retired", "disable": "retired", "draft": "draft"}
"""What a person may ask for; only a check makes a model checked."""


class NotPossible(ValueError):
    """The step does not lead on from the model's state, or somebody else took another one a moment ago."""


def look(entry: ModelEntry) -> State:
    """The state of the entry with its label and tone."""
    return STATES[entry.state]


def move(entry: ModelEntry, to: str, *, actor: str, note: str = "") -> ModelChange | None:
    """Take the step and keep it. None when the model is in that state already.

    Raises NotPossible, and then nothing is changed.
    """
    if to not in STATES:
        raise NotPossible(f"there is no state {to[:40]!r}; there is {', '.join(STATES)}")
    before = entry.state
    if before == to:
        return None
    if to not in STATES[before].after:
        raise NotPossible(
            f"{entry.slug} is {before}, and what is {before} never becomes {to}; "
            f"it may become {', '.join(STATES[before].after)}"
        )
    with transaction.atomic():
        if not ModelEntry.objects.filter(pk=entry.pk, state=before).update(state=to):
            raise NotPossible(f"{entry.slug} is no longer {before}: load its page again, and decide anew")
        step = ModelChange.objects.create(entry=entry, actor=actor[:150], before=before, after=to, note=note[:300])
    entry.state = to
    entry.__dict__.pop("enabled", None)  # the database works it out anew
    return step


def begin(entry: ModelEntry, *, actor: str, note: str = "") -> None:
    """Keep how the history of a new entry began."""
    ModelChange.objects.create(entry=entry, actor=actor[:150], after=entry.state, note=note[:300])


def move_all(entries: Iterable[ModelEntry], to: str, *, actor: str) -> tuple[list[ModelEntry], list[str]]:
    """(the entries that took the step, why others could not, in words)"""
    moved, refused = [], []
    for entry in entries:
        try:
            if move(entry, to, actor=actor):
                moved.append(entry)
        except NotPossible as exc:
            refused.append(str(exc))
    return moved, refused

"""Every state with its label, its tone on a page, whether it is final, and what may follow: declared once.

PURE: migrations build the database's triggers from the same tables.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class State:
    """`tone` is a CSS word (calm, busy, good, warn, bad); `after` names the states that may follow."""

    name: str
    label: str
    tone: str
    after: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        return not self.after


EXPERIMENT = {
    state.name: state
    for state in (
        State("draft", "Draft", "calm", ("planning", "cancelled")),
        State("planning", "Planning", "busy", ("running", "failed", "cancelling")),
        State("running", "Running", "busy", ("paused", "cancelling", "completed", "completed_with_errors", "failed")),
        State("paused", "Paused", "warn", ("planning", "running", "cancelling")),
        State("cancelling", "Cancelling", "warn", ("cancelled",)),
        # "After" the end, a person may ask for more: resume what failed, add a candidate or a metric.
        State("cancelled", "Cancelled", "calm", ("planning",)),
        State("failed", "Failed", "bad", ("planning",)),
        State("completed", "Completed", "good", ("planning",)),
        State("completed_with_errors", "Completed with errors", "warn", ("planning",)),
    )
}
ENDED = ("completed", "completed_with_errors", "cancelled", "failed")
ACTIVE = ("planning", "running", "cancelling")

UNIT = {
    state.name: state
    for state in (
        State("ready", "Ready", "calm", ("leased", "cancelled")),
        State("leased", "Being worked on", "busy", ("ready", "done", "split", "failed", "cancelled")),
        State("done", "Done", "good"),
        State("split", "Split into smaller units", "calm"),
        State("failed", "Failed", "bad"),
        State("cancelled", "Cancelled", "calm"),
    )
}
OPEN_UNITS = ("ready", "leased")


def choices(states: dict[str, State]) -> list[tuple[str, str]]:
    return [(state.name, state.label) for state in states.values()]


def experiment_choices() -> list[tuple[str, str]]:
    return choices(EXPERIMENT)


def unit_choices() -> list[tuple[str, str]]:
    return choices(UNIT)


def legal_pairs(states: dict[str, State]) -> list[tuple[str, str]]:
    """Every (from, to) that a state change may make."""
    return [(state.name, following) for state in states.values() for following in state.after]

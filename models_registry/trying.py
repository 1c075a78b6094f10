"""Trying asks a worker to load a model, or to call its service once, and keeps in words and figures what came of it.

The row (`ModelCheck`) is the request: a worker that hears the bell, or polls, takes it. What is known to be wrong
without loading ends the check at once. One trial of a model is open at a time.

A report: `problems` are in the way of a run, each with its cure; `notes` are worth knowing; the rest is absent where
it was not found. seconds_to_fetch, seconds_to_load, seconds_per_summary; tokens_per_second written; peak_memory_bytes
(of the model's process) and gpu_memory_bytes; window (tokens), window_from, dtype, device, engine, parameters,
revision, chat_template (bool), generation (the
settings that were applied); input_tokens, input_tokens_read, output_tokens, summary (of SAMPLE), cost_usd.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from lumigator import doorbell
from models_registry import checking, curating
from models_registry.models import ModelCheck, ModelEntry
from models_registry.providers import ProviderError

SAMPLE = (
    "The town council decided on Tuesday to close the old swing bridge for repairs from the first of March. Engineers "
    "had found cracks in two of its four bearings during the yearly inspection, and warned that it might not open "
    "again after a hard frost. The work is expected to take eleven weeks and to cost 2.4 million. Until then cars will "
    "be sent over the motorway bridge in the north, while a small ferry carries pedestrians and bicycles free of "
    "charge. Shop owners at the harbour, who fear for their spring trade, asked for a discount on the market fees. The "
    "council will vote on that next week."
)
SAMPLE_REFERENCE = (
    "The old swing bridge closes for eleven weeks of repairs from the first of March; a free ferry takes pedestrians."
)
ATTEMPTS = 2
"""How often a worker may vanish over one check before the model is blamed."""
COMMIT = re.compile(r"[0-9a-f]{40}")


def ask(entry: ModelEntry, *, by: str) -> ModelCheck:
    """Ask for a trial: the one that is open already, or a new one; one that cannot work ends at once."""
    if found := entry.checks.filter(state__in=ModelCheck.OPEN).first():
        return found
    seen = checking.look(entry, weights=entry.scheme != "hf")  # the worker that loads them looks for those itself
    check = ModelCheck(entry=entry, asked_by=by[:150], queue=_queue(entry))
    if seen.problems:
        check.state, check.report = ModelCheck.State.FAILED, {"problems": seen.problems, "notes": seen.notes}
        check.ended_at = Now()
    try:
        with transaction.atomic():
            check.save()
    except IntegrityError:  # somebody asked a moment ago
        return entry.checks.get(state__in=ModelCheck.OPEN)
    check.refresh_from_db()
    if check.is_open:
        doorbell.ring("check", check.queue, check.pk)
    return check


def _queue(entry: ModelEntry) -> str:
    try:
        return entry.provider.queue
    except ProviderError:
        return "cpu"


def waiting(queues: Sequence[str]) -> QuerySet[ModelCheck]:
    """Checks that nobody has taken yet, oldest first."""
    return ModelCheck.objects.filter(state=ModelCheck.State.ASKED, queue__in=queues).order_by("pk")


def begin(check_id: int, worker: str) -> ModelCheck | None:
    """Take a check for this worker; None when somebody else has it, or it is over."""
    asked = ModelCheck.objects.filter(pk=check_id, state=ModelCheck.State.ASKED)
    taken = asked.update(state=ModelCheck.State.RUNNING, host=worker, begun_at=Now(), attempts=F("attempts") + 1)
    checks = ModelCheck.objects.select_related("entry__team")
    return checks.get(pk=check_id) if taken else None


def end(check: ModelCheck, report: dict[str, Any]) -> bool:
    """Keep the report, and what it taught about the model; False when the check was taken away meanwhile."""
    works = not report.get("problems")
    with transaction.atomic():
        kept = _mine(check).update(
            state=ModelCheck.State.DONE if works else ModelCheck.State.FAILED, ended_at=Now(), report=report
        )
        if kept and works:
            _learn(check, report)
    return bool(kept)


def give_back(check: ModelCheck) -> None:
    """The worker stops before the end: another one starts over."""
    _mine(check).update(state=ModelCheck.State.ASKED, host="", begun_at=None, attempts=F("attempts") - 1)


def take_back(alive: Iterable[str]) -> int:
    """Checks whose worker is not among the living: asked for again, or, the second time, the model's fault; how many
    there were."""
    lost = ModelCheck.objects.filter(state=ModelCheck.State.RUNNING).exclude(host__in=alive)
    words = (
        "the worker that tried it vanished, twice: it may need more memory than there is; try a smaller model, or a "
        "worker on a larger machine"
    )
    blamed = lost.filter(attempts__gte=ATTEMPTS).update(
        state=ModelCheck.State.FAILED, ended_at=Now(), report={"problems": [words], "notes": []}
    )
    return blamed + lost.update(state=ModelCheck.State.ASKED, host="", begun_at=None)


def _mine(check: ModelCheck) -> QuerySet[ModelCheck]:
    return ModelCheck.objects.filter(pk=check.pk, state=ModelCheck.State.RUNNING, host=check.host)


def _learn(check: ModelCheck, report: dict[str, Any]) -> None:
    """A draft that works is checked. A model of the hub is pinned to the commit that was loaded, unless it was
    pinned; a number of parameters that nobody entered is the one that was counted."""
    entry = ModelEntry.objects.select_for_update(no_key=True).get(pk=check.entry_id)
    learned: dict[str, Any] = {}
    commit = str(report.get("revision") or "")
    if entry.scheme == "hf" and not entry.revision and "@" not in entry.uri and COMMIT.fullmatch(commit):
        learned["revision"] = commit
    if entry.parameters is None and isinstance(report.get("parameters"), int):
        learned["parameters"] = report["parameters"]
    if learned:
        ModelEntry.objects.filter(pk=entry.pk).update(**learned)
    if entry.state == ModelEntry.State.DRAFT:
        curating.move(entry, "checked", actor=check.asked_by or "system", note=f"check {check.pk} found that it works")


def in_words(check: ModelCheck) -> list[str]:
    """The check in sentences, for a terminal."""
    report = check.report
    told = [f"{check.entry.slug}: {check.label}", *(report.get("problems") or ())]
    for name, words in (
        ("seconds_to_fetch", "downloaded in {:.1f} s"),
        ("seconds_to_load", "loaded in {:.1f} s"),
        ("seconds_per_summary", "one summary takes {:.2f} s"),
        ("tokens_per_second", "{:.1f} tokens a second"),
        ("peak_memory_bytes", "peak memory {:,} bytes"),
        ("window", "window {:,} tokens"),
        ("dtype", "runs as {}"),
        ("engine", "with {}"),
        ("chat_template", "chat template: {}"),
        ("cost_usd", "cost ${:.6f}"),
        ("summary", "it wrote: {}"),
    ):
        if (value := report.get(name)) is not None:
            told.append(words.format({True: "yes", False: "no"}[value] if isinstance(value, bool) else value))
    return [*told, *(report.get("notes") or ())]

"""Billing keeps the ledger of paid calls: a line before each call, with the most it may cost; its price when it ended.

Lines are written for many calls in one statement, for a transaction costs more than a line. Money is reserved under
the lock of the experiment's row, so that a budget is never passed, however many workers call at once. A line is
closed once, however often it is asked; a call whose end nobody saw counts at its most until somebody reconciles it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any

from django.db import DataError, IntegrityError, connection
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from evaluations.leasing import FENCE, Fenced, Lease, fence_of
from evaluations.models import Call, Candidate, Experiment, Generation, WorkUnit
from evaluations.planning import DEFAULT_NEW_TOKENS
from models_registry.pricing import cost_micro
from models_registry.providers import Output, ProviderError, Request
from models_registry.shortening import most_of_all_calls

LINE = [str(field.column) for field in Call._meta.concrete_fields if not field.has_db_default()]
OUTCOME = [
    str(field.column) for field in Generation._meta.concrete_fields if not (field.primary_key or field.has_db_default())
]
RESERVE = """
WITH fence AS ({fence}), room AS (
    UPDATE evaluations_experiment SET reserved_micro = reserved_micro + %(total)s
    WHERE id = %(experiment)s AND EXISTS (SELECT FROM fence)
      AND (budget_micro IS NULL OR (%(is_priced)s AND budget_micro >= spent_micro + reserved_micro + %(total)s))
    RETURNING id
), line AS (
    INSERT INTO evaluations_call ({line})
    SELECT {line} FROM json_populate_recordset(NULL::evaluations_call, %(lines)s) WHERE EXISTS (SELECT FROM room)
)
SELECT EXISTS (SELECT FROM fence), EXISTS (SELECT FROM room)
""".format(fence=FENCE, line=", ".join(LINE))
BOOK = """
bill AS (
    SELECT * FROM json_populate_recordset(NULL::evaluations_call, %(bills)s)
), open AS (
    SELECT id FROM evaluations_call
    WHERE id IN (SELECT id FROM bill) AND state = 'reserved' AND EXISTS (SELECT FROM fence)
    ORDER BY id FOR NO KEY UPDATE
), booked AS (
    UPDATE evaluations_call line SET
        state = bill.state, outcome = bill.outcome, cost_micro = bill.cost_micro, input_tokens = bill.input_tokens,
        cached_tokens = bill.cached_tokens, output_tokens = bill.output_tokens, latency_ms = bill.latency_ms,
        ended_at = statement_timestamp()
    FROM bill, open WHERE line.id = open.id AND bill.id = open.id
    RETURNING line.experiment_id, line.reserved_micro, line.cost_micro
), sums AS (
    SELECT experiment_id, sum(reserved_micro) AS reserved, sum(coalesce(cost_micro, 0)) AS spent
    FROM booked GROUP BY experiment_id
), told AS (
    UPDATE evaluations_experiment experiment SET
        reserved_micro = experiment.reserved_micro - sums.reserved, spent_micro = experiment.spent_micro + sums.spent
    FROM sums WHERE experiment.id = sums.experiment_id
)
"""
"""Two who book the same lines lock them in one order, and both lock the experiment after them."""
BOOK_ALONE = f"WITH fence AS (SELECT 1), {BOOK} SELECT 1"
COMMIT = """
WITH fence AS ({fence}), {book}, kept AS (
    INSERT INTO evaluations_generation ({outcome})
    SELECT {outcome} FROM json_populate_recordset(NULL::evaluations_generation, %(outcomes)s)
    WHERE EXISTS (SELECT FROM fence) ON CONFLICT DO NOTHING
)
SELECT EXISTS (SELECT FROM fence)
""".format(fence=FENCE, book=BOOK, outcome=", ".join(OUTCOME))
"""One statement each, for all calls of an experiment wait for its row: it is never locked while Python works. The unit
is locked before it, as everywhere."""


def worst_case_micro(candidate: Candidate, request: Request) -> int | None:
    """The most that one call can cost, in micro-dollars; None when unpriced. No tokenizer makes more tokens than its
    text has bytes, and the answer is bounded by max_new_tokens, so this is a true bound (and a loose one)."""
    price = candidate.spec.get("price") or {}
    text = request.prompt if request.prompt is not None else request.source
    text += "".join(each["content"] for each in request.messages)
    calls, sent, written = 1, len(text.encode()), most_written(candidate)
    if candidate.spec.get("long_documents"):
        calls, sent, written = most_of_all_calls(request, candidate.spec)
    return cost_micro(sent + 64 * calls, 0, written, price.get("in"), price.get("out"))


def most_written(candidate: Candidate) -> int:
    """Tokens that one answer may have."""
    return int((candidate.spec.get("generation") or {}).get("max_new_tokens") or DEFAULT_NEW_TOKENS)


def is_priced(candidate: Candidate) -> bool:
    price = candidate.spec.get("price") or {}
    return price.get("in") is not None and price.get("out") is not None


# --- Before a call ----------------------------------------------------------------------------------------------------


def reserve(lease: Lease, candidate: Candidate, requests: Sequence[Request]) -> list[Call]:
    """Write a ledger line for each of these calls, before any is made, and reserve its worst case from the budget: for
    all, or for as many of the first as the budget covers; none where there is a budget and no price. Raises Fenced."""
    most = [worst_case_micro(candidate, request) for request in requests]
    while most:
        lines = [
            Call(
                experiment_id=candidate.experiment_id,
                candidate=candidate,
                example_id=request.key,
                unit_id=lease.unit.pk,
                epoch=lease.epoch,
                reserved_micro=each or 0,
            )
            for request, each in zip(requests, most, strict=False)
        ]
        is_held, has_room = _first_row(
            RESERVE,
            {
                **fence_of(lease),
                "experiment": candidate.experiment_id,
                "total": sum(each or 0 for each in most),
                "is_priced": None not in most,
                "lines": _as_json(LINE, lines),
            },
        )
        if not is_held:
            raise Fenced(f"work unit {lease.unit.pk}: epoch {lease.epoch} is over")
        if has_room:
            return lines
        most = _covered(Experiment.objects.get(pk=candidate.experiment_id), most[:-1])
    return []


def _covered(experiment: Experiment, most: list[int | None]) -> list[int | None]:
    """As many of these worst cases, from the first, as the budget still covers together."""
    if experiment.budget_micro is None:
        return most
    left = experiment.budget_micro - experiment.spent_micro - experiment.reserved_micro
    priced = most[: most.index(None)] if None in most else most
    return priced[: sum(total <= left for total in accumulate(each or 0 for each in priced))]


# --- After it ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bill:
    """What an ended call means for the ledger; `cost` in micro-dollars, None where it is not priced."""

    call: Call
    state: str
    outcome: str
    cost: int | None
    output: Output | None = None
    error: ProviderError | None = None


def bill_of_output(call: Call, output: Output) -> Bill:
    """An answer costs what its tokens cost. One that tells no tokens may cost the most; a rejection costs nothing."""
    price = call.candidate.spec.get("price") or {}
    tokens = (output.input_tokens_read, output.cached_tokens, output.output_tokens)
    cost = cost_micro(*tokens, price.get("in"), price.get("out"), price.get("cached"))
    outcome = output.error_code or "ok"
    was_rejected = output.status in ("error", "refused") and not output.finish_reason
    if cost is None and was_rejected:
        return Bill(call, Call.State.SETTLED, outcome, 0, output)
    if cost is None and is_priced(call.candidate):
        return Bill(call, Call.State.UNKNOWN, outcome, call.reserved_micro, output)
    return Bill(call, Call.State.SETTLED, outcome, cost, output)


def bill_of_error(call: Call, error: ProviderError) -> Bill:
    """A call that failed costs nothing, unless it may have been answered."""
    if error.failure == "unknown" or error.code in ("malformed_response", "provider_bug"):
        return at_most(call, error.code, error)
    return Bill(call, Call.State.SETTLED, error.code, 0, error=error)


def at_most(call: Call, outcome: str, error: ProviderError | None = None) -> Bill:
    """Nobody knows whether it was billed."""
    cost = call.reserved_micro if is_priced(call.candidate) else None
    return Bill(call, Call.State.UNKNOWN, outcome, cost, error=error)


def commit(lease: Lease, bills: Sequence[Bill], outcomes: Sequence[Generation]) -> None:
    """The bills of ended calls and the outcomes that they led to, together. Raises Fenced; the bills are booked even
    then, for the calls were made. What the database refuses in one of them does not hold up the others."""
    try:
        _commit(lease, bills, outcomes)
    except Fenced:
        book(bills)
        raise
    except (DataError, IntegrityError):
        if len(bills) < 2:
            raise
        by_example = {outcome.example_id: outcome for outcome in outcomes}
        refused: Exception | None = None
        for bill in bills:
            try:
                commit(lease, [bill], [each for each in [by_example.get(bill.call.example_id)] if each])
            except (DataError, IntegrityError) as exc:
                refused = exc
        if refused is not None:
            raise refused from None


def _commit(lease: Lease, bills: Sequence[Bill], outcomes: Sequence[Generation]) -> None:
    for outcome in outcomes:
        outcome.unit_id, outcome.epoch = lease.unit.pk, lease.epoch
    values = {**fence_of(lease), "bills": _as_lines(bills), "outcomes": _as_json(OUTCOME, outcomes)}
    if _first_row(COMMIT, values) != (True,):
        raise Fenced(f"work unit {lease.unit.pk}: epoch {lease.epoch} is over")


def book(bills: Sequence[Bill]) -> None:
    """Close the ledger lines and turn their reservations into what they cost; once, however often it is asked."""
    if bills:
        _first_row(BOOK_ALONE, {"bills": _as_lines(bills)})


def _as_lines(bills: Sequence[Bill]) -> str:
    """The ledger lines as they are when these calls have ended."""
    return json.dumps(
        [
            {
                "id": str(bill.call.pk),
                "state": bill.state,
                "outcome": bill.outcome[:40],
                "cost_micro": bill.cost,
                "input_tokens": bill.output and bill.output.input_tokens_read,
                "cached_tokens": bill.output and bill.output.cached_tokens,
                "output_tokens": bill.output and bill.output.output_tokens,
                "latency_ms": bill.output and bill.output.latency_ms,
            }
            for bill in bills
        ]
    )


def _as_json(columns: Sequence[str], rows: Sequence[Call] | Sequence[Generation]) -> str:
    names = {field.column: field.attname for field in rows[0]._meta.concrete_fields} if rows else {}
    return json.dumps([{column: getattr(row, names[column]) for column in columns} for row in rows], default=str)


def _first_row(statement: str, values: dict[str, Any]) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return tuple(cursor.fetchone())


# --- Calls of workers that are gone -----------------------------------------------------------------------------------


def abandon_calls(unit: WorkUnit) -> None:
    """The unit's worker is gone: calls it had reserved may have been made and billed, so they count at their most."""
    _abandon(Call.objects.filter(unit_id=unit.pk, state=Call.State.RESERVED, epoch__lte=unit.epoch))


def abandon_orphans(seconds: float) -> int:
    """Calls begun longer ago whose unit has moved on since (its worker died after it was cancelled, say): how many."""
    before = Now() - timedelta(seconds=seconds)
    old = Call.objects.filter(state=Call.State.RESERVED, started_at__lt=before)
    held = WorkUnit.objects.filter(pk=OuterRef("unit_id"), epoch=OuterRef("epoch"), state="leased")
    return _abandon(old.exclude(Exists(held)))


def _abandon(calls: QuerySet[Call]) -> int:
    found = list(calls.select_related("candidate").order_by("experiment_id"))
    for _, mine in groupby(found, key=attrgetter("experiment_id")):  # never two experiments locked at once
        book([at_most(call, "worker_gone") for call in mine])
    return len(found)

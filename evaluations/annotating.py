"""Annotating lets a model draft references and people approve them: accept, edit or reject, document by document.

The drafts come from the engine (a run with one candidate and no metric), so they are durable, budgeted and reused like
any outputs. What people decide is saved at once, under an optimistic lock: two never overwrite each other unseen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Left, Now

from datasets_app.models import Example
from evaluations import forecasting, planning, prompting, states
from evaluations.agreeing import agreement as measured
from evaluations.leasing import Lease, fenced
from evaluations.models import Draft, Experiment, Generation, GroundTruth
from evaluations.states import State
from evaluations.steering import locked
from lumigator.models import Membership, Role, Team

LAID_OUT = 10_000
LONGEST_REFERENCE = 200_000
"""Characters of an edited reference."""
TO_REVIEW = State("review", "To review", "warn")
REVIEWED = State("reviewed", "Reviewed", "good")
BEGINNING = Left("source", 640)
"""The beginning of an example's document: those of a megabyte stay in the database."""
Document = dict[str, Any]


class Overtaken(Exception):
    """Somebody else decided meanwhile. The message says who, what, and what to do."""


# --- asking ---------------------------------------------------------------------------------------------------------


def create(*, team: Team, user: User | None, data: Document, request_id: str = "") -> GroundTruth:
    """Ask for drafts: nothing runs before `steering.start(ground_truth.experiment)`.

    `data`: name, dataset (a Dataset), model (slug | URI | {model, generation}), prompt, sample {n, seed}, budget_usd.
    Raises planning.Refused with every problem, by field.
    """
    if data["dataset"].sealed:
        raise planning.Refused({"dataset": ["it is sealed for the final confirmation: nobody reads it before"]})
    wish = data.get("model") or ""
    asked = {
        "name": data.get("name") or f"{data['dataset'].name}: drafted references",
        "models": [wish] if wish else [],
        "metrics": [],
        "baselines": False,
        "purpose": Experiment.Purpose.GROUND_TRUTH,
        **{name: data.get(name) for name in ("dataset", "prompt", "sample", "budget_usd")},
    }
    with transaction.atomic():
        experiment = planning.create(team=team, user=user, data=asked, request_id=request_id)
        candidate = experiment.candidates.get()
        if candidate.uses_references or candidate.spec.get("scheme") == "import":
            why = "reads the references" if candidate.uses_references else "writes nothing itself"
            raise planning.Refused({"models": [f"{candidate.label} {why}, so it cannot draft any: choose a model"]})
        return GroundTruth.objects.create(team=team, experiment=experiment)


@dataclass(frozen=True)
class Trial:
    """What would be done, before anything is kept: the plan, and what the model reads for the first document."""

    plan: Document
    label: str
    prompt: prompting.Preview | None
    source: str


def trial(*, team: Team, user: User | None, data: Document) -> Trial:
    """The plan and the prompt of what is asked; nothing is kept. Raises planning.Refused."""
    with transaction.atomic():
        made = look_ahead(create(team=team, user=user, data=data))
        transaction.set_rollback(True)
    return made


def look_ahead(ground_truth: GroundTruth) -> Trial:
    """The plan and the first prompt of a ground truth that has not begun."""
    experiment = ground_truth.experiment
    sample = planning.sample_of(experiment)
    first = Example.objects.filter(dataset=experiment.dataset, index=int(sample[0]) if len(sample) else 0).first()
    template, source = ground_truth.candidate.spec.get("prompt") or "", first.source if first else ""
    shown = prompting.preview(template, source, {}) if template and first else None
    return Trial(plan(ground_truth), first.label if first else "", shown, source)


def plan(ground_truth: GroundTruth) -> Document:
    """What it will take, before the start: {documents, calls, input_tokens, output_tokens_at_most, estimate,
    worst_case_cost_usd, cost_reason, budget_usd, fits_budget, window, documents_beyond_window, can_run, why}."""
    whole = forecasting.forecast(ground_truth.experiment)
    row = whole["candidates"][0]
    mine = ("calls", "input_tokens", "output_tokens_at_most", "worst_case_cost_usd", "cost_reason", "window",
            "documents_beyond_window", "can_run", "why")  # fmt: skip
    return {
        **{name: whole[name] for name in ("documents", "estimate", "budget_usd", "fits_budget")},
        **{name: row[name] for name in mine},
    }


LAY_OUT = """
INSERT INTO evaluations_draft
    (ground_truth_id, example_id, index, reading, decision, text, is_written, in_bulk, version)
SELECT %s, example.id, example.index, 1, 'unreviewed', '', false, false, 0
FROM datasets_example example WHERE example.dataset_id = %s AND example.index = ANY(%s)
ON CONFLICT DO NOTHING
"""


def lay_out(lease: Lease, experiment: Experiment, sample: np.ndarray[Any, Any]) -> None:
    """Part of the plan unit: a row to decide on for every document that takes part. Safe to repeat. Raises Fenced."""
    ground_truth = experiment.ground_truth
    for start in range(0, len(sample), LAID_OUT):
        indexes = [int(index) for index in sample[start : start + LAID_OUT]]
        with fenced(lease), connection.cursor() as cursor:
            cursor.execute(LAY_OUT, [ground_truth.pk, experiment.dataset_id, indexes])


# --- how far it is --------------------------------------------------------------------------------------------------


def outcome_of() -> QuerySet[Generation]:
    """For subqueries over drafts: what the model made of the draft's document."""
    return Generation.objects.filter(
        candidate__experiment__ground_truth=OuterRef("ground_truth"), example=OuterRef("example")
    )


def counts(found: Iterable[GroundTruth], user: User | None = None) -> dict[int, Document]:
    """{id: {documents, drafted, failed, to_review, accepted, in_bulk, edited, written, rejected, decided, second,
    second_decided, mine}} with three queries however many there are. `in_bulk` are accepted ones too, `written` are
    not among `edited`; `to_review` and `mine` have an output and no decision; `mine` are for `user` or for anybody."""
    ids = [each.pk for each in found]
    told: dict[int, Document] = {pk: dict.fromkeys(COUNTED, 0) for pk in ids}
    first, second = Q(reading=1), Q(reading=2)
    drafts, path = Draft.objects.filter(ground_truth__in=ids), "ground_truth"
    _add(
        told,
        drafts,
        path,
        documents=first,
        accepted=first & Q(decision="accepted"),
        in_bulk=first & Q(in_bulk=True),
        edited=first & Q(decision="edited", is_written=False),
        written=first & Q(decision="edited", is_written=True),
        rejected=first & Q(decision="rejected"),
        decided=first & ~Q(decision="unreviewed"),
        second=second,
        second_decided=second & ~Q(decision="unreviewed"),
    )
    waiting = drafts.filter(Exists(outcome_of()), decision="unreviewed")
    _add(told, waiting, path, to_review=first, mine=_open_to(user))
    path = "candidate__experiment__ground_truth"
    outcomes = Generation.objects.filter(candidate__experiment__ground_truth__in=ids)
    _add(told, outcomes, path, drafted=Q(status="ok"), failed=~Q(status="ok"))
    return told


def _add(told: dict[int, Document], rows: QuerySet[Any], path: str, **questions: Q) -> None:
    """Count the rows of each ground truth (that `path` leads to) that answer each question."""
    wanted = {name: Count("pk", filter=asked) for name, asked in questions.items()}
    for pk, *numbers in rows.order_by().values_list(path).annotate(**wanted):
        told[pk] |= zip(questions, numbers, strict=True)


COUNTED = (
    "documents", "drafted", "failed", "to_review", "accepted", "in_bulk", "edited", "written", "rejected", "decided",
    "second", "second_decided", "mine",
)  # fmt: skip


def stage(ground_truth: GroundTruth, counted: Document) -> State:
    """How far it is as a whole: the state of its run until that has ended, then that of the review."""
    experiment = ground_truth.experiment
    if not experiment.has_ended:
        return states.EXPERIMENT[experiment.state]
    if counted["to_review"]:
        return TO_REVIEW
    return REVIEWED if counted["decided"] else states.EXPERIMENT[experiment.state]


def agreement(ground_truth: GroundTruth) -> Document:
    """How far the two readings agree: {n, share, kappa, reason}. Drafts accepted in bulk were not read: they do not
    count."""
    first = Draft.objects.filter(ground_truth=OuterRef("ground_truth"), index=OuterRef("index"), reading=1)
    rows = Draft.objects.filter(ground_truth=ground_truth, reading=2).exclude(decision="unreviewed")
    rows = rows.annotate(first=Subquery(first.filter(in_bulk=False).values("decision")))
    rows = rows.exclude(first=None).exclude(first="unreviewed").order_by()
    pairs = rows.values_list("first", "decision").annotate(n=Count("pk"))
    return asdict(measured({(one, two): n for one, two, n in pairs}))


# --- who reads what -------------------------------------------------------------------------------------------------

SPLIT = """
UPDATE evaluations_draft draft SET assigned_to_id = (%(who)s::int[])[1 + ranked.rank %% %(k)s]
FROM (
    SELECT id, row_number() OVER (ORDER BY index) - 1 AS rank FROM evaluations_draft
    WHERE ground_truth_id = %(id)s AND reading = 1 AND decision = 'unreviewed'
) ranked
WHERE draft.id = ranked.id
"""
READ_TWICE = """
INSERT INTO evaluations_draft
    (ground_truth_id, example_id, index, reading, decision, text, is_written, in_bulk, version, assigned_to_id)
SELECT ground_truth_id, example_id, index, 2, 'unreviewed', '', false, false, 0,
       others[1 + (turn - 1) %% cardinality(others)]
FROM (
    SELECT *, array_remove(%(who)s::int[], coalesce(reviewer_id, assigned_to_id)) AS others,
           row_number() OVER (
               PARTITION BY coalesce(reviewer_id, assigned_to_id) ORDER BY md5(ground_truth_id || ':' || index), index
           ) AS turn
    FROM evaluations_draft one
    WHERE ground_truth_id = %(id)s AND reading = 1 AND NOT in_bulk AND NOT EXISTS (
        SELECT FROM evaluations_draft other
        WHERE other.ground_truth_id = one.ground_truth_id AND other.index = one.index AND other.reading = 2
    )
) chosen
WHERE cardinality(others) > 0 ORDER BY turn, index LIMIT %(n)s
"""
"""The documents read twice are drawn by a hash, as many from each first reader, so that the load stays even."""


def assign(ground_truth: GroundTruth, reviewers: Sequence[User], overlap: int = 0) -> None:
    """Split what is undecided evenly between `reviewers` (nobody: anybody may take any), and let `overlap` per cent of
    all documents be read a second time by another of them. Decisions that were made stay, and their readings count
    towards the overlap. Raises planning.Refused."""
    errors: dict[str, list[str]] = {}
    allowed = set(reviewers_of(ground_truth.team).values_list("pk", flat=True))
    if strangers := [each.get_username() for each in reviewers if each.pk not in allowed]:
        errors["reviewers"] = [f"{', '.join(strangers)} may not edit in this team"]
    if not 0 <= overlap <= 100:
        errors["overlap"] = ["give a number from 0 to 100"]
    elif overlap and len(set(reviewers)) < 2:
        errors["overlap"] = ["it takes two reviewers: a second reading is another person's"]
    mine = Draft.objects.filter(ground_truth=ground_truth)
    if not mine.exists():
        errors["reviewers"] = ["start the drafting first: its documents are laid out when it is planned"]
    if errors:
        raise planning.Refused(errors)
    who = [each.pk for each in dict.fromkeys(reviewers)]
    with transaction.atomic():
        unhurried()
        GroundTruth.objects.select_for_update(no_key=True).get(pk=ground_truth.pk)
        mine.filter(reading=2, decision="unreviewed").delete()
        mine.filter(reading=1, decision="unreviewed").update(assigned_to=None)
        wanted = math.ceil(mine.filter(reading=1).count() * overlap / 100) - mine.filter(reading=2).count()
        values: dict[str, Any] = {"id": ground_truth.pk, "who": who, "k": len(who), "n": max(0, wanted)}
        with connection.cursor() as cursor:
            if who:
                cursor.execute(SPLIT, values)
            if overlap:
                cursor.execute(READ_TWICE, values)


def reviewers_of(team: Team) -> QuerySet[User]:
    """Who may decide in this team, by name."""
    able = [role for role in Role if role.covers(Role.EDITOR)]
    members = Membership.objects.filter(team=team, role__in=able)
    return User.objects.filter(pk__in=members.values("user"), is_active=True).order_by("username")


# --- deciding -------------------------------------------------------------------------------------------------------


def to_do(ground_truth: GroundTruth, user: User) -> QuerySet[Draft]:
    """What this person can decide next: outputs without a decision that are theirs or anybody's."""
    rows = Draft.objects.filter(Exists(outcome_of()), ground_truth=ground_truth, decision="unreviewed")
    return rows.filter(_open_to(user)).order_by("index", "reading")


def _open_to(user: User | None) -> Q:
    """Drafts that are theirs or, first readings, anybody's."""
    anybodys = Q(assigned_to=None, reading=1)
    return anybodys | Q(assigned_to=user) if user else anybodys


def next_for(ground_truth: GroundTruth, user: User, after: int = -1) -> Draft | None:
    """The next document to decide behind that index, else the first that is left; None when nothing is."""
    rows = to_do(ground_truth, user)
    return rows.filter(index__gt=after).first() or rows.first()


def may_decide(draft: Draft, user: User, *, is_admin: bool = False) -> bool:
    """Whether it is theirs to decide: an assigned one is its assignee's; an admin may decide every first reading."""
    if draft.reading == 2:  # by another person than the first, or it would measure nothing
        return draft.assigned_to == user
    return is_admin or draft.assigned_to in (None, user)


def decide(
    draft: Draft, *, reviewer: User, decision: str, version: int, text: str = "", is_admin: bool = False
) -> Draft:
    """Save one decision, made by somebody who saw `version`; an edit that changes nothing is an acceptance.

    Raises Overtaken when the draft has another version by now, planning.Refused when it cannot be decided so, and
    PermissionDenied when it is somebody else's to decide.
    """
    if not may_decide(draft, reviewer, is_admin=is_admin):
        whose = draft.assigned_to or "somebody who left"
        raise PermissionDenied(f"Document {draft.index + 1} is assigned to {whose}. Have it assigned to you first.")
    made = outcome(draft)
    has_draft = made is not None and made.status == Generation.Status.OK
    if made is None and not draft.is_decided:
        raise planning.Refused({"decision": ["the model has not drafted this document yet: come back when it has"]})
    text = _plain(text)
    if made and has_draft and decision == Draft.Decision.EDITED and text == _plain(made.text):
        decision = Draft.Decision.ACCEPTED
    _check(decision, text, has_draft)
    is_edit, is_undone = decision == Draft.Decision.EDITED, decision == Draft.Decision.UNREVIEWED
    changed = Draft.objects.filter(pk=draft.pk, version=version).update(
        decision=decision,
        text=text if is_edit else "",
        is_written=is_edit and not has_draft,
        in_bulk=False,
        reviewer=None if is_undone else reviewer,
        decided_at=None if is_undone else Now(),
        version=F("version") + 1,
    )
    draft = Draft.objects.select_related("reviewer", "assigned_to").get(pk=draft.pk)
    if not changed:
        who = draft.reviewer.get_username() if draft.reviewer else "somebody"
        did = f"{draft.get_decision_display().lower()} it" if draft.is_decided else "took the decision back"
        said = f"Document {draft.index + 1} was changed meanwhile: {who} {did}."
        raise Overtaken(f"{said} Yours is not saved: look again, then decide.")
    return draft


def _check(decision: str, text: str, has_draft: bool) -> None:
    if decision not in Draft.Decision.values:
        raise planning.Refused({"decision": [f"it is one of {', '.join(Draft.Decision.values)}"]})
    if decision == Draft.Decision.ACCEPTED and not has_draft:
        raise planning.Refused({"decision": ["the model gave no draft of this document: write one, or reject it"]})
    if decision == Draft.Decision.EDITED and not text.strip():
        raise planning.Refused({"text": ["a reference needs words: write some, or reject the draft"]})
    if len(text) > LONGEST_REFERENCE:
        raise planning.Refused({"text": [f"it has {len(text):,} characters; at most {LONGEST_REFERENCE:,} are kept"]})


def _plain(text: str) -> str:
    """Browsers send line ends as CR LF; nobody meant a change by that."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def outcome(draft: Draft) -> Generation | None:
    """What the model made of the draft's document; None when nothing is there yet."""
    return Generation.objects.filter(
        candidate__experiment__ground_truth=draft.ground_truth_id, example=draft.example_id
    ).first()


def outcomes(ground_truth: GroundTruth, examples: Sequence[int]) -> dict[int, Generation]:
    """{example: what the model made of it} for a page of examples."""
    rows = Generation.objects.filter(candidate__experiment=ground_truth.experiment_id, example__in=examples)
    return {each.example_id: each for each in rows}


def draft_of(ground_truth: GroundTruth, index: int, *, user: User, reading: int = 0) -> Draft | None:
    """The draft of a document; without a `reading` (1 or 2) the one assigned to `user`, else the first."""
    rows = Draft.objects.filter(ground_truth=ground_truth, index=index).select_related("reviewer", "assigned_to")
    found = list(rows.filter(reading=reading) if reading else rows.order_by("reading"))
    return next((draft for draft in found if draft.assigned_to == user), found[0] if found else None)


def accept_all(ground_truth: GroundTruth, user: User) -> int:
    """Accept every draft that nobody decided on, unread; how many. They stay marked as such."""
    drafted = outcome_of().filter(status=Generation.Status.OK)
    rows = Draft.objects.filter(Exists(drafted), ground_truth=ground_truth, reading=1, decision="unreviewed")
    with transaction.atomic():
        unhurried()
        return rows.update(
            decision=Draft.Decision.ACCEPTED, in_bulk=True, reviewer=user, decided_at=Now(), version=F("version") + 1
        )


def delete(ground_truth: GroundTruth) -> bool:
    """Delete it with its drafts and decisions; datasets that were published from it stay. False while it runs."""
    with transaction.atomic():
        unhurried()
        experiment = locked(ground_truth.experiment_id)
        if not (experiment.has_ended or experiment.state == "draft"):
            return False
        experiment.delete()
    return True


def unhurried() -> None:
    """The web's limit on a statement is for pages: until this transaction ends one may touch every draft there is."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")

"""Deriving makes the examples of a child dataset out of its parent's, inside the database, and then looks at them.

The work is an import without a file (`ingesting`): claimed, fenced, done in batches that are counted, resumed after a
crash, cancelled like one. `Dataset.edit` says what is to be done; the parent is only read. Which rows belong to a
sample or to a part of a split follows from a hash of the seed and of each row, so every batch, and every worker, agrees
on it without having to remember it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from django.db import connection
from django.db.models import Case, Count, F, Func, JSONField, Max, Q, QuerySet, TextField, Value, When
from django.db.models import Window as Over
from django.db.models.expressions import Combinable, Expression
from django.db.models.functions import MD5, Cast, Coalesce, Concat, RowNumber

from datasets_app.batching import copy_rows
from datasets_app.browsing import matching
from datasets_app.exporting import examples_of
from datasets_app.filtering import Filter, tag
from datasets_app.formats import Problem
from datasets_app.ingesting import CLOSED, BadFile, Lease, Stopped, fenced
from datasets_app.models import Dataset, Example, Import
from datasets_app.profiling import Profile
from datasets_app.reading import Row

BATCH_ROWS = 20_000
BATCH_CHARACTERS = 20_000_000
LOOKED_AT_ONCE = 1_000
INTO = 'INSERT INTO datasets_example (dataset_id, "index", key, source, "references", "group", tags) '
DELETED = Problem(None, "", "The dataset that it was to be made of is deleted.", "Make it of another one.")
NOTHING = Problem(None, "", "No example is left.", "Choose others: a dataset needs at least one.")

Expr = Expression | F


def carry_out(lease: Lease) -> None:
    """Make the dataset of this lease ready. Raises BadFile where that is impossible, Fenced and Stopped."""
    child, intake = lease.dataset, lease.intake
    parent = child.parent
    if parent is None:
        raise BadFile([DELETED])
    rows = _chosen(parent, child.edit).annotate(**_changed(child.edit))
    n_rows = _batch_rows(parent)
    while intake.place < parent.n_examples:
        _copy(lease, rows, intake.place, intake.place + n_rows)
        if lease.must_stop():
            raise Stopped
    if child.edit["action"] == "append" and intake.rows_done == parent.n_examples:
        with fenced(lease, rows_done=F("rows_done") + 1):
            copy_rows(child.pk, intake.rows_done, [Row(0, **child.edit["row"])])
        intake.rows_done += 1
    if not intake.rows_done:
        raise BadFile([NOTHING])
    _finish(lease)


def _copy(lease: Lease, rows: QuerySet[Example], low: int, high: int) -> None:
    child, intake = lease.dataset, lease.intake
    wanted = rows.filter(index__gte=low, index__lt=high)
    number = Over(RowNumber(), order_by="index") + Value(intake.rows_done - 1)
    numbered = wanted.annotate(child=Value(child.pk), number=number)
    select, values = numbered.values_list(
        "child", "number", "new_key", "new_source", "new_references", "new_group", "new_tags"
    ).query.sql_with_params()
    with fenced(lease), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(INTO + select, values)
        n = cursor.rowcount
        # One statement sees all of the parent or nothing of it: it was there if it still is.
        if not Dataset.objects.filter(children=child).exists():
            raise BadFile([DELETED])
        Import.objects.filter(pk=intake.pk).update(rows_done=F("rows_done") + n, place=high, attempts=0)
    intake.rows_done += n
    intake.place = high
    lease.progress(intake)


def _batch_rows(parent: Dataset) -> int:
    words = (parent.profile.get("source_words") or {}).get("mean") or 200
    return max(20, min(BATCH_ROWS, int(BATCH_CHARACTERS / (6 * words + 1))))


def _finish(lease: Lease) -> None:
    """Look at every row once, for the profile and the SHA-256 of all (as `ingest_rows` has it), and be ready."""
    child, intake = lease.dataset, lease.intake
    child.n_examples = intake.rows_done
    profile, hashed = Profile(), sha256()
    for example in examples_of(child):
        row = Row(example.index, example.source, example.references, example.key, example.group, example.tags)
        hashed.update(json.dumps(row[1:], ensure_ascii=False).encode() + b"\n")
        profile.add(row)
        if profile.n % LOOKED_AT_ONCE == 0 and (lease.lost or lease.must_stop()):
            raise Stopped
    figures = profile.as_dict()
    with fenced(lease, **CLOSED):
        child.sha256, child.n_with_reference = hashed.hexdigest(), profile.n_with_reference
        child.profile, child.state = figures, Dataset.State.READY
        child.save(update_fields=["sha256", "n_examples", "n_with_reference", "profile", "state"])


# --- which rows -----------------------------------------------------------------------------------------------------


def chosen_by(parent: Dataset, edit: Mapping[str, Any]) -> QuerySet[Example]:
    """What the indexes or the filter of an edit name; all where it has neither."""
    if "indexes" in edit:
        return Example.objects.filter(dataset=parent, index__in=edit["indexes"])
    return matching(parent, Filter.from_dict(edit.get("filter") or {}))


def _chosen(parent: Dataset, edit: Mapping[str, Any]) -> QuerySet[Example]:
    """The rows of the parent that the child has."""
    every = Example.objects.filter(dataset=parent)
    action = edit["action"]
    if action == "keep":
        return chosen_by(parent, edit)
    if action == "drop":
        # What is neither true nor false of a row (a tag that it lacks) does not drop it.
        return every.exclude(_is_chosen(edit))
    if action == "sample":
        return _sampled(chosen_by(parent, edit), edit)
    if action == "split":
        return _part(every, edit)
    return every


def _is_chosen(edit: Mapping[str, Any]) -> Q:
    if "indexes" in edit:
        return Q(index__in=edit["indexes"])
    met = Filter.from_dict(edit.get("filter") or {}).condition()
    return Q(Case(When(met, then=Value(True)), default=Value(False))) if met else Q(index__gte=0)


def _hashed(seed: int, unit: Combinable) -> Func:
    return MD5(Concat(Value(f"{seed}:"), unit, output_field=TextField()))


def _index_as_text() -> Cast:
    return Cast("index", TextField())


def _sampled(rows: QuerySet[Example], edit: Mapping[str, Any]) -> QuerySet[Example]:
    """The rows with the lowest hashes, in each stratum as many as `quotas` gives it."""
    rows = rows.annotate(hashed=_hashed(edit["seed"], _index_as_text()))
    if not edit.get("by"):
        highest = rows.order_by("hashed").values("hashed")[: edit["n"]].aggregate(highest=Max("hashed"))["highest"]
        return rows.filter(hashed__lte=highest or "")
    rows = rows.annotate(stratum=stratum_of(edit["by"]))
    of = {name: n for name, n in quotas(strata(rows), edit["n"]).items() if n}
    place = Over(RowNumber(), partition_by=F("stratum"), order_by="hashed")
    last = Q(*(Q(stratum=name, place=n) for name, n in of.items()), _connector=Q.OR)
    highest_of = rows.annotate(place=place).filter(last).values_list("stratum", "hashed")
    return rows.filter(Q(*(Q(stratum=name, hashed__lte=most) for name, most in highest_of), _connector=Q.OR))


def stratum_of(by: str) -> Expr:
    """`by` is `group`, or `tag:` and the name of one; rows without it are a stratum of their own."""
    return F("group") if by == "group" else Coalesce(tag(by.removeprefix("tag:")), Value(""), output_field=TextField())


def strata(rows: QuerySet[Any]) -> dict[str, int]:
    """{stratum: how many rows}, of rows that know their `stratum`."""
    return dict(rows.values("stratum").annotate(n=Count("pk")).order_by("stratum").values_list("stratum", "n"))


def quotas(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """How many of `n` each stratum gives, in proportion to its size; what is left goes to the largest remainders
    (Hamilton's method), in the order of the names where they are equal."""
    total = sum(sizes.values())
    n = min(n, total)
    given = {name: n * size // total for name, size in sizes.items()}
    rest = sorted(sizes, key=lambda name: (-(n * sizes[name] % total), name))
    for name in rest[: n - sum(given.values())]:
        given[name] += 1
    return given


def _part(every: QuerySet[Example], edit: Mapping[str, Any]) -> QuerySet[Example]:
    """The rows of one part: those whose hash lies between two bounds."""
    unit: Combinable = Concat(Value("#"), _index_as_text(), output_field=TextField())
    if edit["by_group"]:  # rows of one group have one hash, so they stay together
        own = Concat(Value("g"), F("group"), output_field=TextField())
        unit = Case(When(group="", then=unit), default=own, output_field=TextField())
    every = every.annotate(hashed=_hashed(edit["seed"], unit))
    part, sizes = edit["part"], [one["n"] for one in edit["parts"]]
    mine = every
    if part > 0:
        mine = mine.filter(hashed__gt=_bound(every, sum(sizes[:part])))
    if part < len(sizes) - 1:
        mine = mine.filter(hashed__lte=_bound(every, sum(sizes[: part + 1])))
    return mine


def _bound(every: QuerySet[Any], n: int) -> str:
    """The hash up to which there are `n` rows: a group that lies across counts to the side where its larger half is."""
    select, values = every.order_by().values("hashed").annotate(n=Count("pk")).query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT max(hashed) FILTER (WHERE upto - n / 2.0 <= %s) FROM"
            f" (SELECT hashed, n, sum(n) OVER (ORDER BY hashed) AS upto FROM ({select}) AS units) AS counted",
            [n, *values],
        )
        return cursor.fetchone()[0] or ""


# --- what is different in them --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _New:
    """Replaces the value of a column where `where` is true."""

    where: Q
    value: Expression

    def of(self, name: str) -> Case:
        return Case(When(self.where, then=self.value), default=F(name), output_field=_field(name))


def _changed(edit: Mapping[str, Any]) -> dict[str, Expr]:
    """{new_ and the column: its value in the child}."""
    columns: dict[str, Expr] = {f"new_{name}": F(name) for name in ("key", "source", "references", "group", "tags")}
    if edit["action"] == "fix":
        at = Q(index=edit["index"])
        for name, value in edit["set"].items():
            column = "key" if name == "id" else name
            columns[f"new_{column}"] = _New(at, Value(value, output_field=_field(column))).of(column)
    if edit["action"] == "relabel":
        where = _is_chosen(edit)
        if "group" in edit:
            columns["new_group"] = _New(where, Value(edit["group"])).of("group")
        else:
            columns["new_tags"] = _New(where, _tagged(edit["tag"], edit["value"])).of("tags")
    return columns


def _field(name: str) -> Any:
    return Example._meta.get_field(name)


def _tagged(name: str, value: Any) -> Func:
    """The tags with this one set, or without it where `value` is None."""
    if value is None:
        return Func(
            F("tags"), Value(name), template="(%(expressions)s::text)", arg_joiner=" - ", output_field=JSONField()
        )
    one = Value({name: value}, output_field=JSONField())
    return Func(F("tags"), one, template="(%(expressions)s)", arg_joiner=" || ", output_field=JSONField())

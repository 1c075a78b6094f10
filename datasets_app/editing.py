"""Editing makes a child dataset of one that is ready: one example mended, some dropped, relabelled, sampled, split, one
added. The parent stays as it is. `Dataset.edit` keeps what was asked for, so that the child could be made again:

    {action: fix, index, set: {source, references[], id, group, tags{}}}           what is set
    {action: drop | keep, indexes[] | filter{}}
    {action: relabel, indexes[] | filter{}, group | tag, value}                    value null: the tag is removed
    {action: sample, n, seed, by: "" | group | tag:name, filter{}}
    {action: split, part, parts: [{name, n, sealed}], seed, by_group}
    {action: append, row: {source, references[], key, group, tags{}}}

A small dataset is ready with the answer, a larger one is made by a worker (`deriving`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Sum

from datasets_app import deriving
from datasets_app.building import build, unstorable
from datasets_app.filtering import Filter
from datasets_app.formats import MAX_NAME_CHARACTERS, Problem, Record, printable
from datasets_app.ingesting import BadFile, claim
from datasets_app.mapping import Columns
from datasets_app.models import Dataset, Example, Import
from datasets_app.reading import Row
from lumigator import doorbell

ACTIONS = ("fix", "drop", "keep", "relabel", "sample", "append")
FIELDS = ("source", "references", "id", "group", "tags")
ROWS_AT_ONCE = 20_000
CHARACTERS_AT_ONCE = 5 << 20
"""Up to this much of both is made while its user waits, some three seconds."""
MOST_INDEXES = 10_000
MOST_STRATA = 200
MOST_PARTS = 10
MOST_SEED = 2**31 - 1


class Refused(Exception):
    """The edit cannot be made. `errors`: {field: [what is wrong, and the cure]}."""

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, texts in errors.items() for text in texts))
        self.errors = dict(errors)


class Part(NamedTuple):
    """One part of a split: `n` examples, or a `share` of all (0 to 1); of neither: what the others leave."""

    name: str
    n: int | None = None
    share: float | None = None
    sealed: bool = False


def fix(
    parent: Dataset, *, user: User | None, index: int, changes: Mapping[str, Any], name: str = "", privacy: str = ""
) -> Dataset:
    """The same dataset, but for some FIELDS of one example. `tags` are all of them. Raises Refused."""
    _check_ready(parent)
    old = Example.objects.filter(dataset=parent, index=index).first()
    if old is None:
        raise Refused({"index": [f"there is no example {index}; the last is {parent.n_examples - 1}"]})
    if unknown := set(changes) - set(FIELDS):
        raise Refused({one: [f"there is no such field; there is {', '.join(FIELDS)}"] for one in sorted(unknown)})
    was = {**_fields_of(old), **changes}
    row = _row(was, index)
    now = {"source": row.source, "references": row.references, "id": row.key, "group": row.group, "tags": row.tags}
    different = {one: now[one] for one in FIELDS if now[one] != _fields_of(old)[one]}
    if not different:
        raise Refused({"set": ["nothing is different: change something first"]})
    if "id" in different and row.key:
        _check_id(parent, row.key)
    edit = {"action": "fix", "index": index, "set": different}
    return _make(parent, user, edit, name or f"{parent.name}, {old.label} changed", privacy)


def drop(
    parent: Dataset,
    *,
    user: User | None,
    indexes: Sequence[int] | None = None,
    chosen: Filter | None = None,
    keep: bool = False,
    name: str = "",
    privacy: str = "",
) -> Dataset:
    """Without these examples; with `keep` only they. They are named by index or by a filter. Raises Refused."""
    _check_ready(parent)
    which = _which(parent, indexes, chosen, is_needed=True)
    edit = {"action": "keep" if keep else "drop", **which}
    return _make(parent, user, edit, name or f"{parent.name}, {'a selection' if keep else 'thinned out'}", privacy)


def relabel(
    parent: Dataset,
    *,
    user: User | None,
    indexes: Sequence[int] | None = None,
    chosen: Filter | None = None,
    group: str | None = None,
    tag: str = "",
    value: Any = None,
    name: str = "",
    privacy: str = "",
) -> Dataset:
    """The group of these examples (empty: none), or one of their tags (None: removed), becomes this; of all of them
    where neither indexes nor a filter is given. Raises Refused."""
    _check_ready(parent)
    if (group is None) == (not tag):
        raise Refused({"tag": ["say one of the two: a group, or a tag with its value"]})
    edit: dict[str, Any] = {"action": "relabel", **_which(parent, indexes, chosen, is_needed=False)}
    if tag:
        value = None if value == "" else value
        checked = _row({"source": "x", "tags": {tag: value}}, 0)
        edit |= {"tag": tag, "value": checked.tags.get(tag)}
    else:
        edit |= {"group": _row({"source": "x", "group": group}, 0).group}
    return _make(parent, user, edit, name or f"{parent.name}, relabelled", privacy)


def sample(
    parent: Dataset,
    *,
    user: User | None,
    n: int,
    seed: int = 0,
    by: str = "",
    chosen: Filter | None = None,
    name: str = "",
    privacy: str = "",
) -> Dataset:
    """`n` examples at random, in the order of the file; the same seed gives the same ones. `by` (`group`, or `tag:` and
    a name) takes from each in proportion to its size. Raises Refused."""
    _check_ready(parent)
    chosen = chosen or Filter()
    errors: dict[str, list[str]] = {}
    if not 1 <= n <= parent.n_examples:
        errors["n"] = [f"it is from 1 to {parent.n_examples:,}, the number of examples"]
    if not 0 <= seed <= MOST_SEED:
        errors["seed"] = [f"it is from 0 to {MOST_SEED:,}"]
    tags = tags_of(parent)
    if by and by != "group" and not (by.startswith("tag:") and by[4:] in tags):
        errors["by"] = [f"it is one of {', '.join(['group', *(f'tag:{one}' for one in tags)])}, or empty"]
    elif by and (n_strata := _n_strata(parent, by)) > MOST_STRATA:
        errors["by"] = [f"it has {n_strata:,} values, more than {MOST_STRATA}: sample without it"]
    if errors:
        raise Refused(errors)
    edit: dict[str, Any] = {"action": "sample", "n": n, "seed": seed, "by": by}
    edit |= {} if chosen.is_empty else {"filter": chosen.as_dict()}
    return _make(parent, user, edit, name or f"{parent.name}, a sample of {n:,}", privacy)


def append(
    parent: Dataset, *, user: User | None, example: Mapping[str, Any], name: str = "", privacy: str = ""
) -> Dataset:
    """With one more example at its end: {source, references[], id, group, tags{}}, all but `source` optional. Raises
    Refused."""
    _check_ready(parent)
    row = _row({one: example[one] for one in FIELDS if one in example}, parent.n_examples)
    if row.key:
        _check_id(parent, row.key)
    stored = {"source": row.source, "references": row.references, "key": row.key, "group": row.group, "tags": row.tags}
    return _make(parent, user, {"action": "append", "row": stored}, name or f"{parent.name}, one more", privacy)


def split(
    parent: Dataset,
    *,
    user: User | None,
    parts: Sequence[Part],
    seed: int = 0,
    by_group: bool = True,
    privacy: str = "",
) -> list[Dataset]:
    """One child for each part, at random; every example is in exactly one. With `by_group` no group is in two, and the
    parts are then about as large as asked for. A sealed part is for the final confirmation only. Raises Refused."""
    _check_ready(parent)
    sizes = _sizes(parts, parent.n_examples)
    if not 0 <= seed <= MOST_SEED:
        raise Refused({"seed": [f"it is from 0 to {MOST_SEED:,}"]})
    by_group = by_group and Example.objects.filter(dataset=parent).exclude(group="").exists()
    told = [{"name": part.name.strip(), "n": n, "sealed": part.sealed} for part, n in zip(parts, sizes, strict=True)]
    edit = {"action": "split", "parts": told, "seed": seed, "by_group": by_group}
    with transaction.atomic():
        return [
            _make(parent, user, {**edit, "part": at}, f"{parent.name}: {one['name']}", privacy, sealed=parts[at].sealed)
            for at, one in enumerate(told)
        ]


def _sizes(parts: Sequence[Part], of: int) -> list[int]:
    """How many examples each part has. Raises Refused."""
    if not 2 <= len(parts) <= MOST_PARTS:
        raise Refused({"parts": [f"there are from 2 to {MOST_PARTS} parts; this has {len(parts)}"]})
    names = [part.name.strip() for part in parts]
    if not all(names) or len(set(names)) < len(names) or any("\0" in one or len(one) > 60 for one in names):
        raise Refused({"parts": ["give each part a name of its own, of at most 60 characters"]})
    if all(part.sealed for part in parts):
        raise Refused({"parts": ["leave at least one part unsealed: nothing could be compared otherwise"]})
    sizes = [round(part.share * of) if part.share is not None else part.n for part in parts]
    known = sum(one for one in sizes if one is not None)
    open_ones = sizes.count(None)
    if open_ones > 1:
        raise Refused({"parts": ["say how large the parts are; one of them may have what is left"]})
    if not open_ones and all(part.share is not None for part in parts) and abs(known - of) <= len(parts):
        largest = max(range(len(parts)), key=lambda at: sizes[at] or 0)
        sizes[largest] = (sizes[largest] or 0) + of - known  # what rounding gained or lost
        known = of
    sizes = [of - known if one is None else one for one in sizes]
    found = [one for one in sizes if one is not None]
    if sum(found) != of or min(found) < 1:
        raise Refused({"parts": [f"together they have all {of:,} examples, and each at least one; this has {found}"]})
    return found


# --- making the child -----------------------------------------------------------------------------------------------


def _make(
    parent: Dataset, user: User | None, edit: dict[str, Any], name: str, privacy: str, *, sealed: bool = False
) -> Dataset:
    if privacy and privacy not in Dataset.Privacy.values:
        raise Refused({"privacy": [f"it is one of {', '.join(Dataset.Privacy.values)}"]})
    if privacy == Dataset.Privacy.ANY and not parent.may_leave:
        raise Refused({"privacy": ["its parent never leaves this installation, so neither does it"]})
    if "\0" in name:
        raise Refused({"name": ["it holds a NUL character: remove it"]})
    with transaction.atomic():
        child = Dataset.objects.create(
            team=parent.team,
            created_by=user,
            name=printable(name.strip(), 200),
            origin=Dataset.Origin.EDITED,
            parent=parent,
            privacy=privacy or parent.privacy,
            columns=_columns(parent, edit),
            edit=edit,
            sealed=sealed or parent.sealed,
        )
        Import.objects.create(dataset=child)
        if not _is_small(parent):
            doorbell.ring("import_dataset", "cpu", child.pk)
            return child
        lease = claim(child.pk, "here")
        if lease is None:
            raise RuntimeError(f"dataset {child.pk}: somebody else is making it")
        try:
            deriving.carry_out(lease)
        except BadFile as bad:
            raise Refused({"non_field_errors": [f"{one.message} {one.cure}" for one in bad.problems]}) from None
        return lease.dataset


def _is_small(parent: Dataset) -> bool:
    if parent.n_examples > ROWS_AT_ONCE:
        return False
    return (parent.examples.aggregate(n=Sum("n_characters"))["n"] or 0) <= CHARACTERS_AT_ONCE


def _columns(parent: Dataset, edit: Mapping[str, Any]) -> dict[str, Any]:
    """The parent's, with what the edit brings in."""
    columns = Columns.from_dict(parent.columns).as_dict()
    new = dict(edit.get("set") or edit.get("row") or {})
    new |= {"group": edit["group"]} if edit.get("group") else {}
    tags = [*new.get("tags", {}), *([edit["tag"]] if edit.get("value") is not None else [])]
    columns["tags"] += [name for name in tags if name not in columns["tags"]]
    if new.get("references") and not columns["references"]:
        columns["references"] = ["ground_truth"]
    if (new.get("id") or new.get("key")) and not columns["id"]:
        columns["id"] = "id"
    if new.get("group") and not columns["group"]:
        columns["group"] = "group"
    return columns


# --- what is asked for ----------------------------------------------------------------------------------------------


def _check_ready(parent: Dataset) -> None:
    if not parent.is_ready:
        raise Refused({"dataset": [f"it is {parent.get_state_display().lower()}: only a ready one can be edited"]})


def _which(parent: Dataset, indexes: Sequence[int] | None, chosen: Filter | None, *, is_needed: bool) -> dict[str, Any]:
    is_filtered = chosen is not None and not chosen.is_empty
    if indexes is not None and is_filtered:
        raise Refused({"indexes": ["say which examples by their indexes or by a filter, not by both"]})
    if indexes is not None:
        outside = [one for one in indexes if not 0 <= one < parent.n_examples]
        if outside or not 1 <= len(indexes) <= MOST_INDEXES:
            among = f", among them {outside[0]}" if outside else ""
            asked = f"from 1 to {MOST_INDEXES:,} numbers from 0 to {parent.n_examples - 1:,}"
            raise Refused({"indexes": [f"it has {asked}; this has {len(indexes):,}{among}"]})
        return {"indexes": sorted(set(indexes))}
    if chosen is not None and is_filtered:
        return {"filter": chosen.as_dict()}
    if is_needed:
        raise Refused({"filter": ["say which examples, by their indexes or by a filter"]})
    return {}


def _fields_of(example: Example) -> dict[str, Any]:
    return {
        "source": example.source,
        "references": example.references,
        "id": example.key,
        "group": example.group,
        "tags": example.tags,
    }


def _row(fields: Mapping[str, Any], index: int) -> Row:
    """The fields of one example, checked as those of an upload are. Raises Refused."""
    tags = fields.get("tags") or {}
    if not isinstance(tags, Mapping):
        raise Refused({"tags": ["it is an object: {name: value}"]})
    wrong = [one for one in tags if not (isinstance(one, str) and one.strip() and len(one) <= MAX_NAME_CHARACTERS)]
    if wrong:
        raise Refused({"tags": [f"the name of a tag is text of at most {MAX_NAME_CHARACTERS} characters, not blank"]})
    named = {f"tag {name}": value for name, value in tags.items()}
    cells = {one: fields.get(one) for one in FIELDS if one != "tags"}
    record = Record(index + 1, {**cells, **named})
    found: Row | list[Problem] = unstorable(record, set()) or build(
        record, Columns("source", ("references",), "id", "group", tuple(named))
    )
    if isinstance(found, list):
        errors: dict[str, list[str]] = {}
        for problem in found:
            place = "tags" if problem.column.startswith("tag ") else problem.column
            errors.setdefault(place, []).append(f"{problem.message} {problem.cure}")
        raise Refused(errors)
    return found._replace(tags={name: found.tags[f"tag {name}"] for name in tags if f"tag {name}" in found.tags})


def _check_id(parent: Dataset, key: str) -> None:
    other = Example.objects.filter(dataset=parent, key=key).exclude(key="").first()
    if other is not None:
        raise Refused({"id": [f"example {other.index + 1} has the id “{printable(key, 60)}”: choose another"]})


def tags_of(parent: Dataset) -> list[str]:
    """The names of its tags, those of its columns first."""
    return list(dict.fromkeys([*parent.columns.get("tags", ()), *parent.profile.get("tags", ())]))


def _n_strata(parent: Dataset, by: str) -> int:
    known = parent.profile.get("groups") if by == "group" else parent.profile.get("tags", {}).get(by[4:])
    return int((known or {}).get("n") or 0)


# --- what was done, in words ----------------------------------------------------------------------------------------


def in_words(child: Dataset) -> str:
    """What made this dataset of its parent, as a sentence; empty for one that no edit made."""
    edit = child.edit
    action = edit.get("action")
    which = _which_in_words(edit)
    if action == "fix":
        names = {"source": "document", "references": "references", "id": "id", "group": "group", "tags": "tags"}
        return f"Example {edit['index'] + 1:,}: {_listed(names[one] for one in FIELDS if one in edit['set'])} changed."
    if action == "drop":
        return f"Dropped {which}."
    if action == "keep":
        return f"Kept only {which}."
    if action == "relabel":
        if "group" in edit:
            return f"Put {which} into the group {edit['group']}." if edit["group"] else f"Took {which} out of groups."
        if edit["value"] is None:
            return f"Removed the tag {edit['tag']} from {which}."
        return f"Tagged {which} {edit['tag']} = {edit['value']}."
    if action == "sample":
        by = {"": "", "group": ", in proportion to the groups"}.get(edit["by"])
        by = f", in proportion to {edit['by'][4:]}" if by is None else by
        return f"A random sample of {edit['n']:,} of {which}, seed {edit['seed']}{by}."
    if action == "split":
        own = edit["parts"][edit["part"]]
        parts = _listed(f"{one['name']} ({one['n']:,}{', sealed' if one['sealed'] else ''})" for one in edit["parts"])
        together = ", groups kept together" if edit["by_group"] else ""
        return f"The part “{own['name']}” of a random split into {parts}, seed {edit['seed']}{together}."
    return "One example added at the end." if action == "append" else ""


def _which_in_words(edit: Mapping[str, Any]) -> str:
    if "indexes" in edit:
        n = len(edit["indexes"])
        first = ", ".join(f"#{one + 1}" for one in edit["indexes"][:5])
        return f"{n:,} example{'s' * (n != 1)} ({first}{', …' if n > 5 else ''})"
    words = str(Filter.from_dict(edit.get("filter") or {}))
    return f"the examples {words}" if words else "all examples"


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def told(child: Dataset) -> dict[str, Any] | None:
    """`edit` for the API: without the texts, and with the first of many indexes; None where no edit made it."""
    edit = {name: value for name, value in child.edit.items() if name not in ("set", "row", "indexes")}
    if not edit:
        return None
    if "set" in child.edit:
        edit["set"] = [one for one in FIELDS if one in child.edit["set"]]
    if "indexes" in child.edit:
        edit |= {"indexes": child.edit["indexes"][:100], "n_indexes": len(child.edit["indexes"])}
    return {**edit, "words": in_words(child)}

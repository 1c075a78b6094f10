"""The pages of examples: a table that is searched, filtered and sorted, and one example in full."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from datasets_app import browsing, editing, filtering
from datasets_app.browsing import PAGE, SORTS, Place, Sort
from datasets_app.filtering import Filter
from datasets_app.models import Dataset, Example
from lumigator.access import require
from lumigator.models import Role

SHOWN_CHILDREN = 50


@require(Role.VIEWER)
@require_GET
def examples(request: HttpRequest, pk: int) -> HttpResponse:
    """State is in the address: the filter, `sort`, and `after`, `before` (a place) or `from` (an index)."""
    dataset = mine(request, pk)
    chosen, sort, wrong = asked_for(request, dataset)
    after, backwards = _place(request, sort)
    found = browsing.find(dataset, chosen, sort=sort, after=after, backwards=backwards, shape=browsing.beginnings)
    rows = found.rows[::-1] if backwards else found.rows
    is_first_page = after is None or (backwards and found.reached is None)
    earlier = found.reached if backwards else _edge(rows[:1], sort) or (after if after else None)
    later = (_edge(rows[-1:], sort) or after) if backwards else found.reached
    is_cut = found.reached is not None and len(rows) < PAGE
    context = {
        "dataset": dataset,
        "examples": table(dataset, rows),
        "filters": controls(dataset, chosen),
        "chosen": chosen,
        "wrong": wrong,
        "sort": sort,
        "sorts": SORTS.items(),
        "query": _query(chosen, sort),
        "count": browsing.count(dataset, chosen) if is_first_page and not wrong else None,
        "earlier": None if is_first_page or earlier is None else browsing.as_text(earlier),
        "later": None if later is None else browsing.as_text(later),
        "searched": _searched(dataset, sort, found.reached, backwards) if is_cut else None,
        "goes_on": is_cut and not rows and not backwards,
    }
    return render(request, "datasets/examples.html", context)


@require(Role.VIEWER)
@require_GET
def example(request: HttpRequest, pk: int, index: int) -> HttpResponse:
    dataset = mine(request, pk)
    if index >= 2**31:
        raise Http404
    one = get_object_or_404(Example, dataset=dataset, index=index)
    chosen, sort, _ = asked_for(request, dataset)
    before, behind = browsing.neighbours(dataset, chosen, sort, one)
    context = {
        "dataset": dataset,
        "example": one,
        "n_words": len(one.source.split()),
        "references": [(text, len(text.split())) for text in one.references],
        "previous": _neighbour(before),
        "next": _neighbour(behind),
        "chosen": chosen,
        "query": _query(chosen, sort),
        "sort": sort,
        "place": browsing.as_text(browsing.place_of(one, sort)),
    }
    return render(request, "datasets/example.html", context)


def mine(request: HttpRequest, pk: int) -> Dataset:
    """The dataset, if it is of the user's teams; 404 otherwise."""
    return get_object_or_404(Dataset.objects.for_user(request.user).select_related("created_by", "parent"), pk=pk)


def asked_for(request: HttpRequest, dataset: Dataset) -> tuple[Filter, Sort, dict[str, str]]:
    """The filter, the order, and what is wrong with them by parameter."""
    chosen, wrong = filtering.read(request.GET, editing.tags_of(dataset))
    sort: Any = request.GET.get("sort", "index")
    return chosen, sort if sort in SORTS else "index", wrong


def table(dataset: Dataset, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `_examples.html` draws of the rows of `browsing.beginnings`."""
    tags = dataset.columns.get("tags", ())
    return [
        {
            **row,
            "label": row["key"] or f"#{row['index'] + 1}",
            "words": [row["tags"].get(name, "") for name in tags],
        }
        for row in rows
    ]


def controls(dataset: Dataset, chosen: Filter) -> dict[str, Any]:
    """What the form of a filter offers: {tags: [(name, [(value, parameter, is chosen)])], groups: […]}. Of a tag with
    more values than its profile names, the chosen one is among them whatever it is."""
    now = dict(chosen.tags)
    tags = []
    for name in editing.tags_of(dataset):
        values = _largest((dataset.profile.get("tags") or {}).get(name), now.get(name))
        tags.append((name, [(value, f"{name}:{value}", now.get(name) == value) for value in values]))
    groups = _largest(dataset.profile.get("groups"), chosen.group)
    return {"tags": tags, "groups": groups}


def _largest(told: dict[str, Any] | None, now: str | None) -> list[str]:
    values = [str(one["value"]) for one in (told or {}).get("largest", ())]
    return [*values, *([now] if now and now not in values else [])]


def lineage(dataset: Dataset, user: Any) -> dict[str, Any]:
    """What made it of its parent, in words, and its newest children."""
    children = Dataset.objects.for_user(user).filter(parent=dataset).order_by("-id")
    found = list(children.defer("profile", "columns")[: SHOWN_CHILDREN + 1])
    return {
        "edited": editing.in_words(dataset),
        "children": [(one, editing.in_words(one)) for one in found[:SHOWN_CHILDREN]],
        "has_more_children": len(found) > SHOWN_CHILDREN,
    }


def _place(request: HttpRequest, sort: Sort) -> tuple[Place | None, bool]:
    """(where to go on, whether backwards). A place that makes no sense is the beginning."""
    for name in ("after", "before"):
        if (place := browsing.place_from(request.GET.get(name, ""), sort)) is not None:
            return place, name == "before"
    start = browsing.place_from(request.GET.get("from", ""), "index")
    return ((start[0] - 1,), False) if sort == "index" and start and start[0] else (None, False)


def _edge(rows: list[Any], sort: Sort) -> Place | None:
    return browsing.place_of(rows[0], sort) if rows else None


def _query(chosen: Filter, sort: Sort) -> str:
    """The filter and the order as the beginning of a query, `search=budget&`; empty where there is nothing to say."""
    pairs = [*chosen.as_query(), *([("sort", sort)] if sort != "index" else [])]
    return f"{urlencode(pairs)}&" if pairs else ""


def _searched(dataset: Dataset, sort: Sort, reached: Place | None, backwards: bool) -> dict[str, Any]:
    """How far a search got before its time was up: an example's place in the file, or a length."""
    if reached is None:
        return {}
    if sort == "index":
        return {"n": dataset.n_examples - reached[0] if backwards else reached[0] + 1, "of": dataset.n_examples}
    return {"length": reached[0]}


def _neighbour(found: browsing.Found) -> dict[str, Any] | None:
    """{index} of the one that was found, or {place} to search on from; None when there is none."""
    if not found.rows and found.reached is None:
        return None
    return {"index": found.rows[0]["index"]} if found.rows else {"place": browsing.as_text(found.reached or ())}

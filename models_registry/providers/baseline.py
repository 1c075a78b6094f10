"""Summaries that need no model: the first sentences, the most central ones, some by chance, or the whole document.

A model that does not beat these is not worth its cost. The methods and their papers: `models_registry.extracting`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from models_registry.extracting import (
    MOST_SENTENCES,
    first,
    lead,
    lexrank,
    longest,
    lsa,
    random_pick,
    textrank,
    within,
)
from models_registry.providers import Access, Output, Provider, ProviderError, Request, Session, Spec
from models_registry.sentences import sentences

METHODS: dict[str, Callable[[Sequence[str], int, int], list[int]]] = {
    "lead": lambda pieces, most, seed: lead(pieces),
    "lexrank": lambda pieces, most, seed: lexrank(pieces),
    "longest": lambda pieces, most, seed: longest(pieces),
    "lsa": lambda pieces, most, seed: lsa(pieces),
    "random": random_pick,
    "textrank": lambda pieces, most, seed: textrank(pieces),
}
"""From (sentences, how many at most, seed) to positions, the best first."""
RANKERS = ("lexrank", "lsa", "textrank")
"""Those that compare every sentence with every other."""
COPY = "copy"
USUAL_COUNT = 3
_NAME = re.compile(r"baseline://([a-z]+)(?:-([1-9][0-9]?)|-([1-9][0-9]{0,3})w)?")


@dataclass(frozen=True)
class Wanted:
    """What an address asks for: `sentences` of them or as many as have `words`, one of the two; `copy` has neither."""

    method: str
    sentences: int | None = None
    words: int | None = None


class Extracting:
    """A session that keeps sentences of each document, in their order. `choose` gets the request and its sentences;
    a document of more than `most` sentences is refused."""

    def __init__(
        self,
        choose: Callable[[Request, Sequence[str]], list[int]],
        facts: dict[str, Any],
        most: int | None = MOST_SENTENCES,
    ) -> None:
        self._choose = choose
        self._facts = facts
        self._most = most

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Output]]:
        for request in requests:
            yield [self._extract(request)]

    def _extract(self, request: Request) -> Output:
        started = time.perf_counter()
        pieces = sentences(request.source)
        if self._most is not None and len(pieces) > self._most:
            message = f"the document has {len(pieces):,} sentences, more than {self._most:,}: split it"
            return Output(request.key, "error", error_code="input_too_long", error=message)
        try:
            text = " ".join(pieces[position] for position in self._choose(request, pieces))
        except ProviderError as error:
            return Output(request.key, "error", error_code=error.code, error=str(error))
        spent = round(1000 * (time.perf_counter() - started))
        if not text:
            message = "no sentence was chosen" if pieces else "the document has no sentence"
            return Output(request.key, "empty", error_code="empty_output", error=message, latency_ms=spent)
        return Output(request.key, "ok", text=text, finish_reason="stop", latency_ms=spent)

    def describe(self) -> dict[str, Any]:
        return {"architecture": "extractive", **self._facts}

    def close(self) -> None:
        """Nothing is held."""


class Copying:
    """A session that gives every document back as it is, but for the blanks around it."""

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Output]]:
        for request in requests:
            text = request.source.strip()
            if text:
                yield [Output(request.key, "ok", text=text, finish_reason="stop", latency_ms=0)]
            else:
                yield [Output(request.key, "empty", error_code="empty_output", error="the document is empty")]

    def describe(self) -> dict[str, Any]:
        return {"architecture": "extractive", "method": COPY}

    def close(self) -> None:
        """Nothing is held."""


def parse(spec: Spec) -> Wanted:
    """What `baseline://textrank-3`, `baseline://lead-60w` or `baseline://copy` asks for.

    Raises ProviderError(code="unknown_model").
    """
    found = _NAME.fullmatch(str(spec.get("uri", "")))
    method, count, length = found.groups() if found else ("", None, None)
    if method == COPY and not count and not length:
        return Wanted(COPY)
    if method in METHODS:
        return Wanted(method, words=int(length)) if length else Wanted(method, int(count or USUAL_COUNT))
    known = ", ".join([*(f"baseline://{name}-{USUAL_COUNT}" for name in METHODS), f"baseline://{COPY}"])
    raise ProviderError(
        f"no baseline is called {str(spec.get('uri', ''))[:100]!r}: write one of {known} (1 to 99 sentences, or "
        "1w to 9999w for sentences of so many words together)",
        code="unknown_model",
        failure="stop",
    )


def problems(spec: Spec) -> list[str]:
    """An unknown name, or generation parameters, which nothing here would apply."""
    try:
        parse(spec)
    except ProviderError as error:
        return [str(error)]
    return ["an extractive method has no generation parameters: remove them"] if spec.get("generation") else []


def open(spec: Spec, access: Access) -> Session:
    wanted = parse(spec)
    if wanted.method == COPY:
        return Copying()
    method = METHODS[wanted.method]

    def choose(request: Request, pieces: Sequence[str]) -> list[int]:
        if wanted.words is not None:
            return within(method(pieces, len(pieces), request.seed), pieces, wanted.words)
        count = wanted.sentences or USUAL_COUNT
        return first(method(pieces, count, request.seed), count)

    facts: dict[str, Any] = {"method": wanted.method}
    facts |= {"sentences": wanted.sentences} if wanted.words is None else {"words": wanted.words}
    return Extracting(choose, facts, MOST_SENTENCES if wanted.method in RANKERS else None)


provider = Provider(
    name="baseline",
    label="Baseline",
    about=(
        "Extracts sentences without any model: lead-3 (the first three), textrank-3, lexrank-3 and lsa-3 (the most "
        "central by shared words), longest-3, random-3 (by chance, seeded), or as many as have a number of words "
        "together (lead-60w); copy gives the whole document. Free, instant, and the floor for every model."
    ),
    schemes=("baseline",),
    place="inline",
    queue="cpu",
    open=open,
    problems=problems,
)

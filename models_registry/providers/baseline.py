"""Summaries that need no model: the first sentences, the most central ones, or some by chance.

A model that does not beat these is not worth its cost. TextRank and LexRank: see `models_registry.extracting`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from models_registry.extracting import MOST_SENTENCES, lead, lexrank, random_pick, textrank
from models_registry.providers import Access, Output, Provider, ProviderError, Request, Session, Spec
from models_registry.sentences import sentences

METHODS: dict[str, Callable[[Sequence[str], int, int], list[int]]] = {
    "lead": lambda pieces, count, seed: lead(pieces, count),
    "lexrank": lambda pieces, count, seed: lexrank(pieces, count),
    "random": random_pick,
    "textrank": lambda pieces, count, seed: textrank(pieces, count),
}
USUAL_COUNT = 3
_NAME = re.compile(r"baseline://([a-z]+)(?:-([1-9][0-9]?))?")


class Extracting:
    """A session that keeps sentences of each document, in their order. `choose` gets the request and its sentences."""

    def __init__(self, choose: Callable[[Request, Sequence[str]], list[int]], facts: dict[str, Any]) -> None:
        self._choose = choose
        self._facts = facts

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Output]]:
        for request in requests:
            yield [self._extract(request)]

    def _extract(self, request: Request) -> Output:
        started = time.perf_counter()
        pieces = sentences(request.source)
        if len(pieces) > MOST_SENTENCES:
            message = f"the document has {len(pieces):,} sentences, more than {MOST_SENTENCES:,}: split it"
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


def parse(spec: Spec) -> tuple[str, int]:
    """Method and number of sentences of `baseline://textrank-3`. Raises ProviderError(code="unknown_model")."""
    found = _NAME.fullmatch(str(spec.get("uri", "")))
    if not found or found.group(1) not in METHODS:
        known = ", ".join(f"baseline://{name}-{USUAL_COUNT}" for name in METHODS)
        raise ProviderError(
            f"no baseline is called {str(spec.get('uri', ''))[:100]!r}: write one of {known} (1 to 99 sentences)",
            code="unknown_model",
            failure="stop",
        )
    return found.group(1), int(found.group(2) or USUAL_COUNT)


def problems(spec: Spec) -> list[str]:
    """An unknown name, or generation parameters, which nothing here would apply."""
    try:
        parse(spec)
    except ProviderError as error:
        return [str(error)]
    return ["an extractive method has no generation parameters: remove them"] if spec.get("generation") else []


def open(spec: Spec, access: Access) -> Session:
    name, count = parse(spec)
    method = METHODS[name]

    def choose(request: Request, pieces: Sequence[str]) -> list[int]:
        return method(pieces, count, request.seed)

    return Extracting(choose, {"method": name, "sentences": count})


provider = Provider(
    name="baseline",
    label="Baseline",
    about=(
        "Extracts sentences without any model: lead-3 (the first three), textrank-3 and lexrank-3 (the most central "
        "by shared words), random-3 (by chance, seeded). Free, instant, and the floor for every model."
    ),
    schemes=("baseline",),
    place="inline",
    queue="cpu",
    open=open,
    problems=problems,
)

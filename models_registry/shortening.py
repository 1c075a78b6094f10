"""Documents longer than a model's window: what a candidate does with them, as its spec says in `long_documents`.

Each way is a candidate of its own, since it decides what the model reads. Nothing is cut in silence: an output says
how many tokens the document needed and how many were read. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from models_registry.fitting import Room, around, divide, keep_ends, keep_head, keep_tail
from models_registry.providers import Output, Place, ProviderError, Request, Session, Spec

MAP_REDUCE = "map_reduce"
DEFAULT = "cut_tail"
STRATEGIES = {
    DEFAULT: "reads the beginning, as much as fits",
    "cut_head": "reads the end, as much as fits",
    "middle_out": "reads the beginning and the end, half of the window each",
    MAP_REDUCE: "summarizes the document in parts, and then the summaries",
}
"""Every value of spec["long_documents"], in words that complete "It …"."""
_CUTS: dict[str, Callable[[str, Room], str | None]] = {
    DEFAULT: keep_head,
    "cut_head": keep_tail,
    "middle_out": keep_ends,
}

MOST_LEVELS = 4
"""How often a document is divided, and the summaries of its parts again."""
LEAST_ROOM = 16
"""Tokens for the document, below which a model reads crumbs: refused, as it would make a call for each."""
LONGEST_DOCUMENT = 4_000_000
"""Characters. A longer one is refused before its tokens are counted."""
BYTES_PER_TOKEN = 3
"""For models that count only what they are sent. English has some four bytes a token and German three: an estimate
that rather cuts too much; a document of digits or rare scripts may still be refused by the model as too long."""
CALL_TOKENS = 64
"""For the roles and marks that a server puts around a message."""


@runtime_checkable
class Measured(Session, Protocol):
    """A session that knows what it can read, so that documents can be cut to it exactly."""

    @property
    def limit(self) -> int:
        """The most tokens that one request may take as input: the window, without what is written into it."""
        ...

    def count(self, request: Request) -> int:
        """Tokens that the whole input would take: prompt or prefix, template, special tokens and document."""
        ...


def problems(spec: Spec, place: Place) -> list[str]:
    """What is wrong with spec["long_documents"], in words; nothing where it is absent."""
    asked = spec.get("long_documents")
    if asked in (None, ""):
        return []
    if not isinstance(asked, str) or asked not in STRATEGIES:
        return [f"long_documents must be one of {', '.join(STRATEGIES)}, not {str(asked)[:60]!r}"]
    if place == "inline":
        return ["this method reads every document whole: remove long_documents"]
    window = spec.get("window")
    if place == "network" and (not isinstance(window, int) or window < 1):
        return ["long_documents needs the model's window, which is not known: enter it in the registry"]
    if place == "network" and _estimated_limit(spec) < LEAST_ROOM:
        return [
            f"max_new_tokens leaves no room for a document in the window of {window} tokens: "
            "lower it, or correct the window"
        ]
    return []


def shortened(session: Session, spec: Spec) -> Session:
    """The session that does with long documents what the spec says: itself, where nothing is said or it does so anyway
    (a local model cuts the end by its own tokenizer). Raises ProviderError(code="bad_parameter")."""
    strategy = spec.get("long_documents")
    if not strategy or (strategy == DEFAULT and isinstance(session, Measured)):
        return session
    if isinstance(session, Measured):
        return Shortening(session, strategy)
    if found := problems(spec, "network"):
        raise ProviderError("; ".join(found), code="bad_parameter", failure="stop")
    return Shortening(Estimated(session, spec), strategy, is_billed=True)


# --- Counting ---------------------------------------------------------------------------------------------------------


def estimated_tokens(text: str) -> int:
    """A third of the bytes in UTF-8, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def _estimated_limit(spec: Spec) -> int:
    system = estimated_tokens(str(spec.get("system") or ""))
    return int(spec["window"]) - _most_written(spec) - CALL_TOKENS - system


def _most_written(spec: Spec) -> int:
    """max_new_tokens; 0 where none is given, or something else than a number, which the provider itself refuses."""
    generation = spec.get("generation")
    asked = generation.get("max_new_tokens") if isinstance(generation, Mapping) else None
    return asked if isinstance(asked, int) else 0


class Estimated:
    """A session that cannot count, with a limit and a count by rule."""

    def __init__(self, session: Session, spec: Spec) -> None:
        self._session = session
        self.limit = _estimated_limit(spec)

    def count(self, request: Request) -> int:
        return estimated_tokens(request.source if request.prompt is None else request.prompt)

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Output]]:
        return self._session.generate(requests)

    def describe(self) -> dict[str, Any]:
        return {**self._session.describe(), "tokens_estimated_by": f"bytes / {BYTES_PER_TOKEN}"}

    def close(self) -> None:
        self._session.close()


# --- Dividing ---------------------------------------------------------------------------------------------------------


class MapReduce:
    """A document that is summarized in parts, and the summaries again, until one call writes the last summary.

    `texts` are what to summarize next, in order; whoever can generate hands their summaries to `take`, until there are
    no more texts and `text` is the summary. A document that fits is one text, and one call.
    """

    def __init__(self, document: str, room: Room) -> None:
        """Raises ProviderError (code "input_too_long", failure "final") when no part of it can be made to fit."""
        self._room = room
        self._used = room.count(document)
        self.level = 0
        self.text: str | None = None
        self.texts: list[str] = []
        self._plan(document)

    @property
    def is_last(self) -> bool:
        """Whether the texts of now are one, whose summary is that of the document."""
        return len(self.texts) == 1

    def take(self, summaries: Sequence[str]) -> None:
        """The summaries of `texts`, in their order.

        Raises ProviderError (code "cannot_reduce", failure "final") when the summaries are no shorter than what they
        summarize, or too long for the model after four levels.
        """
        if len(summaries) != len(self.texts):
            raise ValueError(f"{len(summaries)} summaries for {len(self.texts)} texts")
        if self.is_last:
            self.text, self.texts = summaries[0], []
            return
        joined = "\n".join(summaries)
        used, before, parts = self._room.count(joined), self._used, len(self.texts)
        if used >= before:
            raise _cannot_reduce(
                f"the summaries of its {parts} parts take {used:,} tokens, no fewer than the {before:,} they summarize"
            )
        self._used = used
        self._plan(joined)

    def _plan(self, text: str) -> None:
        if self._used <= self._room.limit:
            self.texts = [text]
            return
        if self.level == MOST_LEVELS:
            raise _cannot_reduce(f"after {MOST_LEVELS} levels of summaries {self._used:,} tokens are left")
        self.level += 1
        self.texts = divide(text, self._room) or []
        if not self.texts:
            raise no_room(self._room)


def _cannot_reduce(why: str) -> ProviderError:
    message = f"the document cannot be summarized in parts: {why}; lower max_new_tokens or take a larger window"
    return ProviderError(message, code="cannot_reduce", failure="final")


def no_room(room: Room) -> ProviderError:
    """The error of a window that the prompt fills."""
    message = (
        f"the prompt leaves {room.tokens} of {room.limit} tokens for the document: shorten the prompt or lower "
        "max_new_tokens"
    )
    return ProviderError(message, code="input_too_long", failure="final")


def most_of_all_calls(request: Request, spec: Spec) -> tuple[int, int, int]:
    """(calls, bytes sent, tokens written) that one document can take at most with this spec's network model.

    Every level sends no more bytes of text than the document has, since the summaries must get shorter, and each of
    its parts, but for the last, fills three quarters of the room.
    """
    sent = request.source if request.prompt is None else request.prompt
    length = len(sent.encode("utf-8", "surrogatepass"))
    written = _most_written(spec)
    if spec.get("long_documents") != MAP_REDUCE or problems(spec, "network"):
        return 1, length, written
    limit = _estimated_limit(spec)
    if estimated_tokens(sent) <= limit:
        return 1, length, written
    around_it = length - len(request.source.encode("utf-8", "surrogatepass"))
    room = max(LEAST_ROOM, limit - -(-around_it // BYTES_PER_TOKEN))
    calls = MOST_LEVELS * (math.ceil(4 * estimated_tokens(sent) / (3 * room)) + 1) + 1
    return calls, (MOST_LEVELS + 1) * length + calls * around_it, calls * written


def most_of_all_documents(documents: int, length: int, around_it: int, spec: Spec) -> tuple[int, int, int]:
    """(calls, bytes sent, tokens written) that so many documents of `length` bytes together can take at most, with
    `around_it` bytes of prompt in each call: the bound of `most_of_all_calls`, for who knows only the sums."""
    written = _most_written(spec)
    if spec.get("long_documents") != MAP_REDUCE or problems(spec, "network"):
        return documents, length + documents * around_it, documents * written
    room = max(LEAST_ROOM, _estimated_limit(spec) - -(-around_it // BYTES_PER_TOKEN))
    parts = math.ceil(4 * length / (3 * room * BYTES_PER_TOKEN))
    calls = documents * (2 * MOST_LEVELS + 1) + MOST_LEVELS * parts
    return calls, (MOST_LEVELS + 1) * length + calls * around_it, calls * written


# --- The session ------------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """One request on its way: what is asked next, and what its calls have answered so far. `whole` and `cut` are the
    tokens of the input with the whole document and with what is read of it, where one call reads it."""

    request: Request
    around: list[str] | None
    texts: list[str]
    plan: MapReduce | None = None
    whole: int = 1
    cut: int = 1
    is_done: bool = False
    answers: dict[int, Output] = field(default_factory=dict)
    spent: list[Output] = field(default_factory=list)

    def with_text(self, text: str, key: int) -> Request:
        """The request for another text than its document; itself where its prompt does not hold the document."""
        if self.around is not None:
            return replace(self.request, key=key, source=text, prompt=text.join(self.around))
        return replace(self.request, key=key, source=self.request.source if self.request.prompt else text)

    def answer(self, position: int, output: Output) -> Output | None:
        """Keep the answer to one text. The output of the request, when it was the last one."""
        self.answers[position] = output
        if len(self.answers) < len(self.texts):
            return None
        answers = [self.answers.pop(place) for place in range(len(self.texts))]
        self.spent += answers
        ended = self._read_once(output) if self.plan is None else self._go_on(self.plan, answers)
        self.is_done = ended is not None
        return ended

    def _read_once(self, output: Output) -> Output:
        read = output.input_tokens_read
        if read is not None and self.cut != self.whole:
            output = replace(output, input_tokens=max(read, round(read * self.whole / self.cut)))
        return replace(output, key=self.request.key)

    def _go_on(self, plan: MapReduce, answers: Sequence[Output]) -> Output | None:
        for place, each in enumerate(answers):
            if each.status != "ok":
                where = "" if plan.is_last else f"part {place + 1} of {len(answers)}: "
                return self._ended(each, error=f"{where}{each.error}")
        try:
            plan.take([each.text for each in answers])
        except ProviderError as error:
            return self._ended(answers[-1], status="error", error_code=error.code, error=str(error), text="")
        self.texts = plan.texts
        return None if self.texts else self._ended(answers[-1])

    def _ended(self, last: Output, **changed: Any) -> Output:
        """The last answer with the tokens and the time of all; what one call did not count is known of none."""
        for name in ("input_tokens", "input_tokens_read", "cached_tokens", "output_tokens", "latency_ms"):
            counts = [getattr(each, name) for each in self.spent]
            changed[name] = None if None in counts else sum(counts)
        return replace(last, key=self.request.key, **changed)


class Shortening:
    """A session that reads long documents in its own way, and asks another session for the texts.

    `starting` is called with the keys of each batch before it runs, as the session within announces it, or else before
    each round. With `is_billed`, an error after answered calls says that they may be billed (failure "unknown").
    """

    def __init__(self, session: Measured, strategy: str, *, is_billed: bool = False) -> None:
        self._session = session
        self._strategy = strategy
        self._is_billed = is_billed
        self.starting: Callable[[list[int]], None] = lambda keys: None

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Output]]:
        """Yield each output as soon as its last call is answered. All texts of all requests that can be asked now are
        asked together, so that they share batches."""
        made = [self._job(request) for request in requests]
        if refused := [each for each in made if isinstance(each, Output)]:
            yield refused
        waiting = [each for each in made if isinstance(each, _Job)]
        while waiting:
            yield from self._round(waiting)
            waiting = [job for job in waiting if not job.is_done]

    def describe(self) -> dict[str, Any]:
        return {**self._session.describe(), "long_documents": self._strategy}

    def close(self) -> None:
        self._session.close()

    def _job(self, request: Request) -> _Job | Output:
        if len(request.source) > LONGEST_DOCUMENT:
            return _refused(request, "input_too_long", f"the document has over {LONGEST_DOCUMENT:,} characters")
        parts = around(request.prompt, request.source) if request.prompt else None
        job = _Job(request, parts, [request.source])
        job.whole = job.cut = self._session.count(request)
        is_fixed = bool(request.prompt) and parts is None
        if job.whole <= self._session.limit or is_fixed:
            return job
        room = Room(lambda text: self._session.count(job.with_text(text, request.key)), self._session.limit)
        try:
            self._shorten(job, room)
        except ProviderError as error:
            return _refused(request, error.code, str(error))
        return job

    def _shorten(self, job: _Job, room: Room) -> None:
        """Raises ProviderError (failure "final") when the document cannot be made to fit."""
        if room.tokens < LEAST_ROOM:
            raise no_room(room)
        if self._strategy == MAP_REDUCE:
            job.plan = MapReduce(job.request.source, room)
            job.texts = job.plan.texts
            return
        cut = _CUTS[self._strategy](job.request.source, room)
        if cut is None:
            raise no_room(room)
        job.texts, job.cut = [cut], max(1, room.count(cut))

    def _round(self, jobs: Sequence[_Job]) -> Iterator[list[Output]]:
        """Ask every text that waits, and yield the outputs of the requests that end."""
        asked = [(job, place) for job in jobs for place in range(len(job.texts))]
        requests = [job.with_text(job.texts[place], key) for key, (job, place) in enumerate(asked)]
        self._announce(asked)
        answered = 0
        try:
            for outputs in self._session.generate(requests):
                answered += len(outputs)
                ended = [asked[each.key][0].answer(asked[each.key][1], each) for each in outputs]
                if done := [output for output in ended if output is not None]:
                    yield done
        except ProviderError as error:
            if self._is_billed and error.failure != "unknown" and any(job.spent or job.answers for job in jobs):
                message, code, wait = (
                    f"{error}; earlier parts of the document are billed",
                    error.code,
                    error.retry_after,
                )
                raise ProviderError(message, code=code, failure="unknown", retry_after=wait) from None
            raise
        if answered != len(asked):
            raise ProviderError(
                f"the model gave {answered} outputs for {len(asked)} texts", code="provider_bug", failure="final"
            )

    def _announce(self, asked: Sequence[tuple[_Job, int]]) -> None:
        def starting(keys: list[int]) -> None:
            self.starting(list(dict.fromkeys(asked[key][0].request.key for key in keys)))

        within: Any = self._session
        if hasattr(within, "starting"):
            within.starting = starting
        else:
            starting(list(range(len(asked))))


def _refused(request: Request, code: str, message: str) -> Output:
    return Output(request.key, "error", error_code=code, error=message)

"""Completing answers one text online: for the playground, for scripts, for tools that speak OpenAI's protocol.

A request writes a row and rings; a worker that has the model open takes it at once, others give that one a moment's
precedence; the request waits for the row. Models stay warm between requests, and an experiment that runs on the same
worker lets a request through between two batches.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError
from django.db import connection as database
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from datasets_app.models import Example
from evaluations import prompting, tasks
from evaluations.billing import at_most, bill_of_error, bill_of_output, worst_case_micro
from evaluations.calling import leaves, refuse_by_policy_of
from evaluations.models import Call, Candidate, Completion, Generation, Worker
from evaluations.planning import DEFAULT_NEW_TOKENS, Refused
from evaluations.warming import WarmModels, key_of
from lumigator import doorbell
from lumigator.models import Team
from models_registry import choosing
from models_registry.hosting import HostCancelled
from models_registry.models import ModelEntry
from models_registry.providers import Output, ProviderError, Request

log = logging.getLogger(__name__)
LONGEST_TEXT = 400_000
"""Characters of a text or of a whole conversation."""
SIDE_BY_SIDE = 6
PRECEDENCE_SECONDS = 0.7
"""So long a worker that has the model open is waited for."""
MOST_BELLS = 16
GIVEN_UP = timedelta(minutes=10)
"""Nobody waits longer for an answer that no worker took up."""
TRIES = 2
SWEPT = 1000
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Wish:
    """What is asked of one model: a text to summarize (its task's prompt is put around it), an example of a dataset,
    or a conversation of {role, content} messages, exactly one of them. `generation` overrides the entry's."""

    text: str = ""
    messages: Sequence[Mapping[str, str]] = ()
    example: Example | None = None
    prompt: str = ""
    generation: Mapping[str, Any] | None = None
    seed: int = 0


def ask(team: Team, user: User | None, model: str, wish: Wish, *, batch: uuid.UUID | None = None) -> Completion:
    """Put the request into the table and ring. Raises Refused naming every wrong field."""
    errors = _problems(wish)
    entry = None
    try:
        entry = choosing.resolve(team, model)
    except ProviderError as exc:
        errors["model"] = [str(exc)]
    if entry is not None and (wrong := _model_problems(entry, wish)):
        errors["model"] = wrong
    if entry is None or errors:
        raise Refused(errors)
    prompt = "" if wish.messages else wish.prompt or tasks.available()["summarization"].prompt
    spec = choosing.freeze(entry, prompt=prompt, generation=dict(wish.generation or {}))
    if entry.privacy != ModelEntry.Privacy.LOCAL:
        spec["generation"].setdefault("max_new_tokens", DEFAULT_NEW_TOKENS)
    if wrong := entry.provider.problems(choosing.locate(spec)):
        raise Refused({"generation": wrong})
    chosen = choosing.connection_for(team, entry)
    asked = Completion.objects.create(
        team=team,
        created_by=user,
        batch=batch or uuid.uuid4(),
        model=entry if entry.pk else None,
        connection=chosen,
        example=wish.example,
        label=entry.slug[:160],
        provider=entry.provider.name,
        queue=entry.provider.queue,
        spec=spec,
        model_key=key_of(entry.provider.name, spec, chosen),
        source=wish.example.source if wish.example else wish.text,
        messages=[{"role": each["role"], "content": each["content"]} for each in wish.messages],
        seed=wish.seed,
    )
    # Each of them must hear it, for the one that has the model open is to take it: a worker that is at one bell has
    # fetched the next one already, hence two for each.
    listening = Worker.objects.alive().filter(queues__contains=[asked.queue]).count()
    doorbell.ring("complete", asked.queue, asked.queue, times=max(1, min(2 * listening, MOST_BELLS)))
    return asked


def _problems(wish: Wish) -> dict[str, list[str]]:
    errors: dict[str, list[str]] = {}
    given = [bool(wish.text.strip()), bool(wish.messages), wish.example is not None]
    if sum(given) != 1:
        errors["text"] = ["give exactly one of text, messages and example"]
    text = wish.example.source if wish.example else wish.text
    length = len(text) + sum(len(str(each.get("content", ""))) for each in wish.messages)
    if length > LONGEST_TEXT:
        errors["text"] = [f"it has {length:,} characters; at most {LONGEST_TEXT:,} are taken: make it an experiment"]
    for position, each in enumerate(wish.messages):
        if each.get("role") not in ROLES or not isinstance(each.get("content"), str):
            errors["messages"] = [
                f"message {position + 1} needs a role ({', '.join(ROLES)}) and a content that is a text"
            ]
    if wish.messages and "messages" not in errors and wish.messages[-1]["role"] != "user":
        errors["messages"] = ["the last message must be the user's"]
    if wish.prompt and wish.messages:
        errors["prompt"] = ["a conversation is sent as it is: leave the prompt out"]
    elif wish.prompt and (wrong := prompting.problems_of(wish.prompt, {})):
        errors["prompt"] = wrong
    return errors


def _model_problems(entry: ModelEntry, wish: Wish) -> list[str]:
    found = []
    if why := choosing.why_not(entry):
        found.append(f"{entry.slug}: {why}")
    if entry.provider.uses_references:
        found.append(f"{entry.slug} reads reference summaries: it has a place in experiments only")
    if entry.architecture == ModelEntry.Architecture.IMPORTED:
        found.append(f"{entry.slug} stands for outputs made elsewhere: there is nothing to ask")
    if wish.example and entry.privacy != ModelEntry.Privacy.LOCAL and not wish.example.dataset.may_leave:
        found.append(f"{entry.slug} would send the document away, but its dataset is marked as never leaving")
    if len(wish.messages) > 1 and not choosing.reads_prompt(entry):
        found.append(f"{entry.slug} is a summarizer and holds no conversation: send one message, the document")
    return found


def wait(completion: Completion, seconds: float) -> Completion:
    """The row as it is when it has ended, or when that many seconds are over."""
    until = time.monotonic() + seconds
    pause = 0.02
    while True:
        completion.refresh_from_db()
        if completion.has_ended or time.monotonic() >= until:
            return completion
        time.sleep(min(pause, max(until - time.monotonic(), 0.0)))
        pause = min(pause * 1.3, 0.25)


# --- the worker's side ----------------------------------------------------------------------------------------------

TAKE = """
UPDATE evaluations_completion SET state = 'running', owner = %(owner)s, attempts = attempts + 1,
    begun_at = clock_timestamp()
WHERE id = (
    SELECT id FROM evaluations_completion
    WHERE state = 'asked' AND queue = ANY(%(queues)s)
      AND (model_key = ANY(%(open)s) OR queue <> 'gpu'
           OR asked_at < clock_timestamp() - %(precedence)s * interval '1 second')
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING id
"""


def are_asked(queues: Sequence[str]) -> bool:
    """Whether a request waits for a worker of these queues."""
    return Completion.objects.filter(state=Completion.State.ASKED, queue__in=queues).exists()


def complete(
    owner: str, queues: Sequence[str], models: WarmModels, stopping: Callable[[], bool], seconds: float = math.inf
) -> None:
    """Answer what is asked until nothing is, `stopping` says so, or `seconds` are over: other work waits, too."""
    until = time.monotonic() + seconds
    while not stopping() and time.monotonic() < until:
        pk = _take(owner, queues, models)
        if pk is not None:
            _answer(_rows().get(pk=pk), models, stopping)
        elif are_asked(queues):
            time.sleep(0.05)  # another worker may have the model open
        else:
            return


def _rows() -> QuerySet[Completion]:
    return Completion.objects.select_related("connection", "team", "example__dataset")


def _take(owner: str, queues: Sequence[str], models: WarmModels) -> int | None:
    values: dict[str, Any] = {
        "owner": owner,
        "queues": list(queues),
        "open": models.keys(),
        "precedence": PRECEDENCE_SECONDS,
    }
    with database.cursor() as cursor:
        cursor.execute(TAKE, values)
        row = cursor.fetchone()
    return row[0] if row else None


def _answer(asked: Completion, models: WarmModels, stopping: Callable[[], bool]) -> None:
    candidate = Candidate(
        provider=asked.provider, connection=asked.connection, spec=asked.spec, label=asked.label, queue=asked.queue
    )
    request = _request(asked)
    call = Call(candidate=candidate)
    was_called = False
    try:
        _refuse_by_policy(asked, candidate)
        model = models.get(candidate, stopping)
        if model.is_network:
            call.reserved_micro = worst_case_micro(candidate, request) or 0
            Completion.objects.filter(pk=asked.pk).update(reserved_micro=call.reserved_micro)
            was_called = True
            output = model.call_alone(request, stopping)
        else:
            # To its end: a host whose outputs are left half-way is killed, and would be loaded again.
            made = [*model.generate([request], starting=lambda keys: None, cancelled=stopping)]
            output = made[0][0]
        cost = bill_of_output(call, output).cost if model.is_network else 0
    except HostCancelled:
        _give_back(asked)
    except ProviderError as exc:
        if stopping() and exc.code == "unavailable":
            _give_back(asked)
            return
        failed = Output(request.key, "error", error_code=exc.code, error=str(exc))
        _end(asked, failed, bill_of_error(call, exc).cost if was_called else 0)
    except (OperationalError, InterfaceError):
        raise  # the sweep finds it
    except Exception as exc:
        # The name only: what an SDK raises may quote the document or the key.
        log.error("completion %s: %s", asked.pk, type(exc).__name__)
        failed = Output(request.key, "error", error_code="internal", error=f"internal error: {type(exc).__name__}")
        _end(asked, failed, at_most(call, "internal").cost if was_called else 0)
    else:
        _end(asked, output, cost)


def _refuse_by_policy(asked: Completion, candidate: Candidate) -> None:
    """What `ask` refuses is refused again, by the rows as they are now (SECURITY S12). Raises ProviderError."""
    if asked.example is not None and not asked.example.dataset.may_leave and leaves(candidate):
        raise ProviderError(
            f"{asked.label}: it would send the document away, but its dataset is marked as never leaving",
            code="privacy",
            failure="stop",
        )
    refuse_by_policy_of(candidate, asked.team_id)


def _give_back(asked: Completion) -> None:
    """The worker stops before it could answer: another one does."""
    mine = Completion.objects.filter(pk=asked.pk, state=Completion.State.RUNNING, owner=asked.owner)
    mine.update(state=Completion.State.ASKED, owner="", attempts=F("attempts") - 1)


def _request(asked: Completion) -> Request:
    template = asked.spec.get("prompt") or ""
    if not asked.messages:
        prompt = tasks.render(template, asked.source) if template else None
        return Request(key=asked.pk, source=asked.source, prompt=prompt, seed=asked.seed)
    last = asked.messages[-1]["content"]
    return Request(key=asked.pk, source=last, seed=asked.seed, messages=tuple(asked.messages))


def _end(asked: Completion, output: Output, cost: int | None) -> None:
    """Write the answer and what it cost, in micro-dollars (None: unpriced)."""
    row = Generation.of(Candidate(), output)
    told = {
        name: getattr(row, name)
        for name in (
            "text", "reasoning", "error_code", "error", "finish_reason", "input_tokens", "input_tokens_read",
            "cached_tokens", "output_tokens", "latency_ms",
        )
    }  # fmt: skip
    Completion.objects.filter(pk=asked.pk, state=Completion.State.RUNNING, owner=asked.owner).update(
        state=Completion.State.FAILED if output.status == "error" else Completion.State.DONE,
        status=output.status,
        cost_micro=cost,
        done_at=Now(),
        **told,
    )


def mend() -> None:
    """Part of a sweep: what a vanished worker held is asked again, or given up; so is what takes longer than anything
    may; and ended requests are deleted with their texts after COMPLETION_DAYS."""
    alive = Worker.objects.alive().values_list("name", flat=True)
    running = Completion.objects.filter(state=Completion.State.RUNNING)
    lost = running.exclude(owner__in=list(alive))
    gone = {"state": Completion.State.FAILED, "status": "error", "error_code": "worker_gone", "done_at": Now()}
    for held, words in ((lost, "The worker that made the call vanished"), (_stuck(running), "The call never ended")):
        held.filter(queue="api").update(
            **gone, cost_micro=F("reserved_micro"), error=f"{words}; it may have been billed."
        )
    lost.filter(attempts__gte=TRIES).update(**gone, error="The worker vanished twice over this request.")
    lost.update(state=Completion.State.ASKED, owner="")
    _stuck(running).update(**gone, error="It was worked on for longer than anything may take.")
    late = Completion.objects.filter(state=Completion.State.ASKED, asked_at__lt=Now() - GIVEN_UP)
    late.update(
        **{**gone, "error_code": "no_worker"},
        error="No worker took it up in time: they are busy, or none runs for this kind of model.",
    )
    ended = Completion.objects.filter(done_at__lt=Now() - timedelta(days=settings.COMPLETION_DAYS))
    ended.filter(pk__in=ended.values("pk")[:SWEPT]).delete()


def _stuck(running: QuerySet[Completion]) -> QuerySet[Completion]:
    """A worker may be alive, and its thread not."""
    longest = timedelta(seconds=settings.HANG_SECONDS) + GIVEN_UP
    return running.filter(begun_at__lt=Now() - longest)


def take_back(asked: Sequence[Completion]) -> None:
    """Take away requests that no worker has begun, since others of their batch cannot be asked."""
    Completion.objects.filter(pk__in=[each.pk for each in asked], state=Completion.State.ASKED).delete()

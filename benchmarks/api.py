"""Calls to a chat API through the whole engine: claims, budget, ledger and outcomes committed as they come.

The server is ours, in a process of its own: it takes 200 ms for an answer and refuses with 429 what is above its rate.
Peers: a loop that asks one after the other with the same SDK, and the rate that the server allows. A rate is that of
the answers after the first fifth, so that neither the server's saved-up second nor the search for an unknown limit
flatters or hides what is kept. `equal` says that no call was lost: every document has its answer, and every call that
the server saw has its line in the ledger.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.reporting import Row, run

LATENCY_MS = 200
ALLOWED = 100
"""Calls a second."""
THREADS = 4
"""What a worker of the queue api has."""
TOKENS = 40


@contextmanager
def server(folder: Path, *, rate: int | None = None) -> Iterator[tuple[str, Path]]:
    """(its address up to /v1, the file where it logs each call)"""
    log = folder / f"calls-{time.monotonic_ns()}.jsonl"
    command = [sys.executable, "-m", "models_registry.testing_api", "--port", "0", "--latency-ms", str(LATENCY_MS)]
    command += ["--log", str(log), *(["--rate", str(rate)] if rate else [])]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield child.stdout.readline().strip(), log
    finally:
        child.terminate()
        child.wait()


def sequential(address: str, count: int) -> float:
    """Calls a second of a loop with the SDK."""
    import openai

    with openai.OpenAI(api_key="sk-benchmark", base_url=address, max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "Summarize.\n\nBoat 1 left port. It came back."}]
        client.chat.completions.create(model="first-sentence", messages=messages)
        began = time.perf_counter()
        for _ in range(count):
            client.chat.completions.create(model="first-sentence", messages=messages, max_completion_tokens=TOKENS)
        return count / (time.perf_counter() - began)


def ours(address: str, log: Path, documents: int, **limits: int) -> tuple[float, bool, str]:
    """(answers a second, whether nothing was lost, what else to know)"""
    from django.conf import settings
    from django.db import connection as database

    from evaluations import steering
    from evaluations.models import Call, Experiment, Generation
    from evaluations.working import WorkerProcess
    from lumigator.doorbell import QUEUES

    settings.EGRESS_ALLOW = [address.partition("://")[2].partition("/")[0]]
    experiment = _experiment(address, documents, limits)
    worker = WorkerProcess(QUEUES)
    assert steering.start(experiment)
    worker.plan(experiment.pk)
    candidate = experiment.candidates.get().pk

    def advance() -> None:
        try:
            while Experiment.objects.get(pk=experiment.pk).state == "running" and _open_units(candidate):
                worker.advance(candidate)
                time.sleep(0.02)
        finally:
            database.close()

    threads = [threading.Thread(target=advance) for _ in range(THREADS)]
    used = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = (time.process_time() - used) * 1000 / documents
    worker.models.close()
    calls = Call.objects.filter(candidate=candidate)
    times = calls.filter(outcome="ok").order_by("ended_at").values_list("ended_at", flat=True)
    ended = [at for at in times if at is not None]
    first = len(ended) // 5
    rate = (len(ended) - 1 - first) / (ended[-1] - ended[first]).total_seconds()
    answered = Generation.objects.filter(candidate=candidate, status="ok").count()
    seen = sum(1 for line in log.open() if "chat/completions" in line)
    refused = calls.filter(outcome="rate_limited").count()
    whole = answered == documents and seen == calls.count() and not calls.filter(state="reserved").exists()
    note = f"{documents} documents, {refused} refused and asked again, {documents - answered} lost"
    return rate, whole, f"{note}, {used:.1f} ms of CPU a call"


def _open_units(candidate: int) -> bool:
    from evaluations.models import WorkUnit

    return WorkUnit.objects.filter(candidate=candidate, kind="generate", state__in=("ready", "leased")).exists()


def _experiment(address: str, documents: int, limits: dict[str, int]) -> Any:
    from datasets_app.models import Dataset, Example
    from evaluations import planning
    from lumigator.models import Team
    from models_registry.models import Connection, ModelEntry

    name = f"run-{time.monotonic_ns()}"
    team = Team.objects.create(name=name, slug=name)
    connection = Connection(team=team, name="main", provider="openai", base_url=address, **limits)
    connection.set_key("sk-benchmark-0123456789")
    connection.save()
    model = ModelEntry.objects.create(
        team=team, slug="model", name="model", uri="openai://first-sentence", architecture="causal",
        privacy="external", generation={"max_new_tokens": TOKENS}, price_in=1, price_out=2,
    )  # fmt: skip
    dataset = Dataset.objects.create(team=team, name=name, sha256="0" * 64)
    texts = [f"Boat {number} left port {number % 7} with salt. Nobody saw it return." for number in range(documents)]
    Example.objects.bulk_create(
        Example(dataset=dataset, index=index, source=text, references=[]) for index, text in enumerate(texts)
    )
    dataset.n_examples, dataset.state = documents, "ready"
    dataset.save()
    asked = {"name": name, "dataset": dataset, "models": [model.slug], "metrics": ["rouge"], "budget_usd": 100}
    return planning.create(team=team, user=None, data=asked)


@contextmanager
def household() -> Iterator[Path]:
    """Embedded services of our own in a temporary folder, with an empty, migrated database."""
    from lumigator import embedded

    with tempfile.TemporaryDirectory(prefix="lumigator-bench-") as folder:
        os.chmod(folder, 0o755)  # PostgreSQL's account must be able to enter it
        os.environ.update(LUMIGATOR_HOME=folder, DJANGO_SETTINGS_MODULE="lumigator.settings", LOG_LEVEL="ERROR")
        with embedded.attach():
            import django
            from django.core.management import call_command
            from django.db import connections

            django.setup()
            call_command("migrate", verbosity=0)
            yield Path(folder)
            connections.close_all()


def measure(quick: bool) -> Iterator[Row]:
    documents = 800 if quick else 3000
    with household() as folder:
        with server(folder) as (address, _):
            theirs = sequential(address, 10 if quick else 30)
        with server(folder) as (address, log):
            rate, whole, note = ours(address, log, documents, concurrency=32)
        yield Row(
            "32 connections, no limit", "one call after the other", rate, theirs, "calls/s", 0.9 * 32, whole, True, note
        )
        known = {"requests_per_minute": ALLOWED * 60}
        for work, limits in (("limit known", known), ("limit not known", {})):
            with server(folder, rate=ALLOWED) as (address, log):
                rate, whole, note = ours(address, log, documents, concurrency=64, **limits)
            yield Row(work, f"the {ALLOWED} calls/s allowed", rate, ALLOWED, "calls/s", 0.95, whole, True, note)


if __name__ == "__main__":
    run("api", measure)

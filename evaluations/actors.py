"""The doorbells: each actor says what may have work, and the worker process that hears it does that work.

Messages carry ids, never data; a message that is lost, doubled, late or nonsense changes nothing but latency. Only
worker processes import this module: bells are rung by name (`announcing`).
"""

from __future__ import annotations

import dramatiq

from evaluations.working import current
from lumigator import doorbell


@dramatiq.actor(queue_name="cpu", broker=doorbell.broker)
def plan(experiment_id: int) -> None:
    current().plan(experiment_id)


@dramatiq.actor(queue_name="gpu", broker=doorbell.broker)
def advance(candidate_id: int) -> None:
    current().advance(candidate_id)


@dramatiq.actor(queue_name="cpu", broker=doorbell.broker)
def score(experiment_id: int, metric: str) -> None:
    current().score(experiment_id, metric)


@dramatiq.actor(queue_name="gpu", broker=doorbell.broker)
def complete(queue: str) -> None:
    current().complete(queue)


@dramatiq.actor(queue_name="cpu", broker=doorbell.broker)
def import_dataset(dataset_id: int) -> None:
    current().import_dataset(dataset_id)


@dramatiq.actor(queue_name="cpu", broker=doorbell.broker)
def selfcheck() -> None:
    current().selfcheck()


@dramatiq.actor(queue_name="gpu", broker=doorbell.broker)
def check(check_id: int) -> None:
    current().check(check_id)


@dramatiq.actor(queue_name="cpu", broker=doorbell.broker)
def finalize(experiment_id: int) -> None:
    current().finalize(experiment_id)

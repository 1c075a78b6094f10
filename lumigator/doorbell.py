"""The broker, and how a bell is rung. A message says only what may have work; the truth is in Postgres.

Losing, doubling or reordering messages changes latency, nothing else, so sending may fail silently.
"""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
from django.conf import settings
from django.db import close_old_connections, transaction
from dramatiq.brokers.redis import RedisBroker
from redis import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)
QUEUES = ("gpu", "api", "cpu")


class DatabaseConnections(dramatiq.Middleware):
    """Django checks connections at the end of a request; a worker has no requests, so check around each message."""

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        close_old_connections()

    def after_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy, **_: Any) -> None:
        close_old_connections()


# No Retries, no TimeLimit, no AgeLimit: rows decide what is tried again. Heartbeat and maintenance only matter as a
# second net; the default maintenance chance redelivered a killed worker's message after 17 minutes.
broker = RedisBroker(  # type: ignore[no-untyped-call]
    client=Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2, socket_timeout=10),
    middleware=[DatabaseConnections()],
    heartbeat_timeout=30_000,
    maintenance_chance=100_000,
)
for name in QUEUES:
    broker.declare_queue(name)
dramatiq.set_broker(broker)


def ring(actor: str, queue: str, *args: int | str, times: int = 1) -> None:
    """Tell the workers of `queue`, once this transaction is committed, that `actor` may have work for `args`."""
    transaction.on_commit(lambda: send(actor, queue, *args, times=times))


def send(actor: str, queue: str, *args: int | str, times: int = 1) -> bool:
    """Send now; False (and one line in the log) when Redis cannot be reached: workers poll Postgres anyway."""
    try:
        for _ in range(times):
            broker.enqueue(dramatiq.Message(queue_name=queue, actor_name=actor, args=args, kwargs={}, options={}))
    except (RedisError, dramatiq.errors.ConnectionError) as exc:
        log.warning("the doorbell did not ring (%s); workers will find the work by polling", exc.__class__.__name__)
        return False
    return True

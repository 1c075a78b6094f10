"""Limiting shares what a provider allows a connection among all workers: a token bucket in Postgres, one row each.

The row (`Allowance`) is filled by the database's clock at the rates of the connection, and calls that begin together
take their part in one statement, so that any number of processes keep the rate, whatever becomes of Redis or of one of
them. A call may be begun while any tokens are left and owes what it takes beyond: what it takes is known only
afterwards, and a call that is larger than the bucket must still be made. A pause that the provider asked one worker
for (Retry-After) holds for all of them.

Token bucket: RFC 2697 §3 (there in bytes).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from django.db import connection as database

from models_registry.models import Connection

BURST_SECONDS = 0.5
"""How much of its rate a connection may save up while it is idle. Providers count by the second or smoother: more
would be refused, and less would be lost between two looks."""
PAUSE_SECONDS = 0.04
"""A connection that is at its rate is asked again after so long at the soonest, so that several calls are let in
together: what is saved up meanwhile is not lost."""
LOOK_SECONDS = 0.25
"""A connection without known rates is asked this often whether another worker was told to pause."""
BYTES_PER_TOKEN = 4
"""Before a call its tokens are guessed: English has four bytes to a token."""

OPEN = """
INSERT INTO registry_allowance (connection_id, requests, tokens, filled_at)
VALUES (%(id)s, %(room)s, %(token_room)s, clock_timestamp()) ON CONFLICT (connection_id) DO NOTHING
"""
TAKE = """
WITH had AS (
    SELECT
        least(%(room)s, requests + %(rate)s * since) AS requests,
        least(%(token_room)s, tokens + %(token_rate)s * since) AS tokens, at
    FROM (
        SELECT *, extract(epoch FROM at - filled_at)::float8 AS since FROM (
            SELECT *, clock_timestamp() AS at FROM registry_allowance WHERE connection_id = %(id)s FOR NO KEY UPDATE
        ) _
    ) _
    WHERE not_before IS NULL OR not_before <= at
), let_in AS (
    SELECT count(*) AS calls, coalesce(sum(wish.tokens), 0) AS tokens
    FROM had, unnest(%(tokens)s::bigint[], %(before)s::bigint[]) WITH ORDINALITY AS wish (tokens, before, place)
    WHERE (%(rate)s = 0 OR had.requests >= wish.place) AND (%(token_rate)s = 0 OR had.tokens > wish.before)
)
UPDATE registry_allowance SET
    requests = had.requests - let_in.calls * %(one)s, tokens = had.tokens - let_in.tokens * %(one_token)s,
    filled_at = had.at
FROM had, let_in WHERE connection_id = %(id)s
RETURNING let_in.calls
"""
"""Those of the calls, from the first, for which there is a request, and any token beside those taken before it."""
WAIT = """
SELECT greatest(
    0,
    extract(epoch FROM not_before - clock_timestamp())::float8,
    CASE WHEN %(rate)s > 0 THEN (1 - requests) / %(rate)s - {since} END,
    CASE WHEN %(token_rate)s > 0 THEN -tokens / %(token_rate)s - {since} END
) FROM registry_allowance WHERE connection_id = %(id)s
""".format(since="extract(epoch FROM clock_timestamp() - filled_at)::float8")
PAUSE = """
INSERT INTO registry_allowance AS had (connection_id, requests, tokens, filled_at, not_before)
VALUES (%(id)s, 0, 0, clock_timestamp(), clock_timestamp() + %(seconds)s * interval '1 second')
ON CONFLICT (connection_id) DO UPDATE SET not_before = greatest(had.not_before, EXCLUDED.not_before)
"""
GIVE_BACK = """
UPDATE registry_allowance SET requests = requests + %(calls)s, tokens = tokens + %(tokens)s
WHERE connection_id = %(id)s
"""


class Limits:
    """What one connection may do, for the threads of one worker. Rates are per minute; None: not known."""

    def __init__(self, connection: Connection) -> None:
        self._id = connection.pk
        self._rate = (connection.requests_per_minute or 0) / 60
        self._token_rate = (connection.tokens_per_minute or 0) / 60
        self._look_at = float("-inf")
        self._is_open = False
        self._lock = threading.Lock()

    @property
    def are_known(self) -> bool:
        return bool(self._rate or self._token_rate)

    def take(self, tokens: Sequence[int]) -> tuple[int, float]:
        """Take a request, and so many tokens, for each of these calls: how many of them, from the first, may be made
        now, and in how many seconds to ask again for the others (0.0: there are none)."""
        if not self.are_known:
            pause = self._look_for_a_pause()
            return (len(tokens), 0.0) if pause is None else (0, pause)
        values = self._values(tokens)
        with database.cursor() as cursor:
            cursor.execute(TAKE, values)
            row = cursor.fetchone()
            if row is None and not self._is_open:
                self._is_open = True
                cursor.execute(OPEN, values)
                cursor.execute(TAKE, values)
                row = cursor.fetchone()
        let_in = int(row[0]) if row else 0
        return let_in, 0.0 if let_in == len(tokens) else max(PAUSE_SECONDS, self._wait(values))

    def give_back(self, calls: int, tokens: int) -> None:
        """Calls were not made, or took so many tokens less than was guessed (more, where it is negative)."""
        values = {"id": self._id, "calls": calls if self._rate else 0, "tokens": tokens if self._token_rate else 0}
        if values["calls"] or values["tokens"]:
            with database.cursor() as cursor:
                cursor.execute(GIVE_BACK, values)

    def pause(self, seconds: float) -> None:
        """The provider asked for a pause: nobody begins a call over this connection until it is over."""
        with database.cursor() as cursor:
            cursor.execute(PAUSE, {"id": self._id, "seconds": seconds})

    def _look_for_a_pause(self) -> float | None:
        with self._lock:
            if time.monotonic() < self._look_at:
                return None
            self._look_at = time.monotonic() + LOOK_SECONDS
        pause = self._wait(self._values([]))
        if pause > 0:
            with self._lock:
                self._look_at = float("-inf")
            return pause
        return None

    def _wait(self, values: dict[str, Any]) -> float:
        with database.cursor() as cursor:
            cursor.execute(WAIT, values)
            row = cursor.fetchone()
        return float(row[0]) if row else 0.0

    def _values(self, tokens: Sequence[int]) -> dict[str, Any]:
        return {
            "id": self._id,
            "rate": self._rate,
            "token_rate": self._token_rate,
            "one": 1 if self._rate else 0,
            "one_token": 1 if self._token_rate else 0,
            "tokens": list(tokens),
            "before": list(accumulate(tokens, initial=0))[: len(tokens)],
            "room": max(1.0, self._rate * BURST_SECONDS),
            "token_room": max(1.0, self._token_rate * BURST_SECONDS),
        }


def guess(text: str, max_new_tokens: int) -> int:
    """The tokens of a call before it is made: those of its text, and half of what it may write."""
    return len(text.encode()) // BYTES_PER_TOKEN + max_new_tokens // 2

"""Limiting shares what a provider allows a connection among all workers: a token bucket in Postgres, one row each.

The row (`Allowance`) is filled by the database's clock at the rates of the connection, and each call takes its part
in one statement, so that any number of processes keep the rate together, whatever becomes of Redis or of one of them.
A call may be begun while any tokens are left and owes what it takes beyond: what it takes is known only afterwards,
and a call that is larger than the bucket must still be made. A pause that the provider asked one worker for
(Retry-After) holds for all of them.

Token bucket: RFC 2697 §3 (there in bytes).
"""

from __future__ import annotations

import threading
import time

from django.db import connection as database

from models_registry.models import Connection

BURST_SECONDS = 0.5
"""How much of its rate a connection may save up while it is idle. Providers count by the second or smoother: more
would be refused, and less would be lost between two looks."""
LOOK_SECONDS = 0.25
"""A connection without known rates is asked this often whether another worker was told to pause."""
BYTES_PER_TOKEN = 4
"""Before a call its tokens are guessed: English has four bytes to a token."""

TAKE = """
INSERT INTO registry_allowance AS had (connection_id, requests, tokens, filled_at)
VALUES (%(id)s, %(room)s - %(one)s, %(token_room)s - %(tokens)s, clock_timestamp())
ON CONFLICT (connection_id) DO UPDATE SET
    requests = least(%(room)s, had.requests + %(rate)s * {since}) - %(one)s,
    tokens = least(%(token_room)s, had.tokens + %(token_rate)s * {since}) - %(tokens)s,
    filled_at = clock_timestamp()
WHERE (had.not_before IS NULL OR had.not_before <= clock_timestamp())
  AND (%(rate)s = 0 OR had.requests + %(rate)s * {since} >= 1)
  AND (%(token_rate)s = 0 OR had.tokens + %(token_rate)s * {since} > 0)
RETURNING 1
""".format(since="extract(epoch FROM clock_timestamp() - had.filled_at)::float8")
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


class Limits:
    """What one connection may do, for the threads of one worker. Rates are per minute; None: not known."""

    def __init__(self, connection: Connection) -> None:
        self._id = connection.pk
        self._rate = (connection.requests_per_minute or 0) / 60
        self._token_rate = (connection.tokens_per_minute or 0) / 60
        self._look_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def are_known(self) -> bool:
        return bool(self._rate or self._token_rate)

    def take(self, tokens: int) -> float | None:
        """Take one request and that many tokens now: None. Or in how many seconds to ask again."""
        if not self.are_known:
            return self._look_for_a_pause()
        values = self._values(tokens)
        with database.cursor() as cursor:
            cursor.execute(TAKE, values)
            if cursor.fetchone():
                return None
        return max(0.005, self._wait(values))

    def correct(self, guessed: int, used: int | None) -> None:
        """A call has ended: give back the tokens that it did not use, or take those that it used beyond the guess."""
        if not self._token_rate or used is None or used == guessed:
            return
        with database.cursor() as cursor:
            cursor.execute(
                "UPDATE registry_allowance SET tokens = tokens + %s WHERE connection_id = %s",
                [guessed - used, self._id],
            )

    def pause(self, seconds: float) -> None:
        """The provider asked for a pause: nobody begins a call over this connection until it is over."""
        with database.cursor() as cursor:
            cursor.execute(PAUSE, {"id": self._id, "seconds": seconds})

    def _look_for_a_pause(self) -> float | None:
        with self._lock:
            if time.monotonic() < self._look_at:
                return None
            self._look_at = time.monotonic() + LOOK_SECONDS
        pause = self._wait(self._values(0))
        if pause > 0:
            with self._lock:
                self._look_at = float("-inf")
            return pause
        return None

    def _wait(self, values: dict[str, float]) -> float:
        with database.cursor() as cursor:
            cursor.execute(WAIT, values)
            row = cursor.fetchone()
        return float(row[0]) if row else 0.0

    def _values(self, tokens: int) -> dict[str, float]:
        return {
            "id": self._id,
            "rate": self._rate,
            "token_rate": self._token_rate,
            "one": 1 if self._rate else 0,
            "tokens": tokens if self._token_rate else 0,
            "room": max(1.0, self._rate * BURST_SECONDS),
            "token_room": max(1.0, self._token_rate * BURST_SECONDS),
        }


def guess(text: str, max_new_tokens: int) -> int:
    """The tokens of a call before it is made: those of its text, and half of what it may write."""
    return len(text.encode()) // BYTES_PER_TOKEN + max_new_tokens // 2

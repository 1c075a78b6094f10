"""Pacing keeps the calls over one connection at a speed that the provider accepts, where its limits are not known.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain, 1989): a "slower, please" (429) halves the
number of calls in flight, every 50 answers allow one more, up to what the connection allows. But never below what the
provider has just served: by Little's law (1961) the calls that it answers in a second, times what each takes, are as
many in flight; halving those would give away what it grants. Limits that are known are kept by `limiting`. PURE.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

ANSWERS_FOR_ONE_MORE = 50
BURST_SECONDS = 1.0
"""Refusals that arrive together speak of the same moment: they slow the pace once."""
MEMORY_SECONDS = 2.0
"""How long an answer counts as just served."""


class Pace:
    """One per connection and worker; shared by all of its threads. Times are of `time.monotonic`, in seconds."""

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.limit = self.most
        self._flying = 0
        self._answers = 0
        self._served: deque[tuple[float, float]] = deque()
        self._waiting: list[Callable[[], None]] = []
        self._slowed_at = self._not_before = self._began_at = float("-inf")
        self._lock = threading.Lock()

    def begin(self, when_room: Callable[[], None] | None = None) -> float | None:
        """Take off now: None. Or in how many seconds to ask again, because the provider asked for a pause; 0.0 when
        there is only no room now: `when_room` is called, once, when there is some. Each take-off needs one `end`."""
        with self._lock:
            now = time.monotonic()
            if now < self._not_before:
                return self._not_before - now
            if self._flying >= self.limit:
                if when_room is not None and when_room not in self._waiting:
                    self._waiting.append(when_room)
                return 0.0
            if not self._flying and not self._served:
                self._began_at = now
            self._flying += 1
            return None

    def end(self, *, answered: bool, seconds: float | None = None) -> None:
        """A call has ended, with an answer or without, after so many seconds (None: not known)."""
        with self._lock:
            self._flying -= 1
            self._answers += answered
            if answered and seconds is not None:
                self._served.append((time.monotonic(), seconds))
                self._forget()
            if self._answers >= ANSWERS_FOR_ONE_MORE and self.limit < self.most:
                self.limit, self._answers = self.limit + 1, 0
            told = self._waiting if self._flying < self.limit else []
            self._waiting = [] if told else self._waiting
        for when_room in told:
            when_room()

    def slow_down(self, pause: float | None) -> None:
        """The provider asked for a slower pace, and perhaps for a pause of that many seconds."""
        now = time.monotonic()
        with self._lock:
            self._answers = 0
            self._not_before = max(self._not_before, now + (pause or 0.0))
            if now - self._slowed_at >= BURST_SECONDS:
                self.limit, self._slowed_at = max(1, self.limit // 2, min(self.limit, self._just_served(now))), now

    def _just_served(self, now: float) -> int:
        """How many calls were in flight, on average, that ended in an answer."""
        self._forget()
        span = min(MEMORY_SECONDS, now - self._began_at)
        return int(sum(seconds for _, seconds in self._served) / span) if span > 0 else 0

    def _forget(self) -> None:
        before = time.monotonic() - MEMORY_SECONDS
        while self._served and self._served[0][0] < before:
            self._served.popleft()

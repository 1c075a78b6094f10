"""Pacing keeps the calls over one connection at a speed that the provider accepts.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain, 1989): a "slower, please" (429) halves the
number of calls in flight, every 50 answers allow one more, up to what the connection allows. PURE.
"""

from __future__ import annotations

import threading
import time

ANSWERS_FOR_ONE_MORE = 50
BURST_SECONDS = 1.0
"""Refusals that arrive together speak of the same moment: they halve the pace once."""


class Pace:
    """One per connection and worker; shared by all of its threads. Times are of `time.monotonic`, in seconds."""

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.limit = self.most
        self._flying = 0
        self._answers = 0
        self._slowed_at = self._not_before = float("-inf")
        self._lock = threading.Lock()

    def begin(self) -> float | None:
        """Take off now: None. Or in how many seconds to ask again, because the provider asked for a pause; 0.0 when
        there is only no room now. Each take-off needs one `end`."""
        with self._lock:
            pause = self._not_before - time.monotonic()
            if pause > 0:
                return pause
            if self._flying >= self.limit:
                return 0.0
            self._flying += 1
            return None

    def end(self, *, answered: bool) -> None:
        """A call has ended, with an answer or without."""
        with self._lock:
            self._flying -= 1
            self._answers += answered
            if self._answers >= ANSWERS_FOR_ONE_MORE and self.limit < self.most:
                self.limit, self._answers = self.limit + 1, 0

    def slow_down(self, pause: float | None) -> None:
        """The provider asked for a slower pace, and perhaps for a pause of that many seconds."""
        now = time.monotonic()
        with self._lock:
            self._answers = 0
            self._not_before = max(self._not_before, now + (pause or 0.0))
            if now - self._slowed_at >= BURST_SECONDS:
                self.limit, self._slowed_at = max(1, self.limit // 2), now

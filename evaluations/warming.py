"""Warming keeps opened models for the next unit: loading one can take longer than using it.

One entry per (spec, connection and its version): a key or an address that changed opens anew (SECURITY S15). Models
in hosts and sessions of APIs are kept apart, so that no call waits while a model loads.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from hashlib import sha256
from queue import Empty, SimpleQueue
from typing import Any

from django.conf import settings

from evaluations.models import Candidate
from evaluations.pacing import Pace
from models_registry import choosing
from models_registry.hosting import ModelHost
from models_registry.models import Connection
from models_registry.providers import Access, Output, Provider, ProviderError, Request, Session, available
from models_registry.shortening import shortened

log = logging.getLogger(__name__)
IDLE_SECONDS = 10.0
"""How long a thread waits for its next call before it ends."""


def never() -> bool:
    return False


class _Crew:
    """Threads for calls, each kept a while for the next: to start one takes as long as an eighth of a call's work.

    The threads of a ThreadPoolExecutor are joined when the process ends; these are not, so that a call that hangs does
    not keep a worker that was told to stop.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._free = 0  # threads that wait, less the jobs that they were already given
        self._lock = threading.Lock()

    def do(self, job: Callable[[], None]) -> None:
        with self._lock:
            is_taken = self._free > 0
            self._free -= is_taken
        if is_taken:
            self._jobs.put(job)
        else:
            threading.Thread(target=self._work, args=(job,), name="call", daemon=True).start()

    def _work(self, job: Callable[[], None] | None) -> None:
        while job is not None:
            job()
            with self._lock:
                self._free += 1
            job = self._next()

    def _next(self) -> Callable[[], None] | None:
        """The next job; None when there was none for so long that this thread is not needed."""
        while True:
            try:
                return self._jobs.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._free > 0:
                        self._free -= 1
                        return None


CREW = _Crew()


class WarmModel:
    """An opened model: a session in this process, or a model host beside it."""

    def __init__(
        self,
        provider: Provider,
        spec: dict[str, Any],
        access: Access,
        *,
        pace: Pace | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> None:
        self.provider = provider
        self.spec = spec
        self.access = access
        self.pace = pace or Pace(access.concurrency)
        self.host: ModelHost | None = None
        self.session: Session | None = None
        self._busy = threading.Lock()
        ready = provider.prepare(spec, dict(os.environ))
        if provider.place == "host":
            self.host = ModelHost(provider.name, ready, hang_seconds=settings.HANG_SECONDS)
            self.host.start(cancelled)
        else:
            self.session = shortened(provider.open(ready, access), ready)

    @property
    def is_network(self) -> bool:
        return self.provider.place == "network"

    @property
    def is_alive(self) -> bool:
        return self.host is None or self.host.alive

    def describe(self) -> dict[str, Any]:
        opened = self.host or self.session
        assert opened is not None
        return opened.describe()

    def generate(
        self,
        requests: Sequence[Request],
        *,
        starting: Callable[[list[int]], bool | None],
        cancelled: Callable[[], bool],
    ) -> Iterator[list[Output]]:
        """Outputs in batches. `starting` is told the keys of each batch before it begins, and may answer False: then
        the outputs end there, and the model stays open."""
        if self.host is not None:
            with self._busy:
                yield from self.host.generate(requests, on_starting=starting, cancelled=cancelled)
            return
        assert self.session is not None
        for request in requests:
            if cancelled():
                return
            if starting([request.key]) is False:
                return
            yield self._answer_inline(request)

    def _answer_inline(self, request: Request) -> list[Output]:
        """A bug that one document brings out is that document's error, and no reason to stop."""
        assert self.session is not None
        try:
            return [output for outputs in self.session.generate([request]) for output in outputs]
        except ProviderError as exc:
            if exc.failure in ("stop", "retry"):
                raise
            return [Output(request.key, "error", error_code=exc.code, error=str(exc))]
        except Exception as exc:
            log.exception("%s failed on one document", self.provider.name)
            return [Output(request.key, "error", error_code="model_error", error=f"{type(exc).__name__}: {exc}")]

    def call(self, request: Request) -> Future[Output]:
        """Begin one call of a network model, in another thread; `pace.begin()` was None before."""
        future: Future[Output] = Future()
        CREW.do(lambda: self._fly(request, future))
        return future

    def call_alone(self, request: Request, cancelled: Callable[[], bool]) -> Output:
        """One call of a network model, when its pace allows; for who has nothing else to do meanwhile. Raises
        ProviderError as the call does, and "unavailable" when `cancelled` said so before it was made."""
        while (pause := self.pace.begin()) is not None:
            if cancelled():
                raise ProviderError("the worker is stopping: ask again", code="unavailable", failure="retry")
            time.sleep(min(pause or 0.05, 0.5))
        return self.call(request).result()

    def _fly(self, request: Request, future: Future[Output]) -> None:
        began = time.monotonic()
        try:
            output = self._ask(request)
        except BaseException as exc:
            if isinstance(exc, ProviderError) and exc.code == "rate_limited":
                self.pace.slow_down(exc.retry_after)
            self.pace.end(answered=False)
            future.set_exception(exc)
        else:
            self.pace.end(answered=True, seconds=time.monotonic() - began)
            future.set_result(output)

    def _ask(self, request: Request) -> Output:
        assert self.session is not None
        outputs = [output for batch in self.session.generate([request]) for output in batch]
        if len(outputs) != 1:
            raise ProviderError(
                f"the provider gave {len(outputs)} outputs for one request", code="provider_bug", failure="final"
            )
        return outputs[0]

    def close(self, *, patiently: bool = False) -> None:
        """Let go of it; `patiently` waits until nobody generates with it any more."""
        if self.host is not None and patiently:
            with self._busy:
                self.host.close()
        elif self.host is not None:
            self.host.close()
        elif self.session is not None:
            self.session.close()


class WarmModels:
    """The models that this worker keeps open, the least recently used closed first. Hosts are few (they hold memory),
    network sessions many."""

    def __init__(self, hosts: int = 1, sessions: int = 16) -> None:
        self._hosts = _Shelf(hosts)
        self._sessions = _Shelf(sessions)
        self._paces: dict[tuple[int, int], Pace] = {}

    def get(self, candidate: Candidate, cancelled: Callable[[], bool] = never) -> WarmModel:
        """The candidate's model, opened if need be. Raises ProviderError when it cannot be, HostCancelled when
        `cancelled` said so while it was loading."""
        provider = available().get(candidate.provider)
        if provider is None:
            raise ProviderError(
                f"this worker has no provider {candidate.provider!r}", code="unknown_provider", failure="stop"
            )
        connection = candidate.connection
        version = (connection.pk, connection.version) if connection else None

        def opened() -> WarmModel:
            access = _access_of(candidate)
            pace = self._paces.setdefault(version, Pace(access.concurrency)) if version else None
            return WarmModel(provider, choosing.locate(candidate.spec), access, pace=pace, cancelled=cancelled)

        shelf = self._hosts if provider.place == "host" else self._sessions
        return shelf.get(_key(candidate.provider, candidate.spec, version), opened)

    def keys(self) -> list[str]:
        """The keys (`key_of`) of what is open now."""
        return [*self._hosts.keys(), *self._sessions.keys()]

    def close(self) -> None:
        self._hosts.clear()
        self._sessions.clear()


class _Shelf:
    """So many opened models of one sort; only one is opened at a time, since each may need all the memory."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._models: OrderedDict[str, WarmModel] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, opened: Callable[[], WarmModel]) -> WarmModel:
        with self._lock:
            model = self._models.get(key)
            if model is not None and model.is_alive:
                self._models.move_to_end(key)
                return model
            if model is not None:
                self._models.pop(key).close()
            while len(self._models) >= self._room:
                self._models.popitem(last=False)[1].close(patiently=True)
            self._models[key] = opened()
            return self._models[key]

    def keys(self) -> list[str]:
        return [key for key, model in list(self._models.items()) if model.is_alive]

    def clear(self) -> None:
        with self._lock:
            while self._models:
                self._models.popitem()[1].close()


def _access_of(candidate: Candidate) -> Access:
    if candidate.connection is None:
        return Access()
    try:
        return candidate.connection.access()
    except ValueError as exc:  # its key cannot be decrypted any more; the words say what to do
        raise ProviderError(str(exc), code="no_key", failure="stop") from None


def key_of(provider: str, spec: dict[str, Any], connection: Connection | None) -> str:
    """What makes two candidates share an opened model: all of the spec but the prompt, which is in each request, and
    the connection with its version."""
    return _key(provider, spec, (connection.pk, connection.version) if connection else None)


def _key(provider: str, spec: dict[str, Any], connection: tuple[int, int] | None) -> str:
    decides = {name: value for name, value in spec.items() if name not in ("prompt", "prompt_version", "price")}
    return sha256(json.dumps([provider, decides, connection], sort_keys=True).encode()).hexdigest()

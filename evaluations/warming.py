"""Warming keeps opened models for the next unit: loading one can take longer than using it.

One entry per (spec, connection and its version): a key or an address that changed opens anew (SECURITY S15).
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any

from evaluations.models import Candidate
from models_registry import choosing
from models_registry.hosting import ModelHost
from models_registry.providers import Access, Output, Provider, ProviderError, Request, Session, available

log = logging.getLogger(__name__)


class WarmModel:
    """An opened model: a session in this process, or a model host beside it."""

    def __init__(self, provider: Provider, spec: dict[str, Any], access: Access) -> None:
        self.provider = provider
        self.spec = spec
        self.access = access
        self.host: ModelHost | None = None
        self.session: Session | None = None
        ready = provider.prepare(spec, dict(os.environ))
        if provider.place == "host":
            self.host = ModelHost(provider.name, ready)
            self.host.start()
        else:
            self.session = provider.open(ready, access)

    @property
    def is_network(self) -> bool:
        return self.provider.place == "network"

    @property
    def concurrency(self) -> int:
        return max(1, self.access.concurrency)

    @property
    def is_alive(self) -> bool:
        return self.host is None or self.host.alive

    def describe(self) -> dict[str, Any]:
        opened = self.host or self.session
        assert opened is not None
        return opened.describe()

    def generate(
        self, requests: Sequence[Request], *, starting: Callable[[list[int]], None], cancelled: Callable[[], bool]
    ) -> Iterator[list[Output]]:
        """Outputs in batches. `starting` is told the keys of each batch before it begins."""
        if self.host is not None:
            yield from self.host.generate(requests, on_starting=starting, cancelled=cancelled)
            return
        assert self.session is not None
        for request in requests:
            if cancelled():
                return
            starting([request.key])
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

    def generate_one(self, request: Request) -> Output:
        """One call of a network model; may run in any thread."""
        assert self.session is not None
        outputs = [output for batch in self.session.generate([request]) for output in batch]
        if len(outputs) != 1:
            raise ProviderError(
                f"the provider gave {len(outputs)} outputs for one request", code="provider_bug", failure="final"
            )
        return outputs[0]

    def close(self) -> None:
        if self.host is not None:
            self.host.close()
        elif self.session is not None:
            self.session.close()


class WarmModels:
    """The models that this worker keeps open, the least recently used closed first. Hosts are few (they hold memory),
    network sessions many."""

    def __init__(self, hosts: int = 1, sessions: int = 16) -> None:
        self.limits = {"host": hosts, "session": sessions}
        self._open: OrderedDict[str, WarmModel] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, candidate: Candidate) -> WarmModel:
        """The candidate's model, opened if need be. Raises ProviderError when it cannot be."""
        connection = candidate.connection
        key = _key(candidate.spec, (connection.pk, connection.version) if connection else None)
        with self._lock:
            model = self._open.get(key)
            if model is not None and model.is_alive:
                self._open.move_to_end(key)
                return model
            if model is not None:
                self._open.pop(key)
                model.close()
            provider = available()[candidate.provider]
            self._make_room("host" if provider.place == "host" else "session")
            access = connection.access() if connection else Access()
            model = WarmModel(provider, choosing.locate(candidate.spec), access)
            self._open[key] = model
            return model

    def _make_room(self, kind: str) -> None:
        same = [key for key, model in self._open.items() if (model.host is not None) == (kind == "host")]
        for key in same[: max(0, len(same) - self.limits[kind] + 1)]:
            self._open.pop(key).close()

    def close(self) -> None:
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()


def _key(spec: dict[str, Any], connection: tuple[int, int] | None) -> str:
    """What makes two candidates share an opened model: all of the spec but the prompt, which is in each request."""
    decides = {name: value for name, value in spec.items() if name not in ("prompt", "prompt_version", "price")}
    return sha256(json.dumps([decides, connection], sort_keys=True).encode()).hexdigest()

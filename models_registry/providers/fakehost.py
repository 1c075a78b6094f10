"""The scripted model of `fake`, inside a model host: it can also crash, exit and hang there, and shows what it sees.

spec["options"] as in `fake`, and: `batch`, rows of a batch (default 4); `prints`, a text printed to stdout before
each batch. Further faults: segfault, exit, hang (Python sleeps), hang_in_c (a C call that holds the interpreter's
lock), and show_environment and network, whose findings are the exception's message.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models_registry.packing import Budget, run_packed
from models_registry.providers import Access, Output, Provider, Request, Session, Spec
from models_registry.providers.fake import FAULTS, Script, require_fakes, script_problems

A_LONG_TIME = 100_000


def _show_environment() -> None:
    raise RuntimeError(" ".join(sorted(os.environ)))


def _try_the_network() -> None:
    """An address of TEST-NET-1 (RFC 5737): without a network the kernel answers at once."""
    import socket

    with socket.socket() as client:
        client.settimeout(0.5)
        client.connect(("192.0.2.1", 9))


def _segfault() -> None:
    ctypes.string_at(0)


MORE_FAULTS: dict[str, Callable[[], None]] = {
    "segfault": _segfault,
    "exit": lambda: os._exit(3),
    "hang": lambda: time.sleep(A_LONG_TIME),
    "hang_in_c": lambda: ctypes.PyDLL(None).sleep(A_LONG_TIME),
    "show_environment": _show_environment,
    "network": _try_the_network,
}


@dataclass(frozen=True)
class Row:
    """A request and its length in words."""

    request: Request

    @property
    def key(self) -> int:
        return self.request.key

    @property
    def length(self) -> int:
        return len(self.request.source.split())


class FakeHostSession:
    """Answers in batches, announced like a real model's."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._script = Script(options, MORE_FAULTS)
        self.starting: Callable[[list[int]], None] = lambda keys: None

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Output]]:
        rows = [Row(request) for request in requests]
        budget = Budget(10**9, rows=int(self._options.get("batch", 4)))
        yield from run_packed(rows, budget, self._batch, starting=self.starting)

    def _batch(self, rows: Sequence[Row]) -> list[Output]:
        if stray := self._options.get("prints"):
            print(stray)
        return [self._script.answer(row.request) for row in rows]

    def describe(self) -> dict[str, Any]:
        return {"architecture": "fake", "pid": os.getpid()}

    def close(self) -> None:
        """Nothing is held."""


def problems(spec: Spec) -> list[str]:
    return script_problems(spec, "fakehost", (*FAULTS, *MORE_FAULTS))


def open(spec: Spec, access: Access) -> Session:
    """`prepare` has asked whether fakes are on; the host's environment would not say."""
    return FakeHostSession(spec.get("options") or {})


provider = Provider(
    name="fakehost",
    label="Scripted model in a host (tests)",
    about="The scripted model inside a model host, where it can also crash, exit and hang. For tests; off otherwise.",
    schemes=("fakehost",),
    place="host",
    queue="gpu",
    open=open,
    prepare=require_fakes,
    problems=problems,
    uses_prompt=True,
)

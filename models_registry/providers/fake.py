"""A scripted model for tests: it writes what it is told, and fails on the marker words it is told.

spec["options"]: `text`, a template with {source} {prompt} {key} {seed} (default "{source:.50}"); `latency_ms`;
`log`, a file that gets one fsynced line {"key", "seed"} a call, before anything can fail: the record to compare bills
with; `faults`, from a marker in the document to what happens; `recover_after`, the number of logged calls of a key
after which its faults are over.

Faults here: exception, error, refused, empty, stop, retry, final, unknown. `fakehost` adds segfault, exit, hang.
Off unless the environment says LUMIGATOR_FAKES=1.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from models_registry.providers import Access, Failure, Output, Provider, ProviderError, Request, Session, Spec

RAISED: dict[str, Failure] = {"stop": "stop", "retry": "retry", "final": "final", "unknown": "unknown"}
FAULTS = ("exception", "error", "refused", "empty", *RAISED)


class Script:
    """What the options say to do with one request."""

    def __init__(self, options: Mapping[str, Any], more: Mapping[str, Callable[[], None]]) -> None:
        self._options = options
        self._more = more

    def answer(self, request: Request) -> Output:
        """One call: logged, delayed, then a fault or a text. Raises what the fault says."""
        started = time.perf_counter()
        calls = self._log(request)
        time.sleep(self._options.get("latency_ms", 0) / 1000)
        fault = self._fault(request, calls)
        if fault in self._more:
            self._more[fault]()
        elif fault:
            return self._fail(request, fault)
        template: str = self._options.get("text", "{source:.50}")
        text = template.format(source=request.source, prompt=request.prompt or "", key=request.key, seed=request.seed)
        return Output(
            request.key,
            "ok",
            text=text,
            finish_reason="stop",
            input_tokens=len((request.prompt or request.source).split()),
            input_tokens_read=len((request.prompt or request.source).split()),
            output_tokens=len(text.split()),
            latency_ms=round(1000 * (time.perf_counter() - started)),
        )

    def _log(self, request: Request) -> int:
        """Append the call and return how many this key has had; 1 without a log."""
        path = self._options.get("log")
        if not path:
            return 1
        with open_file(path, "a+", encoding="ascii") as file:
            file.write(json.dumps({"key": request.key, "seed": request.seed}) + "\n")
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            return sum(json.loads(line)["key"] == request.key for line in file)

    def _fault(self, request: Request, calls: int) -> str:
        if calls > self._options.get("recover_after", calls):
            return ""
        faults: Mapping[str, str] = self._options.get("faults") or {}
        return next((fault for marker, fault in faults.items() if marker in request.source), "")

    def _fail(self, request: Request, fault: str) -> Output:
        if fault in RAISED:
            raise ProviderError(
                f"the script says {fault}",
                code=f"fake_{fault}",
                failure=RAISED[fault],
                retry_after=self._options.get("retry_after"),
            )
        if fault == "error":
            return Output(request.key, "error", error_code="fake_error", error="the script says error")
        if fault == "refused":
            return Output(request.key, "refused", error_code="content_filter", error="the script says refused")
        if fault == "empty":
            return Output(request.key, "empty", error_code="empty_output", error="the model wrote no text")
        raise RuntimeError(f"the script says {fault}")


open_file = open  # the provider's own `open` takes the name below


class FakeSession:
    """Answers one request at a time."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._script = Script(options, {})

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Output]]:
        for request in requests:
            yield [self._script.answer(request)]

    def describe(self) -> dict[str, Any]:
        return {"architecture": "fake"}

    def close(self) -> None:
        """Nothing is held."""


def fakes_are_on() -> bool:
    return os.environ.get("LUMIGATOR_FAKES") == "1"


def script_problems(spec: Spec, scheme: str, faults: Sequence[str]) -> list[str]:
    """Fakes that are off, a wrong address, an unknown fault."""
    found = [] if fakes_are_on() else ["fakes are off: they are for tests, which set LUMIGATOR_FAKES=1"]
    if not str(spec.get("uri", "")).startswith(f"{scheme}://"):
        found.append(f"the address must begin with {scheme}://")
    options = spec.get("options") or {}
    told = options.get("faults") or {} if isinstance(options, Mapping) else None
    if not isinstance(told, Mapping):
        return [*found, "options and options.faults must be tables"]
    return found + [f"unknown fault {fault!r}: use one of {', '.join(faults)}" for fault in _unknown(told, faults)]


def _unknown(told: Mapping[str, Any], faults: Sequence[str]) -> list[str]:
    return sorted({str(fault) for fault in told.values()} - set(faults))


def require_fakes(spec: Spec, environment: Mapping[str, str]) -> Spec:
    """The spec as it is. Raises ProviderError(code="fakes_off")."""
    if not fakes_are_on():
        raise ProviderError(
            "fakes are off: they are for tests, which set LUMIGATOR_FAKES=1", code="fakes_off", failure="stop"
        )
    return spec


def problems(spec: Spec) -> list[str]:
    return script_problems(spec, "fake", FAULTS)


def open(spec: Spec, access: Access) -> Session:
    require_fakes(spec, {})
    return FakeSession(spec.get("options") or {})


provider = Provider(
    name="fake",
    label="Scripted model (tests)",
    about="Writes what its script says, and fails where its script says so. For tests of the engine; off otherwise.",
    schemes=("fake",),
    place="inline",
    queue="cpu",
    open=open,
    prepare=require_fakes,
    problems=problems,
    uses_prompt=True,
)

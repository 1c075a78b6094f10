"""The model host: a child process that holds a local model, so that a crash costs a batch and not the worker.

Frames are a 4-byte big-endian length and JSON. The parent opens a model, then asks for outputs:

    parent  {"open": spec, "provider": name}          child  {"event": "ready", "facts": {…}}
    parent  {"generate": [request, …]}                child  {"event": "starting", "keys": […]}
    parent  {"go": true}                              child  {"event": "outputs", "outputs": […]}
                                                      child  {"event": "done"} or {"event": "failed", …}

The child waits for "go" before each batch: what is about to run is on record (the breadcrumb) before it can do harm.
A session that has an attribute `starting` gets a callback to announce its batches; for any other session the whole
call is announced as one batch.

The child has no secret in its environment, no core dumps and, where the system allows it, no network. It ends with
its parent even inside a C call that holds the interpreter's lock: the kernel sends SIGIO (which ends a process that
does not handle it) when the last writer of its lifeline pipe is gone. PR_SET_PDEATHSIG would end it as soon as the
*thread* that started it ends.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from models_registry.providers import Access, Output, Provider, ProviderError, Request, Session, Spec, available

ALLOWED = {
    "PATH", "HOME", "USER", "LANG", "TMPDIR", "TZ", "HF_HOME", "HF_HUB_CACHE", "LD_LIBRARY_PATH", "PYTHONPATH",
    "VIRTUAL_ENV",
}  # fmt: skip
ALLOWED_BEGINNINGS = ("LC_", "CUDA_", "NVIDIA_", "OMP_")
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
FIXED = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}

LARGEST_FRAME = 256 * 2**20
POLL_SECONDS = 0.5
KEPT_LINES, KEPT_WIDTH = 30, 300
QUOTE = 16
"""Letters and digits in a row that a line of stderr may not share with a document."""
DEVICE_LOST = 70


class HostDied(ProviderError):
    """The child is gone: it crashed, hung or could not start. A new host may be started."""


class HostCancelled(ProviderError):
    """`cancelled` said so, and the child was killed; requests without an output were not answered."""


class ModelHost:
    """A model of one spec in a child process. Not shared between threads, but `kill` may come from any."""

    def __init__(
        self,
        provider_name: str,
        spec: Spec,
        *,
        hang_seconds: float = 600,
        start_seconds: float = 600,
        memory_bytes: int | None = None,
    ) -> None:
        self._provider = provider_name
        self._spec = spec
        self._hang_seconds = hang_seconds
        self._start_seconds = start_seconds
        self._memory_bytes = memory_bytes
        self._child: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self._listener: threading.Thread | None = None
        self._facts: dict[str, Any] = {}
        self._reading: Sequence[Request] = ()

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Start the child and load the model.

        Raises ProviderError as the provider's `open` raised it, HostDied (code "worker_crash" or "hang") when the
        child dies or is not ready within `start_seconds`, HostCancelled.
        """
        if self.alive:
            return
        reader, self._lifeline = os.pipe()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "models_registry.hosting", str(reader)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=child_environment(os.environ),
                pass_fds=(reader,),
                start_new_session=True,
            )
        except BaseException:
            self._drop_lifeline()
            raise
        finally:
            os.close(reader)
        self._listen(self._child)
        self._send({"open": dict(self._spec), "provider": self._provider, "memory_bytes": self._memory_bytes})
        try:
            self._facts = self._next(self._start_seconds, cancelled)["facts"]
        except ProviderError:
            self.kill()
            raise

    def describe(self) -> dict[str, Any]:
        """The session's facts, and what shuts the child off."""
        return dict(self._facts)

    def generate(
        self,
        requests: Sequence[Request],
        on_starting: Callable[[list[int]], bool | None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[list[Output]]:
        """Yield outputs by the batch. `on_starting` gets the keys of each batch before the child may begin it; where it
        answers False the child does not, and the outputs end there: the child lives on, its model loaded.

        `cancelled` is asked at least each second. Raises ProviderError as the session raised it (the child lives on),
        HostDied (code "worker_crash" or "hang", failure "retry") or HostCancelled. Leaving the loop early kills
        the child, for it would go on with work that nobody wants.
        """
        self._reading = requests
        finished = False
        try:
            self._send({"generate": [asdict(request) for request in requests]})
            while True:
                event = self._next(self._hang_seconds, cancelled)
                if event["event"] == "starting":
                    goes = on_starting is None or on_starting(event["keys"]) is not False
                    self._send({"go": goes})
                elif event["event"] == "outputs":
                    yield [Output(**output) for output in event["outputs"]]
                else:
                    finished = True
                    return
        except ProviderError as error:
            finished = not isinstance(error, HostDied | HostCancelled)
            raise
        finally:
            self._reading = ()
            if not finished:
                self.kill()

    def close(self) -> None:
        """Let the child end by itself, then make sure of it."""
        if self._child and self._child.stdin:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout=2)
        self.kill()

    def kill(self) -> None:
        """End the child and everything in its session now."""
        if not self._child:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        if self._child.stdin:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
        self._drop_lifeline()

    def _drop_lifeline(self) -> None:
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)

    # The child's two voices

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        self._events = queue.SimpleQueue()
        self._said = deque(maxlen=KEPT_LINES)
        threading.Thread(target=_forward, args=(child.stdout, self._events), daemon=True).start()
        self._listener = threading.Thread(target=_remember, args=(child.stderr, self._said), daemon=True)
        self._listener.start()

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self._child or not self._child.stdin or self._child.stdin.closed:
            raise HostDied("the model host is not running: start it", code="worker_crash", failure="retry")
        try:
            write_frame(self._child.stdin, message)
        except OSError:
            raise self._died() from None

    def _next(self, seconds: float, cancelled: Callable[[], bool]) -> dict[str, Any]:
        """The child's next event within `seconds`. Raises ProviderError for "failed", and as `generate` says."""
        deadline = time.monotonic() + seconds
        while True:
            if cancelled():
                self.kill()
                raise HostCancelled("cancelled", code="cancelled", failure="retry")
            try:
                event = self._events.get(timeout=max(0.0, min(POLL_SECONDS, deadline - time.monotonic())))
            except queue.Empty:
                if time.monotonic() < deadline:
                    continue
                self.kill()
                raise HostDied(
                    f"the model host gave no sign for {seconds:g} s and was ended: the batch may be too large or the "
                    "model stuck; allow it more time or use a smaller token budget",
                    code="hang",
                    failure="retry",
                ) from None
            if event is None:
                raise self._died()
            if event["event"] == "failed":
                raise _from_wire(event)
            return event

    def _died(self) -> HostDied:
        """How the child ended, with the last it said; lines that quote a document are left out."""
        if not self._child:
            return HostDied("the model host is not running", code="worker_crash", failure="retry")
        try:
            status = self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._child.wait()
        if self._listener:
            self._listener.join(timeout=1)
        message = f"the model host died: {_in_words(status)}"
        if said := without_quotes(list(self._said), self._reading):
            message += "; it last said:\n" + "\n".join(said)
        self.kill()
        return HostDied(message, code="worker_crash", failure="retry")


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the child may see: an allow-list, nothing whose name smells of a secret, and this package on its path."""
    kept = {
        name: value
        for name, value in environment.items()
        if (name in ALLOWED or name.startswith(ALLOWED_BEGINNINGS)) and not SECRET_NAME.search(name)
    }
    here = str(Path(__file__).resolve().parents[1])
    paths = [here, *(path for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path and path != here)]
    return {**kept, **FIXED, "PYTHONPATH": os.pathsep.join(paths)}


def without_quotes(lines: Sequence[str], requests: Sequence[Request]) -> list[str]:
    """The lines that do not quote a document or prompt: no 16 letters and digits in a row in common, and no short
    document whole."""
    documents = [_letters(text) for request in requests for text in (request.source, request.prompt or "")]
    kept = []
    for line in lines:
        letters = _letters(re.sub(r"\\[nrt]", " ", line))  # a repr writes line breaks as two characters
        windows = {letters[start : start + QUOTE] for start in range(max(1, len(letters) - QUOTE + 1))}
        quoted = any(
            any(len(window) == QUOTE and window in document for window in windows)
            or (3 < len(document) <= QUOTE and document in letters)
            for document in documents
        )
        kept.append("[a line that quotes a document is left out]" if quoted else line)
    return kept


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


def _in_words(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-status).name
        return name + (" (perhaps out of memory)" if name == "SIGKILL" else "")
    return f"signal {-status}"


def _from_wire(event: Mapping[str, Any]) -> ProviderError:
    return ProviderError(
        event["message"], code=event["code"], failure=event["failure"], retry_after=event["retry_after"]
    )


def _forward(stream: IO[bytes] | None, events: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Thread: the child's frames, then None at its end."""
    with contextlib.suppress(OSError, ValueError), stream or io.BytesIO() as stream:
        while (frame := read_frame(stream)) is not None:
            events.put(frame)
    events.put(None)


def _remember(stream: IO[bytes] | None, said: deque[str]) -> None:
    """Thread: the last lines of the child's stderr, each cut to a bounded width, without control characters."""
    with contextlib.suppress(OSError, ValueError), stream or io.BytesIO() as stream:
        while line := stream.readline(64 * 1024):
            if text := line.decode("utf-8", "replace").strip():
                said.append("".join(letter for letter in text[:KEPT_WIDTH] if letter.isprintable()))


def write_frame(stream: IO[bytes], message: Mapping[str, Any]) -> None:
    """One message, flushed. Raises ValueError above 256 MiB, OSError when the other side is gone."""
    content = json.dumps(message).encode("ascii")
    if len(content) > LARGEST_FRAME:
        raise ValueError(f"a frame of {len(content)} bytes is above the limit of {LARGEST_FRAME}")
    stream.write(len(content).to_bytes(4, "big") + content)
    stream.flush()


def read_frame(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message; None at the end of the stream, also in the middle of a frame."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    length = int.from_bytes(head, "big")
    if length > LARGEST_FRAME:
        raise ValueError(f"a frame of {length} bytes is above the limit of {LARGEST_FRAME}")
    content = stream.read(length)
    if len(content) < length:
        return None
    message: dict[str, Any] = json.loads(content)
    return message


# The child


def main(lifeline: int) -> None:
    """Serve one parent until it is gone."""
    incoming, outgoing = _take_the_pipes()
    _end_with_parent(lifeline)
    shut_off = _leave_the_network()
    _no_core_dumps()
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_or_end, args=(incoming, messages), daemon=True).start()
    opening = messages.get()
    _limit_memory(opening.get("memory_bytes"))
    try:
        session = _open(opening["provider"], opening["open"])
    except Exception as error:
        write_frame(outgoing, _to_wire(error))
        return
    facts = {**session.describe(), "network": "none" if shut_off else "as the worker"}
    write_frame(outgoing, {"event": "ready", "facts": facts})
    while True:
        _serve(session, messages.get()["generate"], messages, outgoing)


def _open(name: str, spec: Spec) -> Session:
    provider: Provider | None = available().get(name)
    if provider is None or provider.place != "host":
        raise ProviderError(
            f"{name!r} is no provider that runs in a model host", code="unknown_provider", failure="stop"
        )
    return provider.open(spec, Access())


class _Enough(BaseException):
    """The parent wants no further batch. No Exception, for a session may catch those of a batch."""


def _serve(
    session: Session, wanted: list[dict[str, Any]], messages: queue.SimpleQueue[dict[str, Any]], outgoing: IO[bytes]
) -> None:
    def announce(keys: list[int]) -> None:
        write_frame(outgoing, {"event": "starting", "keys": keys})
        if not messages.get()["go"]:
            raise _Enough

    requests = [Request(**{**each, "references": tuple(each["references"])}) for each in wanted]
    try:
        if hasattr(session, "starting"):
            session.starting = announce
        else:
            announce([request.key for request in requests])
        for outputs in session.generate(requests):
            write_frame(outgoing, {"event": "outputs", "outputs": [asdict(output) for output in outputs]})
    except _Enough:
        write_frame(outgoing, {"event": "done"})
    except Exception as error:
        if isinstance(error, ProviderError) and error.code == "device_error":
            print(error, file=sys.stderr, flush=True)
            os._exit(DEVICE_LOST)
        write_frame(outgoing, _to_wire(error))
    else:
        write_frame(outgoing, {"event": "done"})


def _to_wire(error: Exception) -> dict[str, Any]:
    """Any exception as a frame. One that is no ProviderError is a fault of the provider: the same call fails again."""
    if isinstance(error, ProviderError):
        return {
            "event": "failed",
            "message": str(error),
            "code": error.code,
            "failure": error.failure,
            "retry_after": error.retry_after,
        }
    message = f"{type(error).__name__}: {error}"[:KEPT_WIDTH]
    return {"event": "failed", "message": message, "code": "model_error", "failure": "final", "retry_after": None}


def _take_the_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Keep stdin and stdout for frames; whoever prints prints to stderr from now on."""
    incoming, outgoing = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return os.fdopen(incoming, "rb"), os.fdopen(outgoing, "wb")


def _end_with_parent(lifeline: int) -> None:
    """Ask the kernel for SIGIO, whose default is to end the process, when the lifeline's writer is gone.

    The kernel needs no help from this interpreter for that. Where pipes know no SIGIO, the reading thread still
    ends the process at the end of its input.
    """
    try:
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
        # The parent may have gone before the line above.
        if os.read(lifeline, 1) == b"":
            os._exit(0)
    except BlockingIOError:
        pass
    except (ImportError, AttributeError, OSError) as error:
        print(f"no lifeline: {error}", file=sys.stderr)


def _read_or_end(stream: IO[bytes], messages: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Thread: the parent's messages; at their end this process has no reason to be."""
    with contextlib.suppress(OSError, ValueError):
        while (message := read_frame(stream)) is not None:
            messages.put(message)
    os._exit(0)


def _leave_the_network() -> bool:
    """Move into a network namespace of our own, which has no network; False where that is not allowed.

    Root may do so at once; others need a user namespace too, in which they keep their user id. unshare(2),
    user_namespaces(7); Python 3.11 has no os.unshare. Models need no network: their files are here.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    new_user, new_network = 0x10000000, 0x40000000
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None)
    if libc.unshare(new_network) == 0:
        return True
    if libc.unshare(new_user | new_network) != 0:
        return False
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    return True


def _no_core_dumps() -> None:
    """A core file would hold documents. The Python stack of a crash goes to stderr instead."""
    import faulthandler

    faulthandler.enable()
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_memory(size: int | None) -> None:
    """Address space in bytes, for an example suspected of eating memory; not for CUDA, which reserves terabytes."""
    if size:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == "__main__":
    # `python -m` runs this file as __main__; the plug-ins know it by its real name.
    from models_registry import hosting

    hosting.main(int(sys.argv[1]))

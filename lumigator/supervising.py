"""Supervising keeps the web server and the workers of `lumigator up` alive, and ends them together.

Nothing may outlive the supervisor, even when it is killed with SIGKILL. Every child therefore has a pipe as its
standard input whose other end only the supervisor holds: the kernel closes it with the supervisor, on every Unix,
and the child reads end of file. A program of ours watches that pipe itself (`exit_with_parent`); any other one
(gunicorn, dramatiq) is run by the shim `python -m lumigator.supervising -- COMMAND …`, which watches it for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, TextIO

PATIENCE = 25.0  # seconds between SIGTERM and SIGKILL: below the 30 s a container engine grants us
SHIM_PATIENCE = 5.0  # seconds a command has to end once nobody supervises it any more
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before a restart; doubled with each death
SETTLED_AFTER = 60.0  # seconds of life after which a child's earlier deaths are forgotten

SUPERVISED = "LUMIGATOR_SUPERVISED"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
Handler = Callable[[int, FrameType | None], Any] | int | None

_SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|KEYS?|DSN)$|API_KEY")
_URL_PASSWORD = re.compile(r"://[^/\s@]*:([^@/\s]+)@")
_printing = threading.Lock()


@dataclass(frozen=True)
class Child:
    """A command to keep alive. `watches_parent`: it calls `exit_with_parent` itself, so it needs no shim."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)  # added to ours
    watches_parent: bool = False


# The supervisor's side


def supervise(children: Sequence[Child], stop: threading.Event | None = None) -> int:
    """Run `children` until SIGINT, SIGTERM, SIGHUP or `stop`; restart each that dies; return the exit status.

    0: all ended when asked to. 1: at least one had to be killed. The lines they print come out on our stdout and
    stderr behind their name, with the secrets of the environment masked. A second signal ends the patience.
    Signals are only heard when this runs in the main thread.
    """
    stop = stop or threading.Event()
    hurry = threading.Event()
    kept = [_Kept(child) for child in children]
    with _signals_set(stop, hurry):
        try:
            while not stop.is_set():
                for one in kept:
                    one.keep_alive()
                stop.wait(0.1)
        finally:
            orderly = _stop_all(kept, hurry)
    return 0 if orderly else 1


def _stop_all(kept: Sequence[_Kept], hurry: threading.Event) -> bool:
    """Ask, wait, kill what is left. True when nothing had to be killed."""
    for one in kept:
        one.ask_to_stop()
    deadline = time.monotonic() + PATIENCE
    while any(one.is_alive for one in kept) and time.monotonic() < deadline and not hurry.is_set():
        time.sleep(0.05)
    late = [one for one in kept if one.is_alive]
    for one in late:
        _say(sys.stderr, one.child.name, "did not stop when asked to: killed")
    for one in kept:
        one.bury()
    return not late


@contextlib.contextmanager
def _signals_set(stop: threading.Event, hurry: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        (hurry if stop.is_set() else stop).set()

    before: dict[signal.Signals, Handler] = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Kept:
    """One child through its lives: what runs now, how often it died, when it may start again."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.next_start = 0.0
        self.pause = FIRST_PAUSE

    @property
    def is_alive(self) -> bool:
        return self.process is not None and not _has_ended(self.process)

    def keep_alive(self) -> None:
        if self.is_alive:
            return
        now = time.monotonic()
        if self.process is not None:
            self._plan_restart(_words(self.bury()), now)
        elif now >= self.next_start:
            try:
                self._start()
            except OSError as error:
                self._plan_restart(f"cannot start: {error}", now)

    def _plan_restart(self, reason: str, now: float) -> None:
        if now - self.started_at >= SETTLED_AFTER:
            self.pause = FIRST_PAUSE
        _say(sys.stderr, self.child.name, f"{reason}; starting again in {self.pause:g} s")
        self.next_start = now + self.pause
        self.pause = min(self.pause * 2, LONGEST_PAUSE)

    def _start(self) -> None:
        self.started_at = time.monotonic()
        command = list(self.child.command)
        environment = {**os.environ, **self.child.environment, SUPERVISED: "1"}
        if not self.child.watches_parent:
            command = [sys.executable, "-P", str(Path(__file__).resolve()), "--", *command]
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # its own group: Ctrl-C at the terminal reaches only us, and we can kill all of it
        )
        secrets = _secrets(environment)
        for source, target in ((self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr)):
            assert source is not None
            threading.Thread(target=_forward, args=(self.child.name, source, target, secrets), daemon=True).start()

    def ask_to_stop(self) -> None:
        """SIGTERM to the child alone: a dramatiq worker that hears it twice, from its master too, gives up at once."""
        if self.process is not None and self.is_alive:
            self.process.terminate()

    def bury(self) -> int:
        """Kill whatever is left of the child's group, reap the child, return its exit status (0 if none ran)."""
        if self.process is None:
            return 0
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for a group of zombies
            os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process = None
        return status


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it ended, *without* reaping it: its number stays taken, so that its group can still be killed by it."""
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _words(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"was ended by {signal.Signals(-status).name}"


def _forward(name: str, source: IO[bytes], target: TextIO, secrets: Sequence[str]) -> None:
    """Copy lines until the child closes its end. Never stop reading: a full pipe would stop the child."""
    with source:
        for raw in iter(lambda: source.readline(65536), b""):
            line = raw.decode(errors="replace").rstrip("\n")
            for secret in secrets:
                line = line.replace(secret, "***")
            _say(target, name, line)


def _say(target: TextIO, name: str, line: str) -> None:
    with _printing, contextlib.suppress(OSError, ValueError):  # our own output may be closed: `lumigator up | head`
        target.write(f"{name} | {line}\n")
        target.flush()


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """What must not be printed: values of variables named like secrets, and passwords inside URLs; longest first."""
    named = {value for name, value in environment.items() if _SECRET_NAME.search(name)}
    found = named | {part for value in named for part in value.split(",")}
    found |= {match for value in environment.values() for match in _URL_PASSWORD.findall(value)}
    return sorted((secret for secret in found if len(secret) >= 8), key=len, reverse=True)


# The child's side


def exit_with_parent() -> None:
    """End this process as soon as whoever started it is gone. Only active when LUMIGATOR_SUPERVISED=1.

    For a process that was started with a pipe as stdin, by `supervise` or by a parent that sets the variable. It
    clears the variable, so that processes started from here are not taken for supervised ones. On Linux the kernel
    also sends SIGKILL: the reading thread alone would wait for C code that holds the GIL. That signal comes when the
    *thread* that started us ends, so start supervised processes from a thread that waits for them. A program that
    forks workers belongs under the shim instead, which ends the whole group.
    """
    if os.environ.pop(SUPERVISED, "") != "1":
        return
    request = ending_with_parent(signal.SIGKILL, parent=None)
    if request is not None:
        request()
    threading.Thread(target=_exit_at_end_of_input, name="exit-with-parent", daemon=True).start()


def _exit_at_end_of_input() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os._exit(0)


def ending_with_parent(number: signal.Signals, parent: int | None) -> Callable[[], None] | None:
    """A `preexec_fn` that makes the kernel send `number` to the process when the thread that started it ends.

    None where the kernel has no such thing (only Linux has). `parent`: the process number of the one who starts it;
    a process that finds another parent was too late to ask, and ends. The request survives exec but not a change
    of user: CPython calls `preexec_fn` after it has set the user, which is the order needed (prctl(2)).
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def request() -> None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if parent is not None and os.getppid() != parent:
            os._exit(1)

    return request


# The shim


def run_watched(command: Sequence[str]) -> int:
    """Run `command`; end it on SIGTERM, SIGINT or end of our stdin; return its exit status as a shell would.

    At end of input the whole process group, ourselves included, is killed after SHIM_PATIENCE seconds.
    """
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    environment = {name: value for name, value in os.environ.items() if name != SUPERVISED}
    try:
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            preexec_fn=ending_with_parent(signal.SIGTERM, os.getpid()),
        )
    except OSError as error:
        print(f"cannot start {command[0]}: {error}", file=sys.stderr)
        return 127
    forwarded = False
    while child.poll() is None:
        readable, _, _ = select.select([0], [], [], 0.1)
        if readable and not os.read(0, 4096):
            _end_group(child)
        if asked.is_set() and not forwarded:
            forwarded = True
            child.terminate()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end_group(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(SHIM_PATIENCE)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    child.kill()
    child.wait()


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 2 or arguments[0] != "--":
        print("usage: python -m lumigator.supervising -- COMMAND [ARGUMENT …]", file=sys.stderr)
        return 2
    return run_watched(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

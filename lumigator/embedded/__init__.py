"""Embedded runs the laptop mode's PostgreSQL and Valkey: the servers of production, out of wheels, as child processes.

Whoever needs them calls `attach()` and holds a shared lock on HOME/clients.lock for as long as it does. A detached
**keeper** process, one per HOME, owns the two servers; it stops them when it can take that lock for itself, that is
when no client is left. The kernel drops a lock with its process, so a client killed with SIGKILL counts as gone.

    clients.lock   shared: each client. Exclusive: the keeper from its decision to stop until it has stopped, so a
                   client that arrives meanwhile waits for its shared lock, then finds no keeper and starts one.
    start.lock     exclusive: the client that looks for a keeper or starts one, so two clients share one.
    keeper.lock    exclusive: the keeper, all its life. Tells a living keeper from a stale embedded.json.
    NAME.lock      exclusive: the keeper and, by inheritance, every process of that server. While one of them lives,
                   after its keeper was killed, no second server touches the data. Holds the server's pid.

HOME/embedded.json says where the servers answer, only while they run; HOME/embedded-secrets.json remembers the ports
and passwords between runs. Both are for their owner alone. For macOS and Linux.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from lumigator.embedded.errors import EmbeddedError
from lumigator.embedded.files import is_locked, lock_file, locked, open_log, read_json, tail
from lumigator.embedded.servers import START_WITHIN, STOP_WITHIN, postgres_answers, valkey_answers

__all__ = ["EmbeddedError", "External", "Services", "attach", "home", "is_external"]

ROOT = Path(__file__).resolve().parents[2]  # the checkout


def home() -> Path:
    """Where the laptop mode keeps everything: $LUMIGATOR_HOME, else `var` in the checkout. Absolute; may not exist."""
    return Path(os.environ.get("LUMIGATOR_HOME") or ROOT / "var").expanduser().absolute()


@dataclass(frozen=True)
class External:
    """Which servers the environment names, so that they are not ours to start."""

    postgres: bool
    redis: bool


def is_external() -> External:
    """Read DATABASE_URL, POSTGRES_HOST and REDIS_URL; empty means embedded, and so does a URL that `attach` set."""

    def named(name: str) -> bool:
        value = os.environ.get(name)
        return bool(value) and value != os.environ.get(_marker(name))

    return External(postgres=named("DATABASE_URL") or bool(os.environ.get("POSTGRES_HOST")), redis=named("REDIS_URL"))


def _marker(name: str) -> str:
    """The variable in which a child process finds the URL that its parent's `attach` chose, to tell it from yours."""
    return f"LUMIGATOR_EMBEDDED_{name}"


# The client


@dataclass
class Services:
    """The right to use the servers, and where they answer (None: external, not ours). Give it back with `close`."""

    database_url: str | None = field(default=None, repr=False)  # it holds the password
    redis_url: str | None = field(default=None, repr=False)
    _lock: int | None = None
    _before: dict[str, str | None] = field(default_factory=dict, repr=False)

    def close(self) -> None:
        """Restore the environment and let go; the servers stop a second after the last client did. Idempotent."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = {}
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Services:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _export(self) -> None:
        for name, url in (("DATABASE_URL", self.database_url), ("REDIS_URL", self.redis_url)):
            if url is not None:
                for variable in (name, _marker(name)):
                    self._before[variable] = os.environ.get(variable)
                    os.environ[variable] = url


def attach() -> Services:
    """Have PostgreSQL and Valkey running until the result is closed, and name them in os.environ.

    Sets DATABASE_URL and REDIS_URL, each unless it is external; starts nothing when both are. A child process reads
    the variables and need not attach. Raises EmbeddedError. A process that forks shares its hold with the fork.
    """
    external = is_external()
    if external.postgres and external.redis:
        return Services()
    base = home()
    try:
        base.mkdir(parents=True, exist_ok=True)
        lock = lock_file(base / "clients.lock", fcntl.LOCK_SH, STOP_WITHIN * 3)
    except OSError as error:
        raise EmbeddedError(
            f"{base} cannot be used: {error}. Make it writable for you, or set LUMIGATOR_HOME to another folder."
        ) from error
    try:
        state = _state_of_running_keeper(base)
        services = Services(_lock=lock)
        if not external.postgres:
            services.database_url = _url(state, "postgres")
        if not external.redis:
            services.redis_url = _url(state, "valkey")
    except BaseException:
        os.close(lock)
        raise
    services._export()
    return services


def _url(state: Mapping[str, Any], server: str) -> str:
    if server in state["reasons"]:
        raise EmbeddedError(state["reasons"][server])
    return str(state[{"postgres": "database_url", "valkey": "redis_url"}[server]])


def _state_of_running_keeper(base: Path) -> dict[str, Any]:
    """Find the keeper of this HOME, or start one; return embedded.json once all that it names answers."""
    with locked(base / "start.lock", START_WITHIN):
        deadline = time.monotonic() + START_WITHIN
        while is_locked(base / "keeper.lock"):  # it runs, or comes up, or a server restarts, or it goes down
            state = read_json(base / "embedded.json")
            if state and _answer(state):
                return state
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"The keeper of {base} runs, but its servers do not answer.\n"
                    f"{tail(base / 'postgres.log')}{tail(base / 'valkey.log')}"
                    "Close the other Lumigator processes that use this folder, then try again."
                )
            time.sleep(0.1)
        _start_keeper(base)
        return read_json(base / "embedded.json") or {"reasons": _keeper_gone(base)}


def _keeper_gone(base: Path) -> dict[str, str]:
    message = f"The keeper of {base} ended at once.\n{tail(base / 'keeper.log')}Try again."
    return {"postgres": message, "valkey": message}


def _answer(state: Mapping[str, Any]) -> bool:
    if "postgres" not in state["reasons"] and not postgres_answers(state["postgres_port"], state["password"]):
        return False
    return "valkey" in state["reasons"] or valkey_answers(state["redis_port"], state["redis_password"])


def _start_keeper(base: Path) -> None:
    """Start a keeper detached from us, and wait until it says that it is ready or why not."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with open_log(base / "keeper.log") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "lumigator.embedded", "keep", str(base)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",  # a keeper must not hold the folder someone happened to stand in
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C at our terminal is not for it
        )
    assert keeper.stdout is not None
    with keeper.stdout as pipe:
        said = b""
        deadline = time.monotonic() + START_WITHIN
        while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            more = os.read(pipe.fileno(), 65536)
            if not more:
                break
            said += more
    keeper.wait()  # the first process forks the keeper and ends at once
    if said != b"ready":
        reason = said.decode(errors="replace") or "It ended, or took too long, without a word."
        raise EmbeddedError(f"The keeper of {base} did not come up: {reason}\n{tail(base / 'keeper.log')}")

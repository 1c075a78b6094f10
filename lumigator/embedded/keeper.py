"""The keeper: one process per HOME that starts the two servers, watches them, and stops them after the last client."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lumigator.embedded.errors import EmbeddedError
from lumigator.embedded.files import lock_file, locked, write_private
from lumigator.embedded.servers import (
    DATABASE,
    HOST,
    LOOK_EVERY,
    STOP_WITHIN,
    USER,
    Postgres,
    Remembered,
    Server,
    Valkey,
)

LINGER = 1.0  # seconds without a client before it stops: one command follows another in a script


def keep(base: Path, report: Callable[[str], None]) -> None:
    """Run the servers of `base` until no client is left or SIGTERM comes. Says "ready" to `report` when they answer.

    A server that cannot be had is not fatal, a client may not need it: its reason is in embedded.json, in its place.
    """
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # handled, not ignored: that would be inherited
        signal.signal(number, lambda got, _: asked.append(got))
    with locked(base / "keeper.lock", STOP_WITHIN), contextlib.ExitStack() as at_end:
        remembered = Remembered(base)
        running, reasons = _start_servers(base, remembered, at_end)
        at_end.callback((base / "embedded.json").unlink, missing_ok=True)
        write_private(base / "embedded.json", _public_state(remembered, reasons))
        report("ready")
        lonely_since: float | None = None
        while signal.SIGTERM not in asked:
            time.sleep(LOOK_EVERY)
            for server in running:
                server.restart_if_dead()
            try:
                alone = lock_file(base / "clients.lock", fcntl.LOCK_EX, 0)
            except TimeoutError:
                lonely_since = None
                continue
            lonely_since = lonely_since or time.monotonic()
            if time.monotonic() - lonely_since >= LINGER:
                return  # `alone` stays locked until this process ends, when the servers have long stopped
            os.close(alone)


def _start_servers(
    base: Path, remembered: Remembered, at_end: contextlib.ExitStack
) -> tuple[list[Server], dict[str, str]]:
    """Start both; return those that run, and for each of the others why it does not. `at_end` stops them."""
    running: list[Server] = []
    reasons: dict[str, str] = {}
    for make in (Valkey, Postgres):
        server = make(base, remembered)
        at_end.callback(server.stop)
        try:
            server.prepare()
            server.start()
            running.append(server)
        except (EmbeddedError, OSError, subprocess.SubprocessError) as error:
            server.stop()
            reasons[server.name] = f"The embedded {server.title} of {base} cannot be had: {error}"
    return running, reasons


def _public_state(remembered: Remembered, reasons: dict[str, str]) -> dict[str, Any]:
    return {
        "host": HOST,
        "postgres_port": remembered.postgres_port,
        "user": USER,
        "password": remembered.postgres_password,
        "database": DATABASE,
        "database_url": f"postgresql://{USER}:{remembered.postgres_password}@{HOST}:{remembered.postgres_port}/{DATABASE}",
        "redis_port": remembered.valkey_port,
        "redis_password": remembered.valkey_password,
        "redis_url": f"redis://:{remembered.valkey_password}@{HOST}:{remembered.valkey_port}/0",
        "keeper_pid": os.getpid(),
        "reasons": reasons,
    }

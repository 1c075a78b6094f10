"""A fleet of real `lumigator worker` processes on the database of the test that starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.db import connection

from evaluations.models import Experiment, WorkUnit

LEASE, SWEEP = 2.0, 0.5


class Fleet:
    """Worker processes that a story may start, stop, freeze and kill; all end with the story."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = (home / "workers.log").open("wb")
        database = connection.settings_dict
        url = f"postgresql://{database['USER']}:{database['PASSWORD']}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
        self.environment = {
            **os.environ,
            "DATABASE_URL": url,
            # For the workers the database is an external one: the test's own, not the keeper's default.
            "LUMIGATOR_SECRET_KEY": settings.SECRET_KEY,
            "LUMIGATOR_ENCRYPTION_KEYS": ",".join(settings.ENCRYPTION_KEYS),
            "LUMIGATOR_LEASE_SECONDS": str(LEASE),
            "LUMIGATOR_SWEEP_SECONDS": str(SWEEP),
            **environment,
        }

    def start(self, *queues: str, count: int = 1) -> list[subprocess.Popen[bytes]]:
        words = [word for queue in queues or ("gpu", "api", "cpu") for word in ("--queue", queue)]
        command = [sys.executable, "-m", "lumigator.cli", "worker", *words]
        made = [
            subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log, start_new_session=True)
            for _ in range(count)
        ]
        self.processes += made
        return made

    @property
    def alive(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self.processes if process.poll() is None]

    def send(self, number: int, process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, number)

    def end(self) -> None:
        for process in self.alive:
            self.send(signal.SIGCONT, process)
            self.send(signal.SIGKILL, process)
            process.wait()
        self.log.close()


@contextmanager
def fleet_in(home: Path, **environment: str) -> Iterator[Fleet]:
    fleet = Fleet(home, **environment)
    try:
        yield fleet
    finally:
        fleet.end()


def wait_until(
    condition: Callable[[], bool], seconds: float = 60.0, *, meanwhile: Callable[[], None] = lambda: None
) -> float:
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if condition():
            return time.monotonic() - began
        meanwhile()
        time.sleep(0.05)
    raise AssertionError(
        f"it did not come true within {seconds} s: {list(WorkUnit.objects.values_list('kind', 'state'))[:20]}"
    )


def ended(experiment: Experiment) -> Callable[[], bool]:
    def has_ended() -> bool:
        experiment.refresh_from_db()
        return experiment.has_ended

    return has_ended

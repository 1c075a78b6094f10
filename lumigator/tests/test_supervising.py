"""Stories of `supervise`: children are kept alive, speak through us, and never outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lumigator import supervising
from lumigator.embedded.programs import command_line_of
from lumigator.supervising import Child, supervise

ROOT = Path(__file__).resolve().parents[2]
WAIT = 15.0  # seconds: far more than any of this takes on an idle machine


def eventually(condition: Callable[[], object]) -> object:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError("this never became true")


def is_running(pid: int) -> bool:
    """Alive and no zombie, which has no command line: an orphan that ended may wait for a lazy init to reap it."""
    return command_line_of(pid).strip() not in ("", "(python)", "<defunct>")


def written_pids(file: Path) -> list[int]:
    return [int(word) for word in file.read_text().split()] if file.exists() else []


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


NOTE_PID = """
    import os, sys, time
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()}\\n")
"""
SLEEPER = NOTE_PID + "    time.sleep(600)\n"
STUBBORN = "    import signal\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + NOTE_PID + "    time.sleep(600)\n"
WATCHFUL = (
    "    from lumigator.supervising import exit_with_parent\n    exit_with_parent()\n"
    + NOTE_PID
    + "    time.sleep(600)\n"
)
SUPERVISOR = """
    import sys, threading
    from lumigator.supervising import Child, supervise
    children = [
        Child("shimmed", [sys.executable, "-c", sys.argv[1], sys.argv[3]]),
        Child("watchful", [sys.executable, "-c", sys.argv[2], sys.argv[4]], watches_parent=True),
    ]
    sys.exit(supervise(children))
"""


class Background:
    """`supervise` in a thread, so that a test can watch from outside and stop it."""

    def __init__(self, *children: Child) -> None:
        self.stop = threading.Event()
        self.status: int | None = None
        self.thread = threading.Thread(target=self._run, args=(children,))
        self.thread.start()

    def _run(self, children: tuple[Child, ...]) -> None:
        self.status = supervise(children, self.stop)

    def end(self) -> int | None:
        self.stop.set()
        self.thread.join(WAIT)
        assert not self.thread.is_alive()
        return self.status


@pytest.fixture
def background() -> Iterator[Callable[..., Background]]:
    started: list[Background] = []

    def start(*children: Child) -> Background:
        started.append(Background(*children))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[Path]]]:
    files = [tmp_path / "shimmed", tmp_path / "watchful"]
    process = subprocess.Popen(
        python(SUPERVISOR, textwrap.dedent(SLEEPER), textwrap.dedent(WATCHFUL), *files),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, files
    finally:
        process.kill()
        process.communicate()


def test_lines_come_out_behind_their_name_with_secrets_masked(
    background: Callable[..., Background], capfd: pytest.CaptureFixture[str]
) -> None:
    environment = {"DATABASE_URL": "postgresql://lumigator:correct-horse@127.0.0.1:5/lumigator"}
    code = """
        import os, sys, time
        print("connecting to", os.environ["DATABASE_URL"], flush=True)
        print("on the other stream", file=sys.stderr, flush=True)
        time.sleep(600)
    """
    running = background(Child("web", python(code), environment))
    out, err = "", ""

    def both_arrived() -> bool:
        nonlocal out, err
        more = capfd.readouterr()
        out, err = out + more.out, err + more.err
        return "lumigator\n" in out and "stream" in err

    eventually(both_arrived)
    assert running.end() == 0
    assert "web | connecting to postgresql://lumigator:***@127.0.0.1:5/lumigator\n" in out
    assert "web | on the other stream\n" in err
    assert "correct-horse" not in out + err


def test_a_child_that_dies_is_started_again(
    background: Callable[..., Background], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "FIRST_PAUSE", 0.05)
    file = tmp_path / "pids"
    background(Child("worker", python(SLEEPER, file)))
    first = eventually(lambda: written_pids(file))[0]  # type: ignore[index]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(written_pids(file)) == 2)
    assert not is_running(first)
    assert is_running(written_pids(file)[1])


def test_pauses_between_restarts_grow_and_are_forgotten_after_a_long_life(capfd: pytest.CaptureFixture[str]) -> None:
    kept = supervising._Kept(Child("worker", ["none"]))
    for now in (100.0, 101.0, 102.0, 103.0, 104.0, 105.0, 106.0):
        kept.started_at = now
        kept._plan_restart("ended with status 1", now)
    assert kept.next_start == 106.0 + 30.0
    kept.started_at = 200.0
    kept._plan_restart("ended with status 1", 200.0 + supervising.SETTLED_AFTER)
    assert kept.next_start == 260.0 + 1.0


def test_a_command_that_does_not_exist_is_named_and_tried_again(
    background: Callable[..., Background], capfd: pytest.CaptureFixture[str]
) -> None:
    background(Child("web", ["/no/such/program"]))
    said = ""

    def reported() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "starting again" in said

    eventually(reported)
    assert "web | cannot start /no/such/program" in said
    assert "web | ended with status 127; starting again in 1 s" in said


def test_a_child_that_ignores_the_request_is_killed_with_its_group(
    background: Callable[..., Background], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "PATIENCE", 0.3)
    file = tmp_path / "pids"
    running = background(Child("worker", python(STUBBORN, file)))
    stubborn = eventually(lambda: written_pids(file))[0]  # type: ignore[index]
    assert running.end() == 1
    eventually(lambda: not is_running(stubborn))


def test_sigterm_ends_the_supervisor_and_all_children_with_status_0(
    supervisor: tuple[subprocess.Popen[str], list[Path]],
) -> None:
    process, files = supervisor
    pids = [eventually(lambda file=file: written_pids(file))[0] for file in files]  # type: ignore[index,misc]
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == 0
    assert not any(is_running(pid) for pid in pids)


def test_no_child_outlives_a_killed_supervisor(supervisor: tuple[subprocess.Popen[str], list[Path]]) -> None:
    process, files = supervisor
    pids = [eventually(lambda file=file: written_pids(file))[0] for file in files]  # type: ignore[index,misc]
    process.kill()
    eventually(lambda: not any(is_running(pid) for pid in pids))


def test_exit_with_parent_does_nothing_in_a_process_that_nobody_supervises() -> None:
    code = """
        import time
        from lumigator.supervising import exit_with_parent
        exit_with_parent()
        time.sleep(0.3)
        print("still here")
    """
    environment = {name: value for name, value in os.environ.items() if name != supervising.SUPERVISED}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        python(code), stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "still here\n"


def test_the_shim_passes_on_the_status_of_its_command() -> None:
    shim = [sys.executable, "-m", "lumigator.supervising", "--"]
    with subprocess.Popen([*shim, *python("raise SystemExit(7)")], cwd=ROOT, stdin=subprocess.PIPE) as process:
        assert process.wait(WAIT) == 7

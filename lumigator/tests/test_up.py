"""`lumigator up` on a bare folder: it serves, signs in once, ends with everything it started, and keeps the data."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

import pytest

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found through /proc"),
]
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds to come up; some eight are needed on an idle machine
OURS = ("DATABASE_URL", "REDIS_URL", "LUMIGATOR_EMBEDDED_DATABASE_URL", "LUMIGATOR_EMBEDDED_REDIS_URL")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def of(home: Path) -> dict[int, str]:
    """{number: command line} of every living process that names this LUMIGATOR_HOME, or descends from one that does.

    The servers are found as children of their keeper: they run with an environment of their own.
    """
    found: dict[int, str] = {}
    others: dict[int, tuple[int, str]] = {}  # number: (parent, command line)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            variables = (folder / "environ").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if command and (f"LUMIGATOR_HOME={home}".encode() in variables or str(home) in command):
            found[int(folder.name)] = command
        elif command:
            others[int(folder.name)] = (parent, command)
    while more := {number: command for number, (parent, command) in others.items() if parent in found}:
        found |= more
        for number in more:
            del others[number]
    return found


def started_at(number: int) -> str:
    """When a living process began, which tells it from another that took its number; "" for a dead one or a zombie."""
    try:
        words = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if words[0] in "ZX" else words[19]  # proc_pid_stat(5): field 3 is the state, field 22 the start


def left_of(home: Path, seen: dict[int, str], seconds: float) -> dict[int, str]:
    """What still runs after so many seconds of the `seen` ({number: start}) and of this home; waits no longer than it
    must."""
    deadline = time.monotonic() + seconds
    while True:
        left = of(home) | {number: "seen before" for number, start in seen.items() if started_at(number) == start}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


class Up:
    """One `lumigator up`, its output, and a browser of its own."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.home = home
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lumigator.cli", "up", "--port", str(self.port)],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name not in OURS} | {"LUMIGATOR_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.browser: OpenerDirector = build_opener(HTTPCookieProcessor(CookieJar()))

    def _read(self) -> None:
        assert self.process.stdout
        self.lines.extend(self.process.stdout)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def get(self, path: str) -> tuple[int, str]:
        return self._ask(Request(self._url(path)))

    def post(self, path: str, **fields: str) -> tuple[int, str]:
        headers = {"Referer": self._url(path), "Origin": self._url("")}
        return self._ask(Request(self._url(path), urlencode(fields).encode(), headers))

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def _ask(self, request: Request) -> tuple[int, str]:
        try:
            with self.browser.open(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def wait(self) -> Up:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.said
            try:
                if self.get("/healthz") == (200, "ok\n"):
                    return self
            except (URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise AssertionError(f"it did not come up:\n{self.said}")

    def link(self) -> str:
        found = re.search(rf"http://127\.0\.0\.1:{self.port}(/sign-in/[\w-]+/)", self.said)
        assert found, self.said
        return found[1]

    def sign_in(self) -> tuple[int, str]:
        """Open the link, press its button."""
        return self.post(self.link(), csrfmiddlewaretoken=token_in(self.get(self.link())[1]))


def token_in(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found, page[:500]
    return found[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bare at first; then what one start leaves is what the next one finds."""
    return tmp_path_factory.mktemp("up") / "home"


@pytest.fixture
def up(home: Path) -> Iterator[Callable[[], Up]]:
    started: list[Up] = []

    def start() -> Up:
        started.append(Up(home))
        return started[-1].wait()

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
    assert left_of(home, {}, 45) == {}


def test_a_bare_folder_serves_and_its_link_signs_in_once(up: Callable[[], Up]) -> None:
    site = up()
    assert "Sign in" in site.get("/")[1], "nobody is let in without signing in"
    link, page = site.link(), site.get(site.link())[1]
    assert "This link signs you in once" in page, "looking at the link does not use it up"
    assert site.post(link, csrfmiddlewaretoken="x" * 64)[0] == 403
    status, page = site.post(link, csrfmiddlewaretoken=token_in(page))
    assert status == 200
    assert "/sign-out/" in page
    assert site.get("/models/")[0] == 200
    stranger = Up.__new__(Up)
    stranger.port, stranger.browser = site.port, build_opener(HTTPCookieProcessor(CookieJar()))
    again = stranger.post(link, csrfmiddlewaretoken=token_in(stranger.get(link)[1]))
    assert again[0] == 410
    assert "This link no longer works" in again[1]


def test_the_workers_and_the_services_run_and_a_polite_end_takes_all_of_them(up: Callable[[], Up], home: Path) -> None:
    site = up()
    running = of(home)
    seen = {number: started_at(number) for number in running}
    commands = " ".join(running.values())
    for part in ("gunicorn", "worker --queue gpu", "worker --queue cpu", "lumigator.embedded", "postgres", "valkey"):
        assert part in commands, part
    site.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert site.process.wait(30) == 0, site.said
    assert left_of(home, seen, 30 - (time.monotonic() - began)) == {}


def test_killed_without_warning_it_leaves_no_process(up: Callable[[], Up], home: Path) -> None:
    site = up()
    running = of(home)
    assert any("postgres" in command for command in running.values())
    seen = {number: started_at(number) for number in running}
    site.process.kill()
    site.process.wait()
    assert left_of(home, seen, 45) == {}


def test_the_next_start_finds_the_data(up: Callable[[], Up]) -> None:
    site = up()
    site.sign_in()
    page = site.get("/datasets/")[1]
    status, page = site.post("/datasets/sample/", csrfmiddlewaretoken=token_in(page))
    assert status == 200, page[:500]
    site.process.send_signal(signal.SIGTERM)
    site.process.wait(30)
    again = up()
    again.sign_in()
    assert "Workplace texts (sample)" in again.get("/datasets/")[1]

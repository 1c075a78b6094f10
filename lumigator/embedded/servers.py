"""The two servers: how each is made ready, started on a lasting port, asked whether it answers, and stopped."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from lumigator.embedded.errors import EmbeddedError
from lumigator.embedded.files import (
    give_tree,
    lock_file,
    make_open_folder,
    make_private_folder,
    note,
    open_log,
    read_json,
    tail,
    write_private,
)
from lumigator.embedded.programs import (
    SHARED_STORE,
    account_for,
    can_enter,
    command_line_of,
    major_version,
    postgres_binaries,
    reachable,
    server_environment,
    valkey_binary,
)
from lumigator.supervising import ending_with_parent

HOST = "127.0.0.1"
USER = DATABASE = "lumigator"

READY_WITHIN = 30.0  # seconds from a server's start to its first answer
START_WITHIN = 120.0  # seconds for a keeper to have both: initdb and crash recovery on a slow disk included
STOP_WITHIN = 15.0  # seconds for a server to stop in order
LOOK_EVERY = 0.5  # seconds between the keeper's looks at its servers and its clients

CURE = "Install the servers with `pip install 'lumigator[embedded]'`, or use your own: set {variables}."


class Remembered:
    """What one run leaves for the next, in HOME/embedded-secrets.json: ports, passwords, and where the cluster lies.

    `store` is None while the cluster lies in HOME. `initialised`: there is a cluster, and its absence would be a loss.
    """

    def __init__(self, base: Path) -> None:
        self._path = base / "embedded-secrets.json"
        known = read_json(self._path) or {}
        self.postgres_port: int = known.get("postgres_port", 0)
        self.valkey_port: int = known.get("valkey_port", 0)
        self.postgres_password: str = known.get("postgres_password") or secrets.token_urlsafe(24)
        self.valkey_password: str = known.get("valkey_password") or secrets.token_urlsafe(24)
        self.store: str | None = known.get("store")
        self.initialised: bool = known.get("initialised", False)

    def save(self) -> None:
        values = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        if values != read_json(self._path):
            write_private(self._path, values)


class Server:
    """What the two servers share: one process at a time, on a lasting port, alone with its data."""

    name: ClassVar[str]
    title: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    last_signal: ClassVar[signal.Signals] = signal.SIGKILL
    instead: ClassVar[str]  # the variables that name an external one
    marker: str = ""  # what the command line of this very server contains

    def __init__(self, base: Path, remembered: Remembered) -> None:
        self.base = base
        self.remembered = remembered
        self.account: dict[str, Any] = {}  # the user keywords of Popen; empty: ourselves
        self.folder = Path("/")  # where it runs
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = self.next_start = 0.0
        self.pause = LOOK_EVERY
        self._lock: int | None = None

    # What each says for itself

    def prepare(self) -> None:
        """Make sure of binaries, data folder and lock. Raises EmbeddedError, OSError."""
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def configuration(self) -> bytes:
        """What it reads from stdin: not the command line, which everyone on the machine can read."""
        return b""

    def answers(self) -> bool:
        raise NotImplementedError

    # What they share

    @property
    def log(self) -> Path:
        return self.base / f"{self.name}.log"

    @property
    def cure(self) -> str:
        return CURE.format(variables=self.instead)

    @property
    def port(self) -> int:
        return int(getattr(self.remembered, f"{self.name}_port"))

    def take_data(self, path: Path) -> None:
        """Lock the data, after ending what an earlier, killed keeper may have left running on them."""
        try:
            self._lock = lock_file(path, fcntl.LOCK_EX, 0)
            return
        except TimeoutError:
            pid, _, marker = path.read_text().strip().partition(" ")
        for number in (self.stop_signal, self.last_signal):
            if pid.isdigit() and marker and marker in command_line_of(int(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), number)
            with contextlib.suppress(TimeoutError):
                self._lock = lock_file(path, fcntl.LOCK_EX, STOP_WITHIN)
                return
        raise EmbeddedError(
            f"process {pid or '(unknown)'} still uses its data ({path} is locked). End it, then try again."
        )

    def start(self) -> None:
        """Start on the remembered port, on another if that is taken, and wait for the first answer."""
        for _ in range(3):
            setattr(self.remembered, f"{self.name}_port", free_port(self.port))
            self.remembered.save()
            self.launch()
            if self._became_ready():
                return
            status = self.process.poll() if self.process else None
            if status is None or free_port(self.port) == self.port:
                break  # it did not fail for want of its port: another port would not help
        outcome = f"gave no answer within {READY_WITHIN:g} s" if status is None else f"ended with status {status}"
        raise EmbeddedError(f"it {outcome}.\n{tail(self.log)}{self.cure}")

    def launch(self) -> None:
        self.started_at = time.monotonic()
        assert self._lock is not None
        with open_log(self.log) as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=server_environment(),
                pass_fds=(self._lock,),
                preexec_fn=ending_with_parent(self.stop_signal, os.getpid()),
                **self.account,
            )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:
            pipe.write(self.configuration())
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{self.process.pid} {self.marker}\n".encode(), 0)

    def _became_ready(self) -> bool:
        assert self.process is not None
        deadline = time.monotonic() + READY_WITHIN
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.answers():
                return True
            time.sleep(0.03)
        return False

    def restart_if_dead(self) -> None:
        """Once per look of the keeper. Same port: clients hold its address. The pause doubles up to 10 s."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            note(f"{self.title} ended with status {self.process.returncode}; starting it again")
            self.pause = LOOK_EVERY if now - self.started_at > 10 else min(self.pause * 2, 10.0)
            self.next_start = self.started_at + self.pause
            self.process = None
        if now >= self.next_start:
            try:
                self.launch()
            except (OSError, subprocess.SubprocessError) as error:
                note(f"{self.title} could not be started again: {error}")
                self.next_start = now + 10.0

    def stop(self) -> None:
        """End it in order, else by force. Nothing to do when it does not run."""
        if self.process is None:
            return
        for number in (self.stop_signal, self.last_signal, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_WITHIN)
        self.process = None


class Valkey(Server):
    """Valkey (or Redis) as the broker: append-only file synced each second, and nothing is evicted."""

    name = "valkey"
    title = "Valkey"
    instead = "REDIS_URL"

    def prepare(self) -> None:
        self.binary = valkey_binary()
        if self.binary is None:
            raise EmbeddedError(f"no valkey-server or redis-server was found. {self.cure}")
        self.folder = self.base / "valkey"  # it writes to its working folder unless told otherwise
        make_private_folder(self.folder)
        self.take_data(self.base / "valkey.lock")

    def command(self) -> list[str]:
        self.marker = f"{HOST}:{self.port}"  # it rewrites its command line to show its address
        return [str(self.binary), "-"]

    def configuration(self) -> bytes:
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self.remembered.valkey_password}",
            "daemonize no",
            'save ""',
            "appendonly yes",
            "appendfsync everysec",
            "maxmemory-policy noeviction",
        ]
        return "\n".join([*lines, ""]).encode()

    def answers(self) -> bool:
        return valkey_answers(self.port, self.remembered.valkey_password)


class Postgres(Server):
    """PostgreSQL with its durable defaults. It refuses to run as root, so root lends it another account."""

    name = "postgres"
    title = "PostgreSQL"
    stop_signal = signal.SIGINT  # fast stop: ends sessions, writes a checkpoint
    last_signal = signal.SIGQUIT  # immediate stop: ends its children too; the next start replays the log
    instead = "DATABASE_URL or POSTGRES_HOST"

    def prepare(self) -> None:
        self.account = account_for(self._store() / "postgres")
        if self.account and not self.remembered.initialised and not can_enter(self.base, self.account):
            self._keep_data_elsewhere()
        store = self._store()
        self.data = store / "postgres"
        self.marker = str(self.data)
        if self.remembered.initialised and not self.data.is_dir():
            raise EmbeddedError(
                f"its data were in {self.data}, which is gone. Put them back, or delete "
                f"{self.base / 'embedded-secrets.json'} to begin with an empty database."
            )
        binaries = postgres_binaries()
        if binaries is None:
            raise EmbeddedError(f"no postgres and initdb were found. {self.cure}")
        self.binaries = reachable(binaries, self.account)
        if store != self.base:
            self._refuse_to_share(store)
        self.take_data(store / "postgres.lock")
        if self.account and self.data.is_dir() and self.data.stat().st_uid == 0:
            give_tree(self.data, self.account)  # copied or restored by root: no server can use it so
        self._initialise()

    def _store(self) -> Path:
        return Path(self.remembered.store) if self.remembered.store else self.base

    def _keep_data_elsewhere(self) -> None:
        """HOME lies below a folder closed to the account, such as /root, which is not ours to open."""
        digest = hashlib.sha256(os.fsencode(self.base)).hexdigest()[:12]
        store = SHARED_STORE / f"{digest}-{secrets.token_hex(4)}"
        make_open_folder(store)
        if not can_enter(store, self.account):
            raise EmbeddedError(
                f"neither {self.base} nor {store} can be entered by an ordinary account, and PostgreSQL refuses to run "
                "as root. Set LUMIGATOR_HOME to a folder that every account may enter."
            )
        (store / "belongs-to.txt").write_text(f"{self.base}\n")  # for whoever finds it after that folder was deleted
        self.remembered.store = str(store)
        self.remembered.save()

    def _refuse_to_share(self, store: Path) -> None:
        """A copied HOME names the store of the one it was copied from, which may have its own keeper."""
        try:
            self.store_lock = lock_file(store / "keeper.lock", fcntl.LOCK_EX, 0)  # held as long as we live
        except TimeoutError as error:
            raise EmbeddedError(
                f"the keeper of another folder uses its data in {store}. Stop that one, or delete "
                f"{self.base / 'embedded-secrets.json'} to begin with an empty database."
            ) from error

    def _initialise(self) -> None:
        """Make the cluster on first use: beside its place, then renamed, so that a half-made one is never used."""
        major = major_version(self.binaries)
        if (self.data / "PG_VERSION").exists():
            made_by = (self.data / "PG_VERSION").read_text().strip()
            if made_by != str(major):
                raise EmbeddedError(
                    f"the data in {self.data} were made by PostgreSQL {made_by}, the installed one is {major}. Install "
                    f"PostgreSQL {made_by} again and dump them with pg_dump, or set LUMIGATOR_HOME to a new folder."
                )
        else:
            self._make_cluster(major)
        if not self.remembered.initialised:
            self.remembered.initialised = True
            self.remembered.save()

    def _make_cluster(self, major: int) -> None:
        new = self.data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        make_private_folder(new, self.account)
        self.remembered.save()  # before the cluster learns the password
        # C.UTF-8 knows the case of letters beyond ASCII, so that a search for "été" finds "Été" on every machine.
        locale = ["--locale-provider=builtin", "--locale=C.UTF-8"] if major >= 17 else ["--locale=C"]
        with tempfile.NamedTemporaryFile("w", dir=self.data.parent, prefix=".password-") as password:
            password.write(self.remembered.postgres_password)
            password.flush()
            if self.account:
                os.fchown(password.fileno(), self.account["user"], self.account["group"])
            initdb = [str(self.binaries / "initdb"), "-D", str(new), "-U", USER, "-E", "UTF8", *locale]
            done = subprocess.run(
                [*initdb, "--auth=scram-sha-256", f"--pwfile={password.name}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                cwd="/",
                env=server_environment(),
                preexec_fn=ending_with_parent(signal.SIGKILL, os.getpid()),
                timeout=START_WITHIN,
                check=False,
                **self.account,
            )
        if done.returncode:
            raise EmbeddedError(f"initdb failed:\n{done.stdout}{self.cure}")
        new.rename(self.data)

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "shared_buffers": "128MB",
            "max_connections": "100",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), *options]

    def answers(self) -> bool:
        return postgres_answers(self.port, self.remembered.postgres_password, create=True)


def postgres_answers(port: int, password: str, create: bool = False) -> bool:
    """Whether our cluster (it knows the password) accepts work there. `create`: make the database if it is missing."""
    import psycopg

    try:
        with psycopg.connect(
            host=HOST,
            port=port,
            user=USER,
            password=password,
            dbname="postgres" if create else DATABASE,
            connect_timeout=5,
            autocommit=True,
        ) as connection:
            if create and not connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone():
                connection.execute(f"create database {DATABASE}")
            return True
    except psycopg.OperationalError:
        return False


def valkey_answers(port: int, password: str) -> bool:
    """Whether our Valkey (it knows the password) is there and has loaded its file."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            said = b""
            while said.count(b"\r\n") < 2:
                more = connection.recv(4096)
                if not more:
                    return False
                said += more
            return said.startswith(b"+OK\r\n+PONG")
    except OSError:
        return False


def free_port(wanted: int) -> int:
    """`wanted` if it is free on the loopback, else one that is. 0 wants any."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is free
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise EmbeddedError(f"no free port on {HOST}")

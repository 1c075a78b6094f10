"""Files and folders of a HOME: locks, private files replaced in one step, logs, and who may enter."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lumigator.embedded.errors import EmbeddedError

LOG_LIMIT = 10_000_000  # bytes after which a log is set aside at the next start


def lock_file(path: Path, kind: int, patience: float) -> int:
    """Lock `path` (fcntl.LOCK_SH or LOCK_EX) and return its descriptor; close it to let go.

    Raises TimeoutError after `patience` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience
    try:
        _give_to_owner_of_folder(path)
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{path} stayed locked for {patience:g} s") from None
            time.sleep(0.03)
    except BaseException:
        os.close(descriptor)
        raise


@contextlib.contextmanager
def locked(path: Path, patience: float) -> Iterator[None]:
    try:
        descriptor = lock_file(path, fcntl.LOCK_EX, patience)
    except TimeoutError as error:
        raise EmbeddedError(f"{error}: another Lumigator process is starting or stopping. Try again.") from error
    try:
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether someone holds it exclusively."""
    try:
        os.close(lock_file(path, fcntl.LOCK_SH, 0))
    except TimeoutError:
        return True
    return False


def write_private(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` in one step, readable by its owner alone."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        _give_to_owner_of_folder(Path(temporary))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _give_to_owner_of_folder(path: Path) -> None:
    """Root that visits another user's HOME must not lock them out of it."""
    if os.geteuid() == 0:
        facts = path.parent.stat()
        os.chown(path, facts.st_uid, facts.st_gid)


def read_json(path: Path) -> dict[str, Any] | None:
    """None when there is no such file. Raises EmbeddedError when it cannot be read."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EmbeddedError(f"{path} cannot be read: {error}. Run as its owner, or set LUMIGATOR_HOME.") from error
    if not isinstance(value, dict):
        raise EmbeddedError(f"{path} holds no JSON object. Put it back from a copy, or set LUMIGATOR_HOME.")
    return value


def open_log(path: Path) -> Any:
    """Open a log to append to, for its owner alone; a large one is set aside first, in place of the one before it."""
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)
    _give_to_owner_of_folder(path)
    return file


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, as a paragraph for an error message; "" when there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            found = file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "".join(f"{line}\n" for line in (f"The last lines of {path}:", *(f"    {line}" for line in found)))


def note(message: str) -> None:
    """To the keeper's log."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), message, file=sys.stderr, flush=True)


def make_private_folder(path: Path, account: Mapping[str, Any] | None = None) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(path, account["user"], account["group"])


def give_tree(top: Path, account: Mapping[str, Any]) -> None:
    for path in (top, *top.rglob("*")):
        os.chown(path, account["user"], account["group"], follow_symlinks=False)


def make_open_folder(path: Path) -> None:
    """Make it, and the parents it lacks, for everyone to enter. Folders that exist keep their mode."""
    for folder in reversed([path, *path.parents]):
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)

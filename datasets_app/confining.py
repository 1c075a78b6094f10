"""Confining reads a file in a child process with limits, so that a hostile one costs a child and not the server.

    with confined(path) as table:
        for found in table.rows(table.columns({})): ...

The child runs `reading` (SECURITY S20): 1 GiB of address space, processor time by the size of the file, no network
where the platform lets go of it, no secrets in its environment, no file of more than 64 KiB that it could write; it
ends with its parent. It gets an open file and never a name. Where the platform knows no such limits it is a plain
child.

A child that dies or says nothing becomes one problem in words.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from datasets_app.building import Row
from datasets_app.formats import Problem, Record
from datasets_app.framing import LARGEST_FRAME, batches, framed, packed, unpacked
from datasets_app.mapping import Columns
from datasets_app.reading import Table
from lumigator.confinement import bare_environment, end_with_parent, leave_the_network, limit

MEMORY_BYTES = 1 << 30  # of address space: pyarrow alone takes 0.3 GiB of it, a million ids 0.05
CPU_SECONDS = 120
CPU_BYTES = 4 << 20  # for so many bytes of the file there is another second
HANG_SECONDS = 300.0
PIECE = 1 << 20
FIXED = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve a gigabyte of addresses before they are used
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
SMALLER = "Split the file, or export it as CSV or JSONL, which take least to read."


@contextlib.contextmanager
def confined(
    file: Path | IO[bytes],
    split: str = "",
    *,
    memory_bytes: int = MEMORY_BYTES,
    cpu_seconds: int | None = None,
    hang_seconds: float = HANG_SECONDS,
) -> Iterator[Table]:
    """The table of a file that a child reads, or of a folder that `save_to_disk` wrote; the child ends with the block.

    An open file is read from its beginning, and its own position is left alone; one without a descriptor is copied to
    a temporary file. `cpu_seconds` is by default CPU_SECONDS and more for a large file. Raises OSError where the file
    cannot be opened; nothing for any bytes, whatever becomes of the child.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(file, Path) and file.is_dir():
            descriptor = stack.enter_context(_of_folder(file))
        else:
            opened = stack.enter_context(file.open("rb")) if isinstance(file, Path) else file
            descriptor = _descriptor(opened, stack)
        if cpu_seconds is None:
            cpu_seconds = CPU_SECONDS + os.fstat(descriptor).st_size // CPU_BYTES
        child = _Child(descriptor, hang_seconds)
        stack.callback(child.end)
        asked = {"split": split, "memory": memory_bytes, "cpu": cpu_seconds}
        yield ConfinedTable(child, asked)


@contextlib.contextmanager
def _of_folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _descriptor(file: IO[bytes], stack: contextlib.ExitStack) -> int:
    """That of a file on a disk; anything else is copied to one."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.flush()
            return file.fileno()
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack is what closes it
    if file.seekable():
        file.seek(0)
    while chunk := file.read(PIECE):
        copy.write(chunk)
    copy.flush()
    return copy.fileno()


class ConfinedTable(Table):
    """A Table whose file is read by the child. What it knew when it was opened stays when the child is gone."""

    def __init__(self, child: _Child, asked: Mapping[str, Any]) -> None:
        """Wait for what `child` knows of the file, under the limits it was `asked` to keep."""
        self._clear()
        self._child = child
        self._n_read = 0
        self._asked = asked
        try:
            child.send(asked)
            with child.well_formed():
                self._restore(child.frame()["table"])
        except _Died as death:
            self.problems = [self._told(death)]
            self._ahead = [*self.problems]

    def _restore(self, known: Mapping[str, Any]) -> None:
        self.header, self.header_row = tuple(known["header"]), known["header_row"]
        self.format_name, self.is_packed = known["format_name"], known["is_packed"]
        self.left_out, self.notes = known["left_out"], tuple(known["notes"])
        self._is_declared, self._has_more = known["is_declared"], known["has_more"]
        self._n_read = known["read"]
        self._ahead = [Record(one[0], one[1]) if isinstance(one, list) else Problem(**one) for one in known["ahead"]]
        self._sort_ahead()

    @property
    def bytes_read(self) -> int:
        return self._n_read

    def rows(self, columns: Columns) -> Iterator[Row | Problem]:
        """As `Table.rows`. Leaving the loop early leaves the child waiting; the end of the block ends it."""
        if wrong := self.mapping_problems(columns):
            yield from wrong
            return
        if not self._child.lives:
            yield from self.problems
            return
        try:
            self._child.send({"rows": columns.as_dict()})
            while "batch" in (frame := self._child.frame()):
                with self._child.well_formed():
                    self._n_read = frame["read"]
                    found = list(unpacked(frame["batch"], self._child.text()))
                yield from found
            with self._child.well_formed():
                self._n_read = frame["done"]
        except _Died as death:
            yield self._told(death)

    def _told(self, death: _Died) -> Problem:
        memory = f"{self._asked['memory'] >> 20:,} MiB"
        found = {
            "memory": (f"The file needs more memory to read than is allowed ({memory}).", SMALLER),
            "time": (f"The file takes more than {self._asked['cpu']:,} s of computing time to read.", SMALLER),
            "hang": ("Reading the file did not get on and was stopped.", "Try again; export it anew if that fails."),
        }
        unknown = (
            f"The program that reads the file broke down over it ({death.why}).",
            "The file is probably damaged: export it again, as CSV or JSONL if need be.",
        )
        message, cure = found.get(death.why, unknown)
        return Problem(None, "", message, cure)


class _Died(Exception):
    """`why`: "memory", "time", "hang", or how the process ended."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Child:
    """The parent's end of the child: frames with a time limit, and its end in words."""

    def __init__(self, descriptor: int, hang_seconds: float) -> None:
        self.hang_seconds = hang_seconds
        self.lives = True
        # What the child prints; its limit on files keeps that small. `end` closes it.
        self.said = tempfile.TemporaryFile()  # noqa: SIM115
        reader, self.lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "datasets_app.confining", str(descriptor), str(reader)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.said,
                env={**bare_environment(os.environ), **FIXED},
                pass_fds=(descriptor, reader),
                start_new_session=True,
                bufsize=0,
            )
        except BaseException:
            os.close(self.lifeline)
            self.said.close()
            raise
        finally:
            os.close(reader)

    def send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write(packed(message))
        except OSError:
            raise self._death() from None

    def frame(self) -> dict[str, Any]:
        """The next frame. Raises _Died when there is none, when it is no frame, or when the child says so."""
        try:
            frame: dict[str, Any] = json.loads(self.text())
        except (ValueError, RecursionError):
            raise self._end_as("a frame that cannot be read") from None
        if not isinstance(frame, dict):
            raise self._end_as("a frame that cannot be read")
        if "died" in frame:
            raise self._end_as(str(frame["died"]))
        return frame

    @contextlib.contextmanager
    def well_formed(self) -> Iterator[None]:
        """What a child sends that a hostile file has taken over is no reason to fail, either. Raises _Died."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError):
            raise self._end_as("a frame that cannot be read") from None

    def text(self) -> str:
        """What is in the next frame. Raises _Died."""
        length = int.from_bytes(self._bytes(4), "big")
        if length > LARGEST_FRAME:
            raise self._end_as(f"a frame of {length:,} bytes")
        try:
            return self._bytes(length).decode()
        except UnicodeDecodeError:
            raise self._end_as("a frame that cannot be read") from None

    def _bytes(self, n: int) -> bytes:
        assert self.process.stdout
        descriptor = self.process.stdout.fileno()
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        found = bytearray()
        while len(found) < n:
            if not waiting.poll(self.hang_seconds * 1000):
                raise self._end_as("hang")
            piece = os.read(descriptor, min(n - len(found), PIECE))
            if not piece:
                raise self._death()
            found += piece
        return bytes(found)

    def _death(self) -> _Died:
        """How the child ended by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        status = self.process.poll()
        self.said.seek(0)
        said = self.said.read(64 * 1024)
        if b"MemoryError" in said or b"bad_alloc" in said or status == -signal.SIGKILL:
            return self._end_as("memory")  # SIGKILL: the kernel's killer, where there was too little of it for all
        if status == -signal.SIGXCPU:
            return self._end_as("time")
        if status is None or status >= 0:
            # Only the kind of an exception: its words may quote the file.
            last = said.rstrip().rpartition(b"\n")[2].decode(errors="replace")
            kind = re.match(r"[\w.]{1,80}(?=:|$)", last)
            return self._end_as(kind[0] if kind else f"exit status {status}")
        return self._end_as(signal.Signals(-status).name)

    def _end_as(self, why: str) -> _Died:
        self.end()
        return _Died(why)

    def end(self) -> None:
        """End the child now, if it lives, and let go of it."""
        if not self.lives:
            return
        self.lives = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.said):
            if stream:
                stream.close()
        os.close(self.lifeline)


# The child


def main(descriptor: int, lifeline: int) -> None:
    """Read one file for one parent."""
    outgoing = os.dup(1)
    os.dup2(2, 1)  # whoever prints prints to stderr
    end_with_parent(lifeline)
    leave_the_network()
    asked = json.loads(_received())
    limit("CORE", 0)
    limit("FSIZE", 64 * 1024)
    limit("AS", asked["memory"])
    limit("CPU", asked["cpu"], grace=5)  # SIGXCPU, which tells why, comes before the kernel's SIGKILL
    try:
        table = Table(_source(descriptor), asked["split"])
        _write(outgoing, packed({"table": _known(table)}))
        if received := _received():
            columns = Columns.from_dict(json.loads(received)["rows"])
            for batch, texts in batches(table.rows(columns)):
                _write(outgoing, packed({"batch": batch, "read": table.bytes_read}) + framed("".join(texts)))
            _write(outgoing, packed({"done": table.bytes_read}))
    except MemoryError:
        _write(outgoing, packed({"died": "memory"}))


def _received() -> bytes:
    head = _exactly(4)
    return _exactly(int.from_bytes(head, "big")) if head else b""


def _exactly(n: int) -> bytes:
    """The next n bytes of our input; b"" at its end."""
    found = b""
    while len(found) < n:
        piece = os.read(0, n - len(found))
        if not piece:
            return b""
        found += piece
    return found


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _known(table: Table) -> dict[str, Any]:
    return {
        "header": table.header,
        "header_row": table.header_row,
        "format_name": table.format_name,
        "is_packed": table.is_packed,
        "left_out": dict(table.left_out),
        "notes": table.notes,
        "is_declared": table._is_declared,
        "has_more": table._has_more,
        "read": table.bytes_read,
        "ahead": [asdict(one) if isinstance(one, Problem) else one for one in table._ahead],
    }


class _Own(io.RawIOBase):
    """A file with a position of its own: that of its descriptor is shared with the parent, who may be moving it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.at = descriptor, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        n = os.preadv(self.descriptor, [buffer], self.at) if hasattr(os, "preadv") else self._copied(buffer)
        self.at += n
        return n

    def _copied(self, buffer: Any) -> int:
        found = os.pread(self.descriptor, len(buffer), self.at)
        buffer[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.at = offset + (0, self.at, os.fstat(self.descriptor).st_size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at


def _source(descriptor: int) -> Any:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.fchdir(descriptor)
        return Path()
    return io.BufferedReader(_Own(descriptor), PIECE)


if __name__ == "__main__":
    # `python -m` runs this file as __main__; what it sends is told from what it knows by its real name.
    from datasets_app import confining

    confining.main(int(sys.argv[1]), int(sys.argv[2]))

"""Ingesting does the work of an import: claim it, read the file once, write its rows, close it (RELIABILITY §2).

Rows go in batches, each one transaction that also counts them under the fence, so that a worker that comes after a
crash reads the file again and goes on behind the last row that was written; and one that was merely cut off writes
nothing more. Nobody sees the rows before the dataset is ready. A file with a problem is refused as a whole: its rows
are taken out again and what is wrong stays, to be shown. What was cancelled is removed altogether.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from datasets_app import deleting, pending, storing
from datasets_app.batching import copy_rows
from datasets_app.confining import confined
from datasets_app.formats import Problem
from datasets_app.models import Dataset, Example, Import
from datasets_app.profiling import Profile
from datasets_app.reading import Row, Table
from lumigator.unavailable import FileStoreUnavailable

log = logging.getLogger(__name__)
BATCH_ROWS = 5_000
BATCH_CHARACTERS = 8 << 20
REMOVED_AT_ONCE = 20_000
"""Rows that one transaction takes out; the lease is renewed between two."""
KEPT_PROBLEMS = 1_000
SHOWN_PROBLEMS = 100
ATTEMPTS = 5
"""So many claims without a row being written end an import: the file kills whatever reads it."""
PAUSE = 10.0
"""Seconds until it is tried again after storage did not answer, or an error."""

Progress = Callable[[Import], object]


class BadFile(Exception):
    """The file was refused. `problems` are at most 100; `rest` says how many more there were (empty: none)."""

    def __init__(self, problems: list[Problem], rest: str = "") -> None:
        super().__init__("\n".join([*map(str, problems), *([rest] if rest else [])]))
        self.problems = problems
        self.rest = rest


class Fenced(Exception):
    """Another worker has this import now, or it was cancelled: stop, and drop what was not yet written."""


class Stopped(Exception):
    """This worker is to stop: give the import back."""


class Found:
    """The first KEPT_PROBLEMS problems of a file, and how many there are."""

    def __init__(self, problems: Sequence[Problem] = ()) -> None:
        self.problems = list(problems)
        self.n = len(self.problems)

    def add(self, problem: Problem) -> None:
        self.n += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(problem)

    def as_error(self) -> BadFile:
        shown = self.problems[:SHOWN_PROBLEMS]
        n = self.n - len(shown)
        return BadFile(shown, f"… and {n:,} more problem{'s' * (n != 1)}." if n else "")


@dataclass
class Lease:
    """A claimed import. `must_stop` and `progress` are asked and told after every batch."""

    intake: Import
    must_stop: Callable[[], bool] = lambda: False
    progress: Progress = lambda _: None
    lost: bool = False
    found: Found = field(default_factory=Found)

    @property
    def dataset(self) -> Dataset:
        return self.intake.dataset


# --- the lease ------------------------------------------------------------------------------------------------------

CLAIM = """
UPDATE datasets_import SET
    epoch = epoch + 1, attempts = attempts + 1, owner = %(owner)s, began_at = coalesce(began_at, clock_timestamp()),
    lease_until = clock_timestamp() + %(ttl)s * interval '1 second'
WHERE id = (
    SELECT id FROM datasets_import
    WHERE dataset_id = %(dataset)s AND ended_at IS NULL AND next_at <= clock_timestamp()
      AND (lease_until IS NULL OR lease_until < clock_timestamp())
    FOR UPDATE SKIP LOCKED
)
RETURNING id
"""


def claim(dataset: int, owner: str) -> Lease | None:
    """Lease the import of this dataset; None when somebody else has it, or there is nothing to do."""
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, {"dataset": dataset, "owner": owner[:120], "ttl": settings.LEASE_SECONDS})
        row = cursor.fetchone()
    return Lease(Import.objects.select_related("dataset__team").get(pk=row[0])) if row else None


@contextmanager
def fenced(lease: Lease, **changes: Any) -> Iterator[None]:
    """A transaction that changes the import's row and holds it. Raises Fenced when it is no longer ours."""
    with transaction.atomic():
        mine = Import.objects.filter(pk=lease.intake.pk, epoch=lease.intake.epoch)
        if lease.lost or not mine.update(**(changes or {"owner": lease.intake.owner})):
            raise Fenced(f"import of dataset {lease.dataset.pk}: epoch {lease.intake.epoch} is over")
        yield


def renew(lease: Lease) -> bool:
    """Extend the lease by its full length from now; False when it was lost."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE datasets_import SET lease_until = clock_timestamp() + %s * interval '1 second'"
            " WHERE id = %s AND epoch = %s AND ended_at IS NULL",
            [settings.LEASE_SECONDS, lease.intake.pk, lease.intake.epoch],
        )
        return bool(cursor.rowcount)


@contextmanager
def kept(lease: Lease) -> Iterator[None]:
    """A thread renews the lease until the block ends. Not needed in a transaction: nobody else sees its rows."""
    if connection.in_atomic_block:
        yield
        return
    done = threading.Event()

    def renewing() -> None:
        while not done.wait(settings.RENEW_SECONDS):
            try:
                if not renew(lease):
                    lease.lost = True
                    break
            except (OperationalError, InterfaceError):  # the fence decides, whatever is believed here
                connection.close()
        connection.close()

    thread = threading.Thread(target=renewing, name="import-renewer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def give_back(lease: Lease, *, after: float = 0.0, is_counted: bool = False) -> None:
    """Let another worker claim it, after so many seconds. `is_counted`: as one of the ATTEMPTS."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE datasets_import SET owner = '', lease_until = NULL, attempts = greatest(attempts - %s, 0),"
            " next_at = clock_timestamp() + %s * interval '1 second' WHERE id = %s AND epoch = %s AND ended_at IS NULL",
            [0 if is_counted else 1, after, lease.intake.pk, lease.intake.epoch],
        )


CLOSED: Mapping[str, Any] = {
    "ended_at": Now(), "lease_until": None, "owner": "", "upload": "", "epoch": F("epoch") + 1,
}  # fmt: skip
"""What changes in the row of an import that has ended."""


# --- a worker's part ------------------------------------------------------------------------------------------------


def waiting() -> list[int]:
    """The datasets whose import somebody could claim now, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT dataset_id FROM datasets_import WHERE ended_at IS NULL AND next_at <= clock_timestamp()"
            " AND (lease_until IS NULL OR lease_until < clock_timestamp()) ORDER BY id LIMIT 100"
        )
        return [row[0] for row in cursor.fetchall()]


def run(dataset: int, owner: str, must_stop: Callable[[], bool] = lambda: False) -> None:
    """Do the import of this dataset, unless somebody else does. Raises only what the database raises."""
    lease = claim(dataset, owner)
    if lease is None:
        return
    lease.must_stop = must_stop
    with kept(lease):
        try:
            _do(lease)
        except Fenced as exc:
            log.warning("%s", exc)
        except Stopped:
            give_back(lease)
        except (OperationalError, InterfaceError):
            raise  # the lease lapses
        except OSError as exc:
            log.warning("import of dataset %s: %s; trying again", dataset, exc)
            give_back(lease, after=PAUSE, is_counted=not isinstance(exc, FileStoreUnavailable))  # that is waited for
        except Exception as exc:
            log.exception("the import of dataset %s failed", dataset)
            if lease.intake.attempts < ATTEMPTS:
                give_back(lease, after=PAUSE, is_counted=True)
            else:
                cure = "Upload it again; if that ends the same way, the worker's log tells your administrator more."
                fail(lease, Found([Problem(None, "", f"It met an error of ours: {type(exc).__name__}.", cure)]))


def _do(lease: Lease) -> None:
    if not lease.dataset.is_importing:
        clear(lease)
    elif lease.intake.attempts > ATTEMPTS:
        cure = "It may take more memory than there is: split it, or ask your administrator for a larger worker."
        fail(lease, Found([Problem(None, "", f"Whatever read it vanished over it, {ATTEMPTS} times.", cure)]))
    else:
        try:
            if lease.dataset.edit:
                from datasets_app import deriving  # it stands on this module

                deriving.carry_out(lease)
                return
            with _fetched(lease) as stream:
                read_in(lease, stream)
        except BadFile as bad:
            fail(lease, lease.found if lease.found.n else Found(bad.problems))


@contextmanager
def _fetched(lease: Lease) -> Iterator[File[Any]]:
    """The uploaded file, open, its bytes compared with what was uploaded. Raises BadFile."""
    keys = (lease.intake.upload, lease.dataset.file.name)
    key = next((key for key in keys if key and default_storage.exists(key)), None)
    if key is None:
        raise BadFile([Problem(None, "", "It is not in storage, or not any more.", "Upload it again.")])
    with default_storage.open(key, "rb") as stream:
        if storing.digest(stream).sha256 != lease.dataset.sha256:
            raise BadFile([Problem(None, "", "It is not what was uploaded: storage damaged it.", "Upload it again.")])
        yield stream


# --- the file -------------------------------------------------------------------------------------------------------


@contextmanager
def opened(stream: File[Any] | IO[bytes]) -> Iterator[Table]:
    """The table that the file holds, read by a child process with limits (SECURITY S20)."""
    with confined(stream) as table:
        yield table


def read_in(lease: Lease, stream: File[Any] | IO[bytes]) -> None:
    """Read `stream` to its end and have its dataset ready. Raises BadFile, and then rows may be left (`clear`);
    Fenced; Stopped; what storage raises."""
    intake, dataset, found = lease.intake, lease.dataset, lease.found
    with opened(stream) as table:
        columns = table.columns(intake.columns)
        if columns.as_dict() != dataset.columns:
            with fenced(lease):
                dataset.columns = columns.as_dict()
                dataset.save(update_fields=["columns"])
        reading = _Reading(lease, table, table.rows(columns))
        while not reading.is_over:
            _write(lease, reading)
    if found.n:
        raise found.as_error()
    _finish(lease, reading.profile, stream)


class _Reading:
    """The rows of a file on their way into the table, batch by batch; those that an earlier worker wrote go by."""

    def __init__(self, lease: Lease, table: Table, items: Iterator[Row | Problem]) -> None:
        self.table = table
        self.items = items
        self.found = lease.found
        self.n_before = lease.intake.rows_done
        self.profile = Profile()
        self.is_over = False

    def batch(self) -> Iterator[Row]:
        """The rows of one batch; also an end of a batch is what brought nothing to write for a while.

        They are profiled while the server is busy with those before: that is most of the time that this takes.
        """
        size = 0
        for n, item in enumerate(self.items, start=1):
            if isinstance(item, Problem):
                self.found.add(item)
            elif not self.found.n:  # behind a problem only further ones are looked for
                self.profile.add(item)
                size += len(item.source) + sum(map(len, item.references))
                if self.profile.n > self.n_before:
                    yield item
            if n >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                return
        self.is_over = True


def _write(lease: Lease, reading: _Reading) -> None:
    """Write a batch and count it. Raises Fenced and Stopped."""
    intake = lease.intake
    with fenced(lease):
        n = copy_rows(intake.dataset_id, intake.rows_done, reading.batch())
        counted = {"rows_done": intake.rows_done + n, "attempts": 0} if n else {}
        Import.objects.filter(pk=intake.pk).update(bytes_read=reading.table.bytes_read, **counted)
    intake.rows_done += n
    intake.bytes_read = reading.table.bytes_read
    lease.progress(intake)
    if lease.must_stop() and not reading.is_over:
        raise Stopped


def _finish(lease: Lease, profile: Profile, stream: File[Any] | IO[bytes]) -> None:
    """The dataset is ready, and its file lies where it stays."""
    dataset, upload = lease.dataset, lease.intake.upload
    if profile.n != lease.intake.rows_done:
        raise RuntimeError(f"dataset {dataset.pk}: {profile.n} rows were read, {lease.intake.rows_done} written")
    figures = profile.as_dict()
    storing.settle(str(dataset.file), stream=stream, upload=upload)
    with fenced(lease, bytes_read=dataset.file_bytes, **CLOSED):
        dataset.n_examples, dataset.n_with_reference = profile.n, profile.n_with_reference
        dataset.profile, dataset.state = figures, Dataset.State.READY
        dataset.save(update_fields=["n_examples", "n_with_reference", "profile", "state"])
    if upload:
        default_storage.delete(upload)


def fail(lease: Lease, found: Found) -> None:
    """The dataset has failed for these reasons, and none of its rows stays. Raises Fenced."""
    told = [
        {"row": each.row, "column": each.column, "message": each.message, "cure": each.cure} for each in found.problems
    ]
    words = str(found.problems[0]) if found.n == 1 else f"It has {found.n:,} problems, the first: {found.problems[0]}"
    with fenced(lease, problems=told, n_problems=found.n):
        lease.dataset.problem, lease.dataset.state = words, Dataset.State.FAILED
        lease.dataset.save(update_fields=["problem", "state"])
    clear(lease)


def clear(lease: Lease) -> None:
    """Take out what was written of an import that failed or was cancelled; of the latter nothing stays.

    Raises Fenced."""
    intake = lease.intake
    while intake.rows_done:
        rest = max(0, intake.rows_done - REMOVED_AT_ONCE)
        with fenced(lease, rows_done=rest):
            rows = Example.objects.filter(dataset=intake.dataset_id, index__gte=rest)
            rows._raw_delete(rows.db)
        intake.rows_done = rest
    if intake.is_cancelled:
        with fenced(lease):
            deleting.remove(lease.dataset, upload=intake.upload)
        return
    with fenced(lease, **CLOSED):
        pass
    if intake.upload:
        default_storage.delete(intake.upload)


def discard(lease: Lease) -> None:
    """Cancel what this process itself is importing, and remove all of it. Raises Fenced."""
    lease.intake.is_cancelled = True
    with fenced(lease, is_cancelled=True):
        Dataset.objects.filter(pk=lease.dataset.pk).update(state=Dataset.State.FAILED, problem=deleting.CANCELLED)
    clear(lease)


def sweep() -> int:
    """Delete files that nobody needs any more (`pending`, `storing`); how many they were."""
    return pending.sweep() + storing.sweep()

"""Deleting removes a dataset, its examples and its file; never one that an experiment was run on."""

from __future__ import annotations

from functools import partial

from django.core.files.storage import default_storage
from django.db import OperationalError, connection, transaction
from django.db.models import SET_NULL, F, ManyToOneRel
from django.db.models.functions import Now
from psycopg.errors import LockNotAvailable

from datasets_app.models import Dataset, Example, Import
from datasets_app.storing import release
from lumigator import doorbell

CANCELLED = "It was cancelled; what was read of it is being removed."
ROWS_AT_ONCE = 50_000
"""So many rows of an import that is cancelled are removed while its user waits; more by a worker, in steps."""


PATIENCE_SECONDS = 5


class InUse(Exception):
    """Experiments rest on this dataset, or its import cannot be stopped now. The message says so, with the cure."""


def delete(dataset: Dataset) -> bool:
    """Delete it whole. Raises InUse. A file that another dataset of the same bytes uses stays.

    One that is being imported is cancelled first. False when a worker has yet to remove what it read so far.
    """
    with transaction.atomic():
        # The import before the dataset, in the order in which its worker takes them; that worker then finds the fence.
        intake = _locked(dataset)
        # The lock makes an experiment that is being created on this dataset wait, and then find it gone.
        found = Dataset.objects.select_for_update().get(pk=dataset.pk)
        n = found.experiments.count()
        if n:
            them = "An experiment uses" if n == 1 else f"{n} experiments use"
            raise InUse(f"{them} this dataset: delete {'it' if n == 1 else 'them'} first, or keep the dataset.")
        if intake and intake.ended_at is None and intake.rows_done > ROWS_AT_ONCE:
            _cancel(intake)
            return False
        remove(found, upload=intake.upload if intake else "")
        return True


def _locked(dataset: Dataset) -> Import | None:
    """Its import, held against its worker, who lets go of it between two batches. Raises InUse when that takes long."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = %s", [f"{PATIENCE_SECONDS}s"])
        try:
            intake = Import.objects.select_for_update().filter(dataset=dataset.pk).first()
        except OperationalError as exc:
            if isinstance(exc.__cause__, LockNotAvailable):
                raise InUse("Its import is in the middle of a long part of the file: try again in a minute.") from None
            raise
        cursor.execute("SET LOCAL lock_timeout = 0")
    return intake


def _cancel(intake: Import) -> None:
    Import.objects.filter(pk=intake.pk).update(
        is_cancelled=True, epoch=F("epoch") + 1, owner="", lease_until=None, next_at=Now(), attempts=0
    )
    importing = Dataset.objects.filter(pk=intake.dataset_id, state=Dataset.State.IMPORTING)
    importing.update(state=Dataset.State.FAILED, problem=CANCELLED)
    doorbell.ring("import_dataset", "cpu", intake.dataset_id)


def remove(dataset: Dataset, *, upload: str = "") -> None:
    """In a transaction: the dataset goes with all that is left of it, `upload` and its file when that is committed."""
    # Without an experiment only what may do without an example points at one (a text tried in the playground), and it
    # holds its text: it goes, too. Then the examples go in one statement; Django's own cascade would first load every
    # example to look for outcomes.
    for relation in Example._meta.get_fields(include_hidden=True):
        if isinstance(relation, ManyToOneRel) and relation.on_delete is SET_NULL:
            relation.related_model._base_manager.filter(**{f"{relation.field.name}__dataset": dataset}).delete()
    _allow_removing_rows()
    examples = Example.objects.filter(dataset=dataset)
    examples._raw_delete(examples.db)
    key = dataset.file.name
    dataset.delete()
    if key:
        transaction.on_commit(partial(release, key), robust=True)  # the rows are gone either way
    if upload:
        transaction.on_commit(partial(default_storage.delete, upload), robust=True)


def _allow_removing_rows() -> None:
    """Tell the trigger that keeps ready datasets whole that this transaction removes one altogether; that may take
    longer than a page's statement may."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL lumigator.deleting = 'yes'")
        cursor.execute("SET LOCAL statement_timeout = 0")

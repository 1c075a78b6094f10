"""Deleting removes a dataset, its examples and its file; never one that an experiment was run on."""

from __future__ import annotations

from functools import partial

from django.db import connection, transaction

from datasets_app.models import Dataset, Example
from datasets_app.storing import release


class InUse(Exception):
    """Experiments rest on this dataset. The message says so, with the cure."""


def delete(dataset: Dataset) -> None:
    """Delete it whole. Raises InUse. A file that another dataset of the same bytes uses stays."""
    with transaction.atomic():
        # The lock makes an experiment that is being created on this dataset wait, and then find it gone.
        Dataset.objects.select_for_update().get(pk=dataset.pk)
        n = dataset.experiments.count()
        if n:
            them = "An experiment uses" if n == 1 else f"{n} experiments use"
            raise InUse(f"{them} this dataset: delete {'it' if n == 1 else 'them'} first, or keep the dataset.")
        # Without an experiment nothing else points at an example, so they go in one statement; Django's own cascade
        # would first load every example to look for outcomes.
        _allow_removing_rows()
        examples = Example.objects.filter(dataset=dataset)
        examples._raw_delete(examples.db)
        key = dataset.file.name
        dataset.delete()
        if key:
            transaction.on_commit(partial(release, key), robust=True)  # the rows are gone either way


def _allow_removing_rows() -> None:
    """Tell the trigger that keeps ready datasets whole that this transaction removes one altogether."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL lumigator.deleting = 'yes'")

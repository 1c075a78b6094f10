"""Scoring goes slice by slice: what is remembered of a slice's references serves all candidates."""

from __future__ import annotations

import pytest

from evaluations import leasing
from evaluations.models import Worker, WorkUnit
from evaluations.planning import SCORE_SLICE, score_units
from evaluations.sweeping import sweep
from evaluations.tests.engine import make_dataset, make_experiment, make_fake

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def experiment(atlas):
    """Three candidates with three score units each, ready."""
    fakes = [make_fake(atlas, f"fake-{number}") for number in range(3)]
    experiment = make_experiment(make_dataset(atlas, ["One document."]), *fakes)
    experiment.move("planning", round=1)
    experiment.move("running")
    for candidate in experiment.candidates.all():
        frozen = experiment.metrics[0]
        units = score_units(experiment, candidate, frozen, range(3 * SCORE_SLICE), 1)
        WorkUnit.objects.bulk_create(units)
    return experiment


def next_slice(experiment, near):
    lease = leasing.claim("score", "here", experiment=experiment.pk, metric="rouge", near=near)
    return lease.unit.lo if lease else None


def test_a_worker_takes_its_slice_of_every_candidate_before_the_next(experiment):
    near, order = -1, []
    while (near := next_slice(experiment, near)) is not None:
        order.append(near)
    assert order == [0] * 3 + [SCORE_SLICE] * 3 + [2 * SCORE_SLICE] * 3


def test_a_second_worker_begins_another_slice(experiment):
    assert next_slice(experiment, -1) == 0
    assert next_slice(experiment, -1) == SCORE_SLICE
    assert next_slice(experiment, 0) == 0


def test_scoring_with_an_encoder_waits_for_a_gpu_only_while_there_is_one(atlas):
    Worker.objects.create(name="big", queues=["gpu"], has_gpu=True)
    experiment = make_experiment(make_dataset(atlas, ["One."]), make_fake(atlas), metrics=["rouge", "bertscore"])
    experiment.move("planning", round=1)
    experiment.move("running")
    for frozen in experiment.metrics:
        units = score_units(experiment, experiment.candidates.get(), frozen, range(3), 1)
        WorkUnit.objects.bulk_create(units)
    queues = WorkUnit.objects.filter(kind="score").values_list("metric", "queue")
    assert dict(queues) == {"rouge": "cpu", "bertscore": "gpu"}
    Worker.objects.all().delete()
    sweep()
    assert dict(queues.all()) == {"rouge": "cpu", "bertscore": "cpu"}

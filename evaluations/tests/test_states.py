"""The state machines: what `states` declares, what the database enforces, and how `move` changes a state."""

from __future__ import annotations

from importlib import import_module
from itertools import product

import pytest
from django.db import InternalError, ProgrammingError, connection, transaction

from evaluations import states
from evaluations.models import Experiment, WorkUnit
from evaluations.tests.engine import make_dataset
from lumigator.models import Team

migration = import_module("evaluations.migrations.0002_legal_state_changes")
MACHINES = {
    "experiment": (states.EXPERIMENT, Experiment, migration.EXPERIMENT),
    "unit": (states.UNIT, WorkUnit, migration.UNIT),
}
CHANGES = [
    (name, old, new)
    for name, (machine, _, _) in MACHINES.items()
    for old, new in product(machine, repeat=2)
    if old != new
]
REFUSED = (InternalError, ProgrammingError)


def make(team: Team, name: str, state: str) -> Experiment | WorkUnit:
    """A row in this state; an insert may begin anywhere."""
    experiment = Experiment.objects.create(
        team=team,
        name="Trial",
        dataset=make_dataset(team, ["A text."]),
        state=state if name == "experiment" else "draft",
    )
    if name == "experiment":
        return experiment
    return WorkUnit.objects.create(experiment=experiment, kind="score", queue="cpu", state=state, epoch=5)


@pytest.mark.parametrize("name", MACHINES)
def test_the_database_was_told_what_states_declares(name):
    machine, _, told = MACHINES[name]
    assert sorted(told) == sorted(f"{old}>{new}" for old, new in states.legal_pairs(machine))


@pytest.mark.parametrize("name", MACHINES)
def test_the_trigger_knows_the_same_pairs(db, name):
    """Asked of the database itself: a later migration may have replaced the function."""
    machine, model, _ = MACHINES[name]
    with connection.cursor() as cursor:
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname = %s", [f"{model._meta.db_table}_states"])
        (source,) = cursor.fetchone()
    for old, new in product(machine, repeat=2):
        assert (f"'{old}>{new}'" in source) == ((old, new) in states.legal_pairs(machine)), f"{old}>{new}"


@pytest.mark.parametrize(("name", "old", "new"), CHANGES)
def test_every_change_of_state_is_made_or_refused_as_declared(atlas, name, old, new):
    machine, model, _ = MACHINES[name]
    row = make(atlas, name, old)
    if (old, new) in states.legal_pairs(machine):
        assert model.objects.filter(pk=row.pk).update(state=new) == 1
    else:
        with pytest.raises(REFUSED, match=f"{old} never becomes {new}"), transaction.atomic():
            model.objects.filter(pk=row.pk).update(state=new)
    row.refresh_from_db()
    assert row.state == (new if (old, new) in states.legal_pairs(machine) else old)


def test_an_epoch_never_goes_back(atlas):
    unit = make(atlas, "unit", "ready")
    with pytest.raises(REFUSED, match="the epoch never goes back"), transaction.atomic():
        WorkUnit.objects.filter(pk=unit.pk).update(epoch=4)
    assert WorkUnit.objects.filter(pk=unit.pk).update(epoch=6) == 1


@pytest.mark.parametrize(("old", "new"), [(old, new) for name, old, new in CHANGES if name == "experiment"])
def test_a_move_happens_only_from_where_it_may(atlas, old, new):
    experiment = make(atlas, "experiment", old)
    may = (old, new) in states.legal_pairs(states.EXPERIMENT)
    assert experiment.move(new, problem="moved") is may
    assert (experiment.state, experiment.problem) == ((new, "moved") if may else (old, ""))
    experiment.refresh_from_db()
    assert (experiment.state, experiment.problem) == ((new, "moved") if may else (old, ""))


def test_a_move_looks_at_the_database_and_not_at_what_was_read_earlier(atlas):
    experiment = make(atlas, "experiment", "running")
    Experiment.objects.filter(pk=experiment.pk).update(state="cancelling")
    assert not experiment.move("completed")
    assert Experiment.objects.get(pk=experiment.pk).state == "cancelling"


def test_a_move_from_named_states_only(atlas):
    experiment = make(atlas, "experiment", "planning")
    assert not experiment.move("running", since=("paused",))
    assert experiment.move("running", since=("planning",))


def test_of_two_moves_at_once_one_happens(atlas):
    first = make(atlas, "experiment", "draft")
    second = Experiment.objects.get(pk=first.pk)
    assert [first.move("planning"), second.move("planning")] == [True, False]


@pytest.mark.parametrize("name", MACHINES)
def test_every_state_has_a_label_and_a_tone_and_can_be_reached(name):
    machine, model, _ = MACHINES[name]
    first = model._meta.get_field("state").default
    reached = {first} | {new for _, new in states.legal_pairs(machine)}
    assert reached == set(machine)
    for state in machine.values():
        assert state.label
        assert state.tone in ("calm", "busy", "good", "warn", "bad")
    assert set(dict(model._meta.get_field("state").flatchoices)) == set(machine)


def test_groups_of_states_name_states():
    assert set(states.ENDED) | set(states.ACTIVE) <= set(states.EXPERIMENT)
    assert not set(states.ENDED) & set(states.ACTIVE)
    assert set(states.OPEN_UNITS) == {name for name, state in states.UNIT.items() if not state.is_final}

"""The same model, prompt, document and seed is neither generated nor billed twice within a team."""

from __future__ import annotations

import pytest

from evaluations import comparing
from evaluations.models import Generation
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, run
from models_registry.models import ModelEntry

pytestmark = pytest.mark.django_db(transaction=True)
DOCUMENTS = [f"Team {number} met. It chose plan {number % 5} for {number} coins." for number in range(6)]


def ask(team, **data):
    fake = ModelEntry.objects.filter(team=team, slug="hosted").first() or make_fake(team, "hosted", scheme="fakehost")
    return make_experiment(make_dataset(team, data.pop("documents", DOCUMENTS)), fake, **data)


def made_and_reused(experiment):
    rows = Generation.objects.filter(candidate__experiment=experiment)
    return rows.filter(reused=False).count(), rows.filter(reused=True).count()


def test_a_second_experiment_takes_what_the_first_one_made(atlas):
    first, second = run(ask(atlas)), run(ask(atlas))
    assert made_and_reused(first) == (6, 0)
    assert made_and_reused(second) == (0, 6)
    texts = Generation.objects.order_by("example__index").values_list("text", flat=True)
    assert list(texts.filter(candidate__experiment=first)) == list(texts.filter(candidate__experiment=second))
    assert comparing.comparison(second)["candidates"][0]["reused"] == 6


def test_only_what_is_the_same_is_reused(atlas):
    run(ask(atlas))
    assert made_and_reused(run(ask(atlas, documents=[*DOCUMENTS[:2], "Another one. Entirely."]))) == (1, 2)
    assert made_and_reused(run(ask(atlas, seed=1, sample={"seed": 1}))) == (6, 0)
    wish = {"model": "hosted", "generation": {"max_new_tokens": 3}}
    assert made_and_reused(run(make_experiment(make_dataset(atlas, DOCUMENTS), wish))) == (6, 0)


def test_it_can_be_switched_off(atlas):
    run(ask(atlas))
    assert made_and_reused(run(ask(atlas, reuse_outputs=False))) == (6, 0)


def test_another_team_shares_nothing(atlas, basalt):
    run(ask(atlas))
    assert made_and_reused(run(ask(basalt))) == (6, 0)


def test_an_error_is_tried_again_and_not_reused(atlas):
    fake = make_fake(atlas, "hosted", scheme="fakehost", faults={"Team 3 ": "exception"})
    first = run(make_experiment(make_dataset(atlas, DOCUMENTS), fake))
    assert first.state == "completed_with_errors"
    assert made_and_reused(run(ask(atlas))) == (1, 5)


def test_baselines_are_computed_and_never_looked_up(atlas):
    for _ in range(2):
        experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), "baseline://lead-1"))
        assert made_and_reused(experiment) == (6, 0)
    assert not Generation.objects.exclude(cache_key="").exists()

"""Known values, computed on this installation: by the command line here, by a worker for the pages."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from django.urls import reverse

from evaluations import explaining, selfchecking
from evaluations.metrics import Check, Item, available
from evaluations.models import SelfCheck
from evaluations.tests.engine import WorkerProcess
from lumigator import cli

ROUGE = available()["rouge"]
HALF = Check(
    "one of two words",
    Item("red fish", ("red house",)),
    {"rouge1": 0.5},
    "counted by hand: one word in common of two on each side",
)


def only_rouge(*checks):
    return selfchecking.report([replace(ROUGE, checks=checks)])


def test_a_value_that_is_met_passes():
    told = only_rouge(HALF)
    assert told["passed"]
    (value,) = told["metrics"][0]["checks"][0]["values"]
    assert value["found"] == pytest.approx(0.5) and value["passed"]


def test_a_value_that_differs_fails_and_says_by_how_much():
    told = only_rouge(replace(HALF, expected={"rouge1": 0.6}))
    assert not told["passed"]
    lines = list(selfchecking.in_words(told))
    assert any("rouge1: 0.5, expected 0.6" in line and "differs" in line for line in lines)


def test_a_check_that_cannot_be_scored_fails_with_the_reason():
    told = only_rouge(replace(HALF, item=Item("", ("red house",))))
    (value,) = told["metrics"][0]["checks"][0]["values"]
    assert value["found"] is None and "empty" in value["problem"]
    assert not told["passed"]


def test_a_check_that_breaks_the_metric_fails():
    told = only_rouge(replace(HALF, options={"references": "median"}))
    assert not told["passed"]
    assert "median" in told["metrics"][0]["checks"][0]["problem"]


def test_what_cannot_be_computed_here_fails_nothing_and_says_why():
    metric = replace(ROUGE, checks=(HALF,), available=lambda options: "its weights are on the moon")
    told = selfchecking.report([metric])
    assert told["passed"] and told["metrics"][0]["checks"] == []
    assert "on the moon" in "\n".join(selfchecking.in_words(told))


@pytest.mark.parametrize("name", [name for name, metric in available().items() if metric.queue == "cpu"])
def test_this_installation_meets_every_known_value(name):
    metric = available()[name]
    if why_not := metric.available(metric.defaults):
        pytest.skip(why_not)
    told = selfchecking.report([metric])
    assert told["passed"], "\n".join(selfchecking.in_words(told))


@pytest.mark.parametrize("name", ["rouge", "meteor", "bertscore", "bleu", "chrf"])
def test_metrics_with_published_values_bring_them(name):
    assert available()[name].checks


@pytest.mark.django_db(transaction=True)
def test_a_page_asks_and_a_worker_answers(client, alice, monkeypatch):
    monkeypatch.setattr(selfchecking, "available", lambda: {"rouge": replace(ROUGE, checks=(HALF,))})
    client.force_login(alice)
    assert "Nobody has asked yet" in client.get(reverse("selfcheck")).content.decode()
    client.post(reverse("selfcheck"))
    client.post(reverse("selfcheck"))
    assert SelfCheck.objects.count() == 1, "one that waits is enough"
    assert "asked for" in client.get(reverse("selfcheck")).content.decode()
    WorkerProcess(("cpu",)).selfcheck()
    page = client.get(reverse("selfcheck")).content.decode()
    assert "every known value that can be computed here was met" in page
    assert "one of two words" in page
    answer = client.get("/api/v1/selfcheck/").json()
    assert answer["state"] == "done" and answer["report"]["passed"]


@pytest.mark.django_db
def test_what_a_worker_does_no_other_does(atlas):
    asked = SelfCheck.objects.create()
    selfchecking.do_asked("one")
    first = SelfCheck.objects.get(pk=asked.pk).done_at
    selfchecking.do_asked("two")
    asked.refresh_from_db()
    assert asked.host == "one" and asked.done_at == first


@pytest.mark.django_db
def test_the_api_has_nothing_before_somebody_asks_and_takes_the_question(client, alice):
    client.force_login(alice)
    assert client.get("/api/v1/selfcheck/").status_code == 404
    answer = client.post("/api/v1/selfcheck/")
    assert answer.status_code == 202 and answer.json()["state"] == "asked"


@pytest.mark.django_db
def test_the_guide_computes_its_example_here_where_no_encoder_is_needed(client, alice):
    client.force_login(alice)
    page = client.get(reverse("guide")).content.decode()
    value = explaining.explained(ROUGE).values["rouge1"]["value"]
    assert 0 < value < 1
    assert f"{value:.3f}" in page or f"{value:.3f}"[1:] in page


def test_the_command_prints_it_as_json(monkeypatch, capsys, django_db_blocker):
    monkeypatch.setattr(selfchecking, "available", lambda: {"rouge": replace(ROUGE, checks=(HALF,))})
    options = cli.parser().parse_args(["selfcheck", "--json"])
    assert cli.selfcheck(options) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True

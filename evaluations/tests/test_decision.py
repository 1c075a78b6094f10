"""The decision from end to end: what finalize stores of it, and what the API and the page show."""

from __future__ import annotations

from typing import Any

import pytest

from evaluations import comparing, filtering, importing, steering
from evaluations.models import Candidate, Experiment, Generation
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, run, work_off

pytestmark = pytest.mark.django_db(transaction=True)
N = 48
SOURCES = [
    f"Team {number} met on day {number}. It chose plan {number % 5}. The budget is {number} coins. {'More. ' * number}"
    for number in range(N)
]
URIS = {"lead-3": "baseline://lead-3", "random-3": "baseline://random-3", "oracle": "oracle://greedy"}
BASELINES = [{"model": uri, "label": f"baseline/{name}"} for name, uri in URIS.items()]
REFERENCES = [f"Team {number} chose plan {number % 5} with a budget of {number} coins." for number in range(N)]


def outputs(worse_on_phone: bool) -> list[str]:
    """References, of which those of phone calls lack their second half if so wished."""
    return [
        " ".join(text.split()[:4]) if worse_on_phone and number % 2 else text.replace("with", "and")
        for number, text in enumerate(REFERENCES)
    ]


@pytest.fixture
def finished(atlas: Any) -> Experiment:
    """Two imported candidates that differ on phone calls only, one of which has a price, and the baselines."""
    tags = [{"channel": "phone" if number % 2 else "mail"} for number in range(N)]
    dataset = make_dataset(atlas, SOURCES, REFERENCES, tags=tags)
    experiment = make_experiment(dataset, *BASELINES, margin=0.05, metrics=["rouge", "chrf"])
    for label, worse in (("steady", False), ("hasty", True)):
        importing.import_rows(experiment, label, ({"output": text} for text in outputs(worse)))
    return run(experiment)


def numbers(experiment: Experiment) -> dict[str, dict[str, Any]]:
    return {row["label"]: row for row in comparing.comparison(experiment)["candidates"]}


def test_the_slices_find_where_a_candidate_is_worse(finished: Experiment) -> None:
    document = comparing.comparison(finished)
    ids = {row["label"]: row["candidate"] for row in document["candidates"]}
    assert document["leader"] == ids["steady"]
    slices = {each["key"]: each for each in document["slices"]["rows"]}
    assert {"tag:channel=mail", "tag:channel=phone", "length:1", "length:4"} <= set(slices)
    told = {key: {cell["candidate"]: cell for cell in each["cells"]}[ids["hasty"]] for key, each in slices.items()}
    assert told["tag:channel=phone"]["difference"] < -0.1
    assert told["tag:channel=phone"]["p"] < 0.01
    assert told["tag:channel=mail"]["difference"] == 0
    lead = {cell["candidate"]: cell for cell in slices["length:1"]["cells"]}[ids["baseline/lead-3"]]
    assert lead["mean"] is not None
    assert lead["verdict"] is None, "baselines are shown, and not tested"


@pytest.mark.parametrize("key", ["tag:channel=phone", "length:1", "length:4"])
def test_a_slice_narrows_the_list_of_documents_to_its_own(
    finished: Experiment, bob: Any, as_user: Any, key: str
) -> None:
    expected = next(each for each in filtering.slices(finished) if each["key"] == key)["n"]
    client = as_user(bob, api=True)
    for sort in ("spread", "index"):
        page = client.get(f"/api/v1/experiments/{finished.pk}/examples/", {"slice": key, "sort": sort}).json()
        assert len(page["results"]) == expected
    if key.startswith("tag"):
        assert all(row["index"] % 2 for row in page["results"])


def test_documents_that_a_model_cut_are_a_slice(atlas: Any, bob: Any, as_user: Any) -> None:
    experiment = run(make_experiment(make_dataset(atlas, SOURCES, REFERENCES), make_fake(atlas)))
    cut = Generation.objects.filter(candidate__label="fake", example__index__lt=12)
    Generation.objects.filter(candidate__label="fake").update(input_tokens=100, input_tokens_read=100)
    cut.update(input_tokens_read=60)
    steering.start(experiment)
    work_off()
    client = as_user(bob, api=True)
    for key, expected in (("cut:yes", 12), ("cut:no", N - 12)):
        found = client.get(f"/api/v1/experiments/{experiment.pk}/examples/", {"slice": key, "page_size": 100}).json()
        assert len(found["results"]) == expected


def test_another_slice_is_refused_in_words(finished: Experiment, bob: Any, as_user: Any) -> None:
    answer = as_user(bob, api=True).get(f"/api/v1/experiments/{finished.pk}/examples/?slice=tag:channel=fax")
    assert answer.status_code == 400
    assert "there is no slice 'tag:channel=fax'" in str(answer.json()["errors"])
    assert as_user(bob).get(f"/experiments/{finished.pk}/examples/?slice=nowhere").status_code == 404


def test_a_price_puts_a_candidate_on_the_front_and_none_keeps_it_off(finished: Experiment) -> None:
    assert numbers(finished)["steady"]["front"] == {"cost": None, "latency": None}
    priced = Candidate.objects.get(experiment=finished, label="steady")
    Candidate.objects.filter(pk=priced.pk).update(
        spec={**priced.spec, "scheme": "openai", "privacy": "external", "price": {"in": 1.0, "out": 1.0}}
    )
    for each in priced.generations.all():
        Generation.objects.filter(pk=each.pk).update(reused=True, cost_micro=900 + each.pk % 7, latency_ms=40)
    steering.start(finished)
    work_off()
    finished.refresh_from_db()
    told = numbers(finished)
    assert told["steady"]["front"] == {"cost": 1.0, "latency": 1.0}
    assert told["steady"]["cost_per_1000_usd"] == pytest.approx(0.9, abs=0.01)
    assert told["hasty"]["front"] == {"cost": None, "latency": None}
    assert told["baseline/oracle"]["front"] == {"cost": None, "latency": None}, "a bound is no choice"
    assert told["baseline/lead-3"]["front"]["cost"] is not None


def test_the_margin_is_told_against_the_leader_and_against_anyone(finished: Experiment, bob: Any, as_user: Any) -> None:
    told = numbers(finished)
    assert told["steady"]["non_inferiority"] is None
    assert told["hasty"]["non_inferiority"]["verdict"] == "worse"
    hasty = told["hasty"]["candidate"]
    client, here = as_user(bob, api=True), f"/api/v1/experiments/{finished.pk}/comparison/"
    turned = client.get(f"{here}?against={hasty}").json()
    rows = {row["label"]: row for row in turned["candidates"]}
    assert (turned["reference_candidate"], turned["leader"]) == (hasty, told["steady"]["candidate"])
    assert rows["steady"]["non_inferiority"]["verdict"] == "non-inferior"
    assert rows["steady"]["versus_reference"]["difference"] == pytest.approx(
        -rows["hasty"]["versus_leader"]["rougeLsum"]["difference"]
    )
    assert turned["recommendation"] == client.get(here).json()["recommendation"]
    for unknown in ("999999", "all"):
        assert client.get(f"{here}?against={unknown}").status_code == 400


def test_the_rate_of_answers_has_its_interval(finished: Experiment) -> None:
    low, high = numbers(finished)["steady"]["answer_rate_interval"]
    assert (low, high) == (pytest.approx(N / (N + 1.96**2), abs=1e-3), 1.0)


def test_equal_outputs_are_an_alarm(atlas: Any) -> None:
    dataset = make_dataset(atlas, SOURCES, REFERENCES)
    experiment = run(make_experiment(dataset, make_fake(atlas), make_fake(atlas, "twin")))
    [alarm] = [text for text in comparing.comparison(experiment)["alarms"] if "same text" in text]
    assert alarm == "fake and twin gave the same text on nearly every document: are they one model?"


def test_the_only_model_is_not_said_to_be_probably_the_best(atlas: Any) -> None:
    dataset = make_dataset(atlas, SOURCES, REFERENCES)
    experiment = run(make_experiment(dataset, make_fake(atlas), *BASELINES))
    assert [row["p_best"] for row in numbers(experiment).values()] == [None] * 4


def test_finalizing_again_changes_nothing(finished: Experiment) -> None:
    before = finished.statistics
    steering.start(finished)
    work_off()
    finished.refresh_from_db()
    assert finished.statistics == before


def test_the_page_shows_every_panel(finished: Experiment, as_user: Any, vera: Any) -> None:
    html = as_user(vera).get(f"/experiments/{finished.pk}/comparison/").content.decode()
    for words in (
        "May it be chosen at all?", "Within 0.05?", "Would another metric have chosen otherwise?",
        "Where is it better or worse?", "channel: phone", "How are the values spread?", "Every pair on",
        "?slice=tag%3Achannel%3Dphone", "Readings that were not made",
    ):  # fmt: skip
        assert words in html, words


def test_another_reference_lives_in_the_address(finished: Experiment, as_user: Any, vera: Any) -> None:
    hasty = Candidate.objects.get(experiment=finished, label="hasty").pk
    client, here = as_user(vera), f"/experiments/{finished.pk}/comparison/"
    html = client.get(f"{here}?against={hasty}").content.decode()
    assert "Against hasty" in html
    assert f'<option value="{hasty}" selected>' in html
    assert client.get(f"{here}?against=999999").status_code == 404


def test_an_experiment_finalized_before_these_numbers_were_kept_still_opens(
    finished: Experiment, as_user: Any, vera: Any
) -> None:
    kept = ("leader", "ranked", "best_group", "p_best", "ranks", "detectable", "n", "groups", "warnings", "signature")
    old = {
        part: {digest: {name: told[name] for name in kept} for digest, told in by.items()}
        for part, by in finished.statistics.items()
    }
    Experiment.objects.filter(pk=finished.pk).update(statistics=old)
    for candidate in finished.candidates.all():
        summary = {
            name: value for name, value in candidate.summary.items() if name not in ("alike", "answer_rate_interval")
        }
        Candidate.objects.filter(pk=candidate.pk).update(summary=summary)
    html = as_user(vera).get(f"/experiments/{finished.pk}/comparison/")
    assert html.status_code == 200
    assert "Where is it better or worse?" not in html.content.decode()

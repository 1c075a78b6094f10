"""The pages of experiments: who may see them, what they show, and that hostile text is only text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.utils import timezone

from datasets_app.models import Dataset, Example
from evaluations import finalizing, leasing, metrics, scoring
from evaluations.models import Candidate, Experiment, Generation, Score, WorkUnit
from lumigator.models import AuditEvent
from models_registry.models import ModelEntry

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


class Structure(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def assert_harmless(response: Any) -> None:
    """No script but the linked ones, no handler and no style in an attribute."""
    for tag, attributes in Structure(response.content.decode()).tags:
        assert tag != "script" or "src" in attributes
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        assert not (attributes.get("href") or "").lower().startswith("javascript:")


def make_dataset(
    team: Any, *, n: int = 32, source: str = "The council met on Monday. It approved the budget."
) -> Dataset:
    dataset = Dataset.objects.create(team=team, name="Minutes", state="importing")
    Example.objects.bulk_create(
        Example(
            dataset=dataset, index=index, source=f"{source} Item {index}.", references=[f"Budget {index} approved."]
        )
        for index in range(n)
    )
    dataset.state, dataset.n_examples, dataset.n_with_reference = "ready", n, n
    dataset.save()
    return dataset


def make_experiment(team: Any, dataset: Dataset, *labels: str) -> Experiment:
    experiment = Experiment.objects.create(
        team=team, name="First look", dataset=dataset, metrics=[{"name": "rouge", "options": {}}], seed=3
    )
    for position, label in enumerate(labels):
        Candidate.objects.create(
            experiment=experiment,
            label=label,
            position=position,
            provider="fake",
            queue="cpu",
            spec={"privacy": "local"},
        )
    return experiment


def go(experiment: Experiment, *states: str) -> None:
    for state in states:
        Experiment.objects.filter(pk=experiment.pk).update(state=state, round=1, started_at=timezone.now())
    experiment.refresh_from_db()


def finish(experiment: Experiment, outputs: dict[str, str]) -> None:
    """Let every candidate write its text (with the document's number) for every document, score it and finalize."""
    go(experiment, "planning", "running")
    metric = metrics.available()["rouge"]
    signature = scoring.keep_signature(metric, {})
    for candidate in experiment.candidates.all():
        for example in experiment.dataset.examples.all():
            text = outputs[candidate.label].format(example.index)
            Generation.objects.create(
                candidate=candidate, example=example, status="ok", text=text, latency_ms=20 + example.index,
                output_tokens=5, input_tokens=900, input_tokens_read=512,
            )  # fmt: skip
            value = metric.score([metrics.Item(text, tuple(example.references), example.source)], metric.defaults)[0]
            Score.objects.bulk_create(
                Score(candidate=candidate, example=example, part=part, value=number, signature=signature)
                for part, number in value.items()
            )
    WorkUnit.objects.create(experiment=experiment, kind="finalize", queue="cpu", round=1)
    lease = leasing.claim("finalize", "test")
    assert lease is not None
    finalizing.finalize(lease)
    experiment.refresh_from_db()


@pytest.fixture
def draft(atlas: Any) -> Experiment:
    return make_experiment(atlas, make_dataset(atlas), "good", "poor")


@pytest.fixture
def finished(draft: Experiment) -> Experiment:
    finish(draft, {"good": "Budget {} approved.", "poor": "It rained on {} dogs."})
    return draft


def pages_of(experiment: Experiment) -> list[str]:
    base = f"/experiments/{experiment.pk}/"
    return [base, f"{base}progress/", f"{base}comparison/", f"{base}examples/", f"{base}examples/0/"]


def test_a_viewer_reads_every_page(finished: Experiment, as_user: Any, vera: Any) -> None:
    client = as_user(vera)
    for path in ["/", "/guide/", "/components/", "/experiments/", *pages_of(finished)]:
        response = client.get(path)
        assert response.status_code == 200, path
        assert_harmless(response)


def test_another_team_cannot_tell_that_it_exists(finished: Experiment, as_user: Any, charlie: Any) -> None:
    client = as_user(charlie)
    assert finished.name not in client.get("/experiments/").content.decode()
    for path in pages_of(finished):
        assert client.get(path).status_code == 404, path
    for verb in ("start", "pause", "resume", "cancel"):
        assert client.post(f"/experiments/{finished.pk}/{verb}/").status_code == 404


def test_nobody_reads_without_signing_in(finished: Experiment, client: Any) -> None:
    for path in ["/experiments/", *pages_of(finished)]:
        assert client.get(path).status_code == 302, path


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "cancel"])
def test_a_viewer_changes_nothing(verb: str, draft: Experiment, as_user: Any, vera: Any) -> None:
    assert as_user(vera).post(f"/experiments/{draft.pk}/{verb}/").status_code == 403
    draft.refresh_from_db()
    assert draft.state == "draft"


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "cancel"])
def test_a_link_changes_nothing(verb: str, draft: Experiment, as_user: Any, bob: Any) -> None:
    assert as_user(bob).get(f"/experiments/{draft.pk}/{verb}/").status_code == 405


def test_a_viewer_is_offered_no_button_that_would_be_refused(
    draft: Experiment, as_user: Any, vera: Any, bob: Any
) -> None:
    address = f"/experiments/{draft.pk}/start/"
    assert address not in as_user(vera).get(f"/experiments/{draft.pk}/").content.decode()
    assert address in as_user(bob).get(f"/experiments/{draft.pk}/").content.decode()


def test_the_comparison_opens_with_the_answer(finished: Experiment, as_user: Any, vera: Any) -> None:
    html = as_user(vera).get(f"/experiments/{finished.pk}/comparison/").content.decode()
    assert "<h1>Which model summarizes Minutes best?</h1>" in html
    assert re.search(r'<p class="lede">\s*Choose good', html)
    assert "the leader" in html
    assert "▼</span> worse" in html
    assert 'class="interval' in html


def test_another_metric_is_labelled_as_not_the_one_that_decides(finished: Experiment, as_user: Any, vera: Any) -> None:
    client = as_user(vera)
    html = client.get(f"/experiments/{finished.pk}/comparison/?metric=rouge1").content.decode()
    assert "By ROUGE-1 instead of ROUGE-Lsum:" in html
    assert client.get(f"/experiments/{finished.pk}/comparison/?metric=secret").status_code == 404
    assert client.get(f"/experiments/{finished.pk}/comparison/?metric=rougeLsum").status_code == 200


def test_the_order_is_in_the_address(finished: Experiment, as_user: Any, vera: Any) -> None:
    html = as_user(vera).get(f"/experiments/{finished.pk}/comparison/?sort=value").content.decode()
    rows = re.findall(r'<tr id="candidate-(\d+)">', html)
    worst = finished.candidates.get(label="poor").pk
    assert rows[0] == str(worst)
    assert 'aria-sort="ascending"' in html


def test_documents_come_with_the_largest_disagreement_first(finished: Experiment, as_user: Any, vera: Any) -> None:
    Score.objects.filter(candidate__label="poor", example__index=7, part="rougeLsum").update(value=0.999)
    html = as_user(vera).get(f"/experiments/{finished.pk}/examples/").content.decode()
    links = re.findall(r"/examples/(\d+)/", html)
    assert len(links) == 32
    assert links[-1] == "7"


@pytest.mark.parametrize("query", ["?sort=created_by__password", "?after=nonsense", "?sort=-999999"])
def test_an_order_that_does_not_exist_is_refused(query: str, finished: Experiment, as_user: Any, vera: Any) -> None:
    assert as_user(vera).get(f"/experiments/{finished.pk}/examples/{query}").status_code == 400


def test_an_example_shows_the_difference_what_was_cut_and_the_way_on(
    finished: Experiment, as_user: Any, vera: Any
) -> None:
    html = as_user(vera).get(f"/experiments/{finished.pk}/examples/4/").content.decode()
    assert "<ins>" in html
    assert "read 512 of 900 tokens" in html
    assert 'rel="prev" href="/experiments/' in html
    assert 'rel="next" href="/experiments/' in html
    assert "<ins>It" not in as_user(vera).get(f"/experiments/{finished.pk}/examples/4/?against=none").content.decode()


def test_a_document_that_does_not_exist_has_no_page(finished: Experiment, as_user: Any, vera: Any) -> None:
    assert as_user(vera).get(f"/experiments/{finished.pk}/examples/999/").status_code == 404


def test_hostile_text_is_only_text_everywhere(atlas: Any, as_user: Any, bob: Any) -> None:
    dataset = make_dataset(atlas, n=12, source=HOSTILE)
    Dataset.objects.filter(pk=dataset.pk).update(name=HOSTILE)
    dataset.refresh_from_db()
    experiment = make_experiment(atlas, dataset, HOSTILE, "plain")
    Experiment.objects.filter(pk=experiment.pk).update(name=HOSTILE, problem=HOSTILE)
    finish(experiment, {HOSTILE: HOSTILE.replace("{", "") + " {}", "plain": "Budget {} approved."})
    Candidate.objects.filter(experiment=experiment).update(problem=HOSTILE)
    client = as_user(bob)
    for path in ["/", "/experiments/", "/experiments/new/", *pages_of(experiment)]:
        response = client.get(path)
        assert response.status_code == 200
        assert_harmless(response)
        assert b"<script>alert" not in response.content


def test_progress_asks_again_until_the_state_is_final(draft: Experiment, as_user: Any, vera: Any) -> None:
    client = as_user(vera)
    go(draft, "planning", "running")
    running = client.get(f"/experiments/{draft.pk}/progress/?state=running&said=Running")
    assert 'hx-trigger="every 2s"' in running.content.decode()
    assert "HX-Refresh" not in running.headers
    go(draft, "cancelling", "cancelled")
    ended = client.get(f"/experiments/{draft.pk}/progress/?state=running&said=Running")
    assert "hx-trigger" not in ended.content.decode()
    assert ended.headers["HX-Refresh"] == "true"


def test_a_page_without_script_reloads_itself_while_work_goes_on(draft: Experiment, as_user: Any, vera: Any) -> None:
    client = as_user(vera)
    assert "http-equiv" not in client.get(f"/experiments/{draft.pk}/").content.decode()
    go(draft, "planning", "running")
    assert '<noscript><meta http-equiv="refresh"' in client.get(f"/experiments/{draft.pk}/").content.decode()


def test_the_listener_is_told_only_what_is_new(draft: Experiment, as_user: Any, vera: Any) -> None:
    client = as_user(vera)
    go(draft, "planning", "running")
    assert 'role="status"' in client.get(f"/experiments/{draft.pk}/progress/?said=Planning").content.decode()
    assert 'role="status"' not in client.get(f"/experiments/{draft.pk}/progress/?said=Running").content.decode()


def test_missing_workers_are_said_with_the_cure(draft: Experiment, as_user: Any, vera: Any) -> None:
    go(draft, "planning", "running")
    assert "lumigator worker" in as_user(vera).get(f"/experiments/{draft.pk}/").content.decode()


def test_an_editor_cancels_and_the_audit_log_knows(draft: Experiment, as_user: Any, bob: Any) -> None:
    assert as_user(bob).post(f"/experiments/{draft.pk}/cancel/").status_code == 302
    draft.refresh_from_db()
    assert draft.state == "cancelled"
    assert AuditEvent.objects.filter(action="experiment.cancel", object_id=str(draft.pk), actor="bob").count() == 1


def test_what_could_not_be_done_is_said(draft: Experiment, as_user: Any, bob: Any) -> None:
    response = as_user(bob).post(f"/experiments/{draft.pk}/pause/", follow=True)
    assert "Nothing was changed: the experiment was draft" in response.content.decode()
    assert not AuditEvent.objects.filter(action="experiment.pause").exists()


@pytest.fixture
def entry(atlas: Any) -> ModelEntry:
    return ModelEntry.objects.create(
        team=atlas, slug="fake/plain", name="Pretend", uri="fake://plain", architecture="causal", privacy="local"
    )


def asked(dataset: Dataset, /, **changes: Any) -> dict[str, Any]:
    return {
        "dataset": dataset.pk, "models": ["fake/plain"], "metrics": ["rouge"], "primary_metric": "rougeLsum",
        "seed": "5", "sample_n": "10", "then": "keep", **changes,
    }  # fmt: skip


def test_the_form_makes_a_draft(atlas: Any, entry: ModelEntry, as_user: Any, bob: Any) -> None:
    response = as_user(bob).post("/experiments/new/", asked(make_dataset(atlas), margin="0.01", budget_usd="2.5"))
    made = Experiment.objects.get()
    assert response.status_code == 302
    assert response["Location"] == f"/experiments/{made.pk}/"
    assert (made.state, made.seed, made.sample_n, made.margin, made.budget_micro) == ("draft", 5, 10, 0.01, 2_500_000)
    assert [candidate.label for candidate in made.candidates.all()] == ["fake/plain"]
    assert made.created_by == bob


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"models": []}, "models"), ({"metrics": []}, "metrics"), ({"primary_metric": "meteor"}, "primary_metric"),
        ({"prompt": "no place for the document"}, "prompt"), ({"margin": "-1"}, "margin"),
        ({"sample_n": "0"}, "sample_n"), ({"models": ["not/there"]}, "models"), ({"dataset": "999999"}, "dataset"),
    ],
)  # fmt: skip
def test_what_is_refused_is_said_beside_its_field_and_kept(
    changes: dict[str, Any], field: str, atlas: Any, entry: ModelEntry, as_user: Any, bob: Any
) -> None:
    response = as_user(bob).post("/experiments/new/", asked(make_dataset(atlas), **changes))
    assert response.status_code == 422
    assert response.context["form"].errors[field]
    assert 'class="errorlist"' in response.content.decode()
    assert not Experiment.objects.exists()


def test_a_dataset_of_another_team_cannot_be_chosen(
    atlas: Any, basalt: Any, entry: ModelEntry, as_user: Any, bob: Any
) -> None:
    response = as_user(bob).post("/experiments/new/", asked(make_dataset(basalt)))
    assert response.status_code == 422
    assert not Experiment.objects.exists()


def test_a_model_that_cannot_run_is_offered_with_the_reason(atlas: Any, as_user: Any, bob: Any) -> None:
    ModelEntry.objects.create(
        team=atlas, slug="openai/x", name="Far away", uri="openai://x", architecture="causal", privacy="external"
    )
    html = as_user(bob).get("/experiments/new/").content.decode()
    assert "there is no connection" in html
    assert re.search(r'value="openai/x" disabled', html)


def test_a_viewer_is_not_asked(as_user: Any, vera: Any) -> None:
    assert as_user(vera).get("/experiments/new/").status_code == 403


def test_the_browsable_api_wears_the_same_clothes(finished: Experiment, as_user: Any, vera: Any) -> None:
    response = as_user(vera).get("/api/v1/experiments/", headers={"accept": "text/html"})
    assert response.status_code == 200
    assert b"lumigator/site.css" in response.content
    assert b"bootstrap" not in response.content
    assert_harmless(response)


def test_long_lists_come_in_pages(atlas: Any, as_user: Any, vera: Any) -> None:
    dataset = make_dataset(atlas, n=1)
    Experiment.objects.bulk_create(Experiment(team=atlas, dataset=dataset, name=f"Number {i}") for i in range(60))
    client = as_user(vera)
    first = client.get("/experiments/").content.decode()
    names = re.findall(r"Number \d+", first)
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following is not None
    second = client.get(f"/experiments/{following[1]}").content.decode()
    assert len(set(names)) == 50
    assert len({*names, *re.findall(r"Number \d+", second)}) == 60
    assert "No experiment is in this state" in client.get("/experiments/?show=ended").content.decode()


def test_a_list_of_any_length_costs_the_same_queries(
    atlas: Any, as_user: Any, vera: Any, django_assert_max_num_queries: Any
) -> None:
    dataset = make_dataset(atlas, n=1)
    Experiment.objects.bulk_create(Experiment(team=atlas, dataset=dataset, name=f"Number {i}") for i in range(50))
    client = as_user(vera)
    with django_assert_max_num_queries(4):  # session, user, membership, the list
        client.get("/experiments/")


def test_the_comparison_costs_the_same_queries_for_any_number_of_documents(
    finished: Experiment, as_user: Any, vera: Any, django_assert_max_num_queries: Any
) -> None:
    client = as_user(vera)
    with django_assert_max_num_queries(12):
        client.get(f"/experiments/{finished.pk}/comparison/")

"""Checks: asked for by people, done by workers that really load the model or call its service, told in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from evaluations import probing, sweeping
from evaluations.models import Worker
from evaluations.tests.engine import make_fake, work_off
from evaluations.working import WorkerProcess
from lumigator.doorbell import QUEUES
from models_registry import adding, curating, trying
from models_registry.models import Connection, ModelCheck, ModelEntry
from models_registry.testing_api import serve

pytestmark = pytest.mark.django_db(transaction=True)
MODELS = "/api/v1/models/"
KEY = "sk-canary-5d1b0c77aa"


def draft(team, uri: str, **facts) -> ModelEntry:
    return adding.add(team, uri=uri, by="bob", **facts)


def checked(entry: ModelEntry) -> ModelCheck:
    """Ask, let a worker do it, and read what came of it."""
    asked = trying.ask(entry, by="bob")
    work_off()
    asked.refresh_from_db()
    return asked


# Models that run here


@pytest.fixture
def local(atlas, tiny: Callable[[str], Path], settings) -> Callable[[str], ModelEntry]:
    def added(name: str) -> ModelEntry:
        folder = tiny(name)
        settings.MODEL_ROOTS = {"lab": folder.parent}
        return draft(atlas, f"file://lab/{folder.name}", slug=name, generation={"max_new_tokens": 20})

    return added


def test_a_worker_loads_it_and_tells_what_it_is_and_how_fast(local) -> None:
    entry = local("llama")
    assert entry.state == "draft"
    check = checked(entry)
    assert (check.state, check.report["problems"]) == ("done", [])
    report = check.report
    assert report["seconds_to_load"] > 0
    assert report["seconds_per_summary"] > 0
    assert report["tokens_per_second"] > 0
    assert report["peak_memory_bytes"] > 50_000_000
    assert (report["window"], report["chat_template"], report["dtype"], report["device"]) == (
        256,
        True,
        "float32",
        "cpu",
    )
    assert report["engine"]
    assert report["output_tokens"] > 0
    assert report["summary"]
    assert check.host.endswith("+".join(QUEUES))
    assert check.begun_at <= check.ended_at
    entry.refresh_from_db()
    assert (entry.state, entry.parameters) == ("checked", report["parameters"])
    assert entry.changes.first().note == f"check {check.pk} found that it works"


def test_weights_that_cannot_be_loaded_are_told_in_words_and_it_stays_a_draft(local, tmp_path: Path, settings) -> None:
    import shutil

    entry = local("bart")
    copy = tmp_path / "shelf" / "bart"
    shutil.copytree(settings.MODEL_ROOTS["lab"] / entry.uri.rpartition("/")[2], copy)
    settings.MODEL_ROOTS = {"lab": copy.parent}
    ModelEntry.objects.filter(pk=entry.pk).update(uri="file://lab/bart")
    entry.refresh_from_db()
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"d_model": 32', '"d_model": 64'))
    check = checked(entry)
    assert check.state == "failed"
    assert "cannot be loaded" in check.report["problems"][0]
    entry.refresh_from_db()
    assert entry.state == "draft"


@pytest.mark.parametrize(
    ("fault", "words"), [("segfault", "SIGSEGV"), ("exit", "exit status 3"), ("error", "gave none")]
)
def test_a_model_that_dies_takes_no_worker_with_it(atlas, fault: str, words: str) -> None:
    entry = make_fake(atlas, scheme="fakehost", faults={"bridge": fault})
    check = checked(entry)
    assert check.state == "failed"
    assert words in check.report["problems"][0]
    assert trying.SAMPLE[:40] not in str(check.report["problems"])


def test_a_baseline_is_tried_like_all_others(atlas) -> None:
    check = checked(draft(atlas, "baseline://lead-2"))
    assert (check.state, check.queue) == ("done", "cpu")
    assert check.report["summary"].startswith("The town council")
    assert "peak_memory_bytes" not in check.report


def test_what_reads_the_reference_is_given_one(atlas) -> None:
    assert checked(draft(atlas, "oracle://greedy")).state == "done"


# Services


def connect(team, origin: str, *, key: str = KEY) -> Connection:
    made = Connection(team=team, name="main", provider="openai", base_url=f"{origin}/v1", read_timeout=1)
    made.set_key(key)
    made.save()
    return made


def test_a_service_is_called_once_and_the_call_is_priced(atlas, settings) -> None:
    with serve(key=KEY) as server:
        settings.EGRESS_ALLOW = [server.allow]
        connect(atlas, server.origin)
        check = checked(draft(atlas, "openai://first-sentence", price_in="2", price_out="8"))
        assert len(server.calls) == 1
    assert (check.state, check.queue) == ("done", "api")
    assert check.report["summary"].startswith("The town council")
    tokens = check.report["input_tokens"] * 2 + check.report["output_tokens"] * 8
    assert check.report["cost_usd"] == tokens / 1_000_000
    assert KEY not in str(check.report)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("auth", "replace the key"), ("html", "check the base URL"), ("hang", "s"), ("unknown_model", "knows no model")],
)
def test_a_service_that_does_not_answer_well_says_what_to_do(atlas, settings, fault: str, words: str) -> None:
    from models_registry.testing_api import FAULTS

    with serve() as server:
        settings.EGRESS_ALLOW = [server.allow]
        connect(atlas, server.origin)
        server.answer(FAULTS[fault])
        check = checked(draft(atlas, "openai://first-sentence"))
    assert check.state == "failed"
    assert words in check.report["problems"][0]


def test_what_is_known_to_be_missing_ends_the_check_before_a_worker_is_asked(atlas) -> None:
    check = trying.ask(draft(atlas, "openai://gpt-x"), by="bob")
    assert (check.state, check.host) == ("failed", "")
    assert "no connection for openai" in check.report["problems"][0]
    assert not sweeping.waiting(QUEUES)


# The rows


def test_one_check_of_a_model_is_open_at_a_time(atlas) -> None:
    entry = draft(atlas, "baseline://lead-2")
    assert trying.ask(entry, by="bob") == trying.ask(entry, by="vera")
    with pytest.raises(IntegrityError), transaction.atomic():
        ModelCheck.objects.create(entry=entry, queue="cpu")


def test_only_one_worker_takes_it(atlas) -> None:
    asked = trying.ask(draft(atlas, "baseline://lead-2"), by="bob")
    assert trying.begin(asked.pk, "one") is not None
    assert trying.begin(asked.pk, "two") is None


def test_a_worker_that_vanishes_is_replaced_and_the_second_time_the_model_is_blamed(atlas) -> None:
    asked = trying.ask(draft(atlas, "baseline://lead-2"), by="bob")
    for turn in (1, 2):
        assert trying.begin(asked.pk, f"worker-{turn}") is not None
        probing.mend()
        asked.refresh_from_db()
        assert asked.state == ("asked" if turn == 1 else "failed")
    assert "vanished" in asked.report["problems"][0]


def test_a_worker_that_lives_keeps_its_check(atlas) -> None:
    Worker.objects.create(name="alive", queues=["cpu"], seen_at=timezone.now())
    asked = trying.ask(draft(atlas, "baseline://lead-2"), by="bob")
    trying.begin(asked.pk, "alive")
    probing.mend()
    asked.refresh_from_db()
    assert asked.state == "running"


def test_a_late_report_of_a_worker_that_was_given_up_changes_nothing(atlas) -> None:
    asked = trying.ask(draft(atlas, "baseline://lead-2"), by="bob")
    lost = trying.begin(asked.pk, "slow")
    assert lost is not None
    probing.mend()
    assert trying.begin(asked.pk, "next") is not None
    assert not trying.end(lost, {"problems": []})
    assert ModelCheck.objects.get().state == "running"


def test_a_worker_that_stops_gives_it_back(atlas) -> None:
    entry = make_fake(atlas, scheme="fakehost", latency_ms=50)
    asked = trying.ask(entry, by="bob")
    worker = WorkerProcess(QUEUES)
    worker.stop()
    worker.check(asked.pk)
    asked.refresh_from_db()
    assert (asked.state, asked.attempts) == ("asked", 0)
    work_off()
    asked.refresh_from_db()
    assert asked.state == "done"


def test_a_retired_model_that_works_stays_retired(atlas) -> None:
    entry = draft(atlas, "baseline://lead-2")
    curating.move(entry, "retired", actor="bob")
    assert checked(entry).state == "done"
    entry.refresh_from_db()
    assert entry.state == "retired"


# API and pages


def test_the_api_starts_a_check_and_tells_how_it_ended(atlas, bob, as_user) -> None:
    client = as_user(bob, api=True)
    client.post(MODELS, {"uri": "baseline://lead-2"})
    address = f"{MODELS}baseline/lead-2/check/"
    assert client.get(address).status_code == 404
    answer = client.post(address)
    assert (answer.status_code, answer.json()["state"], answer.json()["can_run"]) == (202, "asked", None)
    work_off()
    body = client.get(address).json()
    assert (body["state"], body["can_run"], body["problems"], body["asked_by"]) == ("done", True, [], "bob")
    assert body["report"]["summary"].startswith("The town council")
    assert client.get(f"{MODELS}baseline/lead-2/").json()["latest_check"] == body


def test_a_viewer_reads_a_check_and_starts_none(atlas, vera, as_user) -> None:
    entry = draft(atlas, "baseline://lead-2")
    trying.ask(entry, by="bob")
    client = as_user(vera, api=True)
    assert client.get(f"{MODELS}{entry.slug}/check/").status_code == 200
    assert client.post(f"{MODELS}{entry.slug}/check/").status_code == 403


def test_the_page_waits_for_the_report_and_shows_it(atlas, bob, as_user) -> None:
    entry = draft(atlas, "baseline://lead-2")
    client, address = as_user(bob), f"/models/{entry.slug}/"
    assert "Nobody has tried yet" in client.get(address).content.decode()
    html = client.post(address, {"action": "check"}, follow=True).content.decode()
    assert "Waiting for a worker" in html
    assert f'hx-get="{address}check/"' in html
    assert 'http-equiv="refresh"' in html
    part = client.get(f"{address}check/", headers={"HX-Request": "true"})
    assert "Waiting for a worker" in part.content.decode()
    assert "HX-Refresh" not in part.headers
    work_off()
    assert client.get(f"{address}check/", headers={"HX-Request": "true"}).headers["HX-Refresh"] == "true"
    html = client.get(address).content.decode()
    assert "It works" in html
    assert "The town council decided" in html
    assert "hx-get" not in html.partition('id="check"')[2].partition("</section>")[0]
    assert client.get(f"{address}check/").headers["Location"] == address


def test_what_a_model_wrote_is_text_never_markup(atlas, bob, as_user) -> None:
    entry = make_fake(atlas, text="<script>alert(1)</script>")
    checked(entry)
    assert "<script>alert" not in as_user(bob).get(f"/models/{entry.slug}/").content.decode()

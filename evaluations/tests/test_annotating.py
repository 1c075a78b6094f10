"""References that a model drafts and people approve: asking, deciding, sharing the work, publishing."""

from __future__ import annotations

import pytest
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as some

from datasets_app.models import Dataset
from evaluations import annotating, leasing, planning, publishing, steering
from evaluations.agreeing import agreement
from evaluations.models import Draft, Experiment, Generation, GroundTruth, Score
from evaluations.tests.engine import make_dataset, make_fake, work_off
from lumigator.testing import make_member
from models_registry.models import ModelEntry

pytestmark = pytest.mark.django_db
DOCUMENTS = [f"Team {n} met. It chose plan {n % 5}. The budget is {n} coins." for n in range(12)]


def ask(dataset, **fields) -> GroundTruth:
    return annotating.create(team=dataset.team, user=None, data={"dataset": dataset, "model": "fake", **fields})


def drafted(dataset, **fields) -> GroundTruth:
    """Asked, started, and drafted to the end."""
    ground_truth = ask(dataset, **fields)
    assert steering.start(ground_truth.experiment)
    work_off()
    return GroundTruth.objects.get(pk=ground_truth.pk)


def decide(ground_truth, index, who, decision, text="", **more):
    draft = annotating.draft_of(ground_truth, index, user=who, reading=more.pop("reading", 0))
    return annotating.decide(draft, reviewer=who, decision=decision, version=draft.version, text=text, **more)


@pytest.fixture
def dataset(atlas):
    """Twelve documents; the first three have a reference."""
    return make_dataset(atlas, DOCUMENTS, ["Team 0 met.", "Team 1 met.", "Team 2 met."])


@pytest.fixture
def fake(atlas):
    return make_fake(atlas, text="{source:.11}")


@pytest.fixture
def run(dataset, fake):
    return drafted(dataset)


# --- drafting -------------------------------------------------------------------------------------------------------


def test_a_run_without_metrics_ends_with_a_draft_of_every_document(run):
    assert run.experiment.state == "completed"
    assert run.experiment.metrics == []
    assert not Score.objects.exists()
    counted = annotating.counts([run])[run.pk]
    assert (counted["documents"], counted["drafted"], counted["to_review"], counted["decided"]) == (12, 12, 12, 0)
    assert annotating.stage(run, counted) == annotating.TO_REVIEW


def test_it_is_no_comparison_and_stands_in_no_list_of_them(run, bob, as_user):
    assert not Experiment.objects.for_user(bob).exists()
    client = as_user(bob, api=True)
    assert client.get("/api/v1/experiments/").json()["results"] == []
    assert client.get(f"/api/v1/experiments/{run.experiment_id}/comparison/").status_code == 404
    assert client.get(f"/experiments/{run.experiment_id}/").status_code == 404


def test_only_the_sample_is_laid_out_and_planning_again_adds_nothing(dataset, fake):
    ground_truth = drafted(dataset, sample={"n": 5, "seed": 3})
    indexes = list(Draft.objects.values_list("index", flat=True))
    assert indexes == [int(index) for index in planning.sample_of(ground_truth.experiment)]
    assert steering.start(ground_truth.experiment)
    work_off()
    assert list(Draft.objects.values_list("index", flat=True)) == indexes


def test_a_plan_that_lost_its_lease_lays_nothing_out(dataset, fake):
    ground_truth = ask(dataset)
    assert steering.start(ground_truth.experiment)
    lease = leasing.claim("plan", "slow worker")
    assert lease is not None
    leasing.release(lease)
    assert leasing.claim("plan", "another") is not None
    with pytest.raises(leasing.Fenced):
        annotating.lay_out(lease, ground_truth.experiment, planning.sample_of(ground_truth.experiment))
    assert not Draft.objects.exists()


def test_what_cannot_be_done_is_refused_and_leaves_nothing(dataset, fake, atlas):
    ModelEntry.objects.create(
        team=atlas, slug="baseline/oracle", name="oracle", uri="oracle://greedy", is_baseline=True, privacy="local"
    )
    for wish, words in (("", "at least one model"), ("nobody", "nobody"), ("baseline/oracle", "reads the references")):
        with pytest.raises(planning.Refused, match=words):
            ask(dataset, model=wish)
    assert not Experiment.objects.exists()


def test_private_documents_are_drafted_here_only(atlas):
    dataset = make_dataset(atlas, DOCUMENTS[:2], privacy="local_only")
    ModelEntry.objects.create(
        team=atlas, slug="far", name="far", uri="openai://far", architecture="causal", privacy="external"
    )
    with pytest.raises(planning.Refused, match="never leaving"):
        ask(dataset, model="far")


def test_a_sealed_part_is_read_by_nobody(atlas, fake):
    with pytest.raises(planning.Refused, match="sealed for the final confirmation"):
        ask(make_dataset(atlas, DOCUMENTS[:2], sealed=True))


def test_a_look_at_the_plan_keeps_nothing(dataset, fake, bob):
    trial = annotating.trial(
        team=dataset.team, user=bob, data={"dataset": dataset, "model": "fake", "prompt": "Short, please: {document}"}
    )
    assert trial.plan["documents"] == trial.plan["calls"] == 12
    assert trial.plan["worst_case_cost_usd"] == 0
    assert not Experiment.objects.exists()
    assert not GroundTruth.objects.exists()


# --- deciding -------------------------------------------------------------------------------------------------------


def test_accept_edit_and_reject_are_saved_with_who_and_when(run, bob):
    decide(run, 0, bob, "accepted")
    decide(run, 1, bob, "edited", "Team 1 chose plan 1.")
    decide(run, 2, bob, "rejected")
    saved = list(Draft.objects.filter(index__lt=3).values_list("decision", "text", "reviewer", "version"))
    assert saved == [
        ("accepted", "", bob.pk, 1), ("edited", "Team 1 chose plan 1.", bob.pk, 1), ("rejected", "", bob.pk, 1),
    ]  # fmt: skip
    assert not Draft.objects.filter(index__lt=3, decided_at=None).exists()
    assert annotating.next_for(run, bob).index == 3


def test_an_edit_that_changes_nothing_is_an_acceptance(run, bob):
    text = Generation.objects.get(example__index=0).text
    assert decide(run, 0, bob, "edited", text).decision == "accepted"


def test_line_ends_of_a_browser_are_no_edit(dataset, atlas, bob):
    make_fake(atlas, text="Two\nlines.")
    assert decide(drafted(dataset), 0, bob, "edited", "Two\r\nlines.").decision == "accepted"


def test_two_reviewers_never_overwrite_each_other_unseen(run, bob, alice):
    seen = annotating.draft_of(run, 0, user=bob)
    decide(run, 0, alice, "rejected")
    with pytest.raises(annotating.Overtaken, match="alice rejected it"):
        annotating.decide(seen, reviewer=bob, decision="accepted", version=seen.version)
    assert Draft.objects.get(index=0).decision == "rejected"


def test_a_decision_can_be_changed_and_taken_back(run, bob):
    decide(run, 0, bob, "edited", "Mine.")
    decide(run, 0, bob, "unreviewed")
    draft = Draft.objects.get(index=0)
    assert (draft.decision, draft.text, draft.reviewer, draft.decided_at) == ("unreviewed", "", None, None)
    assert draft.version == 2
    assert annotating.next_for(run, bob).index == 0


@pytest.mark.parametrize(
    ("decision", "text", "words"),
    [("edited", " \n", "needs words"), ("perhaps", "", "it is one of"),
     ("edited", "x" * (annotating.LONGEST_REFERENCE + 1), "at most")],
)  # fmt: skip
def test_what_is_no_decision_is_refused(run, bob, decision, text, words):
    with pytest.raises(planning.Refused, match=words):
        decide(run, 0, bob, decision, text)
    assert Draft.objects.get(index=0).version == 0


def test_a_document_without_an_output_waits(dataset, fake, bob):
    ground_truth = ask(dataset)
    assert steering.start(ground_truth.experiment)
    lease = leasing.claim("plan", "test")
    assert lease is not None
    planning.plan(lease)
    assert annotating.next_for(ground_truth, bob) is None
    with pytest.raises(planning.Refused, match="not drafted this document yet"):
        decide(ground_truth, 0, bob, "rejected")


def test_where_the_model_failed_a_person_writes_or_rejects(dataset, atlas, bob):
    make_fake(atlas, text="Fine.")
    ground_truth = drafted(dataset)
    Generation.objects.filter(example__index=1).update(status="error", text="", error="it broke")
    with pytest.raises(planning.Refused, match="gave no draft"):
        decide(ground_truth, 1, bob, "accepted")
    assert decide(ground_truth, 1, bob, "edited", "By hand.").is_written
    counted = annotating.counts([ground_truth])[ground_truth.pk]
    assert (counted["written"], counted["edited"]) == (1, 0)


def test_what_was_written_by_hand_outlives_another_try_of_the_model(dataset, fake, bob):
    ground_truth = drafted(dataset)
    Generation.objects.filter(example__index=1).update(status="error", error_code="timeout", text="")
    decide(ground_truth, 1, bob, "edited", "By hand.")
    assert steering.resume(ground_truth.experiment)
    work_off()
    assert Generation.objects.get(example__index=1).status == "ok"
    draft = Draft.objects.get(index=1)
    assert (draft.text, draft.is_written) == ("By hand.", True)


def test_accepting_all_leaves_decisions_alone_and_stays_visible(run, alice, bob):
    decide(run, 0, bob, "rejected")
    Generation.objects.filter(example__index=1).update(status="error", text="")
    assert annotating.accept_all(run, alice) == 10
    counted = annotating.counts([run])[run.pk]
    assert (counted["accepted"], counted["in_bulk"], counted["rejected"], counted["to_review"]) == (10, 10, 1, 1)
    decide(run, 2, bob, "accepted")
    assert annotating.counts([run])[run.pk]["in_bulk"] == 9, "it was read since"


# --- several reviewers ----------------------------------------------------------------------------------------------


def test_the_work_is_split_evenly_and_everybody_sees_their_own(run, alice, bob):
    annotating.assign(run, [alice, bob])
    assert [annotating.to_do(run, who).count() for who in (alice, bob)] == [6, 6]
    theirs = annotating.next_for(run, alice)
    with pytest.raises(PermissionDenied, match="assigned to alice"):
        annotating.decide(theirs, reviewer=bob, decision="accepted", version=0)
    assert annotating.decide(theirs, reviewer=bob, decision="accepted", version=0, is_admin=True).reviewer == bob


def test_some_documents_are_read_twice_by_different_people(run, alice, bob, atlas):
    carol = make_member(atlas, "carol", "editor")
    annotating.assign(run, [alice, bob, carol], overlap=50)
    second = Draft.objects.filter(reading=2)
    assert second.count() == 6
    for draft in second:
        assert draft.assigned_to != Draft.objects.get(index=draft.index, reading=1).assigned_to
    load = [annotating.to_do(run, who).count() for who in (alice, bob, carol)]
    assert sum(load) == 18
    assert max(load) - min(load) <= 2


def test_assigning_again_keeps_what_was_decided(run, alice, bob):
    annotating.assign(run, [alice, bob], overlap=50)
    decided = Draft.objects.filter(reading=2, assigned_to=bob).first()
    decide(run, decided.index, bob, "rejected", reading=2)
    mine = annotating.next_for(run, alice)
    decide(run, mine.index, alice, "accepted")
    annotating.assign(run, [bob, alice], overlap=25)
    assert Draft.objects.filter(reading=2).count() == 3
    assert Draft.objects.get(pk=decided.pk).decision == "rejected"
    assert Draft.objects.get(pk=mine.pk).reviewer == alice
    annotating.assign(run, [])
    assert not Draft.objects.filter(decision="unreviewed").exclude(assigned_to=None).exists()


def test_who_may_not_edit_is_not_asked_to_review(run, vera, charlie, bob):
    for who, overlap, words in (([vera], 0, "vera may not"), ([charlie], 0, "charlie may not"), ([bob], 5, "two")):
        with pytest.raises(planning.Refused, match=words):
            annotating.assign(run, who, overlap)


def test_the_second_reading_measures_agreement_and_is_not_published(run, alice, bob):
    annotating.assign(run, [alice, bob], overlap=100)
    for index in range(4):
        first, second = Draft.objects.filter(index=index).order_by("reading")
        decide(run, index, first.assigned_to, "accepted", reading=1)
        decide(run, index, second.assigned_to, "accepted" if index else "rejected", reading=2)
    told = annotating.agreement(run)
    assert (told["n"], told["share"]) == (4, 0.75)
    assert told["kappa"] == 0.0  # 0.75 by chance, too: one of the two accepted everything
    assert publishing.publish(run, user=bob, rows="approved").dataset.n_examples == 4


def test_a_second_reading_is_nobody_elses_also_when_its_reader_left(run, alice, bob):
    annotating.assign(run, [alice, bob], overlap=100)
    left = Draft.objects.filter(reading=2, assigned_to=bob).first()
    bob.delete()
    assert not annotating.to_do(run, alice).filter(pk=left.pk).exists()
    with pytest.raises(PermissionDenied, match="somebody who left"):
        decide(run, left.index, alice, "accepted", reading=2, is_admin=True)


def test_an_unread_acceptance_counts_in_no_agreement(run, alice, bob):
    annotating.assign(run, [alice, bob], overlap=100)
    second = Draft.objects.get(index=0, reading=2)
    decide(run, 0, second.assigned_to, "accepted", reading=2)
    annotating.accept_all(run, alice)
    assert annotating.agreement(run)["n"] == 0


def test_kappa_of_the_worked_example():
    """25 + 10 documents disagree out of 50: kappa = (0.7 - 0.5) / (1 - 0.5), as computed by hand."""
    told = agreement({("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15})
    assert told.share == pytest.approx(0.7)
    assert told.kappa == pytest.approx(0.4)


@settings(deadline=None, max_examples=60)
@given(
    some.dictionaries(some.tuples(some.sampled_from("abc"), some.sampled_from("abc")), some.integers(1, 50), max_size=9)
)
def test_agreement_has_a_number_or_a_reason(pairs):
    told = agreement(pairs)
    assert told.n == sum(pairs.values())
    assert bool(told.reason) == (told.kappa is None)
    if told.kappa is not None:
        assert -1 <= told.kappa <= 1
        assert (told.kappa == 1) == (told.share == 1)
    swapped = agreement({(b, a): n for (a, b), n in pairs.items()})
    assert swapped.kappa == pytest.approx(told.kappa)


def test_counting_costs_the_same_for_one_and_for_many(dataset, fake):
    them = [drafted(dataset) for _ in range(3)]
    asked = []
    for few in (them[:1], them):
        with CaptureQueriesContext(connection) as queries:
            annotating.counts(few)
        asked.append(len(queries))
    assert asked == [3, 3]


# --- publishing -----------------------------------------------------------------------------------------------------


def published(ground_truth, who, **fields):
    made = publishing.publish(ground_truth, user=who, rows=fields.pop("rows", "approved"), **fields)
    return made, list(made.dataset.examples.order_by("index"))


def test_only_what_is_approved_is_published_with_where_it_comes_from(run, bob):
    decide(run, 1, bob, "accepted")
    decide(run, 4, bob, "edited", "Team 4 chose plan 4.")
    decide(run, 5, bob, "rejected")
    made, rows = published(run, bob)
    assert [row.source for row in rows] == [DOCUMENTS[1], DOCUMENTS[4]]
    assert rows[0].references == ["Team 1 met.", "Team 1 met."]
    assert rows[0].tags["references_by"] == "human model-accepted"
    assert rows[1].references == ["Team 4 chose plan 4."]
    assert rows[1].tags == {
        "references_by": "model-edited",
        "draft_model": "fake://fake",
        "draft_revision": "",
        "draft_prompt": run.candidate.spec["prompt_version"],
        "draft_reviewer": "bob",
        "draft_ground_truth": str(run.pk),
    }
    assert made.counts == {"rows": 2, "human": 1, "model-accepted": 1, "model-edited": 1}


def test_the_new_dataset_is_a_generated_child_as_private_as_its_parent(atlas, fake, bob):
    dataset = make_dataset(atlas, DOCUMENTS, [], privacy="local_only")
    run = drafted(dataset)
    decide(run, 0, bob, "accepted")
    child = published(run, bob)[0].dataset
    assert (child.state, child.origin, child.parent, child.privacy) == ("ready", "generated", dataset, "local_only")
    assert (child.n_examples, child.n_with_reference, child.created_by) == (1, 1, bob)
    assert child.columns["references"][-1] == "approved draft"
    assert "references_by" in child.columns["tags"]
    assert publishing.generated_by(child) == "fake://fake"
    assert publishing.generated_by(dataset) == ""
    dataset.refresh_from_db()
    assert dataset.n_with_reference == 0


def test_every_document_may_be_published_with_references_where_there_are_some(run, bob):
    decide(run, 0, bob, "rejected")
    decide(run, 7, bob, "accepted")
    told = publishing.publishable(run)
    assert (told["approved"], told["all"], told["with_reference"], told["unreviewed"]) == (1, 12, 4, 10)
    made, rows = published(run, bob, rows="all", name="Whole")
    assert made.dataset.name == "Whole"
    assert [row.source for row in rows] == DOCUMENTS
    assert (made.dataset.n_examples, made.dataset.n_with_reference) == (told["all"], told["with_reference"])
    assert rows[0].references == ["Team 0 met."]
    assert [rows[n].tags.get("references_by") for n in (0, 7, 8)] == ["human", "model-accepted", None]


def test_written_and_unread_ones_are_told_apart(run, alice, bob):
    Generation.objects.filter(example__index=3).update(status="error", text="")
    decide(run, 3, bob, "edited", "By hand.")
    annotating.accept_all(run, alice)
    _, rows = published(run, alice)
    assert rows[3].tags["references_by"] == "reviewer"
    assert rows[3].tags["draft_model"] == ""
    assert rows[4].tags["references_by"] == "model-bulk"


def test_generated_references_are_not_taken_for_human_ones_the_next_time(run, bob):
    decide(run, 0, bob, "accepted")
    decide(run, 5, bob, "edited", "Five.")
    again = drafted(published(run, bob)[0].dataset)
    decide(again, 0, bob, "accepted")
    decide(again, 1, bob, "accepted")
    _, rows = published(again, bob)
    assert rows[0].tags["references_by"] == "human model-accepted model-accepted"
    assert rows[1].tags["references_by"] == "model-edited model-accepted"
    assert Dataset.objects.get(pk=again.experiment.dataset_id).columns["tags"].count("references_by") == 1


def test_references_that_no_longer_fit_what_was_said_of_them_are_unknown(run, bob):
    decide(run, 5, bob, "accepted")
    _, rows = published(run, bob)
    rows[0].references.append("Added elsewhere.")
    assert publishing.references_by(rows[0]) == ["unknown", "unknown"]


def test_publishing_twice_makes_two_datasets_and_changing_later_touches_neither(run, bob):
    decide(run, 0, bob, "accepted")
    first, _ = published(run, bob)
    decide(run, 0, bob, "edited", "Better.")
    second, rows = published(run, bob)
    assert first.dataset != second.dataset
    assert first.dataset.examples.get().references[-1] == "Team 0 met."
    assert rows[0].references[-1] == "Better."


def test_nothing_approved_is_nothing_to_publish(run, bob):
    decide(run, 0, bob, "rejected")
    for rows, words in (("approved", "no draft is approved"), ("all", "no draft is approved"), ("some", "one of")):
        with pytest.raises(planning.Refused, match=words):
            publishing.publish(run, user=bob, rows=rows)
    assert Dataset.objects.count() == 1


def test_a_published_dataset_outlives_its_ground_truth(run, bob):
    decide(run, 0, bob, "accepted")
    child = published(run, bob)[0].dataset
    assert annotating.delete(run)
    assert child.examples.get().tags["draft_model"] == "fake://fake"
    assert publishing.generated_by(child) == ""
    assert not Draft.objects.exists()

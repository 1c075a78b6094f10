"""The work of an import: claimed once, resumed after a crash, fenced, cancelled, refused; no row twice or lost."""

import json
import threading
import time
from contextlib import suppress
from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import DatabaseError, connection
from django.utils import timezone

from datasets_app import deleting, ingesting, pending, storing
from datasets_app.formats import Problem
from datasets_app.ingest import BadFile, accept, ingest, twin
from datasets_app.ingesting import ATTEMPTS, Fenced, Stopped, claim, run
from datasets_app.models import Dataset, Example, Import
from datasets_app.reading import Columns
from evaluations import sweeping
from evaluations.tests.engine import work_off
from lumigator.unavailable import FileStoreUnavailable

pytestmark = pytest.mark.django_db
COLUMNS = Columns("examples", ("ground_truth",), "id")


def csv(n, *, bad=()):
    rows = [b"k%d,%s,short %d\n" % (i, b" " if i in bad else b"document number %d" % i, i) for i in range(n)]
    return b"id,examples,ground_truth\n" + b"".join(rows)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(ingesting, "BATCH_ROWS", 10)


@pytest.fixture
def waiting(atlas, bob):
    """waiting(data) → a dataset whose file lies in storage and that waits for a worker."""

    def made(data=b"", columns=COLUMNS, **more):
        data = data or csv(35)
        file = ContentFile(data, name="mails.csv")
        with pending.received(bob, file, storing.digest(file)) as upload:
            asked = {"team": atlas, "user": bob, "name": "", "privacy": "any", "file_name": "mails.csv", **more}
            dataset = accept(upload=upload.key, digest=upload.digest, columns=columns, **asked)
            upload.is_taken = True
        return dataset

    return made


def fresh(dataset):
    return Dataset.objects.select_related("intake").get(pk=dataset.pk)


def written(dataset):
    return list(dataset.examples.order_by("index").values_list("index", "key", "source", "references"))


def expected(n):
    return [(i, f"k{i}", f"document number {i}", [f"short {i}"]) for i in range(n)]


def files():
    found = [f"uploads/{folder}/{name}" for folder in storing.listed("uploads")[0]
             for name in storing.listed(f"uploads/{folder}")[1]]  # fmt: skip
    return found + [f"pending/{folder}/{name}" for folder in storing.listed("pending")[0]
                    for name in storing.listed(f"pending/{folder}")[1]]  # fmt: skip


def breaking_down(monkeypatch, *, at, error=DatabaseError):
    """From now on the batch that begins at row `at` fails after its rows were sent."""
    real = ingesting.copy_rows

    def copy_rows(dataset, first, rows):
        n = real(dataset, first, rows)
        if first == at:
            raise error("the machine is on fire")
        return n

    monkeypatch.setattr(ingesting, "copy_rows", copy_rows)
    return lambda: monkeypatch.setattr(ingesting, "copy_rows", real)


# --- to its end


def test_a_worker_makes_it_ready(waiting, atlas):
    dataset = waiting()
    assert (dataset.state, dataset.n_examples, written(dataset)) == ("importing", 0, [])
    run(dataset.pk, "w1")
    done = fresh(dataset)
    assert (done.state, done.n_examples, done.n_with_reference) == ("ready", 35, 35)
    assert written(done) == expected(35)
    assert done.profile["source_words"]["n"] == 35
    assert (done.intake.rows_done, done.intake.bytes_read, done.intake.lease_until) == (35, done.file_bytes, None)
    assert done.intake.ended_at
    assert files() == [f"uploads/t{atlas.pk}/{done.sha256}"] == [done.file.name]
    assert done.file.read() == csv(35)


def test_it_is_the_same_dataset_as_one_that_is_read_here(waiting, atlas):
    here = ingest(team=atlas, user=None, name="", file=ContentFile(csv(35)), file_name="mails.csv")
    dataset = waiting()
    run(dataset.pk, "w1")
    there = fresh(dataset)
    assert written(there) == written(here)
    assert there.profile == here.profile
    assert (there.sha256, there.columns, there.file.name) == (here.sha256, here.columns, here.file.name)


def test_workers_find_it_by_polling_and_by_its_bell(waiting):
    dataset = waiting()
    [work] = sweeping.waiting(("cpu",))
    assert work.bell == ("import_dataset", (dataset.pk,))
    assert sweeping.waiting(("gpu", "api")) == []
    work_off()
    assert fresh(dataset).is_ready
    assert sweeping.waiting(("cpu",)) == []


def test_rows_are_in_the_order_of_the_file_whatever_they_hold(waiting):
    texts = ["tab\there", "back\\slash \\N \\.", "", "ünï – 漢字 🙂", "line\nbreak", '"quoted", {curly}', "x" * 100_000]
    lines = [
        b'{"examples": "some text", "ground_truth": %s, "kind": "ka\\\\nd", "n": 1.5}\n' % json.dumps(texts).encode()
    ]
    run((dataset := waiting(b"".join(lines * 3), Columns("examples", ("ground_truth",), tags=("kind", "n")))).pk, "w1")
    for one in dataset.examples.all():
        assert one.references == [text for text in texts if text.strip()]
        assert one.tags == {"kind": "ka\\nd", "n": 1.5}
        assert (one.key, one.group) == ("", "")
    assert list(dataset.examples.values_list("index", flat=True)) == [0, 1, 2]


# --- one worker at a time


def test_two_workers_never_get_the_same_import(waiting):
    dataset = waiting()
    first = claim(dataset.pk, "w1")
    assert first and claim(dataset.pk, "w2") is None
    run(dataset.pk, "w2")  # a doubled bell
    assert written(dataset) == []
    assert ingesting.waiting() == []


def test_a_lease_that_lapsed_is_taken_over_and_the_stale_worker_writes_nothing(waiting):
    dataset = waiting()
    stale = claim(dataset.pk, "w1")
    Import.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    fresh_lease = claim(dataset.pk, "w2")
    assert fresh_lease.intake.epoch == stale.intake.epoch + 1
    with pytest.raises(Fenced), ingesting._fetched(stale) as stream:
        ingesting.read_in(stale, stream)
    assert written(dataset) == []
    with pytest.raises(Fenced):
        ingesting.fail(stale, ingesting.Found([Problem(None, "", "It is bad.", "Mend it.")]))
    assert not ingesting.renew(stale)
    ingesting.give_back(stale)
    assert claim(dataset.pk, "w3") is None, "the stale worker gave back what is not its own"
    with ingesting._fetched(fresh_lease) as stream:
        ingesting.read_in(fresh_lease, stream)
    assert written(dataset) == expected(35)


def test_a_bell_for_what_is_ready_or_gone_does_nothing(waiting):
    dataset = waiting()
    run(dataset.pk, "w1")
    run(dataset.pk, "w1")
    run(dataset.pk + 1000, "w1")
    assert written(dataset) == expected(35)


@pytest.mark.django_db(transaction=True)
def test_the_lease_is_renewed_while_the_work_goes_on(waiting, settings):
    settings.RENEW_SECONDS = 0.01
    lease = claim(waiting().pk, "w1")
    before = Import.objects.get().lease_until
    with ingesting.kept(lease):
        deadline = time.monotonic() + 30
        while Import.objects.get().lease_until == before:
            assert time.monotonic() < deadline, "nobody renewed it"
            time.sleep(0.01)
        Import.objects.update(epoch=99)
        while not lease.lost:
            assert time.monotonic() < deadline, "the loss went unnoticed"
            time.sleep(0.01)


# --- crashes


@pytest.mark.parametrize("at", [0, 10, 20, 30])
def test_after_a_crash_the_next_worker_goes_on_behind_the_last_batch(waiting, monkeypatch, at):
    dataset = waiting()
    mend = breaking_down(monkeypatch, at=at, error=KeyboardInterrupt)  # nothing catches it, as nothing catches kill -9
    with pytest.raises(KeyboardInterrupt):
        run(dataset.pk, "w1")
    mend()
    assert written(dataset) == expected(at), "the batch that broke is not there, those before it are"
    assert fresh(dataset).intake.rows_done == at
    assert claim(dataset.pk, "w2") is None, "its lease runs on"
    Import.objects.update(lease_until=timezone.now())
    again = []
    monkeypatch.setattr(ingesting, "copy_rows", _noting(again, ingesting.copy_rows))
    run(dataset.pk, "w2")
    assert again[0] == at, "what was there is not written again"
    done = fresh(dataset)
    assert written(done) == expected(35)
    assert (done.state, done.profile["source_words"]["n"]) == ("ready", 35)


def _noting(places, real):
    def copy_rows(dataset, first, rows):
        places.append(first)
        return real(dataset, first, rows)

    return copy_rows


def test_a_crash_after_the_file_was_put_in_its_place_is_survived(waiting, monkeypatch):
    dataset = waiting()
    real = storing.settle

    def settle(*args, **more):
        real(*args, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(storing, "settle", settle)
    with pytest.raises(KeyboardInterrupt):
        run(dataset.pk, "w1")
    monkeypatch.setattr(storing, "settle", real)
    Import.objects.update(lease_until=timezone.now())
    run(dataset.pk, "w2")
    assert fresh(dataset).is_ready
    assert written(dataset) == expected(35)


def test_a_worker_that_is_told_to_stop_gives_it_back(waiting):
    dataset = waiting()
    asked = iter([False, True])
    run(dataset.pk, "w1", must_stop=lambda: next(asked))
    found = fresh(dataset)
    assert (found.state, found.intake.rows_done, found.intake.owner) == ("importing", 20, "")
    assert ingesting.waiting() == [dataset.pk]
    run(dataset.pk, "w2")
    assert written(dataset) == expected(35)


def test_storage_that_is_away_is_waited_for(waiting, monkeypatch):
    dataset = waiting()

    def exists(key):
        raise FileStoreUnavailable("does not answer", "there", "Start it.")

    with monkeypatch.context() as away:
        away.setattr(default_storage, "exists", exists)
        for _ in range(ATTEMPTS + 2):
            Import.objects.update(next_at=timezone.now() - timedelta(seconds=1))
            run(dataset.pk, "w1")
    assert fresh(dataset).is_importing
    assert ingesting.waiting() == [], "not at once"
    Import.objects.update(next_at=timezone.now() - timedelta(seconds=1))
    run(dataset.pk, "w1")
    assert fresh(dataset).is_ready


def test_an_error_of_ours_is_tried_a_few_times_and_then_said(waiting, monkeypatch):
    dataset = waiting()
    breaking_down(monkeypatch, at=20, error=ZeroDivisionError)
    for _ in range(ATTEMPTS + 3):
        Import.objects.update(next_at=timezone.now() - timedelta(seconds=1))
        run(dataset.pk, "w1")
    found = fresh(dataset)
    assert found.state == "failed"
    assert "an error of ours: ZeroDivisionError" in found.problem
    assert written(dataset) == []
    assert files() == []


def test_a_file_that_kills_its_workers_is_given_up(waiting):
    dataset = waiting()
    for _ in range(ATTEMPTS):
        assert claim(dataset.pk, "w1")
        Import.objects.update(lease_until=timezone.now())
    run(dataset.pk, "w1")
    assert "vanished over it, 5 times" in fresh(dataset).problem
    assert ingesting.waiting() == []


# --- refused


def test_one_bad_row_refuses_the_file_and_is_named(waiting):
    dataset = waiting(csv(35, bad=(27,)))
    run(dataset.pk, "w1")
    found = fresh(dataset)
    assert found.state == "failed"
    assert found.problem == "row 29, column examples: The document is blank. Fill it in, or remove the row."
    assert found.intake.n_problems == 1
    assert found.intake.problems == [
        {"row": 29, "column": "examples", "message": "The document is blank.", "cure": "Fill it in, or remove the row."}
    ]
    assert written(dataset) == [], "twenty good rows were there already"
    assert files() == []
    assert ingesting.waiting() == []


def test_problems_are_counted_all_and_the_first_thousand_kept(waiting):
    dataset = waiting(csv(1300, bad=range(100, 1300)))
    run(dataset.pk, "w1")
    found = fresh(dataset)
    assert (found.intake.n_problems, len(found.intake.problems)) == (1200, 1000)
    assert found.problem.startswith("It has 1,200 problems, the first: row 102, column examples")


def test_a_crash_while_its_rows_are_taken_out_is_survived(waiting, monkeypatch):
    monkeypatch.setattr(ingesting, "REMOVED_AT_ONCE", 10)
    dataset = waiting(csv(35, bad=(34,)))
    real, steps = ingesting.fenced, []

    def fenced(lease, **changes):
        if "rows_done" in changes and isinstance(changes["rows_done"], int):
            steps.append(changes["rows_done"])
            if len(steps) == 2:
                raise KeyboardInterrupt
        return real(lease, **changes)

    monkeypatch.setattr(ingesting, "fenced", fenced)
    with pytest.raises(KeyboardInterrupt):
        run(dataset.pk, "w1")
    assert (fresh(dataset).state, len(written(dataset))) == ("failed", 24), "ten of 34 are out"
    Import.objects.update(lease_until=timezone.now())
    assert ingesting.waiting() == [dataset.pk]
    run(dataset.pk, "w2")
    assert written(dataset) == []
    assert fresh(dataset).intake.ended_at
    assert len(fresh(dataset).intake.problems) == 1, "what is wrong is not forgotten"


def test_a_file_that_is_gone_or_damaged_fails_in_words(waiting):
    gone, damaged = waiting(), waiting(csv(36))
    default_storage.delete(gone.intake.upload)
    default_storage.delete(damaged.intake.upload)
    default_storage.save(damaged.intake.upload, ContentFile(csv(37)))
    for dataset, words in ((gone, "not in storage"), (damaged, "not what was uploaded")):
        run(dataset.pk, "w1")
        assert fresh(dataset).state == "failed"
        assert words in fresh(dataset).problem


# --- cancelled and deleted


def test_deleting_while_it_waits_leaves_nothing(waiting, django_capture_on_commit_callbacks):
    dataset = waiting()
    with django_capture_on_commit_callbacks(execute=True):
        assert deleting.delete(dataset)
    assert not Dataset.objects.exists()
    assert files() == []
    run(dataset.pk, "w1")


def test_deleting_in_the_middle_stops_the_worker_and_leaves_nothing(waiting, django_capture_on_commit_callbacks):
    dataset = waiting()

    def cancelling():
        with django_capture_on_commit_callbacks(execute=True), suppress(Dataset.DoesNotExist):
            assert deleting.delete(dataset)
        return False

    run(dataset.pk, "w1", must_stop=cancelling)
    assert not Dataset.objects.exists()
    assert not Example.objects.exists()
    assert files() == []


def test_a_large_part_is_removed_by_a_worker(waiting, monkeypatch, django_capture_on_commit_callbacks):
    monkeypatch.setattr(deleting, "ROWS_AT_ONCE", 5)
    dataset, answers = waiting(), []

    def cancelling():
        answers.append(deleting.delete(dataset))
        return False

    run(dataset.pk, "w1", must_stop=cancelling)
    assert answers == [False]
    found = fresh(dataset)
    assert (found.state, found.problem, found.intake.is_cancelled) == ("failed", deleting.CANCELLED, True)
    assert len(written(dataset)) == 10, "the fence let no further batch in"
    with django_capture_on_commit_callbacks(execute=True):
        work_off()
    assert not Dataset.objects.exists()
    assert not Example.objects.exists()
    assert files() == []


def test_another_dataset_of_the_same_bytes_keeps_its_file(waiting, django_capture_on_commit_callbacks):
    first, second = waiting(), waiting()
    run(first.pk, "w1")
    with django_capture_on_commit_callbacks(execute=True):
        deleting.delete(second)
    assert fresh(first).file.read() == csv(35)
    assert files() == [fresh(first).file.name]


@pytest.mark.django_db(transaction=True)
def test_an_import_in_the_middle_of_a_batch_is_not_waited_for_endlessly(waiting, monkeypatch):
    monkeypatch.setattr(deleting, "PATIENCE_SECONDS", 0.05)
    dataset, is_held, may_go = waiting(), threading.Event(), threading.Event()

    def in_a_batch():
        with suppress(RuntimeError), ingesting.fenced(claim(dataset.pk, "w1")):
            is_held.set()
            may_go.wait(60)
            raise RuntimeError
        connection.close()

    worker = threading.Thread(target=in_a_batch)
    worker.start()
    assert is_held.wait(60)
    with pytest.raises(deleting.InUse, match="try again in a minute"):
        deleting.delete(dataset)
    may_go.set()
    worker.join()
    assert deleting.delete(dataset)
    assert files() == []


# --- here and now


@pytest.mark.django_db(transaction=True)
def test_a_large_file_that_is_read_here_is_committed_batch_by_batch(atlas, settings):
    settings.IMPORT_AT_ONCE_BYTES = 100
    told = []
    dataset = ingest(
        team=atlas, user=None, name="m", file=ContentFile(csv(35)),
        progress=lambda intake: told.append((intake.rows_done, Import.objects.get().rows_done)),
    )  # fmt: skip
    assert dataset.is_ready
    assert told[:4] == [(10, 10), (20, 20), (30, 30), (35, 35)]
    assert written(dataset) == expected(35)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_of_a_large_file_that_is_refused_or_broken_off_here_nothing_stays(atlas, settings, monkeypatch, error):
    settings.IMPORT_AT_ONCE_BYTES = 100
    if error:
        breaking_down(monkeypatch, at=20, error=error)
    with pytest.raises(error or BadFile):
        ingest(team=atlas, user=None, name="m", file=ContentFile(csv(35, bad=() if error else (33,))))
    assert not Dataset.objects.exists()
    assert not Example.objects.exists()
    assert files() == []


def test_stopping_is_no_failure_of_the_reader(waiting):
    lease = claim(waiting().pk, "w1")
    lease.must_stop = lambda: True
    with pytest.raises(Stopped), ingesting._fetched(lease) as stream:
        ingesting.read_in(lease, stream)


@pytest.mark.parametrize(("head", "is_small"), [(b"id,", True), (b"\x1f\x8b", False), (b"PAR1", False), (b"PK", False)])
def test_what_is_packed_counts_many_times(settings, head, is_small):
    settings.IMPORT_AT_ONCE_BYTES = 1000
    assert storing.digest(ContentFile(head + b"x" * 500)).is_small == is_small
    assert storing.digest(ContentFile(head + b"x" * 40)).is_small
    assert not storing.digest(ContentFile(head + b"x" * 1000)).is_small


# --- twins, quotas, sweeping


def test_the_same_bytes_with_the_same_columns_are_known(waiting, atlas, basalt):
    dataset = waiting()

    def known(team=atlas, privacy="any", columns=COLUMNS):
        return twin(team=team, sha256=dataset.sha256, privacy=privacy, columns=lambda: columns)

    assert known() == dataset, "while it is imported, too"
    run(dataset.pk, "w1")
    assert known() == dataset
    assert known(columns=Columns("examples")) is None
    assert known(privacy="local_only") is None, "who asks for privacy does not get a dataset without it"
    assert known(team=basalt) is None
    other = waiting(csv(9, bad=(2,)))
    run(other.pk, "w1")
    assert twin(team=atlas, sha256=other.sha256, privacy="any", columns=lambda: COLUMNS) is None, "it failed"


def test_a_team_has_a_quota(waiting, atlas, basalt, settings):
    first = waiting()
    settings.TEAM_QUOTA_BYTES = first.file_bytes + 100
    with pytest.raises(BadFile, match=r"would take more than its quota of 0\.0 MiB") as refused:
        waiting(csv(36))
    assert "LUMIGATOR_TEAM_QUOTA_BYTES" in refused.value.problems[0].cure
    assert len(files()) == 1, "the upload that was refused is not kept"
    ingest(team=basalt, user=None, name="m", file=ContentFile(csv(36)))
    deleting.delete(first)
    assert waiting(csv(36))


def test_what_nothing_names_is_swept_after_a_day(waiting, atlas, monkeypatch):
    ready, open_ = waiting(), waiting(csv(36))
    run(ready.pk, "w1")
    default_storage.save(f"uploads/t{atlas.pk}/{'0' * 64}", ContentFile(b"orphan"))
    default_storage.save("pending/u7/abandoned", ContentFile(b"orphan"))
    assert ingesting.sweep() == 0, "they are young"
    later = timezone.now() + timedelta(hours=25)
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert ingesting.sweep() == 2
    assert sorted(files()) == sorted([fresh(ready).file.name, fresh(open_).intake.upload])

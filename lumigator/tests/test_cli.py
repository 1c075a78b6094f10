"""The command line as people type it: real processes, the embedded services, real workers, and what comes out.

The commands use the database `lumigator` of this run's LUMIGATOR_HOME, beside the one the other tests use. Where it
matters each is a process of its own; the others are asked of one process, one after the other, which saves a minute.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models_registry.testing import text, tiny_t5

ROOT = Path(__file__).resolve().parents[2]
TOO_LONG = 120.0  # seconds; nothing here takes a tenth of it on an idle machine
COMPARISON = {
    "experiment", "dataset", "primary_metric", "reference_candidate", "candidates", "pairs", "recommendation", "alarms",
    "signature",
}  # fmt: skip
ROW = {
    "candidate", "label", "is_baseline", "n", "states", "metrics", "answer_rate", "truncated_rate", "latency_ms",
    "tokens_per_second", "cost_usd", "cost_per_1000_usd", "best_group", "p_best", "versus_leader",
}  # fmt: skip
Done = subprocess.CompletedProcess[str]
Ask = Callable[..., Done]


def lumigator(*words: object, program: tuple[str, ...] = ("-m", "lumigator.cli"), **environment: str) -> Done:
    return subprocess.run(
        [sys.executable, *program, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "140", **environment},
        capture_output=True,
        text=True,
        timeout=TOO_LONG,
    )


def write_documents(path: Path, n: int = 32, blank: int | None = None) -> Path:
    """A CSV of n documents with ids d0, d1, … and one reference each; the row `blank` has no document."""
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "body", "gold"])
        for number in range(n):
            body = "" if number == blank else ". ".join(text(9, number * 5 + part).capitalize() for part in range(5))
            writer.writerow([f"d{number}", body, text(9, number * 5 + number % 3).capitalize()])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def documents(folder: Path) -> Path:
    return write_documents(folder / "data.csv")


@pytest.fixture(scope="module")
def first(folder: Path, documents: Path) -> Done:
    """The first command that anybody types: nothing is prepared and no worker runs."""
    return lumigator(
        "evaluate", documents, "-m", "baseline/lead-3", "--source-column", "body", "--reference-column", "gold",
        "--metrics", "rouge", "--json", folder / "new" / "out.json", "--export", folder / "rows",
    )  # fmt: skip


ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
from lumigator.cli import main
for line in sys.stdin:
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        try:
            status = main(json.loads(line))
        except SystemExit as exc:
            status = exc.code
    print(json.dumps([status, said.getvalue(), complained.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """ask(…) is `lumigator …`, said to one process that answers again and again."""
    speaker = subprocess.Popen(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert speaker.stdin
    assert speaker.stdout

    def run(*words: object) -> Done:
        print(json.dumps([str(word) for word in words]), file=speaker.stdin, flush=True)
        answer = speaker.stdout.readline()
        assert answer, "a command ended the process: its traceback is above"
        return Done(words, *json.loads(answer))

    yield run
    speaker.stdin.close()
    speaker.wait(timeout=30)


@pytest.fixture(scope="module")
def document(first: Done, folder: Path) -> dict[str, Any]:
    return json.loads((folder / "new" / "out.json").read_text())


@pytest.fixture(scope="module")
def evaluate(first: Done, documents: Path, ask: Ask) -> Iterator[Ask]:
    """evaluate(…) is `lumigator evaluate` on the documents, with workers that are already there."""
    command = [
        sys.executable,
        "-m",
        "lumigator.cli",
        "worker",
        *(w for q in ("gpu", "api", "cpu") for w in ("--queue", q)),
    ]
    workers = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert workers.stderr
        for line in workers.stderr:
            if "is ready" in line:
                break

        def run(*words: object, data: Path = documents) -> Done:
            columns = ("--source-column", "body", "--reference-column", "gold")
            return ask("evaluate", data, "--metrics", "rouge", *columns, *words)

        yield run
    finally:
        workers.terminate()
        workers.communicate(timeout=40)


# evaluate


def test_evaluate_from_nothing_ends_well_and_says_the_sentence(first: Done, document: dict[str, Any]) -> None:
    assert first.returncode == 0, first.stderr
    assert document["recommendation"]["sentence"] in first.stdout
    assert "baseline/lead-3" in first.stdout
    assert "Traceback" not in first.stderr


def test_the_document_that_is_written_is_the_contract_s(document: dict[str, Any]) -> None:
    assert set(document) >= COMPARISON
    assert [row["label"] for row in document["candidates"] if ROW - set(row)] == []
    labels = {row["label"] for row in document["candidates"]}
    assert labels == {"baseline/lead-3", "baseline/random-3", "baseline/oracle"}
    assert all(row["states"]["ok"] == row["n"] == 32 for row in document["candidates"])


def test_the_export_holds_a_row_per_document_and_candidate(first: Done, folder: Path) -> None:
    files = sorted((folder / "rows").glob("*.jsonl"))
    assert len(files) == 3
    for file in files:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert [row["id"] for row in rows] == [f"d{number}" for number in range(32)]
        assert all(0 <= row["scores"]["rougeLsum"] <= 1 for row in rows)
    assert json.loads((folder / "rows" / "comparison.json").read_text())["experiment"]["state"] == "completed"


def test_a_model_folder_goes_through_real_workers(evaluate: Ask, folder: Path) -> None:
    out = folder / "tiny.json"
    done = evaluate("-m", tiny_t5(folder / "tiny-t5"), "--sample", 8, "--no-baselines", "--json", out)
    assert done.returncode == 0, done.stderr
    [row] = json.loads(out.read_text())["candidates"]
    assert row["label"] == "local/tiny-t5"
    assert row["states"]["ok"] + row["states"]["empty"] == row["n"] == 8
    assert row["is_local"]


def test_the_same_file_stays_one_dataset(evaluate: Ask, folder: Path) -> None:
    outs = [folder / "one.json", folder / "two.json"]
    for out in outs:
        assert evaluate("-m", "baseline/lead-3", "--sample", 2, "--no-baselines", "--json", out).returncode == 0
    one, two = (json.loads(out.read_text()) for out in outs)
    assert one["dataset"]["id"] == two["dataset"]["id"]
    assert one["experiment"]["id"] != two["experiment"]["id"]


def test_predictions_as_jsonl_csv_and_lines(evaluate: Ask, folder: Path) -> None:
    with (folder / "a.jsonl").open("w") as handle:
        handle.writelines(json.dumps({"id": f"d{number}", "output": text(8)}) + "\n" for number in range(32))
    (folder / "b.csv").write_text("index,output\n" + "".join(f"{number},{text(7)}\n" for number in range(32)))
    (folder / "c.txt").write_text(f"{text(6)}\n" * 32)
    names = {"amber": "a.jsonl", "birch": "b.csv", "cedar": "c.txt"}
    words = [word for name, file in names.items() for word in ("--predictions", f"{name}={folder / file}")]
    done = evaluate(*words, "--no-baselines", "--json", folder / "imported.json")
    assert done.returncode == 0, done.stderr
    for name in names:
        assert f"{name}: 32 outputs matched a document." in done.stdout
    rows = json.loads((folder / "imported.json").read_text())["candidates"]
    assert {row["label"] for row in rows} == set(names)


def test_predictions_that_do_not_fit_are_named_and_end_with_3(evaluate: Ask, folder: Path) -> None:
    file = folder / "short.jsonl"
    keys = ["d31x", *(f"d{number}" for number in range(30))]
    file.write_text("".join(json.dumps({"id": key, "output": text(8)}) + "\n" for key in keys))
    done = evaluate("--predictions", f"amber={file}", "--no-baselines")
    assert done.returncode == 3, done.stderr
    assert "amber: 1 row matches no document: d31x." in done.stdout
    assert "amber: 2 documents have no output: d30, d31." in done.stdout


def test_an_example_that_fails_ends_with_3_and_the_others_count(evaluate: Ask, folder: Path) -> None:
    data = write_documents(folder / "faults.csv", 4)
    data.write_text(data.read_text().replace("d2,", "d2,FAULT "))
    program = ("-c", ADD_A_FAKE)
    made = lumigator(program=program)
    assert made.returncode == 0, made.stderr
    done = evaluate("-m", "faulty", "--no-baselines", "--json", folder / "faults.json", data=data)
    assert done.returncode == 3, done.stderr
    [row] = json.loads((folder / "faults.json").read_text())["candidates"]
    assert row["states"] == {"ok": 3, "error": 1, "refused": 0, "empty": 0}


ADD_A_FAKE = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "lumigator.settings"
import django; django.setup()
from lumigator.laptop import prepare
from models_registry.models import ModelEntry
ModelEntry.objects.create(team=prepare()[0], slug="faulty", name="faulty", uri="fake://faulty", privacy="local",
                          architecture="extractive", options={"faults": {"FAULT": "error"}})
"""


# What is asked wrongly


def test_a_file_with_problems_ends_with_2_and_names_row_and_column(ask: Ask, folder: Path) -> None:
    data = write_documents(folder / "bad.csv", 6, blank=3)
    done = ask("evaluate", data, "-m", "baseline/lead-3", "--source-column", "body")
    assert done.returncode == 2
    assert done.stderr.startswith("lumigator: row 5, column body: The document is blank.")


WRONG = {
    "an unknown model": (["-m", "nobody/has-this"], "there is no model 'nobody/has-this'"),
    "an unknown metric": (["-m", "baseline/lead-3", "--metrics", "rogue"], "there is no metric 'rogue'"),
    "no such folder": (["-m", "/no/such/folder"], "/no/such/folder: there is no such folder"),
    "no such file": (["--predictions", "amber=/no/such/file"], "give NAME=FILE with a file that exists"),
    "a bad prompt": (["-m", "baseline/lead-3", "--prompt", "no place"], "{document} exactly once"),
    "a sample of none": (["-m", "baseline/lead-3", "--sample", "0"], "give a whole number from 1"),
    "half a sample": (["-m", "baseline/lead-3", "--sample", "0.5"], "invalid whole number value: '0.5'"),
    "a debt": (["-m", "baseline/lead-3", "--budget", "-1"], "give an amount in dollars"),
    "no model": (["--no-baselines"], "choose at least one model"),
    "no such column": (["-m", "baseline/lead-3", "--reference-column", "silver"], "column silver: There is no such"),
    "no such experiment": (["compare", "999999"], "there is no experiment 999999"),
    "a name for an id": (["datasets", "show", "first"], "'first' is no id"),
    "nothing to add": (["datasets", "add"], "say which after `add`"),
    "a model that is not there": (["models", "show", "nobody"], "there is no model 'nobody'"),
    "an experiment by hand": (["experiments", "add", "x"], "lumigator evaluate DATA -m MODEL"),
    "no queue": (["worker"], "the following arguments are required: --queue"),
    "an unknown queue": (["worker", "--queue", "tpu"], "invalid choice: 'tpu'"),
    "an unknown command": (["frobnicate"], "invalid choice: 'frobnicate'"),
    "nothing": ([], "the following arguments are required: COMMAND"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_done_ends_with_2_and_is_named(ask: Ask, documents: Path, case: str) -> None:
    words, named = WRONG[case]
    if words and words[0].startswith("-"):
        words = ["evaluate", str(documents), "--source-column", "body", *words]
    done = ask(*words)
    assert done.returncode == 2
    assert named in done.stderr


def test_predictions_that_cannot_be_read_leave_no_experiment_behind(
    first: Done, ask: Ask, documents: Path, folder: Path
) -> None:
    (folder / "broken.jsonl").write_text('{"id": "d0", "output": "x"}\n{"id":')
    before = ask("experiments").stdout
    done = ask("evaluate", documents, "--source-column", "body", "--predictions", f"amber={folder / 'broken.jsonl'}")
    assert done.returncode == 2
    assert "broken.jsonl, line 2" in done.stderr
    assert ask("experiments").stdout == before


# The other commands


def test_compare_prints_the_same_document(first: Done, ask: Ask, document: dict[str, Any]) -> None:
    which = document["experiment"]["id"]
    assert json.loads(ask("compare", which, "--json").stdout) == document
    assert document["recommendation"]["sentence"] in ask("compare", which).stdout
    wrong = ask("compare", which, "--metric", "rogue")
    assert wrong.returncode == 2
    assert "has no metric part 'rogue'; it has rouge1," in wrong.stderr


def test_the_lists_show_what_is_there(first: Done, ask: Ask, document: dict[str, Any]) -> None:
    assert "baseline/lead-3" in ask("models").stdout
    [line] = ask("experiments", "show", document["experiment"]["id"]).stdout.splitlines()
    assert line.split()[1] == "completed"
    assert "data.csv" in ask("datasets").stdout


def test_a_dataset_is_added_and_counted(ask: Ask, folder: Path) -> None:
    data = write_documents(folder / "more.csv", 7)
    done = ask("datasets", "add", data, "--source-column", "body", "--reference-column", "gold")
    assert done.stdout.rstrip().endswith("7 documents, 7 with a reference")
    which = done.stdout.split()[1].rstrip(":")
    assert "more.csv" in ask("datasets", "show", which).stdout


def test_a_large_dataset_tells_its_progress_and_can_be_described_and_downloaded(ask: Ask, folder: Path) -> None:
    data = folder / "large.csv"
    data.write_text("body,gold\n" + "".join(f"{text(9, n)} {n} {'x' * 1000},{text(5, n)}\n" for n in range(6000)))
    done = ask("datasets", "add", data, "--source-column", "body", "--reference-column", "gold")
    assert done.stderr.splitlines() == ["large.csv: 6,000 rows stored, 100% read"]
    which = done.stdout.split()[1].rstrip(":")
    assert json.loads(ask("datasets", "profile", which).stdout)["n_examples"] == 6000
    copy = folder / "copy.jsonl"
    assert ask("datasets", "download", which, "--format", "jsonl", "--output", copy).returncode == 0
    rows = [json.loads(line) for line in copy.read_text().splitlines()]
    assert len(rows) == 6000
    assert rows[7]["examples"].startswith(f"{text(9, 7)} 7 xxx")
    assert ask("datasets", "download", which).stdout.startswith("\ufefflumigator_index,")


def test_doctor_finds_nothing_wrong(first: Done, ask: Ask) -> None:
    done = ask("doctor")
    wrong = [line for line in done.stdout.splitlines() if line.startswith("WRONG") and "metric" not in line]
    assert wrong == []
    assert "The database answers" in done.stdout


def test_a_token_and_a_link_are_printed_alone(ask: Ask) -> None:
    token = ask("token", "--name", "script", "--role", "viewer").stdout.split()
    assert len(token) == 1
    assert len(token[0]) > 40
    assert ask("sign-in").stdout.startswith("/sign-in/")


def test_a_new_key_needs_no_services_and_is_new_each_time(tmp_path: Path) -> None:
    home = tmp_path / "never"
    keys = {lumigator("new-key", LUMIGATOR_HOME=str(home)).stdout.strip() for _ in range(2)}
    assert [len(key) for key in keys] == [44, 44]
    assert not home.exists()


def test_manage_py_speaks_the_same_language(first: Done) -> None:
    assert lumigator("lumigator", "models", program=("manage.py",)).stdout == lumigator("models").stdout
    assert lumigator("lumigator", "worker", program=("manage.py",)).returncode == 2

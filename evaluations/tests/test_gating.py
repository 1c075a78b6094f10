"""`lumigator gate`: may one candidate replace another? Its verdicts, its exit statuses, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evaluations import importing
from evaluations.gating import gate
from evaluations.models import Experiment
from evaluations.planning import Refused
from evaluations.tests.engine import make_dataset, make_experiment, run
from lumigator import cli

pytestmark = pytest.mark.django_db(transaction=True)
REFERENCES = [
    f"The team met and chose plan {number % 7} with {number % 9} votes and {number % 4} against it."
    for number in range(40)
]

SOURCES = [f"{text} And more." for text in REFERENCES]


def cut(words: int, *, every: int = 1) -> list[str]:
    """The references without their last words; only every so manieth one is cut."""
    return [
        " ".join(text.split()[:-words]) if words and not number % every else text
        for number, text in enumerate(REFERENCES)
    ]


@pytest.fixture
def dataset(atlas: Any) -> Any:
    return make_dataset(atlas, SOURCES, REFERENCES)


@pytest.fixture
def imported(dataset: Any) -> Any:
    """imported(label=outputs, …) → a finished experiment with these candidates."""

    def make(*, options: dict[str, Any] | None = None, on: Any = None, **outputs: list[str]) -> Experiment:
        experiment = make_experiment(on or dataset, metric_options=options or {}, baselines=False, may_be_empty=True)
        for label, texts in outputs.items():
            importing.import_rows(experiment, label, ({"output": text} for text in texts))
        return run(experiment)

    return make


@pytest.mark.parametrize(
    ("words", "every", "margin", "status", "begins"),
    [
        (0, 1, 0.02, 0, "Proven: new against old is at most 0.02 worse"),
        (1, 8, 0.05, 0, "Proven: new"),
        (6, 1, 0.02, 1, "Worse: new against old is more than 0.02 worse"),
        (6, 4, 0.08, 4, "Inconclusive: new against old"),
    ],
)
def test_the_verdict_is_the_exit_status(
    imported: Any, words: int, every: int, margin: float, status: int, begins: str
) -> None:
    old, new = imported(old=cut(0)), imported(new=cut(words, every=every))
    told = gate(str(old.pk), str(new.pk), "rougeLsum", margin)
    assert (told.status, told.documents) == (status, 40)
    assert told.sentence.startswith(begins)
    assert ("would do" in told.sentence) == (status == 4)


def test_the_command_prints_a_sentence_or_json(imported: Any, capsys: pytest.CaptureFixture[str]) -> None:
    both = imported(old=cut(0), new=cut(6, every=2))
    asked = ["--baseline", f"{both.pk}:old", "--candidate", f"{both.pk}:new", "--margin", "0.02"]
    options = cli.parser().parse_args(["gate", *asked])
    assert cli._in_words(options) == 1
    assert capsys.readouterr().out.startswith("Worse: new")
    assert cli._in_words(cli.parser().parse_args(["gate", *asked, "--json"])) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["status"], told["n"]) == ("worse", 1, 40)
    assert told["bound"] < told["difference"] < told["upper"] < -0.02


def test_a_wrong_question_is_refused_with_status_2(imported: Any, capsys: pytest.CaptureFixture[str]) -> None:
    both = imported(old=cut(0), new=cut(1))
    asked = ["gate", "--baseline", str(both.pk), "--candidate", f"{both.pk}:new", "--margin", "0.02"]
    assert cli._in_words(cli.parser().parse_args(asked)) == 2
    said = capsys.readouterr().err
    assert f"baseline: '{both.pk}' does not name one candidate; there is {both.pk}:old, {both.pk}:new" in said


@pytest.mark.parametrize(
    ("changed", "argument"),
    [
        ({"baseline": "999999"}, "baseline"), ({"baseline": "one"}, "baseline"), ({"metric": "rouge9"}, "metric"),
        ({"metric": "length_words"}, "metric"), ({"metric": "meteor"}, "baseline"), ({"margin": 0.0}, "margin"),
        ({"margin": float("nan")}, "margin"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_named(imported: Any, changed: dict[str, Any], argument: str) -> None:
    both = imported(old=cut(0), new=cut(1))
    asked = {"baseline": f"{both.pk}:old", "candidate": f"{both.pk}:new", "metric": "rougeLsum", "margin": 0.02}
    with pytest.raises(Refused) as refused:
        gate(**{**asked, **changed})
    assert list(refused.value.errors) == [argument]
    with pytest.raises(Refused, match="it is the baseline itself"):
        gate(f"{both.pk}:old", f"{both.pk}:old", "rougeLsum", 0.02)


def test_numbers_that_were_made_differently_are_never_compared(imported: Any, atlas: Any) -> None:
    old = imported(old=cut(0))
    stemmed = imported(options={"rouge": {"stemmer": False}}, new=cut(1))
    with pytest.raises(Refused, match="was scored in two ways"):
        gate(str(old.pk), str(stemmed.pk), "rougeLsum", 0.02)
    elsewhere = imported(on=make_dataset(atlas, SOURCES, REFERENCES, sha256="1" * 64), new=cut(1))
    with pytest.raises(Refused, match="made on the same dataset"):
        gate(str(old.pk), str(elsewhere.pk), "rougeLsum", 0.02)


def test_a_few_documents_prove_nothing(atlas: Any, imported: Any) -> None:
    small = make_dataset(atlas, SOURCES[:8], REFERENCES[:8])
    both = imported(on=small, old=cut(0)[:8], new=cut(0)[:8])
    told = gate(f"{both.pk}:old", f"{both.pk}:new", "rougeLsum", 0.5)
    assert (told.status, told.verdict.n_needed) == (4, 30)
    assert told.sentence == (
        "Inconclusive: new against old, ROUGE-Lsum on 8 documents that both have: fewer than 10 support no test; "
        "bring 30 or more."
    )


def test_only_documents_that_both_have_count(imported: Any) -> None:
    both = imported(old=cut(0), new=cut(0)[:30] + [""] * 10)
    told = gate(f"{both.pk}:old", f"{both.pk}:new", "rougeLsum", 0.02)
    assert told.documents == 40, "an empty output is scored at the metric's floor, never left out"
    assert told.status == 1

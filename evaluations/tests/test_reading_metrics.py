"""Would another metric have chosen otherwise? On documents whose metrics agree, and on some that do not."""

from __future__ import annotations

from typing import Any

from evaluations.reading_metrics import not_made, readings
from evaluations.tests.test_recommending import PART, document, model, remote


def part(name: str, label: str, higher: bool | None = True) -> dict[str, Any]:
    return {"name": name, "label": label, "metric": name, "higher_is_better": higher}


PARTS = [part(PART, "ROUGE-Lsum"), part("meteor", "METEOR"), part("ter", "TER", higher=False),
         part("length_words", "Words", higher=None), part("rouge1_recall", "ROUGE-1 recall")]  # fmt: skip


def read(told: dict[str, tuple[int | None, list[int]]], **values: list[float]) -> dict[str, Any]:
    """The readings of amber (1) and birch (2); `told` {part: (leader, best group)}, `values` the other means."""
    found = document(remote("amber", 0.31, cost=2.0), remote("birch", 0.30, cost=1.0))
    found["experiment"] = {"state": "completed", "primary_metric": PART}
    found["parts"] = PARTS
    for name, means in values.items():
        for row, mean in zip(found["candidates"], means, strict=True):
            row["metrics"][name] = {"mean": mean, "n": 300}
    facts = {
        name: {"ranked": leader is not None, "leader": leader, "best_group": group}
        for name, (leader, group) in told.items()
    }
    return readings(found, facts, [])


def test_metrics_that_agree_are_one_answer() -> None:
    found = read({PART: (1, [1]), "meteor": (1, [1])}, meteor=[0.5, 0.4])
    assert found["sentence"] == "The same best group in 2 of 2 readings."
    assert [(row["part"], row["choice"], row["same"]) for row in found["rows"]] == [
        (PART, 1, True),
        ("meteor", 1, True),
    ]


def test_a_metric_that_disagrees_is_named_with_its_choice() -> None:
    found = read({PART: (1, [1]), "meteor": (2, [2, 1]), "ter": (1, [1])}, meteor=[0.4, 0.5], ter=[0.1, 0.2])
    assert found["sentence"] == "The same best group in 2 of 3 readings; METEOR would have chosen otherwise."
    [other] = [row for row in found["rows"] if not row["same"]]
    assert (other["best_group"], other["choice"]) == ([2, 1], 2)


def test_the_group_is_listed_best_first_also_where_lower_is_better() -> None:
    found = read({PART: (1, [1, 2]), "ter": (2, [1, 2])}, ter=[0.5, 0.1])
    assert found["rows"][1]["best_group"] == [2, 1]


def test_descriptions_and_halves_of_a_metric_are_no_readings() -> None:
    found = read({PART: (1, [1]), "length_words": (1, [1]), "rouge1_recall": (1, [1])})
    assert found["of"] == 1
    assert found["sentence"] == "ROUGE-Lsum is the only reading that was made."


def test_what_allows_no_ranking_is_not_counted() -> None:
    found = read({PART: (1, [1]), "meteor": (None, [1, 2])}, meteor=[0.5, 0.4])
    assert (found["of"], found["not_ranked"]) == (1, ["METEOR"])
    assert "allows no ranking" in read({PART: (None, [1, 2])})["sentence"]


def test_a_value_of_the_corpus_is_no_reading() -> None:
    assert read({PART: (1, [1]), "meteor": (1, [1])}, meteor=[0.5, 0.4])["of"] == 2
    found = document(model("amber"))
    found["experiment"] = {"state": "completed", "primary_metric": PART}
    found["parts"] = PARTS
    told = {PART: {"ranked": True, "leader": 1, "best_group": [1]}, "meteor": {}}
    assert readings(found, told, [])["of"] == 1


def test_what_was_not_scored_is_said() -> None:
    missing = not_made([{"name": "rouge", "options": {"stemmer": True}}])
    assert missing[0] == "ROUGE without stemming"
    assert not [text for text in missing if "several references" in text]
    assert any(text.startswith("METEOR") for text in missing)
    both = not_made([{"name": "rouge", "options": {"stemmer": False}}], several_references=True)
    assert both[:2] == ["ROUGE with stemming", "ROUGE by the mean over several references"]

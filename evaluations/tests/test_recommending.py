"""From a comparison document to its sentence: every rule on a small table, no claim beyond the table."""

from __future__ import annotations

from typing import Any

import pytest

from evaluations.alarming import alarms
from evaluations.recommending import recommendation

PART = "rougeLsum"
TURNED = {"better": "worse", "worse": "better"}


def model(label: str, mean: float | None = 0.3, **more: Any) -> dict[str, Any]:
    """A row of the comparison; `mean=None` is a model without a value."""
    value = {"mean": mean, "low": None, "high": None, "sd": 0.1, "n": 300 if mean is not None else 0}
    return {
        "candidate": 0, "label": label, "model": f"hf://{label}", "is_baseline": False, "uses_references": False,
        "is_local": True, "problem": "", "n": 300, "states": {"ok": 300, "error": 0, "refused": 0, "empty": 0},
        "metrics": {PART: value}, "answer_rate": 1.0, "truncated": 0, "truncated_rate": 0.0,
        "latency_ms": {"p50": None, "p95": None}, "cost_usd": 0.0, "cost_per_1000_usd": 0.0,
        "best_group": not more.get("is_baseline", False), "versus_leader": {}, **more,
    }  # fmt: skip


def baseline(label: str = "baseline/lead-3", mean: float = 0.2, **more: Any) -> dict[str, Any]:
    return model(label, mean, model=label.replace("baseline/", "baseline://"), is_baseline=True, **more)


def remote(label: str, mean: float = 0.3, *, cost: float | None, seconds: float | None = None) -> dict[str, Any]:
    latency = {"p50": None if seconds is None else 1000 * seconds, "p95": None}
    usd = None if cost is None else cost * 0.3
    return model(label, mean, is_local=False, cost_per_1000_usd=cost, cost_usd=usd, latency_ms=latency)


def document(*rows: dict[str, Any], pairs: dict[tuple[str, str], str] | None = None, **more: Any) -> dict[str, Any]:
    """A finished comparison. `pairs` {(one, other): what one is against the other}; the others were not told apart."""
    ranked = sorted(rows, key=lambda row: -(row["metrics"][PART]["mean"] or 0))
    for number, row in enumerate(ranked, 1):
        row["candidate"] = number
    number_of = {row["label"]: row["candidate"] for row in ranked}
    told = []
    for a in ranked:
        for b in ranked[a["candidate"] :]:
            one, other = a["label"], b["label"]
            verdict = (pairs or {}).get((other, one)) or TURNED.get((pairs or {}).get((one, other), ""))
            told.append(
                {
                    "a": number_of[one],
                    "b": number_of[other],
                    "metric": PART,
                    "verdict": verdict or "no clear difference",
                }
            )
    return {
        "experiment": {"state": "completed"},
        "dataset": {"n_with_reference": 300},
        "primary_metric": PART,
        "parts": [{"name": PART, "label": "ROUGE-Lsum"}],
        "ranked": True,
        "detectable": None,
        "warnings": [],
        "candidates": ranked,
        "pairs": told,
        **more,
    }


def few(n: int) -> dict[str, Any]:
    row = model("amber")
    row["metrics"][PART]["n"] = n
    return row


BEATS = {("amber", "baseline/lead-3"): "better", ("birch", "baseline/lead-3"): "better"}
TIED = "it cannot be told from"

TABLE: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("still running", document(model("amber"), experiment={"state": "running"}), None,
     "The answer appears here when the experiment has finished."),
    ("cancelled before its end", document(model("amber"), ranked=False, experiment={"state": "cancelled"}), None,
     "The experiment was cancelled before its end: resume it to get an answer."),
    ("failed before its end", document(model("amber", None), ranked=False, experiment={"state": "failed"}), None,
     "The experiment failed before its end: resume it to get an answer."),
    ("only baselines", document(baseline()), None,
     "There are only baselines here: add at least one model to get an answer."),
    ("all stopped", document(model("amber", None, problem="its key was refused"), baseline()), None,
     "No model could run; the table says why for each."),
    ("no references", document(model("amber", None), dataset={"n_with_reference": 0}), None,
     "This dataset has no reference summaries, so metrics that compare with one do not apply: read the outputs side by "
     "side, or add references."),
    ("no value", document(model("amber", None)), None, "No model has a value for ROUGE-Lsum; the table says why."),
    ("one document", document(few(1), ranked=False), None,
     "1 document can show examples, not a ranking: read them side by side, and bring at least 30."),
    ("nine", document(few(9), ranked=False), None,
     "9 documents can show examples, not a ranking: read them side by side, and bring at least 30."),
    ("twenty-nine", document(few(29), ranked=False), None,
     "29 documents are too few to rank models; 30 allow a first ranking."),
    ("a clear winner", document(model("amber", 0.4), model("birch", 0.3, best_group=False), baseline(), pairs=BEATS),
     "amber", "Choose amber: on 300 documents it is clearly the best on ROUGE-Lsum."),
    ("one and a baseline it beats", document(model("amber"), baseline(), pairs=BEATS), "amber",
     "amber is the only model here, and it clearly beats the best baseline, baseline/lead-3 (0.300 against 0.200 on "
     "ROUGE-Lsum, 300 documents)."),
    ("one and the better of two baselines",
     document(model("amber"), baseline(), baseline("baseline/textrank", 0.29), pairs=BEATS), "amber",
     "amber is the only model here, and it is not clearly better than baseline/textrank, which copies sentences "
     "(0.300 against 0.290 on ROUGE-Lsum, 300 documents)."),
    ("one, and only the oracle beside it",
     document(model("amber"), baseline("baseline/oracle", 0.6, uses_references=True)), "amber",
     "amber is the only model here, and no baseline is there to hold it against: add one, such as baseline/lead-3."),
    ("one of two ran", document(model("amber"), model("birch", None, problem="gone"), baseline(), pairs=BEATS), "amber",
     "amber is the only model with a result, and it clearly beats the best baseline, baseline/lead-3 (0.300 against "
     "0.200 on ROUGE-Lsum, 300 documents)."),
    ("all tie", document(remote("amber", 0.31, cost=2.0), remote("birch", 0.30, cost=1.0)), "birch",
     "There is no evidence of a difference on ROUGE-Lsum with 300 documents: choose birch, the cheapest of them."),
    ("a tie group",
     document(remote("amber", 0.31, cost=2.0), remote("birch", cost=1.0), model("cedar", 0.1, best_group=False)),
     "birch", f"Choose birch: with 300 documents {TIED} amber on ROUGE-Lsum, and it is the cheapest of them."),
    ("a tie with an unknown price", document(remote("amber", 0.31, cost=None), remote("birch", cost=9.0)), "birch",
     "There is no evidence of a difference on ROUGE-Lsum with 300 documents: choose birch, the cheapest of those whose "
     "price is known."),
    ("a tie of equal prices",
     document(remote("amber", 0.31, cost=1.0, seconds=3), remote("birch", cost=1.0, seconds=2)), "birch",
     "There is no evidence of a difference on ROUGE-Lsum with 300 documents: choose birch, the fastest of them."),
    ("a tie of two of three prices",
     document(remote("amber", 0.31, cost=1.0, seconds=3), remote("birch", cost=1.0, seconds=2),
              remote("cedar", 0.29, cost=5.0, seconds=1)), "birch",
     "There is no evidence of a difference on ROUGE-Lsum with 300 documents: choose birch, the fastest of the "
     "cheapest."),
    ("a tie of which only the means are known", document(model("amber", 0.31), model("birch")), "amber",
     "There is no evidence of a difference on ROUGE-Lsum with 300 documents: choose amber, the best on average."),
    ("the best answers too rarely", document(model("amber", 0.31, answer_rate=0.89), model("birch")), "birch",
     f"Choose birch: with 300 documents {TIED} amber on ROUGE-Lsum, but amber answers too rarely."),
    ("nobody answers", document(model("amber", answer_rate=0.5), model("birch", answer_rate=None)), None,
     "No model answers often enough to be recommended; see what they did instead below."),
    ("the leader is silent, the others worse",
     document(model("amber", 0.4, answer_rate=0.5), model("birch", best_group=False)), None,
     "amber leads on ROUGE-Lsum but answers too rarely to be recommended, and birch is clearly worse."),
    ("stopped early with some values", document(model("amber", best_group=False, problem="its key expired")), None,
     "No model that has a value ran to its end, so none can be recommended; the table says why."),
    ("the other one stopped early",
     document(model("amber", 0.4), model("birch", best_group=False, problem="its key expired")), "amber",
     "amber is the only model that ran to its end, and no baseline is there to hold it against: add one, such as "
     "baseline/lead-3."),
    ("the best of those that ran to their end",
     document(model("amber", 0.4), model("birch", best_group=False), model("cedar", best_group=False, problem="gone")),
     "amber", "Choose amber: on 300 documents it is clearly the best on ROUGE-Lsum of those that ran to their end."),
    ("tied with one that a gate shuts out",
     document(remote("amber", 0.31, cost=1.0), model("birch"), model("cedar", 0.1, best_group=False),
              experiment={"state": "completed", "gates": {"local_only": True}}), "birch",
     f"Choose birch: with 300 documents {TIED} amber on ROUGE-Lsum, but amber fails the gates that were set."),
    ("one is silent, the other one is shut out",
     document(remote("amber", 0.31, cost=1.0), model("birch", answer_rate=0.5),
              experiment={"state": "completed", "gates": {"local_only": True}}), None,
     "No model both passes the gates that were set and answers often enough; the table says which does what."),
    ("the silent leader, and one that stopped",
     document(model("amber", 0.4, answer_rate=0.5), model("birch", best_group=False, problem="gone")), None,
     "No model answers often enough to be recommended; see what they did instead below."),
    ("a tie with an unknown time",
     document(remote("amber", 0.31, cost=1.0), remote("birch", cost=1.0, seconds=2)), "birch",
     "There is no evidence of a difference on ROUGE-Lsum with 300 documents: choose birch, as good a choice as any "
     "of them."),
    ("beaten by a baseline",
     document(model("amber", 0.2), model("birch", 0.19), baseline("baseline/textrank", 0.31), baseline(mean=0.3),
              pairs={(one, other): "worse" for one in ("amber", "birch")
                     for other in ("baseline/textrank", "baseline/lead-3")}), None,
     "No model here beats baseline/textrank, which copies sentences: do not rely on any of them yet. The best of them "
     "is amber (0.200 against 0.310 on ROUGE-Lsum, 300 documents)."),
    ("paid for and beaten",
     document(remote("amber", 0.2, cost=4.0), model("birch", 0.19), baseline(mean=0.3),
              pairs={("amber", "baseline/lead-3"): "worse", ("birch", "baseline/lead-3"): "worse"}), None,
     "No model here beats baseline/lead-3, which copies sentences: do not pay for any of them yet. The best of them "
     "is amber (0.200 against 0.300 on ROUGE-Lsum, 300 documents)."),
    ("one, and beaten",
     document(remote("amber", 0.2, cost=4.0), baseline(mean=0.3), pairs={("amber", "baseline/lead-3"): "worse"}), None,
     "amber does not beat baseline/lead-3, which copies sentences: do not pay for it yet (0.200 against 0.300 on "
     "ROUGE-Lsum, 300 documents)."),
    ("the oracle beats everybody, as it must",
     document(model("amber", 0.4), model("birch", best_group=False),
              baseline("baseline/oracle", 0.6, uses_references=True), pairs={("amber", "baseline/oracle"): "worse"}),
     "amber", "Choose amber: on 300 documents it is clearly the best on ROUGE-Lsum."),
    ("the cheap one of a tie is beaten by a baseline",
     document(remote("amber", 0.31, cost=2.0), remote("birch", 0.28, cost=1.0), baseline(mean=0.3),
              pairs={("birch", "baseline/lead-3"): "worse"}), "amber",
     "There is no evidence of a difference on ROUGE-Lsum with 300 documents: choose amber, the only one of them that "
     "no baseline beats."),
    ("the only one to beat it is silent",
     document(model("amber", 0.4, answer_rate=0.4), model("birch", 0.2), baseline(mean=0.3),
              pairs={("amber", "baseline/lead-3"): "better", ("birch", "baseline/lead-3"): "worse"}), None,
     "No model that answers often enough beats baseline/lead-3, which copies sentences: do not rely on any of them "
     "yet. The best of them is birch (0.200 against 0.300 on ROUGE-Lsum, 300 documents)."),
]  # fmt: skip


@pytest.mark.parametrize(("told", "choice", "sentence"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_sentence(told: dict[str, Any], choice: str | None, sentence: str) -> None:
    found = recommendation(told)
    assert found["sentence"] == sentence
    assert found["label"] == choice
    chosen = next((row["candidate"] for row in told["candidates"] if row["label"] == choice), None)
    assert found["candidate"] == chosen


def test_the_order_of_the_candidates_changes_nothing() -> None:
    rows = [remote("amber", 0.31, cost=2.0), remote("birch", cost=1.0), baseline()]
    assert recommendation(document(*rows))["sentence"] == recommendation(document(*rows[::-1]))["sentence"]


def test_who_is_not_clearly_better_than_a_baseline_is_told_so() -> None:
    told = document(model("amber"), baseline(mean=0.29), baseline("baseline/random-3", 0.1),
                    pairs={("amber", "baseline/random-3"): "better"})  # fmt: skip
    [caveat] = [text for text in recommendation(told)["caveats"] if "clearly beat" in text]
    assert caveat.startswith("With 0.300 it does not clearly beat baseline/lead-3 (0.290);")


def test_who_beats_every_baseline_is_spared_the_caveat() -> None:
    told = document(model("amber"), baseline(), baseline("baseline/oracle", 0.6, uses_references=True), pairs=BEATS)
    assert not [text for text in recommendation(told)["caveats"] if "clearly beat" in text]


def test_a_price_that_is_not_known_is_named_as_a_caveat() -> None:
    told = document(remote("amber", 0.31, cost=None), remote("birch", cost=9.0))
    assert "At least one model is unpriced" in " ".join(recommendation(told)["caveats"])


def test_documents_that_were_cut_are_named() -> None:
    told = document(model("amber", truncated=12))
    assert any("could not read 12 documents to the end" in text for text in recommendation(told)["caveats"])


def test_outputs_made_elsewhere_are_not_said_to_run_here() -> None:
    row = model("amber", is_local=False, cost_per_1000_usd=None, cost_usd=None, model="import://")
    assert not any("runs here" in text for text in recommendation(document(row))["reasons"])


def test_the_reasons_carry_the_interval_the_n_and_the_corrected_test() -> None:
    leader, other = model("amber", 0.4), model("birch", 0.3, best_group=False)
    leader["metrics"][PART] |= {"low": 0.38, "high": 0.42}
    other["versus_leader"] = {
        PART: {"difference": -0.1, "low": -0.12, "high": -0.08, "p_holm": 0.0001, "verdict": "worse"}
    }
    reasons = recommendation(document(leader, other))["reasons"]
    assert reasons[0] == "ROUGE-Lsum 0.400 (95 % interval 0.380 to 0.420, n = 300)."
    assert reasons[1] == "birch against the leader: -0.100 (-0.120 to -0.080), p after Holm < 0.001: worse."


@pytest.mark.parametrize(
    ("row", "alarm"),
    [
        (model("amber", 0.99), "amber: its outputs nearly equal the references; were they copied?"),
        (model("amber", answer_rate=0.5, states={"ok": 150, "error": 0, "refused": 150, "empty": 0}),
         "amber answered only 50% of the documents (150 refused)."),
        (remote("amber", cost=0.0), "amber: its calls cost nothing although it has a price; check the price."),
    ],
)  # fmt: skip
def test_what_must_be_looked_at_first(row: dict[str, Any], alarm: str) -> None:
    assert alarms(document(row)) == [alarm]


def test_equal_values_everywhere_are_an_alarm() -> None:
    row = model("amber")
    row["metrics"][PART]["sd"] = 0
    assert alarms(document(row)) == ["amber: every document has the same ROUGE-Lsum; look at its outputs."]


def test_the_oracle_may_equal_the_references() -> None:
    assert alarms(document(baseline("baseline/oracle", 1.0, uses_references=True))) == []


def gated(gates: dict[str, Any], *rows: dict[str, Any]) -> dict[str, Any]:
    return document(*rows, experiment={"state": "completed", "gates": gates})


def test_who_fails_a_gate_is_not_chosen_and_the_caveat_says_why() -> None:
    told = recommendation(gated({"local_only": True}, remote("api", 0.31, cost=0.0), model("own", 0.3)))
    assert told["label"] == "own"
    assert "api fails the gates that were set: documents would leave this installation." in told["caveats"]


def test_an_unpriced_model_does_not_pass_a_price_gate() -> None:
    told = recommendation(gated({"max_cost_per_1000_usd": 1.0}, remote("api", 0.3, cost=None)))
    assert told["candidate"] is None
    assert told["sentence"].startswith("No model passes the gates that were set (api: it costs too much")


def test_who_stopped_early_passes_no_gate_for_the_others() -> None:
    rows = [remote("api", 0.4, cost=9.0), model("own", 0.3, best_group=False, problem="gone")]
    told = recommendation(gated({"max_cost_per_1000_usd": 1.0}, *rows))
    assert told["sentence"].startswith("No model passes the gates that were set")


def test_the_numbers_of_an_earlier_run_are_called_so() -> None:
    told = recommendation(document(model("amber", 0.4), model("birch"), experiment={"state": "cancelled"}))
    assert "The last run was cancelled before its end: these are the numbers of the run before it." in told["caveats"]


def test_when_the_best_fail_their_gates_a_worse_one_is_named_but_not_chosen() -> None:
    rows = [remote("api", 0.4, cost=9.0), model("own", 0.3, best_group=False)]
    told = recommendation(gated({"max_cost_per_1000_usd": 1.0}, *rows))
    assert told["candidate"] is None
    assert told["sentence"].endswith("own passes them but is clearly worse.")


def test_too_few_groups_are_counted_as_groups() -> None:
    few = document(model("a"), model("b"), ranked=False, signature={"unit": "groups", "groups": 5})
    sentence = recommendation(few)["sentence"]
    assert sentence == "300 documents in 5 groups are too few to rank models; 30 groups allow a first ranking."


def test_a_metric_made_for_another_language_raises_an_alarm() -> None:
    told = document(model("amber"), model("birch"))
    told["parts"] = [{**part, "metric": "rouge", "languages": ["en"]} for part in told["parts"]]
    assert not any("is made for" in sentence for sentence in alarms(told))
    told["dataset"]["language"] = "de"
    assert "rouge is made for en, and most documents are in de: do not decide by it." in alarms(told)
    told["dataset"]["language"] = "en"
    assert not any("is made for" in sentence for sentence in alarms(told))

"""Modules of Hugging Face's `evaluate`, registered by folder: their numbers are evaluate's, their faults are words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from evaluations.metrics import EXAMPLE, Absent, Item, Metric, Value, _evaluate_host, _evaluate_modules
from evaluations.metrics._evaluate_host import environment
from evaluations.metrics._evaluate_modules import VARIABLE, described, registered

ROUGE = """
    import datasets
    import evaluate
    from rouge_score import rouge_scorer

    class WrappedRouge(evaluate.Metric):
        def _info(self):
            text = datasets.Value("string")
            return evaluate.MetricInfo(
                description="ROUGE", citation="",
                features=[
                    datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                    datasets.Features({"predictions": text, "references": text}),
                ],
            )

        def _compute(self, predictions, references, use_stemmer=False):
            scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=use_stemmer)
            found = {"rouge1": [], "rougeL": []}
            for reference, prediction in zip(references, predictions):
                score = scorer.score if isinstance(reference, str) else scorer.score_multi
                for kind, value in score(reference, prediction).items():
                    found[kind].append(value.fmeasure)
            return found
"""

ODD = """
    import os
    import time
    import datasets
    import evaluate
    import numpy

    class Odd(evaluate.Metric):
        def _info(self):
            text = datasets.Value("string")
            return evaluate.MetricInfo(description="", citation="", features=datasets.Features(
                {"predictions": text, "references": text, "sources": text}))

        def _compute(self, predictions, references, sources):
            (text,), (reference,), (source,) = predictions, references, sources
            print("a line on stdout")
            if text == "raise":
                raise KeyError("the private words of the document")
            if text == "crash":
                os._exit(3)
            if text == "hang":
                time.sleep(3600)
            if text == "environment":
                return {"odd": float(any("canary" in value for value in os.environ.values()))}
            if text == "offline":
                import huggingface_hub
                return {"odd": float(huggingface_hub.constants.HF_HUB_OFFLINE and evaluate.config.HF_EVALUATE_OFFLINE)}
            if text == "random":
                return {"odd": float(numpy.random.random())}
            known = {"nothing": {}, "word": {"odd": "high"}, "true": {"odd": True}, "nan": {"odd": float("nan")},
                     "two": {"odd": [0.1, 0.2]}, "large": {"odd": 45.2}, "numpy": {"odd": numpy.float32(0.5)},
                     "array": {"odd": numpy.array([0.25])}}
            return known.get(text, {"odd": len(reference) / len(source)})
"""

PART = {"name": "wrapped_rouge1", "label": "ROUGE-1", "about": "Overlap in single words.", "key": "rouge1"}
DESCRIPTION = {
    "name": "wrapped_rouge",
    "label": "ROUGE by rouge-score",
    "about": "Counts how many words of a reference also stand in the output.",
    "parts": [PART, {**PART, "name": "wrapped_rougeL", "key": "rougeL"}],
    "compute": {"use_stemmer": True},
    "cost": "a second for 100 outputs",
}
ODD_DESCRIPTION = {
    **DESCRIPTION,
    "name": "odd",
    "parts": [{"name": "odd", "label": "Odd", "about": "An odd number."}],
    "needs_source": True,
    "compute": {},
}
ITEMS = [
    EXAMPLE,
    Item("The councils were approving budgets.", ("The budget was approved.", "The council approves the budget.")),
    Item("Nothing in common", ("Two other words", " ")),
]

Build = Callable[..., Path]


def build(place: Path, name: str, script: str, description: object) -> Path:
    folder = place / name
    folder.mkdir()
    (folder / f"{name}.py").write_text(dedent(script))
    (folder / "metric.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    for host in _evaluate_modules._hosts.values():
        host.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where evaluate copies what this process itself loads; one folder, for Python remembers the package in it."""
    import evaluate

    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_MODULES_CACHE", "HF_METRICS_CACHE"):
            patch.setattr(evaluate.config, name, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def rouge(tmp_path_factory: pytest.TempPathFactory) -> Metric:
    return described(build(tmp_path_factory.mktemp("modules"), "wrapped_rouge", ROUGE, DESCRIPTION))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Metric:
    return described(build(tmp_path_factory.mktemp("modules"), "odd", ODD, ODD_DESCRIPTION))


def asked(metric: Metric, *texts: str) -> list[Value]:
    return [each["odd"] for each in metric.score([Item(text, ("12345",), "1234567890") for text in texts], {})]


# The numbers


def test_the_numbers_are_those_of_evaluate_and_of_our_own_rouge(rouge: Metric, tmp_path: Path, cache: None) -> None:
    import evaluate

    from evaluations.metrics import rouge as ours

    folder = build(tmp_path, "wrapped_rouge", ROUGE, DESCRIPTION)
    peer = evaluate.load(str(folder), cache_dir=str(tmp_path))
    references = [[reference for reference in item.references if reference.strip()] for item in ITEMS]
    expected = peer.compute(predictions=[item.text for item in ITEMS], references=references, use_stemmer=True)
    found = rouge.score(ITEMS, {})
    own = ours.score(ITEMS, ours.DEFAULTS)
    for kind in ("rouge1", "rougeL"):
        assert [each[f"wrapped_{kind}"] for each in found] == expected[kind] == [each[kind] for each in own]
    assert 0 < expected["rouge1"][0] < 1


def test_ours_and_theirs_agree_through_the_same_interface(rouge: Metric, cache: None) -> None:
    from evaluations.as_evaluate import load

    given = {"predictions": [item.text for item in ITEMS], "references": [list(item.references) for item in ITEMS]}
    mine = load("rouge").compute(**given, per_example=True)["per_example"]
    theirs = rouge.score(ITEMS, {})
    assert mine["rouge1"] == [each["wrapped_rouge1"] for each in theirs]


def test_items_do_not_influence_each_other(rouge: Metric) -> None:
    assert rouge.score(ITEMS[::-1], {})[::-1] == rouge.score(ITEMS, {}) == [rouge.score([i], {})[0] for i in ITEMS]


def test_where_a_module_takes_one_reference_the_best_counts(odd: Metric) -> None:
    (value,) = odd.score([Item("x", ("123", "12345", "1"), "1234567890")], {})
    assert value == {"odd": 0.5}


def test_numbers_come_in_many_shapes(odd: Metric) -> None:
    assert asked(odd, "numpy", "array", "plain") == [0.5, 0.25, 0.5]


def test_a_module_that_draws_numbers_draws_the_same_ones(odd: Metric) -> None:
    one, two = asked(odd, "random", "random")
    assert one == two


# What has no number


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nothing", "the module's result has no 'odd'"),
        ("word", "of type str, which is no number"),
        ("true", "of type bool, which is no number"),
        ("two", "of type list, which is no number"),
        ("nan", "is nan, which is no number"),
        ("large", "gave 45.2, but metric.json says 0 to 1: correct it"),
        ("raise", "the module fails on this output (KeyError)"),
    ],
)
def test_what_is_no_number_is_absent_with_its_reason(odd: Metric, text: str, reason: str) -> None:
    value, beside = asked(odd, text, "plain")
    assert isinstance(value, Absent) and value.state == "not_computed"
    assert reason in value.reason and "private" not in value.reason
    assert beside == 0.5


def test_blank_outputs_references_and_sources_are_told_apart(odd: Metric) -> None:
    items = [Item(" ", ("a",), "b"), Item("a", (" ",), "b"), Item("a", ("b",), "\n")]
    states = [(value.state, value.reason) for each in odd.score(items, {}) if isinstance(value := each["odd"], Absent)]
    assert states == [
        ("failed", "the output is empty"),
        ("not_applicable", "no reference summary"),
        ("not_applicable", "no source document"),
    ]


def test_a_crash_is_an_exception_and_the_next_call_works(odd: Metric) -> None:
    with pytest.raises(RuntimeError, match="status 3"):
        asked(odd, "crash")
    assert asked(odd, "plain") == [0.5]


def test_a_module_that_hangs_is_ended(odd: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(odd, "plain")
    (host,) = [each for (folder, _), each in _evaluate_modules._hosts.items() if folder.name == "odd" and each.alive]
    monkeypatch.setattr(host, "_seconds", 0.3)
    with pytest.raises(RuntimeError, match=r"for more than 0\.3 s on one output"):
        asked(odd, "hang")
    assert not host.alive and not Path(host._place).exists()


def test_a_module_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    metric = described(build(tmp_path, "broken", "import a_package_that_nobody_has\n", DESCRIPTION))
    assert metric.available({}) == "", "its code has not run yet"
    value = metric.score(ITEMS[:1], {})[0]["wrapped_rouge1"]
    assert isinstance(value, Absent) and value.state == "not_computed"
    assert "cannot be loaded: ImportError" in value.reason and "a_package_that_nobody_has" in value.reason


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (ODD, "the module reads sources: say needs_source: true"),
        (ODD.replace('"sources": text', '"context": text'), "asks for the input 'context'"),
    ],
)
def test_a_module_reads_only_what_was_announced(tmp_path: Path, cache: None, script: str, reason: str) -> None:
    folder = build(tmp_path, "odd", script, DESCRIPTION)
    opening = {"folder": str(folder), "needs_reference": True, "needs_source": False}
    with pytest.raises(ValueError, match=reason):
        _evaluate_host._load(opening, str(tmp_path))


# In the engine


@pytest.mark.django_db(transaction=True)
def test_an_experiment_is_scored_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atlas: Any) -> None:
    from evaluations import comparing, metrics
    from evaluations.models import Score
    from evaluations.tests.engine import make_dataset, make_experiment, run

    monkeypatch.setenv(VARIABLE, str(build(tmp_path, "wrapped_rouge", ROUGE, DESCRIPTION)))
    for remembered in (metrics.available, metrics.part_owner):
        remembered.cache_clear()
    try:
        dataset = make_dataset(atlas, ["The council met. It chose a plan.", "Rain fell. The game was off."])
        asked = {"metrics": ["rouge", "wrapped_rouge"], "metric_options": {"rouge": {"sentences": "newline"}}}
        experiment = run(make_experiment(dataset, "baseline://lead-1", **asked))
        document = comparing.comparison(experiment)
        values = {
            part: list(Score.objects.filter(part=part).order_by("example__index").values_list("value", flat=True))
            for part in ("rouge1", "wrapped_rouge1")
        }
    finally:
        monkeypatch.delenv(VARIABLE)
        for remembered in (metrics.available, metrics.part_owner):
            remembered.cache_clear()
    assert experiment.state == "completed"
    assert values["wrapped_rouge1"] == values["rouge1"] and None not in values["rouge1"]
    assert "wrapped_rouge1" in json.dumps(document)
    assert "wrapped_rouge1" not in json.dumps(comparing.comparison(experiment)), "the page opens without the folder too"


# What the code may see


def test_the_module_sees_no_secret_and_no_hub(odd: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in _evaluate_modules._hosts.values():
        host.close()  # so that the next process starts from this environment
    monkeypatch.setenv("LUMIGATOR_SECRET_KEY", "canary")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert asked(odd, "environment", "offline") == [0.0, 1.0]


def test_the_environment_keeps_the_caches_private() -> None:
    seen = environment({"HF_TOKEN": "x", "DATABASE_URL": "x", "PATH": "/bin", "NLTK_DATA": "/words"}, "/private")
    assert seen["HF_MODULES_CACHE"] == "/private/modules"
    assert (seen["PATH"], seen["NLTK_DATA"]) == ("/bin", "/words")
    assert seen["HF_HUB_OFFLINE"] == seen["HF_EVALUATE_OFFLINE"] == "1"
    assert not {"HF_TOKEN", "DATABASE_URL"} & seen.keys()


# Registering


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Metric]]:
    """name(folder, …) is what is registered when the administrator names these folders."""

    def register(*folders: object, beside: dict[str, Metric] | None = None) -> dict[str, Metric]:
        monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, folders)))
        return registered(beside or {})

    return register


def test_nothing_is_registered_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert registered({}) == {}


def test_a_named_folder_becomes_a_metric_without_running_its_code(tmp_path: Path, name: Any) -> None:
    script = ROUGE + '\n    open(__file__ + ".ran", "w")\n'
    folder = build(tmp_path, "any_name", script, {**DESCRIPTION, "languages": ["en"], "queue": "gpu"})
    (metric,) = name(folder).values()
    assert (metric.name, metric.label, metric.queue, metric.languages) == (
        "wrapped_rouge", "ROUGE by rouge-score", "gpu", ("en",)
    )  # fmt: skip
    assert [part.name for part in metric.parts] == ["wrapped_rouge1", "wrapped_rougeL"]
    assert (metric.parts[0].low, metric.parts[0].high, metric.parts[0].higher_is_better) == (0.0, 1.0, True)
    assert metric.available({}) == ""
    assert [path.name for path in folder.iterdir() if path.suffix == ".ran"] == []


def test_every_metric_of_the_installation_includes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluations import metrics

    folder = build(tmp_path, "wrapped_rouge", ROUGE, DESCRIPTION)
    monkeypatch.setenv(VARIABLE, f"{folder}{os.pathsep}{tmp_path / 'gone'}")
    found = metrics.available.__wrapped__()
    assert {"rouge", "wrapped_rouge"} <= found.keys()
    assert list(found) == sorted(found)
    assert len(_evaluate_modules.problems) == 1 and "metric.json" in _evaluate_modules.problems[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "two words"}, "the name 'two words' is not made of"),
        ({"label": " "}, "metric.json lacks 'label'"),
        ({"parts": []}, '"parts" is empty'),
        ({"parts": [{"name": "x", "label": "X"}]}, r"parts[0] lacks 'about'"),
        ({"parts": [PART, PART]}, "parts[1] needs a name of its own"),
        ({"parts": [{**PART, "low": 1, "high": 0}]}, '"low" must lie below "high"'),
        ({"parts": [{**PART, "low": True}]}, "parts[0]: 'low' is True, of the wrong type"),
        ({"parts": [{**PART, "high": None, "higher_is_better": False}]}, "what the worst value is"),
        ({"parts": ["rouge1"]}, "parts[0] must be an object"),
        ({"needs_reference": "yes"}, "'needs_reference' is 'yes', of the wrong type"),
        ({"queue": "api"}, 'choose "cpu" or "gpu"'),
        ({"languages": [1]}, '"languages" is a list of codes'),
        ({"higher_is_better": True}, "has a field 'higher_is_better': known are name"),
    ],
)
def test_a_wrong_description_is_refused_in_words(tmp_path: Path, name: Any, changed: Any, message: str) -> None:
    folder = build(tmp_path, "wrapped_rouge", ROUGE, {**DESCRIPTION, **changed})
    assert name(folder) == {}
    (problem,) = _evaluate_modules.problems
    assert message in problem and str(folder) in problem and VARIABLE in problem


def test_a_broken_folder_does_not_keep_out_its_neighbours(tmp_path: Path, name: Any) -> None:
    good = build(tmp_path, "wrapped_rouge", ROUGE, DESCRIPTION)
    broken = build(tmp_path, "broken", ROUGE, DESCRIPTION)
    (broken / "metric.json").write_text('{"name": ')
    assert list(name(broken, "relative/path", good, good)) == ["wrapped_rouge"]
    unreadable, relative, twice = _evaluate_modules.problems
    assert "is no JSON" in unreadable
    assert "not absolute" in relative
    assert "there is a metric 'wrapped_rouge' already" in twice


def test_names_of_ours_are_taken(tmp_path: Path, name: Any, odd: Metric) -> None:
    same_metric = build(tmp_path, "one", ODD, {**DESCRIPTION, "name": "odd"})
    same_part = build(tmp_path, "two", ODD, {**ODD_DESCRIPTION, "name": "even"})
    assert name(same_metric, same_part, beside={"odd": odd}) == {}
    assert "there is a metric 'odd' already" in _evaluate_modules.problems[0]
    assert "the metric 'odd' has a part 'odd' already" in _evaluate_modules.problems[1]


@pytest.mark.skipif(os.name != "posix", reason="file modes")
@pytest.mark.parametrize("open_to_all", [".", "wrapped_rouge.py", "metric.json"])
def test_code_that_everybody_may_write_is_refused(tmp_path: Path, name: Any, open_to_all: str) -> None:
    folder = build(tmp_path, "wrapped_rouge", ROUGE, DESCRIPTION)
    (folder / open_to_all).chmod(0o777)
    assert name(folder) == {}
    assert "everybody may write to" in _evaluate_modules.problems[0]


def test_refused_folders_are_warnings_of_the_system_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluations import apps

    monkeypatch.setattr(_evaluate_modules, "problems", ["… names /x, which is not registered as a metric: …"])
    (warning,) = apps.refused_metric_folders()
    assert "/x" in warning.msg and warning.id == "lumigator.W001"


# Availability and signature


def test_what_is_missing_later_is_said(tmp_path: Path, name: Any) -> None:
    folder = build(tmp_path, "wrapped_rouge", ROUGE, DESCRIPTION)
    script = folder / "wrapped_rouge.py"
    (metric,) = name(folder).values()
    (folder / "metric.json").write_text(json.dumps({**DESCRIPTION, "label": "Another"}))
    assert "have changed since this process started" in metric.available({})
    value = metric.score(ITEMS[:1], {})[0]["wrapped_rouge1"]
    assert isinstance(value, Absent) and "have changed" in value.reason
    script.unlink()
    assert f"its script {script} is missing" in metric.available({})
    (folder / "metric.json").unlink()
    folder.rmdir()
    assert metric.available({}) == f"its folder {folder} is gone"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("def broken(:\n", "is no Python"),
        ("from .other import thing  # From: https://example.org/other.py\n", "imports code from an address"),
    ],
)
def test_a_script_that_cannot_or_must_not_run_is_not_available(tmp_path: Path, script: str, message: str) -> None:
    metric = described(build(tmp_path, "wrapped_rouge", script, DESCRIPTION))
    assert message in metric.available({})
    value = metric.score(ITEMS[:1], {})[0]["wrapped_rouge1"]
    assert isinstance(value, Absent) and message in value.reason


def test_the_signature_changes_with_the_code_and_the_description(tmp_path: Path) -> None:
    folder = build(tmp_path, "wrapped_rouge", ROUGE, DESCRIPTION)
    digest, signature = described(folder).sign({})
    assert described(folder).sign({})[0] == digest
    assert (signature["library"], signature["compute"]) == ("evaluate", {"use_stemmer": True})
    assert "rouge_score 0" in signature["imports"] and signature["version"] != "missing"
    digests = {digest}
    (folder / "words.py").write_text("WORDS = ()\n")
    digests.add(described(folder).sign({})[0])
    (folder / "wrapped_rouge.py").write_text(dedent(ROUGE) + "\n")
    digests.add(described(folder).sign({})[0])
    (folder / "metric.json").write_text(json.dumps({**DESCRIPTION, "compute": {}}))
    digests.add(described(folder).sign({})[0])
    assert len(digests) == 4


def test_the_words_of_the_guide_name_every_field() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs/evaluate.md").read_text()
    fields = {**_evaluate_modules.FIELDS, **_evaluate_modules.PART_FIELDS}
    assert [field for field in fields if f"`{field}`" not in guide] == []
    assert VARIABLE in guide

"""The form that asks for a new experiment. `planning.create` judges what it asks; the form only reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django import forms
from django.utils.functional import cached_property

from datasets_app.models import Dataset
from evaluations import metrics, tasks
from evaluations.metrics import Metric
from lumigator.models import Team
from models_registry import choosing
from models_registry.models import ModelEntry
from models_registry.shortening import STRATEGIES

TASK = "summarization"


@dataclass(frozen=True)
class ModelChoice:
    """One model on the form; `problem` says why it cannot run here (empty: it can)."""

    entry: ModelEntry
    problem: str
    is_chosen: bool


@dataclass(frozen=True)
class OptionChoice:
    """One option of a metric on the form: `field` is its name there, `value` what it is now, as text."""

    name: str
    field: str
    value: str
    is_flag: bool


@dataclass(frozen=True)
class MetricChoice:
    metric: Metric
    problem: str
    is_chosen: bool
    options: tuple[OptionChoice, ...]
    is_changed: bool


class NewExperiment(forms.Form):
    """What to compare, on what, measured how. Field names are those of `planning.create` and of the API."""

    name = forms.CharField(max_length=200, required=False, help_text="Empty: named after the dataset.")
    dataset = forms.ModelChoiceField(queryset=Dataset.objects.none(), empty_label="Choose a dataset …")
    models = forms.MultipleChoiceField(required=False)
    addresses = forms.CharField(required=False, max_length=8000, widget=forms.Textarea(attrs={"rows": 3}))
    baselines = forms.BooleanField(required=False, initial=True)
    metrics = forms.MultipleChoiceField(
        error_messages={"required": "Choose at least one metric: without one there is nothing to compare."}
    )
    primary_metric = forms.ChoiceField()
    margin = forms.FloatField(required=False, min_value=0)
    sample_n = forms.IntegerField(required=False, min_value=1)
    seed = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1, initial=0)
    budget_usd = forms.DecimalField(required=False, min_value=0, max_digits=12, decimal_places=6)
    prompt = forms.CharField(required=False, max_length=20_000, widget=forms.Textarea(attrs={"rows": 6}))
    long_documents = forms.ChoiceField(required=False)
    reuse_outputs = forms.BooleanField(required=False, initial=True)

    def __init__(self, *args: Any, team: Team, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.team = team
        self.task = tasks.available()[TASK]
        self.fields["dataset"].queryset = Dataset.objects.filter(team=team, state=Dataset.State.READY)  # type: ignore[attr-defined]
        self.fields["dataset"].label_from_instance = dataset_label  # type: ignore[attr-defined]
        self._offer("models", [(entry.slug, entry.name) for entry in self.entries])
        self._offer("metrics", [(metric.name, metric.label) for metric in metrics.available().values()])
        self._offer("primary_metric", list(primary_choices()))
        ways = [(name, f"It {words}") for name, words in STRATEGIES.items()]
        self._offer("long_documents", [("", "As the model does by itself: it reads the beginning"), *ways])
        self.initial.setdefault("metrics", list(self.task.metrics))
        self.initial.setdefault("primary_metric", self.task.primary)
        for name in self.fields:
            if name in self.errors:
                self.fields[name].widget.attrs["aria-invalid"] = "true"

    def _offer(self, name: str, choices: list[Any]) -> None:
        self.fields[name].choices = choices  # type: ignore[attr-defined]

    @cached_property
    def entries(self) -> list[ModelEntry]:
        rows = ModelEntry.objects.filter(team=self.team, enabled=True, is_baseline=False)
        return list(rows.exclude(architecture=ModelEntry.Architecture.IMPORTED).select_related("team"))

    def _chosen(self, name: str) -> set[str]:
        return set(self[name].value() or ())

    @cached_property
    def model_groups(self) -> list[tuple[str, list[ModelChoice]]]:
        """[(where the documents go, the models)], models that can run first."""
        chosen = self._chosen("models")
        made = [ModelChoice(entry, choosing.why_not(entry), entry.slug in chosen) for entry in self.entries]
        made.sort(key=lambda choice: bool(choice.problem))
        groups = [(label, [c for c in made if c.entry.privacy == kind]) for kind, label in ModelEntry.Privacy.choices]
        return [(label, group) for label, group in groups if group]

    @cached_property
    def metric_choices(self) -> list[MetricChoice]:
        chosen = self._chosen("metrics")
        return [
            MetricChoice(
                metric,
                metric.available(metric.defaults),
                metric.name in chosen,
                tuple(self._option(metric, name) for name in metric.defaults),
                bool(self._options_of(metric)),
            )
            for metric in metrics.available().values()
        ]

    def _option(self, metric: Metric, name: str) -> OptionChoice:
        default = metric.defaults[name]
        field = f"option-{metric.name}-{name}"
        return OptionChoice(name, field, self.data.get(field, _as_text(default)), isinstance(default, bool))

    def _options_of(self, metric: Metric) -> dict[str, Any]:
        """The options that were given another value than their default."""
        given = {name: self.data.get(f"option-{metric.name}-{name}") for name in metric.defaults}
        read = {name: _as_value(text, metric.defaults[name]) for name, text in given.items() if text is not None}
        return {name: value for name, value in read.items() if value != metric.defaults[name]}

    def as_asked(self) -> dict[str, Any]:
        """The cleaned form as `planning.create` takes it."""
        asked = self.cleaned_data
        addresses = [line.strip() for line in asked["addresses"].splitlines() if line.strip()]
        return {
            "name": asked["name"],
            "dataset": asked["dataset"],
            "task": TASK,
            "models": [_wish(model, asked["long_documents"]) for model in [*asked["models"], *addresses]],
            "metrics": asked["metrics"],
            "primary_metric": asked["primary_metric"],
            "margin": asked["margin"],
            "sample": {"n": asked["sample_n"], "seed": asked["seed"] or 0},
            "budget_usd": asked["budget_usd"],
            "baselines": asked["baselines"],
            "prompt": asked["prompt"].strip(),
            "metric_options": self._metric_options(asked["metrics"]),
            "reuse_outputs": asked["reuse_outputs"],
        }

    def _metric_options(self, names: list[str]) -> dict[str, Any]:
        known = metrics.available()
        return {name: options for name in names if name in known and (options := self._options_of(known[name]))}

    def refuse(self, errors: dict[str, list[str]]) -> None:
        """Put the sentences of `planning.Refused` beside the fields they are about."""
        for field, sentences in errors.items():
            place = {"sample": "sample_n", "metric_options": "metrics"}.get(field, field)
            self.add_error(place if place in self.fields else None, sentences)


def _wish(model: str, long_documents: str) -> str | dict[str, Any]:
    return {"model": model, "long_documents": long_documents} if long_documents else model


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _as_value(text: str, default: Any) -> Any:
    """What somebody typed for an option with this default; text that is no such number is left to the metric, whose
    words name the option."""
    text = text.strip()
    if isinstance(default, bool):
        return text == "yes"
    if default is None and not text:
        return None
    if isinstance(default, int | float) or default is None:
        try:
            return float(text) if isinstance(default, float) else int(text)
        except ValueError:
            return text
    return text


def dataset_label(dataset: Dataset) -> str:
    facts = [f"{dataset.n_examples:,} document{'' if dataset.n_examples == 1 else 's'}"]
    facts.append(f"{dataset.n_with_reference:,} with a reference" if dataset.has_references else "no references")
    if not dataset.may_leave:
        facts.append("never leaves this installation")
    return f"{dataset.name} — {', '.join(facts)}"


def primary_choices() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The parts that can decide (those with a better direction), grouped by metric."""
    for metric in metrics.available().values():
        parts = [(part.name, part.label) for part in metric.parts if part.higher_is_better is not None]
        if parts:
            yield metric.label, parts

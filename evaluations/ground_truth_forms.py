"""The form that asks for drafted references. `annotating.create` judges what it asks; the form only reads it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.functional import cached_property

from datasets_app.models import Dataset
from evaluations import tasks
from evaluations.forms import TASK, ModelChoice, dataset_label
from lumigator.models import Team
from models_registry import choosing
from models_registry.models import ModelEntry


class NewGroundTruth(forms.Form):
    """What to draft, by which model. Field names are those of the API."""

    name = forms.CharField(max_length=200, required=False, help_text="Empty: named after the dataset.")
    dataset = forms.ModelChoiceField(queryset=Dataset.objects.none(), empty_label="Choose a dataset …")
    model = forms.ChoiceField(error_messages={"required": "Choose the model that drafts."})
    sample_n = forms.IntegerField(required=False, min_value=1)
    seed = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1, initial=0)
    budget_usd = forms.DecimalField(required=False, min_value=0, max_digits=12, decimal_places=6)
    prompt = forms.CharField(required=False, max_length=20_000, widget=forms.Textarea(attrs={"rows": 6}))

    def __init__(self, *args: Any, team: Team, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.team = team
        self.task = tasks.available()[TASK]
        usable = Dataset.objects.filter(team=team, state=Dataset.State.READY, sealed=False)
        self.fields["dataset"].queryset = usable  # type: ignore[attr-defined]
        self.fields["dataset"].label_from_instance = dataset_label  # type: ignore[attr-defined]
        self.fields["model"].choices = [(entry.slug, entry.name) for entry in self.entries]  # type: ignore[attr-defined]
        for name in self.fields:
            if name in self.errors:
                self.fields[name].widget.attrs["aria-invalid"] = "true"

    @cached_property
    def entries(self) -> list[ModelEntry]:
        rows = ModelEntry.objects.filter(team=self.team, enabled=True, is_baseline=False)
        return list(rows.exclude(architecture=ModelEntry.Architecture.IMPORTED).select_related("team"))

    @cached_property
    def model_groups(self) -> list[tuple[str, list[ModelChoice]]]:
        """[(where the documents go, the models with what is in their way)], those that can run first."""
        chosen, ready = self["model"].value(), choosing.readiness_of_all(self.team, self.entries)
        made = [
            ModelChoice(entry, "" if found.can_run else found.words, entry.slug == chosen)
            for entry, found in zip(self.entries, ready, strict=True)
        ]
        made.sort(key=lambda choice: bool(choice.problem))
        groups = [(label, [c for c in made if c.entry.privacy == kind]) for kind, label in ModelEntry.Privacy.choices]
        return [(label, group) for label, group in groups if group]

    def as_asked(self) -> dict[str, Any]:
        """The cleaned form as `annotating.create` takes it."""
        asked = self.cleaned_data
        return {
            "name": asked["name"],
            "dataset": asked["dataset"],
            "model": asked["model"],
            "prompt": asked["prompt"].strip(),
            "sample": {"n": asked["sample_n"], "seed": asked["seed"] or 0},
            "budget_usd": asked["budget_usd"],
        }

    def refuse(self, errors: dict[str, list[str]]) -> None:
        """Put the sentences of `planning.Refused` beside the fields they are about."""
        for field, sentences in errors.items():
            place = {"sample": "sample_n", "models": "model"}.get(field, field)
            self.add_error(place if place in self.fields else None, sentences)

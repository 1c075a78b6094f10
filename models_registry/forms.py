"""The forms of the registry's pages. `adding` and `connecting` hold the rules; the forms read and show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.forms.fields import InvalidJSONInput

from evaluations import tasks
from lumigator.parsing import unstorable
from models_registry import adding, choosing, connecting
from models_registry.models import MOST_AT_ONCE, Connection, ModelEntry

ANY = ("", "any")
JSON_HELP = 'A JSON object, for example {"max_new_tokens": 142, "num_beams": 4}. It is really applied, and recorded.'
SORT_KEYS = ("slug", "window", "parameters", "size", "price", "here")
SORTS = [(sign + key, key) for key in SORT_KEYS for sign in ("", "-")]
WHERE = {"local": "run here", "private": "own endpoint", "external": "external", "baseline": "baselines"}


class Parameters(forms.JSONField):
    """A JSON object that can be stored and shown again. Django's field knows only misspelt JSON: one that is nested too
    deeply, has an integer of 5,000 digits or half of a surrogate pair would be a fault of ours."""

    def to_python(self, value: Any) -> Any:
        try:
            found = super().to_python(value)
        except (ValueError, RecursionError):
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None
        if wrong := next(unstorable(found, ()), None):
            raise forms.ValidationError(wrong[1])
        return found

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            self.to_python(data)
        except forms.ValidationError:
            return InvalidJSONInput(data)  # as it was typed
        return super().bound_data(data, initial)


class Filters(forms.Form):
    """What the list shows; every choice lives in the URL."""

    q = forms.CharField(required=False, max_length=100, label="Find", widget=forms.SearchInput)
    provider = forms.ChoiceField(required=False)
    kind = forms.ChoiceField(required=False)
    task = forms.ChoiceField(required=False)
    where = forms.ChoiceField(required=False, choices=[ANY, *WHERE.items()])
    state = forms.ChoiceField(required=False)
    can_run = forms.ChoiceField(required=False, label="Can run here", choices=[ANY, ("yes", "yes"), ("no", "no")])
    sort = forms.ChoiceField(required=False, widget=forms.HiddenInput, choices=[("", ""), *SORTS])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_suffix = ""
        names = [(task.name, task.label) for task in tasks.available().values()]
        self._offer("task", names)
        self._offer("provider", [(scheme, scheme) for scheme in sorted(choosing.shown_schemes())])
        self._offer("kind", ModelEntry.Architecture.choices)
        self._offer("state", ModelEntry.State.choices)

    def _offer(self, name: str, choices: Iterable[tuple[str, Any]]) -> None:
        self.fields[name].choices = [ANY, *choices]  # type: ignore[attr-defined]


class Prices(forms.Form):
    price_in = forms.DecimalField(
        required=False, min_value=0, max_digits=12, decimal_places=6, label="Price of input",
        help_text="US dollars per million tokens. Empty: unpriced, which is not the same as free.",
    )  # fmt: skip
    price_out = forms.DecimalField(
        required=False, min_value=0, max_digits=12, decimal_places=6, label="Price of output"
    )
    price_cached = forms.DecimalField(
        required=False, min_value=0, max_digits=12, decimal_places=6, label="Price of cached input",
        help_text="Empty: charged like other input.",
    )  # fmt: skip
    price_source = forms.CharField(
        required=False, max_length=200, label="Source of the price", help_text="Where it stands."
    )
    price_date = forms.DateField(
        required=False, label="Date of the price", help_text="The day on which it was so. Empty: unknown.",
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )  # fmt: skip


class AddModel(forms.Form):
    uri = forms.CharField(
        max_length=400, label="Address", help_text="What to run, in one of the forms on the right.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "hf://org/name"}),
    )  # fmt: skip
    architecture = forms.ChoiceField(
        required=False,
        choices=[
            ("", "read it from the weights"),
            ("seq2seq", "encoder-decoder: BART, T5, Pegasus, LED, …"),
            ("causal", "causal: chat and instruction models"),
        ],
        help_text="Asked only for models of the hub that are not downloaded yet.",
    )
    slug = forms.CharField(
        required=False, max_length=120, label="Short name",
        help_text="How experiments, the API and the command line call it. Empty: taken from the address.",
    )  # fmt: skip
    name = forms.CharField(required=False, max_length=160, help_text="As it stands in tables. Empty: the short name.")
    about = forms.CharField(
        required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 2}),
        help_text="One sentence for a colleague who chooses.",
    )  # fmt: skip
    generation = Parameters(
        required=False,
        initial=dict,
        help_text=JSON_HELP,
        widget=forms.Textarea(attrs={"rows": 3, "class": "code"}),
    )

    def facts(self) -> dict[str, Any]:
        """What `adding.add` takes; what was left empty is left to the address."""
        return {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}


class ChangeModel(Prices):
    name = forms.CharField(max_length=160)
    about = forms.CharField(required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 2}))
    generation = Parameters(
        required=False, help_text=JSON_HELP, widget=forms.Textarea(attrs={"rows": 5, "class": "code"})
    )
    window = forms.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, help_text="Tokens. Empty: what the model itself says."
    )
    licence = forms.CharField(required=False, max_length=80)

    field_order = ("name", "about", "generation", "window", "licence")

    @classmethod
    def of(cls, entry: ModelEntry) -> ChangeModel:
        return cls(initial={name: getattr(entry, name) for name in cls.base_fields})

    def facts(self) -> dict[str, Any]:
        return {**self.cleaned_data, "generation": self.cleaned_data["generation"] or {}}


class ConnectionFields(forms.Form):
    name = forms.SlugField(max_length=60, help_text="For an endpoint it is the part after endpoint:// in its models.")
    base_url = forms.CharField(
        required=False, max_length=300, label="Address",
        help_text="Empty: the provider's own. An endpoint's looks like http://10.1.0.5:8000/v1.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "inputmode": "url"}),
    )  # fmt: skip
    key = forms.CharField(
        required=False, max_length=connecting.LONGEST_KEY, label="API key",
        help_text="Stored encrypted and never shown again.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )  # fmt: skip

    provider_name = ""

    def clean_key(self) -> str:
        key = str(self.cleaned_data["key"])
        if wrong := connecting.key_problem(key):
            raise forms.ValidationError(wrong)
        return key

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        provider = self.provider_name or data.get("provider", "")
        if "base_url" in data and (wrong := connecting.address_problem(provider, data["base_url"])):
            self.add_error("base_url", wrong)
        return data


class AddConnection(ConnectionFields):
    provider = forms.ChoiceField(help_text="Fixed once the connection is made.")

    field_order = ("provider", "name", "base_url", "key")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["provider"].choices = list(connecting.services().items())  # type: ignore[attr-defined]


class ChangeConnection(ConnectionFields):
    forget_key = forms.BooleanField(required=False, label="Forget the stored key")
    concurrency = forms.IntegerField(
        min_value=1, max_value=MOST_AT_ONCE, help_text="Calls at the same time and worker, at most."
    )
    requests_per_minute = forms.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1,
        help_text="What the provider allows you, shared by all workers. Empty: found out by its refusals.",
    )  # fmt: skip
    tokens_per_minute = forms.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, help_text="Read and written together. Empty: no limit known."
    )
    connect_timeout = forms.FloatField(min_value=0.1, max_value=60, help_text="Seconds.")
    read_timeout = forms.FloatField(min_value=1, max_value=3600, help_text="Seconds without a byte of the answer.")
    enabled = forms.BooleanField(required=False)

    def __init__(self, *args: Any, connection: Connection, **kwargs: Any) -> None:
        self.provider_name = connection.provider
        super().__init__(*args, **kwargs)
        self.initial = {name: getattr(connection, name) for name in self.fields if name not in ("key", "forget_key")}
        if connection.has_key:
            self.fields["key"].help_text = (
                f"A key{f' ending in {connection.key_hint}' if connection.key_hint else ''} is stored. Empty: keep it. "
                "It is cleared when you change the scheme, host or port of the address."
            )
        else:
            del self.fields["forget_key"]

    def facts(self) -> tuple[dict[str, Any], str | None]:
        """(values of the connection's fields, the key to store: None keeps the stored one, "" forgets it)."""
        data = dict(self.cleaned_data)
        key, forget = data.pop("key"), data.pop("forget_key", False)
        return data, key or ("" if forget else None)


def show_problems(form: forms.Form, refused: adding.Refused) -> None:
    """Put what was refused beside the fields it is about, and the rest above the form."""
    for name, sentences in refused.errors.items():
        form.add_error(name if name in form.fields else None, sentences)


def schemes_help(roots: list[str]) -> list[tuple[str, str]]:
    """[(address, what it means)] for the page where models are added."""
    known = ", ".join(roots)
    return [
        ("hf://org/name", "A model of the Hugging Face hub with safetensors weights; @commit pins a revision."),
        (
            f"file://{roots[0] if roots else 'root'}/folder",
            f"A folder on this machine below a registered root: {known}.",
        ),
        ("endpoint://connection/name", "A model behind a server of yours that speaks OpenAI's chat protocol."),
        ("openai://name", "A model of OpenAI's, by API."),
        ("mistral://name", "A model of Mistral's, by API."),
        ("baseline://lead-5", "Sentences picked without a model: lead, textrank, lexrank or random, 1 to 99 of them."),
    ]


def roots_for_help() -> list[str]:
    return sorted(choosing.model_roots())

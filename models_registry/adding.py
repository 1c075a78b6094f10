"""Adding turns an address into an entry of the registry, and changes entries: the one set of rules for page and API.

What an address names is fixed when the entry is made; everything else about it can be changed; its state as `curating`
says. An edit never touches an experiment: its candidates hold their own frozen copy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from evaluations import tasks
from lumigator.models import Team
from lumigator.parsing import unstorable
from models_registry import checking, choosing, curating
from models_registry.models import ModelEntry
from models_registry.providers import ProviderError

CHANGEABLE = (
    "name",
    "about",
    "revision",
    "tasks",
    "generation",
    "options",
    "window",
    "parameters",
    "size_bytes",
    "licence",
    "website",
    "price_in",
    "price_out",
    "price_cached",
    "price_source",
    "price_date",
)
OPTIONS: dict[str, tuple[type, str]] = {
    "reads_prompt": (bool, "true or false"),
    "max_tokens_parameter": (str, "the name under which the server wants its token limit"),
    "system": (str, "a text"),
    "engine": (str, "auto, transformers or ctranslate2"),
    "dtype": (str, "auto, float32, bfloat16, float16 or int8"),
}
"""What an editor may set in `options`; providers know more, for tests and for tuning by administrators."""

SLUG = re.compile(r"[A-Za-z0-9][\w.:@+-]*(?:/[A-Za-z0-9][\w.:@+-]*)*", re.ASCII)
RESERVED = ("add", "connections", "playground", "compare")
"""First parts of addresses below /models/ that are pages of their own."""

LONGEST_JSON = 10_000
COMMIT = re.compile(r"(?:[0-9a-f]{40})?")


class Refused(ValueError):
    """What was asked cannot be done. `errors` says why: {field: [sentence, …]}."""

    def __init__(self, errors: dict[str, list[str]]) -> None:
        super().__init__("; ".join(f"{field}: {' '.join(sentences)}" for field, sentences in errors.items()))
        self.errors = errors


def add(
    team: Team, *, uri: str, slug: str = "", architecture: str = "", state: str = "draft", by: str = "", **facts: Any
) -> ModelEntry:
    """A new entry for an address: a draft, unless `state` says enabled. `facts` are values of CHANGEABLE; what is left
    out is what the address says, and for a model of the hub what the hub says: it is pinned to the commit that the hub
    has now, where the hub answers.

    The registry's own entry for the same address lends nothing: two entries of one model differ as you say they do.
    Raises Refused with every problem found, by field.
    """
    try:
        entry = choosing.entry_of_uri(team, uri.strip())
    except ProviderError as exc:
        raise Refused({"uri": [str(exc)]}) from None
    if entry.scheme == "import":
        raise Refused({"uri": ["imported outputs are added to an experiment, with their file, not to the registry"]})
    if state not in ("draft", "enabled"):
        raise Refused({"state": ["what is added begins as draft or enabled"]})
    entry.slug = slug.strip() or usual_slug(entry)
    entry.name, entry.state = entry.slug, state
    entry.tasks = ["summarization"]
    errors: dict[str, list[str]] = {}
    _set(entry, facts)
    _read_the_hub(entry, facts, errors)
    _settle_architecture(entry, architecture, errors)
    errors = problems_of(entry) | errors
    if "uri" in errors and not slug:
        errors.pop("slug", None)  # it was only taken from the address
    if "slug" not in errors and ModelEntry.objects.filter(team=team, slug=entry.slug).exists():
        errors["slug"] = [f"the registry has a model {entry.slug!r}: change that one, or give this one another slug"]
    if errors:
        raise Refused(errors)
    _date_the_price(entry, facts)
    try:
        with transaction.atomic():
            entry.save(force_insert=True)
            curating.begin(entry, actor=by or "system", note=entry.uri)
    except IntegrityError:
        raise Refused({"slug": [f"somebody added {entry.slug!r} a moment ago: look at theirs first"]}) from None
    return entry


def change(entry: ModelEntry, *, by: str = "", state: str = "", note: str = "", **facts: Any) -> ModelEntry:
    """The entry with these values of CHANGEABLE, saved, and moved to `state` where one is given. Raises Refused, and
    then nothing is changed."""
    _set(entry, facts)
    errors: dict[str, list[str]] = {}
    # An entry whose folder is gone can still be renamed and retired.
    _judge(entry, errors, only=set(facts))
    if state and state not in curating.VERBS.values():
        errors["state"] = [f"{state[:20]!r} cannot be asked for; what can is draft, enabled or retired"]
    if errors:
        raise Refused(errors)
    with transaction.atomic():
        fields = [*facts, *_date_the_price(entry, facts)]
        if fields:
            entry.save(update_fields=fields)
        if state:
            try:
                curating.move(entry, state, actor=by or "system", note=note)
            except curating.NotPossible as exc:
                raise Refused({"state": [str(exc)]}) from None
    return entry


def _date_the_price(entry: ModelEntry, facts: Mapping[str, Any]) -> list[str]:
    """A price that is entered without its date is of today; without a price there is no date. The fields changed."""
    if "price_date" in facts or not {"price_in", "price_out", "price_cached"} & set(facts):
        return []
    entry.price_date = None if entry.price_in is None else timezone.now().date()
    return ["price_date"]


def _read_the_hub(entry: ModelEntry, facts: Mapping[str, Any], errors: dict[str, list[str]]) -> None:
    """Let the hub say what nobody said. One that does not answer leaves that open; what it says against the model is
    a problem now, before a run starts."""
    if entry.scheme != "hf" or choosing.is_offline():
        return
    try:
        told = checking.ask_hub(entry.uri, entry.revision)
    except ProviderError as exc:
        errors["uri"] = [str(exc)]
        return
    if not told.is_known:
        return
    if told.problems:
        errors["uri"] = told.problems
        return
    entry.architecture = entry.architecture or told.architecture
    if not entry.revision:
        entry.revision = told.commit
    for name in ("parameters", "size_bytes", "licence"):
        if name not in facts and (value := getattr(told, name)):
            setattr(entry, name, value)


def problems_of(entry: ModelEntry, *, any_option: bool = False) -> dict[str, list[str]]:
    """What is wrong with an entry, by field: {field: [sentence, …]}. With `any_option` options may be more than
    OPTIONS: administrators tune with them."""
    errors: dict[str, list[str]] = {}
    _judge(entry, errors, any_option=any_option)
    if wrong := slug_problem(entry.slug):
        errors["slug"] = [wrong]
    return errors


def usual_slug(entry: ModelEntry) -> str:
    """How an entry is called when nobody says: the hub id, `openai/name`, `connection/name`, `local/folder`."""
    rest = entry.uri.partition("://")[2].strip("/")
    if entry.scheme == "hf":
        return rest.partition("@")[0]
    if entry.scheme == "endpoint":
        return rest
    if entry.scheme == "file":
        return f"local/{rest.rpartition('/')[2]}"
    return f"{entry.scheme}/{rest}"


def slug_problem(slug: str) -> str:
    if not SLUG.fullmatch(slug) or len(slug) > 120:
        return (
            "a slug has at most 120 letters, digits and . _ : @ + -, in parts with / between, each beginning with a "
            "letter or digit, for example my-team/bart-legal"
        )
    if slug.partition("/")[0] in RESERVED or slug.rpartition("/")[2] == "check":
        return f"{slug!r} is the address of a page: choose another slug"
    return ""


def _settle_architecture(entry: ModelEntry, asked: str, errors: dict[str, list[str]]) -> None:
    if not entry.architecture and not asked:
        errors["architecture"] = [
            "its weights are not on this machine, so its architecture cannot be read: say seq2seq (BART, T5, Pegasus, "
            "…) or causal (chat and instruction models)"
        ]
    elif entry.architecture and asked and entry.architecture != asked:
        errors["architecture"] = [f"this address is of the kind {entry.architecture}, not {asked}: leave it out"]
    entry.architecture = entry.architecture or asked


def _set(entry: ModelEntry, facts: Mapping[str, Any]) -> None:
    if unknown := sorted(set(facts) - set(CHANGEABLE)):
        raise Refused({name: [f"this cannot be set; what can is {', '.join(CHANGEABLE)}"] for name in unknown})
    for name, value in facts.items():
        setattr(entry, name, value)


def _judge(
    entry: ModelEntry, errors: dict[str, list[str]], *, only: set[str] | None = None, any_option: bool = False
) -> None:
    """Add what is wrong with the entry, by field; with `only`, what these fields are to blame for."""
    found: dict[str, list[str]] = {
        "generation": _json_problems(entry.generation),
        "options": _json_problems(entry.options) or ([] if any_option else _option_problems(entry.options)),
        "tasks": _task_problems(entry.tasks),
        "revision": _revision_problems(entry),
        "price_out": _price_problems(entry),
        "privacy": _privacy_problems(entry),
    }
    if not found["generation"] and not found["options"]:
        found["uri"], found["generation"] = _provider_problems(entry)
    prices = {"price_in", "price_out", "price_cached", "price_date"}
    for name, sentences in found.items():
        mine = only is None or name in only or (name == "price_out" and prices & only)
        if sentences and mine:
            errors[name] = sentences


def _json_problems(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return ['a table of parameters is needed, for example {"max_new_tokens": 142}']
    if wrong := next(unstorable(value, ()), None):
        place, sentences = wrong
        return [f"{place}: {each}" if place else each for each in sentences]
    if len(json.dumps(value)) > LONGEST_JSON:
        return [f"at most {LONGEST_JSON:,} characters"]
    return []


def _option_problems(options: dict[str, Any]) -> list[str]:
    problems = [
        f"there is no option {name[:60]!r}; there is {', '.join(OPTIONS)}" for name in options if name not in OPTIONS
    ]
    for name, (kind, words) in OPTIONS.items():
        if name in options and not isinstance(options[name], kind):
            problems.append(f"{name} must be {words}")
    return problems


def _task_problems(names: Any) -> list[str]:
    known = tasks.available()
    unknown = [name for name in names if name not in known]
    return [f"there is no task {', '.join(map(repr, unknown))}; there is {', '.join(known)}"] if unknown else []


def _revision_problems(entry: ModelEntry) -> list[str]:
    if entry.revision and entry.scheme != "hf":
        return ["only models of the hub have a revision: leave it empty"]
    if not COMMIT.fullmatch(entry.revision):
        return ["a commit of 40 hex digits, or empty"]
    return []


def _price_problems(entry: ModelEntry) -> list[str]:
    if (entry.price_in is None) != (entry.price_out is None):
        return ["give both prices, of input and of output, or neither: half a price cannot keep a budget"]
    if entry.price_date is not None and entry.price_date > timezone.now().date():
        return ["the date of a price is not in the future: give the day on which it was so"]
    if entry.price_cached is not None and entry.price_in is None:
        return ["a price of cached input needs the prices of input and output beside it"]
    return []


def _privacy_problems(entry: ModelEntry) -> list[str]:
    """A network model that is called local would count as free, and pass the gate for documents that stay here."""
    if entry.privacy == ModelEntry.Privacy.LOCAL and entry.scheme not in choosing.LOCAL_SCHEMES:
        return ["its documents leave this installation: say private (an endpoint of yours) or external"]
    return []


def _provider_problems(entry: ModelEntry) -> tuple[list[str], list[str]]:
    """(what the provider says against the address and options, what against the generation parameters)."""
    try:
        spec = choosing.locate(choosing.freeze(entry))
        bare = entry.provider.problems({**spec, "generation": {}})
        return bare, [each for each in entry.provider.problems(spec) if each not in bare]
    except ProviderError as exc:
        return [str(exc)], []

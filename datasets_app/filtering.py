"""Filtering says which examples of a dataset are meant: what an address asks for, as a condition and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from django.db.models import BooleanField, F, Func, IntegerField, Q, TextField, Value
from django.db.models.lookups import Exact, GreaterThanOrEqual, LessThanOrEqual

from datasets_app.building import MAX_LABEL_CHARACTERS

MAX_SEARCH = 200
LIMITS = ("min_words", "max_words", "min_characters", "max_characters")
PARAMETERS = ("search", "tag", "group", "has_reference", *LIMITS)


class Query(Protocol):
    """A QueryDict."""

    def getlist(self, key: str) -> list[str]: ...


@dataclass(frozen=True)
class Filter:
    """All that is said must be true of an example; the empty filter says nothing.

    `search` is a part of its document, of a reference or of its id, whatever the case. Words are what blanks, tabs and
    line ends separate. Limits include themselves. `tags` are (name, value as text).
    """

    search: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    group: str = ""
    has_reference: bool | None = None
    min_words: int | None = None
    max_words: int | None = None
    min_characters: int | None = None
    max_characters: int | None = None

    @property
    def is_empty(self) -> bool:
        return self == Filter()

    @property
    def characters(self) -> tuple[int | None, int | None]:
        """Between which lengths all matches are; so many words take at least so many characters."""
        lows = [self.min_characters] if self.min_characters is not None else []
        lows += [2 * self.min_words - 1] if self.min_words else []
        return max(lows, default=None), self.max_characters

    def condition(self) -> Q:
        met = Q()
        if self.search:
            pattern = Value("%" + self.search.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%")
            references = Func(F("references"), Value("\n"), function="array_to_string", output_field=TextField())
            met &= Q(_like(F("source"), pattern)) | Q(_like(F("key"), pattern)) | Q(_like(references, pattern))
        for name, value in self.tags:
            met &= Q(Exact(tag(name), Value(value)))
        if self.group:
            met &= Q(group=self.group)
        if self.has_reference is not None:
            met &= ~Q(references=[]) if self.has_reference else Q(references=[])
        low, high = self.characters
        if low is not None:
            met &= Q(n_characters__gte=low)
        if high is not None:
            met &= Q(n_characters__lte=high)
        if self.min_words is not None:
            met &= Q(GreaterThanOrEqual(n_words(), self.min_words))
        if self.max_words is not None:
            met &= Q(LessThanOrEqual(n_words(), self.max_words))
        return met

    def as_query(self) -> list[tuple[str, str]]:
        """The parameters of an address, as `read` takes them."""
        pairs = [("search", self.search), ("group", self.group)]
        pairs += [("tag", f"{name}:{value}") for name, value in self.tags]
        if self.has_reference is not None:
            pairs.append(("has_reference", "yes" if self.has_reference else "no"))
        pairs += [(name, str(limit)) for name in LIMITS if (limit := getattr(self, name)) is not None]
        return [pair for pair in pairs if pair[1]]

    def as_dict(self) -> dict[str, Any]:
        """JSON; only what is said."""
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        said["tags"] = dict(self.tags)
        return {name: value for name, value in said.items() if value not in ("", None, {})}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Filter:
        return cls(**{**said, "tags": tuple((said.get("tags") or {}).items())})

    def __str__(self) -> str:
        """In words that follow "examples": "that hold “budget” and are tagged kind = mail"."""
        parts = [f"hold “{self.search}”"] if self.search else []
        parts += [f"are tagged {name} = {value}" for name, value in self.tags]
        parts += [f"are in the group {self.group}"] if self.group else []
        if self.has_reference is not None:
            parts.append("have a reference" if self.has_reference else "have no reference")
        for unit in ("words", "characters"):
            low, high = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            parts += [f"have at least {low:,} {unit}"] if low is not None else []
            parts += [f"have at most {high:,} {unit}"] if high is not None else []
        return f"that {' and '.join(parts)}" if parts else ""


def read(query: Query, names: Iterable[str]) -> tuple[Filter, dict[str, str]]:
    """The filter that an address asks for, and what is wrong with it by parameter; that part is then left out.

    `names` are the tags of the dataset; a tag is asked for as `name:value`, and may be, several times.
    """
    said: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name in PARAMETERS:
        texts = [text for text in query.getlist(name) if text.strip()]
        if not texts:
            continue
        try:
            said["tags" if name == "tag" else name] = _value(name, texts, list(names))
        except ValueError as error:
            wrong[name] = str(error)
    for unit in ("words", "characters"):
        low, high = said.get(f"min_{unit}"), said.get(f"max_{unit}")
        if low is not None and high is not None and low > high:
            wrong[f"max_{unit}"] = f"it is less than min_{unit}, so nothing can match"
    return Filter(**said), wrong


def _value(name: str, texts: list[str], names: list[str]) -> Any:
    if any("\0" in text for text in texts):
        raise ValueError("it holds a NUL character: remove it")
    text = texts[-1].strip()
    if name == "search":
        if len(text) > MAX_SEARCH:
            raise ValueError(f"it has at most {MAX_SEARCH} characters; this has {len(text):,}")
        return text
    if name == "group":
        return text[: MAX_LABEL_CHARACTERS + 1]
    if name == "has_reference":
        if text not in ("yes", "no"):
            raise ValueError("it is yes or no")
        return text == "yes"
    if name == "tag":
        return tuple(dict.fromkeys(_tag(one, names) for one in texts))
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError("it is a whole number from 0 to 999,999,999")
    return int(text)


def _tag(text: str, names: list[str]) -> tuple[str, str]:
    known = sorted((name for name in names if text.startswith(f"{name}:")), key=len)
    if not known:
        there = f"the tags are {', '.join(names[:12])}" if names else "this dataset has no tags"
        raise ValueError(f"write it as name:value; {there}")
    return known[-1], text[len(known[-1]) + 1 :].strip()[: MAX_LABEL_CHARACTERS + 1]


def tag(name: str) -> Func:
    """The value of a tag as text; NULL where there is none. (`tags__name` takes the name 7 for a place in a list.)"""
    return Func(F("tags"), Value(name), function="jsonb_extract_path_text", output_field=TextField())


def n_words() -> Func:
    """Of the document. Not stored: it would make an import of 1 KB documents twice as long (62 µs each)."""
    text: Any = F("source")
    for blank in "\n\r\t":
        text = Func(text, Value(blank), Value(" "), function="replace", output_field=TextField())
    words = Func(text, Value(" "), function="string_to_array", output_field=TextField())
    filled = Func(words, Value(""), function="array_remove", output_field=TextField())
    return Func(filled, function="cardinality", output_field=IntegerField())


def _like(text: Any, pattern: Value) -> Func:
    return Func(text, pattern, arg_joiner=" ILIKE ", template="(%(expressions)s)", output_field=BooleanField())

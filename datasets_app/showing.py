"""Showing arranges a stored profile for its page: rows of findings, shares, and which examples to look at.

Pure. A profile that was stored before something was computed simply has fewer rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from datasets_app.cautioning import cautions
from datasets_app.languages import MIXED, SHORT, UNSURE
from datasets_app.personal_data import KINDS

Profile = Mapping[str, Any]

WHY_UNDETERMINED = {SHORT: "too short to tell", UNSURE: "not clear", MIXED: "several in one document"}


class Line(NamedTuple):
    """One finding: in how many of how many; `first` are [(index of an example, what to say beside it)]."""

    what: str
    n: int
    of: int
    first: list[tuple[int, str]] = []

    @property
    def share(self) -> float | None:
        return self.n / self.of if self.of else None


def shown(profile: Profile, *, may_leave: bool) -> dict[str, Any]:
    """{cautions[], findings[(title, lines)], languages[], windows[], personal[], n_sampled}, for `_profile.html`."""
    told = profile.get("languages") or {}
    n_looked = told.get("n_examined", 0)
    return {
        "cautions": cautions(profile, may_leave=may_leave),
        "findings": [(title, lines) for title, lines in _findings(profile) if lines],
        "languages": list(_languages(told)) if n_looked else [],
        "windows": _windows(profile),
        "personal": list(_personal(profile)),
        "n_sampled": n_looked if n_looked < profile.get("n_examples", 0) else None,
    }


def _findings(profile: Profile) -> Iterator[tuple[str, list[Line]]]:
    n, n_with = profile.get("n_examples", 0), profile.get("n_with_reference", 0)
    if duplicates := profile.get("duplicates"):
        yield "Documents that occur again", list(_duplicates(duplicates, n))
    if not n_with:
        return
    if copied := profile.get("copied"):
        yield (
            "References that were not written",
            [
                _line("The reference is the whole document", copied["whole"], n_with),
                _line("The reference is the beginning of the document", copied["beginning"], n_with),
                _line("The reference stands elsewhere in the document, word for word", copied["inside"], n_with),
                _line("Another document has the same reference", copied["shared"], n_with),
            ],
        )
    if told := profile.get("references"):
        names = told["names_not_in_document"]
        lines = [
            _line("The reference has no letter and no digit", told["blank"], n_with),
            _line("The reference is longer than the document", told["longer_than_document"], n_with),
            _line("The reference is much longer than the others", told["much_longer_than_others"], n_with),
            _line("Numbers not found in the document", told["numbers_not_in_document"], n_with),
        ]
        if names["n_examined"]:
            lines.append(_line("Names not found in the document", names, names["n_examined"]))
        yield "References to look at", lines


def _duplicates(found: Mapping[str, Any], n: int) -> Iterator[Line]:
    exact, near = found["exact"], found["near"]
    pairs = [(one["index"], f"as #{one['of'] + 1:,}") for one in exact["first"]]
    yield Line("The same text as an earlier one", exact["n"], n, pairs)
    if exact["n_across_groups"]:
        yield Line("Texts that stand in several groups", exact["n_across_groups"], n)
    if near["n_examined"]:
        pairs = [(one["index"], f"{one['similarity']:.2f} to #{one['of'] + 1:,}") for one in near["first"]]
        yield Line("Nearly the same as an earlier one", near["n"], near["n_examined"], pairs)


def _line(what: str, tally: Mapping[str, Any], of: int) -> Line:
    return Line(what, tally["n"], of, [(index, "") for index in tally["first"]])


def _languages(told: Mapping[str, Any]) -> Iterator[Line]:
    for one in told["found"]:
        yield Line(one["name"], one["n"], told["n_examined"], [(index, "") for index in one["first"]])
    for why, words in WHY_UNDETERMINED.items():
        if n := told["undetermined"].get(why):
            yield Line(f"Undetermined: {words}", n, told["n_examined"])


def _windows(profile: Profile) -> list[Line]:
    """From the smallest window up to the first that no document exceeds."""
    n, lines = profile.get("n_examples", 0), []
    for one in profile.get("windows") or ():
        lines.append(Line(f"{one['window']:,}", one["n"], n))
        if not one["n"]:
            break
    return lines


def _personal(profile: Profile) -> Iterator[Line]:
    told = profile.get("personal_data") or {"kinds": {}}
    for kind, name in KINDS.items():
        found = told["kinds"].get(kind)
        if found and found["n"]:
            examples = [(one["index"], one["masked"]) for one in found["examples"]]
            yield Line(name[0].upper() + name[1:], found["n"], profile["n_examples"], examples)

"""Cautioning says what in a dataset would make a comparison say less than it seems to, and what to do about it.

Pure. It reads a stored profile, so that datasets of yesterday get today's advice; what an old profile lacks is not
cautioned about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Profile = Mapping[str, Any]

FEW, VERY_FEW = 30, 10  # STATISTICS §2: below 30 no ranking, below 10 examples only
SHARE = 0.05  # of the documents, from which on a finding is worth a caution
LARGE_SHARE = 0.2
WINDOW = 1024  # tokens that the usual summarization models read


class Caution(NamedTuple):
    """`tone` is "bad" (a result would mislead) or "warn" (it would be weaker); `first` are indexes of examples."""

    tone: str
    what: str
    cure: str
    first: list[int]

    def as_dict(self) -> dict[str, Any]:
        return self._asdict()


def cautions(profile: Profile, *, may_leave: bool) -> list[Caution]:
    """What to know before trusting a comparison on this dataset, most important first. `may_leave` is whether its
    texts may be sent to models outside this installation."""
    if not profile.get("n_examples"):
        return []
    found = [
        *_without_references(profile),
        *(_personal(profile) if may_leave else ()),
        *_few(profile),
        *_copied(profile),
        *_duplicates(profile),
        *_languages(profile),
        *_references(profile),
        *_long(profile),
    ]
    return sorted(found, key=lambda one: one.tone != "bad")


def _without_references(profile: Profile) -> Iterator[Caution]:
    n, having = profile["n_examples"], profile["n_with_reference"]
    if not having:
        yield Caution(
            "warn",
            "No document has a reference summary, so ROUGE, METEOR and BERTScore cannot be computed.",
            "Let a model draft references and approve them (ground truth), or choose metrics that need no reference.",
            [],
        )
    elif having < n:
        yield Caution(
            "warn",
            f"{_documents(n - having)} of {n:,} {_have(n - having)} no reference summary; metrics that need one leave "
            f"{_them(n - having)} out.",
            "Add the missing references, or remove those rows.",
            [],
        )


def _personal(profile: Profile) -> Iterator[Caution]:
    personal = profile.get("personal_data") or {}
    if not personal.get("n"):
        return
    n = personal["n"]
    examples = sorted({one["index"] for kind in personal["kinds"].values() for one in kind["examples"]})
    yield Caution(
        "bad",
        f"{_documents(n)} may hold personal data, and this dataset may be sent to any enabled model, also to paid ones "
        "outside this installation.",
        "Look at the examples; then mask the data and upload again, or upload it as “Never leaves this installation”.",
        examples[:5],
    )


def _few(profile: Profile) -> Iterator[Caution]:
    told = profile.get("detectable")
    if not told:
        return
    n, unit = told["n"], told["unit"] if told["n"] != 1 else told["unit"].rstrip("s")
    if n < VERY_FEW:
        what, tone = f"{n:,} {unit} are too few to compare models: read the outputs one by one instead.", "bad"
    elif n < FEW:
        what, tone = f"{n:,} {unit} are too few to rank models: you get intervals, and no winner.", "bad"
    elif n < told["n_for_two_points"]:
        what = f"With {n:,} {unit} only differences of about {told['points']:.1f} ROUGE points or more can be seen."
        tone = "warn"
    else:
        return
    if n == 1:
        what = what.replace(" are ", " is ", 1)
    enough = f"about {told['n_for_two_points']:,} show 2 points, {told['n_for_one_point']:,} show 1 point"
    cure = f"Add {told['unit']}: {enough}."
    yield Caution(tone, what, cure, [])


def _copied(profile: Profile) -> Iterator[Caution]:
    copied, n = profile.get("copied"), profile["n_with_reference"]
    if not copied or not n:
        return
    whole = copied["whole"]["n"]
    if whole:
        yield Caution(
            "bad" if whole >= SHARE * n else "warn",
            f"On {_documents(whole)} the reference is the document itself: whoever copies everything scores best.",
            "Check that the right column was chosen as the reference, and remove those rows.",
            copied["whole"]["first"],
        )
    beginning = copied["beginning"]["n"]
    if beginning >= SHARE * n:
        yield Caution(
            "bad" if beginning >= LARGE_SHARE * n else "warn",
            f"On {_documents(beginning)} the reference is the beginning of the document: the baseline that copies the "
            "first sentences is rewarded for it.",
            "Remove the first sentences from the document if they are its abstract, or write references anew.",
            copied["beginning"]["first"],
        )
    inside = copied["inside"]["n"]
    if inside >= SHARE * n:
        yield Caution(
            "warn",
            f"On {_documents(inside)} the reference stands word for word in the document.",
            "If documents carry their own summary, cut it out of them; else expect copying models to lead.",
            copied["inside"]["first"],
        )
    shared = copied["shared"]["n"]
    if shared:
        yield Caution(
            "warn",
            f"{_documents(shared)} {_have(shared)} a reference that stands on another document, too.",
            "Often a placeholder or a shifted column: look at these, and remove or correct them.",
            copied["shared"]["first"],
        )


def _duplicates(profile: Profile) -> Iterator[Caution]:
    found, n = profile.get("duplicates"), profile["n_examples"]
    if not found:
        return
    exact, near = found["exact"], found["near"]
    if exact["n"]:
        yield Caution(
            "bad" if exact["n"] >= LARGE_SHARE * n else "warn",
            f"{_documents(exact['n'])} {'is' if exact['n'] == 1 else 'are'} the same as an earlier one: each counts "
            "again, and the result looks surer than it is.",
            "Remove the copies, or give the same text the same group, so that it counts once.",
            [one["index"] for one in exact["first"]],
        )
    if exact["n_across_groups"]:
        yield Caution(
            "warn",
            f"{_texts(exact['n_across_groups'])} in more than one group, although groups are taken as independent.",
            "Put equal texts into one group.",
            [],
        )
    if near["n_examined"] and near["n"] >= SHARE * near["n_examined"]:
        yield Caution(
            "warn",
            f"{_documents(near['n'])} of {near['n_examined']:,} looked at {'is' if near['n'] == 1 else 'are'} nearly "
            "the same as an earlier one.",
            "If they come from one template or thread, name the column that says so as the group.",
            [one["index"] for one in near["first"]],
        )


def _languages(profile: Profile) -> Iterator[Caution]:
    told = profile.get("languages")
    if not told or len(told["found"]) < 2:
        return
    main, *others = told["found"]
    n = sum(one["n"] for one in others)
    if n < SHARE * told["n_examined"]:
        return
    names = ", ".join(one["name"] for one in others[:3]) + (" and others" if len(others) > 3 else "")
    yield Caution(
        "warn",
        f"Most documents are in {main['name']}, but {n:,} of {told['n_examined']:,} looked at in {names}: one mean "
        "over languages hides who is good at which.",
        "Name the language as a tag and compare by it, or make a dataset for each language.",
        sorted(index for one in others for index in one["first"])[:5],
    )


def _references(profile: Profile) -> Iterator[Caution]:
    told, n = profile.get("references"), profile["n_with_reference"]
    if not told or not n:
        return
    if told["blank"]["n"]:
        yield Caution(
            "bad",
            f"{_documents(told['blank']['n'])} {_have(told['blank']['n'])} a reference without a letter or a digit.",
            "Write the reference, or leave the cell empty.",
            told["blank"]["first"],
        )
    for name, what, cure in (
        (
            "longer_than_document",
            "a reference longer than the document",
            "Check that documents and references were not exchanged.",
        ),
        (
            "much_longer_than_others",
            "a reference that is much longer than the others",
            "Look at them: often two references were joined, or a document stands in the wrong column.",
        ),
    ):
        if told[name]["n"]:
            yield Caution(
                "warn", f"{_documents(told[name]['n'])} {_have(told[name]['n'])} {what}.", cure, told[name]["first"]
            )
    for name, what in (("numbers_not_in_document", "a number"), ("names_not_in_document", "a name")):
        found = told[name]
        examined = found.get("n_examined", n)
        if examined and found["n"] >= SHARE * examined:
            yield Caution(
                "warn",
                f"{_documents(found['n'])} of {examined:,} {_have(found['n'])} {what} in the reference that is not "
                "found in the document: no model that reads only the document can know it.",
                "Look at some: correct the references, or give the models the text they were written from.",
                found["first"],
            )


def _long(profile: Profile) -> Iterator[Caution]:
    beyond = {one["window"]: one["n"] for one in profile.get("windows") or ()}
    n = beyond.get(WINDOW, 0)
    if n >= SHARE * profile["n_examples"]:
        yield Caution(
            "warn",
            f"About {n:,} document{'s' * (n != 1)} {'is' if n == 1 else 'are'} too long for models that read "
            f"{WINDOW:,} tokens: those see only the beginning.",
            "Choose models with a larger window; the comparison shows how much each one read.",
            [],
        )


def _documents(n: int) -> str:
    return f"{n:,} document{'s' * (n != 1)}"


def _texts(n: int) -> str:
    return "1 text stands" if n == 1 else f"{n:,} texts stand"


def _have(n: int) -> str:
    return "has" if n == 1 else "have"


def _them(n: int) -> str:
    return "it" if n == 1 else "them"

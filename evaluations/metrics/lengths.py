"""Lengths: how long an output is, in words, sentences and characters, and against its references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluations.metrics import Absent, Check, Item, Metric, Options, Part, Value
from evaluations.metrics import _sentences as punkt
from evaluations.metrics import _words as cutting
from evaluations.metrics._admitting import NO_REFERENCE, usable

ABOUT = """Lengths tell how long an output is: its words, its sentences, its characters, and its words divided by those
of the reference (the mean of several). A ratio of 1 is as long as the reference, 2 twice as long. No length is better
than another, but nearly every other metric moves with it: longer outputs gain recall and lose precision, so look here
first when two models differ. An empty output has the length 0, which is a measurement and not a gap. Where it
misleads: a mean hides a model that now writes one word and now two pages, so look at the spread; a length limit of
the model shows as many outputs of nearly the same length. Words are runs of letters and digits, without punctuation;
"don't" and "3.5" are one word each, "well-known" is two, and in scripts without blanks between words (Chinese,
Japanese, Thai) every character counts as one, so compare within one language only. They are not the tokens that
providers bill. Sentences end as an English model of abbreviations sees them, and at empty lines and items of lists: in
other languages an unknown abbreviation can part a sentence."""

PARTS = (
    Part("length_words", "Words", 0.0, None, None, "Words of the output, punctuation left out."),
    Part("length_sentences", "Sentences", 0.0, None, None, "Sentences of the output that have a word."),
    Part(
        "length_characters", "Characters", 0.0, None, None, "Characters (code points) from the first to the last mark."
    ),
    Part(
        "length_ratio", "Length against the reference", 0.0, None, None, "Words of the output for one of the reference."
    ),
)
NO_REFERENCE_WORDS = Absent("not_applicable", "the reference summary has no words")


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """All four parts of every item, in order."""
    missing = punkt.missing()
    return [_scored(item, missing) for item in items]


def _scored(item: Item, missing: str) -> dict[str, Value]:
    """The parts of one item; `missing` says why sentences cannot be counted, if so."""
    words = len(cutting.words(item.text))
    return {
        "length_words": float(words),
        "length_sentences": Absent("not_computed", missing) if missing else float(len(cutting.sentences(item.text))),
        "length_characters": float(len(item.text.strip())),
        "length_ratio": _ratio(words, item),
    }


def _ratio(words: int, item: Item) -> Value:
    """`words` divided by the mean number of words of the references that say something."""
    references = usable(item)
    if not references:
        return NO_REFERENCE
    total = sum(len(cutting.remembered(reference)) for reference in references)
    return words * len(references) / total if total else NO_REFERENCE_WORDS


def signature(options: Options) -> dict[str, Any]:
    """How words and sentences are cut."""
    return {
        "words": cutting.signature(),
        "sentences": cutting.sentence_signature(),
        "characters": "code points, outer blanks left out",
        "ratio": "words of the output / mean words of the references",
    }


CHECKS = (
    Check(
        "an abbreviation, an apostrophe, a number, a hyphen",
        Item("Dr. Grey didn't pay 3.5 pounds. It was a well-known case!", ("One two three four.", "One two.")),
        {"length_words": 12.0, "length_sentences": 2.0, "length_characters": 57.0, "length_ratio": 4.0},
        "by hand: Dr, Grey, didn't, pay, 3.5, pounds, It, was, a, well, known, case; 12 against a mean of (4 + 2)/2",
    ),
    Check(
        "a script without blanks",
        Item("市议会批准了预算。停车费上涨。", ("市议会批准了预算。",)),
        {"length_words": 13.0, "length_sentences": 2.0, "length_characters": 15.0, "length_ratio": 13 / 8},
        "by hand: 8 and 5 characters, and two full stops",
    ),
    Check(
        "nothing",
        Item("", ("One two.",)),
        {"length_words": 0.0, "length_sentences": 0.0, "length_characters": 0.0, "length_ratio": 0.0},
        "by definition: an empty output is 0 words long",
    ),
)

metric = Metric(
    name="lengths",
    label="Lengths",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    needs_reference=False,
    cost="About 0.2 ms for an output of 60 words, most of it for finding the sentences; no model.",
    checks=CHECKS,
)

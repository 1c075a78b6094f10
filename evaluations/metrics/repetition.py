"""Repetition: how much of an output says the same again, word for word.

The share of repeated n-grams is "seq-rep-n" of Welleck et al. 2020 ("Neural text generation with unlikelihood
training"), here with n = 3 and over words; the same is asked of whole sentences.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from evaluations.metrics import Absent, Check, Item, Metric, Options, Part, Value
from evaluations.metrics import _sentences as punkt
from evaluations.metrics import _words as cutting
from evaluations.metrics._admitting import EMPTY, everywhere
from evaluations.metrics._words import Words

N = 3

ABOUT = """Repetition shows outputs that say the same thing again, the typical fault of a language model that is stuck.
The first number is the share of the output's word triples (three neighbouring words) that already occurred earlier in
the same output; the second is the share of its sentences that repeat an earlier sentence word for word. Both lie
between 0 (nothing repeated) and just under 1 (one phrase over and over); lower is better. It needs neither reference
nor source. Ordinary summaries have few or no repeated triples. Where it misleads: a name of three words that occurs
twice counts ("bank of england"), a list whose items begin alike too, and longer outputs repeat more than short ones
by nature, so compare outputs of similar length; what is said twice in different words is not seen; and 0 says
nothing about quality: a single wrong sentence repeats nothing. Case and punctuation do not count. An output of fewer
than three words has no triple, and so no value. Sentences end as an English model of abbreviations sees them, and at
empty lines and items of lists."""

PARTS = (
    Part("repetition", "Repeated word triples", 0.0, 1.0, False, "Share of word triples that occurred before."),
    Part("repeated_sentences", "Repeated sentences", 0.0, 1.0, False, "Share of sentences that occurred before."),
)
NO_WORDS = Absent("not_applicable", "the output has no words")


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """Both parts of every item, in order."""
    missing = punkt.missing()
    return [_scored(item, missing) for item in items]


def _scored(item: Item, missing: str) -> dict[str, Value]:
    """The parts of one item; `missing` says why sentences cannot be told apart, if so."""
    if not item.text.strip():
        return everywhere(EMPTY, PARTS)
    words = cutting.words(item.text)
    triples = cutting.ngrams(words, N)
    too_short = Absent("not_applicable", f"the output has {len(words)} of the {N} words that this needs")
    return {
        "repetition": repeated(triples) if triples else too_short,
        "repeated_sentences": Absent("not_computed", missing) if missing else _sentences(item.text),
    }


def _sentences(text: str) -> Value:
    found = cutting.sentences(text)
    return repeated(found) if found else NO_WORDS


def repeated(pieces: Collection[Words]) -> float:
    """The share of `pieces` that equal an earlier one: 0 to below 1. Raises ZeroDivisionError when there are none."""
    return (len(pieces) - len(set(pieces))) / len(pieces)


def signature(options: Options) -> dict[str, Any]:
    """Definition, how words and sentences are cut."""
    return {
        "definition": f"1 - different / all, word {N}-grams and sentences",
        "words": cutting.signature(),
        "sentences": cutting.sentence_signature(),
    }


CHECKS = (
    Check(
        "a phrase of three words, twice",
        Item("The council met today. The council met."),
        {"repetition": 1 / 5, "repeated_sentences": 0.0},
        "by hand: of 5 triples (the council met, council met today, met today the, today the council, the council met) "
        "the last one occurred before; the two sentences differ",
    ),
    Check(
        "stuck",
        Item("Fees rise. Fees rise! FEES RISE. Fees rise."),
        {"repetition": 4 / 6, "repeated_sentences": 3 / 4},
        "by hand: 6 triples, 2 different ones (fees rise fees, rise fees rise); 4 sentences, 1 different",
    ),
)

metric = Metric(
    name="repetition",
    label="Repetition",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    needs_reference=False,
    cost="About 0.2 ms for an output of 60 words, most of it for finding the sentences; no model.",
    checks=CHECKS,
)

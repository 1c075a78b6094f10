"""Extractiveness: how much of an output is copied from its source, and in how long pieces.

Coverage, density and compression as Grusky, Naaman & Artzi 2018 define them ("Newsroom: a dataset of 1.3 million
summaries with diverse extractive strategies"); novel n-grams after See, Liu & Manning 2017 ("Get
to the point"); copy support is the share of word trigrams that the source contains.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, count
from typing import Any

from evaluations.metrics import Absent, Check, Item, Metric, Options, Part, Value
from evaluations.metrics import _words as cutting
from evaluations.metrics._admitting import choice, everywhere
from evaluations.metrics._words import Words, ngrams

Places = dict[Words, list[int]]

COUNTS = ("tokens", "types")
LONGEST_NGRAM = 4
SUPPORT = 3  # the length of the n-grams of copy support

ABOUT = """Extractiveness describes how an output was made from its source: by copying or in new words. It needs no
reference and says nothing about quality, so no value is better than another. Coverage is the share of the output's
words that also stand in the source. Density is the average length of the copied piece that a word of the output
belongs to: near 1 for scattered words, 20 and more where whole sentences are lifted; it has no upper limit. Compression
is how many words of the source go into one word of the output. Novel 1- to 4-grams are the shares of single words,
pairs, triples and fours of neighbouring words that the source does not contain; every occurrence counts (option
"tokens"), or each different one once ("types"). Copy support is the share of the output's word triples that the source
does contain. Where it misleads: copying is not truth. A copied sentence can lose its "not" or its context, and a free
paraphrase can be entirely right. Between copy support and the faithfulness that people see, the rank correlation was
.63 on newspaper summaries that copy much (QAGS-CNN) and about 0 to .13 on outputs in the manner of XSum, which
rephrase: read it as a description of the style, never as a check of the facts. Words are compared in their exact
form (case apart), so "rose" and "rising" differ; punctuation does not count, other than in the original program, and
scripts without blanks between words are counted in characters, so compare values within one language only. An output
in another language than its source looks entirely novel."""

PARTS = (
    Part("coverage", "Coverage", 0.0, 1.0, None, "Share of the output's words that also stand in the source."),
    Part("density", "Density", 0.0, None, None, "Mean length, in words, of the copied piece that a word belongs to."),
    Part("compression", "Compression", 0.0, None, None, "Words of the source for one word of the output."),
    *(
        Part(
            f"novel_{n}grams", f"Novel {n}-grams", 0.0, 1.0, None, f"Share of {unit} that the source does not contain."
        )
        for n, unit in enumerate(("single words", "word pairs", "word triples", "runs of four words"), start=1)
    ),
    Part("copy_support", "Copy support", 0.0, 1.0, None, "Share of the output's word triples found in the source."),
)
DEFAULTS: dict[str, Any] = {"ngrams": "tokens"}

NO_SOURCE = Absent("not_applicable", "no source document")
NO_OUTPUT = Absent("not_applicable", "the output is empty: there is nothing to describe")
NO_WORDS = Absent("not_applicable", "the output has no words")
NO_SOURCE_WORDS = Absent("not_applicable", "the source document has no words")


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """All eight parts of every item, in order. Raises ValueError for an unknown option value."""
    counting = choice({**DEFAULTS, **options}, "ngrams", COUNTS)
    return [_scored(item, counting) for item in items]


def _scored(item: Item, counting: str) -> dict[str, Value]:
    """The parts of one item."""
    if not item.source.strip() or not item.text.strip():
        return everywhere(NO_OUTPUT if item.source.strip() else NO_SOURCE, PARTS)
    output, source = cutting.words(item.text), cutting.remembered(item.source)
    if not output or not source:
        return everywhere(NO_SOURCE_WORDS if output else NO_WORDS, PARTS)
    places = shared_pairs(output, source)
    lengths = fragments(output, source, places)
    values: dict[str, Value] = {
        "coverage": sum(lengths) / len(output),
        "density": sum(length * length for length in lengths) / len(output),
        "compression": len(source) / len(output),
    }
    for n in range(1, LONGEST_NGRAM + 1):
        runs = ngrams(output, n)
        if not runs:
            values[f"novel_{n}grams"] = _too_short(output, n)
            continue
        known = known_ngrams(source, n, places)
        counted = runs if counting == "tokens" else set(runs)
        values[f"novel_{n}grams"] = sum(run not in known for run in counted) / len(counted)
        if n == SUPPORT:
            values["copy_support"] = sum(run in known for run in runs) / len(runs)
    values.setdefault("copy_support", _too_short(output, SUPPORT))
    return values


def shared_pairs(output: Words, source: Words) -> Places:
    """Where in `source` each pair of neighbouring words of `output` begins, ascending; pairs it lacks are left out."""
    pairs = ngrams(source, 2)
    places: Places = {}
    for place in compress(count(), map(set(ngrams(output, 2)).__contains__, pairs)):
        places.setdefault(pairs[place], []).append(place)
    return places


def known_ngrams(source: Words, n: int, places: Places) -> set[Words]:
    """The runs of `n` words of `source`, of those that begin with a pair of the output: others need no looking up."""
    if n == 1:
        return {(word,) for word in set(source)}
    return {source[place : place + n] for found in places.values() for place in found}


def fragments(output: Words, source: Words, places: Places) -> list[int]:
    """The lengths, in words, of the extractive fragments of `output`, in order: exactly the procedure of Grusky et al.

    From each place the longest piece that the source repeats is taken, and the search goes on behind it. As in the
    published procedure, a search goes on behind a match, not one word later, and so can miss a longer match that
    begins inside a shorter one: of "a a b" it finds only "a a" in "a a a b". `places` are the `shared_pairs`.

    Linear for ordinary texts, as only those places of the source are looked at that share two words with the output.
    The worst case is (different fragments) × (words of the source): 20,000 random words out of a vocabulary of two,
    against another 20,000, take 2 s.
    """
    known = set(source)
    searched: set[Words] = set()  # matches with the word that ends them: the same words find the same again
    sizes: set[int] = set()
    lengths: list[int] = []
    start = 0
    while start < len(output):
        found = places.get(output[start : start + 2])
        if found:
            runs = (output[start : start + size] for size in sizes if start + size <= len(output))
            length = next((len(run) - 1 for run in runs if run in searched), 0)
            if not length:
                length = _longest(output, start, source, found)
                searched.add(output[start : start + length + 1])
                sizes.add(length + 1)
        else:
            length = int(output[start] in known)
        if length:
            lengths.append(length)
        start += length or 1
    return lengths


def _longest(output: Words, start: int, source: Words, places: Sequence[int]) -> int:
    """The longest match of `output` from `start` on, at `places` of the source where two words agree.

    A match of a single word hides no other one, so leaving those out changes nothing.
    """
    longest = behind = 0
    limit = len(output) - start
    for place in places:
        if place < behind:
            continue
        most = min(limit, len(source) - place)
        length = 2
        while length < most and output[start + length] == source[place + length]:
            length += 1
        if length > longest:
            longest = length
            if length == limit:
                break
        behind = place + length
    return longest


def _too_short(output: Words, n: int) -> Absent:
    return Absent("not_applicable", f"the output has {len(output)} of the {n} words that this needs")


def signature(options: Options) -> dict[str, Any]:
    """Definitions, how words are cut, how n-grams are counted."""
    return {
        "definition": "grusky 2018, published procedure; n-grams and copy support of words",
        "punctuation": "left out",
        "ngrams": choice({**DEFAULTS, **options}, "ngrams", COUNTS),
        "words": cutting.signature(),
    }


BY_HAND = Item(text="The cat sat on a mat.", source="The cat sat on the mat, and the dog slept in the hall.")
CHECKS = (
    Check(
        "two fragments of four words and one",
        BY_HAND,
        {
            "coverage": 5 / 6,
            "density": 17 / 6,
            "compression": 13 / 6,
            "novel_1grams": 1 / 6,
            "novel_2grams": 2 / 5,
            "novel_3grams": 2 / 4,
            "novel_4grams": 2 / 3,
            "copy_support": 2 / 4,
        },
        "by hand: of 6 words, 'the cat sat on' (4) and 'mat' (1) are copied, so (4 + 1)/6 and (4² + 1²)/6; 13 words of "
        "source; new are 'a', 'on a', 'a mat', both triples and both fours with 'a' behind 'sat' or 'on'",
    ),
    Check(
        "a copy",
        Item(text="the dog slept in the hall", source=BY_HAND.source),
        {"coverage": 1.0, "density": 6.0, "compression": 13 / 6, "novel_1grams": 0.0, "copy_support": 1.0},
        "by hand: one fragment of all 6 words, so 6/6 and 6²/6",
    ),
    Check(
        "every different word once",
        Item(text="a cat and a dog", source=BY_HAND.source),
        {"novel_1grams": 1 / 4},
        "by hand: of a, cat, and, dog only 'a' is new",
        {"ngrams": "types"},
    ),
)

metric = Metric(
    name="extractiveness",
    label="Extractiveness",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    needs_reference=False,
    needs_source=True,
    defaults=DEFAULTS,
    cost="About 0.4 ms for 60 words of output and 600 of source, 0.6 to 1.2 ms when the source is new; no model.",
    checks=CHECKS,
)

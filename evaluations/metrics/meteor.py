"""METEOR as NLTK computes it: words aligned by form, stem and synonym (Lavie & Agarwal 2007; Banerjee & Lavie 2005).

Equal to `nltk.translate.meteor_score.meteor_score(word_tokenize(…))` to the last bit, many times faster:
`_meteor_words` reads every text as numbers, each word, stem and synonym being looked up once, and `_meteor_matching`
aligns hundreds of pairs at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

from evaluations.metrics import EXAMPLE, Absent, Check, Item, Metric, Options, Part, Value
from evaluations.metrics import _sentences as cutting
from evaluations.metrics._admitting import AGGREGATIONS, absence, choice, everywhere, usable
from evaluations.metrics._meteor_matching import matches
from evaluations.metrics._meteor_words import Lexicon, Words, lexicon
from evaluations.metrics._wordnet import TABLE

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5  # weight of recall, shape and weight of the penalty: NLTK's defaults
BATCH = 512  # pairs aligned at once: bounds the memory of the alignment, not its values

ABOUT = """METEOR aligns the words of the output with those of a reference: first equal words, then equal stems
("guides" and "guiding"), then synonyms from WordNet. The score joins precision and recall of the aligned words, with
recall weighing nine times as much, and takes off up to half when the aligned words are scattered instead of standing
in the same order. It lies between 0 and 1, higher is better; an identical text of n words reaches 1 - 0.5/n³, so
nearly 1. Because of stems and synonyms it is kinder to paraphrases than ROUGE, and because of the weight on recall it
favours longer outputs. Where it misleads: synonyms are matched without looking at the sense, and only by stem ("big"
never meets "large", whose stem is "larg"); facts are not checked; stems and synonyms are English only. This is
"METEOR (NLTK)": its scale differs from the Java program that older papers used (.40 against .22 on the same
summaries), so never compare it with those figures. With several references the best one counts (option "max"), or
the mean."""

PARTS = (Part("meteor", "METEOR (NLTK)", about="Aligned words, stems and synonyms, with weight on recall and order."),)
DEFAULTS: dict[str, Any] = {"references": "max"}


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """{"meteor": value} for every item, in order. Raises ValueError for an unknown option value."""
    aggregate = AGGREGATIONS[choice({**DEFAULTS, **options}, "references", tuple(AGGREGATIONS))]
    reason = available(options)
    if reason:
        return [everywhere(Absent("not_computed", reason), PARTS) for _ in items]
    results: list[dict[str, Value]] = []
    pairs: list[tuple[str, str]] = []  # (reference, output)
    places: list[tuple[int, int]] = []  # (index in results, number of its pairs)

    def fill() -> None:
        values = iter(numbers(pairs))
        for index, count in places:
            results[index] = {"meteor": aggregate(list(islice(values, count)))}
        pairs.clear()
        places.clear()

    for item in items:
        absent = absence(item)
        if absent:
            results.append(everywhere(absent, PARTS))
            continue
        references = usable(item)
        pairs += [(reference, item.text) for reference in references]
        places.append((len(results), len(references)))
        results.append({})
        if len(pairs) >= BATCH:
            fill()
    fill()
    return results


def numbers(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """METEOR of every (reference, output), 0 to 1; 0 where nothing aligns."""
    if not pairs:
        return []
    words = lexicon()
    read = _read(words, dict.fromkeys(chain.from_iterable(pairs)), {reference for reference, _ in pairs})
    rows = [(read[reference], read[output]) for reference, output in pairs]
    found = matches(rows, words.stem_of, words.stem, words.synonyms)
    sizes = [(len(reference), len(output)) for reference, output in rows]
    return [_number(*counts, *size) for counts, size in zip(found, sizes, strict=True)]


def _number(matched: int, chunks: int, expected: int, length: int) -> float:
    """NLTK's formula, in its order of operations, from the aligned words, their runs, and the words of both texts."""
    if not matched:
        return 0.0
    precision = matched / length
    recall = matched / expected
    mean = (precision * recall) / (ALPHA * precision + (1 - ALPHA) * recall)
    penalty: float = GAMMA * (chunks / matched) ** BETA
    return (1 - penalty) * mean


def _read(words: Lexicon, texts: Iterable[str], references: set[str]) -> dict[str, Words]:
    """The texts in numbers. References are remembered: every candidate is compared with them."""
    known = {text: words.references.get(text) if text in references else None for text in texts}
    unread = [text for text, read in known.items() if read is None]
    for text, read in zip(unread, words.read(unread), strict=True):
        known[text] = read
        if text in references:
            own = read.copy()  # the words of a whole batch share their memory
            words.references.keep(text, own, 2 * len(text) + own.nbytes + 400)
    return {text: read for text, read in known.items() if read is not None}


def signature(options: Options) -> dict[str, Any]:
    """Definition, parameters, tokenizer, stemmer, synonyms, aggregation over references."""
    return {
        "library": "nltk",
        "version": cutting.installed("nltk"),
        "alpha": ALPHA,
        "beta": BETA,
        "gamma": GAMMA,
        "tokenizer": f"word_tokenize, {cutting.signature()}",
        "stemmer": "porter",
        "synonyms": "wordnet 3.0",
        "references": choice({**DEFAULTS, **options}, "references", tuple(AGGREGATIONS)),
    }


def available(options: Options) -> str:
    """An empty string, or what is missing."""
    if not TABLE.is_file():
        return f"the synonym table {TABLE.name} is missing: reinstall, or make it with data/make_wordnet.py"
    return cutting.missing()


COST = (
    "About 0.07 ms of one CPU core for an output and a reference of 60 words, twice that where most words are new: "
    "words, stems and synonyms are remembered, and so are references, in at most 70 MB. The table of synonyms takes "
    "0.15 s and 35 MB once in a process."
)
CHECKS = (
    Check(
        "Commands of the party",
        Item(
            "It is a guide to action which ensures that the military always obeys the commands of the party",
            ("It is a guide to action that ensures that the military will forever heed Party commands",),
        ),
        {"meteor": 0.6944},
        source="the docstring of nltk.translate.meteor_score, to its four digits",
        tolerance=5e-5,
    ),
    Check(
        "Nothing in common",
        Item("this is a cat", ("non matching hypothesis",)),
        {"meteor": 0.0},
        source="the docstring of nltk.translate.meteor_score",
    ),
    Check(
        "Half of the reference",
        Item("one two", ("one two three four",)),
        {"meteor": (0.5 / (0.9 + 0.1 * 0.5)) * (1 - 0.5 / 2**3)},
        source="by hand: precision 1, recall 1/2, two words in one chunk",
    ),
    Check(
        "A paraphrase",
        EXAMPLE,
        {"meteor": 0.4963294704279976},
        source="nltk 3.10.4",
    ),
)

metric = Metric(
    name="meteor",
    label="METEOR (NLTK)",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    defaults=DEFAULTS,
    available=available,
    languages=("en",),
    cost=COST,
    checks=CHECKS,
)

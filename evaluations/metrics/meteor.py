"""METEOR as NLTK computes it: words aligned by form, stem and synonym (Lavie & Agarwal 2007; Banerjee & Lavie 2005).

Equal to `nltk.translate.meteor_score.meteor_score(word_tokenize(…))` to the last bit, at more than ten times its
speed: tokens, stems and synonyms are remembered, and references are prepared once for all candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from evaluations.metrics import Absent, Item, Metric, Options, Part, Value
from evaluations.metrics import _sentences as cutting
from evaluations.metrics._admitting import AGGREGATIONS, absence, choice, everywhere, usable
from evaluations.metrics._remembering import Memory
from evaluations.metrics._wordnet import TABLE, synonyms

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5  # weight of recall, shape and weight of the penalty: NLTK's defaults
REMEMBERED_BYTES = 128 * 2**20
REMEMBERED_STEMS = 65_536
LONGEST_STEM = 64  # a longer word is stemmed each time: the memory stays bounded

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


@dataclass(frozen=True, slots=True)
class Prepared:
    """The lower-cased tokens of a text and their stems, one of each for every token."""

    words: list[str]
    stems: list[str]


_prepared: Memory[Prepared] = Memory(REMEMBERED_BYTES)


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """{"meteor": value} for every item, in order. Raises ValueError for an unknown option value."""
    aggregate = AGGREGATIONS[choice({**DEFAULTS, **options}, "references", tuple(AGGREGATIONS))]
    reason = available(options)
    if reason:
        return [everywhere(Absent("not_computed", reason), PARTS) for _ in items]
    results: list[dict[str, Value]] = []
    for item in items:
        absent = absence(item)
        if absent:
            results.append(everywhere(absent, PARTS))
            continue
        output = prepare(item.text)
        against = [compare(_remembered(reference), output) for reference in usable(item)]
        results.append({"meteor": aggregate(against)})
    return results


def compare(reference: Prepared, output: Prepared) -> float:
    """METEOR of `output` against one `reference`, 0 to 1; 0 when nothing aligns."""
    pairs = align(reference, output)
    matches = len(pairs)
    if not matches:
        return 0.0
    precision = matches / len(output.words)
    recall = matches / len(reference.words)
    mean = (precision * recall) / (ALPHA * precision + (1 - ALPHA) * recall)
    penalty: float = GAMMA * (chunks(pairs) / matches) ** BETA
    return (1 - penalty) * mean


def align(reference: Prepared, output: Prepared) -> list[tuple[int, int]]:
    """(position in the output, position in the reference) of every aligned word, by position in the output.

    Three rounds, each over what the one before has left, from the last word to the first; a word takes the last free
    partner. As in NLTK, the third round looks up the synonyms of *stems*: that is its published behaviour.
    """
    pairs, left, free = _match(
        list(range(len(output.words))), output.words, reference.words, range(len(reference.words))
    )
    stemmed, left, free = _match(left, output.stems, reference.stems, free)
    pairs += stemmed
    if left and free:
        pairs += _match_synonyms(left, output.stems, reference.stems, free)
    pairs.sort()
    return pairs


def _match(
    left: Sequence[int], output: Sequence[str], reference: Sequence[str], free: Sequence[int]
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Pairs of equal forms, and the positions that are still unpaired on both sides, ascending."""
    places: dict[str, list[int]] = {}
    for position in free:
        places.setdefault(reference[position], []).append(position)
    pairs, unpaired = [], []
    for position in reversed(left):
        waiting = places.get(output[position])
        if waiting:
            pairs.append((position, waiting.pop()))
        else:
            unpaired.append(position)
    unpaired.reverse()
    return pairs, unpaired, sorted(position for waiting in places.values() for position in waiting)


def _match_synonyms(
    left: Sequence[int], output: Sequence[str], reference: Sequence[str], free: Sequence[int]
) -> list[tuple[int, int]]:
    """Pairs in which the reference's stem is a synonym of the output's stem: the last free one of any synonym."""
    places: dict[str, list[int]] = {}
    for position in free:
        places.setdefault(reference[position], []).append(position)
    pairs = []
    for position in reversed(left):
        common = places.keys() & synonyms(output[position])
        if not common:
            continue
        taken = max(common, key=lambda word: places[word][-1])
        pairs.append((position, places[taken].pop()))
        if not places[taken]:
            del places[taken]
    return pairs


def chunks(pairs: Sequence[tuple[int, int]]) -> int:
    """The number of runs in which aligned words are neighbours in both texts. `pairs` is sorted and not empty."""
    count, before = 0, (-2, -2)
    for pair in pairs:
        count += pair != (before[0] + 1, before[1] + 1)
        before = pair
    return count


def prepare(text: str) -> Prepared:
    """Tokens as NLTK's `word_tokenize` cuts them, in lower case, and their Porter stems."""
    lowered = [word.lower() for word in cutting.words(text)]
    return Prepared(lowered, [_stem(word) if len(word) <= LONGEST_STEM else _porter().stem(word) for word in lowered])


def _remembered(reference: str) -> Prepared:
    """A prepared reference, kept for the other candidates."""
    prepared = _prepared.get(reference)
    if prepared is None:
        prepared = prepare(reference)
        _prepared.keep(reference, prepared, 2 * len(reference) + 80 * len(prepared.words))
    return prepared


@lru_cache(maxsize=REMEMBERED_STEMS)
def _stem(word: str) -> str:
    stem: str = _porter().stem(word)
    return stem


@cache
def _porter() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


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


metric = Metric(
    name="meteor",
    label="METEOR (NLTK)",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    defaults=DEFAULTS,
    available=available,
)

"""METEOR as NLTK computes it: words aligned by form, stem and synonym (Lavie & Agarwal 2007; Banerjee & Lavie 2005).

Equal to `nltk.translate.meteor_score.meteor_score(word_tokenize(…))` to the last bit, many times faster:
tokens, stems and synonyms are remembered, and references are prepared once for all candidates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import chain
from typing import Any

from evaluations.metrics import EXAMPLE, Absent, Check, Item, Metric, Options, Part, Value
from evaluations.metrics import _sentences as cutting
from evaluations.metrics._admitting import AGGREGATIONS, absence, choice, everywhere, usable
from evaluations.metrics._remembering import Memory
from evaluations.metrics._wordnet import TABLE, synonyms

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5  # weight of recall, shape and weight of the penalty: NLTK's defaults
REMEMBERED_BYTES = 128 * 2**20
REMEMBERED_STEMS = 65_536
COMPILED_STEM = re.compile("[a-z0-9]{4,}")
LONGEST_CUT = 8  # words of a group that recurs; a longer one is a whole sentence
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
    taken = [-1] * len(output.words)  # by position in the output: the position in the reference
    left: Sequence[int] = range(len(output.words))
    free: Sequence[int] = range(len(reference.words))
    left, free = _match(left, output.words, free, reference.words, taken)
    left, free = _match(left, output.stems, free, reference.stems, taken)
    if left and free:
        _match_synonyms(left, output.stems, free, reference.stems, taken)
    return [(position, partner) for position, partner in enumerate(taken) if partner >= 0]


def _match(
    left: Sequence[int], output: Sequence[str], free: Sequence[int], reference: Sequence[str], taken: list[int]
) -> tuple[Sequence[int], Sequence[int]]:
    """Pair equal forms in `taken`; return the positions that are still unpaired on both sides, ascending."""
    common = {output[position] for position in left}.intersection([reference[position] for position in free])
    if not common:
        return left, free
    places: dict[str, list[int]] = {form: [] for form in common}
    others: list[int] = []
    for position in free:
        form = reference[position]
        (places[form] if form in common else others).append(position)
    unpaired = []
    for position in reversed(left):
        form = output[position]
        if form in common and places[form]:
            taken[position] = places[form].pop()
        else:
            unpaired.append(position)
    unpaired.reverse()
    return unpaired, sorted(chain(others, *places.values()))


def _match_synonyms(
    left: Sequence[int], output: Sequence[str], free: Sequence[int], reference: Sequence[str], taken: list[int]
) -> None:
    """Pair stems with synonyms of theirs in `taken`: the last free one of any synonym."""
    places: dict[str, list[int]] = {}
    for position in free:
        places.setdefault(reference[position], []).append(position)
    for position in reversed(left):
        names = synonyms(output[position])
        if not names or names.isdisjoint(places):
            continue
        chosen = max(places.keys() & names, key=lambda word: places[word][-1])
        taken[position] = places[chosen].pop()
        if not places[chosen]:
            del places[chosen]


def chunks(pairs: Sequence[tuple[int, int]]) -> int:
    """The number of runs in which aligned words are neighbours in both texts. `pairs` is sorted and not empty."""
    count, before = 0, (-2, -2)
    for pair in pairs:
        count += pair != (before[0] + 1, before[1] + 1)
        before = pair
    return count


def prepare(text: str) -> Prepared:
    """Tokens as NLTK's `word_tokenize` cuts them, in lower case, and their Porter stems."""
    cuts = cutting.words_by_chunk(text)
    recurring = max(map(len, cuts), default=0) <= LONGEST_CUT
    forms = list(map(_forms if recurring else _make_forms, cuts))
    return Prepared(
        list(chain.from_iterable([words for words, _ in forms])),
        list(chain.from_iterable([stems for _, stems in forms])),
    )


def _make_forms(cut: tuple[str, ...]) -> tuple[list[str], list[str]]:
    lowered = [word.lower() for word in cut]
    return lowered, [_stem(word) if len(word) <= LONGEST_STEM else _stemmed(word) for word in lowered]


_forms = lru_cache(maxsize=REMEMBERED_STEMS)(_make_forms)


def _remembered(reference: str) -> Prepared:
    """A prepared reference, kept for the other candidates."""
    prepared = _prepared.get(reference)
    if prepared is None:
        prepared = prepare(reference)
        _prepared.keep(reference, prepared, 2 * len(reference) + 80 * len(prepared.words))
    return prepared


def _stemmed(word: str) -> str:
    """NLTK's Porter stem. For words of more than three letters a–z or digits a compiled stemmer gives the same."""
    stem: str
    if COMPILED_STEM.fullmatch(word) and (tokenize := _compiled_tokenizer()):
        (stem,) = tokenize(word)
    else:
        stem = _porter().stem(word)
    return stem


_stem = lru_cache(maxsize=REMEMBERED_STEMS)(_stemmed)


@cache
def _compiled_tokenizer() -> Callable[[str], list[str]] | None:
    """The tokenizer of rouge-score-rs, which stems 20 times faster than NLTK; None where it has no wheel."""
    if not find_spec("rouge_score_rs"):
        return None
    from rouge_score_rs.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True).tokenize  # type: ignore[no-untyped-call]


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


COST = (
    "About 0.15 ms of one CPU core for an output and a reference of 60 words; words, stems and synonyms are "
    "remembered, and so are references. The table of synonyms takes 0.15 s and 35 MB once in a process."
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

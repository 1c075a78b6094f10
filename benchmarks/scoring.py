"""Scoring against the packages that papers quote: `python -m benchmarks.scoring [--quick] [--json FILE]`.

One process, one thread. Peers get the same texts in the same run, in turn with us, and every number is compared.
"Cold" is with all our memories emptied before each round; what a process loads once (the Punkt model, the table of
synonyms, the compiled kernel) is loaded for both beforehand. `rouge-score` splits sentences with NLTK's Punkt, as we
do; the rows "by lines" leave sentences to line ends on both sides, as rouge-score does by itself. NLTK's METEOR gets
its synonyms from our table. A peer takes as long for the last pair as for the first, so it scores one candidate of the
eight, and times are per pair; equality is checked on that candidate. We learn words as we meet them: small
measurements are dominated by that, and `--quick` stays below the targets.
"""

from __future__ import annotations

import gc
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.reporting import Row, in_turn, interleaved, run
from evaluations.metrics import (
    Item,
    Value,
    _chunks,
    _finding,
    _meteor_words,
    _rouge_counting,
    _rouge_words,
    _sentences,
    _wordnet,
    bertscore,
    meteor,
    rouge,
)
from evaluations.metrics._remembering import Memory
from evaluations.tests.oracles import WordNet, stock_punkt, stock_words

for _threads in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # the libraries are imported when they are used, and read it then

CANDIDATES = 8
Results = list[dict[str, Value]]

FREQUENT = "the of and to in a is that for it as was with be by on not he this are or his from at which but have an had"


# Texts


@cache
def vocabulary() -> list[str]:
    """8,000 English words, the frequent ones first, always in the same order."""
    known = sorted(word for word in _wordnet._table()[0][1] if re.fullmatch("[a-z]{3,12}", word))
    frequent = FREQUENT.split()
    return frequent + random.Random(5).sample(known, 8_000 - len(frequent))


def words(rng: random.Random, count: int) -> list[str]:
    """By Zipf's law: the word of rank r comes with a frequency of 1/r."""
    known = vocabulary()
    return [known[int(len(known) ** rng.random()) - 1] for _ in range(count)]


def prose(found: list[str]) -> str:
    """Sentences of 15 words, with a capital, a comma and a full stop."""
    sentences = []
    for start in range(0, len(found), 15):
        sentence = found[start : start + 15]
        sentence[0] = sentence[0].capitalize()
        sentence[len(sentence) // 2] += ","
        sentences.append(" ".join(sentence) + ".")
    return " ".join(sentences)


def documents(count: int, first: int = 0, candidates: int = CANDIDATES) -> list[list[Item]]:
    """For every candidate its outputs: 60 words, half of them in runs of five from the reference of 60 words."""
    found: list[list[Item]] = [[] for _ in range(candidates)]
    for number in range(first, first + count):
        rng = random.Random(number)
        reference = words(rng, 60)
        for rows in found:
            output = words(rng, 60)
            for start in range(0, 60, 10):
                output[start : start + 5] = reference[start : start + 5]
            rows.append(Item(prose(output), (prose(list(reference)),)))
    return found


# Peers


@cache
def published_rouge(split: bool = True) -> Any:
    import nltk
    from rouge_score.rouge_scorer import RougeScorer

    nltk.sent_tokenize = stock_punkt().tokenize  # the packaged model: nothing is downloaded
    return RougeScorer(list(rouge.KINDS), use_stemmer=True, split_summaries=split)


def their_rouge(items: Sequence[Item], split: bool = True) -> list[dict[str, float]]:
    rows = []
    for item in items:
        score = published_rouge(split).score_multi(item.references, item.text)
        figures = [figure for kind in rouge.KINDS for figure in (score[kind].fmeasure, *score[kind][:2])]
        rows.append(dict(zip(rouge.NAMES, figures, strict=True)))
    return rows


def their_meteor(items: Sequence[Item]) -> list[dict[str, float]]:
    from nltk.translate.meteor_score import meteor_score

    return [
        {
            "meteor": meteor_score(
                [stock_words(one) for one in item.references], stock_words(item.text), wordnet=WordNet()
            )
        }
        for item in items
    ]


def their_bertscore(candidates: Sequence[Sequence[Item]]) -> list[list[float]]:
    """One call of bert-score for every candidate, its encoder loaded once."""
    found = []
    for items in candidates:
        part = _bert_scorer().score(
            [item.text for item in items], [item.references[0] for item in items], batch_size=64
        )
        found.append(part[2].tolist())
    return found


@cache
def _bert_scorer() -> Any:
    from bert_score import BERTScorer

    return BERTScorer(model_type=str(_finding.folder("minilm")), num_layers=5, device="cpu", nthreads=0)


# Ours


def forget() -> None:
    """Empty every memory of the metrics."""
    _rouge_words._current.clear()
    _meteor_words._current.clear()
    for remembered in (
        _sentences._remembered_look, _sentences._inner_word, _sentences._last_word, _wordnet._synonyms,
    ):  # fmt: skip
        remembered.cache_clear()
    _sentences._punkt().forget()
    bertscore._embedded = Memory(bertscore.REMEMBERED_BYTES)


def without_kernel() -> None:
    _rouge_counting._done = -(10**12)
    _chunks._kernel = None


class Kept:
    """A work, and what it found the last time."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.found: Any = None

    def __call__(self) -> None:
        self.found = self.work()


def compared(
    name: str, peer: str, ours: Callable[[], Any], theirs: Callable[[], Any], times: int, target: float, note: str = "",
    near: float = 0.0,
) -> Row:  # fmt: skip
    """A row of two works that must find the same, to the last bit or within `near`."""
    mine, other = Kept(ours), Kept(theirs)
    seconds = interleaved(mine, other, times)
    equal = mine.found == other.found if not near else _close(mine.found, other.found, near)
    return Row(name, peer, *seconds, target=target, equal=equal, note=note)


def _close(one: list[list[float]], other: list[list[float]], near: float) -> bool:
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return all(abs(a - b) <= near for a, b in pairs)


# Measurements


def cold(score: Callable[..., Results], items: list[Item], **options: Any) -> Callable[[], Results]:
    def work() -> Results:
        forget()
        return score(items, options)

    return work


PER_PAIR = 1e6
"""Microseconds in a second: times are told per pair."""


def measure_rouge(candidates: list[list[Item]], times: int) -> Iterator[Row]:
    """Ours on all candidates, the peer on the first; by lines and by Punkt's sentences, without and with the kernel."""
    items = [item for rows in candidates for item in rows]
    one = candidates[0]
    has_kernel = find_spec("numba") is not None
    if has_kernel:
        _rouge_counting.hasten()
        rouge.score(items[:1], {})  # compiles, or loads what was compiled
    for split in ("newline", "punkt"):
        ordinary, compiled = (Kept(cold(rouge.score, items, sentences=split)) for _ in range(2))
        theirs = Kept(lambda split=split: their_rouge(one, split == "punkt"))

        def ours(ordinary: Kept = ordinary) -> None:
            without_kernel()
            ordinary()

        def ours_compiled(compiled: Kept = compiled) -> None:
            _rouge_counting.hasten()
            compiled()

        *mine, peer = in_turn([ours, ours_compiled, theirs] if has_kernel else [ours, theirs], times)
        name = f"ROUGE-1/2/L/Lsum, {len(candidates)} × {len(one):,}, {'by lines' if split == 'newline' else split}"
        works = [(ordinary, name, 60.0), (compiled, f"{name}, `fast`", 180.0)]
        for seconds, (kept, work, target) in zip(mine, works, strict=False):
            equal = kept.found[: len(one)] == theirs.found
            per_pair = (PER_PAIR * seconds / len(items), PER_PAIR * peer / len(one))
            yield Row(work, "rouge-score", *per_pair, unit="µs/pair", target=target, equal=equal)


def measure_meteor(candidates: list[list[Item]], times: int) -> Iterator[Row]:
    one, extras = candidates[0], ("", ", `fast`") if find_spec("numba") else ("",)
    for rows, extra in [(rows, extra) for rows in (candidates[:1], candidates) for extra in extras]:
        items = [item for each in rows for item in each]
        (_chunks.hasten if extra else without_kernel)()
        meteor.score(items[:1], {})  # loads the table of synonyms, and what was compiled
        ours, theirs = Kept(cold(meteor.score, items)), Kept(lambda: their_meteor(one))
        mine, peer = in_turn([ours, theirs], times)
        per_pair = (PER_PAIR * mine / len(items), PER_PAIR * peer / len(one))
        equal = ours.found[: len(one)] == theirs.found
        name = f"METEOR, {len(rows)} × {len(one):,}{extra}"
        yield Row(name, "nltk", *per_pair, unit="µs/pair", target=15.0, equal=equal)


def measure_ninth(candidates: list[list[Item]], ninth: list[Item], times: int) -> Row:
    """One more candidate, the references being known, against the standard stack on that candidate alone."""
    forget()
    for items in candidates:
        rouge.score(items, {})
        meteor.score(items, {})

    def ours() -> list[Results]:
        return [rouge.score(ninth, {}), meteor.score(ninth, {})]

    def theirs() -> list[Any]:
        return [their_rouge(ninth), their_meteor(ninth)]

    name = f"the ninth candidate, {len(ninth)} documents: ROUGE and METEOR"
    return compared(name, "rouge-score, nltk", ours, theirs, times, 20)


def measure_bertscore(candidates: list[list[Item]], times: int) -> Row:
    items = [item for rows in candidates for item in rows]
    size = len(candidates[0])
    options = {"encoder": "minilm", "layer": 5}

    def ours() -> list[list[float]]:
        forget()
        found = [float(row["bertscore_f1"]) for row in bertscore.score(items, options)]  # type: ignore[arg-type]
        return [found[start : start + size] for start in range(0, len(found), size)]

    bertscore.score(items[:1], options)
    their_bertscore([candidates[0][:1]])
    name = f"BERTScore fp32, {len(candidates)} × {size}, shared references"
    return compared(name, "bert-score", ours, lambda: their_bertscore(candidates), times, 2.5, near=1e-6)


def measure_long(count: int, times: int) -> Iterator[Row]:
    from rouge_score_rs.rouge_scorer import RougeScorer

    rng = random.Random(1)
    reference, output = prose(words(rng, count)), prose(words(rng, count))
    item = [Item(output, (reference,))]
    lines = ["\n".join(stock_punkt().tokenize(text)) for text in (reference, output)]
    longest = RougeScorer(["rougeL"], use_stemmer=True)
    every = RougeScorer(list(rouge.KINDS), use_stemmer=True)
    sentences = [_rouge_words.vocabulary(True).sentences(read) for read in _read([reference, output])]
    flat = [[token for sentence in text for token in sentence] for text in sentences]

    def ours() -> float:
        return _rouge_counting.longest(flat[0], flat[1]) / len(flat[0])

    name = f"ROUGE-L, one pair of {count:,} words"
    yield compared(name, "rouge-score-rs", ours, lambda: longest.score(*lines)["rougeL"].recall, times, 0)

    def theirs() -> Results:
        score = every.score(*lines)
        figures = [figure for kind in rouge.KINDS for figure in (score[kind].fmeasure, *score[kind][:2])]
        return [dict(zip(rouge.NAMES, figures, strict=True))]

    for extra in ("", ", `fast`") if find_spec("numba") else ("",):
        (_rouge_counting.hasten if extra else without_kernel)()
        rouge.score(item, {})
        work = f"all of ROUGE, one pair of {count:,} words{extra}"
        yield compared(work, "rouge-score-rs", lambda: rouge.score(item, {}), theirs, times, 0)


def _read(texts: list[str]) -> list[_rouge_words.Read]:
    return _rouge_words.vocabulary(True).read(texts, "punkt")


def measure_odd(times: int) -> Iterator[Row]:
    """What nobody writes and somebody sends: there is a limit of a second, and a result that is known."""
    word = "ab" * 500_000
    references = tuple(item.references[0] for item in documents(50, candidates=1)[0])
    output = documents(1, 50, candidates=1)[0][0].text
    many = [Item(output, references)]
    known: list[tuple[str, Item, Callable[[dict[str, Value]], bool]]] = [
        ("one word of 1,000,000 letters", Item(f"{word} b", (f"{word} c",)), lambda row: row["rouge1"] == 0.5),
        ("20,000 equal words", Item("a " * 20_000, ("a " * 10_000,)), lambda row: row["rougeLsum_recall"] == 1.0),
    ]
    for extra in ("", ", `fast`") if find_spec("numba") else ("",):
        (_rouge_counting.hasten if extra else without_kernel)()
        for name, item, is_right in known:
            kept = Kept(lambda item=item: rouge.score([item], {})[0])
            seconds, _ = interleaved(kept, lambda: None, times)
            yield Row(f"ROUGE, {name}{extra}", "limit", seconds, 1.0, equal=is_right(kept.found))
    yield compared(
        "ROUGE, 50 references", "rouge-score", lambda: rouge.score(many, {}), lambda: their_rouge(many), times, 0
    )


def measure_memory(counts: tuple[int, int]) -> Row:
    """Peak memory of a process that scores documents as they come: many against few, which fill all its memories."""
    few, many = (_peak(count) for count in counts)
    name = f"peak memory of ROUGE and METEOR, {counts[1]:,} documents"
    return Row(name, f"{counts[0]:,} documents", many, few, unit="MB", target=0.95)


def _peak(count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.scoring", "--peak", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def score_and_print_peak(count: int) -> None:
    for first in range(0, count, 100):
        for items in documents(min(100, count - first), first, candidates=2):
            rouge.score(items, {})
            meteor.score(items, {})
    print(json.dumps(_peak_of_this_process()))


def _peak_of_this_process() -> float:
    """In MB. Linux hands `ru_maxrss` on from the parent, which has loaded far more: it says VmHWM of ourselves."""
    status = Path("/proc/self/status")
    if status.is_file():
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(peak) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(quick: bool) -> Iterator[Row]:
    size, times = (60, 3) if quick else (1_250, 3)
    *candidates, ninth = documents(size, candidates=CANDIDATES + 1)
    for score in (rouge.score, meteor.score):
        score(candidates[0][:1], {})
    gc.collect()
    gc.freeze()  # the texts and what was loaded: the collector going through them now and then doubled our times
    yield from measure_rouge(candidates, times)
    yield from measure_meteor(candidates, times)
    yield measure_ninth([rows[:300] for rows in candidates], ninth[:300], times)
    if not bertscore.available(bertscore.DEFAULTS):
        yield measure_bertscore([rows[: 3 if quick else 24] for rows in candidates], times)
    yield from measure_long(2_000 if quick else 8_000, times)
    yield from measure_odd(times)
    yield measure_memory((100, 500) if quick else (20_000, 40_000))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        score_and_print_peak(int(sys.argv[2]))
    else:
        run("scoring", measure)

"""Consistency: is what the output says entailed by the source? SummaC-ZS (Laban et al. 2022, TACL 10, 163-177).

A natural language inference model reads every pair of a source passage and an output sentence. Our own implementation;
unlike the original it reads all of a long source, cuts nothing off silently and takes the labels from the model itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from evaluations.metrics import Absent, Check, Item, Metric, Options, Part, Value, _sentences
from evaluations.metrics import _encoding as encoding
from evaluations.metrics import _finding as finding
from evaluations.metrics._admitting import EMPTY, choice, everywhere
from evaluations.metrics._encoding import LOCK, EncoderError
from evaluations.metrics._sentences import installed

PAIRS_AT_ONCE = 2_048  # pairs in memory at a time; some 2 MB of token ids
GRANULARITIES = ("sentence", "two sentences", "window")
PREMISE_SHARE = 0.75  # of the model's limit, for the source; the rest is the output sentence's
ENTAILS = ("entailment", "supports")
CONTRADICTS = ("contradiction", "refutes")

ABOUT = """Consistency asks a model trained on natural language inference, for every sentence of the output, how
probable it is that some sentence of the source entails it. The best source sentence counts, and the mean over the
output's sentences is the score, from 0 to 1, higher is better; "worst sentence" is the least supported one, which is
the one to look at. No reference is needed. It is the measure here that comes nearest to noticing invented facts.
Where it misleads: it is a model's opinion (72 % balanced accuracy on the paper's six collections of judgements); a
sentence that joins facts from several places of the source looks unsupported, because only one place is read at a
time (option "granularity" reads two sentences, or windows as long as the model allows); a copy of the source scores 1
whether or not it is a good summary; and a sentence of no content is easily entailed. With "contradiction" being
contradicted counts against a sentence: (1 + entailment − contradiction) / 2. Values of different models are
never on one axis. The default model knows English only."""
COST = """The most expensive metric here: every source sentence is read with every output sentence. A source of 40
sentences and an output of 3 make 120 pairs of about 60 tokens: 7,000 tokens through the model, where BERTScore reads
some 200. A network of the default's shape reads about 300 tokens a second on one CPU core, so such an output takes
more than 20 s of it: use a GPU for more than a few dozen documents."""

PARTS = (
    Part("consistency", "Consistency", about="Mean over the output's sentences of how well the source entails them."),
    Part("consistency_worst", "Consistency of the worst sentence", about="The same for the least supported sentence."),
)
DEFAULTS: dict[str, Any] = {
    "model": "cross-encoder/nli-deberta-v3-base",  # a hub id that lies in a local folder, or an absolute path
    "granularity": "sentence",
    "contradiction": False,
    "batch_tokens": 0,  # 0: by device; changes speed and the seventh decimal only
}
NO_SOURCE = Absent("not_applicable", "no source document")
NO_SENTENCE = Absent("failed", "the output has no sentence with a letter or digit")
NO_PASSAGE = Absent("not_applicable", "the source has no sentence with a letter or digit")


@dataclass(frozen=True)
class Judge:
    """A loaded inference model. `room` is the longest premise and the longest hypothesis in tokens."""

    tokenizer: Any
    model: Any
    device: str
    limit: int
    room: tuple[int, int]
    entails: int
    contradicts: int | None


@dataclass(frozen=True)
class Claim:
    """One output to judge: the passages of its source and its sentences."""

    place: int
    passages: tuple[str, ...]
    sentences: tuple[str, ...]

    def pairs(self) -> Iterator[tuple[str, str]]:
        return ((passage, sentence) for sentence in self.sentences for passage in self.passages)


# The model


def labels(config: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The places of entailment and of contradiction among a config.json's labels, None where no label is called so.

    FEVER's names (SUPPORTS, REFUTES) count; LABEL_0 says nothing and is not guessed.
    """
    told = config.get("id2label")
    names = {str(name).strip().lower(): int(place) for place, name in told.items()} if isinstance(told, dict) else {}
    entails, contradicts = (
        next((names[name] for name in accepted if name in names), None) for accepted in (ENTAILS, CONTRADICTS)
    )
    return entails, contradicts


def _load(place: Path) -> Judge:
    entails, contradicts = labels(finding.read_json(place / "config.json"))
    assert entails is not None, "available() has checked it"
    return _load_once(place, finding.fingerprint(place), entails, contradicts)


@lru_cache(maxsize=1)
def _load_once(place: Path, weights: str, entails: int, contradicts: int | None) -> Judge:
    """The model in `place`, on the GPU when there is one. Raises EncoderError."""
    from transformers import AutoModelForSequenceClassification

    tokenizer, model = encoding.pretrained(place, AutoModelForSequenceClassification)
    limit = finding.limit(place)
    free = (
        limit - len(tokenizer("a", "a")["input_ids"]) + 2 * len(tokenizer("a", add_special_tokens=False)["input_ids"])
    )
    premise = max(int(free * PREMISE_SHARE), 1)
    device = encoding.where()
    room = premise, max(free - premise, 1)
    return Judge(tokenizer, model.to(device), device, limit, room, entails, contradicts)


def _judged(judge: Judge, pairs: Sequence[tuple[str, str]], budget: int) -> dict[tuple[str, str], tuple[float, float]]:
    """{(premise, hypothesis): the probabilities of entailment and contradiction}, the latter 0 without such a label."""
    import torch

    found: dict[tuple[str, str], tuple[float, float]] = {}
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        rows = {pair: row for row, pair in enumerate(pairs[start : start + PAIRS_AT_ONCE])}
        premises, hypotheses = map(list, zip(*rows, strict=True))
        # Passages fit; only an endless "word" is ever cut here.
        tokens = judge.tokenizer(premises, hypotheses, truncation="longest_first", max_length=judge.limit)
        sizes = {pair: len(tokens["input_ids"][row]) for pair, row in rows.items()}
        for batch in encoding.batches(sizes, budget or encoding.BATCH_TOKENS[judge.device]):
            picked = {name: [column[rows[pair]] for pair in batch] for name, column in tokens.items()}
            padded = judge.tokenizer.pad(picked, return_tensors="pt")
            logits = judge.model(**{name: tensor.to(judge.device) for name, tensor in padded.items()}).logits
            for pair, probable in zip(batch, torch.softmax(logits.float(), dim=-1).tolist(), strict=True):
                found[pair] = (
                    probable[judge.entails],
                    0.0 if judge.contradicts is None else probable[judge.contradicts],
                )
    return found


# Sentences


def sentences(text: str) -> list[str]:
    """The sentences of a text that have a letter or digit, each on one line."""
    cut = (" ".join(sentence.split()) for sentence in _sentences.sentences(encoding.readable(text)))
    return [sentence for sentence in cut if any(map(str.isalnum, sentence))]


def _fitting(judge: Judge, parts: Sequence[str], room: int) -> list[str]:
    """The parts, those of more than `room` tokens halved at a blank until they fit, so that nothing goes unread."""
    fitting: list[str] = []
    for part, size in zip(parts, _sizes(judge, parts), strict=True):
        words = part.split()
        if size <= room or len(words) < 2:
            fitting.append(part)
        else:
            middle = len(words) // 2
            fitting += _fitting(judge, [" ".join(words[:middle]), " ".join(words[middle:])], room)
    return fitting


def _sizes(judge: Judge, parts: Sequence[str]) -> list[int]:
    if not parts:
        return []
    return [len(ids) for ids in judge.tokenizer(list(parts), add_special_tokens=False, verbose=False)["input_ids"]]


def _passages(judge: Judge, source: str, granularity: str) -> list[str]:
    """What stands as premise: each sentence, each two neighbours, or windows of whole sentences that fit the model."""
    room = judge.room[0]
    single = _fitting(judge, sentences(source), room)
    if granularity == "sentence" or len(single) < 2:
        return single
    if granularity == "two sentences":
        return _fitting(judge, [" ".join(pair) for pair in pairwise(single)], room)
    windows: list[str] = []
    tokens = 0
    for sentence, size in zip(single, _sizes(judge, single), strict=True):
        if windows and tokens + size <= room:
            windows[-1] += f" {sentence}"
            tokens += size
        else:
            windows.append(sentence)
            tokens = size
    return windows


# Scores


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """Both parts of every item, in order. Raises ValueError for an unknown option value."""
    options = {**DEFAULTS, **options}
    choice(options, "granularity", GRANULARITIES)
    if reason := available(options):
        return [everywhere(Absent("not_computed", reason), PARTS) for _ in items]
    results = [everywhere(_absence(item) or NO_SENTENCE, PARTS) for item in items]
    admitted = [place for place, item in enumerate(items) if _absence(item) is None]
    try:
        with LOCK:
            _score_admitted(items, admitted, options, results)
    except EncoderError as error:
        return [everywhere(Absent("not_computed", str(error)), PARTS) for _ in items]
    return results


def _absence(item: Item) -> Absent | None:
    """Why `item` cannot be judged. Without a source no output could be, so an empty one is nobody's failure."""
    if not item.source.strip():
        return NO_SOURCE
    return None if item.text.strip() else EMPTY


def _score_admitted(
    items: Sequence[Item], admitted: Sequence[int], options: Options, results: list[dict[str, Value]]
) -> None:
    """Fill in `results` for the items that have a text and a source. Raises EncoderError."""
    import torch

    place = finding.folder(options["model"])
    assert place is not None, "available() has checked it"
    judge = _load(place)
    sources: dict[str, tuple[str, ...]] = {}
    claims = []
    for index in admitted:
        source = items[index].source
        if source not in sources:
            sources[source] = tuple(dict.fromkeys(_passages(judge, source, options["granularity"])))
        claimed = tuple(_fitting(judge, sentences(items[index].text), judge.room[1]))
        if not sources[source]:
            results[index] = everywhere(NO_PASSAGE, PARTS)
        elif claimed:
            claims.append(Claim(index, sources[source], claimed))
    with torch.inference_mode():
        for block in _blocks(claims):
            pairs = dict.fromkeys(pair for claim in block for pair in claim.pairs())
            judged = _judged(judge, list(pairs), int(options["batch_tokens"]))
            for claim in block:
                results[claim.place] = _parts(claim, judged, against=bool(options["contradiction"]))


def _blocks(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    """Claims in blocks of about PAIRS_AT_ONCE pairs, so that memory does not grow with the documents."""
    block: list[Claim] = []
    pairs = 0
    for claim in claims:
        block.append(claim)
        pairs += len(claim.passages) * len(claim.sentences)
        if pairs >= PAIRS_AT_ONCE:
            yield block
            block, pairs = [], 0
    if block:
        yield block


def _parts(claim: Claim, judged: Mapping[tuple[str, str], tuple[float, float]], *, against: bool) -> dict[str, Value]:
    """Mean and minimum over the sentences of the best passage's entailment (less the worst one's contradiction)."""
    values = []
    for sentence in claim.sentences:
        told = [judged[passage, sentence] for passage in claim.passages]
        entailed = max(entails for entails, _ in told)
        values.append((1 + entailed - max(contradicts for _, contradicts in told)) / 2 if against else entailed)
    mean, worst = PARTS
    return {mean.name: math.fsum(values) / len(values), worst.name: min(values)}


# Options


def signature(options: Options) -> dict[str, Any]:
    """Model with a fingerprint of its weights, its labels, sentence cutting, granularity, formula, versions."""
    options = {**DEFAULTS, **options}
    place = finding.folder(options["model"])
    entails, contradicts = labels(finding.read_json(place / "config.json")) if place else (None, None)
    return {
        "definition": "SummaC-ZS",
        "model": finding.public_name(options["model"]),
        "weights": finding.fingerprint(place) if place else "missing",
        "labels": {"entailment": entails, "contradiction": contradicts},
        "max_tokens": finding.limit(place) if place else None,
        "sentences": _sentences.signature(),
        "granularity": choice(options, "granularity", GRANULARITIES),
        "value": "(1 + entailment - contradiction) / 2" if options["contradiction"] else "entailment",
        "dtype": "float32",
        "torch": installed("torch"),
        "transformers": installed("transformers"),
    }


def available(options: Options) -> str:
    """An empty string, or why it cannot be computed here: libraries, weights, labels."""
    options = {**DEFAULTS, **options}
    if reason := finding.missing(options["model"], "inference model") or _sentences.missing():
        return reason
    place = finding.folder(options["model"])
    entails, contradicts = labels(finding.read_json(place / "config.json")) if place else (None, None)
    if entails is None:
        return f"no label of {options['model']!r} is called entailment: choose a natural language inference model"
    if options["contradiction"] and contradicts is None:
        return f"no label of {options['model']!r} is called contradiction: turn the option 'contradiction' off"
    return ""


PARKING = "The council met on Monday. Fees for parking will rise by ten percent. The council meets again in March."
BY_MEANING = "what entailment means; a model that misses it is not the one it is called"
CHECKS = (
    Check(
        "A sentence of the source is entailed",
        Item("Fees for parking will rise by ten percent.", (), PARKING),
        {"consistency": 1.0, "consistency_worst": 1.0},
        source=BY_MEANING,
        tolerance=0.1,
    ),
    Check(
        "Its contrary is not",
        Item("Fees for parking will fall by ten percent.", (), PARKING),
        {"consistency": 0.0, "consistency_worst": 0.0},
        source=BY_MEANING,
        tolerance=0.1,
    ),
)

metric = Metric(
    name="consistency",
    label="Consistency",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    needs_reference=False,
    needs_source=True,
    queue="gpu",
    defaults=DEFAULTS,
    available=available,
    languages=("en",),
    cost=" ".join(COST.split()),
    checks=CHECKS,
)

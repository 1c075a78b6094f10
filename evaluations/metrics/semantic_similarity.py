"""Semantic similarity: the cosine of two texts' sentence embeddings (Reimers & Gurevych 2019, Sentence-BERT, EMNLP).

Equal to sentence-transformers with the same weights for texts within the encoder's limit. Longer ones are read whole:
in windows of the limit, whose vectors are averaged by their tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluations.metrics import EXAMPLE, Absent, Check, Item, Metric, Options, Part, Value
from evaluations.metrics import _encoding as encoding
from evaluations.metrics import _finding as finding
from evaluations.metrics._admitting import AGGREGATIONS, EMPTY, NO_REFERENCE, choice, everywhere, usable
from evaluations.metrics._encoding import LOCK, Encoder, EncoderError, Ids
from evaluations.metrics._remembering import Memory
from evaluations.metrics._sentences import installed

if TYPE_CHECKING:
    import torch

REMEMBERED_BYTES = 64 * 2**20  # 1.5 KB a text with 384 dimensions: some 30,000 sources and references
ENTRY_BYTES = 300  # what an entry takes beside its vector
LONG = ("windows", "cut")
KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")

ABOUT = """Semantic similarity turns the whole output into one vector that stands for its meaning, does the same with
the source and with the reference, and tells the cosine of the angle between them: 1 is the same meaning to the
encoder, about 0 none in common. It hears what a text is about, in whatever words, and needs no reference. Where it
misleads: a topic is not a fact, so an output with a wrong number, a wrong name or a negation scores nearly as high as
a right one; similarity with the source rewards copying and length, for the source itself would score 1; values of
different encoders are never on one axis; and the vector of a long source is an average over its parts, against which
a summary of the one part that matters looks less similar. Long texts are read whole in windows of the encoder's
limit (option "long"; "cut" reads the first window only). With several references the best counts (option "max"), or
their mean. The default encoder knows English only."""

PARTS = (
    Part(
        "similarity_source",
        "Similarity with the source",
        low=-1.0,
        floor=0.0,
        about="Cosine of the embeddings of the output and of the source.",
    ),
    Part(
        "similarity_reference",
        "Similarity with the reference",
        low=-1.0,
        floor=0.0,
        about="Cosine of the embeddings of the output and of the reference.",
    ),
)
SOURCE, REFERENCE = (part.name for part in PARTS)
DEFAULTS: dict[str, Any] = {
    "encoder": "minilm",  # "minilm", an absolute path, or a hub id that lies in a local folder
    "long": "windows",
    "references": "max",
    "batch_tokens": 0,  # 0: by device; changes speed and the seventh decimal only
}
NO_SOURCE = Absent("not_applicable", "no source document")
NOTHING_READABLE = Absent("failed", "the encoder's tokenizer finds no word in the output")
NO_READABLE_SOURCE = Absent("not_applicable", "the encoder's tokenizer finds no word in the source")
NO_READABLE_REFERENCE = Absent("not_applicable", "the encoder's tokenizer finds no word in the reference")

_remembered: Memory[torch.Tensor] = Memory(REMEMBERED_BYTES)


# What the encoder's folder tells


def pooling(place: Path) -> tuple[str, str]:
    """("mean" or "cls", "") as the folder says, "mean" where it says nothing; or ("", why we cannot pool its way)."""
    listed = finding.read_json_list(place / "modules.json")
    strange = [kind for module in listed if (kind := str(module.get("type")).rpartition(".")[2]) not in KNOWN_MODULES]
    if strange:
        return "", f"the encoder in {place} ends in a module {strange[0]!r}, which is not read: choose another encoder"
    told = finding.read_json(place / "1_Pooling" / "config.json")
    modes = [name for name, chosen in told.items() if name.startswith("pooling_mode_") and chosen is True]
    if modes in ([], ["pooling_mode_mean_tokens"]):
        return "mean", ""
    if modes == ["pooling_mode_cls_token"]:
        return "cls", ""
    return (
        "",
        f"the encoder in {place} pools by {' and '.join(modes)}: choose one that pools by mean_tokens or cls_token",
    )


def reads(place: Path) -> int:
    """Tokens in one window, frame included: what the encoder was trained on where it says so, else its limit."""
    said = finding.read_json(place / "sentence_bert_config.json").get("max_seq_length")
    return min(finding.limit(place), int(said)) if said else finding.limit(place)


# Scores


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """Both parts of every item, in order. Raises ValueError for an unknown option value."""
    options = {**DEFAULTS, **options}
    choice(options, "references", tuple(AGGREGATIONS))
    choice(options, "long", LONG)
    if reason := available(options):
        return [everywhere(Absent("not_computed", reason), PARTS) for _ in items]
    try:
        with LOCK:
            vectors = _vectors(items, options)
    except EncoderError as error:
        return [everywhere(Absent("not_computed", str(error)), PARTS) for _ in items]
    return [_parts(item, vectors, options) for item in items]


def _parts(item: Item, vectors: Mapping[str, torch.Tensor], options: Options) -> dict[str, Value]:
    references = usable(item)
    without = {
        SOURCE: None if item.source.strip() else NO_SOURCE,
        REFERENCE: None if references else NO_REFERENCE,
    }
    output = vectors.get(item.text)
    if output is None:
        reason = NOTHING_READABLE if item.text.strip() else EMPTY
        return {name: absent or reason for name, absent in without.items()}
    near = [_cosine(output, vectors[reference]) for reference in references if reference in vectors]
    return {
        SOURCE: without[SOURCE]
        or (_cosine(output, vectors[item.source]) if item.source in vectors else NO_READABLE_SOURCE),
        REFERENCE: without[REFERENCE] or (AGGREGATIONS[options["references"]](near) if near else NO_READABLE_REFERENCE),
    }


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """The cosine of two unit vectors; rounding leaves 1.0000001 for equal texts."""
    return max(-1.0, min(1.0, float(one @ other)))


def _vectors(items: Sequence[Item], options: Options) -> dict[str, torch.Tensor]:
    """{text: its unit vector} for every text that has a word; sources and references are remembered."""
    place = finding.folder(options["encoder"])
    assert place is not None, "available() has checked it"
    encoder, mode, room = encoding.load(place), pooling(place)[0], reads(place)
    scored = [item for item in items if item.text.strip()]
    lasting = dict.fromkeys(text for item in scored for text in (item.source, *usable(item)) if text.strip())
    keys = {text: encoding.content_key(encoder, text, mode, room, options["long"]) for text in lasting}
    found = {text: kept for text, key in keys.items() if (kept := _remembered.get(key)) is not None}
    wanted = dict.fromkeys(text for text in (*(item.text for item in scored), *lasting) if text not in found)
    windows = {
        text: cut if options["long"] == "windows" else cut[:1]
        for text, ids in encoding.tokenize(encoder, list(wanted)).items()
        if (cut := encoder.windows(ids, room))
    }
    fresh = _pooled(encoder, windows, mode, int(options["batch_tokens"]))
    for text in fresh.keys() & keys.keys():
        _remembered.keep(keys[text], fresh[text], fresh[text].nbytes + ENTRY_BYTES)
    return found | fresh


def _pooled(encoder: Encoder, windows: Mapping[str, list[Ids]], mode: str, budget: int) -> dict[str, torch.Tensor]:
    """{text: the unit vector of its windows, each weighted by its tokens}. Pooled by mean, this is the mean over all
    tokens of all windows. Only one batch of token vectors is alive at a time."""
    import torch

    sums: dict[str, torch.Tensor] = {}
    pieces = {(text, place): ids for text, cut in windows.items() for place, ids in enumerate(cut)}
    with torch.inference_mode():
        for (text, _), hidden in encoding.embed(encoder, pieces, budget):
            vector = hidden.sum(dim=0) if mode == "mean" else hidden[0] * len(hidden)
            sums[text] = sums[text] + vector if text in sums else vector
        return {text: total / total.norm() for text, total in sums.items()}


# Options


def signature(options: Options) -> dict[str, Any]:
    """Encoder with a fingerprint of its weights, pooling, window, long texts, aggregation, versions."""
    options = {**DEFAULTS, **options}
    place = finding.folder(options["encoder"])
    return {
        "definition": "cosine of sentence embeddings",
        "encoder": finding.public_name(options["encoder"]),
        "weights": finding.fingerprint(place) if place else "missing",
        "pooling": pooling(place)[0] or "unknown" if place else None,
        "max_tokens": reads(place) if place else None,
        "long": choice(options, "long", LONG),
        "references": choice(options, "references", tuple(AGGREGATIONS)),
        "dtype": "float32",
        "torch": installed("torch"),
        "transformers": installed("transformers"),
    }


def available(options: Options) -> str:
    """An empty string, or why it cannot be computed here: libraries, weights, pooling."""
    options = {**DEFAULTS, **options}
    if reason := finding.missing(options["encoder"]):
        return reason
    place = finding.folder(options["encoder"])
    return pooling(place)[1] if place else ""


COST = (
    "About 350 ms of one CPU core for the first output on a source of 800 words, and 20 ms for every further output "
    "of 60 words on it, since source and reference are remembered (all-MiniLM-L6-v2)."
)
PUBLISHED = "the quickstart of sentence-transformers (sbert.net), all-MiniLM-L6-v2"
CHECKS = (
    Check(
        "Two sentences about fine weather, and one about something else",
        Item("The weather is lovely today.", ("It's so sunny outside!",), "He drove to the stadium."),
        {"similarity_reference": 0.6660, "similarity_source": 0.1046},
        source=PUBLISHED,
        tolerance=1e-4,
    ),
    Check(
        "Two sentences with nothing in common",
        Item("It's so sunny outside!", ("He drove to the stadium.",)),
        {"similarity_reference": 0.1411},
        source=PUBLISHED,
        tolerance=1e-4,
    ),
    Check(
        "The worked example",
        EXAMPLE,
        {"similarity_reference": 0.9066, "similarity_source": 0.7794},
        source="the usage example of the model's card (mean over the tokens, cosine), torch 2.13, transformers 5.23",
        tolerance=1e-4,
    ),
)

metric = Metric(
    name="semantic_similarity",
    label="Semantic similarity",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    needs_reference=False,
    queue="gpu",
    defaults=DEFAULTS,
    available=available,
    languages=("en",),
    cost=COST,
    checks=CHECKS,
)

"""Encoding turns texts into vectors with a language model that lies on this machine: tokens, windows, batches.

Shared by the metrics that read with an encoder. Texts are packed by tokens, nothing is fetched, only safetensors are
opened, and no author's code is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from evaluations.metrics import _finding

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = {"cpu": 1_024, "cuda": 16_384}  # on a CPU small batches win: their activations stay in the cache
PREFIXED = ("roberta", "gpt2")  # byte-level BPE: the first word needs a leading blank to be cut like the others
LOCK = Lock()
"""Held while a model reads: tokenizers are not safe across threads, and two models at once only share the cores."""

Ids = tuple[int, ...]


class Ordered(Protocol):
    """What can be sorted: the texts of a batch have an order of their own, whatever the order of the items."""

    def __lt__(self, other: Any, /) -> bool: ...
    def __hash__(self) -> int: ...


K = TypeVar("K", bound=Ordered)


class EncoderError(ValueError):
    """The model's folder cannot be used; the message says why and what would help."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A loaded encoder: token ids in, vectors out.

    `before` and `after` frame every text ([CLS] … [SEP]); `silent` are the ids among them that carry no weight.
    """

    key: str
    tokenizer: Any
    model: Any
    device: str
    limit: int
    width: int
    silent: frozenset[int]
    before: Ids
    after: Ids

    def windows(self, ids: Ids, limit: int = 0) -> list[Ids]:
        """The ids of a text in framed windows of at most `limit` tokens (0: the encoder's), the frame included.

        The first one is what a tokenizer's truncation leaves of the text. No window for a text without a token.
        """
        room = min(limit or self.limit, self.limit) - len(self.before) - len(self.after)
        return [(*self.before, *ids[at : at + room], *self.after) for at in range(0, len(ids), room)]


def load(place: Path, layer: int | None = None, *, prefix: bool = False) -> Encoder:
    """The encoder in `place`, cut after `layer` layers (None: whole), on the GPU when there is one.

    `prefix`: byte-level tokenizers cut the first word as if a blank stood before it (bert-score's published values).
    Raises EncoderError for weights that do not fit, or for an architecture whose layers are not where we know.
    """
    return _load_once(place, layer, prefix, _finding.fingerprint(place))


@lru_cache(maxsize=2)
def _load_once(place: Path, layer: int | None, prefix: bool, weights: str) -> Encoder:
    from transformers import AutoModel

    tokenizer, model = pretrained(place, AutoModel, spare="pooler", prefix=prefix)
    device = where()
    model = _cut(model, layer).to(device)
    silent = frozenset(id_ for id_ in (tokenizer.cls_token_id, tokenizer.sep_token_id) if id_ is not None)
    width = int(getattr(model.config, "hidden_size", 0) or getattr(model.config, "d_model", 0))
    before, after = _frame(tokenizer)
    key = f"{weights}/{layer}/{prefix}"
    return Encoder(key, tokenizer, model, device, _finding.limit(place), width, silent, before, after)


def where() -> str:
    """The device that models read on: "cuda" or "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def prefixed(config: Mapping[str, Any]) -> bool:
    """Whether a model with this config.json has its first word cut with a leading blank."""
    return config.get("model_type") in PREFIXED


def pretrained(place: Path, kind: Any, *, spare: str = "", prefix: bool = False) -> tuple[Any, Any]:
    """(tokenizer, model) of a local folder, the model of the Auto class `kind`, in fp32 and ready to read.

    `spare`: weights with that in their name may be missing. Raises EncoderError when others are, or nothing loads.
    """
    import torch
    from transformers import AutoTokenizer

    blank = {"add_prefix_space": True} if prefix and prefixed(_finding.read_json(place / "config.json")) else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False, **blank)
        model, report = kind.from_pretrained(
            place,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EncoderError(f"the model in {place} cannot be loaded: {error}") from error
    lacking = sorted(name for name in report["missing_keys"] if not spare or spare not in name)
    if lacking:
        raise EncoderError(f"the model in {place} lacks {len(lacking)} weights ({lacking[0]}, …): use a complete copy")
    return tokenizer, model.eval()


def _cut(model: Any, layer: int | None) -> Any:
    """The model without what comes after `layer` layers, so that its output is that layer's hidden state."""
    if hasattr(model, "encoder") and hasattr(model, "decoder"):
        model = model.encoder
    if layer is None:
        return model
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


def _frame(tokenizer: Any) -> tuple[Ids, Ids]:
    """What the tokenizer puts before and after a text, seen on a short one. Raises EncoderError."""
    bare = tuple(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = tuple(tokenizer("a")["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if bare and whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise EncoderError(f"{type(tokenizer).__name__} frames texts in a way that is not known: choose another encoder")


def tokenize(encoder: Encoder, texts: Sequence[str]) -> dict[str, Ids]:
    """{text: the ids of all its tokens, without a frame}; no ids at all for a text without a word.

    Blanks around a text are dropped, as bert-score does; lone surrogates, which no tokenizer takes, are too.
    """
    if not texts:
        return {}
    cleaned = [readable(text) for text in texts]
    # verbose=False: that a text is longer than the encoder's limit is on record as a number, not as a warning
    found = encoder.tokenizer(cleaned, add_special_tokens=False, padding=False, verbose=False)["input_ids"]
    return {
        text: tuple(ids) if any(id_ not in encoder.silent for id_ in ids) else ()
        for text, ids in zip(texts, found, strict=True)
    }


def readable(text: str) -> str:
    """The text without blanks around it and without lone surrogates."""
    return text.strip().encode("utf-8", "ignore").decode("utf-8")


def batches(lengths: Mapping[K, int], budget: int) -> Iterator[list[K]]:
    """The keys by falling length (then by themselves: the order of items must not matter), rows × longest ≤ budget.

    A key that is longer than the budget stands alone.
    """
    batch: list[K] = []
    for key in sorted(lengths, key=lambda key: (-lengths[key], key)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


def embed(encoder: Encoder, texts: Mapping[K, Ids], budget: int = 0) -> Iterator[tuple[K, torch.Tensor]]:
    """(key, hidden states: tokens × width, fp32, on the CPU) for every framed window, batch by batch.

    The tensors are views into a batch: clone what is kept. `budget` is in tokens, 0 for that of the device.
    Call it under `torch.inference_mode()`.
    """
    import torch

    padding = encoder.tokenizer.pad_token_id or 0
    for batch in batches({key: len(ids) for key, ids in texts.items()}, budget or BATCH_TOKENS[encoder.device]):
        lengths = [len(texts[key]) for key in batch]
        ids = torch.tensor([[*texts[key], *[padding] * (lengths[0] - len(texts[key]))] for key in batch])
        mask = None
        if lengths[-1] != lengths[0]:  # without padding there is nothing to mask, and attention is faster
            mask = (torch.arange(lengths[0]) < torch.tensor(lengths).unsqueeze(1)).long().to(encoder.device)
        hidden = encoder.model(ids.to(encoder.device), attention_mask=mask)[0].float().cpu()
        for row, key in enumerate(batch):
            yield key, hidden[row, : lengths[row]]


def content_key(encoder: Encoder, text: str, *how: object) -> tuple[object, ...]:
    """Weights, layer and content (and `how` it is read): the same text in another run of the process is the same."""
    return (encoder.key, sha256(text.encode("utf-8", "surrogatepass")).digest(), *how)

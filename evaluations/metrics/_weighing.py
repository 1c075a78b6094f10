"""Weighing says how much each token of a text counts: all alike, or the rare ones more (inverse document frequency).

The frequencies come from a file, as in bert-score's `idf_sents`: counted over the references that happen to be scored
together they would change with the company of an item, and no signature could tell.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from evaluations.metrics import _encoding as encoding
from evaluations.metrics._encoding import Encoder, EncoderError, Ids

if TYPE_CHECKING:
    import torch

LARGEST = 64 * 2**20  # bytes of an idf file; its token counts are kept, its texts are not

Weigh = Callable[[Ids], "torch.Tensor"]
"""The weights of a text's tokens, shape (tokens,), summing to 1; nan when nothing weighs."""


def evenly(encoder: Encoder) -> Weigh:
    """All tokens alike but [CLS] and [SEP], which weigh nothing."""
    return _weigher(dict.fromkeys(encoder.silent, 0.0), 1.0)


def by_rarity(encoder: Encoder, idf: str) -> Weigh:
    """log((N+1)/(n+1)) for a token that stands in n of the N texts of the file `idf`. Raises EncoderError."""
    path = Path(idf)
    status = path.stat()
    count, seen = _frequencies(encoder, path, status.st_size, status.st_mtime_ns)
    weights = {id_: math.log((count + 1) / (times + 1)) for id_, times in seen.items()}
    return _weigher(weights, math.log(count + 1))


def _weigher(weights: dict[int, float], unseen: float) -> Weigh:
    import torch

    def weigh(ids: Ids) -> torch.Tensor:
        raw = torch.tensor([weights.get(id_, unseen) for id_ in ids])
        return raw / raw.sum()

    return weigh


@lru_cache(maxsize=1)  # it holds the encoder
def _frequencies(encoder: Encoder, path: Path, size: int, changed: int) -> tuple[int, Counter[int]]:
    """(number of texts in the file, {token id: in how many of them it stands}); blank lines are no texts."""
    try:
        texts = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise EncoderError(f"the idf file {path} cannot be read as UTF-8 text: {error}") from error
    if not texts:
        raise EncoderError(f"the idf file {path} holds no text: put one text on each line")
    ids = encoding.tokenize(encoder, list(dict.fromkeys(texts)))
    first = {text: set(windows[0]) for text, bare in ids.items() if (windows := encoder.windows(bare))}
    return len(texts), Counter(id_ for text in texts for id_ in first.get(text, ()))


def corpus(idf: object) -> Path | None:
    """The file of the option idf, or None. True, once an option, names none."""
    path = Path(idf) if isinstance(idf, str) else None
    return path if path and path.is_file() and path.stat().st_size <= LARGEST else None


def problem(idf: object) -> str:
    """An empty string, or why the option idf cannot be followed."""
    if corpus(idf):
        return ""
    return f"the option 'idf' is {idf!r}: name a file of at most 64 MiB with one text a line, or leave it empty"

"""Fit a document into a model's window by cutting its end, never the instruction around it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fitted:
    """Token ids that fit, and how many the whole text would have needed."""

    ids: list[int]
    needed: int


def around(prompt: str, source: str) -> list[str] | None:
    """The prompt without its document: joining the parts with a shorter document renders the prompt again.

    None when the document is empty or the prompt does not hold it word for word.
    """
    return prompt.split(source) if source and source in prompt else None


def fit(
    text: str, encode: Callable[[str], Sequence[int]], ends: Callable[[str], Sequence[int]], limit: int
) -> Fitted | None:
    """Cut `text` until `encode(text)` has at most `limit` tokens. None when even no text at all is too long.

    `encode` renders the text into the prompt and tokenizes it; `ends` gives the end, in characters, of each token of
    the bare text. Cutting can merge tokens anew, hence the loop; it needs one or two rounds.
    """
    ids = list(encode(text))
    if len(ids) <= limit:
        return Fitted(ids, len(ids))
    needed = len(ids)
    stops = ends(text)
    keep = len(stops) - (needed - limit)
    while keep > 0:
        ids = list(encode(text[: stops[keep - 1]].rstrip()))
        if len(ids) <= limit:
            return Fitted(ids, needed)
        keep -= len(ids) - limit
    return None

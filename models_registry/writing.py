"""Writing with `transformers`: from batches of token ids to the new token ids of each row.

On a CPU the documents of a batch are encoded apart, with next to no padding: wide batches gain nothing there, while
every padded position costs as much as a token. Only decoding, which reads all weights for each step, is batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models_registry.packing import Budget, pack

TOGETHER = Budget(1024, padding=0.05)
"""Documents that are encoded together on a CPU: enough tokens to read the weights for."""

ENCODED_APART = ("bart", "mbart", "pegasus", "t5", "mt5", "umt5")
"""Encoders that give one state for each token, whatever stands behind the document."""


@dataclass(frozen=True)
class _Document:
    key: int
    ids: Sequence[int]

    @property
    def length(self) -> int:
        return len(self.ids)


class Writer:
    """A loaded model with its settings in `model.generation_config`. `ends` are its end tokens, `pad` fills rows."""

    def __init__(self, model: Any, *, pad: int, ends: frozenset[int], device: str) -> None:
        self.model = model
        self._pad = pad
        self._ends = ends
        self._device = device
        self._is_seq2seq = bool(model.config.is_encoder_decoder)
        self._kind = str(model.config.model_type)

    def write(self, rows: Sequence[Sequence[int]], **changed: Any) -> list[list[int]]:
        """New token ids of each row, up to and with its end token. `changed` are settings for this call alone."""
        import torch

        ids, mask = self._padded(rows)
        inputs: dict[str, Any] = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        if self._kind == "led":
            # The first token sees the whole document, as the model was trained to summarize.
            inputs["global_attention_mask"] = torch.zeros_like(inputs["attention_mask"])
            inputs["global_attention_mask"][:, 0] = 1
        with torch.inference_mode():
            if self._device == "cpu" and len(rows) > 1 and self._kind in ENCODED_APART:
                inputs["encoder_outputs"] = self._encoded_apart(rows, ids.shape[1])
            out = self.model.generate(**inputs, **changed)
        return [self._to_end(row) for row in out[:, 1 if self._is_seq2seq else ids.shape[1] :].tolist()]

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """Token ids and attention mask, (rows, longest): padding behind a document, before a prompt."""
        import torch

        longest = max(map(len, rows))
        ids, mask = [], []
        for row in rows:
            filler, blank = [self._pad] * (longest - len(row)), [0] * (longest - len(row))
            read, seen = list(row), [1] * len(row)
            ids.append(read + filler if self._is_seq2seq else filler + read)
            mask.append(seen + blank if self._is_seq2seq else blank + seen)
        return torch.tensor(ids), torch.tensor(mask)

    def _encoded_apart(self, rows: Sequence[Sequence[int]], longest: int) -> Any:
        """What the encoder makes of each document, (rows, longest, width)."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        encoder, found = self.model.get_encoder(), {}
        for batch in pack([_Document(key, row) for key, row in enumerate(rows)], TOGETHER):
            ids, mask = self._padded([each.ids for each in batch])
            states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            found.update({each.key: state for each, state in zip(batch, states, strict=True)})
        states = [torch.nn.functional.pad(found[key], (0, 0, 0, longest - len(found[key]))) for key in range(len(rows))]
        return BaseModelOutput(last_hidden_state=torch.stack(states))

    def _to_end(self, ids: list[int]) -> list[int]:
        for position, token in enumerate(ids):
            if token in self._ends:
                return ids[: position + 1]
        return ids if self._pad in self._ends else ids[: len(ids) - _trailing(ids, self._pad)]


def _trailing(ids: Sequence[int], token: int) -> int:
    count = 0
    while count < len(ids) and ids[-1 - count] == token:
        count += 1
    return count

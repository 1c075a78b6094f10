"""From a request to the token ids that the model reads: prefix, prompt, chat template, and what is cut.

`Encoding.fit` is the one place where a document is made to fit its window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models_registry.fitting import Fitted, around, fit
from models_registry.providers import ProviderError, Request, Spec


@dataclass(frozen=True)
class Encoding:
    """How one opened model reads. `limit` is the most tokens it is given, `prefix` what stands before a bare document.

    `tokenizer` is one of transformers, which truncates at its right end.
    """

    tokenizer: Any
    spec: Spec
    is_seq2seq: bool
    limit: int
    prefix: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads_prompt(self) -> bool:
        """Seq2seq models were trained on the bare document; one that follows instructions says options.reads_prompt."""
        return not self.is_seq2seq or self.options.get("reads_prompt") is True

    @property
    def chats(self) -> bool:
        return not self.is_seq2seq and bool(self.tokenizer.chat_template)

    def fit(self, request: Request) -> Fitted | None:
        """The document's end is cut, never the instruction; what follows the document stays. None when the prompt
        alone is too long. Raises ProviderError(code="bad_prompt") when the chat template refuses the messages."""
        parts, body = self._parts(request)
        if not self.chats and len(parts) == 2 and not parts[1]:
            return self._cut_tail(parts[0] + body)
        return fit(body, lambda text: self._whole(text.join(parts), request), self._ends_of, self.limit)

    def count(self, request: Request) -> int:
        """Tokens of the whole input: prompt or prefix, chat template, special tokens and document."""
        parts, body = self._parts(request)
        return len(self._whole(body.join(parts), request))

    def _parts(self, request: Request) -> tuple[list[str], str]:
        """What stands around the document, and the document; joined they are the text. Of a conversation the last
        message is the document, and the others stand before it."""
        if request.messages:
            said = [] if self.chats else [each["content"] for each in request.messages[:-1]]
            return ["".join(f"{text}\n\n" for text in said), ""], request.messages[-1]["content"]
        if request.prompt is None or not self.reads_prompt:
            return [self.prefix, ""], request.source
        found = around(request.prompt, request.source)
        return (found, request.source) if found else (["", ""], request.prompt)

    def _whole(self, text: str, request: Request) -> list[int]:
        return self._chat(text, request.messages[:-1]) if self.chats else self.encode(text)

    def encode(self, text: str) -> list[int]:
        """The text's token ids with the tokenizer's special tokens, whatever their number."""
        return list(self.tokenizer(text)["input_ids"])

    def _cut_tail(self, text: str) -> Fitted | None:
        """Truncation as everybody does it: the tokenizer's own, which keeps its end token."""
        whole = self.encode(text)
        if len(whole) <= self.limit:
            return Fitted(whole, len(whole))
        cut = self.tokenizer(text, truncation=True, max_length=self.limit)["input_ids"]
        return Fitted(list(cut), len(whole))

    def _chat(self, last: str, earlier: Sequence[Mapping[str, str]]) -> list[int]:
        messages = [*(dict(each) for each in earlier), {"role": "user", "content": last}]
        system = self.spec.get("system") or self.options.get("system")
        if system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": str(system)})
        extra = self.options.get("chat_template_kwargs") or {}
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **extra)
        except Exception as error:
            raise ProviderError(
                f"the model's chat template refuses the messages: {error}"[:300], code="bad_prompt", failure="stop"
            ) from error
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ends_of(self, text: str) -> list[int]:
        """Where each token of the bare text ends, in characters; for a tokenizer without offsets, in equal steps."""
        if self.tokenizer.is_fast:
            found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            return [end for _, end in found["offset_mapping"]]
        count = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return [round(len(text) * (position + 1) / count) for position in range(count)]

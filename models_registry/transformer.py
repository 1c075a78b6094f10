"""A loaded `transformers` model that summarizes: the session behind the `huggingface` provider.

Precision and batching: in fp32 a packed batch gives the text of each row alone (tested); in bf16 and fp16 it may not.
Sampling draws with each request's own seed, one request at a time, so its text does not depend on its neighbours.
Latency of one example is its share of its batch's wall time, by tokens read and written: the shares of a batch add
up to the time it took. What one example would take alone is not measured.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models_registry.beam_caching import fold_beams
from models_registry.decoding import Architecture, Decoding, settle, wanted
from models_registry.encoding import Encoding
from models_registry.engines import Choice, choose
from models_registry.model_folder import window
from models_registry.packing import Budget, run_packed
from models_registry.providers import Output, ProviderError, Request, Spec
from models_registry.writing import Writer

CPU_BUDGET = 4096
GPU_BUDGET = 32768
"""Padded input tokens in a batch; spec["options"]["token_budget"] decides otherwise."""

MOST_ROWS = 64
"""Rows of a batch: what is written takes memory too, whatever the length of what is read."""

MOST_PADDING = 0.10
"""Of a batch's positions, where each costs as much as a token."""

DEFAULT_WINDOW = 1024
LONGEST_DOCUMENT = 4_000_000
"""Characters. A longer one is refused before it is tokenized."""

THINKING, THOUGHT = "<think>", "</think>"
POSITION_TABLES = ("embed_positions", "wpe", "position_embeddings")


@dataclass(frozen=True)
class Prepared:
    """One request as token ids."""

    key: int
    ids: tuple[int, ...]
    needed: int
    seed: int

    @property
    def length(self) -> int:
        return len(self.ids)


class TransformerSession:
    """`starting` is called with the keys of each batch before it runs; whoever hosts the session may set it."""

    starting: Callable[[list[int]], None]

    def __init__(self, spec: Spec) -> None:
        import torch

        self._torch = torch
        self._options: Mapping[str, Any] = spec.get("options") or {}
        self._spec = spec
        self.starting = lambda keys: None
        if threads := self._options.get("threads"):
            torch.set_num_threads(int(threads))
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._load(spec["path"])
        self._decoding = self._settle(spec)
        self._window, self._window_from = self._find_window(spec.get("window"))
        self._check_room()
        self._encoding = Encoding(
            self._tokenizer, spec, self._is_seq2seq, self.limit, self._decoding.prefix, self._options
        )
        self._budget = self._first_budget()
        self._facts = self._facts_of_loading()
        self._beams = self._fold_beams()
        self._engine = self._choose_engine()

    def _first_budget(self) -> Budget:
        on_cpu = self._device == "cpu"
        tokens = self._options.get("token_budget") or (CPU_BUDGET if on_cpu else GPU_BUDGET)
        # A GPU is quicker with one wide batch than with two narrow ones; documents are encoded unpadded on a CPU.
        padding = MOST_PADDING if on_cpu and not self._is_seq2seq else 1.0
        return Budget(int(tokens), rows=1 if self._decoding.samples else MOST_ROWS, padding=padding)

    # Loading

    def _load(self, path: str) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, utils

        quiet: Any = utils.logging
        quiet.disable_progress_bar()
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._config = AutoConfig.from_pretrained(path, **local)
            kind: Any = AutoModelForSeq2SeqLM if self._config.is_encoder_decoder else AutoModelForCausalLM
            model, report = kind.from_pretrained(
                path, **local, use_safetensors=True, output_loading_info=True, dtype=self._dtype()
            )
            self._tokenizer = AutoTokenizer.from_pretrained(path, **local)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise _stop("no_weights", f"the model cannot be loaded: {error}"[:600]) from error
        # A decoder-only class opens a BART folder without a word and fills the rest with random numbers.
        if missing := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
            raise _stop(
                "no_weights",
                f"the weights lack {len(missing)} tensors of this architecture ({', '.join(missing[:3])}): "
                "the folder is incomplete, or its config.json belongs to another model",
            )
        self._model = model.eval().to(self._device)
        self._prepare_tokenizer()

    def _dtype(self) -> Any:
        """The spec's precision; "auto" is fp32 on a CPU, bf16 on a GPU that has it, else fp16."""
        torch, named = self._torch, wanted(self._spec, "dtype")
        if named == "int8" or wanted(self._spec, "engine") == "ctranslate2":
            return torch.float32  # what is converted
        if named != "auto":
            return getattr(torch, named)
        if self._device == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16

    def _prepare_tokenizer(self) -> None:
        tokenizer = self._tokenizer
        tokenizer.truncation_side = "right"
        tokenizer.padding_side = "right" if self._is_seq2seq else "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    @property
    def _is_seq2seq(self) -> bool:
        return bool(self._config.is_encoder_decoder)

    @property
    def _architecture(self) -> Architecture:
        return "seq2seq" if self._is_seq2seq else "causal"

    def _settle(self, spec: Spec) -> Decoding:
        """Decoding parameters, set on the model as its only ones."""
        own = {name: value for name, value in self._model.generation_config.to_dict().items() if value is not None}
        published = (getattr(self._config, "task_specific_params", None) or {}).get("summarization") or {}
        if self._is_seq2seq and (prefix := getattr(self._config, "prefix", None)):
            published = {"prefix": prefix, **published}
        decoding = settle(spec.get("generation") or {}, {**own, **published}, self._architecture)
        if not decoding.prefix and spec.get("prefix"):
            decoding = Decoding(decoding.settings, str(spec["prefix"]))
        self._apply(decoding.settings, own)
        return decoding

    def _apply(self, settings: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        import transformers

        make: Any = transformers.GenerationConfig

        tokens = {
            name: value
            for name, value in own.items()
            if name.endswith(("_token_id", "_tokens")) and name not in settings and not name.startswith("num_")
        }
        tokens.setdefault("eos_token_id", self._tokenizer.eos_token_id)
        tokens["pad_token_id"] = own.get("pad_token_id", self._pad)
        try:
            config = make(**{**tokens, **settings})
            config.validate(strict=True)
        except (ValueError, TypeError) as error:
            raise _stop("bad_parameter", f"the generation parameters do not go together: {error}"[:600]) from error
        self._model.generation_config = self._generation_config = config
        ends = config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])

    # Engine

    def _fold_beams(self) -> str:
        """How beams are searched, for the record."""
        if not self._is_seq2seq or self._decoding.settings.get("num_beams", 1) < 2:
            return ""
        reason = fold_beams(self._model)
        return f"as transformers has it: {reason}" if reason else "one cross-attention cache per document"

    def _choose_engine(self) -> Choice:
        """With another engine than transformers the loaded weights are let go."""
        choice = choose(
            self._spec,
            Writer(self._model, pad=self._pad, ends=self._ends, device=self._device),
            self._decoding,
            device=self._device,
            threads=self._torch.get_num_threads(),
            encode=lambda text: self._encoding.encode(text)[: self.limit],
        )
        if choice.name != "transformers":
            self._model, self._beams = None, ""
            self._free()
        return choice

    # Window

    def _find_window(self, asked: int | None) -> tuple[int, str]:
        """Tokens read, and who says so. The entry may ask for more than the configuration says only where positions
        are computed; a table of positions ends where it ends."""
        text_config = self._config.get_text_config(decoder=not self._is_seq2seq).to_dict()
        own, said_by = window({**self._config.to_dict(), **text_config}, self._tokenizer.model_max_length)
        if asked and (own is None or asked <= own or not self._has_position_table()):
            return asked, "spec"
        if own is None:
            return DEFAULT_WINDOW, "default"
        return own, said_by

    def _has_position_table(self) -> bool:
        return any(name.rpartition(".")[2] in POSITION_TABLES for name, _ in self._model.named_modules())

    def _check_room(self) -> None:
        new, longest = self._decoding.max_new_tokens, self._window
        if self._is_seq2seq:
            own = self._config.to_dict()
            longest = own.get("max_decoder_position_embeddings") or own.get("max_position_embeddings") or new + 1
        if new >= longest:
            raise _stop(
                "bad_parameter", f"max_new_tokens={new} leaves no room in the model's {longest} positions: lower it"
            )

    # Requests to token ids

    @property
    def limit(self) -> int:
        """The most tokens that one request may take as input."""
        return self._window if self._is_seq2seq else self._window - self._decoding.max_new_tokens

    def count(self, request: Request) -> int:
        """Tokens that the whole input would take, prompt, prefix and template included."""
        return self._encoding.count(request)

    def _prepare(self, request: Request) -> Prepared | Output:
        if len(request.source) > LONGEST_DOCUMENT:
            return _refused(request, "input_too_long", f"the document has over {LONGEST_DOCUMENT:,} characters")
        fitted = self._encoding.fit(request)
        if fitted is None:
            return _refused(
                request,
                "input_too_long",
                f"the prompt alone does not fit in {self.limit} tokens: shorten it or lower max_new_tokens",
            )
        if not fitted.ids:
            return _refused(request, "empty_input", "there is nothing to read: the prompt and the document are empty")
        return Prepared(request.key, tuple(fitted.ids), fitted.needed, request.seed)

    # Generation

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Output]]:
        """Yield a batch at a time: first what cannot be run, then the longest documents."""
        prepared = [self._prepare(request) for request in requests]
        if refused := [each for each in prepared if isinstance(each, Output)]:
            yield refused
        yield from run_packed(
            [each for each in prepared if isinstance(each, Prepared)],
            self._budget,
            self._forward,
            starting=lambda keys: self.starting(keys),
            is_memory=self._is_memory,
            free=self._free,
        )

    def _forward(self, rows: Sequence[Prepared]) -> list[Output]:
        started = time.perf_counter()
        if self._decoding.samples:
            self._torch.manual_seed(rows[0].seed % 2**63)
        try:
            written = self._generate(rows)
        except Exception as error:
            if "CUDA error" in str(error) or type(error).__name__ == "AcceleratorError":
                # After a device-side assert every later call in this process fails.
                raise ProviderError(f"the GPU failed: {error}"[:300], code="device_error", failure="retry") from error
            raise
        spent = 1000 * (time.perf_counter() - started)
        tokens = sum(row.length for row in rows) + sum(len(ids) for ids in written)
        return [
            self._output(row, ids, round(spent * (row.length + len(ids)) / tokens))
            for row, ids in zip(rows, written, strict=True)
        ]

    def _generate(self, rows: Sequence[Prepared]) -> list[list[int]]:
        """New token ids of each row, up to and with its end token."""
        return self._engine.engine.write([row.ids for row in rows])

    def _output(self, row: Prepared, ids: list[int], latency_ms: int) -> Output:
        reasoning, text = self._read(ids, opened=self._opens_with_thought(row))
        return Output(
            row.key,
            "ok" if text else "empty",
            text=text,
            error_code="" if text else "empty_output",
            error="" if text else "the model wrote no text",
            reasoning=reasoning,
            finish_reason=self._finish(ids),
            input_tokens=row.needed,
            input_tokens_read=row.length,
            output_tokens=len(ids),
            latency_ms=latency_ms,
        )

    def _finish(self, ids: list[int]) -> str:
        """A forced end token in the last place is the limit speaking, not the model."""
        full = len(ids) >= self._decoding.max_new_tokens
        forced = self._generation_config.forced_eos_token_id is not None
        ended = bool(ids) and ids[-1] in self._ends
        return "stop" if ended and not (full and forced) else "length"

    def _opens_with_thought(self, row: Prepared) -> bool:
        """Some chat templates open the thought themselves."""
        return not self._is_seq2seq and self._decode(row.ids[-8:], special=True).rstrip().endswith(THINKING)

    def _read(self, ids: Sequence[int], *, opened: bool) -> tuple[str, str]:
        """Reasoning and answer. A thought that never ends leaves no answer."""
        marks = {THINKING, THOUGHT} & set(self._tokenizer.all_special_tokens)
        text = self._decode(ids, special=False)
        if marks:
            text = self._decode(ids, special=True)
            for token in set(self._tokenizer.all_special_tokens) - marks:
                text = text.replace(token, "")
        before, mark, after = text.rpartition(THOUGHT)
        if mark:
            return before.replace(THINKING, "", 1).strip(), after.strip()
        if opened or text.lstrip().startswith(THINKING):
            return text.replace(THINKING, "", 1).strip(), ""
        return "", text.strip()

    def _decode(self, ids: Sequence[int], *, special: bool) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=not special))

    def _is_memory(self, error: Exception) -> bool:
        return (
            isinstance(error, (MemoryError, self._torch.OutOfMemoryError))
            or "can't allocate memory" in str(error)
            or "not enough memory" in str(error)
        )

    def _free(self) -> None:
        gc.collect()
        if self._device == "cuda":
            self._torch.cuda.empty_cache()

    # Record

    def describe(self) -> dict[str, Any]:
        import transformers

        return {
            "architecture": self._architecture,
            "model_type": self._config.model_type,
            "revision": self._spec.get("revision") or "",
            **self._facts,
            **({"dtype": self._engine.dtype} if self._engine.dtype else {}),
            "device": self._torch.cuda.get_device_name() if self._device == "cuda" else "cpu",
            "threads": self._torch.get_num_threads(),
            "window": self._window,
            "window_from": self._window_from,
            "generation": dict(self._decoding.settings),
            "prefix": self._decoding.prefix,
            "reads": "prompt" if self._encoding.reads_prompt else "document",
            "chat_template": self._encoding.chats,
            "token_budget": self._budget.tokens,
            "latency": "share of the batch's wall time, by tokens read and written",
            "engine": self._engine.name,
            "engine_note": self._engine.note,
            "beam_search": self._beams,
            "versions": {
                "torch": self._torch.__version__,
                "transformers": transformers.__version__,
                **({self._engine.name: self._engine.version} if self._engine.version else {}),
            },
        }

    def _facts_of_loading(self) -> dict[str, Any]:
        """What only the loaded weights know."""
        return {"parameters": self._model.num_parameters(), "dtype": str(self._model.dtype).removeprefix("torch.")}

    def close(self) -> None:
        del self._engine
        self._model = None
        self._free()


def _refused(request: Request, code: str, message: str) -> Output:
    return Output(request.key, "error", error_code=code, error=message)


def _stop(code: str, message: str) -> ProviderError:
    return ProviderError(message, code=code, failure="stop")

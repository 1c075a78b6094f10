"""Tiny models with random weights and real tokenizers, made on the spot: under 1 MB and a second each.

Their texts mean nothing; their shapes, files and mistakes are those of the published architectures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = """the a of to in and for with on by river bridge harvest market teacher engine garden winter letter council
school train doctor harbour painter valley signal paper window summer report budget village forest museum library price
closed opened moved found built sold asked agreed planned failed grew fell rose began ended old new small large early
late quiet busy cheap safe broken first last next two three ten summarize summary document text user assistant system
: . , ! ?""".split()  # noqa: SIM905

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


def text(words: int, seed: int = 0) -> str:
    """A deterministic text of that many known words."""
    return " ".join(WORDS[(seed * 7 + position * position * 3 + position) % 70] for position in range(words))


def tiny_bart(path: Path, **settings: Any) -> Path:
    """A BART of two layers that reads 128 tokens."""
    from transformers import BartConfig, BartForConditionalGeneration

    shape: dict[str, Any] = {"max_position_embeddings": 128, **_seq2seq_shape(), "forced_eos_token_id": None}
    return _save(path, BartForConditionalGeneration, BartConfig(**{**shape, **settings}), end=True)


def tiny_t5(path: Path, **settings: Any) -> Path:
    """A T5 of two layers, window 128 by its tokenizer, whose configuration asks for the prefix "summarize : "."""
    from transformers import T5Config, T5ForConditionalGeneration

    shape: dict[str, Any] = {
        "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "pad_token_id": 0, "eos_token_id": 2,
        "decoder_start_token_id": 0, "task_specific_params": {"summarization": {"prefix": "summarize : "}},
    }  # fmt: skip
    return _save(path, T5ForConditionalGeneration, T5Config(**{**shape, **settings}), end=True, window=128)


def tiny_pegasus(path: Path, **settings: Any) -> Path:
    """A PEGASUS of two layers that reads 128 tokens; its positions are computed, its norms come first."""
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    shape: dict[str, Any] = {
        "max_position_embeddings": 128, "scale_embedding": True, **_seq2seq_shape(), "decoder_start_token_id": 0,
        "forced_eos_token_id": None,
    }  # fmt: skip
    return _save(path, PegasusForConditionalGeneration, PegasusConfig(**{**shape, **settings}), end=True)


def tiny_led(path: Path, **settings: Any) -> Path:
    """An LED of two layers that reads 256 tokens through windows of 16."""
    from transformers import LEDConfig, LEDForConditionalGeneration

    shape: dict[str, Any] = {
        "max_encoder_position_embeddings": 256, "max_decoder_position_embeddings": 128, "attention_window": [16, 16],
        **_seq2seq_shape(),
    }  # fmt: skip
    return _save(path, LEDForConditionalGeneration, LEDConfig(**{**shape, **settings}), end=True)


def tiny_llama(path: Path, **settings: Any) -> Path:
    """A Llama of two layers that reads 256 tokens, with a chat template and a pad token."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 0,
    }  # fmt: skip
    return _save(path, LlamaForCausalLM, LlamaConfig(**{**shape, **settings}), template=CHAT_TEMPLATE)


def tiny_gpt2(path: Path, **settings: Any) -> Path:
    """A GPT-2 of two layers that reads 256 tokens; no chat template, no pad token."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape: dict[str, Any] = {
        "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256, "bos_token_id": 2, "eos_token_id": 2
    }  # fmt: skip
    return _save(path, GPT2LMHeadModel, GPT2Config(**{**shape, **settings}), pad=False)


def _seq2seq_shape() -> dict[str, Any]:
    return {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
    }  # fmt: skip


def _save(
    path: Path,
    kind: Any,
    config: Any,
    *,
    end: bool = False,
    pad: bool = True,
    template: str | None = None,
    window: int | None = None,
) -> Path:
    """Random weights from a fixed seed, wide enough apart that greedy choices are no ties."""
    import torch

    tokenizer = _tokenizer(end=end, pad=pad, template=template, window=window)
    config.vocab_size = len(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        model = kind(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.4)
    model.generation_config.max_length = None
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _tokenizer(*, end: bool, pad: bool, template: str | None, window: int | None) -> Any:
    """Byte-pair encoding trained on the word list; `end` appends the end token as seq2seq tokenizers do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast
    bare = Tokenizer(models.BPE(unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bare.train_from_iterator(_corpus(), trainer)
    if end:
        bare.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer = make(
        tokenizer_object=bare,
        **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        **({"pad_token": "<pad>"} if pad else {}),
        **({"model_max_length": window} if window else {}),
    )
    tokenizer.chat_template = template
    return tokenizer


def _corpus() -> Iterator[str]:
    for word in WORDS:
        yield f"{word} {word} the {word}"

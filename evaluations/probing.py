"""Probing does the check of a model on a worker: load it (or reach its service), let it summarize one short text, and
tell how that went. The texts and the rows are those of `models_registry.trying`.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import InterfaceError, OperationalError

from evaluations import tasks
from evaluations.models import Candidate, Worker
from evaluations.warming import WarmModel, WarmModels
from models_registry import checking, choosing, trying
from models_registry.hosting import HostCancelled
from models_registry.models import ModelEntry
from models_registry.pricing import cost_micro
from models_registry.providers import Output, ProviderError, Request, available

log = logging.getLogger(__name__)
QUICKEST_LOAD = 0.05
"""Seconds. No process starts and loads a model within these: it was open already."""
PATIENCE = 30.0
"""Seconds. A first summary that took longer is not written a second time to time it warm."""
TOLD = ("window", "window_from", "dtype", "device", "engine", "parameters", "revision", "chat_template", "generation")
"""What a session's facts say that the report repeats."""


def probe(check_id: int, worker: str, models: WarmModels, stopping: Callable[[], bool]) -> None:
    """Do the check with this id, unless somebody else has it. Never raises for what the model does wrong."""
    check = trying.begin(check_id, worker)
    if check is None:
        return
    report: dict[str, Any] = {"problems": [], "notes": []}
    try:
        _try_it(check.entry, models, stopping, report)
    except HostCancelled:
        trying.give_back(check)
        return
    except ProviderError as exc:
        report["problems"].append(str(exc)[:2000])
    except (OperationalError, InterfaceError):
        raise
    except Exception as exc:
        log.exception("check %s failed", check.pk)
        report["problems"].append(f"internal error: {type(exc).__name__}; the worker's log has more")
    trying.end(check, report)


def mend() -> None:
    """Part of a sweep: checks whose worker is gone are asked for again."""
    trying.take_back(Worker.objects.alive().values_list("name", flat=True))


def _try_it(entry: ModelEntry, models: WarmModels, stopping: Callable[[], bool], report: dict[str, Any]) -> None:
    """Fill the report step by step, so that what was found before a failure is told, too."""
    seen = checking.look(entry)
    report["problems"], report["notes"] = seen.problems, seen.notes
    if seen.problems:
        return
    candidate = Candidate(
        provider=entry.provider.name,
        spec=choosing.freeze(entry, prompt=_prompt(entry)),
        connection=choosing.connection_for(entry.team, entry),
    )
    model = _open(candidate, models, stopping, report)
    outputs = _summarize(model, candidate, stopping, report)
    facts = model.describe()
    report |= {name: facts[name] for name in TOLD if facts.get(name) not in (None, "")}
    if isinstance(report.get("parameters"), dict):  # a service's session tells what it sends under this name
        report["generation"] = report.pop("parameters")
    report |= _memory(model)
    _tell(entry, outputs, report)


def _prompt(entry: ModelEntry) -> str:
    known = tasks.available()
    return known[next((name for name in entry.tasks if name in known), "summarization")].prompt


def _open(candidate: Candidate, models: WarmModels, stopping: Callable[[], bool], report: dict[str, Any]) -> WarmModel:
    """The model, open; fetching its files and loading them are timed apart."""
    provider = available()[candidate.provider]
    began = time.monotonic()
    provider.prepare(choosing.locate(candidate.spec), dict(os.environ))
    fetched = time.monotonic()
    model = models.get(candidate, stopping)
    loaded = time.monotonic()
    if provider.place != "host":
        return model
    if fetched - began > 1.0:
        report["seconds_to_fetch"] = round(fetched - began, 2)
    if loaded - fetched < QUICKEST_LOAD:
        report["notes"].append("It was loaded in this worker already, so loading it was not timed.")
    else:
        report["seconds_to_load"] = round(loaded - fetched, 2)
    return model


def _summarize(model: WarmModel, candidate: Candidate, stopping: Callable[[], bool], report: dict[str, Any]) -> Output:
    """One summary; a model that runs here writes a second, since the first also warms caches and kernels."""
    template = candidate.spec.get("prompt") or ""
    request = Request(
        key=1,
        source=trying.SAMPLE,
        prompt=tasks.render(template, trying.SAMPLE) if template else None,
        references=(trying.SAMPLE_REFERENCE,) if model.provider.uses_references else (),
    )
    took = 0.0
    for again in (False, True):
        if again and (model.host is None or took > PATIENCE):
            break
        began = time.monotonic()
        batches = model.generate([request], starting=lambda keys: None, cancelled=stopping)
        outputs = [output for batch in batches for output in batch]
        took = time.monotonic() - began
        if len(outputs) != 1:
            raise ProviderError(
                f"the provider gave {len(outputs)} outputs for one request", code="provider_bug", failure="final"
            )
    report["seconds_per_summary"] = round(took, 3)
    return outputs[0]


def _tell(entry: ModelEntry, output: Output, report: dict[str, Any]) -> None:
    """Put the output into the report's words and figures."""
    for name in ("input_tokens", "input_tokens_read", "output_tokens"):
        if (count := getattr(output, name)) is not None:
            report[name] = count
    seconds = report["seconds_per_summary"]
    if output.output_tokens and seconds:
        report["tokens_per_second"] = round(output.output_tokens / seconds, 1)
    cost = cost_micro(
        output.input_tokens, output.cached_tokens, output.output_tokens,
        entry.price_in, entry.price_out, entry.price_cached,
    )  # fmt: skip
    if cost is not None:
        report["cost_usd"] = cost / 1_000_000
    if output.status != "ok":
        report["problems"].append(f"it was asked for one summary and gave none: {output.error or output.status}")
        return
    report["summary"] = output.text[:2000]
    if output.finish_reason == "length":
        report["notes"].append(
            "Its summary was cut at max_new_tokens: raise that if whole sentences matter more than speed."
        )
    read, given = output.input_tokens_read, output.input_tokens
    if read is not None and given is not None and read < given:
        report["notes"].append(f"It read {read} of {given} tokens: its window is too small even for a short text.")


def _memory(model: WarmModel) -> dict[str, int]:
    """Peak memory of the model's own process, as the system counts it; nothing where it has none of its own."""
    pid = model.host.pid if model.host is not None else None
    if pid is None:
        return {}
    found = {"peak_memory_bytes": _peak(pid), "gpu_memory_bytes": _on_gpu(pid)}
    return {name: value for name, value in found.items() if value is not None}


def _peak(pid: int) -> int | None:
    """The largest resident set so far: VmHWM of proc(5), in kB. None where the system keeps no such file."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _on_gpu(pid: int) -> int | None:
    """What the driver says the process holds on GPUs now."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = [tool, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.replace(",", " ").split() for line in said.splitlines()]
    held = [int(row[1]) << 20 for row in rows if len(row) == 2 and row[0] == str(pid) and row[1].isdigit()]
    return sum(held) or None

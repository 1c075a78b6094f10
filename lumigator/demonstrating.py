"""Demonstrating runs the sample experiment: our own documents, baselines, and real neural models with real weights."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from django.conf import settings

from datasets_app.ingest import ingest_sample
from evaluations import planning, terminal
from evaluations.models import Experiment
from lumigator.laptop import prepare, workers_running
from models_registry import choosing
from models_registry.models import ModelEntry

BASELINES = ["baseline/lead-3", "baseline/textrank", "baseline/random-3", "baseline/oracle"]
HUB_MODEL = "Falconsai/text_summarization"
PROMPT = "Summarize this text in one or two short sentences.\n\n{document}"


def demonstrate(*, sample: int | None = None) -> tuple[int, Experiment]:
    """Run it to its end and print the comparison: (exit status, experiment)."""
    team, owner = prepare()
    dataset = ingest_sample(team, owner)
    print(f"{dataset.n_examples} documents of our own, {dataset.n_with_reference} with a reference summary.")
    models: list[Any] = list(BASELINES)
    models.append(packaged_model(team).slug)
    if hub_answers():
        models.append(HUB_MODEL)
    else:
        print(f"The model hub does not answer, so {HUB_MODEL} is left out; everything else runs without it.")
    experiment = planning.create(
        team=team,
        user=owner,
        data={
            "name": "Which model summarizes workplace texts best?",
            "dataset": dataset,
            "models": models,
            "prompt": PROMPT,
            "sample": {"n": sample, "seed": 0},
        },
    )
    return terminal.run(experiment, workers_running), experiment


def packaged_model(team: Any) -> ModelEntry:
    """SmolLM2-135M-Instruct, whose weights come in a Python package, as a safetensors folder under LUMIGATOR_HOME."""
    from models_registry.demo_weights import smollm2_folder

    target = Path(settings.HOME) / "models" / "SmolLM2-135M-Instruct"
    if not target.exists():
        print("Converting the packaged SmolLM2-135M weights to a safetensors folder (once) …")
    folder = smollm2_folder(target)
    entry = choosing.register_folder(team, folder)
    wanted = {
        "name": "SmolLM2-135M-Instruct",
        "slug": "local/SmolLM2-135M-Instruct",
        "about": "A small instruction-following model with real weights; imperfect, which suits a demo of evaluation.",
        "generation": {"max_new_tokens": 64},
        "licence": "Apache-2.0",
        "parameters": 134_515_008,
        "window": 2048,
    }
    ModelEntry.objects.filter(pk=entry.pk).update(**wanted)
    entry.refresh_from_db()
    return entry


def hub_answers(seconds: float = 3.0) -> bool:
    """Whether the model hub can be reached at all: one connection attempt, no retries, unless offline was asked for."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").split("://")[-1].split("/")[0]
    name, _, port = host.partition(":")
    try:
        with socket.create_connection((name, int(port or 443)), timeout=seconds):
            return True
    except OSError:
        return False

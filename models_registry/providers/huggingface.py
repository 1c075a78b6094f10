"""Local models in the Hugging Face format: seq2seq (BART, T5, LED, …) and causal (Llama, Qwen, …).

Weights come from a safetensors folder under a registered root (`file://root-id/path`) or from the hub at a pinned
commit (`hf://org/name@revision`). No code of a model's author is ever run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models_registry import hub, shortening
from models_registry.decoding import engine_problems, parameter_problems
from models_registry.model_folder import digest, folder_problems
from models_registry.providers import Access, Provider, ProviderError, Session, Spec
from models_registry.translating import cache_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def prepare(spec: Spec, environment: Mapping[str, str]) -> Spec:
    """The spec with `path` and `revision` settled: the hub's commit, or the sha256 of a local folder's files; and with
    `cache`, the folder of this machine where conversions are kept.

    `environment` may hold HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT, HF_HOME and LUMIGATOR_HOME. Raises ProviderError with
    failure "stop" and code hub_unreachable, gated, unknown_model, no_weights, weights_changed or bad_spec.
    """
    uri = str(spec.get("uri", ""))
    if uri.startswith("hf://"):
        repository, revision = hub.parse(uri)
        snapshot = hub.fetch(repository, _commit_of(spec) or revision, environment)
        settled = {**spec, "path": str(snapshot.folder), "revision": snapshot.commit}
    else:
        settled = {**spec, "revision": _unchanged(spec)}
    _refuse(folder_problems(Path(settled["path"])), code="no_weights")
    return {**settled, "cache": str(cache_folder(environment))}


def _commit_of(spec: Spec) -> str:
    """The frozen commit wins over a branch, so a rerun reads what the first run read."""
    revision = str(spec.get("revision") or "")
    return revision if _COMMIT.fullmatch(revision) else ""


def _unchanged(spec: Spec) -> str:
    """The folder's digest. Raises ProviderError(code="weights_changed") when the spec froze another."""
    path = spec.get("path")
    if not isinstance(path, str) or not os.path.isabs(path):
        raise ProviderError("a local model needs the absolute path of its folder", code="bad_spec", failure="stop")
    _refuse(folder_problems(Path(path)), code="no_weights")
    found = digest(Path(path))
    frozen = str(spec.get("revision") or "")
    if _DIGEST.fullmatch(frozen) and frozen != found:
        raise ProviderError(
            "the model's files have changed since this candidate was frozen: start a new experiment with them",
            code="weights_changed",
            failure="stop",
        )
    return found


def problems(spec: Spec) -> list[str]:
    """What is wrong with this spec, without loading anything or using the network."""
    return [*_address_problems(spec), *_option_problems(spec), *_path_problems(spec)]


def _address_problems(spec: Spec) -> list[str]:
    uri = spec.get("uri")
    if not isinstance(uri, str) or not uri.startswith(("hf://", "file://")):
        return ["the address must read hf://org/name@revision or file://root/folder"]
    try:
        if uri.startswith("hf://"):
            hub.parse(uri)
    except ProviderError as error:
        return [str(error)]
    return []


def _option_problems(spec: Spec) -> list[str]:
    architecture: Any = spec.get("architecture")
    known = architecture if architecture in ("seq2seq", "causal") else None
    found = parameter_problems(spec.get("generation"), known)
    found += engine_problems(spec)
    size = spec.get("window")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        found.append("window must be a whole number of tokens, or absent")
    if not isinstance(spec.get("options") or {}, Mapping):
        found.append("options must be a table")
    found += shortening.problems(spec, "host")
    return found


def _path_problems(spec: Spec) -> list[str]:
    path = spec.get("path")
    if not path:
        return []
    if not isinstance(path, str) or "\0" in path or not os.path.isabs(path):
        return ["path must be the absolute path of a folder"]
    return folder_problems(Path(path))


def open(spec: Spec, access: Access) -> Session:
    """Load the model and its tokenizer from spec["path"]. Raises ProviderError with failure "stop"."""
    _refuse(_option_problems(spec), code="bad_parameter")
    path = spec.get("path")
    if not path:
        raise ProviderError("no folder to load from: prepare the spec first", code="bad_spec", failure="stop")
    _refuse(_path_problems(spec), code="no_weights")
    from models_registry.transformer import TransformerSession

    return shortening.shortened(TransformerSession(spec), spec)


def _refuse(found: Sequence[str], *, code: str) -> None:
    if found:
        raise ProviderError("; ".join(found), code=code, failure="stop")


provider = Provider(
    name="huggingface",
    label="Local model",
    about=(
        "Runs a seq2seq or causal model from a safetensors folder or a pinned commit of the Hugging Face hub, on "
        "this machine. Greedy in fp32 on a CPU and bf16 on a GPU unless the entry says otherwise; the same text "
        "whatever it was batched with when in fp32."
    ),
    schemes=("hf", "file"),
    place="host",
    queue="gpu",
    open=open,
    prepare=prepare,
    problems=problems,
    uses_prompt=True,
)

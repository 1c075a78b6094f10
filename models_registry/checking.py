"""Checking says in words whether a model could run, by looking and never by loading (that is what `trying` is for).

A local folder is looked into; a hub model is looked for in this machine's cache, then asked for at the hub; a network
model is checked for a connection with an address, a key and a price. No document leaves, and no paid call is made.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from django.conf import settings

from models_registry import choosing, hub
from models_registry.model_folder import folder_problems, read_json, window
from models_registry.models import ModelEntry
from models_registry.providers import ProviderError

HUB = "https://huggingface.co"
COMMIT = re.compile(r"[0-9a-f]{40}")
BYTES_OF = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "F8_E4M3": 1, "I8": 1, "U8": 1}


@dataclass
class Check:
    """What was found: `problems` are in the way of a run, each with its cure; `notes` are worth knowing."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def can_run(self) -> bool:
        return not self.problems


def look(entry: ModelEntry, environment: Mapping[str, str] | None = None, *, weights: bool = True) -> Check:
    """Look at everything that can be looked at without loading, whatever the state of the entry. Never raises
    ProviderError.

    `environment` may hold HF_ENDPOINT, HF_TOKEN (this process's own by default). Without `weights` nothing is said
    of weights of the hub: another machine will load them.
    """
    environment = os.environ if environment is None else environment
    found = Check()
    ready = choosing.able(entry) if weights else None
    if ready is not None and not ready.can_run and ready.label != "too big":  # an estimate: loading will tell
        found.problems.append(ready.words)
    try:
        provider = entry.provider
        found.problems += provider.problems(choosing.locate(choosing.freeze(entry)))
    except ProviderError as exc:
        found.problems.append(str(exc))
    else:
        if provider.place == "inline":
            found.notes.append("It runs in the worker itself and needs no weights, key or network.")
        elif provider.place == "network":
            _look_at_connection(entry, found)
        elif entry.scheme == "hf" and weights:
            _look_for_weights(entry, found, environment)
        elif entry.scheme == "file":
            _look_into_folder(entry, found)
    found.problems = list(dict.fromkeys(found.problems))
    return found


def _look_at_connection(entry: ModelEntry, found: Check) -> None:
    connection = choosing.connection_for(entry.team, entry)
    if connection is None:
        return
    host = urlsplit(connection.base_url).hostname or "the provider's own address"
    key = f"a key ending in {connection.key_hint}" if connection.key_hint else "a key"
    found.notes.append(
        f"Documents go to {host} through the connection {connection.name!r}, {key if connection.has_key else 'no key'}."
    )
    try:
        connection.reveal_key()
    except ValueError as exc:
        found.problems.append(str(exc))
    if entry.price_in is None:
        found.notes.append("It has no price, so no cost is shown and no budget can be kept: enter its price.")


def _look_into_folder(entry: ModelEntry, found: Check) -> None:
    try:
        folder = choosing.folder_of(entry.uri)
    except ProviderError:
        return  # already among the problems
    config, problem = read_json(folder / "config.json")
    if problem:
        return
    reads, setting = window(config)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    found.notes.append(
        f"The folder holds a {str(config.get('model_type', 'model'))[:60]}, {size / 1e9:.2f} GB of weights."
    )
    if reads:
        found.notes.append(f"It reads {reads:,} tokens ({setting}).")
    kind = choosing.architecture_of(folder)
    if kind != entry.architecture:
        found.problems.append(
            f"the entry says {entry.architecture}, but its config.json says {kind}: add the model again"
        )


def _look_for_weights(entry: ModelEntry, found: Check, environment: Mapping[str, str]) -> None:
    if folder := choosing.snapshot_of(entry):
        found.problems += folder_problems(folder)
        found.notes.append(f"Its weights are in this machine's cache, at commit {folder.name}.")
    elif not choosing.is_offline():
        _ask_hub(entry, found, environment)


def _ask_hub(entry: ModelEntry, found: Check, environment: Mapping[str, str]) -> None:
    try:
        told = ask_hub(entry.uri, entry.revision, environment)
    except ProviderError:
        return  # already among the problems
    found.problems += told.problems
    if told.is_gated and not environment.get("HF_TOKEN"):
        found.problems.append(f"{entry.uri} is gated: accept its terms on the hub, then set HF_TOKEN for the workers")
    if told.commit:
        found.notes.append(f"The hub has it, at commit {told.commit}; it is downloaded when it first runs.")


@dataclass
class Hub:
    """What the hub told of a repository. `is_known` False: it was not asked, or gave no answer that decides anything;
    then `problems` say why. The rest is "" or None where it did not tell."""

    is_known: bool = False
    is_gated: bool = False
    problems: list[str] = field(default_factory=list)
    commit: str = ""
    architecture: str = ""
    parameters: int | None = None
    size_bytes: int | None = None
    licence: str = ""


def ask_hub(uri: str, revision: str, environment: Mapping[str, str] | None = None) -> Hub:
    """One GET of the model's facts (source: huggingface.co/docs/hub/api, `GET /api/models/{repo_id}`). Raises
    ProviderError for what is no hub address."""
    environment = os.environ if environment is None else environment
    repository, named = hub.parse(uri)
    revision = revision or named
    told = Hub()
    status, facts = _get(_facts_address(repository, revision, environment), environment, told)
    if status is None:
        return told
    told.is_known = status < 500 and status != 429
    if status in (401, 403):
        told.problems.append(f"the hub refuses {repository}: it does not exist, or it is private and needs HF_TOKEN")
    elif status == 404:
        at = f" at revision {revision!r}" if revision else ""
        told.problems.append(f"the hub has no model {repository}{at}: check the address")
    elif status in (301, 302, 307, 308):
        told.problems.append(f"{repository} has another name on the hub now: add it under that name")
    elif status != 200 or facts is None:
        told.is_known = False
        told.problems.append(f"the hub answered {status} for {repository}: try again later")
    else:
        _judge_facts(repository, facts, told)
    return told


def _facts_address(repository: str, revision: str, environment: Mapping[str, str]) -> str:
    base = (environment.get("HF_ENDPOINT") or HUB).rstrip("/")
    return f"{base}/api/models/{repository}" + (f"/revision/{quote(revision, safe='')}" if revision else "")


def _get(url: str, environment: Mapping[str, str], found: Hub) -> tuple[int | None, dict[str, Any] | None]:
    """(status, the JSON object); (None, None) with a problem added when the hub could not be asked."""
    import httpx2

    from lumigator import egress

    token = environment.get("HF_TOKEN", "").strip()
    headers = {"Authorization": f"Bearer {token}"} if token.isascii() and token.isprintable() and token else {}
    try:
        client = egress.client(allow=settings.EGRESS_ALLOW, connect_timeout=5, read_timeout=10, total_timeout=15)
        with client:
            answer = client.get(url, headers=headers)
    except (egress.EgressRefused, ValueError) as exc:  # ValueError: a malformed entry of LUMIGATOR_EGRESS_ALLOW
        found.problems.append(f"the hub may not be asked from here: {exc}")
        return None, None
    except httpx2.HTTPError as exc:
        found.problems.append(
            f"the hub could not be reached ({type(exc).__name__}): check the network, or register a local folder"
        )
        return None, None
    return answer.status_code, _object_in(answer.content)


def _object_in(body: bytes) -> dict[str, Any] | None:
    try:
        facts = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def _judge_facts(repository: str, facts: dict[str, Any], told: Hub) -> None:
    files = [str(file.get("rfilename", "")) for file in facts.get("siblings") or () if isinstance(file, dict)]
    if not any(name.endswith(".safetensors") for name in files):
        told.problems.append(
            f"{repository} has no safetensors weights (pickled ones can run code when opened): choose a revision or a "
            "model that has them"
        )
    config = _table(facts.get("config"))
    tags = [tag for tag in facts.get("tags") or () if isinstance(tag, str)]
    if config.get("auto_map") or "custom_code" in tags:
        told.problems.append(
            f"{repository} asks for code from its author, which is never run here: choose a model without it"
        )
    told.is_gated = bool(facts.get("gated"))
    commit = str(facts.get("sha") or "")
    told.commit = commit if COMMIT.fullmatch(commit) else ""
    told.architecture, problem = _architecture(repository, config, facts.get("pipeline_tag"))
    told.problems += [problem] if problem else []
    told.licence = _licence(_table(facts.get("cardData")), tags)
    told.parameters, told.size_bytes = _size(_table(facts.get("safetensors")))


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _architecture(repository: str, config: Mapping[str, Any], purpose: Any) -> tuple[str, str]:
    """(seq2seq, causal or "" for not known; what is wrong, in words)"""
    named = [str(each) for each in config.get("architectures") or () if isinstance(each, str)]
    if any(name.endswith(("ForConditionalGeneration", "ForSeq2SeqLM")) for name in named):
        return "seq2seq", ""
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named):
        return "causal", ""
    if named:
        return "", f"{repository} is a {named[0][:80]}, which writes no text: choose a seq2seq or causal model"
    return {"summarization": "seq2seq", "text2text-generation": "seq2seq", "text-generation": "causal"}.get(
        str(purpose), ""
    ), ""


def _licence(card: Mapping[str, Any], tags: list[str]) -> str:
    named = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    said = card.get("license")
    return (said if isinstance(said, str) else named[0] if named else "")[:80]


def _size(weights: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(parameters, bytes) as the hub read them from the safetensors headers: {"parameters": {"BF16": n}, "total": n}"""
    counts = {kind: n for kind, n in _table(weights.get("parameters")).items() if isinstance(n, int) and n > 0}
    if not counts:
        return None, None
    known = all(kind in BYTES_OF for kind in counts)
    return sum(counts.values()), sum(n * BYTES_OF[kind] for kind, n in counts.items()) if known else None

"""Reusing finds outputs that the team already has: the same model, prompt, parameters, document and seed.

Nothing is generated or billed twice. A reused output keeps the tokens, the time and the price of the run that made
it, so that a comparison says what such outputs cost; no call is made for it and no budget is touched. It can be
switched off for an experiment (`reuse_outputs`), to measure time afresh, say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from evaluations import leasing
from evaluations.leasing import Lease
from evaluations.models import Candidate, Generation
from evaluations.warming import WarmModel
from models_registry.providers import Request

WITHOUT_EFFECT = ("price", "privacy", "parameters", "licence", "prompt", "prompt_version", "path")
"""What a spec says beside what decides an output. The prompt is in each request, with the document in it."""
OPENED = ("revision", "dtype", "engine", "weights")
"""Facts that are only known of an opened model and decide what it writes."""
COPIED = (
    "status", "text", "reasoning", "finish_reason", "input_tokens", "input_tokens_read", "cached_tokens",
    "output_tokens", "latency_ms", "cost_micro", "cache_key",
)  # fmt: skip

Keys = dict[int, str]
"""{request key: cache key}; empty where outputs are not kept for reuse."""


def keys_of(candidate: Candidate, model: WarmModel, requests: Sequence[Request]) -> Keys:
    """The cache key of every request: SHA-256 of all that decides its output. Baselines have none: they are cheaper
    to compute than to look up."""
    if model.provider.place == "inline" or not candidate.experiment.reuse_outputs:
        return {}
    connection = candidate.connection
    decides: dict[str, Any] = {
        "provider": candidate.provider,
        "spec": {name: value for name, value in candidate.spec.items() if name not in WITHOUT_EFFECT},
        "opened": {name: value for name, value in model.describe().items() if name in OPENED},
        "address": connection.base_url if connection else "",
    }
    common = sha256(json.dumps(decides, sort_keys=True, default=str).encode())
    return {request.key: _key(common.hexdigest(), request) for request in requests}


def _key(common: str, request: Request) -> str:
    document = None if request.prompt else request.source
    asked: list[Any] = [common, request.prompt, document, request.seed, list(request.references)]
    return sha256(json.dumps(asked).encode()).hexdigest()


def reuse(lease: Lease, candidate: Candidate, keys: Mapping[int, str], requests: Sequence[Request]) -> list[Request]:
    """Record the outputs that are already there, under the lease's fence; the requests that are left. Raises Fenced."""
    if not keys:
        return list(requests)
    earlier = Generation.objects.filter(
        cache_key__in=list(keys.values()),
        status=Generation.Status.OK,
        candidate__experiment__team=candidate.experiment.team_id,
    )
    known = {each.cache_key: each for each in earlier.order_by("-id")}  # the first made, whatever was reused since
    found = [request for request in requests if keys[request.key] in known]
    if found:
        leasing.record_outcomes(lease, [_copy(known[keys[each.key]], candidate, each.key) for each in found])
    return [request for request in requests if keys[request.key] not in known]


def _copy(made: Generation, candidate: Candidate, example: int) -> Generation:
    facts = {name: getattr(made, name) for name in COPIED}
    return Generation(candidate=candidate, example_id=example, reused=True, **facts)

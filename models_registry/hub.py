"""Fetch a model from the Hugging Face hub: safetensors and plain text files only, at one commit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models_registry.model_folder import folder_problems
from models_registry.providers import ProviderError

PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.jinja")
"""*.jinja is where chat templates live since transformers 4.51."""
PATIENCE = 10.0
"""Seconds for the hub's first answer."""

_URI = re.compile(r"hf://([A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?)(?:@([\w./-]{1,200}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """A repository at a commit, on this disk."""

    folder: Path
    commit: str


def parse(uri: str) -> tuple[str, str]:
    """Repository and revision ("" for the default branch). Raises ProviderError(code="unknown_model")."""
    found = _URI.fullmatch(uri)
    if not found or ".." in uri:
        raise _stop("unknown_model", f"{uri[:200]!r} is no hub address: write hf://org/name@revision")
    return found.group(1), found.group(2) or ""


def fetch(repository: str, revision: str, environment: Mapping[str, str]) -> Snapshot:
    """The snapshot, from the cache when it is whole there, else downloaded.

    Raises ProviderError, failure "stop", with code hub_unreachable, gated, unknown_model or no_weights.
    """
    if cached := _cached(repository, revision, environment):
        return cached
    if _is_offline(environment):
        raise _stop(
            "hub_unreachable",
            f"{repository} is not in the cache and HF_HUB_OFFLINE is set: "
            "download it once with the network on, or register a local folder",
        )
    from huggingface_hub import HfApi, snapshot_download

    endpoint, token = environment.get("HF_ENDPOINT") or None, environment.get("HF_TOKEN") or False
    try:
        # With a time limit and without the client's retries, an unreachable hub costs seconds, not half a minute.
        info = HfApi(endpoint=endpoint, token=token).model_info(repository, revision=revision or None, timeout=PATIENCE)
        _require_weights(repository, [file.rfilename for file in info.siblings or ()])
        folder = snapshot_download(
            repository,
            revision=info.sha,
            endpoint=endpoint,
            token=token,
            cache_dir=_cache(environment),
            allow_patterns=list(PATTERNS),
        )
    except ProviderError:
        raise
    except Exception as error:
        raise _in_words(repository, revision, error) from error
    return Snapshot(Path(folder), str(info.sha))


def _cached(repository: str, revision: str, environment: Mapping[str, str]) -> Snapshot | None:
    """A whole snapshot in the cache; of a branch only when offline, for the branch may have moved."""
    if not _COMMIT.fullmatch(revision) and not _is_offline(environment):
        return None
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                repository, revision=revision or None, cache_dir=_cache(environment), local_files_only=True,
                allow_patterns=list(PATTERNS),
            )
        )  # fmt: skip
    except (OSError, ValueError):
        return None
    return None if folder_problems(folder) else Snapshot(folder, folder.name)


def _require_weights(repository: str, files: list[str]) -> None:
    if not any(name.endswith(".safetensors") for name in files):
        raise _stop(
            "no_weights",
            f"{repository} has no safetensors weights (pickled ones can run code when opened): "
            "choose a revision or a model that has them",
        )


def _in_words(repository: str, revision: str, error: Exception) -> ProviderError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return _stop(
            "gated", f"{repository} is gated: accept its licence on the hub, then set HF_TOKEN for the workers"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return _stop("unknown_model", f"{repository} has no revision {revision!r}: use a commit, tag or branch it has")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return _stop(
            "unknown_model",
            f"the hub has no model {repository}: check its name; for a private one set HF_TOKEN for the workers",
        )
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return _stop("gated", f"the hub refused {repository} ({status}): set a valid HF_TOKEN for the workers")
    return _stop(
        "hub_unreachable",
        f"the hub could not be reached for {repository} ({type(error).__name__}): "
        "check the network, or register a local folder",
    )


def _cache(environment: Mapping[str, str]) -> str | None:
    """The cache folder the environment names; None for the client's default."""
    if named := environment.get("HF_HUB_CACHE"):
        return named
    home = environment.get("HF_HOME")
    return str(Path(home) / "hub") if home else None


def _is_offline(environment: Mapping[str, str]) -> bool:
    value = environment.get("HF_HUB_OFFLINE") or os.environ.get("HF_HUB_OFFLINE") or ""
    return value.strip().upper() in ("1", "ON", "YES", "TRUE")


def _stop(code: str, message: str) -> ProviderError:
    return ProviderError(message, code=code, failure="stop")

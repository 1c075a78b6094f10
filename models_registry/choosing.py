"""Choosing a model: from a name or an address to an entry, from an entry to the frozen spec of a candidate."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings

from lumigator.models import Team
from models_registry import curating, sizing
from models_registry.model_folder import read_json
from models_registry.models import Connection, ModelCheck, ModelEntry, ModelRoot
from models_registry.providers import ProviderError, available, serving

LOCAL_SCHEMES = ("hf", "file", "baseline", "oracle", "import", "fake", "fakehost")
HIDDEN_SCHEMES = ("fake", "fakehost", "import")
OLDER_PREFIXES = {"oai://": "openai://", "llamafile://": "endpoint://llamafile/"}
"""Addresses as older guides write them, and as we do."""

LONGEST = 400
_COMMIT = re.compile(r"[0-9a-f]{40}")


def shown_schemes() -> list[str]:
    """The schemes that people choose among: without those of tests, and of outputs made elsewhere."""
    return [each for one in available().values() for each in one.schemes if each not in HIDDEN_SCHEMES]


def resolve(team: Team, text: str) -> ModelEntry:
    """The team's registry entry with this slug, or an unsaved entry for a URI. Raises ProviderError otherwise.

    A URI that the registry already has (`hf://org/name`) gives that entry, with its defaults and its price; the same
    at a revision (`hf://org/name@commit`) gives an unsaved copy of it.
    """
    text = text.strip()
    if len(text) > LONGEST or "\0" in text:
        raise _unknown(f"this is no model's name or address: {text[:60]!r}")
    uri = _current_address(text)
    entries = ModelEntry.objects.filter(team=team)
    if entry := entries.filter(slug=text).first() or entries.filter(uri=uri).order_by("-enabled", "id").first():
        if not entry.is_usable:
            words = curating.look(entry).words
            raise ProviderError(f"the model {text!r} cannot be chosen: {words}", code=entry.state, failure="stop")
        return entry
    if "://" in uri:
        return _at_revision(team, uri) or entry_of_uri(team, uri)
    known = list(entries.filter(enabled=True).values_list("slug", flat=True)[:500])
    near = ", ".join(get_close_matches(text, known, n=5, cutoff=0.5) or known[:8])
    raise _unknown(
        f"there is no model {text!r}: give a slug of the registry{f' ({near}, …)' if near else ''} or a URI such as "
        "hf://org/name, file://root/folder, openai://name, endpoint://connection/name or baseline://lead-3"
    )


def _unknown(message: str) -> ProviderError:
    return ProviderError(message, code="unknown_model", failure="stop")


def _current_address(text: str) -> str:
    for old, new in OLDER_PREFIXES.items():
        if text.startswith(old):
            return new + text.removeprefix(old)
    return text


def _at_revision(team: Team, uri: str) -> ModelEntry | None:
    """An unsaved copy of the entry of the same hub repository, at the revision that `uri` names."""
    bare, at, _ = uri.partition("@")
    if not (at and uri.startswith("hf://")):
        return None
    entry = ModelEntry.objects.filter(team=team, uri=bare, enabled=True).order_by("id").first()
    if entry is not None:
        entry.pk, entry.slug, entry.uri, entry.revision = None, uri.removeprefix("hf://"), uri, ""
        entry._state.adding, entry.from_catalogue = True, False
    return entry


def entry_of_uri(team: Team, uri: str) -> ModelEntry:
    """An unsaved entry for an address, with all that the address alone says. Raises ProviderError when nobody serves
    its scheme or it names no model.

    `architecture` is "" for weights that are not on this machine: it is settled when they are loaded.
    """
    scheme, _, rest = uri.partition("://")
    provider = serving(scheme)
    if not rest and scheme != "import":
        raise _unknown(f"{uri!r} names no model after {scheme}://")
    if scheme in LOCAL_SCHEMES:
        privacy = ModelEntry.Privacy.LOCAL
    else:
        privacy = ModelEntry.Privacy.PRIVATE if scheme == "endpoint" else ModelEntry.Privacy.EXTERNAL
    entry = ModelEntry(
        team=team,
        slug=rest or scheme,
        name=rest or scheme,
        uri=uri,
        privacy=privacy,
        is_baseline=scheme in ("baseline", "oracle"),
    )
    by_place = {"inline": "extractive", "network": "causal"}
    entry.architecture = "imported" if scheme == "import" else by_place.get(provider.place) or _architecture_here(entry)
    return entry


def _architecture_here(entry: ModelEntry) -> str:
    """The architecture of weights that lie on this machine; "" when they do not."""
    folder = snapshot_of(entry) if entry.scheme == "hf" else None
    if entry.scheme == "file":
        folder = folder_of(entry.uri)
    return architecture_of(folder) if folder else ""


def connection_for(team: Team, entry: ModelEntry) -> Connection | None:
    """The connection that a network model is reached by; None for models that run here."""
    if entry.provider.place != "network":
        return None
    return _pick(_connections_of(team), entry)


def _connections_of(team: Team) -> list[Connection]:
    return list(Connection.objects.filter(team=team, enabled=True).order_by("id"))


def _pick(connections: Iterable[Connection], entry: ModelEntry) -> Connection | None:
    """The oldest that fits; one that has a key before one that has none."""
    name = endpoint_of(entry)
    fits = [each for each in connections if each.provider == entry.scheme and name in ("", each.name)]
    return min(fits, key=lambda each: (not each.has_key, each.pk), default=None)


def endpoint_of(entry: ModelEntry) -> str:
    """The connection that `endpoint://connection/name` names; "" for other schemes, which take any of theirs."""
    return entry.uri.partition("://")[2].partition("/")[0] if entry.scheme == "endpoint" else ""


@dataclass(frozen=True)
class Readiness:
    """Whether a model can run here and now. `label` is two or three words for a table, `words` the whole sentence
    (with the cure), `tone` one of the tones of a state."""

    can_run: bool
    label: str
    words: str = ""
    tone: str = "good"


def why_not(entry: ModelEntry) -> str:
    """Why this model cannot run here and now, in words; empty when nothing is known to be in its way.

    For many entries `readiness_of_all` asks the database once.
    """
    found = readiness(entry)
    return "" if found.can_run else found.words


def readiness_of_all(team: Team, entries: Iterable[ModelEntry]) -> list[Readiness]:
    """The readiness of each entry of the team, in their order, with three queries however many there are."""
    connections, roots = _connections_of(team), model_roots()
    worked = set(ModelCheck.objects.filter(entry__team=team, state="done").values_list("entry_id", flat=True))
    return [readiness(entry, connections=connections, roots=roots, worked=worked) for entry in entries]


def readiness(
    entry: ModelEntry,
    *,
    connections: Sequence[Connection] | None = None,
    roots: Mapping[str, Path] | None = None,
    worked: Container[int] | None = None,
) -> Readiness:
    """Whether the entry can run, as far as that can be known without loading it or using the network.

    `connections` are the team's enabled ones, `roots` those of `model_roots` and `worked` the ids of the entries that
    a check has found to work; they are read when not given.
    """
    no = partial(Readiness, False)
    if entry.pk and not entry.is_usable:
        state = curating.look(entry)
        return no(state.label.lower(), state.words, "calm")
    return able(entry, connections=connections, roots=roots, worked=worked)


def able(
    entry: ModelEntry,
    *,
    connections: Sequence[Connection] | None = None,
    roots: Mapping[str, Path] | None = None,
    worked: Container[int] | None = None,
) -> Readiness:
    """As `readiness`, whatever the state of the entry: what a check asks of a draft."""
    no = partial(Readiness, False)
    try:
        provider = entry.provider
    except ProviderError as exc:
        return no("no provider", str(exc), "bad")
    if provider.place == "network":
        return _network_readiness(entry, _connections_of(entry.team) if connections is None else connections)
    if entry.scheme == "hf" and not (found := _hub_readiness(entry)).can_run:
        return found
    if entry.scheme == "file":
        try:
            folder_of(entry.uri, roots)
        except ProviderError as exc:
            return no("no folder", str(exc), "bad")
    if (words := sizing.too_big(entry)) and not _has_worked(entry, worked):
        return no("too big", words, "warn")
    return found if entry.scheme == "hf" else Readiness(True, "ready")


def _has_worked(entry: ModelEntry, worked: Container[int] | None) -> bool:
    """Whether a check has loaded it: the proof that it fits somewhere."""
    if worked is not None:
        return entry.pk in worked
    return bool(entry.pk) and entry.checks.filter(state="done").exists()


def _network_readiness(entry: ModelEntry, connections: Sequence[Connection]) -> Readiness:
    no = partial(Readiness, False, tone="warn")
    connection, name = _pick(connections, entry), endpoint_of(entry)
    if connection is None:
        called = f" called {name!r}" if name else ""
        with_ = "with its address" if name else "with its key"
        return no(
            "no connection",
            f"there is no connection for {entry.scheme}{called}: an administrator adds one, {with_}, under Models",
        )
    if not connection.has_key and entry.scheme != "endpoint":
        return no("no key", f"the connection {connection.name!r} has no key: an administrator enters it under Models")
    if entry.scheme == "endpoint" and not connection.base_url:
        return no(
            "no address", f"the connection {connection.name!r} has no address: an administrator enters it under Models"
        )
    if refusal := refused_address(connection.base_url):
        return no("address refused", f"the connection {connection.name!r} cannot be used: {refusal}")
    return Readiness(True, "ready")


def refused_address(base_url: str) -> str:
    """Why documents may not be sent to this address, as far as that is known without the network; "" when they may."""
    if not base_url:
        return ""
    from lumigator import egress

    try:
        egress.check(base_url, allow=settings.EGRESS_ALLOW)
    except (egress.EgressRefused, ValueError) as exc:  # ValueError: a malformed entry of LUMIGATOR_EGRESS_ALLOW
        return str(exc)
    return ""


def _hub_readiness(entry: ModelEntry) -> Readiness:
    if snapshot_of(entry) is not None:
        return Readiness(True, "ready")
    if is_offline():
        return Readiness(
            False,
            "not downloaded",
            "its weights are not downloaded, and HF_HUB_OFFLINE is set: download them first, or unset the variable",
            "warn",
        )
    return Readiness(True, "downloads first", "its weights are downloaded from the hub when it first runs", "calm")


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}


def snapshot_of(entry: ModelEntry) -> Path | None:
    """The folder of a hub model in this machine's cache, when its configuration and some weights are in it.

    Cheap enough for a table: no network, no hub library. The layout is that of huggingface_hub:
    `models--org--name/snapshots/<commit>`, and `refs/<branch>` holding a commit.
    """
    repository, _, named = entry.uri.removeprefix("hf://").partition("@")
    revision = entry.revision or named or "main"
    if ".." in f"{repository}/{revision}" or revision.startswith("/"):
        return None
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{repository.replace('/', '--')}"
    try:
        commit = revision if _COMMIT.fullmatch(revision) else (cache / "refs" / revision).read_text().strip()
        folder = cache / "snapshots" / commit
        whole = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    except (OSError, ValueError):
        return None
    return folder if whole else None


def model_roots() -> dict[str, Path]:
    """The folders below which local models may lie, by name: those of the environment and those of the admin."""
    return {**settings.MODEL_ROOTS, **{root.name: Path(root.path) for root in ModelRoot.objects.all()}}


def folder_of(uri: str, roots: Mapping[str, Path] | None = None) -> Path:
    """The folder that `file://root-id/path` names. Raises ProviderError when the root is unknown, the folder is
    missing, or the path leaves its root by `..` or by a symbolic link (SECURITY S24)."""
    root_id, _, inside = uri.removeprefix("file://").partition("/")
    roots = model_roots() if roots is None else roots
    if root_id not in roots:
        raise ProviderError(
            f"{uri}: there is no model root {root_id!r} (known: {', '.join(sorted(roots))}); an administrator adds one "
            "with LUMIGATOR_MODEL_ROOTS=name=/folder",
            code="unknown_root",
            failure="stop",
        )
    if "\0" in inside:
        raise _unknown("the path of a local model holds a NUL character")
    try:
        root = roots[root_id].resolve()
        folder = (root / inside).resolve()
        is_there = folder.is_dir()
    except (OSError, RuntimeError):  # too long a name, or links that go in a circle
        raise _unknown(f"{uri[:100]}: the path cannot be followed") from None
    if not folder.is_relative_to(root):
        raise _unknown(f"{uri}: the path leaves its root")
    if not is_there:
        raise ProviderError(f"{uri}: there is no such folder on this machine", code="no_weights", failure="stop")
    return folder


def may_be_read(value: object) -> bool:
    """Whether a value that somebody chose names no path of this machine, or one under a model root: files elsewhere
    are nobody's business (SECURITY S24)."""
    if not isinstance(value, str) or not value.startswith(("/", "~", ".")):
        return True
    try:
        place = Path(value).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return False
    return any(place.is_relative_to(root.resolve()) for root in model_roots().values())


def freeze(entry: ModelEntry, *, prompt: str = "", generation: dict[str, Any] | None = None) -> dict[str, Any]:
    """The spec of a candidate: all that decides its outputs and its price, as it is in the registry now."""
    name, revision = entry.uri.partition("://")[2], ""
    if entry.scheme == "hf":
        name, _, revision = name.partition("@")
    if entry.scheme == "endpoint":
        name = name.partition("/")[2]
    return {
        "provider": entry.provider.name,
        "scheme": entry.scheme,
        "uri": entry.uri,
        "model": name,
        "revision": entry.revision or revision,
        "architecture": entry.architecture,
        "prompt": prompt if reads_prompt(entry) else "",
        "generation": {**entry.generation, **(generation or {})},
        "options": dict(entry.options),
        "window": entry.window,
        "dtype": "auto",
        "privacy": entry.privacy,
        "price": {
            name: None if price is None else str(price)
            for name, price in (("in", entry.price_in), ("out", entry.price_out), ("cached", entry.price_cached))
        },
        "parameters": entry.parameters,
        "licence": entry.licence,
    }


def reads_prompt(entry: ModelEntry) -> bool:
    """Whether the model gets the prompt: summarizers of the encoder-decoder kind were trained on the bare document,
    unless the entry's options say `reads_prompt`. While the architecture is unknown the prompt is kept."""
    if entry.scheme in ("hf", "file") and entry.architecture == ModelEntry.Architecture.SEQ2SEQ:
        return entry.options.get("reads_prompt") is True
    return entry.provider.uses_prompt


def locate(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec with `path` for this machine, where it is a local folder; missing folders are left to the provider."""
    if spec.get("scheme") != "file":
        return spec
    return {**spec, "path": str(folder_of(spec["uri"]))}


def register_folder(team: Team, folder: Path) -> ModelEntry:
    """A registry entry for a model folder of this machine; its parent becomes a model root. For administrators: who
    calls this has a shell here. Raises ProviderError when the folder is missing."""
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise ProviderError(f"{folder}: there is no such folder", code="no_weights", failure="stop")
    root = ModelRoot.objects.filter(path=str(folder.parent)).first()
    if root is None:
        name = _free_name(re.sub(r"[^a-z0-9-]+", "-", folder.parent.name.lower()).strip("-") or "root")
        root = ModelRoot.objects.create(name=name, path=str(folder.parent))
    uri = f"file://{root.name}/{folder.name}"
    if entry := ModelEntry.objects.filter(team=team, uri=uri).first():
        return entry
    architecture = architecture_of(folder)
    return ModelEntry.objects.create(
        team=team,
        slug=_free_slug(team, f"local/{folder.name}"),
        name=folder.name,
        uri=uri,
        architecture=architecture,
        privacy=ModelEntry.Privacy.LOCAL,
        tasks=["summarization"],
    )


def architecture_of(folder: Path) -> str:
    """seq2seq or causal, from the folder's config.json; seq2seq when there is none: loading will say why not."""
    config, problem = read_json(folder / "config.json")
    return "seq2seq" if problem or config.get("is_encoder_decoder") else "causal"


def _free_name(name: str) -> str:
    taken = set(ModelRoot.objects.values_list("name", flat=True)) | set(settings.MODEL_ROOTS)
    return _first_free(name, taken)


def _free_slug(team: Team, slug: str) -> str:
    return _first_free(slug, set(ModelEntry.objects.filter(team=team).values_list("slug", flat=True)))


def _first_free(name: str, taken: set[str]) -> str:
    tries = (f"{name}-{number}" if number > 1 else name for number in range(1, len(taken) + 2))
    return next(each for each in tries if each not in taken)

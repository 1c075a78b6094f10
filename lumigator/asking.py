"""Asking turns what was typed on the command line into datasets, models and experiments."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.auth.models import User
from django.core.files import File
from django.db import transaction
from django.db.models import Model

from datasets_app.exporting import EXPORTS
from datasets_app.ingest import ingest, measured
from datasets_app.ingesting import opened
from datasets_app.models import Dataset, Import
from datasets_app.reading import Columns
from evaluations import importing, planning
from evaluations.models import Experiment
from lumigator.laptop import prepare, workers_running
from lumigator.models import Team
from models_registry import choosing, trying
from models_registry.models import ModelEntry
from models_registry.providers import ProviderError

M = TypeVar("M", bound=Model)


class NotFound(ValueError):
    """The thing that was named is not there; says what is."""


def found(kind: type[M], pk: int) -> M:
    """The row with this id. Raises NotFound."""
    row = kind._default_manager.filter(pk=pk).first()
    if row is None:
        raise NotFound(
            f"there is no {kind._meta.verbose_name} {pk}: `lumigator {kind._meta.verbose_name_plural}` lists them"
        )
    return row


def dataset_of(team: Team, user: User, path: Path, options: Namespace) -> Dataset:
    """The file as a dataset; the one that the same bytes with the same columns already made, if any."""
    columns = {"source": options.source_column, "references": options.reference_column}  # None: guessed
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file")
    with path.open("rb") as handle:
        mine = Dataset.objects.filter(team=team, state=Dataset.State.READY, origin=Dataset.Origin.UPLOAD)
        same = mine.filter(sha256=measured(handle).sha256)
        if same:
            with opened(handle) as table:
                wanted = table.columns(columns)
            for known in same.order_by("-privacy", "id"):  # local_only, where somebody said so of these bytes
                if Columns.from_dict(known.columns) == wanted:
                    return known
        with _rows_shown(path.name) as progress:
            file = File(handle, name=path.name)
            return ingest(team=team, user=user, name=path.name, file=file, columns=columns, progress=progress)


@contextmanager
def _rows_shown(name: str) -> Iterator[Callable[[Import], object]]:
    """One line on standard error that says how far a large file is; nothing for a small one."""
    shown = ""

    def say(intake: Import) -> None:
        nonlocal shown
        if intake.bytes_total <= settings.IMPORT_AT_ONCE_BYTES:
            return
        share = f", {intake.share:.0%} read" if intake.share is not None else ""
        line = f"{name}: {intake.rows_done:,} rows stored{share}"
        if sys.stderr.isatty():
            print(f"\r{line:<{len(shown)}}", end="", file=sys.stderr, flush=True)
        shown = line

    yield say
    if shown:
        print(f"\r{shown}" if sys.stderr.isatty() else shown, file=sys.stderr)


def model_of(team: Team, text: str) -> str | dict[str, Any]:
    """What `-m` named: a folder of this machine becomes a registry entry, everything else is looked up."""
    folder = Path(text).expanduser()
    if "://" not in text and folder.is_dir():
        return choosing.register_folder(team, folder).slug
    if "://" not in text and (text.startswith((".", "/", "~"))):
        raise ProviderError(f"{text}: there is no such folder", code="no_weights", failure="stop")
    return text


def experiment_on_file(team: Team, user: User, options: Namespace) -> Experiment:
    """The experiment that `lumigator evaluate` asks for, not yet started. Raises Refused, BadFile, ProviderError."""
    predictions = [_named_file(text) for text in options.predictions]
    dataset = dataset_of(team, user, options.data, options)
    data = {
        "name": f"{options.data.name}: which model?",
        "dataset": dataset,
        "models": [_wish(model_of(team, text), options) for text in options.model],
        "metrics": options.metrics,
        "primary_metric": options.primary_metric,
        "prompt": options.prompt,
        "sample": {"n": options.sample, "seed": options.seed},
        "budget_usd": options.budget,
        "baselines": not options.no_baselines,
        "metric_options": metric_options(options.metric_option),
        "reuse_outputs": not options.no_reuse,
        "may_be_empty": bool(predictions),
    }
    with transaction.atomic():  # a file of predictions that cannot be read leaves no half experiment behind
        experiment = planning.create(team=team, user=user, data=data)
        imported = [(name, importing.import_file(experiment, name, path)) for name, path in predictions]
    for name, told in imported:
        for sentence in told.sentences():
            print(f"{name}: {sentence}")
    return experiment


def _wish(model: str | dict[str, Any], options: Namespace) -> str | dict[str, Any]:
    """The model with what was asked for all of them; baselines read every document whole."""
    if not options.long_documents or not isinstance(model, str) or model.startswith("baseline"):
        return model
    return {"model": model, "long_documents": options.long_documents}


def metric_options(words: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{metric: {option: value}} of METRIC.OPTION=VALUE; a value that is JSON is read as such. Raises NotFound."""
    told: dict[str, dict[str, Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        metric, dot, option = name.partition(".")
        if not (equals and dot and metric and option):
            raise NotFound(f"--metric-option {word}: give METRIC.OPTION=VALUE, as in rouge.stemmer=false")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        told.setdefault(metric, {})[option] = value
    return told


def _named_file(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name or not Path(path).is_file():
        raise NotFound(f"--predictions {text}: give NAME=FILE with a file that exists")
    return name, Path(path)


def _which(options: Namespace) -> str:
    """What `show` or `add` is about. Raises NotFound."""
    if not options.which:
        raise NotFound(f"say which after `{options.what}`: `lumigator {options.command}` lists what there is")
    return str(options.which)


def _listed(kind: type[M], team: Team, options: Namespace) -> list[M]:
    """The one that `show` names, or the newest 200. Raises NotFound."""
    if options.what == "list":
        return list(kind._default_manager.filter(team=team).order_by("-pk")[:200])
    which = _which(options)
    if not (which.isdecimal() and len(which) < 19):
        raise NotFound(f"{which!r} is no id: `lumigator {options.command}` lists the ids")
    return [found(kind, int(which))]


def datasets(options: Namespace) -> int:
    team, user = prepare()
    if options.what == "add":
        dataset = dataset_of(team, user, Path(_which(options)), options)
        print(f"dataset {dataset.pk}: {dataset.n_examples} documents, {dataset.n_with_reference} with a reference")
        return 0
    found = _listed(Dataset, team, options)
    if options.what == "profile":
        if not found[0].profile:
            raise NotFound(f"dataset {found[0].pk} has no figures: they are computed when it becomes ready")
        print(json.dumps(found[0].profile, indent=2, ensure_ascii=False))
        return 0
    if options.what == "download":
        return _written(found[0], options)
    for dataset in found:
        print(f"{dataset.pk:>6}  {dataset.state:<10} {dataset.n_examples:>8} documents  {dataset.name}")
        if options.what == "show" and dataset.problem:
            print(dataset.problem)
    return 0


def _written(dataset: Dataset, options: Namespace) -> int:
    """The dataset as a file, or on standard output. Raises NotFound where it is not ready."""
    if not dataset.is_ready:
        raise NotFound(f"dataset {dataset.pk} is {dataset.state}: only one that is ready can be downloaded")
    pieces = EXPORTS[options.format].write(dataset)
    if options.output:
        with options.output.open("wb") as file:
            file.writelines(piece.encode() if isinstance(piece, str) else piece for piece in pieces)
        return 0
    for piece in pieces:
        if isinstance(piece, str):
            sys.stdout.write(piece)
        else:
            sys.stdout.buffer.write(piece)
    return 0


def models(options: Namespace) -> int:
    team, _ = prepare()
    if options.what == "add":
        wish = model_of(team, _which(options))
        entry = choosing.resolve(team, str(wish))
        if entry.pk is None:
            entry.save()
        print(entry.slug)
        return 0
    if options.what == "check":
        return _check(team, _which(options))
    entries = ModelEntry.objects.filter(team=team)
    if options.what == "show":
        entries = entries.filter(slug=_which(options))
        if not entries:
            raise NotFound(f"there is no model {options.which!r}: `lumigator models` lists them")
    for entry in entries:
        why = choosing.why_not(entry)
        print(f"{entry.slug:<58} {entry.privacy:<9} {why or 'ready'}")
    return 0


def _check(team: Team, slug: str) -> int:
    """Have a worker try the model, here and now, and print what came of it: 0 when it works, else 1."""
    entry = ModelEntry.objects.filter(team=team, slug=slug).first()
    if entry is None:
        raise NotFound(f"there is no model {slug!r}: `lumigator models` lists them")
    check = trying.ask(entry, by="owner")
    if check.is_open:
        with workers_running():
            while check.is_open:
                time.sleep(0.5)
                check.refresh_from_db()
    for sentence in trying.in_words(check):
        print(sentence)
    return 0 if check.state == "done" else 1


def experiments(options: Namespace) -> int:
    team, _ = prepare()
    if options.what == "add":
        raise NotFound("an experiment is made with `lumigator evaluate DATA -m MODEL`")
    for experiment in _listed(Experiment, team, options):
        print(f"{experiment.pk:>6}  {experiment.state:<22} {experiment.n_examples:>8} documents  {experiment.name}")
    return 0

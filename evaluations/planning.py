"""Planning turns an experiment into work: it freezes what was asked, then cuts the missing part into units.

`create` is what a request does, in constant time; `plan` is a work unit itself, done by a worker, and
can be interrupted and repeated: it only ever adds the units that are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from django.contrib.auth.models import User
from django.db import transaction

from datasets_app.models import Dataset
from evaluations import metrics as metric_plugins
from evaluations import prompting, tasks
from evaluations.announcing import announce
from evaluations.leasing import Lease, close, fenced
from evaluations.models import Candidate, Experiment, Generation, Score, Worker, WorkUnit
from evaluations.steering import ONLY_SCORES, finalize_when_complete, settle_cancelled
from lumigator.models import Team
from models_registry import choosing, shortening
from models_registry.models import ModelEntry
from models_registry.providers import ProviderError

SLICE = {"gpu": 32, "api": 25, "cpu": 64}
SCORE_SLICE = 256
BASELINES = ("baseline/lead-3", "baseline/random-3", "baseline/oracle")
MAX_CANDIDATES = 50
DEFAULT_NEW_TOKENS = 1024

ModelWish = str | dict[str, Any]
Indexes = Sequence[int] | np.ndarray[Any, Any]


class Refused(ValueError):
    """What was asked cannot be done. `errors` says why: {field: [sentence, …]}."""

    def __init__(self, errors: dict[str, list[str]]) -> None:
        super().__init__("; ".join(f"{field}: {' '.join(sentences)}" for field, sentences in errors.items()))
        self.errors = errors


def create(*, team: Team, user: User | None, data: dict[str, Any], request_id: str = "") -> Experiment:
    """Make a draft from what the API, the form or the command line asked for.

    `data`: name, dataset (a Dataset), task, prompt, models [slug | URI | {model, label, prompt, generation}],
    metrics [name], metric_options {name: {option: value}}, primary_metric (a part), margin, sample {n, seed},
    budget_usd, baselines, gates, reuse_outputs, purpose (compare; ground_truth needs no metric).
    Raises Refused with every problem found, by field; an unknown model or metric is never dropped.
    """
    errors: dict[str, list[str]] = {}
    dataset: Dataset = data["dataset"]
    if not dataset.is_ready:
        errors["dataset"] = [f"the dataset is {dataset.get_state_display().lower()}; only a ready one can be used"]
    if dataset.sealed:
        errors["dataset"] = [
            "the dataset is sealed: it is kept for the final confirmation of a choice, so no experiment may look at it"
        ]
    task = _one_of(tasks.available(), data.get("task") or "summarization", "task", errors)
    prompt = data.get("prompt") or ""
    if prompt and (wrong := prompting.problems_of(prompt, prompting.values_of(dataset.profile))):
        errors["prompt"] = wrong
    purpose = data.get("purpose") or Experiment.Purpose.COMPARE
    usual = task.metrics if task and purpose == Experiment.Purpose.COMPARE else ()
    chosen = _metrics(data.get("metrics") or usual, errors)
    options = data.get("metric_options") or {}
    if wrong := option_problems(chosen, options):
        errors["metric_options"] = wrong
    parts = {part.name: metric for metric in chosen for part in metric.parts}
    primary = data.get("primary_metric") or _default_primary(task, parts)
    if parts and primary not in parts:
        errors["primary_metric"] = [
            f"{primary!r} is not a part of the chosen metrics; choose one of {', '.join(parts)}"
        ]
    elif primary in parts and parts[primary].part(primary).higher_is_better is None:
        errors["primary_metric"] = [f"{primary!r} describes outputs; neither more nor less of it is better"]
    sample = data.get("sample") or {}
    experiment = Experiment(
        team=team,
        purpose=purpose,
        name=(data.get("name") or f"{dataset.name}: which model?")[:200],
        dataset=dataset,
        task=task.name if task else "",
        prompt=prompt,
        metrics=[_frozen_metric(metric, options) for metric in chosen],
        primary_metric=primary,
        margin=data.get("margin"),
        sample_n=sample.get("n"),
        seed=sample.get("seed") or 0,
        budget_micro=micro(data.get("budget_usd")),
        gates=data.get("gates") or {},
        reuse_outputs=data.get("reuse_outputs", True),
        created_by=user,
        request_id=request_id,
    )
    wishes: list[ModelWish] = list(data.get("models") or [])
    if data.get("baselines"):
        wished = {wish if isinstance(wish, str) else wish.get("model") for wish in wishes}
        extras = [slug for slug in BASELINES if slug not in wished]
        wishes += [slug for slug in extras if dataset.has_references or slug != "baseline/oracle"]
    candidates = _candidates(team, experiment, wishes, errors)
    if not wishes and not data.get("may_be_empty"):
        errors["models"] = ["choose at least one model"]
    if errors:
        raise Refused(errors)
    with transaction.atomic():
        experiment.save()
        for position, candidate in enumerate(candidates):
            candidate.experiment, candidate.position = experiment, position
        Candidate.objects.bulk_create(candidates)
    return experiment


def add_candidate(experiment: Experiment, wish: ModelWish) -> Candidate:
    """One more candidate, for a draft or an ended experiment; the next start does its work. Raises Refused."""
    errors: dict[str, list[str]] = {}
    made = _candidates(experiment.team, experiment, [wish], errors)
    if experiment.candidates.count() >= MAX_CANDIDATES:
        errors["models"] = [f"an experiment takes at most {MAX_CANDIDATES} candidates"]
    if made and experiment.candidates.filter(label=made[0].label).exists():
        errors["models"] = [f"there already is a candidate called {made[0].label!r}: give this one another label"]
    if errors:
        raise Refused(errors)
    made[0].experiment = experiment
    made[0].position = experiment.candidates.count()
    made[0].save()
    return made[0]


def _one_of(known: dict[str, Any], name: str, field: str, errors: dict[str, list[str]]) -> Any:
    if name not in known:
        errors[field] = [f"there is no {field} {name!r}; there is {', '.join(known)}"]
        return None
    return known[name]


def _metrics(names: Iterable[str], errors: dict[str, list[str]]) -> list[metric_plugins.Metric]:
    known = metric_plugins.available()
    unknown = [name for name in names if name not in known]
    if unknown:
        errors["metrics"] = [f"there is no metric {', '.join(map(repr, unknown))}; there is {', '.join(known)}"]
    return [known[name] for name in dict.fromkeys(names) if name in known]


def option_problems(chosen: Sequence[metric_plugins.Metric], options: dict[str, Any]) -> list[str]:
    """What is wrong with {metric: {option: value}}: a metric that was not chosen, an unknown option, a bad value."""
    known = {metric.name: metric for metric in chosen}
    problems = [
        f"{name!r} is not among the chosen metrics; they are {', '.join(known)}"
        for name in options
        if name not in known
    ]
    for name in options.keys() & known.keys():
        metric = known[name]
        unknown = [option for option in options[name] if option not in metric.defaults]
        if unknown:
            there_is = f"there is {', '.join(metric.defaults)}" if metric.defaults else "it has none"
            problems.append(f"{name} has no option {', '.join(map(repr, unknown))}; {there_is}")
            continue
        outside = [option for option, value in options[name].items() if not choosing.may_be_read(value)]
        if outside:
            problems.append(
                f"{name}: the option {', '.join(outside)} names a path outside the model roots: put the file or folder "
                "under one of them (LUMIGATOR_MODEL_ROOTS)"
            )
            continue
        try:
            metric.available({**metric.defaults, **options[name]})
            metric.sign(options[name])
        except (ValueError, TypeError) as exc:
            problems.append(f"{name}: {exc}")
    return problems


def _default_primary(task: tasks.Task | None, parts: dict[str, Any]) -> str:
    if task and task.primary in parts:
        return task.primary
    return next((name for name, metric in parts.items() if metric.part(name).higher_is_better is not None), "")


def _frozen_metric(metric: metric_plugins.Metric, options: dict[str, Any]) -> dict[str, Any]:
    mine = {**metric.defaults, **options.get(metric.name, {})}
    return {"name": metric.name, "options": mine}


def micro(usd: Any) -> int | None:
    return None if usd in (None, "") else round(float(usd) * 1_000_000)


def _candidates(
    team: Team, experiment: Experiment, wishes: Sequence[ModelWish], errors: dict[str, list[str]]
) -> list[Candidate]:
    made: list[Candidate] = []
    problems: list[str] = []
    if len(wishes) > MAX_CANDIDATES:
        problems.append(f"an experiment takes at most {MAX_CANDIDATES} candidates; this asks for {len(wishes)}")
    for wish in wishes[:MAX_CANDIDATES]:
        asked = {"model": wish} if isinstance(wish, str) else wish
        try:
            entry = choosing.resolve(team, str(asked.get("model", "")))
            made.append(_candidate(team, experiment, entry, asked, problems))
        except ProviderError as exc:
            problems.append(str(exc))
    labels = [candidate.label for candidate in made]
    for label in dict.fromkeys(label for label in labels if labels.count(label) > 1):
        problems.append(f"two candidates are called {label!r}: give each its own label")
    if problems:
        errors["models"] = problems
    return made


def _candidate(
    team: Team, experiment: Experiment, entry: ModelEntry, asked: dict[str, Any], problems: list[str]
) -> Candidate:
    provider = entry.provider
    task = tasks.available().get(experiment.task)
    prompt = asked.get("prompt") or experiment.prompt or (task.prompt if task else "")
    values = prompting.values_of(experiment.dataset.profile, asked.get("language") or "")
    if wrong_prompt := prompting.problems_of(prompt, values):
        problems += [f"{entry.slug}: {wrong}" for wrong in wrong_prompt]
        prompt = tasks.PLACEHOLDER
    prompt = prompting.settle(prompt, values)
    if why := choosing.why_not(entry):
        problems.append(f"{entry.slug}: {why}")
    if provider.uses_references and not experiment.dataset.has_references:
        problems.append(f"{entry.slug} needs reference summaries, and this dataset has none: leave it out")
    if entry.privacy != ModelEntry.Privacy.LOCAL and not experiment.dataset.may_leave:
        problems.append(
            f"{entry.slug} would send documents away, but this dataset is marked as never leaving: leave it out"
        )
    if (
        experiment.budget_micro is not None
        and not entry.is_free
        and (entry.price_in is None or entry.price_out is None)
    ):
        problems.append(
            f"{entry.slug} has no price, so a budget cannot be kept: enter its price, or start without a budget"
        )
    spec = choosing.freeze(entry, prompt=prompt, generation=asked.get("generation") or {})
    if entry.privacy != ModelEntry.Privacy.LOCAL:
        # The answer's length must be bounded, or no worst case of its price is true.
        spec["generation"].setdefault("max_new_tokens", DEFAULT_NEW_TOKENS)
    chosen = {name: asked[name] for name in ("engine", "dtype") if asked.get(name)}
    spec |= chosen
    if chosen and provider.place != "host":
        problems.append(f"{entry.slug}: {' and '.join(chosen)} can only be chosen for a model that runs here")
    if asked.get("long_documents"):
        spec["long_documents"] = asked["long_documents"]
        if provider.place != "host":  # a local model's own provider says what is wrong with it
            problems += [f"{entry.slug}: {wrong}" for wrong in shortening.problems(spec, provider.place)]
    spec["prompt_version"] = tasks.version_of(prompt) if spec["prompt"] else ""
    problems += [f"{entry.slug}: {wrong}" for wrong in provider.problems(choosing.locate(spec))]
    return Candidate(
        experiment=experiment,
        model=entry if entry.pk else None,
        connection=choosing.connection_for(team, entry),
        label=(asked.get("label") or _label(entry, spec))[:160],
        provider=provider.name,
        queue=provider.queue,
        spec=spec,
        is_baseline=entry.is_baseline,
        uses_references=provider.uses_references,
    )


def _label(entry: ModelEntry, spec: dict[str, Any]) -> str:
    """The slug, with what is particular to this candidate."""
    particular = [spec.get("long_documents"), spec.get("engine"), spec.get("dtype")]
    told = [name for name in particular if name and name != "auto"]
    return f"{entry.slug} ({', '.join(told)})" if told else entry.slug


def sample_of(experiment: Experiment) -> np.ndarray[Any, Any]:
    """The indexes of the examples that take part, ascending: all, or a seeded sample that any machine draws alike."""
    total = experiment.dataset.n_examples
    if not experiment.sample_n or experiment.sample_n >= total:
        return np.arange(total)
    chosen = np.random.Generator(np.random.PCG64(experiment.seed)).choice(total, experiment.sample_n, replace=False)
    return np.sort(chosen)


def plan(lease: Lease) -> None:
    """The plan unit: cut what has no outcome or no score into units. Safe to repeat."""
    from evaluations import annotating

    experiment = lease.unit.experiment
    sample = sample_of(experiment)
    only_scores = lease.unit.metric == ONLY_SCORES
    _settle_signatures(lease, experiment)
    if experiment.purpose == Experiment.Purpose.GROUND_TRUTH:
        annotating.lay_out(lease, experiment, sample)
    for candidate in experiment.candidates.all():
        if candidate.problem and not only_scores:
            Candidate.objects.filter(pk=candidate.pk).update(problem="", problem_code="")
        units = _units_for(experiment, candidate, sample, lease.unit.round, only_scores)
        while batch := list(islice(units, 1000)):
            with fenced(lease):
                WorkUnit.objects.bulk_create(batch, ignore_conflicts=True)
    with fenced(lease):
        close(lease)
        if not experiment.move("running", since=("planning",), n_examples=len(sample)):
            settle_cancelled(experiment)
            return
        if not finalize_when_complete(experiment):
            announce("sweep", experiment)


def _settle_signatures(lease: Lease, experiment: Experiment) -> None:
    """Write down the signature that each metric has on this machine. Another one than before (a library's new version,
    other weights) makes all outputs be scored anew: two signatures are never compared. The old scores stay."""
    settled = []
    for frozen in experiment.metrics:
        before = frozen.get("signature", "")
        metric = metric_plugins.available().get(frozen["name"])
        if before and (metric is None or metric.available({**metric.defaults, **frozen["options"]})):
            settled.append(frozen)  # what cannot be computed here is no reason to give up the numbers that there are
            continue
        digest = metric.sign(frozen["options"])[0] if metric else ""
        earlier = [each for each in [*frozen.get("earlier", []), before] if each and each != digest]
        settled.append({**frozen, "signature": digest, "earlier": list(dict.fromkeys(earlier))})
    with fenced(lease):
        Experiment.objects.filter(pk=experiment.pk).update(metrics=settled)
    experiment.metrics = settled


def _units_for(
    experiment: Experiment, candidate: Candidate, sample: np.ndarray[Any, Any], round_: int, only_scores: bool = False
) -> Iterator[WorkUnit]:
    done = np.array(
        sorted(Generation.objects.filter(candidate=candidate).values_list("example__index", flat=True)), dtype=int
    )
    missing = np.setdiff1d(sample, done, assume_unique=True)
    for indexes in _slices(missing[:0] if only_scores else missing, SLICE[candidate.queue]):
        yield WorkUnit(
            experiment=experiment,
            candidate=candidate,
            kind="generate",
            queue=candidate.queue,
            round=round_,
            lo=indexes[0],
            indexes=indexes,
        )
    have = np.intersect1d(sample, done, assume_unique=True)
    if not len(have):
        return
    for frozen in experiment.metrics:
        yield from score_units(experiment, candidate, frozen, _unscored(candidate, frozen, have), round_)


def score_units(
    experiment: Experiment, candidate: Candidate, frozen: dict[str, Any], indexes: Indexes, round_: int
) -> Iterator[WorkUnit]:
    """The units that score these examples of a candidate with one metric."""
    metric = metric_plugins.available().get(frozen["name"])
    if metric is None:  # an administrator's module that is registered no more: its scores stay as they are
        return
    queue = "gpu" if metric.queue == "gpu" and _a_gpu_is_there() else "cpu"
    for piece in _slices(indexes, SCORE_SLICE):
        yield WorkUnit(
            experiment=experiment,
            candidate=candidate,
            kind="score",
            metric=metric.name,
            queue=queue,
            round=round_,
            lo=piece[0],
            indexes=piece,
        )


def _a_gpu_is_there() -> bool:
    return Worker.objects.alive().filter(has_gpu=True, queues__contains=["gpu"]).exists()


def _unscored(candidate: Candidate, frozen: dict[str, Any], have: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    metric = metric_plugins.available().get(frozen["name"])
    if metric is None:
        return have[:0]
    scored = Score.objects.filter(candidate=candidate, part=metric.parts[0].name, signature=frozen["signature"])
    scored = scored.exclude(state="not_computed")  # what was missing then may be installed now
    return np.setdiff1d(have, np.array(list(scored.values_list("example__index", flat=True)), dtype=int))


def _slices(indexes: Indexes, size: int) -> Iterator[list[int]]:
    for start_ in range(0, len(indexes), size):
        yield [int(index) for index in indexes[start_ : start_ + size]]

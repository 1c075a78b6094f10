"""What the engine's tests share: a dataset, an experiment with fake candidates, and a worker that runs in the test."""

from __future__ import annotations

from typing import Any

from datasets_app.models import Dataset, Example
from evaluations import planning, steering, sweeping
from evaluations.models import Experiment
from evaluations.working import WorkerProcess
from lumigator.doorbell import QUEUES
from lumigator.models import Team
from models_registry.models import ModelEntry


def make_dataset(
    team: Team,
    sources: list[str],
    references: list[str] | None = None,
    *,
    tags: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Dataset:
    """A ready dataset of these documents; with the references and tags of the same place, where there are any."""
    dataset = Dataset.objects.create(team=team, name="Trial", **{"sha256": "0" * 64, **fields})
    given = references if references is not None else [source.split(".")[0] + "." for source in sources]
    Example.objects.bulk_create(
        Example(
            dataset=dataset,
            index=index,
            source=source,
            references=[given[index]] if index < len(given) else [],
            tags=tags[index] if tags else {},
        )
        for index, source in enumerate(sources)
    )
    dataset.n_examples, dataset.n_with_reference, dataset.state = len(sources), len(given), "ready"
    dataset.save()
    return dataset


def make_fake(team: Team, name: str = "fake", *, scheme: str = "fake", **options: Any) -> ModelEntry:
    """A registry entry for the scriptable fake, with these options."""
    return ModelEntry.objects.create(
        team=team,
        slug=name,
        name=name,
        uri=f"{scheme}://{name}",
        architecture="extractive",
        privacy="local",
        options=options,
    )


def make_experiment(dataset: Dataset, *models: ModelEntry | str | dict[str, Any], **data: Any) -> Experiment:
    wishes = [model.slug if isinstance(model, ModelEntry) else model for model in models]
    asked = {"name": "Trial", "dataset": dataset, "models": wishes, "metrics": ["rouge"], **data}
    return planning.create(team=dataset.team, user=None, data=asked)


def work_off(worker: WorkerProcess | None = None, *, rounds: int = 200) -> None:
    """Do everything that is ready, in this thread, as workers that found it by polling would."""
    worker = worker or WorkerProcess(QUEUES)
    try:
        for _ in range(rounds):
            ready = sweeping.waiting(QUEUES)
            if not ready:
                return
            worker.do(ready[0])
    finally:
        worker.models.close()
    raise AssertionError(f"work is still ready after {rounds} rounds: {ready[:3]}")


def run(experiment: Experiment) -> Experiment:
    """Start the experiment and do all of its work here."""
    assert steering.start(experiment)
    work_off()
    experiment.refresh_from_db()
    return experiment

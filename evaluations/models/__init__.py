"""Experiments, the work they are cut into, and everything that came of it. Postgres holds the truth."""

from evaluations.models.experiments import Candidate, Experiment, ExperimentQuerySet
from evaluations.models.ground_truth import Draft, GroundTruth, Publication
from evaluations.models.online import Completion
from evaluations.models.outcomes import UNSTORABLE, Call, Generation
from evaluations.models.people import Preference
from evaluations.models.scores import Aggregate, Contrast, Score, Signature
from evaluations.models.work import ALIVE_SECONDS, SelfCheck, Worker, WorkerQuerySet, WorkUnit

__all__ = [
    "ALIVE_SECONDS",
    "UNSTORABLE",
    "Aggregate",
    "Call",
    "Candidate",
    "Completion",
    "Contrast",
    "Draft",
    "Experiment",
    "ExperimentQuerySet",
    "Generation",
    "GroundTruth",
    "Preference",
    "Publication",
    "Score",
    "SelfCheck",
    "Signature",
    "WorkUnit",
    "Worker",
    "WorkerQuerySet",
]

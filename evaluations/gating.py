"""Gating answers a build's question: may this candidate replace that one? From the scores of two experiments, or one.

Outputs are paired by document: the experiments must have been made on the same dataset, or on datasets of the same
bytes, and scored with the same signature. Numbers that were made differently are never compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from datasets_app.models import Example
from evaluations import stats
from evaluations.metrics import part_owner
from evaluations.models import Candidate, Experiment, Score
from evaluations.planning import Refused
from evaluations.significance import NonInferiority

FEW = 10
STATUS = {"non-inferior": 0, "worse": 1, "inconclusive": 4}


@dataclass(frozen=True)
class Gate:
    """The verdict with who was compared on what. `status` is the exit status of the contract."""

    baseline: str
    candidate: str
    metric: str
    label: str
    verdict: NonInferiority
    documents: int
    missing: int
    unit: str

    @property
    def status(self) -> int:
        return STATUS[self.verdict.verdict]

    @property
    def sentence(self) -> str:
        """One sentence with the n, the bound and the margin."""
        told = self.verdict
        on = f"{self.label} on {self.documents:,} document{'s' * (self.documents != 1)} that both have"
        who, margin = f"{self.candidate} against {self.baseline}", f"{told.margin:g}"
        if told.difference is None or told.bound is None or told.upper is None:
            return f"Inconclusive: {who}, {on}: {told.reason}."
        seen = f"difference {told.difference:+.4f}"
        if told.verdict == "non-inferior":
            least = f"the one-sided 95 % bound {told.bound:+.4f} is above -{margin}"
            return f"Proven: {who} is at most {margin} worse, {on} ({seen}, {least})."
        if told.verdict == "worse":
            most = f"the one-sided 95 % bound {told.upper:+.4f} is below -{margin}"
            return f"Worse: {who} is more than {margin} worse, {on} ({seen}, {most})."
        cure = told.reason or f"some {told.n_needed:,} {self.unit} would do"
        return f"Inconclusive: {who}, {on} ({seen}, one-sided 95 % bound {told.bound:+.4f}, margin {margin}): {cure}."

    def as_dict(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline,
            "candidate": self.candidate,
            "metric": self.metric,
            "documents": self.documents,
            "missing": self.missing,
            "status": self.status,
            "sentence": self.sentence,
            **self.verdict.as_dict(),
        }


def gate(baseline: str, candidate: str, metric: str, margin: float) -> Gate:
    """Is `candidate` at most `margin` worse than `baseline` on the part `metric`? Both are EXPERIMENT or
    EXPERIMENT:LABEL; the label may be left out where an experiment has one model. Raises Refused, by argument."""
    if not 0 < margin < float("inf"):
        _refuse("margin", f"{margin:g} is no margin: give the loss that you would accept, above 0")
    owner = part_owner().get(metric)
    part = owner.part(metric) if owner else None
    if part is None or part.higher_is_better is None:
        _refuse("metric", f"{metric!r} is no metric part with a direction; the guide lists them")
    old, new = _candidate("baseline", baseline), _candidate("candidate", candidate)
    if old.pk == new.pk:
        _refuse("candidate", "it is the baseline itself: name another one, as EXPERIMENT:LABEL")
    if old.experiment.dataset.sha256 != new.experiment.dataset.sha256:
        _refuse("candidate", f"its documents are not those of {old.label}: both must be made on the same dataset")
    before, after = _values(old, metric, "baseline"), _values(new, metric, "candidate")
    if before.signature != after.signature:
        _refuse(
            "metric",
            f"{metric} was scored in two ways ({before.signature} and {after.signature}): score the older experiment "
            "anew, or give both the same options",
        )
    shared = sorted(before.by_index.keys() & after.by_index.keys())
    differences = np.array([after.by_index[index] - before.by_index[index] for index in shared])
    groups = _groups(new.experiment, shared)
    units = stats.by_group(differences.reshape(-1, 1), groups)
    return Gate(
        baseline=old.label,
        candidate=new.label,
        metric=metric,
        label=part.label,
        verdict=_judge(units, margin, part.higher_is_better, new.experiment.seed),
        documents=len(shared),
        missing=len(before.by_index.keys() ^ after.by_index.keys()),
        unit="documents" if groups is None else "groups",
    )


def _judge(units: stats.Units, margin: float, higher_is_better: bool, seed: int) -> NonInferiority:
    if len(units.sums) < FEW:
        reason = f"fewer than {FEW} support no test; bring 30 or more"
        return NonInferiority("inconclusive", margin, None, None, None, len(units.sums), 30, "none", reason)
    return stats.non_inferiority(
        units.means[:, 0], margin, weights=units.sizes[:, 0], higher_is_better=higher_is_better, seed=seed
    )


def _candidate(argument: str, wish: str) -> Candidate:
    number, _, label = wish.partition(":")
    found = Experiment.objects.filter(pk=int(number)).first() if number.isdecimal() and len(number) < 19 else None
    if found is None:
        _refuse(argument, f"{wish!r} names no experiment: give EXPERIMENT or EXPERIMENT:LABEL, as in 12 or 12:my-model")
    rows = list(found.candidates.all())
    matching = [row for row in rows if row.label == label] if label else [row for row in rows if not row.is_baseline]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(f"{found.pk}:{row.label}" for row in rows)
    _refuse(argument, f"{wish!r} does not name one candidate; there is {names or 'none in this experiment'}")


@dataclass(frozen=True)
class _Values:
    signature: str
    by_index: dict[int, float]


def _values(candidate: Candidate, metric: str, argument: str) -> _Values:
    """The values under the signature that counts; a failed output at the metric's floor, as in the comparison."""
    owner = part_owner()[metric]
    settled = {frozen.get("signature") for frozen in candidate.experiment.metrics if frozen["name"] == owner.name}
    rows = Score.objects.filter(candidate=candidate, part=metric, signature__in=settled - {None})
    worst = owner.part(metric).worst
    found: dict[int, float] = {}
    signature = ""
    for index, value, state, digest in rows.values_list("example__index", "value", "state", "signature"):
        if state == "failed":
            value = worst
        if value is not None:
            found[index], signature = value, digest
    if not found:
        _refuse(argument, f"{candidate.label} has no {metric}: run its experiment with the metric {owner.name!r} first")
    return _Values(signature, found)


def _groups(experiment: Experiment, indexes: Sequence[int]) -> list[str | None] | None:
    """The group of each document, where any has one."""
    wanted = set(indexes)
    rows = Example.objects.filter(dataset=experiment.dataset_id).exclude(group="").values_list("index", "group")
    found = {index: group for index, group in rows if index in wanted}
    return [found.get(index) for index in indexes] if found else None


def _refuse(argument: str, sentence: str) -> NoReturn:
    raise Refused({argument: [sentence]})

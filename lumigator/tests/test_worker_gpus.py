"""Which model workers a machine gets, by its GPUs."""

from __future__ import annotations

import pytest

from lumigator import laptop


def seen(count: float, fraction: float, gpus: int = 4) -> list[str]:
    places = laptop.on_gpus([str(number) for number in range(gpus)], count, fraction)
    return [place["CUDA_VISIBLE_DEVICES"] for place in places]


def test_by_default_each_gpu_has_a_worker() -> None:
    assert seen(0, 1) == ["0", "1", "2", "3"]


def test_only_so_many_are_used() -> None:
    assert seen(2, 1) == ["0", "1"]


def test_a_share_of_a_gpu_puts_several_workers_on_it() -> None:
    assert seen(1, 0.5) == ["0", "0"]


def test_a_worker_may_have_several() -> None:
    assert seen(0, 2) == ["0,1", "2,3"]
    assert seen(0, 8) == ["0,1,2,3"], "fewer than it asks for are better than none"


@pytest.mark.parametrize(("count", "fraction"), [(-1, 1), (0, 0), (0, -1)])
def test_nonsense_is_refused_by_name(count: float, fraction: float) -> None:
    with pytest.raises(ValueError, match="LUMIGATOR_WORKER_GPUS"):
        seen(count, fraction)


def test_the_environment_may_hide_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    assert laptop.gpus_here() == ["3", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert laptop.gpus_here() == []


def test_every_model_worker_is_told_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    told = {child.name: child.environment.get("CUDA_VISIBLE_DEVICES") for child in laptop.workers()}
    assert told == {"models-1": "0", "models-2": "1", "work": None}

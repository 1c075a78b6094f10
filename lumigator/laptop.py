"""The laptop mode's household: one team, one owner, a migrated database, and the worker processes beside a command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command

from lumigator.models import Membership, Role, Team
from lumigator.supervising import Child, supervise
from models_registry import catalogue

# One thread per process for numerics: two gained nothing in decoding and collapsed beside a busy neighbour.
ONE_THREAD = {
    name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
}
QUIET = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
MEMORY_PER_MODEL = 6 << 30


def prepare() -> tuple[Team, User]:
    """Bring the database up to date and make sure of the team `home`, its owner and its catalogue. Safe to repeat."""
    call_command("migrate", verbosity=0)
    team = found_team("My team", "home")
    owner, is_new = User.objects.get_or_create(username="owner", defaults={"is_staff": True, "is_superuser": True})
    if is_new:
        owner.set_unusable_password()
        owner.save()
    Membership.objects.get_or_create(team=team, user=owner, defaults={"role": Role.ADMIN})
    return team, owner


def found_team(name: str, slug: str) -> Team:
    """The team with this slug, made if need be, with the shipped catalogue and the keys of the environment."""
    team, _ = Team.objects.get_or_create(slug=slug, defaults={"name": name})
    catalogue.seed(team)
    catalogue.seed_connections(team)
    return team


def worker(name: str, *queues: str, place: Mapping[str, str] | None = None) -> Child:
    """A worker process of these queues; `place` is what its environment says of the GPUs it may use."""
    command = [
        sys.executable,
        "-m",
        "lumigator.cli",
        "worker",
        *(word for queue in queues for word in ("--queue", queue)),
    ]
    return Child(name, command, environment={**QUIET, **ONE_THREAD, **(place or {})}, watches_parent=True)


def workers() -> list[Child]:
    """The worker processes of one machine: for local models one per core that has memory for it, or those of its GPUs,
    and one for calls and scores."""
    gpus = gpus_here()
    models = on_gpus(gpus, settings.WORKER_GPUS, settings.WORKER_GPUS_FRACTION) if gpus else [{}] * _on_cores()
    named = [(f"models-{number}", place) for number, place in enumerate(models, start=1)]
    return [*(worker(name, "gpu", place=place) for name, place in named), worker("work", "cpu", "api")]


def gpus_here() -> list[str]:
    """The ids of this machine's NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves us; none where there is no driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = [tool, "--query-gpu=index", "--format=csv,noheader"]
    told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    return told.stdout.split() if told.returncode == 0 else []


def on_gpus(gpus: Sequence[str], count: float, fraction: float) -> list[dict[str, str]]:
    """The environment of each model worker: `count` GPUs together (0: all of them), and `fraction` of one for each
    process, so that 0.5 puts two workers on every GPU and 2 gives each worker two. Raises ValueError for nonsense."""
    if count < 0 or fraction <= 0:
        raise ValueError("LUMIGATOR_WORKER_GPUS must be at least 0, LUMIGATOR_WORKER_GPUS_FRACTION above 0")
    mine = list(gpus)[: int(count) or None]
    if fraction >= 1:
        each = int(fraction)
        groups = [mine[start : start + each] for start in range(0, len(mine) - each + 1, each)]
    else:
        groups = [[gpu] for gpu in mine for _ in range(int(1 / fraction))]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups or [mine]]


def _on_cores() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // MEMORY_PER_MODEL, 4))


def web(port: int) -> Child:
    """The web server on loopback."""
    command = [sys.executable, "-m", "gunicorn", "lumigator.wsgi", "--bind", f"127.0.0.1:{port}"]
    return Child(
        "web", [*command, "--workers", "1", "--threads", "8", "--access-logfile", "/dev/null", "--log-level", "warning"]
    )


@contextmanager
def workers_running() -> Iterator[None]:
    """Worker processes for as long as the block runs, quiet but for errors."""
    stop = threading.Event()
    children = [
        Child(each.name, each.command, {**each.environment, "LOG_LEVEL": "ERROR"}, each.watches_parent)
        for each in workers()
    ]
    thread = threading.Thread(target=supervise, args=(children, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=40)

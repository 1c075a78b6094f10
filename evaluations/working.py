"""Working is the life of a worker process: hear the bell, claim, do, renew, sweep, stop in time.

One process serves one or more queues. Dramatiq brings the bells; three threads of our own keep the promises that no
broker makes: the renewer (leases), the sweeper (what crashes left) and the poller (work nobody rang for).
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dramatiq
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.db.models.functions import Now
from redis.exceptions import RedisError

from datasets_app import ingesting
from evaluations import calling, completing, leasing, planning, probing, running, scoring, selfchecking, sweeping
from evaluations.finalizing import finalize
from evaluations.leasing import Fenced, Lease
from evaluations.models import Candidate, Worker
from evaluations.warming import WarmModel, WarmModels
from lumigator import doorbell
from models_registry.hosting import HostCancelled
from models_registry.providers import ProviderError

log = logging.getLogger(__name__)
ONLINE_SECONDS = 30.0
"""So long online requests may hold up an experiment before its next unit."""
SHARE_SECONDS = 60.0
"""After this long on one candidate the bell is rung again, so that runs and teams take turns."""
THREADS = {"gpu": 1, "api": 4, "cpu": 1}
STOP_SECONDS = 20.0
OPENINGS = 6
"""A model that cannot be opened so often in a row stops its candidate, whatever the error said of trying again."""

_current: WorkerProcess | None = None


def current() -> WorkerProcess:
    """The worker of this process. Raises RuntimeError outside of one."""
    if _current is None:
        raise RuntimeError("this process is no worker: start one with `lumigator worker --queue cpu`")
    return _current


class WorkerProcess:
    """See the module. `run()` returns when `stop()` was called or SIGTERM arrived."""

    def __init__(self, queues: tuple[str, ...]) -> None:
        global _current
        self.queues = queues
        # In a container the host's name and the number of the process are the same after a restart.
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}:{'+'.join(queues)}"
        self.models = WarmModels()
        self._stopping = threading.Event()
        self._stop_at = float("inf")
        self._held: dict[int, Lease] = {}
        self._lock = threading.Lock()
        self._alone = threading.Semaphore(sum(THREADS[queue] for queue in queues))
        _current = self

    # --- life ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        signal.signal(signal.SIGINT, lambda *_: self.stop())
        Worker.objects.update_or_create(
            name=self.name,
            defaults={"queues": list(self.queues), "stopped_at": None, "seen_at": Now(), "has_gpu": _has_gpu()},
        )
        threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (
                ("renewer", lambda: self._every(settings.RENEW_SECONDS, self._renew)),
                ("sweeper", lambda: self._every(settings.SWEEP_SECONDS, self._sweep)),
                ("poller", lambda: self._every(settings.SWEEP_SECONDS, self._poll)),
            )
        ]
        # Prefetching would let one worker hoard bells that an idle one could answer.
        os.environ.setdefault("dramatiq_queue_prefetch", "1")
        ears = dramatiq.Worker(
            doorbell.broker,
            queues=set(self.queues),
            worker_timeout=100,  # how long an idle worker may sleep over an online request
            worker_threads=sum(THREADS[queue] for queue in self.queues),
        )
        for thread in threads:
            thread.start()
        ears.start()
        log.info("worker %s is ready", self.name)
        self._stopping.wait()
        ears.stop(timeout=int(STOP_SECONDS * 1000))
        self.models.close()
        close_old_connections()
        Worker.objects.filter(name=self.name).update(stopped_at=Now())
        connection.close()
        log.info("worker %s has stopped", self.name)

    def stop(self) -> None:
        """Stop claiming; finish the current batch or call, for at most STOP_SECONDS; give the rest back."""
        self._stop_at = min(self._stop_at, time.monotonic() + STOP_SECONDS * 0.6)
        self._stopping.set()

    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def _must_drop(self) -> bool:
        """Whether even the batch in hand must be given up."""
        return time.monotonic() > self._stop_at

    def _is_asked(self, queue: str) -> bool:
        """Whether somebody waits online for a model of the kind that runs one after the other."""
        return queue == "gpu" and completing.are_asked([queue])

    def _must_yield(self, model: WarmModel) -> bool:
        """Whether to begin no further batch: the worker stops, or somebody waits online."""
        return self.is_stopping() or (model.host is not None and self._is_asked("gpu"))

    def _every(self, seconds: float, step: Callable[[], None]) -> None:
        """Do `step` again and again, some jitter apart, whatever the database does meanwhile."""
        while not self._stopping.wait(seconds * random.uniform(0.8, 1.2)):
            try:
                close_old_connections()
                step()
            except (OperationalError, InterfaceError) as exc:
                log.warning("the database does not answer (%s); trying again", str(exc).strip().splitlines()[0])
                connection.close()
            except Exception:
                log.exception("a background step failed; trying again")

    def _renew(self) -> None:
        with self._lock:
            held = list(self._held.values())
        leasing.renew(held)

    def _sweep(self) -> None:
        Worker.objects.filter(name=self.name).update(seen_at=Now())
        sweeping.sweep()
        completing.mend()

    def _poll(self) -> None:
        """Ring for ready work whose bell was lost; with Redis gone, do one piece of it here."""
        for queue in self.queues:
            rings = completing.are_asked([queue]) and not doorbell.send("complete", queue, queue)
            if rings and self._alone.acquire(blocking=False):
                try:
                    self.complete(queue)
                finally:
                    self._alone.release()
        if "cpu" in self.queues and selfchecking.are_asked():
            doorbell.send("selfcheck", "cpu")
        for work in sweeping.waiting(self.queues):
            if self.is_stopping():
                return
            if self._someone_will_hear(work.queue):
                continue
            actor, args = work.bell
            if not doorbell.send(actor, work.queue, *args) and self._alone.acquire(blocking=False):
                try:
                    self.do(work)
                finally:
                    self._alone.release()

    def _someone_will_hear(self, queue: str) -> bool:
        """Whether unheard bells still lie in the queue, so that another one would only add to them."""
        try:
            return bool(doorbell.broker.client.llen(f"{doorbell.broker.namespace}:{queue}"))
        except RedisError:
            return False

    # --- work ---------------------------------------------------------------------------------------------------

    def do(self, work: sweeping.Waiting) -> None:
        """What the actor of this work's bell would do."""
        actor, args = work.bell
        getattr(self, actor)(*args)

    def plan(self, experiment: int) -> None:
        self._all("plan", planning.plan, experiment=experiment)

    def score(self, experiment: int, metric: str) -> None:
        self._all("score", scoring.score, experiment=experiment, metric=metric)

    def complete(self, queue: str) -> None:
        if queue in self.queues:
            completing.complete(self.name, [queue], self.models, self.is_stopping)

    def import_dataset(self, dataset: int) -> None:
        ingesting.run(dataset, self.name, self.is_stopping)

    def selfcheck(self) -> None:
        selfchecking.do_asked(self.name)

    def check(self, check: int) -> None:
        probing.probe(check, self.name, self.models, self.is_stopping)

    def finalize(self, experiment: int) -> None:
        self._all("finalize", finalize, experiment=experiment)

    def _all(self, kind: str, do: Callable[[Lease], None], **which: int | str) -> None:
        """Claim and do units of one kind until none is ready."""
        near = -1 if kind == "score" else None
        while not self.is_stopping():
            if completing.are_asked(self.queues):
                completing.complete(self.name, self.queues, self.models, self.is_stopping, ONLINE_SECONDS)
            lease = leasing.claim(kind, self.name, near=near, **which)  # type: ignore[arg-type]
            if lease is None:
                return
            near = lease.unit.lo if kind == "score" else None
            with self._keeping(lease):
                try:
                    do(lease)
                except Fenced as exc:
                    log.warning("%s", exc)
                except (OperationalError, InterfaceError):
                    raise
                except Exception as exc:
                    log.exception("%s unit %s failed", kind, lease.unit.pk)
                    _give_back_broken(lease, exc)

    def advance(self, candidate_id: int) -> None:
        """Generate for one candidate until nothing is ready, the time share is used up, or the worker stops."""
        began = time.monotonic()
        queue = Candidate.objects.filter(pk=candidate_id).values_list("queue", flat=True).first()
        if queue not in self.queues:
            return
        while not self.is_stopping():
            if self._is_asked(queue):
                completing.complete(self.name, [queue], self.models, self.is_stopping, ONLINE_SECONDS)
            lease = leasing.claim("generate", self.name, candidate=candidate_id)
            if lease is None:
                return
            with self._keeping(lease):
                self._generate(lease)
            if time.monotonic() - began > SHARE_SECONDS:
                doorbell.send("advance", queue, candidate_id)
                return

    def _generate(self, lease: Lease) -> None:
        # Read anew for each unit: the key, the address or the reason to stop may have changed since the last.
        candidates = Candidate.objects.select_related("experiment", "connection")
        candidate = candidates.get(units=lease.unit.pk)
        try:
            model = self._open(lease, candidate)
            if model is not None:
                running.generate(lease, candidate, model, lambda: self._must_yield(model), self._must_drop)
        except Fenced as exc:
            log.warning("%s", exc)
        except leasing.Stopped:
            leasing.release(lease, attempted=False)
        except ProviderError as exc:
            if exc.failure == "stop":
                running.stop_candidate(candidate, exc)
            else:
                running.crash(lease, exc)
        except (OperationalError, InterfaceError):
            raise
        except Exception as exc:
            log.exception("generate unit %s failed", lease.unit.pk)
            _give_back_broken(lease, exc)

    def _open(self, lease: Lease, candidate: Candidate) -> WarmModel | None:
        """The candidate's model, ready; None when it could not be opened now and the unit was given back for later.
        Raises ProviderError("stop") when it never will be, Stopped when there is no use for it any more."""
        if candidate.problem:
            raise ProviderError(candidate.problem, code=candidate.problem_code, failure="stop")
        try:
            calling.refuse_by_policy(candidate)
            return self.models.get(candidate, lambda: lease.must_stop or self.is_stopping())
        except HostCancelled:
            raise leasing.Stopped from None
        except ProviderError as exc:
            if exc.failure == "stop":
                raise
            if lease.unit.attempts >= OPENINGS:
                raise ProviderError(str(exc), code=exc.code, failure="stop") from None
            log.warning("candidate %s: %s", candidate.pk, exc)
            leasing.release(lease, after=exc.retry_after or 10.0)
            return None

    @contextmanager
    def _keeping(self, lease: Lease) -> Iterator[None]:
        """The renewer keeps this lease until the block ends."""
        with self._lock:
            self._held[lease.unit.pk] = lease
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(lease.unit.pk, None)


def _has_gpu() -> bool:
    """Whether this process may use an NVIDIA GPU; asked of the system, for torch takes seconds to import."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and any(Path("/dev").glob("nvidia[0-9]*"))


def _give_back_broken(lease: Lease, exc: Exception) -> None:
    """A bug met this unit: count it like a crash, so that it is tried again, but not for ever."""
    from evaluations import poison

    poison.crashed(lease.unit.pk, lease.epoch, code="bug", message=f"{type(exc).__name__}: {exc}"[:300])

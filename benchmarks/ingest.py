"""Ingest: a file becomes a dataset, database included, against pyarrow that only reads the same file.

What pyarrow leaves out: checking rows, hashing, the profile, storing the file, PostgreSQL with its indexes. The floor
that is printed beside it is a bare COPY of the same rows into the same table. Every dataset is compared with its file:
the number of rows and a digest over them all.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.reporting import Row, run

ROOT = Path(__file__).resolve().parents[1]
ROWS, QUICK_ROWS = 1_000_000, 50_000
WORDS = 150  # a document of about 900 bytes, and a reference of 20 words
TARGET_SECONDS, TARGET_MEMORY, TARGET_RATIO = 180.0, 300.0, 0.25
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"


def vocabulary(random_: random.Random) -> list[str]:
    lengths = random_.choices(range(2, 11), [4, 9, 9, 7, 5, 4, 3, 2, 1], k=5000)
    return ["".join(random_.choices(LETTERS, range(26, 0, -1), k=length)) for length in lengths]


def documents(n: int) -> Iterator[dict[str, Any]]:
    """`n` rows of made-up words that differ from each other; some with quotes, line breaks and accents."""
    random_ = random.Random(7)
    words = vocabulary(random_)
    for i in range(n):
        text = " ".join(random_.choices(words, k=WORDS))
        if i % 10 == 0:
            text = f'He said, "{text[:40]}",\nand went on: {text[40:]} – naïve café {i}'
        yield {
            "id": f"d{i}",
            "examples": text,
            "ground_truth": " ".join(random_.choices(words, k=20)),
            "kind": f"k{i % 7}",
        }


def write(path: Path, n: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, ["id", "examples", "ground_truth", "kind"])
            writer.writeheader()
            writer.writerows(documents(n))
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in documents(n))


def read_by_pyarrow(path: Path) -> None:
    from pyarrow import csv as arrow_csv
    from pyarrow import json as arrow_json

    if path.suffix == ".csv":
        table = arrow_csv.read_csv(path, parse_options=arrow_csv.ParseOptions(newlines_in_values=True))
    else:
        table = arrow_json.read_json(path)
    assert table.num_columns == 4


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


WORKER = """
import json, resource, sys, threading, time
from pathlib import Path
import django
django.setup()
from datasets_app import ingesting
from evaluations import working  # what a worker has loaded

def peak(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max([int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")], default=0.0)

child = 0.0
def look():
    global child
    while True:
        for children in Path("/proc/self/task").glob("*/children"):
            child = max([child, *map(peak, children.read_text().split())])
        time.sleep(0.1)

threading.Thread(target=look, daemon=True).start()
before, began = time.process_time(), time.perf_counter()
ingesting.run(int(sys.argv[1]), "benchmark")
seconds = time.perf_counter() - began
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
cpu = sum(each.ru_utime + each.ru_stime for each in used) - before
print(json.dumps([seconds, cpu, peak("self"), child]))
"""


def imported(dataset: int) -> tuple[float, float, float, float]:
    """Import it in a process of its own: seconds, seconds of processor (without PostgreSQL's), and the peak resident
    MiB of it and of its reading child."""
    done = subprocess.run([sys.executable, "-c", WORKER, str(dataset)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, cpu, ours, child = json.loads(done.stdout.splitlines()[-1])
    return seconds, cpu, ours, child


def digest(rows: Iterator[tuple[str, str, list[str], dict[str, str]]]) -> tuple[int, str]:
    hashed, n = sha256(), 0
    for row in rows:
        hashed.update(json.dumps(row, ensure_ascii=False).encode())
        n += 1
    return n, hashed.hexdigest()


def stored(dataset: Any) -> tuple[int, str]:
    rows = dataset.examples.order_by("index").values_list("key", "source", "references", "tags")
    return digest(iter(rows.iterator(chunk_size=2000)))


def written(n: int) -> tuple[int, str]:
    return digest((row["id"], row["examples"], [row["ground_truth"]], {"kind": row["kind"]}) for row in documents(n))


def measure(quick: bool) -> Iterator[Row]:
    home = Path(tempfile.mkdtemp(prefix="lumigator-bench-"))
    home.chmod(0o755)  # run as root, PostgreSQL's own account must be able to enter it
    os.environ.update(LUMIGATOR_HOME=str(home), DJANGO_SETTINGS_MODULE="lumigator.settings", OMP_NUM_THREADS="1")
    from lumigator import embedded

    try:
        with embedded.attach():
            import django

            django.setup()
            yield from _measured(home, QUICK_ROWS if quick else ROWS)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _measured(home: Path, n: int) -> Iterator[Row]:
    from django.core.files.base import File
    from django.core.files.storage import default_storage

    from datasets_app import deleting
    from datasets_app.ingest import accept
    from datasets_app.reading import Columns
    from datasets_app.storing import digest as measured
    from lumigator.laptop import prepare

    team, owner = prepare()
    columns = Columns("examples", ("ground_truth",), "id", tags=("kind",))
    expected = written(n)
    for name in ("csv", "jsonl"):
        path = home / f"rows.{name}"
        write(path, n)
        theirs = min(timed(lambda path=path: read_by_pyarrow(path))[0] for _ in range(2))
        with path.open("rb") as stream:
            found = measured(stream)
            key = default_storage.save(f"pending/{path.name}", File(stream))
        dataset = accept(
            team=team, user=owner, name=name, upload=key, digest=found, columns=columns, privacy="any",
            file_name=path.name,
        )  # fmt: skip
        ours, cpu, worker, child = imported(dataset.pk)
        dataset.refresh_from_db()
        equal = dataset.is_ready and stored(dataset) == expected
        size = f"{n:,} rows, {found.n_bytes / 1e6:,.0f} MB"
        note = f"{n / ours:,.0f} rows/s, {cpu:.1f} s of processor" if dataset.is_ready else dataset.problem
        yield Row(
            f"{name}: file to dataset, {size}", f"pyarrow.{name[:4]}", ours, theirs, "s", TARGET_RATIO, equal, note=note
        )
        yield Row(
            f"{name}: within {TARGET_SECONDS:.0f} s for a million", "limit", ours * ROWS / n, TARGET_SECONDS, "s", 1.0
        )
        yield Row(f"{name}: peak memory of the worker", "limit", worker, TARGET_MEMORY, "MiB", 1.0)
        yield Row(f"{name}: peak memory of the reading child", "limit", child, TARGET_MEMORY, "MiB", 1.0)
        yield Row(f"{name}: a bare COPY of these rows", "ours", ours, _bare_copy(team, dataset, n), "s")
        deleting.delete(dataset)
        path.unlink()


def _bare_copy(team: Any, dataset: Any, n: int) -> float:
    """Seconds that PostgreSQL takes for these rows alone, with its indexes, checks and triggers."""
    from django.db import transaction

    from datasets_app.batching import copy_rows
    from datasets_app.models import Dataset
    from datasets_app.reading import Row as Example

    other = Dataset.objects.create(team=team, name="bare", sha256="")
    seconds, batch = 0.0, []
    for i, row in enumerate(documents(n)):
        batch.append(Example(i, row["examples"], [row["ground_truth"]], row["id"], "", {"kind": row["kind"]}))
        if len(batch) == 5000 or i == n - 1:
            began = time.perf_counter()
            with transaction.atomic():
                copy_rows(other.pk, i + 1 - len(batch), batch)
            seconds += time.perf_counter() - began
            batch = []
    other.examples.all()._raw_delete(other.examples.db)
    return seconds


if __name__ == "__main__":
    run("ingest", measure)

"""A file is read by a child with limits: the same rows come out, and whatever kills the child becomes one problem."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_app import confining
from datasets_app.confining import confined
from datasets_app.formats import Problem
from datasets_app.framing import framed, packed
from datasets_app.mapping import Columns
from datasets_app.reading import Row, Table

HERE = Path(__file__).resolve()
ROWS = [
    {"examples": f"text {n} é 𝄞", "ground_truth": ["a", f"b{n}"], "id": n, "kind": [None, "x"][n % 2]}
    for n in range(2500)
]
COLUMNS = Columns("examples", ("ground_truth",), "id", "", ("kind",))


def jsonl(rows) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


@pytest.fixture
def file(tmp_path):
    """Writes bytes to a file and gives its path."""

    def write(data: bytes) -> Path:
        (tmp_path / "file").write_bytes(data)
        return tmp_path / "file"

    return write


def last_problem(path, **limits) -> Problem:
    with confined(path, **limits) as table:
        *_, problem = table.rows(table.guess())
    return problem


def test_the_same_comes_out_as_without_a_child(file):
    data = jsonl([*ROWS, {"examples": 5}, {"id": 2500}])
    plain = Table(io.BytesIO(data))
    with confined(file(data)) as table:
        for name in ("header", "header_row", "format_name", "is_packed", "first", "problems", "left_out", "notes"):
            assert getattr(table, name) == getattr(plain, name), name
        assert table.guess() == plain.guess()
        assert list(table.preview(COLUMNS)) == list(plain.preview(COLUMNS))
        assert table.bytes_read <= len(data)
        found = list(table.rows(COLUMNS))
        assert table.bytes_read == len(data)
    assert found == list(plain.rows(COLUMNS))
    assert len(found) == 2502
    assert isinstance(found[0], Row)
    assert isinstance(found[-1], Problem)


def test_every_format_is_read_by_the_child(file, tmp_path):
    data = gzip.compress(jsonl(ROWS))
    with confined(file(data)) as table:
        assert (table.is_packed, len(list(table.rows(COLUMNS)))) == (True, 2500)
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), out)
    with confined(file(out.getvalue())) as table:
        assert (table.format_name, len(list(table.rows(COLUMNS)))) == ("parquet", 2500)
        assert table.bytes_read > 0
    with (
        pa.OSFile(str(tmp_path / "data.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, pa.Table.from_pylist(ROWS).schema) as to,
    ):
        to.write_table(pa.Table.from_pylist(ROWS))
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    with confined(tmp_path) as table:
        assert [row.source for row in table.rows(COLUMNS)] == [row["examples"] for row in ROWS]


def test_an_open_file_is_read_from_its_beginning_and_its_position_left_alone(file):
    with file(b"examples\nhello there\n").open("rb") as opened:
        opened.seek(5)
        with confined(opened) as table:
            opened.seek(3)
            assert [row.source for row in table.rows(table.guess())] == ["hello there"]
        assert opened.tell() == 3


def test_a_file_without_a_descriptor_is_copied():
    with confined(io.BytesIO(b"examples\nhello there\n")) as table:
        assert [row.source for row in table.rows(table.guess())] == ["hello there"]


def test_a_wrong_mapping_costs_no_child(file):
    with confined(file(b"a,b\none,two\n")) as table:
        (problem,) = table.rows(table.guess())
        assert "No column is known" in problem.message
        assert [row.source for row in table.rows(Columns("b"))] == ["two"]


def test_what_the_child_may_not_do_it_cannot(tmp_path, monkeypatch):
    """The child's own look at itself, behind its limits."""
    monkeypatch.setenv("LUMIGATOR_SECRET_KEY", "hidden")
    monkeypatch.setenv("DATABASE_URL", "postgres://u:hidden@db/x")
    code = f"""
        import json, os, resource, socket, sys
        from datasets_app import confining, reading
        alone = []
        def looked(source, split):
            limits = [resource.getrlimit(getattr(resource, "RLIMIT_" + one))[0] for one in "CORE FSIZE AS CPU".split()]
            facts = {{"alone": alone[0], "env": dict(os.environ), "limits": limits}}
            try:
                facts["interfaces"] = [name for _, name in socket.if_nameindex()]
                open({str(tmp_path / "written")!r}, "wb").write(b"x" * 100_000)
            except OSError as error:
                facts["error"] = error.errno
            raise SystemExit(json.dumps(facts))
        confining.Table = looked
        leave = confining.leave_the_network
        confining.leave_the_network = lambda: alone.append(leave())
        confining.main(int(sys.argv[1]), int(sys.argv[2]))
    """
    reader, lifeline = os.pipe()
    asked = packed({"split": "", "memory": 1 << 30, "cpu": 77})
    environment = {**confining.bare_environment(os.environ), **confining.FIXED}
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code), "0", str(reader)],
        input=asked, capture_output=True, env=environment, pass_fds=(reader,), timeout=60,
    )  # fmt: skip
    os.close(reader)
    os.close(lifeline)
    facts = json.loads(done.stderr)
    assert "hidden" not in str(facts["env"])
    assert facts["limits"] == [0, 64 * 1024, 1 << 30, 77]
    assert facts["error"] == 27  # EFBIG
    assert facts["interfaces"] == ["lo"] or not facts["alone"]


def test_a_file_that_needs_too_much_memory_is_refused_in_words(file):
    row = json.dumps({"examples": "word " * 2_000_000})
    problem = last_problem(file(row.encode()), memory_bytes=60 << 20)
    assert problem.message == "The file needs more memory to read than is allowed (60 MiB)."
    assert problem.where == "file"


def test_a_parquet_file_that_needs_too_much_memory_is_refused_in_words(file):
    """One text of 40 MB: little for zstd, and within the ratio thanks to a column of noise."""
    noise = pa.array([os.urandom(1_000_000).hex()])
    out = io.BytesIO()
    table = pa.table({"examples": ["x" * 40_000_000], "noise": noise})
    pq.write_table(table, out, compression="zstd", use_dictionary=False, write_statistics=False)
    problem = last_problem(file(out.getvalue()), memory_bytes=350 << 20)
    assert "needs more memory" in problem.message


def test_a_file_that_takes_too_long_is_refused_in_words(file):
    problem = last_problem(file(b'{"examples": "a b"}\n' * 1_000_000), cpu_seconds=1)
    assert problem.message == "The file takes more than 1 s of computing time to read."


def killed(child, number) -> None:
    os.kill(child.process.pid, number)
    child.process.wait()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "needs more memory"),
        (signal.SIGSEGV, "broke down over it (SIGSEGV)"),
        (signal.SIGXCPU, "computing time"),
    ],
)
def test_the_death_of_the_child_is_told(file, number, message):
    with confined(file(jsonl(ROWS))) as table:
        killed(table._child, number)
        found = list(table.rows(COLUMNS))
    assert message in found[-1].message
    assert found[-1].cure


def test_a_child_that_says_nothing_is_ended(file):
    with confined(file(jsonl(ROWS))) as table:
        os.kill(table._child.process.pid, signal.SIGSTOP)
        table._child.hang_seconds = 0.2
        (problem,) = table.rows(COLUMNS)
        assert problem.message == "Reading the file did not get on and was stopped."
        assert not table._child.lives


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\2{]",
        b"\0\0\0\1\xff",
        b"\0\0\0\1[",
        b"\0\0\0\1" + b"5",
        packed({"other": 1}),
        *(
            packed({"batch": [one], "read": 5}) + framed("text")
            for one in ([1], 7, {"row": 1}, [1, 99, [], "", "", {}, {}], ["1", 4, [], "", "", {}, {}],
                        [1, 4, [], 5, "", {}, {}], [1, -1, [], "", "", {}, {}], [1, 2, [], "", "", {}, {}])
        ),
    ],
)  # fmt: skip
def test_a_frame_that_is_none_ends_the_child(file, frame):
    with confined(file(jsonl(ROWS))) as table:
        child = table._child
        child.process.stdout.close()
        reader, writer = os.pipe()
        os.write(writer, frame)
        os.close(writer)
        child.process.stdout = os.fdopen(reader, "rb", buffering=0)
        (problem,) = table.rows(COLUMNS)
    assert "broke down over it (a frame" in problem.message


def test_leaving_early_ends_the_child(file):
    with confined(file(jsonl(ROWS * 20))) as table:
        pid = table._child.process.pid
        next(table.rows(COLUMNS))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_child_ends_with_its_parent(file):
    """The parent is killed while its child waits for what to read."""
    path = file(jsonl(ROWS))
    code = f"""
        import time
        from pathlib import Path
        from datasets_app.confining import confined
        with confined(Path({str(path)!r})) as table:
            print(table._child.process.pid, flush=True)
            time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, cwd=HERE.parents[2]
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while _is_alive(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
    parent.stdout.close()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_line_of_two_hundred_megabytes_is_given_up(tmp_path):
    """Sparse: the disk holds next to nothing of it."""
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.write(b'{"examples": "' + b"word " * 20_000)
        file.truncate(200 << 20)
    problem = last_problem(path)
    assert "longer than 16 million characters" in problem.message


def test_a_pipe_is_copied_first():
    reader, writer = os.pipe()
    os.write(writer, b"examples\nhello there\n")
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe, confined(pipe) as table:
        assert [row.source for row in table.rows(table.guess())] == ["hello there"]

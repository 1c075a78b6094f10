"""The model host: nothing of the worker's leaks in, and nothing that happens inside takes the worker down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from models_registry.hosting import HostCancelled, HostDied, ModelHost, child_environment, without_quotes
from models_registry.providers import ProviderError, Request
from models_registry.testing import text

FAULTS = {
    "SEGFAULT": "segfault", "EXIT": "exit", "HANG": "hang", "STUCK": "hang_in_c", "STOP": "stop", "RAISE": "exception",
    "ENVIRONMENT": "show_environment", "NETWORK": "network",
}  # fmt: skip


@pytest.fixture
def host(fakes_on):
    hosts = []

    def start(hang_seconds=30, **options):
        spec = {"uri": "fakehost://x", "options": {"faults": FAULTS, "text": "{source}", **options}}
        hosts.append(ModelHost("fakehost", spec, hang_seconds=hang_seconds))
        hosts[-1].start()
        return hosts[-1]

    yield start
    for each in hosts:
        each.close()


def run(host, *sources, **arguments):
    requests = [Request(key, source) for key, source in enumerate(sources)]
    return {output.key: output for batch in host.generate(requests, **arguments) for output in batch}


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def test_outputs_come_back_by_the_batch_each_announced_before(host):
    story = []
    model = host(batch=2)
    requests = [Request(key, "word " * (key + 1)) for key in range(5)]
    for batch in model.generate(requests, lambda keys: story.append(("starting", keys))):
        story.append(("outputs", [output.key for output in batch]))
    assert story == [(event, keys) for keys in ([4, 3], [2, 1], [0]) for event in ("starting", "outputs")]


def test_any_text_crosses_the_pipe_intact(host):
    odd = "line\nbreak \0 \ud800 😀 \u2028"
    assert run(host(), odd)[0].text == odd


def test_stray_prints_do_not_disturb_the_outputs(host):
    model = host(prints='\0\0\0\5{"event": "done"}')
    assert run(model, "one", "two")[1].text == "two"
    assert model.alive


def test_the_child_sees_no_secret_and_no_network(host, monkeypatch):
    for name in ("OPENAI_API_KEY", "LUMIGATOR_SECRET_KEY", "DATABASE_URL", "HF_TOKEN", "OMP_SECRET", "AWS_PROFILE"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = host()
    seen = run(model, "ENVIRONMENT")[0].error
    assert "HF_HUB_OFFLINE" in seen
    assert "OMP_NUM_THREADS" in seen
    with open(f"/proc/{model.pid}/environ") as file:
        assert "canary" not in file.read()
    assert not any(name in seen for name in ("OPENAI", "LUMIGATOR", "DATABASE", "TOKEN", "SECRET", "AWS"))
    if model.describe()["network"] == "none":
        assert "unreachable" in run(model, "NETWORK")[0].error


def test_the_environment_is_an_allow_list():
    kept = child_environment(
        {"PATH": "/bin", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "0", "CUDA_API_KEY": "x", "FOO": "x"}
    )
    assert kept["PATH"] == "/bin"
    assert kept["CUDA_VISIBLE_DEVICES"] == "0"
    assert not {"FOO", "CUDA_API_KEY"} & kept.keys()


@pytest.mark.parametrize(("marker", "says"), [("SEGFAULT", "SIGSEGV"), ("EXIT", "exit status 3")])
def test_a_crash_costs_a_host_and_a_new_one_works(host, marker, says):
    model, started = host(), []
    with pytest.raises(HostDied, match=says) as caught:
        run(model, f"{marker} and the private words of the document", on_starting=started.append)
    assert (caught.value.code, caught.value.failure) == ("worker_crash", "retry")
    assert started == [[0]]
    assert "private words" not in str(caught.value)
    assert not model.alive
    model.start()
    assert run(model, "fine")[0].text == "fine"


@pytest.mark.parametrize("marker", ["HANG", "STUCK"])
def test_a_hang_is_ended(host, marker):
    model = host(hang_seconds=0.5)
    with pytest.raises(HostDied) as caught:
        run(model, marker)
    assert caught.value.code == "hang"
    assert is_gone(model.pid)


def test_cancelling_ends_the_child_within_a_second(host):
    model = host()
    began = time.monotonic()
    with pytest.raises(HostCancelled):
        run(model, "HANG", cancelled=lambda: time.monotonic() - began > 0.2)
    assert time.monotonic() - began < 1.5
    assert is_gone(model.pid)


def test_leaving_the_loop_ends_the_child(host):
    model = host(batch=1)
    for _ in model.generate([Request(1, "one two"), Request(2, "HANG")]):
        break
    assert wait_until(lambda: is_gone(model.pid))


def test_a_providers_error_crosses_intact_and_the_child_lives_on(host):
    model = host()
    with pytest.raises(ProviderError) as caught:
        run(model, "STOP")
    assert not isinstance(caught.value, HostDied)
    assert (caught.value.code, caught.value.failure, str(caught.value)) == ("fake_stop", "stop", "the script says stop")
    assert run(model, "fine")[0].text == "fine"


def test_an_exception_is_bisected_down_to_its_example(host):
    outputs = run(host(), "a", "RAISE", "b", "c")
    assert [outputs[key].status for key in range(4)] == ["ok", "error", "ok", "ok"]


def test_only_host_providers_are_hosted():
    with pytest.raises(ProviderError) as caught:
        ModelHost("baseline", {"uri": "baseline://lead-3"}).start()
    assert caught.value.code == "unknown_provider"


def test_closing_lets_the_child_go(host):
    model = host()
    model.close()
    assert is_gone(model.pid)
    with pytest.raises(HostDied):
        run(model, "more")


@pytest.mark.parametrize("marker", ["HANG", "STUCK"])
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only calls that release the lock end with the parent")
def test_the_child_ends_with_its_parent_even_inside_a_c_call(marker, fakes_on):
    parent = textwrap.dedent(
        f"""
        from models_registry.hosting import ModelHost
        from models_registry.providers import Request
        host = ModelHost("fakehost", {{"uri": "fakehost://x", "options": {{"faults": {FAULTS!r}}}}})
        host.start()
        list(host.generate([Request(1, {marker!r})], lambda keys: print(host.pid, flush=True)))
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment) as process:
        pid = int(process.stdout.readline())
        time.sleep(0.3)
        assert not is_gone(pid)
        process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: is_gone(pid))


def test_lines_that_quote_a_document_are_left_out():
    request = Request(1, "The council met on\nTuesday to vote.", prompt=None)
    lines = ["IndexError: out of range", "ValueError: 'council met on\\nTuesday to'", "Killed"]
    assert without_quotes(lines, [request]) == [lines[0], "[a line that quotes a document is left out]", lines[2]]


def test_a_real_model_runs_in_a_host(tiny):
    spec = {"uri": "file://root/x", "path": str(tiny("bart")), "generation": {"max_new_tokens": 5}}
    model = ModelHost("huggingface", spec)
    model.start()
    assert model.describe()["model_type"] == "bart"
    output = run(model, text(20))[0]
    assert (output.status, output.output_tokens) == ("ok", 5)
    model.close()


def test_a_model_that_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(ProviderError) as caught:
        ModelHost("huggingface", {"uri": "file://root/x", "path": str(tmp_path)}).start()
    assert (caught.value.code, caught.value.failure) == ("no_weights", "stop")
    assert "config.json is missing" in str(caught.value)

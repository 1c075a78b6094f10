"""The rules of the house, read from the source itself: who may import whom, what no line may say, what a plug-in owes.

DESIGN §2 and §6, SECURITY S1, S7, S13, S18, S25. A rule that no test holds is gone within a year.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = ("lumigator", "datasets_app", "models_registry", "evaluations")
MAY_IMPORT = {
    "evaluations": {"evaluations", "models_registry", "datasets_app", "lumigator"},
    "models_registry": {"models_registry", "lumigator"},
    "datasets_app": {"datasets_app", "lumigator"},
    "lumigator": {"lumigator"},
}
COMPOSITION = {
    f"lumigator.{name}"
    for name in (
        "urls",
        "views",
        "wsgi",
        "cli",
        "asking",
        "laptop",
        "demonstrating",
        "examining",
        "testing",
        "client",
        "admin",
    )
} | {"lumigator.management.commands.lumigator"}
"""What puts the rooms together: these may import the apps, and nobody but themselves may import them."""

PURE = (
    "lumigator/client.py", "lumigator/confinement.py", "lumigator/discovery.py", "lumigator/egress.py",
    "lumigator/supervising.py", "lumigator/embedded/*.py",
    "datasets_app/building.py", "datasets_app/confining.py", "datasets_app/framing.py", "datasets_app/mapping.py",
    "datasets_app/reading.py", "datasets_app/profiling.py", "datasets_app/formats/*.py",
    "datasets_app/cautioning.py", "datasets_app/copying.py", "datasets_app/duplicates.py", "datasets_app/languages.py",
    "datasets_app/lengths.py", "datasets_app/personal_data.py", "datasets_app/sampling.py", "datasets_app/showing.py",
    "datasets_app/supporting.py",
    "models_registry/providers/*.py", "models_registry/hosting.py", "models_registry/transformer.py",
    "models_registry/beam_caching.py", "models_registry/decoding.py", "models_registry/demo_weights.py",
    "models_registry/encoding.py", "models_registry/engines.py", "models_registry/extracting.py",
    "models_registry/translating.py", "models_registry/writing.py",
    "models_registry/fitting.py", "models_registry/hub.py", "models_registry/model_folder.py",
    "models_registry/packing.py", "models_registry/pricing.py", "models_registry/sentences.py",
    "models_registry/shortening.py",
    "models_registry/testing.py", "models_registry/testing_api.py",
    "evaluations/as_evaluate.py", "evaluations/reading_outputs.py",
    "evaluations/metrics/*.py", "evaluations/tasks/*.py", "evaluations/stats.py", "evaluations/resampling.py",
    "evaluations/significance.py", "evaluations/distributions.py", "evaluations/verdicts.py",
    "evaluations/agreeing.py", "evaluations/recommending.py", "evaluations/states.py", "evaluations/alarming.py",
    "evaluations/deciding.py",
    "evaluations/fronts.py", "evaluations/histograms.py", "evaluations/justifying.py",
    "evaluations/reading_metrics.py", "evaluations/slicing.py",
)  # fmt: skip
FRAMEWORK = {"django", "rest_framework", "drf_spectacular", "dramatiq", "csp", "storages", "environ", "django_htmx"}
HEAVY = {"torch", "transformers", "tokenizers", "safetensors", "nltk", "bert_score", "evaluate", "accelerate", "gguf"}
HTTP = {"httpx", "httpx2", "httpcore2", "requests", "urllib3", "aiohttp", "boto3", "botocore", "huggingface_hub"}
MAY_SPEAK_HTTP = {
    "lumigator.egress": "it is the client",
    "lumigator.client": "runs at the user's side and speaks to a Lumigator",
    "lumigator.bucket": "the object store at the address that the operator's environment names, never a user",
    "lumigator.testing_s3": "tests look into that store from outside",
    "models_registry.hub": "the hub's own library, called by name with a time limit",
    "models_registry.providers._chat": "names the errors of the client it is given",
    "models_registry.checking": "names the errors of the client it is given",
}
MAKES_CLIENTS = {"lumigator.egress", "lumigator.client", "lumigator.testing_s3"}
MAY_CONNECT = {
    "lumigator.egress": "it is the client",
    "lumigator.embedded.servers": "asks our own servers on loopback whether they live",
    "lumigator.demonstrating": "asks whether the hub answers at all, sends nothing",
}
RUNS_WHAT_IT_READS = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "litellm"}
ATTICS = re.compile(r"(^|/)(utils?|helpers?|common|misc|services?|managers?)(\.py|/)")


# What is in the house


@cache
def sources() -> dict[str, Path]:
    """{module: file} of the product: tests and migrations are left out."""
    found = {}
    for app in APPS:
        for path in sorted((ROOT / app).rglob("*.py")):
            place = path.relative_to(ROOT)
            if {"tests", "migrations", "__pycache__"} & set(place.parts):
                continue
            parts = place.with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text())


def resolved(module: str, name: str) -> str:
    """`from evaluations import planning` imports a module, `from evaluations.models import Score` a name of one."""
    return name if name in sources() else module


def imports(module: str, within: ast.AST | None = None) -> Iterator[str]:
    """Everything that is imported at any level, in full, but for what only the type checker reads."""
    for node in ast.iter_child_nodes(within or tree(module)):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are absolute here"
            assert node.module
            yield from (resolved(node.module, f"{node.module}.{alias.name}") for alias in node.names)
        yield from imports(module, node)


def imported_when_loaded(module: str, within: ast.AST | None = None) -> Iterator[str]:
    """What importing the module imports: functions are not entered."""
    for node in ast.iter_child_nodes(within or tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        yield from imported_when_loaded(module, node)


@cache
def pure() -> frozenset[str]:
    files = {path for pattern in PURE for path in ROOT.glob(pattern)}
    return frozenset(module for module, path in sources().items() if path in files)


def top(name: str) -> str:
    return name.partition(".")[0]


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if top(name) in APPS}


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    """(the called name as it is written, the call)."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


# Who may import whom


def test_every_rule_still_speaks_of_something() -> None:
    assert [pattern for pattern in PURE if not list(ROOT.glob(pattern))] == []
    named = {*MAY_SPEAK_HTTP, *MAY_CONNECT, *COMPOSITION}
    assert named <= set(sources())


def test_an_app_imports_only_those_below_it() -> None:
    above = {
        module: {name for name in ours(module) if top(name) not in MAY_IMPORT[top(module)]} - pure()
        for module in set(sources()) - COMPOSITION
    }
    assert not {module: names for module, names in above.items() if names}


def test_nobody_imports_what_puts_the_house_together() -> None:
    taken = {module: ours(module) & COMPOSITION for module in set(sources()) - COMPOSITION}
    for app in APPS[1:]:  # the admin of an app stands on the bases in ours
        taken.get(f"{app}.admin", set()).discard("lumigator.admin")
    assert not {module: names for module, names in taken.items() if names}, "hand it in as an argument instead"


def test_pure_code_knows_no_framework_and_only_pure_code() -> None:
    wrong = {}
    for module in pure():
        names = set(imports(module))
        wrong[module] = {name for name in names if top(name) in FRAMEWORK}
        wrong[module] |= {name for name in names if top(name) in APPS} - pure() - set(APPS)
    assert not {module: names for module, names in wrong.items() if names}


def test_heavy_libraries_are_imported_inside_the_function_that_needs_them() -> None:
    early = {module: {name for name in imported_when_loaded(module) if top(name) in HEAVY} for module in sources()}
    assert not {module: names for module, names in early.items() if names}


def test_the_web_process_never_loads_a_model_library() -> None:
    code = (
        "import django, json, sys; django.setup(); import lumigator.urls, lumigator.wsgi; "
        "from models_registry import providers; from evaluations import metrics; "
        "providers.available(); metrics.available(); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "lumigator.settings"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(json.loads(done.stdout))
    assert "evaluations.comparing" in loaded, "or this looked at nothing"
    assert not loaded & {*HEAVY, "openai", "mistralai", "huggingface_hub", "pandas"}


# What no line may say


def test_only_egress_speaks_to_the_outside() -> None:
    wrong = []
    for module in sources():
        spoken = {name for name in imports(module) if top(name) in HTTP or name in ("urllib.request", "http.client")}
        if spoken and module not in MAY_SPEAK_HTTP:
            wrong.append((module, spoken))
        for name, call in calls(module):
            is_client = re.fullmatch(r"httpx2?\.(Async)?Client|boto3\.\w+|\w*HTTPS?Connection", name)
            if is_client and module not in MAKES_CLIENTS:
                wrong.append((module, name, call.lineno))
            if name.endswith("create_connection") and module not in MAY_CONNECT:
                wrong.append((module, name, call.lineno))
    assert not wrong, "use lumigator.egress.client"


def test_no_line_escapes_the_escaping_or_writes_its_own_sql() -> None:
    wrong = []
    for module in sources():
        wrong += [(module, name) for name in imports(module) if name.rpartition(".")[2] in ("mark_safe", "RawSQL")]
        for name, call in calls(module):
            if re.search(r"\.(extra|raw)$|\b(mark_safe|SafeString|SafeText|RawSQL)$", name):
                wrong.append((module, name, call.lineno))
    assert not wrong


def test_nothing_that_runs_what_it_reads() -> None:
    wrong = []
    for module in sources():
        wrong += [(module, name) for name in imports(module) if top(name) in RUNS_WHAT_IT_READS]
        for name, call in calls(module):
            asked = {keyword.arg for keyword in call.keywords if ast.unparse(keyword.value) == "True"}
            if name in ("eval", "exec", "torch.load", "os.system") or asked & {"trust_remote_code", "shell"}:
                wrong.append((module, name, call.lineno))
    assert not wrong


def test_pages_are_cut_by_key_and_never_by_offset() -> None:
    wrong = []
    for module in sources():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and node.slice.lower is not None:
                text = ast.unparse(node.value)
                if re.search(r"\.objects\b|\.(all|filter|exclude|order_by|values|values_list)\(", text):
                    wrong.append((module, node.lineno, text))
    assert not wrong, "this is OFFSET: start after a key instead"


def test_no_template_switches_the_escaping_off() -> None:
    for template in sorted((ROOT / "templates").rglob("*.html")):
        assert not re.search(r"\|\s*safe(seq)?\b|autoescape\s+off", template.read_text()), template


def test_no_module_is_an_attic() -> None:
    places = [str(path.relative_to(ROOT)) for path in sources().values()]
    assert not [place for place in places if ATTICS.search(place)]


def test_a_rule_would_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The readers above, on a module that breaks the rules in the places where one would hide it."""
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from django.db import models\n    import torch\nclass A:\n    import nltk\n")
    monkeypatch.setitem(sources(), "evaluations.bad_for_this_test", bad)
    assert set(imports("evaluations.bad_for_this_test")) == {"django.db", "torch", "nltk"}
    assert set(imported_when_loaded("evaluations.bad_for_this_test")) == {"nltk"}


# What a plug-in owes

PACKAGES = ("evaluations.metrics", "models_registry.providers", "evaluations.tasks", "datasets_app.formats")


def plug_ins() -> Iterator[tuple[str, str]]:
    """(module, what a test would call it)."""
    for package in PACKAGES:
        for module in sorted(sources()):
            parent, _, name = module.rpartition(".")
            if parent == package and not name.startswith("_"):
                yield module, name


@pytest.mark.parametrize(("module", "name"), list(plug_ins()), ids=lambda text: text)
def test_a_plug_in_describes_itself_and_has_a_test(module: str, name: str) -> None:
    package = import_module(module.rpartition(".")[0])
    attribute = {"metrics": "metric", "providers": "provider", "tasks": "task", "formats": "format"}
    plug_in = getattr(import_module(module), attribute[package.__name__.rpartition(".")[2]])
    assert package.available()[plug_in.name] is plug_in
    assert len(plug_in.about) >= 40, f"`about` is what the guide says of {plug_in.name}: a sentence or two"
    assert len(ast.get_docstring(tree(module)) or "") >= 20, f"{module} opens with what it does and its source"
    told = re.compile(rf"\b({re.escape(name)}|{re.escape(plug_in.name)})\b")
    tests = (ROOT / top(module) / "tests").glob("test_*.py")
    assert [path.name for path in tests if told.search(path.read_text())], f"no test speaks of {plug_in.name}"

"""The README keeps its word: its curl lines work as printed, and its tables name what is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from evaluations.tests.engine import work_off
from lumigator.models import ApiToken, Role
from models_registry import catalogue

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
API_BLOCK = next(block for block in re.findall(r"```sh\n(.*?)```", README, re.S) if "alias api=" in block)


def lines() -> list[str]:
    found = [line.split("   #")[0].rstrip() for line in API_BLOCK.splitlines()]
    return [line for line in found if line.startswith(("api ", "curl "))]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.django_db(transaction=True, reset_sequences=True)
def test_every_curl_line_works_as_printed(live_server, alice, atlas):
    catalogue.seed(atlas)
    _, secret = ApiToken.issue(user=alice, team=atlas, name="readme", role=Role.EDITOR)
    environment = {**os.environ, "API": f"{live_server.url}/api/v1", "TOKEN": secret}
    api = 'api() { curl -sS -w "\\n%{http_code}" -H "Authorization: Bearer $TOKEN" "$@"; }; '
    answers = {}
    for line in lines():
        command = line.replace("curl -sS", 'curl -sS -w "\\n%{http_code}"', 1) if line.startswith("curl") else line
        done = subprocess.run(["sh", "-c", api + command], env=environment, cwd=ROOT, capture_output=True, text=True)
        body, _, status = done.stdout.rpartition("\n")
        assert status[:1] == "2", f"{line}\n{status} {body}\n{done.stderr}"
        answers[line] = body
        if "/start/" in line:
            work_off()
    assert any('"recommendation"' in body for line, body in answers.items() if "comparison" in line)


def test_every_verb_has_a_line():
    text = "\n".join(lines())
    for verb in ("-F file=", "--json", "-X PATCH", "-X POST", "-X DELETE"):
        assert verb in text


def test_the_two_commands_are_make_targets():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), f"make {target} is in the README but not in the Makefile"


def test_every_variable_that_the_settings_read_is_in_the_table():
    sources = [ROOT / "lumigator/settings.py", ROOT / "models_registry/catalogue.py"]
    read = {
        name
        for source in sources
        for name in re.findall(r'"((?:LUMIGATOR|POSTGRES|AWS|S3|REDIS)_[A-Z0-9_]+)"', source.read_text())
    }
    table = README[README.index("## Configuration") :]
    shorthand = {f"POSTGRES_{part}" for part in ("PORT", "USER", "PASSWORD", "DB")}
    missing = {name for name in read if f"`{name}`" not in table} - shorthand
    assert not missing


def test_the_tree_names_files_that_exist():
    tree = next(block for block in re.findall(r"```text\n(.*?)```", README, re.S) if "datasets_app/" in block)
    for name in re.findall(r"^    (\w+\.py|\w+/)", tree, re.M):
        places = [ROOT / app / name for app in ("lumigator", "datasets_app", "models_registry", "evaluations")]
        assert any(place.exists() for place in places), f"{name} is in the README's tree but not in the house"

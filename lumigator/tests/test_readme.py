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
API_BLOCK = next(block for block in re.findall(r"```sh\n(.*?)```", README, re.S) if "$API/" in block)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.django_db(transaction=True)
def test_the_curl_lines_work_as_printed(live_server, alice, atlas):
    catalogue.seed(atlas)
    _, secret = ApiToken.issue(user=alice, team=atlas, name="readme", role=Role.EDITOR)
    environment = {**os.environ, "API": f"{live_server.url}/api/v1", "TOKEN": secret}
    lines = API_BLOCK.replace("curl -sS", "curl --fail-with-body -sS").splitlines()[1:]  # the first sets API and TOKEN
    started = next(number for number, line in enumerate(lines) if "/start/" in line) + 1

    def shell(script: list[str]) -> str:
        command = ["sh", "-c", "set -e\n" + "\n".join(script)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        return done.stdout

    said = shell([*lines[:started], 'echo "\n$DATASET $EXPERIMENT"'])
    environment["DATASET"], environment["EXPERIMENT"] = said.split()[-2:]
    work_off()
    assert "baseline/textrank" in shell([lines[0], *lines[started:]])


def test_every_verb_has_a_line():
    for verb in ("-F file=", "--json", "-X PATCH", "-X POST", "-X DELETE"):
        assert verb in API_BLOCK


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

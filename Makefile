# Every target is one line; README.md says what they do. PYTHON chooses the interpreter of the virtual environment.
PYTHON ?= python3
RUN = .venv/bin/python
SHELL = /bin/sh
export PIP_DISABLE_PIP_VERSION_CHECK = 1
.PHONY: demo up test quick chaos lint lock

demo: .venv/bin/python ; @$(RUN) requirements/install.py demo && $(RUN) -m lumigator.cli demo

up: .venv/bin/python ; @$(RUN) requirements/install.py demo && $(RUN) -m lumigator.cli up

test: .venv/bin/python ; @$(RUN) requirements/install.py test && $(RUN) -m pytest

quick: .venv/bin/python ; @$(RUN) requirements/install.py test && $(RUN) -m pytest -m "not chaos and not browser"

chaos: .venv/bin/python ; @$(RUN) requirements/install.py test && $(RUN) -m pytest -m chaos

lint: .venv/bin/python ; @$(RUN) requirements/install.py test && .venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy

lock: ; @requirements/lock.sh

.venv/bin/python: ; @$(PYTHON) -m venv .venv

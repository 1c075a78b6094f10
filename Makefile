# Every target is one line; README.md says what they do. PYTHON chooses the interpreter of the virtual environment.
PYTHON ?= python3
RUN = .venv/bin/python
SHELL = /bin/sh
export PIP_DISABLE_PIP_VERSION_CHECK = 1
.PHONY: demo up test quick chaos bench lint lock

demo: .venv/bin/python ; @$(RUN) requirements/install.py demo && $(RUN) -m lumigator.cli demo

up: .venv/bin/python ; @$(RUN) requirements/install.py demo && $(RUN) -m lumigator.cli up

test: .venv/bin/python ; @$(RUN) requirements/install.py test && $(RUN) -m pytest

quick: .venv/bin/python ; @$(RUN) requirements/install.py test && $(RUN) -m pytest -m "not chaos and not browser"

chaos: .venv/bin/python ; @$(RUN) requirements/install.py test && $(RUN) -m pytest -m chaos

bench: .venv/bin/python ; @$(RUN) requirements/install.py test && for one in scoring inference api ingest statistics; do $(RUN) -m benchmarks.$$one $(BENCH) || exit 1; done

lint: .venv/bin/python ; @$(RUN) requirements/install.py test && .venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy

lock: ; @requirements/lock.sh

.venv/bin/python: ; @$(PYTHON) -m venv .venv

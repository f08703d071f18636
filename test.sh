#!/bin/sh
# Set up what the tests need (first run only), then check everything: ./test.sh [--thorough] [arguments of pytest]
set -eu

root=$(CDPATH='' cd "$(dirname "$0")" && pwd -P)
environment=.venv-test

. "$root/scripts/find_python.sh"
"$python" -E -s "$root/scripts/bootstrap.py" test
cd "$root"
PATH=$root/$environment/bin:$PATH
unset PYTHONDONTWRITEBYTECODE  # the tests start hundreds of programs, each of which would be compiled anew

step() {
  echo "==> $*"
  "$@" || {
    echo "test.sh: this step failed: $*" >&2
    exit 1
  }
}

step ruff format --check .
step ruff check .
step mypy --num-workers 2
step lint-imports --no-cache  # a cache once hid a broken rule
step python -m pytest -n 3 --dist loadfile --no-loadscope-reorder "$@"

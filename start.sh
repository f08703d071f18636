#!/bin/sh
# Set up what AI Lab needs (first run only), then serve it. The work is done by scripts/bootstrap.py.
set -eu

self=$0
while [ -L "$self" ]; do
  target=$(readlink "$self")
  case $target in /*) self=$target ;; *) self=$(dirname "$self")/$target ;; esac
done
root=$(CDPATH='' cd "$(dirname "$self")" && pwd -P)
environment=.venv

. "$root/scripts/find_python.sh"
exec "$python" -E -s "$root/scripts/bootstrap.py" serve "$@"

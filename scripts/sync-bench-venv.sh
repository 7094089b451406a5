#!/bin/sh
# Make an environment exactly what a lock file of benchmarks/ says: sync-bench-venv.sh DIRECTORY LOCK
#
# The main environment lends its uv and its Python.
set -eu
cd "$(dirname "$0")/.."
directory=$1 lock=$2
uv=.venv/bootstrap/bin/uv
if ! "$directory/bin/python" -c 'import sys, os; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath(sys.argv[1]))' "$directory" 2>/dev/null; then
    rm -rf "$directory"
    "$uv" venv --quiet --python .venv/bin/python "$directory"
fi
printf 'Installing %s locked packages into %s\n' "$(grep -c == "$lock")" "$directory" >&2
"$uv" pip sync --quiet --python "$directory/bin/python" --require-hashes --only-binary :all: "$lock"
if "$directory/bin/python" -c 'import hatchling' 2>/dev/null; then
    "$uv" pip install --quiet --python "$directory/bin/python" --no-deps --no-build-isolation --editable .
fi
touch "$directory/.synced"

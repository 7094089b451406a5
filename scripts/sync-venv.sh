#!/bin/sh
# Make .venv exactly what requirements.lock says. Needs python3 >= 3.11 and nothing else.
#
# uv does the installing (seconds instead of minutes); it is itself fetched, by pip, with its hash
# checked, into .venv/bootstrap, so that `uv pip sync` below does not count it as foreign.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
say() { printf '%s\n' "$*" >&2; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "This project needs Python 3.11 or newer; $PYTHON is $("$PYTHON" --version 2>&1)."
    say "Install one, then run: make PYTHON=/path/to/python3.12 demo"
    exit 1
}

if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian and Ubuntu split the standard library's venv support into a package of its own.
    package=$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "This python3 comes without ensurepip: installing $package with apt-get."
        { apt-get -qq update && apt-get -qq install -y --no-install-recommends "$package"; } >/dev/null
    else
        say "This python3 comes without ensurepip. Next step: sudo apt-get install $package"
        exit 1
    fi
fi

# A virtual environment does not survive being moved or losing its interpreter: make it anew then.
if ! .venv/bin/python -c 'import sys, os; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath(".venv"))' 2>/dev/null; then
    say "Creating .venv with $("$PYTHON" --version)"
    rm -rf .venv
    "$PYTHON" -m venv .venv
fi

if ! .venv/bootstrap/bin/uv --version >/dev/null 2>&1; then
    say "Fetching uv"
    rm -rf .venv/bootstrap
    .venv/bin/python -m ensurepip >/dev/null 2>&1 || true
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        --target .venv/bootstrap -r requirements-bootstrap.lock
fi

say "Installing $(grep -c == requirements.lock) locked packages (about 1.5 GB on disk)"
uv=.venv/bootstrap/bin/uv
"$uv" pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
touch .venv/.synced

#!/bin/sh
# The browser tests drive Debian's Chromium. Install it where we may; elsewhere say what to do.
set -eu
command -v chromium >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing chromium with apt-get, for the browser tests" >&2
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium; } >/dev/null
else
    echo "No chromium: the browser tests are skipped. To run them: sudo apt-get install chromium" >&2
fi

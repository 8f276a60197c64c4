#!/usr/bin/env bash
# Makes a Python environment by its requirements, unless it is there.
#
#   tests/python.sh DIRECTORY REQUIREMENTS
#
# Made anew when the requirements have changed. Whoever comes while it is being made waits for it.
set -euo pipefail
mkdir -p "$(dirname "$1")"
exec 9>"$1.lock"
flock 9
if ! cmp -s "$2" "$1/requirements.txt"; then
    rm -rf "$1"
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check -r "$2"
    # Last, so that a broken installation is made anew the next time.
    cp "$2" "$1/requirements.txt"
fi

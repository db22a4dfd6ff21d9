#!/bin/bash
# once: Python alone
# timeout: 600
# The Python client's type annotations agree with each other, by mypy's strict rules (client/python/pyproject.toml).
set -u
cd "$(dirname "$0")/../../client/python" || exit 1
if /usr/bin/python3 -c 'import mypy' 2>/dev/null; then
    mypy=(/usr/bin/python3 -m mypy)
elif command -v mypy >/dev/null; then
    mypy=(mypy)
else
    echo "skipped: no mypy (scripts/install-packages --test)"
    exit 77
fi
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
"${mypy[@]}" --cache-dir "$cache"

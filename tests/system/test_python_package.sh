#!/bin/bash
# once: packaging
# timeout: 300
# The Python package: wheel and sdist are built and installed by pip without any network, and what was installed works;
# the sdist makes the same wheel as the source tree.
set -eu
cd "$(dirname "$0")/../.."
/usr/bin/python3 -c 'import torch, pip' 2>/dev/null || { echo "skipped: no python3-torch or python3-pip (scripts/install-packages --test)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONFIG_FILE=/dev/null HOME=$work PYTHONDONTWRITEBYTECODE=1
unset PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL
pip() { /usr/bin/python3 -m pip "$@"; }
fail() { echo "FAILED: $*"; exit 1; }

before=$(git status --porcelain client/python 2>/dev/null || true)
pip wheel -q --no-deps -w "$work/wheel" ./client/python || fail "pip wheel"
(cd "$work" && /usr/bin/python3 - "$OLDPWD/client/python" <<'PY')
import os, sys
sys.path.insert(0, sys.argv[1])
import backend
os.mkdir("sdist")
print(backend.build_sdist("sdist"))
PY
pip wheel -q --no-deps -w "$work/again" "$work"/sdist/expertd-*.tar.gz || fail "a wheel of the sdist"
cmp "$work"/wheel/expertd-*.whl "$work"/again/expertd-*.whl || fail "the sdist makes another wheel"
# Debian 13's torch names versions of other packages that Debian has not: then pip would fetch them.
pip install -q --prefix "$work/prefix" ./client/python 2>"$work/said" || { grep -q '(from torch)' "$work/said" &&
    pip install -q --no-deps --prefix "$work/prefix" ./client/python; } || { cat "$work/said"; fail "pip install"; }
site=$(dirname "$(find "$work/prefix" -type d -name expertd -path '*-packages/*' | head -1)")
[ "$before" = "$(git status --porcelain client/python 2>/dev/null || true)" ] || fail "the build leaves something in the source tree"
cd "$work"
PYTHONPATH=$site /usr/bin/python3 - "$site" <<'PY' || fail "what was installed"
import importlib.metadata, os, sys
import expertd, expertd.hivemind as hivemind, expertd.aio
assert expertd.__file__.startswith(sys.argv[1]), expertd.__file__
assert importlib.metadata.version("expertd") == expertd.__version__
assert os.path.exists(os.path.join(os.path.dirname(expertd.__file__), "py.typed"))
from expertd.hivemind.moe.client.moe import DUMMY
try:
    expertd.Client("tcp://127.0.0.1:9", retry_for=0.1).ping()
except expertd.Unavailable as error:
    print(error)
PY
echo "python package: ok"

#!/usr/bin/env bash
# timeout: 600
# once: what a page says
# The README's first server of one's own, word for word: its file, its commands. Only the port is another, since tests run
# beside each other.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
root=$PWD
fail() { echo "FAIL: $*"; exit 1; }
tests/cache take >/dev/null
/usr/bin/python3 -c 'import numpy' 2>/dev/null || { echo "skipped: no NumPy"; exit 77; }

port=$(PYTHONPATH=tests/system PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -c 'import support_ports; print(support_ports.free_port())')
block() { # the section's code block of that number: 1 the file, 2 the commands
    sed -n '/^## A first server/,/^## What there is/p' README.md | awk -v n="$1" '/^```/ { fences++; next } fences == 2 * n - 1'
}
block 1 | sed "s/name: first/name: first-$$/" >"$TMPDIR/first.yaml"
[ "$(wc -l <"$TMPDIR/first.yaml")" -le 10 ] || fail "a first server takes ten lines at most"
cat >>"$TMPDIR/first.yaml" <<YAML
frontend: {listen: ["tcp://127.0.0.1:$port"]}
dht: {listen: "ipc://$TMPDIR/dht", port: 0}
YAML
block 2 | sed 's,^python3,/usr/bin/python3,' >"$TMPDIR/commands"
grep -q '^build/bin/expertd serve' "$TMPDIR/commands" && grep -q '^build/bin/expertctl forward' "$TMPDIR/commands" || fail "the README shows how to start and a forward"
ln -s "$root/scripts" "$TMPDIR/scripts"
mkdir "$TMPDIR/build"
ln -s "$root/$BUILD/bin" "$TMPDIR/build/bin"
export EXPERTD_ENDPOINT=tcp://127.0.0.1:$port
cd "$TMPDIR" || exit 1
echo wait >>commands
bash -e commands >out 2>&1 || fail "the README's commands: $(cat out)"
[ "$(grep -c '^ffn\.' out)" -ge 4 ] || fail "list shows four experts: $(cat out)"
/usr/bin/python3 - <<'PY' || fail "y.npy is not what a forward gives"
import numpy
y = numpy.load("y.npy")
assert y.shape == (8, 256) and numpy.isfinite(y).all() and abs(y.mean()) < 1e-3
PY
left=$(ls /dev/shm | grep "^expertd.first-$$\." || true)
[ -z "$left" ] || fail "segments left: $left"

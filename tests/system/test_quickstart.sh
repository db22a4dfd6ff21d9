#!/bin/bash
# timeout: 300
# scripts/quickstart does what it says, with the programs of this build, and leaves nothing behind: at its end, and when
# it is told to stop in the middle.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
command -v supervisord >/dev/null || { echo "skipped: supervisord is missing (Debian: supervisor)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(tests/cache take)
export TMPDIR=$work/tmp
mkdir "$TMPDIR"

fail() {
    echo "FAILED: $*"
    cat "$work"/*.out
    exit 1
}
nothing_left() { [ -z "$(ls -A "$TMPDIR")" ] || fail "left behind: $(ls -A "$TMPDIR")"; }

scripts/quickstart --no-install --cache "$cache" --bin "$BUILD/bin" >"$work/whole.out" 2>&1 </dev/null || fail "exit status $?"
grep -q '^accuracy: *99\.' "$work/whole.out" || fail "the shipped experts classify 99 % of the digits"
grep -q '^latency: .*p50 .*p99' "$work/whole.out" || fail "latency is printed"
grep -q '^throughput: [0-9]* images/s' "$work/whole.out" || fail "throughput is printed"
grep -Eq '^before: test accuracy: (9[5-9]\.|100)' "$work/whole.out" || fail "95 % of the test digits after training"
before=$(sed -n 's/^before: //p' "$work/whole.out")
[ "$(sed -n 's/^after:  //p' "$work/whole.out")" = "$before" ] || fail "the accuracy came back from the checkpoint"
nothing_left

scripts/quickstart --no-install --cache "$cache" --bin "$BUILD/bin" --epochs 100000 >"$work/stopped.out" 2>&1 </dev/null &
quickstart=$!
until grep -qs '^epoch ' "$work/stopped.out"; do
    kill -0 $quickstart 2>/dev/null || fail "it ended before it trained"
    sleep 0.1
done
kill -TERM $quickstart
wait $quickstart
status=$?
[ $status = 143 ] || fail "stopped by SIGTERM, it ends with $status, not 143"
nothing_left

scripts/quickstart --nonsense >"$work/usage.out" 2>&1
[ $? = 2 ] || fail "an unknown option is a usage error"
echo "quickstart: ok"

#!/bin/bash
# timeout: 1800
# once: a script; what its example calls has unit tests in both builds
# scripts/mixture does what it says, with the programs of this build: a mixture and a switch over two servers that are
# found only through the DHT learn the digits, and go on when one of the servers is killed. It leaves nothing behind,
# also when it is told to stop in the middle.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
[ -x "$BUILD/bin/expertd-dht" ] || { echo "skipped: expertd-dht is not built"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(tests/cache take device0 device0.1) # for one server each
export TMPDIR=$work/tmp
mkdir "$TMPDIR"

fail() {
    echo "FAILED: $*"
    cat "$work"/*.out
    exit 1
}
# nothing_left PID: of the script that had this pid.
nothing_left() {
    [ -z "$(ls -A "$TMPDIR")" ] || fail "left behind: $(ls -A "$TMPDIR")"
    ! compgen -G "/dev/shm/expertd.mixture-$1-*" || fail "segments are left behind"
}

# learns NAME [OPTION...]
learns() {
    local name=$1 out=$work/$1.out
    shift
    scripts/mixture --no-install --cache "$cache" --bin "$BUILD/bin" "$@" >"$out" 2>&1 </dev/null &
    local script=$!
    wait $script || fail "$name: exit status $?"
    [ "$(grep -c '^ffn\.[0-3]\.[0-3].*tcp://' "$out")" = 16 ] || fail "$name: all experts are found"
    grep -q '^== kill -9' "$out" || fail "$name: a server is killed"
    grep -Eq '^before: (9[5-9]\.|100)' "$out" || fail "$name: 95 % of the test digits with two servers"
    grep -Eq '^after:  (9[5-9]\.|100)' "$out" || fail "$name: 95 % of the test digits with one"
    # What was found through the DHT at the end is the living server's half.
    grep -qx 'ffn\.0\.\[0:2\]' "$out" || fail "$name: the dead server's experts are gone from the DHT"
    nothing_left $script
}
learns mixture
learns switch --switch

scripts/mixture --no-install --cache "$cache" --bin "$BUILD/bin" --epochs 100000 >"$work/stopped.out" 2>&1 </dev/null &
script=$!
until grep -qs '^epoch ' "$work/stopped.out"; do
    kill -0 $script 2>/dev/null || fail "it ended before it trained"
    sleep 0.1
done
kill -TERM $script
wait $script
status=$?
[ $status = 143 ] || fail "stopped by SIGTERM, it ends with $status, not 143"
nothing_left $script

scripts/mixture --nonsense >"$work/usage.out" 2>&1
[ $? = 2 ] || fail "an unknown option is a usage error"
echo "mixture: ok"

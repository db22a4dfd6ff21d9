#!/bin/bash
# scripts/start runs a server in the foreground: it ends with everything on SIGTERM, and when one of its processes ends.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
work=$(mktemp -d)
export POCL_DEVICES="pthread pthread"
started=''
trap '[ -z "$started" ] || kill -TERM $started; wait; rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $*"
    cat "$work"/*.log
    exit 1
}
port=$(/usr/bin/python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
export EXPERTD_ENDPOINT=tcp://127.0.0.1:$port
cat >"$work/expertd.yaml" <<YAML
server: {name: start-$$, run_dir: "$work/run"}
frontend: {listen: ["$EXPERTD_ENDPOINT"]}
dht: {listen: "ipc://$work/dht", port: 0}
devices:
  - {name: one, cache_dir: "$work/cache"}
  - {name: two, cache_dir: "$work/cache", device: "1"}
experts:
  - {uid: nop.0, block: nop, hidden_dim: 8, max_batch_size: 16, device: one}
  - {uid: nop.1, block: nop, hidden_dim: 8, max_batch_size: 16, device: two}
YAML

start() {
    scripts/start --config "$work/expertd.yaml" --bin "$BUILD/bin" "$@" >>"$work/start.log" 2>&1 &
    started=$!
}
ended_with() {
    wait "$started"
    local status=$?
    started=''
    [ $status = "$1" ] || fail "it ends with $status, not $1: $2"
}

start --device one --device two
"$BUILD/bin/expertctl" --timeout 60 wait nop.0 nop.1 || fail "both devices are served"
kill -TERM "$started"
ended_with 0 "after SIGTERM"
"$BUILD/bin/expertctl" --timeout 0.5 ping >/dev/null 2>&1 && fail "the frontend has ended too"

start --no-dht
"$BUILD/bin/expertctl" --timeout 60 wait nop.0 || fail "without --device the first is served"
runtime=$(grep -lE "^PPid:[[:space:]]*$started\$" /proc/[0-9]*/status 2>/dev/null | xargs grep -l '^Name:.expertd-runtim' |
    cut -d/ -f3)
[ -n "$runtime" ] || fail "the runtime is a child of scripts/start"
kill -KILL "$runtime"
ended_with 137 "after its runtime was killed"
"$BUILD/bin/expertctl" --timeout 0.5 ping >/dev/null 2>&1 && fail "the frontend was stopped with it"
# What a killed runtime leaves in /dev/shm, the next one takes over, and removes when it is stopped; but it is ready only
# when it says so, since requests that the dead one left may be waiting before that.
: >"$work/start.log"
start --no-dht
until grep -q 'ready: ' "$work/start.log"; do
    kill -0 "$started" 2>/dev/null || fail "it starts again after that"
    sleep 0.1
done
kill -TERM "$started"
kill -TERM "$started" 2>/dev/null
ended_with 0 "after two signals"

scripts/start 2>/dev/null
[ $? = 2 ] || fail "no --config is a usage error"
echo "start: ok"

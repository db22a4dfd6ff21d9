#!/bin/bash
# A driver that calls back long after a batch is done ends no stopping runtime before its last checkpoint.
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=$(cd "${BUILD:-build}/bin" && pwd) || exit 1
case ${BUILD:-build} in *address* | *thread*) echo "skipped: a sanitizer wants to be loaded first"; exit 77 ;; esac
work=$(mktemp -d)
pids=()
trap '[ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null; wait; rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*"
    cat "$work/log"
    exit 1
}
gcc -DCL_TARGET_OPENCL_VERSION=120 -shared -fPIC -o "$work/late.so" tests/system/delayed_callbacks.c || fail "the library that delays is built"
cat >"$work/expertd.yaml" <<YAML
server: {name: late-$$, run_dir: run}
frontend: {listen: ["ipc://frontend"]}
checkpoint: {dir: checkpoints, interval: 0}
devices: [{name: device0, cache_dir: "$(tests/cache take)"}]
experts: [{uid: ffn.0, hidden_dim: 64, max_batch_size: 4096, optimizer: sgd}]
YAML
/usr/bin/python3 -c 'import numpy, sys; numpy.save(sys.argv[1], numpy.ones((4096, 64), "float32"))' "$work/x.npy" || fail "rows"
export EXPERTD_ENDPOINT=ipc://$work/frontend
# From before the runtime can have ended to long after: whenever the late ring comes, it finds what it needs.
updates=0
for delay in 0 20 50 100 200 400 800 1500; do
    "$bin/expertd-frontend" --config "$work/expertd.yaml" 2>>"$work/log" & # a new one knows nothing of the last runtime
    frontend=$!
    pids+=("$frontend")
    EXPERTD_TEST_DELAY_MS=$delay LD_PRELOAD=$work/late.so "$bin/expertd-runtime" --config "$work/expertd.yaml" 2>>"$work/log" &
    runtime=$!
    pids+=("$runtime")
    "$bin/expertctl" --timeout 600 wait ffn.0 || fail "it serves"
    "$bin/expertctl" --timeout 600 backward ffn.0 -i "$work/x.npy" -g "$work/x.npy" -o "$work/dx.npy" >/dev/null || fail "it trains"
    updates=$((updates + 1))
    kill -TERM "$runtime"
    wait "$runtime"
    status=$?
    kill -TERM "$frontend"
    wait "$frontend"
    [ $status = 0 ] || fail "with callbacks $delay ms late it ends with $status"
    ls "$work/checkpoints/ffn.0" | grep -q "^0*$updates.safetensors" ||
        fail "with callbacks $delay ms late nothing is saved: $(ls "$work/checkpoints/ffn.0")"
done
echo "delayed callbacks: ok"

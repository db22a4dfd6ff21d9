#!/bin/bash
# timeout: 600
# once: it plans by measured speed, of which sanitizers leave little; what plans has unit tests
# expertd plan measures every OpenCL device, divides experts among them and writes what serves them; here PoCL shows two.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
command -v supervisord >/dev/null || { echo "skipped: supervisord is missing (Debian: supervisor)"; exit 77; }
work=$(mktemp -d)
tests/cache take device0 device1 >/dev/null
export POCL_DEVICES="pthread pthread"
supervisor=''
trap '[ -z "$supervisor" ] || kill -TERM $supervisor; wait; rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $*"
    cat "$work"/server/*.log 2>/dev/null
    exit 1
}
port=$(/usr/bin/python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
export EXPERTD_ENDPOINT=tcp://127.0.0.1:$port
plan() { "$BUILD/bin/expertd" plan "$@" 2>"$work/said"; }
plan --out "$work/server" --server-name "plan-$$" --frontend-listen "$EXPERTD_ENDPOINT" --num-experts 40 --hidden-dim 32 \
    --max_batch_size 128 >"$work/table" || { cat "$work/said"; fail "it writes the files"; }
for device in 0 1; do
    # measured, with room for all, and with its share of the experts: more than none, as both are as fast but for what else runs
    grep -qE "^device$device +0\.$device +cpu +- +[0-9]+ +[0-9]+\.[0-9] +[0-9]+ +[1-9][0-9]* " "$work/table" || { cat "$work/table"; fail "device$device is in the table"; }
done
awk '/^device/ { sum += $8 } END { exit sum != 40 }' "$work/table" || { cat "$work/table"; fail "all experts are given to somebody"; }
"$BUILD/bin/expertd" check "$work/server/expertd.yaml" | grep -q "on device0, .* on device1" || fail "what it writes is right"
plan --out "$work/server" && fail "it does not overwrite"
grep -q "is there already" "$work/said" || fail "it says why"
plan --help | grep -qe --config && fail "help names a flag that is refused"
plan --print --include 0.1 --exclude 0.1 && fail "no device is left"
plan --print --exclude 0.1 >"$work/table" && grep -q '^device0 *0\.0 ' "$work/table" && grep -q '^- *0\.1 .* excluded ' "$work/table" ||
    fail "one of two devices is left out, and shown"
plan --print --include 0.1 >"$work/table" && grep -q '^device0 *0\.1 ' "$work/table" && grep -q '^- *0\.0 .* not included ' "$work/table" ||
    fail "the one that was named is used"
plan --print --class gpu && fail "there is no GPU among these"
plan --print --exclude nobody && fail "a word that means no device is refused"
plan --print --include 0.1 --num-experts 1000000 --hidden-dim 8192 && fail "what does not fit is refused"
grep -q "room for [0-9]* of 1000000 experts" "$work/said" || fail "it says how many would"

# From here on four experts of a known place.
sed -i '/^experts:/,$d' "$work/server/expertd.yaml"
cat >>"$work/server/expertd.yaml" <<YAML
experts:
  - {uid: "ffn.0.[0:2]", hidden_dim: 32, device: device0}
  - {uid: "ffn.1.[0:2]", hidden_dim: 32, device: device1}
YAML
# The second one as a card with memory of its own: rows go there and back, its kernels are a GPU's.
sed -i 's/{name: device1,/{name: device1, slabs: staged, linear_kernel: gpu,/' "$work/server/expertd.yaml"
# The dht would want its well-known ports.
sed -i '/^\[program:expertd-dht\]/,$d' "$work/server/supervisord.conf"
supervisord -n -c "$work/server/supervisord.conf" >"$work/server/supervisord.log" 2>&1 &
supervisor=$!
"$BUILD/bin/expertctl" --timeout 600 wait ffn.0.0 ffn.0.1 ffn.1.0 ffn.1.1 || fail "all experts come up"
for device in 0 1; do
    "$BUILD/bin/expertctl" list | grep "ffn\.$device\.1" | grep -q "device$device" || fail "device$device has its experts"
done
# Requests to both at once. What comes out of a LayerNorm that is new has mean 0 and variance 1.
/usr/bin/python3 - "$work" <<'PYTHON' || fail "inputs are made"
import sys, numpy
numpy.save(sys.argv[1] + "/x.npy", numpy.random.default_rng(1).normal(size=(100, 32)).astype("float32"))
PYTHON
asked=()
for device in 0 1; do
    for expert in 0 1; do
        "$BUILD/bin/expertctl" --timeout 600 forward ffn.$device.$expert -i "$work/x.npy" -o "$work/y.$device.$expert.npy" >/dev/null &
        asked+=($!)
        "$BUILD/bin/expertctl" --timeout 600 backward ffn.$device.$expert -i "$work/x.npy" -g "$work/x.npy" \
            -o "$work/dx.$device.$expert.npy" >/dev/null &
        asked+=($!)
    done
done
for process in "${asked[@]}"; do
    wait "$process" || fail "requests to both devices are answered"
done
/usr/bin/python3 - "$work" <<'PYTHON' || fail "what both devices answer is right"
import sys, numpy
for expert in ("0.0", "0.1", "1.0", "1.1"):
    y = numpy.load(f"{sys.argv[1]}/y.{expert}.npy")
    # A step of Adam may have come first: it moves gamma and beta by 0.001.
    assert y.shape == (100, 32) and abs(y.mean(axis=1)).max() < 0.01 and abs(y.var(axis=1) - 1).max() < 0.01, expert
    dx = numpy.load(f"{sys.argv[1]}/dx.{expert}.npy")
    assert dx.shape == (100, 32) and numpy.isfinite(dx).all() and abs(dx).max() > 0, expert
PYTHON
kill -TERM $supervisor
wait $supervisor
supervisor=''
echo "expertd plan: ok"

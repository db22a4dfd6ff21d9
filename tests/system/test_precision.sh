#!/bin/bash
# timeout: 300
# once: what is learned is the kernels' doing, which sanitizers do not see
# A server whose products are made in reduced precision (the matrix units emulated), or that keeps its weights in fp16,
# learns the digits as one in fp32 does; one that is asked for a precision that its device has not ends at once and says what
# to do.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
work=$(mktemp -d)
cache=$(tests/cache take tf32 fp16 half)
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
server: {name: precision-$$, run_dir: "$work/run"}
frontend: {listen: ["$EXPERTD_ENDPOINT"]}
devices:
  - {name: tf32, platform: portable, linear_kernel: mma, precision: tf32, cache_dir: "$cache"}
  - {name: fp16, platform: portable, linear_kernel: mma, precision: fp16, cache_dir: "$cache"}
  - {name: half, platform: portable, precision: fp16, cache_dir: "$cache"}
  - {name: none, platform: portable, precision: tf32, cache_dir: "$cache"}
experts:
  - {uid: "ffn.0.[0:2]", device: tf32, block: ffn, hidden_dim: 64, max_batch_size: 512, learning_rate: 0.001}
  - {uid: "ffn.1.[0:2]", device: fp16, block: ffn, hidden_dim: 64, max_batch_size: 512, learning_rate: 0.001}
  - {uid: "ffn.2.[0:2]", device: half, block: ffn, hidden_dim: 64, max_batch_size: 512, learning_rate: 0.001}
  - {uid: "ffn.3.0", device: none, block: ffn, hidden_dim: 64, max_batch_size: 512}
YAML

"$BUILD/bin/expertd-runtime" --config "$work/expertd.yaml" --device none >"$work/none.log" 2>&1 &&
    fail "a CPU has no matrix units"
grep -q 'precision tf32 .*set precision: fp32' "$work/none.log" || fail "it says what to do"

scripts/start --no-dht --config "$work/expertd.yaml" --bin "$BUILD/bin" --device tf32 --device fp16 --device half >"$work/start.log" 2>&1 &
started=$!
"$BUILD/bin/expertctl" --timeout 600 wait ffn.0.0 ffn.1.0 ffn.2.0 || fail "all three devices are served"
for i in 0 1 2; do
    "$BUILD/bin/train_digits" --endpoint "$EXPERTD_ENDPOINT" --epochs 8 --no-checkpoint --at-least 92 ffn.$i.0 ffn.$i.1 \
        >"$work/train$i.log" 2>&1 || fail "at least 92 % after 8 epochs"
    tail -n 1 "$work/train$i.log"
done
kill -TERM "$started"
wait "$started" || fail "it ends cleanly"
started=''

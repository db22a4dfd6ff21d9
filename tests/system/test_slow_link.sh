#!/bin/bash
# timeout: 2400
# once: a link's pace
# A link of 1 MB/s, 200 ms there and back, and 1 % loss between two hosts (network namespaces): a backward of 16 MiB is done,
# exactly once, and small calls of the same client are answered meanwhile. Where the kernel has no tc netem, a program in
# between is as slow. How fast the answers come is printed; what is judged is how many come while the link carries the large
# call's bytes: one for each second that these take.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/system/support_hosts.sh

flags=()
case ${BUILD:-build} in
*thread*) flags=(-fsanitize=thread) ;;
*address*) flags=(-fsanitize=address,undefined) ;;
esac
read -ra libraries <<<"$(pkg-config --libs libzmq libprotobuf-c)"
gcc -O2 -I. "${flags[@]}" -o "$work/client" tests/system/slow_link_client.c "$bin/../lib/libexpertd.a" "${libraries[@]}" -lm -pthread ||
    fail "the client is built"

cat >"$work/far.yaml" <<YAML
server: {name: slow-$$, run_dir: "$work/far", insecure: true}
frontend: {listen: ["tcp://127.0.0.1:31330", "tcp://10.203.0.1:31331"]}
devices: [{name: one, cache_dir: "$(tests/cache take one)"}]
experts:
  - {uid: learn.0, block: ffn, hidden_dim: 64, max_batch_size: 32768, optimizer: sgd}
  - {uid: nop.0, block: nop, hidden_dim: 4, max_batch_size: 16}
YAML
start "$far" far expertd-runtime
start "$far" far expertd-frontend
ip netns exec "$far" "$bin/expertctl" --timeout 600 wait || fail "it serves"

netem() { # namespace, its link
    ip netns exec "$1" tc qdisc add dev "$2" root netem rate 8mbit delay 100ms loss 1% limit 1000 2>/dev/null
}
endpoint=tcp://10.203.0.1:31331
if command -v tc >/dev/null && netem "$far" "far$$" && netem "$near" "near$$"; then
    echo "the link: tc netem"
else
    echo "the link: a program in between, as this kernel has no tc netem (or there is no tc: Debian's iproute2)"
    ip netns exec "$far" /usr/bin/python3 tests/system/slow_link.py 10.203.0.1:31332 127.0.0.1:31330 1000000 0.1 0.01 2>>"$work/link.log" &
    pids+=($!)
    endpoint=tcp://10.203.0.1:31332
fi
ip netns exec "$near" "$work/client" "$endpoint" 32768 || fail "libexpertd's client"

# Python's the same, of 2 MiB.
if /usr/bin/python3 -c 'import torch, zmq, google.protobuf' 2>/dev/null && [[ ${BUILD:-build} != *thread* ]]; then
    PYTHONPATH=client/python PYTHONDONTWRITEBYTECODE=1 ip netns exec "$near" /usr/bin/python3 - "$endpoint" <<'PYTHON' || fail "Python's client"
import sys, time, torch, expertd
torch.set_num_threads(1)
client, row, x = expertd.Client(sys.argv[1], timeout=1500), torch.ones(1, 4), torch.ones(4096, 64)
client.forward("nop.0", [row])
large, latencies = client.start_backward("learn.0", [x], [x], retry_for=1500), []
while not large.done():
    before = time.monotonic()
    client.forward("nop.0", [row])
    latencies.append(time.monotonic() - before)
assert client.outputs(large)[0].shape == x.shape
assert client.info("learn.0").update_count == 2
latencies.sort()
print(f"Python: {len(latencies)} small calls were answered meanwhile, half of them within {latencies[len(latencies) // 2] * 1e3:.0f} ms, all within {latencies[-1] * 1e3:.0f} ms")
assert len(latencies) >= 3 * 4 * x.numel() / 1e6, "small calls waited for the large one"
PYTHON
else
    echo "Python's client is left out: no torch for /usr/bin/python3"
fi
echo "slow link: ok"

#!/bin/bash
# timeout: 1800
# Two hundred nodes with an address of their own each, in a network namespace whose packets are lost, doubled and late now
# and then: all experts of all servers are found, also by those that come when some have just been killed.
set -u
cd "$(dirname "$0")/../.." || exit 1
bench=$PWD/${BUILD:-build}/bench/dht
space=expertd-$$-lossy

skip() {
    echo "SKIPPED: $*"
    exit 77
}
[ -x "$bench" ] || skip "$bench is not built"
case ${BUILD:-build} in */*) skip "two hundred nodes are too much for an instrumented program" ;; esac
command -v ip >/dev/null && command -v tc >/dev/null || skip "no ip(8) and tc(8) here (Debian: iproute2)"
ip netns add "$space" 2>/dev/null || skip "this machine lets us make no network namespace"
trap 'ip netns delete "$space"' EXIT
ip netns exec "$space" true 2>/dev/null || skip "this machine lets us run nothing in a network namespace"
ip -n "$space" link set lo up || exit 1
# 25 that look, 200 that publish, and those that come late.
for number in $(seq 0 230) $(seq 1049 1070); do
    echo "addr add 10.9.$((number / 250)).$((number % 250 + 1))/32 dev lo"
done | ip -n "$space" -batch - || exit 1
lossy=yes
tc -n "$space" qdisc add dev lo root netem delay 1ms 1ms loss 1% duplicate 1% limit 100000 2>/dev/null || lossy=no

ip netns exec "$space" "$bench" --nodes 200 --experts 8192 --contiguous --addresses 10.9 || exit 1
[ $lossy = yes ] || {
    echo "lossy: ok, but for losses: this machine has no netem"
    exit 0
}
tc -n "$space" -s qdisc show dev lo | grep -Eq 'dropped [1-9]' || {
    echo "FAILED: nothing was lost"
    exit 1
}
echo "lossy: ok"

#!/bin/bash
# timeout: 120
# Two hosts, as network namespaces with a link between them: a client on one finds and calls an expert on the other through its
# own expertd-dht; the link goes down, and the expert is forgotten; it comes up again, and the expert is found. The expert's
# host gets another address, at which it is found too.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/system/support_hosts.sh

cat >"$work/far.yaml" <<YAML
server: {name: hosts-$$, run_dir: "$work/far", insecure: true}
frontend: {listen: ["tcp://127.0.0.1:31330", "tcp://10.203.0.1:31330"], advertise: "tcp://10.203.0.1:31330"}
dht: {listen: "tcp://127.0.0.1:31331", port: 4222, bootstrap: ["10.203.0.2:4222"], frontend: "tcp://127.0.0.1:31330", update_period: 0.5, expiration: 2}
devices: [{name: one, cache_dir: "$(tests/cache take one)"}]
experts: [{uid: "nop.[0:2]", block: nop, hidden_dim: 8, max_batch_size: 16}]
YAML
cat >"$work/near.yaml" <<YAML
server: {name: hosts-$$-near, run_dir: "$work/near"}
dht: {listen: "tcp://127.0.0.1:31331", port: 4222, bootstrap: ["10.203.0.1:4222"], frontend: none}
YAML
start "$near" near expertd-dht # before there is anybody to join
start "$far" far expertd-runtime
start "$far" far expertd-frontend
start "$far" far expertd-dht

ctl() { ip netns exec "$near" "$bin/expertctl" --timeout 5 --dht tcp://127.0.0.1:31331 "$@" 2>/dev/null; }
becomes() { # what resolving says, within a bound
    local deadline=$((SECONDS + 600))
    until [ "$(ctl resolve nop.1)" = "$1" ]; do
        [ $SECONDS -lt $deadline ] || fail "$2; it says: $(ctl resolve nop.1)"
    done
}
becomes $'nop.1\ttcp://10.203.0.1:31330' "the far expert is not found"
ip netns exec "$near" "$bin/expertctl" --endpoint tcp://10.203.0.1:31330 --timeout 600 wait nop.1 || fail "it cannot be called"
ip -n "$near" link set "near$$" down
becomes $'nop.1\t-' "it is advertised although its host is out of reach"
ip -n "$near" link set "near$$" up
becomes $'nop.1\ttcp://10.203.0.1:31330' "it is not found again"
ip -n "$far" addr del 10.203.0.1/24 dev "far$$"
becomes $'nop.1\t-' "it is advertised although its host has no address"
ip -n "$far" addr add 10.203.0.7/24 brd + dev "far$$"
becomes $'nop.1\ttcp://10.203.0.1:31330' "it is not found at its host's new address"
grep -q "moves from 10.203.0.1:4222 to 10.203.0.7:4222" "$work/expertd-dht-far.log" || fail "its directory does not say that it has moved"
echo "hosts: ok"

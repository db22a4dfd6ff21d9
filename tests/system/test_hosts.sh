#!/bin/bash
# timeout: 120
# Two hosts, as network namespaces with a link between them: a client on one finds and calls an expert on the other through its
# own expertd-dht; the link goes down, and the expert is forgotten; it comes up again, and the expert is found.
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=$PWD/${BUILD:-build}/bin
far=expertd-$$-far near=expertd-$$-near
work=$(mktemp -d)

skip() {
    echo "SKIPPED: $*"
    rm -rf "$work"
    exit 77
}
command -v ip >/dev/null || skip "no ip(8) here (Debian: iproute2)"
ip netns add "$far" 2>/dev/null || skip "this machine lets us make no network namespace"
if ! ip netns exec "$far" true 2>/dev/null; then # in a chroot, say
    ip netns delete "$far"
    skip "this machine lets us run nothing in a network namespace"
fi
pids=()
clean_up() {
    kill -TERM "${pids[@]}" 2>/dev/null
    wait
    ip netns delete "$far" 2>/dev/null
    ip netns delete "$near" 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT
fail() {
    echo "FAILED: $*"
    tail -n 20 "$work"/*.log
    exit 1
}
ip netns add "$near" && ip link add "far$$" netns "$far" type veth peer name "near$$" netns "$near" || fail "no link"
for side in "$far far$$ 10.203.0.1" "$near near$$ 10.203.0.2"; do
    read -r space link address <<<"$side"
    ip -n "$space" addr add "$address/24" dev "$link" && ip -n "$space" link set "$link" up &&
        ip -n "$space" link set lo up || fail "cannot set up $space"
done

cat >"$work/far.yaml" <<YAML
server: {name: hosts-$$, run_dir: "$work/far", insecure: true}
frontend: {listen: ["tcp://10.203.0.1:31330"]}
dht: {listen: "tcp://127.0.0.1:31331", port: 4222, update_period: 0.5, expiration: 2}
devices: [{name: one, cache_dir: "$(tests/cache take one)"}]
experts: [{uid: "nop.[0:2]", block: nop, hidden_dim: 8, max_batch_size: 16}]
YAML
cat >"$work/near.yaml" <<YAML
server: {name: hosts-$$-near, run_dir: "$work/near"}
dht: {listen: "tcp://127.0.0.1:31331", port: 4222, bootstrap: ["10.203.0.1:4222"], frontend: none}
YAML
start() { # namespace, configuration, program
    ip netns exec "$1" "$bin/$3" --config "$work/$2.yaml" 2>>"$work/$3-$2.log" &
    pids+=($!)
}
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
echo "hosts: ok"

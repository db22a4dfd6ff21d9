#!/bin/bash
# timeout: 600
# Two directories in one local network, as network namespaces with a link between them, that have no address to join by:
# with dht.lan they hear each other's broadcasts, and what the one's server hosts is found by the other.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/system/support_hosts.sh

cat >"$work/far.yaml" <<YAML
server: {name: lan-$$, run_dir: "$work/far", insecure: true}
frontend: {listen: ["tcp://10.203.0.1:31330"]}
dht: {listen: "tcp://127.0.0.1:31331", port: 4222, lan: true, update_period: 0.5, expiration: 2}
devices: [{name: one, cache_dir: "$(tests/cache take one)"}]
experts: [{uid: "nop.[0:2]", block: nop, hidden_dim: 8, max_batch_size: 16}]
YAML
cat >"$work/near.yaml" <<YAML
server: {name: lan-$$-near, run_dir: "$work/near"}
dht: {listen: "tcp://127.0.0.1:31331", port: 4300, lan: true, frontend: none}
YAML
sed 's/lan: true/lan: false/; s/-near/-deaf/; s/31331/31339/; s/4300/4400/; s,/near",/deaf",' "$work/near.yaml" >"$work/deaf.yaml"
start "$near" near expertd-dht # before there is anybody to hear
start "$near" deaf expertd-dht
start "$far" far expertd-runtime
start "$far" far expertd-frontend
start "$far" far expertd-dht

ctl() { ip netns exec "$near" "$bin/expertctl" --timeout 5 --dht "tcp://127.0.0.1:$1" resolve nop.1 2>/dev/null; }
deadline=$((SECONDS + ${LAN_LIMIT:-400}))
until [ "$(ctl 31331)" = $'nop.1\ttcp://10.203.0.1:31330' ]; do
    kill -0 "${pids[0]}" 2>/dev/null || fail "the directory has ended"
    [ $SECONDS -lt $deadline ] || fail "the expert is not found; it says: $(ctl 31331)"
done
[ "$(ctl 31339)" = $'nop.1\t-' ] || fail "one that does not listen to broadcasts knows of it: $(ctl 31339)"
echo "lan: ok"

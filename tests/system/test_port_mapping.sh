#!/bin/bash
# timeout: 600
# A server behind a router, as network namespaces; the router is a stand-in that speaks NAT-PMP, or UPnP. With dht.port_mapping
# the ports of the DHT, of the directory and of the frontend are let in, and no more when the server has ended; without it
# nothing is asked of the router.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/system/support_hosts.sh
ip -n "$far" route add default via 10.203.0.2 || fail "no route"

says() { # the last line of the router's log, or any of a directory's, within a bound; what is wrong if it does not
    local deadline=$((SECONDS + 250)) lines='tail -n 1'
    [[ $1 != expertd-dht-* ]] || lines=cat
    until $lines "$work/$1.log" 2>/dev/null | grep -qe "$2"; do
        kill -0 "${pids[-1]}" 2>/dev/null || fail "what was started last has ended"
        [ $SECONDS -lt $deadline ] || fail "$3 ($router); it says: $(tail -n 1 "$work/$1.log")"
        sleep 0.1
    done
}
directory() { # name, port_mapping
    cat >"$work/$1.yaml" <<YAML
server: {name: mapping-$$-$1, run_dir: "$work/$1", insecure: true}
frontend: {listen: ["tcp://10.203.0.1:31330"], advertise: "tcp://198.51.100.7:31340"}
dht: {listen: "tcp://127.0.0.1:31331", port: 4222, frontend: "tcp://10.203.0.1:31330", port_mapping: $2}
YAML
    start "$far" "$1" expertd-dht
}
end() {
    kill -TERM "${pids[-1]}" && wait "${pids[-1]}" || fail "the directory does not end well"
    unset 'pids[-1]' # the router is the last again
}
mark() { # a packet to the router's port, and waits until it has come
    local deadline=$((SECONDS + 250)) port=5351
    [ "$1" = nat-pmp ] || port=1900
    ip netns exec "$far" python3 -c 'import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"mark", ("10.203.0.2", int(sys.argv[1])))' $port
    until grep -q mark "$work/$1.asked"; do
        [ $SECONDS -lt $deadline ] || fail "the router ($1) hears nothing"
        sleep 0.1
    done
}
for router in nat-pmp upnp; do
    ip netns exec "$near" python3 tests/system/support_router.py $router 10.203.0.2 >"$work/$router.log" 2>"$work/$router.asked" &
    pids+=($!)
    says $router '^ready$' "the router does not begin"
    # Whatever it sends would be sent at its start; and what is sent afterwards comes afterwards.
    directory plain-$router false
    says expertd-dht-plain-$router "publishing" "the directory does not begin"
    end
    mark $router
    [ "$(cat "$work/$router.asked")" = "asked: b'mark'" ] || fail "the router is asked without dht.port_mapping: $(cat "$work/$router.asked")"

    directory mapping-$router true
    says $router ' tcp/31340>31330' "the frontend's port is not let in"
    says $router ' tcp/4223>4223' "the directory's port is not let in"
    says $router ' udp/4222>4222' "the DHT's port is not let in"
    says expertd-dht-mapping-$router "the router lets port [0-9]* in" "the directory does not say so"
    end
    says $router '^mapped: $' "ports are let in for nobody"
    [ "$(wc -l <"$work/$router.asked")" -gt 1 ] || fail "what the router is asked is not heard"
    kill -TERM "${pids[-1]}"
done
echo "port mapping: ok"

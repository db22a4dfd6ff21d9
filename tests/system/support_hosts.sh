# For tests of two hosts, to be sourced at the project's root: the network namespaces $far (10.203.0.1) and $near (10.203.0.2)
# with a link between them (far$$, near$$), the folder $work, `fail`, and `start`: what it starts ends with the test. Where
# that cannot be had the test is skipped.
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
    ip -n "$space" addr add "$address/24" brd + dev "$link" && ip -n "$space" link set "$link" up &&
        ip -n "$space" link set lo up || fail "cannot set up $space"
done
start() { # namespace, configuration, program
    ip netns exec "$1" "$bin/$3" --config "$work/$2.yaml" 2>>"$work/$3-$2.log" &
    pids+=($!)
}

#!/bin/bash
# timeout: 1800
# Two hundred nodes with an address of their own each, whose datagrams are lost, doubled and late now and then: all experts
# of all servers are found, also by those that come when some have just been killed.
set -u
cd "$(dirname "$0")/../.." || exit 1
bench=$PWD/${BUILD:-build}/bench/dht
skip() {
    echo "SKIPPED: $*"
    exit 77
}
[ -x "$bench" ] || skip "$bench is not built"
case ${BUILD:-build} in */*) skip "two hundred nodes are too much for an instrumented program" ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*"
    exit 1
}
gcc -O2 -shared -fPIC -o "$work/lossy.so" tests/system/lossy_datagrams.c || fail "the library that loses datagrams is built"
truncate -s 32 "$work/counts"
EXPERTD_TEST_LOSS=1 EXPERTD_TEST_DUPLICATE=1 EXPERTD_TEST_DELAY_MS=2 EXPERTD_TEST_DATAGRAMS=$work/counts \
    LD_PRELOAD=$work/lossy.so "$bench" --nodes "${NODES:-200}" --experts 8192 --contiguous --addresses 127.9 || fail "they find each other"
read -r sent lost doubled late <<<"$(od -An -t u8 -w32 "$work/counts")"
echo "datagrams: $sent sent, $lost lost, $doubled doubled, $late late"
[ "$lost" -gt 0 ] && [ "$doubled" -gt 0 ] && [ "$late" -gt 0 ] || fail "the network was a good one"
echo "lossy: ok"

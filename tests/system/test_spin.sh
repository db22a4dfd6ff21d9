#!/usr/bin/env bash
# once: models, not programs
# The models of the ring, the doorbells and at most once (tests/models) have no error, and notice each planted one.
set -u
cd "$(dirname "$0")/../.." || exit 1
command -v spin >/dev/null || { echo "needs spin (scripts/install-packages --all)"; exit 77; }
models=$PWD/tests/models
cd "$(mktemp -d)" || exit 1
trap 'rm -rf "$PWD"' EXIT
failed=0

for rule in $(grep -o '\[[a-z][a-z]*\]' "$models/../../pools/pool_shared.h"); do
    grep -qF "/* $rule" <(grep 'assert(' "$models/ring.pml" | sed 's/, \[/ \/* [/g') || { echo "no assertion of ring.pml holds the rule $rule"; failed=1; }
done

verify() { # optimization model defines...: says "right", or the first error
    local optimize=$1 model=$2 errors
    shift 2
    spin -a "$@" "$models/$model.pml" >spin.out 2>&1 && ${CC:-cc} "$optimize" -w -DSAFETY -DCOLLAPSE -o pan pan.c ||
        { echo "cannot be built: $(head -3 spin.out)"; return; }
    ./pan -m200000 >pan.out 2>&1
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
    case $errors in
    0) if grep -q 'max search depth too small' pan.out; then echo "not searched to the end"; else echo right; fi ;;
    '') echo "no verdict: $(head -3 pan.out)" ;;
    *) sed -n 's/^pan:1: //p' pan.out ;;
    esac
}

right() {
    local verdict
    verdict=$(verify -O1 "$@")
    [[ $verdict == right ]] && return
    echo "$*: $verdict"
    failed=1
}

notices() {
    local verdict
    verdict=$(verify -O0 "$@")
    case $verdict in
    assertion* | 'invalid end state'*) return ;;
    esac
    echo "$*: the planted fault is not noticed: $verdict"
    failed=1
}

for backward in 0 1; do
    right ring -DBACKWARD=$backward -DRUNTIME_KILLS=0
    right ring -DBACKWARD=$backward -DFRONTEND_KILLS=0
done
right ring -DBACKWARD=1 -DTOTAL=2
right ring -DTOTAL=2 -DFRONTEND_KILLS=0 -DRUNTIME_KILLS=2
notices ring -DFAULT=1                                                    # more tasks than slots
notices ring -DFAULT=2                                                    # more rows than the slab has
notices ring -DFAULT=3 -DRUNTIME_KILLS=0                                  # committed before the rows are there
notices ring -DFAULT=4 -DRUNTIME_KILLS=0                                  # committed before row_position
notices ring -DFAULT=5 -DFRONTEND_KILLS=0                                 # released past what is held
notices ring -DFAULT=6 -DFRONTEND_KILLS=0 -DBACKWARD=1                    # released read before committed
notices ring -DFAULT=7 -DFRONTEND_KILLS=0 -DBACKWARD=1                    # interrupted steps run again
notices ring -DFAULT=8 -DFRONTEND_KILLS=0 -DBACKWARD=1                    # applied before the outcomes
notices ring -DFAULT=9 -DFRONTEND_KILLS=0                                 # done before applied
notices ring -DFAULT=10 -DFRONTEND_KILLS=0 -DRUNTIME_KILLS=2 -DTOTAL=2    # back to done: taken before applied

for fifo in 0 1; do
    right doorbell -DFIFO=$fifo
    right doorbell -DFIFO=$fifo -DKILL=1
    for fault in 1 2 3 4 6 7; do notices doorbell -DFIFO=$fifo -DFAULT=$fault; done
done
notices doorbell -DFAULT=5 # the ticket after the flag

right once
for fault in 1 2 3 4; do notices once -DFAULT=$fault; done # no window in the checkpoint; no look; a torn one; one without keys

exit $failed

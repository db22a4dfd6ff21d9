#!/bin/sh
# The models in tests/models hold in every interleaving, and spin finds each fault that is planted in them.
# timeout: 900
set -eu
models=$(cd "$(dirname "$0")/../models" && pwd)
for tool in spin cc; do
    command -v "$tool" >/dev/null || { echo "skipped: no $tool (scripts/install-packages --test)"; exit 77; }
done
work=$(mktemp -d /tmp/expertd-models.XXXXXX)
trap 'rm -r "$work"' EXIT
cd "$work"

check() { # expected errors (0 or more), model, options
    expected=$1 model=$2
    shift 2
    spin -a "$@" "$models/$model.pml" >spin.log 2>&1 || { cat spin.log; exit 1; }
    cc -O2 -DSAFETY -DVECTORSZ=2048 -w -o pan pan.c
    ./pan -m200000 >pan.log 2>&1 || { cat pan.log; exit 1; }
    grep -q "max search depth too small" pan.log && { cat pan.log; echo "$model $*: not all was searched"; exit 1; }
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.log)
    states=$(sed -n 's/ *\([0-9]*\) states, stored.*/\1/p' pan.log)
    echo "$model $*: $states states, $errors errors"
    if [ "$expected" = 0 ]; then
        [ "$errors" = 0 ] || { cat pan.log; spin -t -p "$@" "$models/$model.pml" | tail -60; exit 1; }
    else
        [ "$errors" -gt 0 ] || { echo "the planted fault is not found"; exit 1; }
    fi
}
check 0 ring
check 0 ring -DFORWARD
for fault in 1 2 3 4; do
    check 1 ring -DFAULT=$fault
done
check 0 doorbell
for fault in 1 2 3; do
    check 1 doorbell -DFAULT=$fault
done

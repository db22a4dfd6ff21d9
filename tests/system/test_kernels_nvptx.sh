#!/bin/bash
# timeout: 120
# The products for GPUs, as clang compiles them for an NVIDIA card, keep their sums in registers: none of the tiles has a
# stack, on which a function that was not inlined or an index that is not known at compile time would put them.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() { # options; what does not matter here, fma and the rounding of a * b + c, is what clang has without a library
    clang -x cl -cl-std=CL1.2 -target nvptx64-nvidia-nvcl -Xclang -target-cpu -Xclang sm_80 -Xclang -finclude-default-header \
        -O3 -S -ffp-contract=fast '-Dfma(a,b,c)=((a)*(b)+(c))' -DVEC=1 -DPANEL=32 -DTILE_ROWS=8 "$@" \
        -o "$work/out.ptx" "$work/in.cl" >"$work/log" 2>&1
}

echo '__kernel void nothing(__global float *p) { *p = 0; }' >"$work/in.cl"
if ! command -v clang >/dev/null || ! compile; then
    echo "SKIPPED: no clang here that compiles for NVIDIA's cards (Debian: clang)"
    exit 77
fi
cat runtime/kernels/common.cl runtime/kernels/linear_gpu.cl >"$work/in.cl"
tiles=0 status=0
while IFS=', ' read -r rows columns row_sums column_sums slab stages; do
    tile="$rows x $columns, $row_sums x $column_sums, $slab, $stages"
    tiles=$((tiles + 1))
    if ! compile "-DTILE_M=$rows" "-DTILE_N=$columns" "-DSUMS_M=$row_sums" "-DSUMS_N=$column_sums" "-DSLAB=$slab" "-DSTAGES=$stages"; then
        echo "the tile $tile does not compile:"
        head -20 "$work/log"
        status=1
    elif ! grep -q 'entry linear' "$work/out.ptx" || ! grep -q 'entry weight_gradient' "$work/out.ptx"; then
        echo "the tile $tile has not both kernels"
        status=1
    elif grep -q '__local_depot' "$work/out.ptx"; then
        echo "the tile $tile has a stack"
        status=1
    fi
done < <(sed -n 's/^.*TILE(\([0-9, ]*\)),$/\1/p' runtime/tile.c)
echo "$tiles tiles"
[[ $tiles -gt 3 ]] || status=1
exit $status

#!/bin/bash
# once: what a compiler makes of kernels
# timeout: 180
# The products for GPUs, those on matrix units too, as clang compiles them for an NVIDIA card, keep their sums in
# registers: none of the tiles has a stack, on which a function that was not inlined or an index that is not known at
# compile time would put them. Where CUDA's ptxas is there, it takes what came out, the instructions written in PTX too.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() { # options; what does not matter here, fma and the rounding of a * b + c, is what clang has without a library
    clang -x cl -cl-std=CL1.2 -target nvptx64-nvidia-nvcl -Xclang -target-cpu -Xclang sm_80 -Xclang -target-feature -Xclang +ptx70 \
        -Xclang -finclude-default-header '-Dasm=__asm__' \
        -O3 -S -ffp-contract=fast '-Dfma(a,b,c)=((a)*(b)+(c))' -DVEC=1 -DPANEL=32 -DTILE_ROWS=8 "$@" \
        -o "$work/out.ptx" "$work/in.cl" >"$work/log" 2>&1
}

echo '__kernel void nothing(__global float *p) { *p = 0; }' >"$work/in.cl"
if ! command -v clang >/dev/null || ! compile; then
    echo "SKIPPED: no clang here that compiles for NVIDIA's cards (Debian: clang)"
    exit 77
fi
tiles=0 status=0
check_tiles() { # source, rows of a tile and elements of a slab are multiples of these, options
    local source=$1 row_step=$2 slab_step=$3
    shift 3
    cat - runtime/compute/kernels/common.cl "runtime/compute/kernels/$source.cl" >"$work/in.cl" <<'CL'
/* Of OpenCL's own, which clang's header leaves out for this target. */
typedef __fp16 four_halves __attribute__((ext_vector_type(4)));
#define vload_half4(offset, p) __builtin_convertvector(*(__global const four_halves *)(p), float4)
float vload_half(size_t offset, __global const half *p);
void vstore_half_rte(float v, size_t offset, __global half *p);
CL
    while IFS=', ' read -r rows columns row_sums column_sums slab stages; do
        [[ $((rows % row_step)) -eq 0 && $((slab % slab_step)) -eq 0 ]] || continue
        tile="$source $*, $rows x $columns, $row_sums x $column_sums, $slab, $stages"
        tiles=$((tiles + 1))
        if ! compile "$@" "-DTILE_M=$rows" "-DTILE_N=$columns" "-DSUMS_M=$row_sums" "-DSUMS_N=$column_sums" "-DSLAB=$slab" \
            "-DSTAGES=$stages"; then
            echo "the tile $tile does not compile:"
            head -20 "$work/log"
            status=1
        elif ! grep -q 'entry linear' "$work/out.ptx" || ! grep -q 'entry weight_gradient' "$work/out.ptx"; then
            echo "the tile $tile has not both kernels"
            status=1
        elif grep -q '__local_depot' "$work/out.ptx"; then
            echo "the tile $tile has a stack"
            status=1
        elif [[ $source = linear_mma ]] && ! grep -q 'mma.sync' "$work/out.ptx"; then
            echo "the tile $tile does not use the matrix units"
            status=1
        elif command -v ptxas >/dev/null && ! ptxas -arch=sm_80 "$work/out.ptx" -o "$work/out.o" 2>"$work/log" &&
            grep -q ' error  *:' "$work/log"; then # that OpenCL's own functions are missing is fatal, but no error
            echo "the tile $tile does not assemble:"
            head -20 "$work/log"
            status=1
        fi
    done < <(sed -n 's/^.*TILE(\([0-9, ]*\)),$/\1/p' runtime/compute/tile.c)
}
check_tiles linear_gpu 1 1
check_tiles linear_gpu 1 1 -DHALF_WEIGHTS
check_tiles linear_mma 16 8 -DMMA_PTX
check_tiles linear_mma 16 8 -DMMA_PTX -DHALF_WEIGHTS
check_tiles linear_mma 16 16 -DMMA_PTX -DMMA_FP16 -DHALF_WEIGHTS
echo "$tiles tiles"
[[ $tiles -gt 9 ]] || status=1
exit $status

#!/bin/bash
# once: it is PoCL that is damaged, and compiles anew each time; what bears it has unit tests
# What a driver does to its process: damaged files of compiled kernels, starts that were killed, a driver that aborts, and
# no folder to write to. None keeps the runtime from serving at its second start.
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=$(cd "${BUILD:-build}/bin" && pwd) || exit 1
work=$(mktemp -d)
runtime=''
trap '[ -z "$runtime" ] || kill -KILL "$runtime" 2>/dev/null; wait; rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*"
    cat "$work/log"
    exit 1
}
cat >"$work/expertd.yaml" <<YAML
server: {name: drivers-$$, run_dir: run}
devices: [{name: device0, cache_dir: cache, linear_kernel: cpu}]
experts: [{uid: ffn.0, hidden_dim: 16, max_batch_size: 16, optimizer: sgd}]
YAML
cache=$work/cache/device0
start() {
    : >"$work/log"
    "$bin/expertd-runtime" --config "$work/expertd.yaml" 2>>"$work/log" &
    runtime=$!
}
is_ready() { grep -q 'ready: ' "$work/log"; }
# Until it is ready or has ended.
settle() {
    until is_ready || ! kill -0 "$runtime" 2>/dev/null; do sleep 0.1; done
    is_ready
}
stop() {
    kill -TERM "$runtime"
    wait "$runtime" || fail "it stops with $?"
    runtime=''
}

start
settle || fail "it starts with nothing kept"
[ ! -e "$cache/compiling" ] || fail "a start that came through leaves no mark"
stop
kept=$(find "$cache" -type f | wc -l)
[ "$kept" -gt 3 ] || fail "kernels are kept: $(find "$cache")"

# Cut short, as by a full disk or a lost power supply. PoCL aborts; the start after that has a folder of its own.
find "$cache" -type f ! -name lock -exec truncate -s 100 {} +
start
settle || { wait "$runtime"; start; settle; } || fail "the start after the one that its driver ended"
stop

# Killed while it compiles.
rm -rf "$cache"
start
until find "$cache" -name 'tempfile*' 2>/dev/null | grep -q . || is_ready; do
    kill -0 "$runtime" 2>/dev/null || fail "it compiles"
done
kill -KILL "$runtime"
wait "$runtime" 2>/dev/null
[ -e "$cache/compiling" ] || is_ready || fail "what was killed has left its mark"
start
settle || fail "it starts after one that was killed"
stop
[ -z "$(find "$cache" -name 'tempfile*')" ] || fail "it leaves no temporary files of the killed one: $(find "$cache" -name 'tempfile*')"

# Ended by hand while it compiles, and the driver's compiler with it: that is a clean end.
rm -rf "$cache"
set -m
start
set +m
until find "$cache" -name 'tempfile*' 2>/dev/null | grep -q .; do kill -0 "$runtime" || fail "it starts"; done
kill -TERM -- "-$runtime"
wait "$runtime"
status=$?
runtime=''
[ $status = 0 ] || fail "SIGTERM during a start: exit status $status"
[ ! -e "$cache/compiling" ] || fail "a clean end leaves no mark"

# A driver that aborts as soon as it is asked, beside the good ones.
mkdir "$work/vendors"
cat >"$work/broken.c" <<'C'
#include <stdlib.h>
void *clGetExtensionFunctionAddress(const char *name) { (void)name; abort(); }
int clIcdGetPlatformIDsKHR(unsigned n, void **ids, unsigned *count) { (void)n, (void)ids, (void)count; abort(); }
C
gcc -shared -fPIC -o "$work/libbroken.so" "$work/broken.c" || fail "the broken driver is built"
echo "$work/libbroken.so" >"$work/vendors/a-broken.icd"
cp /etc/OpenCL/vendors/*.icd "$work/vendors/"
export OCL_ICD_VENDORS=$work/vendors
: >"$work/log"
"$bin/expertd-runtime" --config "$work/expertd.yaml" --list-devices >"$work/devices" 2>>"$work/log" || fail "--list-devices bears it: $?"
grep -q 'a-broken.icd' "$work/log" || fail "it names the driver"
grep -q '^platform ' "$work/devices" || fail "it lists the others' devices"
start
settle || fail "the runtime bears it"
stop
unset OCL_ICD_VENDORS
[ -z "$(find /tmp -maxdepth 1 -name 'expertd-drivers.*' -user "$(id -u)" -newer "$work/vendors/a-broken.icd" 2>/dev/null)" ] || fail "no folder is left behind"

# Drivers that came through are loaded once at the next start, and tried again after a change, and after a start that did
# not come through. And this one has a handler for the signal that ends the runtime, as LLVM in a driver has.
cat >"$work/counting.c" <<C
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>
static void take(int number) { (void)number; }
__attribute__((constructor)) static void count(void)
{
    signal(SIGTERM, take);
    const int fd = open("$work/loads", O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd >= 0 && write(fd, "x", 1) == 1)
        close(fd);
}
void *clGetExtensionFunctionAddress(const char *name) { (void)name; return 0; }
C
gcc -shared -fPIC -o "$work/libcounting.so" "$work/counting.c" || fail "the counting driver is built"
rm "$work/vendors/a-broken.icd"
echo "$work/libcounting.so" >"$work/vendors/a-counting.icd"
export OCL_ICD_VENDORS=$work/vendors
loads() {
    : >"$work/loads"
    start
    settle || fail "the runtime starts: $1"
    stop
    [ "$(wc -c <"$work/loads")" = "$2" ] || fail "drivers are loaded $(wc -c <"$work/loads") times, not $2: $1"
}
loads "new ones" 2
loads "known ones" 1
touch -d '1 hour ago' "$work/libcounting.so"
loads "a library that changed" 2
touch "$cache/compiling"
: >"$work/loads"
"$bin/expertd-runtime" --config "$work/expertd.yaml" --list-devices >"$work/devices" 2>>"$work/log" || fail "--list-devices: $?"
[ "$(wc -c <"$work/loads")" = 2 ] || fail "--list-devices trusts drivers of a start that was killed"
loads "after a start that was killed" 2
loads "known again" 1
# What else names drivers to the loader.
export OCL_ICD_FILENAMES=$work/libanother.so
loads "one named beside the folder" 2
loads "known, too" 1
cp "$work/libcounting.so" "$work/libanother.so"
loads "one that was named, and is there now" 2
unset OCL_ICD_VENDORS OCL_ICD_FILENAMES

# Whoever compiles for a measurement looks at the mark of what was killed, and leaves none.
touch "$cache/compiling" "$cache/damaged"
"$bin/expertd-runtime" --config "$work/expertd.yaml" --measure >"$work/measured" 2>>"$work/log" || fail "--measure: $?"
[ ! -e "$cache/damaged" ] || fail "--measure begins with what a start that was killed has left"
[ ! -e "$cache/compiling" ] || fail "--measure leaves no mark"

# Nowhere to write: PoCL alone would find no device.
sed -i 's/, cache_dir: cache//' "$work/expertd.yaml"
: >"$work/log"
env -u XDG_CACHE_HOME HOME=/proc "$bin/expertd-runtime" --config "$work/expertd.yaml" --list-devices >"$work/devices" 2>>"$work/log" ||
    fail "--list-devices without a home"
grep -q '^platform ' "$work/devices" || fail "it lists devices without a home"
grep -q 'no folder for compiled kernels' "$work/log" || fail "it says where they are kept"
# And serves so, from where temporary files are.
mkdir -p -m 700 "$work/tmp/expertd-cache-$(id -u)"
cp -a "$cache" "$work/tmp/expertd-cache-$(id -u)/"
: >"$work/log"
env -u XDG_CACHE_HOME HOME=/proc TMPDIR="$work/tmp" "$bin/expertd-runtime" --config "$work/expertd.yaml" 2>>"$work/log" &
runtime=$!
settle || fail "the runtime serves without a home"
grep -qF "they are kept in $work/tmp/expertd-cache-" "$work/log" || fail "it says where kernels are kept"
stop
echo "drivers: ok"

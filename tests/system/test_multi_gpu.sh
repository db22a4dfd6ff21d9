#!/bin/bash
# scripts/multi-gpu writes what supervisord needs to serve every OpenCL device; here PoCL shows two.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
command -v supervisord >/dev/null || { echo "skipped: supervisord is missing (Debian: supervisor)"; exit 77; }
work=$(mktemp -d)
export POCL_DEVICES="pthread pthread" XDG_CACHE_HOME=$work/cache
supervisor=''
trap '[ -z "$supervisor" ] || kill -TERM $supervisor; wait; rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $*"
    cat "$work"/server/*.log
    exit 1
}
port=$(/usr/bin/python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
export EXPERTD_ENDPOINT=tcp://127.0.0.1:$port
scripts/multi-gpu --out "$work/server" --name "multi-$$" --listen "$EXPERTD_ENDPOINT" --experts 2 --hidden 32 \
    --bin "$BUILD/bin" || fail "it writes the files"
scripts/multi-gpu --out "$work/server" --bin "$BUILD/bin" 2>/dev/null && fail "it does not overwrite"
scripts/multi-gpu --out "$work/none" --class gpu --bin "$BUILD/bin" 2>/dev/null && fail "there is no GPU among these"

# The dht would want its well-known ports.
sed -i '/^\[program:expertd-dht\]/,$d' "$work/server/supervisord.conf"
supervisord -n -c "$work/server/supervisord.conf" >"$work/server/supervisord.log" 2>&1 &
supervisor=$!
"$BUILD/bin/expertctl" --timeout 100 wait ffn.0.0 ffn.0.1 ffn.1.0 ffn.1.1 || fail "all experts come up"
for device in 0 1; do
    "$BUILD/bin/expertctl" list | grep "ffn\.$device\.1" | grep -q "device$device" || fail "device$device has its experts"
done
kill -TERM $supervisor
wait $supervisor
supervisor=''
echo "multi-gpu: ok"

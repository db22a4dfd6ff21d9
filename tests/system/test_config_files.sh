#!/bin/bash
# A wrong configuration is refused by every program, with its line and exit status 2; a relative path is relative to it.
# timeout: 900
# instrumented: texts that are wrong
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=$(cd "${BUILD:-build}/bin" && pwd) || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*"
    exit 1
}

# refused "LINE: WHAT" TEXT: each program says so of a file with that text, in the third line of which is the fault.
refused() {
    local program status command
    printf 'server: {name: refused-%s, run_dir: "%s/run"}\nfrontend: {listen: ["ipc://%s/f"]}\n%b\n' $$ "$work" "$work" "$2" \
        >"$work/wrong.yaml"
    for program in expertd-frontend expertd-runtime expertd-dht "${others[@]}"; do
        read -ra command <<<"$program"
        timeout 600 "$bin/${command[0]}" "${command[@]:1}" --config "$work/wrong.yaml" 2>"$work/said"
        status=$?
        [ $status = 2 ] || fail "$program ends with $status: $2"
        grep -qF "$work/wrong.yaml:3: $1" "$work/said" || fail "$program says $(cat "$work/said"), not '$1': $2"
    done
}
others=(expertd-http 'expertd check' 'expertd serve')
refused 'dht.bootstrap: ' 'dht: {bootstrap: ["::1"]}'
refused 'dht.expiration: ' 'dht: {update_period: 300, expiration: 30}'
refused 'http.dht: ' 'http: {dht: "tcp://127.0.0.1:*"}'
others=() # all read a file in the same way
refused "experts[0].block: there is no block 'fnn': is 'ffn' meant?" 'experts: [{uid: ffn.0, block: fnn}]'
refused 'a second document' '---\nexperts: []'
refused 'invalid' '# Gr\xfc\xdfe'
refused 'control characters' '# \x01'
refused 'server: stands twice' 'server: {name: other}'
refused "dht.listen: 'inproc://x' is only reached" 'dht: {listen: "inproc://x"}'

# An address that is on this machine alone cannot be published, whoever has written it.
printf 'server: {name: refused-%s, run_dir: "%s/run"}\n\nfrontend: {listen: ["ipc://%s/f"]}\n' $$ "$work" "$work" \
    >"$work/wrong.yaml"
timeout 600 "$bin/expertd-dht" --config "$work/wrong.yaml" 2>"$work/said"
status=$?
{ [ $status = 2 ] && grep -qF "$work/wrong.yaml:3: frontend.listen: " "$work/said"; } || fail "$status, $(cat "$work/said")"

# Where the log is JSON each line is, whatever keeps a program from starting.
in_json() { # EXIT-STATUS WORDS COMMAND...
    local status=$1 words=$2 program=$3
    shift 3
    timeout 600 "$bin/$program" "$@" 2>"$work/said"
    [ $? = "$status" ] || fail "$program $*: it says $(cat "$work/said")"
    /usr/bin/python3 - "$words" "$work/said" <<'PY' || fail "$program $*: its lines are no JSON, or lack '$words': $(cat "$work/said")"
import json, sys
with open(sys.argv[2]) as file:
    lines = [json.loads(line) for line in file]
assert any(sys.argv[1] in line["msg"] for line in lines), lines
PY
}
head_of() { printf 'server: {name: refused-%s, run_dir: "%s/run", log_format: json, insecure: true}\n%b\n' $$ "$work" "$1" >"$work/json.yaml"; }
head_of 'dht: {bootstrap: ["::1"]}'
for program in expertd-frontend expertd-runtime expertd-dht expertd-http; do
    [ -x "$bin/$program" ] || continue
    in_json 2 "json.yaml:2: dht.bootstrap: " $program --config "$work/json.yaml"
    in_json 2 "is --server-name meant?" $program --server-log-format json --server-nam=x --server-nmae y
done
in_json 2 "json.yaml:2: dht.bootstrap: " expertd check "$work/json.yaml"
in_json 2 "cannot read the configuration" expertd serve --config "$work/none.yaml" --server_log_format=json
head_of 'frontend: {lisen: ["tcp://127.0.0.1:1"]}'
in_json 2 "there is no option 'lisen' here" expertd-frontend --config "$work/json.yaml"
head_of "frontend: {listen: [\"ipc://$work/none/such\"]}\\ndht: {listen: \"ipc://$work/d\", port: 0}\\ndevices: [{name: device0, cache_dir: \"$(tests/cache take)\"}]\\nexperts: [{uid: nop.0, block: nop}]"
in_json 1 "cannot listen on ipc://$work/none/such" expertd-frontend --config "$work/json.yaml"
in_json 1 "cannot start (exit status 1): ending all" expertd serve --config "$work/json.yaml" --no-dht

mkdir "$work/box" "$work/elsewhere"
cat >"$work/box/expertd.yaml" <<YAML
server: {name: files-$$, run_dir: run, log_level: debug}
frontend: {listen: ["ipc://frontend"]}
checkpoint: {dir: checkpoints, interval: 0}
devices: [{name: device0, cache_dir: cache}]
experts: [{uid: ffn.0, hidden_dim: 8, max_batch_size: 16, optimizer: sgd}]
YAML
pids=()
trap '[ ${#pids[@]} = 0 ] || kill "${pids[@]}"; wait; rm -rf "$work"' EXIT
# Each program stands in another folder.
(cd "$work" && exec "$bin/expertd-frontend" --config box/expertd.yaml) 2>>"$work/log" &
pids+=($!)
(cd "$work/elsewhere" && exec "$bin/expertd-runtime" --config ../box/expertd.yaml) 2>>"$work/log" &
pids+=($!)
export EXPERTD_ENDPOINT=ipc://$work/box/frontend
"$bin/expertctl" --timeout 600 wait ffn.0 || fail "they meet: $(cat "$work/log")"
"$bin/expertctl" --timeout 600 checkpoint ffn.0 >/dev/null || fail "a checkpoint is written: $(cat "$work/log")"
grep -qF " wrote '$work/box/checkpoints/ffn.0/" "$work/log" || fail "at log_level debug it is said: $(cat "$work/log")"
[ -d "$work/box/checkpoints/ffn.0" ] && [ -d "$work/box/cache" ] && [ -d "$work/box/run" ] || fail "$(find "$work")"
kill "${pids[1]}"
wait "${pids[1]}"
(cd "$work/elsewhere" && exec "$bin/expertd-runtime" --config ../box/expertd.yaml) 2>>"$work/log" &
pids[1]=$!
for ((i = 0; i < 6000; i++)); do # a bound that only a hang reaches
    ! grep -qF " loaded '$work/box/checkpoints/ffn.0/" "$work/log" || break
    kill -0 "${pids[1]}" || fail "it starts again: $(cat "$work/log")"
    sleep 0.1
done
grep -qF " loaded '$work/box/checkpoints/ffn.0/" "$work/log" || fail "what is loaded is said: $(cat "$work/log")"
[ -z "$(ls "$work/elsewhere")" ] || fail "where the runtime stands there is nothing: $(ls "$work/elsewhere")"
kill "${pids[@]}"
wait "${pids[@]}"
pids=()
echo "config files: ok"

#!/bin/bash
# expertd: a whole server by one command, of a configuration for two devices and of hivemind-server's options; what dies
# is started again; check and print say what would be.
# timeout: 1800
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=$(cd "${BUILD:-build}/bin" && pwd) || exit 1
work=$(mktemp -d)
tests/cache take one two device0 >/dev/null
export POCL_DEVICES="pthread pthread"
served=''
trap '[ -z "$served" ] || kill -TERM $served; wait; rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*"
    cat "$work"/*.log
    exit 1
}
free_port() { /usr/bin/python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'; }
port=$(free_port)
http=''
[ ! -x "$bin/expertd-http" ] || http=127.0.0.1:$(free_port)
http_section=${http:+"http: {start: true, listen: \"$http\"}"}
export EXPERTD_ENDPOINT=tcp://127.0.0.1:$port
# A name that must be quoted wherever it is written.
box="$work/a box, 100% \"mine\""
mkdir "$box"
cat >"$box/expertd.yaml" <<YAML
server: {name: expertd-$$, run_dir: run}
frontend: {listen: ["$EXPERTD_ENDPOINT"]}
dht: {listen: "ipc://$work/dht", port: 0}
$http_section
devices:
  - {name: one}
  - {name: two, device: "1"}
experts:
  - {uid: nop.0, block: nop, hidden_dim: 8, max_batch_size: 16, device: one}
  - {uid: nop.1, block: nop, hidden_dim: 8, max_batch_size: 16, device: two}
YAML

# Of two programs of one name, which one is a child of the server.
part() {
    local status
    for status in $(grep -lE "^PPid:[[:space:]]*$served\$" /proc/[0-9]*/status 2>/dev/null); do
        tr '\0' ' ' <"${status%/status}/cmdline" 2>/dev/null | grep -q "$1" && basename "${status%/status}"
    done
    return 0
}
serve() {
    : >"$work/serve.log"
    "$bin/expertd" serve "$@" >>"$work/serve.log" 2>&1 &
    served=$!
}
ended_with() {
    wait "$served"
    local status=$?
    served=''
    [ $status = "$1" ] || fail "it ends with $status, not $1: $2"
}

"$bin/expertd" check "$box/expertd.yaml" >"$work/check.log" 2>&1 || fail "check finds it good"
grep -q "1 experts on one, 1 on two" "$work/check.log" || fail "check says what it is about"
serve --config "$box/expertd.yaml"
"$bin/expertctl" --timeout 600 wait nop.0 nop.1 || fail "both devices are served"
grep -q "server 'expertd-$$': 1 experts on one, 1 on two; clients connect to $EXPERTD_ENDPOINT" "$work/serve.log" ||
    fail "it says what is served where"
[ -n "$(part expertd-dht)" ] || fail "there is a dht"
# http.start: it is one of the parts, and knows when all is well.
ready() { /usr/bin/python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=60)' "http://$http/readyz" 2>/dev/null; }
if [ -n "$http" ]; then
    grep -q ", HTTP at $http" "$work/serve.log" || fail "it says where HTTP is"
    until ready; do
        kill -0 "$served" 2>/dev/null || fail "expertd-http is started, too"
        sleep 0.1
    done
fi
for name in "device two" expertd-frontend ${http:+expertd-http}; do
    old=$(part "$name")
    kill -KILL "$old" || fail "there is a part $name"
    until new=$(part "$name") && [ -n "$new" ] && [ "$new" != "$old" ]; do
        kill -0 "$served" 2>/dev/null || fail "it goes on without $name"
        sleep 0.1
    done
done
"$bin/expertctl" --timeout 600 wait nop.0 nop.1 || fail "all is well after parts were killed"
kill -TERM "$served"
ended_with 0 "after SIGTERM"
[ -z "$(ls /dev/shm | grep "^expertd.expertd-$$\.")" ] || fail "no segment is left"

# hivemind-server's options, with underscores. What it prints is what it serves.
options=(--num_experts 4 --expert_pattern 'nop.[0:8].[0:8]' --expert_cls nop --hidden_dim=8 --max_batch_size 16 --device cpu
    --server_name "options-$$" --server-run-dir "$work/run" --frontend-listen "$EXPERTD_ENDPOINT" --no_dht
    --stats_report_interval 1 --server-log-format json --update_period 5 --increase_file_limit)
"$bin/expertd" print "${options[@]}" >"$box/printed.yaml" 2>>"$work/print.log" || fail "print"
"$bin/expertd" print --config "$box/printed.yaml" >"$work/again.yaml" 2>>"$work/print.log" || fail "print reads what it wrote"
cmp "$box/printed.yaml" "$work/again.yaml" || fail "which is the same"
grep -q 'update_period: 5$' "$work/again.yaml" || fail "hivemind's names are the configuration's"
serve "${options[@]}"
"$bin/expertctl" --timeout 600 wait --experts 4 || fail "four experts are served"
[ -z "$(part expertd-dht)" ] || fail "there is no dht"
until grep -qE '"program":"expertd-runtime","pid":[0-9]+,"level":"info","msg":"statistics","seconds":[0-9.]+,"tasks":0,' "$work/serve.log"; do
    kill -0 "$served" || fail "it reports what it did"
    sleep 0.1
done
kill -INT "$served"
ended_with 0 "after SIGINT"
# Each line of each program is an object.
grep -q '"program":"expertd-frontend"' "$work/serve.log" && ! grep -qE '^20[0-9-]+ ' "$work/serve.log" || fail "all lines are JSON"
grep '^{' "$work/serve.log" | /usr/bin/python3 -c 'import json, sys; all(json.loads(line)["msg"] for line in sys.stdin)' || fail "which a program reads"

# Each of hivemind-server's options, in both spellings: the same configuration, and what it says is in it.
all=(--num_experts 4 --expert_pattern 'ffn.[0:32].[0:256]' --expert_cls ffn --hidden_dim 64 --host_maddrs /ip4/0.0.0.0/tcp/31399
    --announce_maddrs /ip4/10.0.0.7/tcp/31399 --no_relay --use_auto_relay --num_handlers 8 --min_batch_size 2 --max_batch_size 32
    --device cpu --optimizer adam --scheduler linear --num_warmup_steps 10 --num_training_steps 100 --clip_grad_norm 1.5
    --update_period 7 --expiration 21 --initial_peers 10.0.0.8:4222 /ip4/10.0.0.9/tcp/4223 --increase_file_limit
    --compression MEANSTD_16BIT --checkpoint_dir /var/lib/one --stats_report_interval 11 --identity_path /var/lib/id.pem --server_insecure true)
hyphens=()
for word in "${all[@]}"; do
    [[ $word != --* ]] || word=${word//_/-}
    hyphens+=("$word")
done
"$bin/expertd" print "${all[@]}" >"$work/underscores.yaml" 2>"$work/all.log" || fail "hivemind's options, with underscores"
"$bin/expertd" print "${hyphens[@]}" >"$work/hyphens.yaml" 2>>"$work/all.log" || fail "and with hyphens"
cmp "$work/underscores.yaml" "$work/hyphens.yaml" || fail "both spellings are the same"
for said in 'count: 4' 'uid: "ffn.\[0:32\].\[0:256\]"' 'block: "ffn"' 'hidden_dim: 64' 'listen: \["tcp://0.0.0.0:31399"\]' 'advertise: "tcp://10.0.0.7:31399"' \
    'min_batch_size: 2' 'max_batch_size: 32' 'optimizer: "adam"' 'schedule: "linear"' 'warmup_steps: 10' 'total_steps: 100' 'clip_norm: 1.5' \
    'update_period: 7' 'expiration: 21' 'bootstrap: \["10.0.0.8:4222", "10.0.0.9:4223"\]' 'compression: "meanstd_16bit"' 'dir: "/var/lib/one"' \
    'stats_interval: 11' 'identity_file: "/var/lib/id.pem"'; do
    grep -q " $said\$" "$work/underscores.yaml" || fail "the configuration has no '$said': $(cat "$work/underscores.yaml")"
done
"$bin/expertd" print --expert_uids ffn.1 ffn.2 --optimizer none --device cpu 2>>"$work/all.log" | grep -c 'uid: "ffn.[12]"' | grep -qx 2 || fail "--expert_uids"

# supervisord runs the same, from a folder whose name it would misread.
if command -v supervisord >/dev/null; then
    "$bin/expertd" print --supervisord --config "$box/expertd.yaml" >"$work/supervisord.conf" || fail "print --supervisord"
    supervisord -n -c "$work/supervisord.conf" >"$work/supervisord.log" 2>&1 &
    served=$!
    until "$bin/expertctl" --timeout 5 wait nop.0 nop.1 2>/dev/null; do
        kill -0 "$served" 2>/dev/null || fail "supervisord runs both devices"
    done
    kill -TERM "$served"
    wait "$served"
    served=''
fi

# What is wrong is said before anything is started.
refused() {
    local status what=$1
    shift
    timeout 300 "$bin/expertd" "$@" >"$work/refused.log" 2>&1
    status=$?
    [ $status = 2 ] || fail "exit status $status: $*"
    grep -qF -- "$what" "$work/refused.log" || fail "it says '$what': $*"
}
refused "is 'serve' meant?" sevre
refused "is --num-experts meant?" serve --num_expertz 4
refused "what is it about?" serve
refused "write it out, as --initial-peers" print --num_experts 4 --initial_peer 10.0.0.7:4222
refused "there is no Python here" print --num_experts 4 --custom_module_path x.py
refused "not by both" serve --config "$box/expertd.yaml" --num_experts 4
printf 'devices: [{name: a}, {name: b}, {name: a}]\n' >"$work/twice.yaml"
refused "twice.yaml:1: devices[2].name" check "$work/twice.yaml"
sed -i 's/block: nop, hidden_dim: 8, max_batch_size: 16, device: two/hidden_dim: 8, weights: "w\/{uid}.safetensors"/' "$box/expertd.yaml"
refused "$box/expertd.yaml:$(grep -n weights "$box/expertd.yaml" | cut -d: -f1): experts[1].weights: cannot read '$box/w/nop.1.safetensors'" \
    check "$box/expertd.yaml"
printf 'server: {key_file: k, clients: c}\nhttp: {token_file: t}\nexperts:\n- uid: a.0\n  block: own.so\n' >"$work/files.yaml"
for what in "1: server.key_file: cannot read '$work/k'" "1: server.clients: cannot read '$work/c'" "2: http.token_file: cannot read '$work/t'" \
    "5: experts[0].block: cannot read '$work/own.so'"; do
    refused "$work/files.yaml:$what" check "$work/files.yaml"
done
# expertd-dht would not start, nor would expertd-http: check sees it, and so does serve.
printf 'frontend:\n  listen: ["ipc:///run/x"]\nexperts: [{uid: nop.0, block: nop}]\n' >"$work/local.yaml"
printf 'http: {start: true}\ndht: {listen: "tcp://127.0.0.1:*"}\nexperts: [{uid: nop.0, block: nop}]\n' >"$work/asks.yaml"
for command in check serve; do
    refused "local.yaml:2: frontend.listen: 'ipc:///run/x' cannot be published" $command --config "$work/local.yaml"
    refused "http.dht: 'tcp://127.0.0.1:*' has no port" $command --config "$work/asks.yaml" --frontend-advertise tcp://10.0.0.7:1
done
"$bin/expertd" check "$work/local.yaml" --no-dht >"$work/check.log" 2>&1 || fail "without a directory nothing is published"
refused "which file?" check
printf 'server: {name: empty}\n' >"$work/empty.yaml"
"$bin/expertd" check "$work/empty.yaml" | grep -qx "good: server 'empty', no experts" || fail "check says that there are none"
refused "the configuration has no experts" serve --config /dev/null
for command in "" serve check plan print; do
    "$bin/expertd" $command --help >"$work/help.log" || fail "$command --help"
    grep -q Usage "$work/help.log" || fail "$command --help says how"
done
[ "$("$bin/expertd" --version | cut -d' ' -f1)" = expertd ] || fail "--version"
"$bin/expertd" dht --help | grep -q dht-bootstrap || fail "dht --help"

# A node to join by.
"$bin/expertd" dht --host_maddrs /ip4/0.0.0.0/udp/0 --use_ipfs --refresh_period 30 --no_relay --use_auto_relay --server-run-dir "$work/run-dht" --dht-listen "ipc://$work/node" 2>"$work/dht.log" &
served=$!
until EXPERTD_DHT=ipc://$work/node "$bin/expertctl" --timeout 60 search nop. >/dev/null 2>&1; do
    kill -0 "$served" 2>/dev/null || fail "the node lives"
done
kill -TERM "$served"
ended_with 0 "a DHT node after SIGTERM"
echo "expertd: ok"

#!/bin/bash
# timeout: 600
# once: the listener is Python's, under supervisord
# supervisord's group with the event listener expertd-alert: a killed runtime raises an alert and another when it is back, one
# that cannot start is given up with one, and a program that is stopped raises none.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
command -v supervisord >/dev/null || { echo "skipped: supervisord is missing (Debian: supervisor)"; exit 77; }
bin=$(realpath "$BUILD/bin")
work=$(mktemp -d)
supervisor=''
trap '[ -z "$supervisor" ] || kill -TERM $supervisor; wait; rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*"
    cat "$work"/*.log "$work/alerts"
    exit 1
}
cat >"$work/expertd.yaml" <<YAML
server: {name: alerts-$$, run_dir: "$work/run"}
frontend: {listen: ["ipc://$work/frontend"]}
dht: {listen: "ipc://$work/dht", port: 0, frontend: none}
devices: [{name: device0, cache_dir: "$(tests/cache take)"}]
experts: [{uid: nop.0, block: nop, hidden_dim: 4}]
YAML
export EXPERTD_ENDPOINT=ipc://$work/frontend
"$bin/expertd" print --supervisord --alert 'sh -c "cat >>\"$1\"" alert "'"$work"'/alerts"' --config "$work/expertd.yaml" \
    >"$work/supervisord.conf" || fail "it prints the file"
grep -q '^\[group:expertd\]' "$work/supervisord.conf" || fail "the programs are a group"
# And one that never starts.
sed -i 's/^programs=/programs=hopeless,/' "$work/supervisord.conf"
cat >>"$work/supervisord.conf" <<'CONF'

[program:hopeless]
command=/bin/sh -c "exit 3"
startretries=1
CONF
: >"$work/alerts"
supervisord -n -c "$work/supervisord.conf" >"$work/supervisord.out.log" 2>&1 &
supervisor=$!
control() { supervisorctl -c "$work/supervisord.conf" "$@"; }
alerted() { # waits for a line: PROGRAM WHAT
    until grep -q "^program=$1 .*what=$2 " "$work/alerts"; do
        kill -0 "$supervisor" 2>/dev/null || fail "supervisord has ended"
        [ "$SECONDS" -lt 500 ] || fail "no alert: $1 $2"
        sleep 0.1
    done
}
"$bin/expertctl" --timeout 500 wait nop.0 || fail "it serves"
alerted hopeless crashed
alerted hopeless gave-up
kill -KILL "$(control pid expertd:expertd-runtime-device0)" || fail "there is a runtime"
alerted expertd-runtime-device0 crashed
alerted expertd-runtime-device0 back
"$bin/expertctl" --timeout 500 wait nop.0 || fail "it serves again"
control stop expertd:expertd-dht expertd:expertd-runtime-device0 >"$work/control.log" || fail "programs are stopped"
control start expertd:expertd-runtime-device0 >>"$work/control.log" || fail "one is started"
# What came after in the listener's queue is worked off after it: an alert that these raised would be there.
kill -KILL "$(control pid expertd:expertd-frontend)"
alerted expertd-frontend crashed
grep -q '^program=expertd-dht ' "$work/alerts" && fail "who is stopped raises an alert"
[ "$(grep -c '^program=expertd-runtime-device0 ' "$work/alerts")" = 2 ] || fail "who is stopped and started raises an alert"
printf 'ver:3.0 server:s serial:1 pool:p poolserial:1 eventname:TICK_5 len:15\nwhen:1201063880\n' | supervisor/expertd-alert true >"$work/out.log" || fail "other events are taken"
[ "$(cat "$work/out.log")" = $'READY\nRESULT 2\nOKREADY' ] || fail "the listener's protocol: $(cat "$work/out.log")"
supervisor/expertd-alert --nonsense </dev/null >/dev/null 2>&1
[ $? = 2 ] || fail "an option that it has not is an error"
supervisor/expertd-alert '{nonsense}' </dev/null 2>/dev/null
[ $? = 2 ] || fail "a word that is not known is a usage error"
kill -TERM "$supervisor"
wait "$supervisor"
supervisor=''
[ -z "$(ls /dev/shm | grep "^expertd.alerts-$$\.")" ] || fail "no segment is left"
echo "alerts: ok"

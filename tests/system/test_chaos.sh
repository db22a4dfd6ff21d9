#!/bin/sh
# A short run of scripts/chaos, with the same events each time.
# timeout: 900
root=$(dirname "$0")/../..
"$root/tests/cache" take device0 device1 >/dev/null
exec /usr/bin/python3 "$root/scripts/chaos" --seed 7 --seconds 10 --clients 6 --devices 2

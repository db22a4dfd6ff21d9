#!/bin/sh
# A short run of scripts/chaos, with the same events each time.
# timeout: 900
exec /usr/bin/python3 "$(dirname "$0")/../../scripts/chaos" --seed 7 --seconds 10 --clients 6

#!/bin/bash
# timeout: 3600
# once: Python's client; C's and the servers have tests of their own in both builds
# The Python client's own tests (client/python/tests), by Debian's Python, against the programs of this build.
set -u
cd "$(dirname "$0")/../../client/python" || exit 1
for module in torch pytest zmq google.protobuf; do
    /usr/bin/python3 -c "import $module" 2>/dev/null || { echo "skipped: no Python module $module (scripts/install-packages --test)"; exit 77; }
done
[ -x "../../${BUILD:=build}/bin/expertd-dht" ] || { echo "skipped: expertd-dht is not built"; exit 77; }
../../tests/cache take device0 device0.1 device0.2 >/dev/null # up to three servers run at a time
export BUILD PYTHONDONTWRITEBYTECODE=1
exec timeout --foreground 3500 /usr/bin/python3 -X faulthandler -m pytest -p no:cacheprovider -q -ra tests

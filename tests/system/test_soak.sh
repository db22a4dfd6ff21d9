#!/bin/sh
# A few seconds of scripts/soak: all is well, and drawn.
# timeout: 900
# once: a script and its drawing; scripts/chaos runs in both builds
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/tests/cache" take device0 >/dev/null
/usr/bin/python3 "$root/scripts/soak" 0.1 --clients 4 --out "$work/soak.svg" || exit $?
/usr/bin/python3 - "$work" <<'PYTHON'
import json, sys, xml.etree.ElementTree as tree
picture = tree.parse(sys.argv[1] + "/soak.svg").getroot()
lines = len(picture.findall("{http://www.w3.org/2000/svg}polyline"))
with open(sys.argv[1] + "/soak.json") as file:
    samples = json.load(file)["samples"]
assert {"frontend", "dht", "device0"} <= set(samples["memory, MiB"]) and {"segments", "MiB"} <= set(samples["/dev/shm"]), samples.keys()
assert lines == sum(len(group) for group in samples.values()), f"{lines} lines are drawn"
PYTHON

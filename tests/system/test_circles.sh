#!/bin/sh
# scripts/check-circles: files of a folder that call each other in a circle, and headers that include each other in one,
# are told, and others are not.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/room" "$work/other"
compile() { # file, text
    printf '%s\n' "$2" >"$work/$1.c"
    ${CC:-gcc} -c -o "$work/$1.o" "$work/$1.c"
}
compile room/above 'void below(void); void far(void); extern void (*const table[])(void); void above(void) { below(); far(); table[0](); }'
compile room/below 'void below(void) {}'
compile room/table 'void above(void); void (*const table[])(void) = {above};'
compile other/far 'void above(void); void far(void) { above(); }'
"$root/scripts/check-circles" "$work"/*/*.o >/dev/null || { echo 'calls that run one way are refused' >&2; exit 1; }
compile room/below 'void middle(void); void below(void) { middle(); }'
compile room/middle 'void above(void); void middle(void) { above(); }'
if "$root/scripts/check-circles" "$work"/*/*.o 2>"$work/said"; then
    echo 'a circle of three files passes' >&2
    exit 1
fi
for file in above below middle; do grep -q "room/$file" "$work/said"; done
! grep -q 'far\|table' "$work/said"

# Headers: those of a tree that has no git.
mkdir -p "$work/tree/scripts" "$work/tree/room" "$work/tree/tests/unit"
cp "$root/scripts/check-circles" "$work/tree/scripts"
include() { # file, the header that it includes
    printf '#include "%s"\n' "$2" >"$work/tree/$1"
}
include room/a.h room/b.h
include tests/unit/one.h unit/two.h
include tests/unit/two.h room/a.h
"$work/tree/scripts/check-circles" "$work/other/far.o" >/dev/null || { echo 'includes that run one way are refused' >&2; exit 1; }
for circle in 'room/b.h room/a.h' 'tests/unit/two.h unit/one.h'; do
    include ${circle}
    if "$work/tree/scripts/check-circles" "$work/other/far.o" 2>"$work/said"; then
        echo "a circle of headers passes: $circle" >&2
        exit 1
    fi
    grep -q "${circle#* }" "$work/said"
    include "${circle% *}" room/c.h
done

#!/bin/bash
# timeout: 2400
# once: packaging
# `make deb`, of a copy of the tree and the objects that are built already: lintian finds no error, each file is where it
# belongs and in one package, and the packages are installed, run, installed over themselves and purged on top of this machine
# (tests/packages, which by hand does it in a bare Debian).
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
for tool in dpkg-buildpackage dh lintian; do
    command -v $tool >/dev/null || { echo "skipped: there is no $tool (scripts/install-packages --deb)"; exit 77; }
done
git ls-files --error-unmatch Makefile >/dev/null 2>&1 || { echo "skipped: no git checkout, and make deb is of what git has"; exit 77; }
missing=$(dpkg-checkbuilddeps 2>&1) || { echo "skipped: $missing"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*"
    exit 1
}
env -u BUILD -u MAKEFLAGS -u MFLAGS DEB_BUILD_OPTIONS=noautodbgsym make -s deb DEB="$work/deb" DEB_OBJECTS="$BUILD" >"$work/log" 2>&1 || {
    tail -n 60 "$work/log"
    fail "make deb"
}
lintian --fail-on error "$work"/deb/*.changes >"$work/lintian.log" 2>&1 || {
    cat "$work/lintian.log"
    fail "lintian"
}

list() { # PACKAGE: its files
    dpkg-deb --contents "$work"/deb/"$1"_*.deb | sed 's/ -> .*//' | awk '$1 !~ /^d/ { print $6 }' | sed 's/^\.//' | sort
}
packages=(expertd libexpertd1 libexpertd-dev python3-expertd)
for package in "${packages[@]}"; do list "$package" >"$work/$package.files" || fail "there is a package $package"; done
twice=$(sort "$work"/*.files | uniq -d)
[ -z "$twice" ] || fail "in two packages: $twice"
has() { # PACKAGE FILE...
    local package=$1 file
    shift
    for file in "$@"; do grep -qx -- "$file" "$work/$package.files" || fail "$package has $file: $(cat "$work/$package.files")"; done
}
programs=(expertd expertd-frontend expertd-runtime expertd-dht expertd-http expertctl expertd-alert expertd-convert-state-dict)
for program in "${programs[@]}"; do has expertd "/usr/bin/$program" "/usr/share/man/man1/$program.1.gz"; done
[ "$(grep -c ^/usr/bin/ "$work/expertd.files")" = "${#programs[@]}" ] || fail "programs that nobody knows: $(grep ^/usr/bin/ "$work/expertd.files")"
for program in "${programs[@]:0:6}"; do has expertd "/usr/share/bash-completion/completions/$program"; done
for unit in systemd/*; do
    has expertd "$(grep -x "\(/usr\)\{0,1\}/lib/systemd/system/${unit##*/}" "$work/expertd.files" || echo "the unit ${unit##*/}")"
done
has expertd /etc/expertd/expertd.yaml /usr/share/zsh/vendor-completions/_expertd /usr/share/expertd/grafana.json /usr/share/expertd/expertd.proto \
    /usr/lib/expertd/tensor_file.py
grep -q '^/usr/share/doc/expertd/configuration.md' "$work/expertd.files" || fail "the configuration's reference is there"
has libexpertd1 "/usr/lib/libexpertd.so.1"
has libexpertd-dev /usr/include/expertd/expertd.h /usr/lib/libexpertd.so /usr/lib/libexpertd.a /usr/lib/pkgconfig/libexpertd.pc /usr/lib/pkgconfig/expertd-runtime.pc \
    /usr/include/expertd-runtime/runtime/blocks/own_expert.h
has python3-expertd /usr/lib/python3/dist-packages/expertd/__init__.py /usr/lib/python3/dist-packages/expertd/hivemind/__init__.py
strangers=$(grep -hvE '^(/usr/(bin|include|lib|share)/|(/usr)?/lib/systemd/system/|/etc/expertd/expertd\.yaml$)' "$work"/*.files)
[ -z "$strangers" ] || fail "outside of where packages put files: $strangers"
! grep -hE '\.pyc$|__pycache__|/tests?/' "$work"/*.files || fail "what nobody needs"
dpkg-deb --ctrl-tarfile "$work"/deb/expertd_*.deb | tar -xO ./conffiles | grep -qx /etc/expertd/expertd.yaml || fail "the configuration is a conffile"
for needed in libzmq5 libmicrohttpd ocl-icd-libopencl1 adduser; do
    dpkg-deb -f "$work"/deb/expertd_*.deb Depends | grep -q "$needed" || fail "expertd depends on $needed: $(dpkg-deb -f "$work"/deb/expertd_*.deb Depends)"
done

DEBS=$work/deb PYTHON=$(/usr/bin/python3 -c 'import torch' 2>/dev/null && echo yes) tests/packages / >"$work/installed.log" 2>&1
status=$?
cat "$work/installed.log"
case $status in
0) echo "packages: ok" ;;
77) echo "packages: ok, but not installed: $(tail -n 1 "$work/installed.log")" ;;
*) exit 1 ;;
esac

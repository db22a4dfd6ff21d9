#!/bin/bash
# What `make install` leaves under DESTDIR: every program, a library that exports nothing but expertd_*, and enough for a
# stranger's client to be compiled with pkg-config alone, in C and in C++, shared and static.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
work=$(mktemp -d)
started=()
trap '[ ${#started[@]} = 0 ] || kill "${started[@]}"; wait; rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $*"
    exit 1
}
if nm -D "$BUILD/lib/libexpertd.so" | grep -qE '__(asan|ubsan|tsan)_'; then
    echo "instrumented libraries are not for installing"
    exit 77
fi
prefix=/opt/expertd
root=$work/root$prefix
# What is built is installed: nothing is to be made anew here, beside other tests.
make -s -o all install BUILD="$BUILD" DESTDIR="$work/root" PREFIX=$prefix >"$work/log" 2>&1 || {
    cat "$work/log"
    fail "make install"
}
for program in expertd expertd-frontend expertd-runtime expertd-dht expertd-http expertctl; do
    "$root/bin/$program" --version | grep -q expert || fail "$program is there"
done
/usr/bin/python3 "$root/bin/expertd-convert-state-dict" --help | grep -q usage || fail "the converter finds its modules"
# Whatever is installed tells its version, what a slip may have meant, and has a page of the manual.
for program in "$root"/bin/*; do
    name=${program##*/}
    "$program" --version | grep -qE ' [0-9]+\.[0-9]+\.[0-9]+$' || fail "$name tells its version: $("$program" --version)"
    ! "$program" --hlep >"$work/slip" 2>&1 && grep -qE 'is .*help.* meant' "$work/slip" || fail "$name suggests an option: $(cat "$work/slip")"
    grep -q '^\.SH SYNOPSIS' "$root/share/man/man1/$name.1" || fail "$name has a page"
done
for program in expertd expertd-frontend expertd-runtime expertd-dht expertd-http expertctl expertd-alert expertd-convert-state-dict; do
    page=$root/share/man/man1/$program.1
    # Every option of --help has its place in the page.
    flags=$("$root/bin/$program" --help | grep -oE '^ {1,6}-[^ =]*' | grep -oE -- '--[a-z-]+' | sed 's/-/\\\\-/g')
    for flag in $flags; do grep -q -- "$flag" "$page" || fail "$flag is not in the manual of $program"; done
    [ -e "$root/share/bash-completion/completions/$program" ] || fail "$program is completed"
    grep -q "^complete .* $program\( \|\$\)" "$root/share/bash-completion/completions/$program" || fail "bash completes $program"
    head -1 "$root/share/zsh/vendor-completions/_expertd" | grep -q " $program\( \|\$\)" || fail "zsh completes $program"
    ! command -v man >/dev/null || [ -z "$(man --warnings -l "$page" 2>&1 >/dev/null)" ] || fail "$page: $(man --warnings -l "$page" 2>&1 >/dev/null)"
done
completed() { # a line's last word: what it becomes
    bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _expertd 2>/dev/null; printf "%s\n" "${COMPREPLY[@]}"' \
        "$root/share/bash-completion/completions/expertd" "$@"
}
[ "$(completed "$root/bin/expertd" ser)" = serve ] || fail "commands are completed: $(completed "$root/bin/expertd" ser)"
[ "$(completed "$root/bin/expertd" serve --num-exp)" = --num-experts ] || fail "a command's flags are completed"
[ "$(completed "$root/bin/expertd-runtime" --list-d)" = --list-devices ] || fail "a program's flags are completed"
completed "$root/bin/expertctl" back | grep -qx backward || fail "expertctl's commands are completed"
[ "$(completed "$root/bin/expertd-convert-state-dict" --wr)" = --wrap ] || fail "the converter's flags are completed"
completed "$root/bin/expertd-convert-state-dict" "$work/lo" | grep -qx "$work/log" || fail "the converter's files are completed"
[ "$(completed "$root/bin/expertd-alert" --vers)" = --version ] || fail "expertd-alert's flags are completed"
completed "$root/bin/expertd-alert" printen | grep -qx printenv || fail "the command that expertd-alert runs is completed"
completed "$root/bin/expertd-alert" cat "$work/lo" | grep -qx "$work/log" || fail "and its files"
for unit in "$root"/lib/systemd/system/*.service; do
    line=$(sed -n 's/^ExecStart=//p' "$unit")
    [ -x "$work/root${line%% *}" ] || fail "$unit starts what is not there"
done
if command -v systemd-analyze >/dev/null; then # a template by an instance of it
    mkdir "$work/units"
    for unit in "$root"/lib/systemd/system/*; do
        sed "s|ExecStart=$prefix|ExecStart=$root|" "$unit" >"$work/units/$(basename "${unit/@/@one}")"
    done
    said=$(systemd-analyze verify --man=no "$work"/units/*.service "$work"/units/*.target 2>&1 | grep -F "$work/units" || true)
    [ -z "$said" ] || fail "systemd-analyze verify: $said"
fi
# Of what apt says that of the first attempt counts when the second one fails as well: the lists may be what is wrong.
mkdir "$work/apt"
for tool in dpkg-query apt-cache; do printf '#!/bin/sh\n[ %s = apt-cache ]\n' $tool >"$work/apt/$tool"; done
cat >"$work/apt/apt-get" <<'SH'
#!/bin/sh
case $* in
*install*) [ -e "$0.again" ] && echo "E: the second reason" || { : >"$0.again"; echo "E: the first reason"; }; exit 100 ;;
esac
SH
printf '#!/bin/sh\necho 0\n' >"$work/apt/id"
chmod +x "$work"/apt/*
PATH=$work/apt:$PATH scripts/install-packages --fuzz >"$work/apt/said" 2>&1
status=$?
{ [ $status = 100 ] && grep -q 'the first reason' "$work/apt/said" && grep -q 'the second reason' "$work/apt/said"; } ||
    fail "install-packages ends with $status and says: $(cat "$work/apt/said")"
# What a distribution has not is said, and with it what is left out; what cannot be left out is an error.
printf '#!/bin/sh\ncase $2 in oclgrind | spin | check) exit 1 ;; esac\n' >"$work/apt/apt-cache"
printf '#!/bin/sh\n' >"$work/apt/apt-get"
said=$(PATH=$work/apt:$PATH scripts/install-packages --test 2>&1)
status=$?
for line in 'oclgrind here: the test on a simulated device is left out' 'spin here: the check of tests/models is left out' 'check here'; do
    grep -q "there is no $line\$" <<<"$said" || fail "install-packages does not say '$line': $said"
done
[ $status = 1 ] || fail "install-packages ends with $status where check is missing"
for package in $(scripts/install-packages --build --print); do
    case $package in gcc | g++ | libc6-dev | make) continue ;; esac # each Debian build has them
    sed -n '/^Build-Depends:/,/^Standards/p' debian/control | grep -qw -- "$package" || fail "debian/control has no $package to build with"
done
# The container's recipe: what it copies is there, its packages are lists of ours, and a library that a program wants is in them.
for source in $(sed -n '/--from=/d; s/^COPY \(.*\) [^ ]*$/\1/p' Containerfile); do [ -e "$source" ] || fail "Containerfile copies $source, which is not there"; done
groups=$(grep -oE 'install-packages --[a-z]+' Containerfile | cut -d' ' -f2)
[ "$groups" = "$(printf '%s\n' --build --runtime)" ] || fail "Containerfile installs $groups"
for group in $groups; do scripts/install-packages "$group" --print | grep -q . || fail "install-packages has no $group"; done
if command -v dpkg >/dev/null && command -v objdump >/dev/null; then
    # What each has, or comes with libtorrent.
    has=$(scripts/install-packages --runtime --print | tr '|' '\n'; printf '%s\n' libc6 libgcc-s1 libstdc++6 libssl3 libssl3t64 libtinfo6)
    libraries=$(for program in "$root"/bin/*; do objdump -p "$program" 2>/dev/null; done | awk '$1 == "NEEDED" { print $2 }' | sort -u | sed 's/[.+]/\\&/g' | paste -sd '|')
    grep -lxE "(/usr)?/lib/$(gcc -print-multiarch)/($libraries)" /var/lib/dpkg/info/*.list | sed 's|.*/||; s/\.list$//; s/:.*//' | sort -u >"$work/packages"
    [ "$(wc -l <"$work/packages")" -ge 8 ] || fail "programs need libraries: $(cat "$work/packages")"
    missing=$(grep -vxF -e "$has" "$work/packages")
    [ -z "$missing" ] || fail "programs want what install-packages --runtime has not: $missing"
fi
for file in share/expertd/grafana.json share/expertd/expertd.proto share/expertd/dht.proto share/doc/expertd/PROTOCOL.md share/doc/expertd/PROTOCOL-dht.md \
    share/doc/expertd/LICENSE share/doc/expertd/configuration.md; do
    [ -s "$root/$file" ] || fail "$file is there"
done
grep -rq "$work" "$root/lib/pkgconfig" && fail "DESTDIR must not be in what is installed"

for client in client/python/expertd/{__init__.py,py.typed,hivemind/__init__.py}; do
    cmp -s "$client" "$root/share/expertd/python/${client#client/python/}" || fail "$client is installed"
done
if /usr/bin/python3 -c 'import torch, numpy, zmq, google.protobuf' 2>/dev/null; then
    said=$(cd "$work" && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/share/expertd/python /usr/bin/python3 -c 'import expertd; print(expertd.__file__)')
    [ "$said" = "$root/share/expertd/python/expertd/__init__.py" ] || fail "the Python client that is installed is found: $said"
fi
for path in 'PREFIX=/a b' 'PREFIX=/a&b' 'PREFIX=/a|b' 'PREFIX=/a\b' 'DESTDIR=/a ' 'UNITDIR=/a;b'; do
    for goal in install uninstall; do
        said=$(make -n -s -o all $goal BUILD="$BUILD" "$path" 2>&1) && fail "$path is taken"
        grep -q "${path%%=*} is '.*': it must have no spaces" <<<"$said" || fail "$path is refused with its reason: $said"
    done
done
# Without DESTDIR the loader is told of the library, or whoever installs is told to.
mkdir "$work/fake"
printf '#!/bin/sh\necho 0\n' >"$work/fake/id"
printf '#!/bin/sh\ntouch "%s/told"\n' "$work" >"$work/fake/ldconfig"
chmod +x "$work"/fake/*
install_here() {
    PATH=$work/fake:$PATH make -s -o all install BUILD="$BUILD" DESTDIR= PREFIX="$work/here" >"$work/log" 2>&1 || fail "make install: $(cat "$work/log")"
}
install_here
[ -e "$work/told" ] || fail "ldconfig is run as root: $(cat "$work/log")"
printf '#!/bin/sh\necho 1000\n' >"$work/fake/id"
rm "$work/told"
install_here
[ ! -e "$work/told" ] && grep -q 'run ldconfig as root' "$work/log" || fail "others are told to: $(cat "$work/log")"

said=$(timeout 600 scripts/test --help) || fail "scripts/test --help"
grep -q -- --no-install <<<"$said" && ! grep -qE '^(PASS|FAIL) |Reading package' <<<"$said" || fail "scripts/test --help only helps: $said"
timeout 600 scripts/test --no-instal >"$work/log" 2>&1
[ $? = 2 ] && grep -q "no option '--no-instal'" "$work/log" || fail "scripts/test refuses what it does not know: $(cat "$work/log")"
# What it sums up, and that nothing is lost of what goes on beside the tests. A make that builds nothing, and fails at what
# holds the word $BROKEN.
mkdir "$work/sham"
cat >"$work/sham/make" <<'SHAM'
#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in *"${BROKEN:-nothing}"*) echo "error: planted" && exit 2 ;; *check) printf 'PASS one\n3 passed, 0 failed, 1 skipped\n' ;; esac
SHAM
chmod 755 "$work/sham/make"
sham() { # what is broken, the last line, whether the instrumented tests run
    : >"$work/calls"
    CALLS=$work/calls BROKEN=$1 PATH=$work/sham:$PATH timeout 600 scripts/test --no-install >"$work/log" 2>&1
    [ $? = $([ -z "$1" ] && echo 0 || echo 1) ] && [ "$(tail -n 1 "$work/log")" = "$2" ] || fail "scripts/test where '$1' fails: $(cat "$work/log")"
    [ -z "$1" ] || sed -n '/^What failed, once more/,$p' "$work/log" | grep -q 'error: planted' || fail "what failed is said at the end: $(cat "$work/log")"
    [ "$(grep -c 'undefined check' "$work/calls")" = "$3" ] || fail "only what was built is tested: $(cat "$work/calls")"
}
sham '' '11 passed, 0 failed, 2 skipped' 1
sham ' lint' '10 passed, 1 failed, 2 skipped' 1
sham 'undefined all' '7 passed, 1 failed, 1 skipped' 0
sham fuzz-build '9 passed, 1 failed, 2 skipped' 1

strangers=$(nm -D --defined-only "$root/lib/libexpertd.so" | awk '{print $3}' | grep -v '^expertd_')
[ -z "$strangers" ] || fail "the shared library exports $strangers"
strangers=$(nm -g --defined-only "$root/lib/libexpertd.a" | awk 'NF == 3 {print $3}' | grep -v '^expertd_')
[ -z "$strangers" ] || fail "the static library exports $strangers"

cat >"$work/client.c" <<'C'
#include <expertd.h>
#include <expertd_moe.h>
#include <stdio.h>

int status_name(void); /* a name of the user's own that the library has inside, too */
int status_name(void)
{
    return 1;
}

int main(void)
{
    struct expertd_client *client;
    struct expertd_call *call;
    if (expertd_client_new(&client, "tcp://127.0.0.1:1", NULL) < 0 || expertd_ping(client, 1, &call) < 0)
        return 2;
    while (expertd_call_wait(call, -1) < 0)
        ;
    printf("%s %d\n", expertd_status_name(expertd_call_status(call)), status_name());
    expertd_call_release(&call);
    expertd_client_destroy(&client);
    return 0;
}
C
# Not the sysroot variable: it would move the system's own libraries too.
sed "s|^prefix=.*|prefix=$root|" "$root/lib/pkgconfig/libexpertd.pc" >"$work/libexpertd.pc"
grep -q "^prefix=$prefix\$" "$root/lib/pkgconfig/libexpertd.pc" || fail "the pkg-config file knows PREFIX"
export PKG_CONFIG_PATH=$work
cflags=$(pkg-config --cflags libexpertd) || fail "pkg-config"
read -ra flags <<<"$cflags -Wall -Wextra -Werror"
read -ra shared <<<"$(pkg-config --libs libexpertd)"
read -ra static <<<"$(pkg-config --libs libzmq libprotobuf-c) -lm -pthread"

gcc "${flags[@]}" "$work/client.c" -o "$work/shared" "${shared[@]}" || fail "a client against the shared library"
said=$(LD_LIBRARY_PATH=$root/lib "$work/shared") || fail "it runs"
[ "$said" = "UNAVAILABLE 1" ] || fail "it says $said"
LD_LIBRARY_PATH=$root/lib ldd "$work/shared" | grep -q "libexpertd.so.1 => $root/lib" || fail "it needs the library by its soname"
gcc "${flags[@]}" "$work/client.c" -o "$work/static" "$root/lib/libexpertd.a" "${static[@]}" ||
    fail "a client against the static library"
[ "$("$work/static")" = "UNAVAILABLE 1" ] || fail "it runs"
ldd "$work/static" | grep -q libexpertd && fail "it needs no shared library of ours"
g++ -x c++ "${flags[@]}" -fsyntax-only "$work/client.c" || fail "the headers are C++, too"

# An expert of one's own: the page's two lines, and a server that has nothing but what is installed.
sed "s|^prefix=.*|prefix=$root|" "$root/lib/pkgconfig/expertd-runtime.pc" >"$work/expertd-runtime.pc"
sed -n '/^cp .*own_expert/,/^gcc .*expertd-runtime/p' docs/running.md | sed "s|/usr/local|$root|g" >"$work/own-expert"
[ "$(wc -l <"$work/own-expert")" = 2 ] || fail "docs/running.md shows two lines for an expert of one's own"
mkdir "$work/own"
(cd "$work/own" && bash -e ../own-expert) || fail "an expert of one's own, as docs/running.md says"
[ -z "$(find "$root/include" -name '*_private.h')" ] || fail "headers that are installed are public: $(find "$root/include" -name '*_private.h')"
port=$(/usr/bin/python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
export EXPERTD_ENDPOINT=tcp://127.0.0.1:$port
cat >"$work/expertd.yaml" <<YAML
server: {name: install-$$, run_dir: "$work/run"}
frontend: {listen: ["$EXPERTD_ENDPOINT"]}
devices:
  - {name: one, cache_dir: "$(tests/cache take one)"}
experts:
  - {uid: scale_shift.0, block: "$work/own/scale_shift.so", hidden_dim: 8, max_batch_size: 16}
YAML
for program in frontend runtime; do
    "$root/bin/expertd-$program" --config "$work/expertd.yaml" >"$work/$program.log" 2>&1 &
    started+=($!)
done
"$root/bin/expertctl" --timeout 600 wait scale_shift.0 || {
    cat "$work"/*.log
    fail "the installed runtime serves it"
}
make -s -o all uninstall BUILD="$BUILD" DESTDIR="$work/root" PREFIX=$prefix >"$work/log" 2>&1 || fail "make uninstall"
[ -z "$(find "$work/root" ! -type d)" ] || fail "make uninstall leaves $(find "$work/root" ! -type d)"
echo "install: ok"

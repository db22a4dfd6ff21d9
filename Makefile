# expertd: plain GNU make; objects go to build/ (or build/<sanitizers>/), nothing is written beside the sources.
#
#   make                 all programs and libraries
#   make check           the tests of this build (tests/run prints the summary); scripts/test has those of both
#   make lint            the direction of includes, the format, cppcheck and clang-tidy (.clang-tidy)
#   make format          clang-format in place; `make format-check` only says
#   make fuzz            the fuzzers (clang); FUZZ_SECONDS=n each, or FUZZ_SECONDS=0 FUZZ_RUNS=n executions of each
#   make install         PREFIX=/usr/local DESTDIR= UNITDIR= (for systemd's units)
#   make deb             Debian packages, in build/deb
#   SANITIZE=address,undefined (or thread) builds everything instrumented, in a folder of its own.

.DEFAULT_GOAL := all

PREFIX   ?= /usr/local
DESTDIR  ?=
SANITIZE ?=
BUILD    ?= build$(if $(SANITIZE),/$(subst $(comma),-,$(SANITIZE)))
comma    := ,
VERSION  := 0.1.0
SOVERSION := 1

CC       ?= gcc
# For the one file of C++, dht/engine.cpp: of the same make as CC.
CXX      := $(if $(filter clang%,$(notdir $(CC))),$(subst clang,clang++,$(CC)),$(if $(filter default undefined,$(origin CXX)),g++,$(CXX)))
PKG      ?= pkg-config
PROTOC_C ?= protoc-c
OBJCOPY  ?= objcopy
# Instrumented code takes the compiler three times as long, half of it for what only optimisers and debuggers want: there
# lines and functions are named, which is what a report says.
OPT      ?= $(if $(SANITIZE),-O1 -g1,-O2 -g)
WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings \
            -Wvla -Wformat=2 -Wundef
BASE     := -std=gnu11 -D_GNU_SOURCE -DEXPERTD_VERSION='"$(VERSION)"' -I. -I$(BUILD)/gen -fPIC -fvisibility=hidden -pthread
SAN      := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
# With -O1 gcc does not know how long texts are that -O2, which has the warning, does.
SAN      += $(if $(SANITIZE),$(if $(filter clang%,$(notdir $(CC))),,-Wno-format-truncation))
# gcc's thread sanitizer says that it does not understand fences; the loads and stores beside them are atomic.
SAN      += $(if $(filter thread,$(SANITIZE)),-Wno-tsan)
# Points at which tests make processes fail (common/failpoint.h).
POINTS   := $(if $(SANITIZE)$(FAILPOINTS),-DEXPERTD_FAILPOINTS)
ALL_CFLAGS = $(BASE) $(WARN) $(OPT) $(SAN) $(POINTS) $(CFLAGS)
CXX_WARN := $(filter-out -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings,$(WARN))
ALL_CXXFLAGS = $(subst -std=gnu11,-std=gnu++17,$(BASE)) $(CXX_WARN) $(OPT) $(SAN) $(CFLAGS)
ALL_LDFLAGS = -pthread $(SAN) $(LDFLAGS)

# Packages a folder's sources compile and link with.
common_PKGS   := libcyaml yaml-0.1
proto_PKGS    := libprotobuf-c libzmq
pools_PKGS    :=
frontend_PKGS := libzmq libprotobuf-c
runtime_PKGS  := OpenCL json-c
client_PKGS   := libzmq libprotobuf-c
expertctl_PKGS := libzmq libprotobuf-c ncurses
http_PKGS     := libzmq libprotobuf-c libmicrohttpd json-c
engine_PKGS   := libtorrent-rasterbar
dht_PKGS      := libzmq libprotobuf-c libsodium libczmq $(engine_PKGS)
examples_PKGS := libzmq libprotobuf-c json-c
pkg_cflags = $(if $(strip $1),$(shell $(PKG) --cflags $1))
pkg_libs   = $(if $(strip $1),$(shell $(PKG) --libs $1))

# What one program alone needs may be missing: then the others are built.
lacks    = $(if $(shell $(PKG) --exists $2 || echo missing),$1)
LEFT_OUT := $(strip $(call lacks,dht,$(dht_PKGS)) $(call lacks,http,$(http_PKGS)))
$(foreach f,$(LEFT_OUT),$(info expertd-$f and its tests are left out: one of $($f_PKGS) is not installed (scripts/install-packages)))

# A folder is a static library of its .c files and of those of its rooms, less its programs' main files and the layers'
# references, which the tests alone have.
FOLDERS  := $(filter-out $(LEFT_OUT),common proto pools frontend runtime dht client expertctl http command)
rooms_runtime   := device compute train layers blocks state serve
MAINS    := frontend/main.c proto/socket_calls.c runtime/main.c dht/main.c http/main.c client/expertctl/main.c command/main.c
REFERENCES := $(wildcard runtime/layers/*_reference.c)
folder_expertctl := client/expertctl
src      = $(filter-out $(MAINS) $(REFERENCES),$(wildcard $(foreach d,$(or $(folder_$1),$1),$d/*.c $(patsubst %,$d/%/*.c,$(rooms_$1)))))
obj      = $(patsubst %.c,$(BUILD)/obj/%.o,$1)
lib      = $(BUILD)/lib/lib$1.a

PROTOS   := $(wildcard proto/*.proto)
GEN_C    := $(patsubst %.proto,$(BUILD)/gen/%.pb-c.c,$(PROTOS))
ABI_H    := $(BUILD)/gen/runtime/blocks/abi.h
GEN_H    := $(GEN_C:.c=.h) $(ABI_H)
KERNELS  := $(wildcard runtime/compute/kernels/*.cl)
KERNELS_C := $(BUILD)/gen/runtime/kernel_sources.c

.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: FORCE all programs check test lint cppcheck tidy format format-check fuzz bench install clean directions

# A folder's programs are built as soon as their main file exists.
PROGRAMS := $(if $(wildcard frontend/main.c),$(BUILD)/bin/expertd-frontend) $(if $(wildcard runtime/main.c),$(BUILD)/bin/expertd-runtime) \
            $(if $(filter dht,$(FOLDERS)),$(BUILD)/bin/expertd-dht) $(if $(filter http,$(FOLDERS)),$(BUILD)/bin/expertd-http) $(BUILD)/bin/expertd $(if $(wildcard client/expertctl/main.c),$(BUILD)/bin/expertctl)
EXAMPLES := $(patsubst examples/%.c,$(BUILD)/bin/%,$(wildcard examples/*.c))
LIBRARIES := $(if $(wildcard client/*.c),$(BUILD)/lib/libexpertd.a $(BUILD)/lib/libexpertd.so.$(VERSION))

# Experts of one's own: a shared object beside its OpenCL source.
OWN_EXPERTS := $(patsubst examples/own_expert/%.c,$(BUILD)/examples/%.so,$(wildcard examples/own_expert/*.c))

# Beside the programs, as it is once installed; what expertd print --supervisord names.
$(BUILD)/bin/expertd-alert: supervisor/expertd-alert
	@mkdir -p $(@D)
	sed -e 's|@VERSION@|$(VERSION)|' $< > $@
	chmod 755 $@

all: programs $(BUILD)/bin/expertd-alert $(LIBRARIES) $(EXAMPLES) $(OWN_EXPERTS)
programs: $(PROGRAMS)

# --- generated sources -----------------------------------------------------------------------------------------------
$(BUILD)/gen/proto/%.pb-c.c $(BUILD)/gen/proto/%.pb-c.h &: proto/%.proto
	@mkdir -p $(@D)
	$(PROTOC_C) --c_out=$(BUILD)/gen $<

# The OpenCL sources travel inside the program: `const struct kernel_source kernel_sources[]`.
$(KERNELS_C): $(KERNELS) scripts/embed-kernels
	@mkdir -p $(@D)
	scripts/embed-kernels $(KERNELS) > $@

$(BUILD)/gen/http/page.c: http/page.html scripts/embed-page
	@mkdir -p $(@D)
	scripts/embed-page $< > $@

# What own experts are compiled against, as a number that changes with any of it (runtime/blocks/own_expert.h). Written only
# when it does.
$(ABI_H): $(sort $(wildcard common/*.h runtime/*/*.h))
	@mkdir -p $(@D)
	@printf '/* Made by the Makefile: a hash of the headers. */\n#define OWN_EXPERT_HEADERS_HASH UINT64_C(0x%s)\n' \
	  "$$(cat $^ | sha256sum | cut -c 1-16)" > $@.now
	@if cmp -s $@.now $@; then rm $@.now; else mv $@.now $@; fi

# --- objects and archives --------------------------------------------------------------------------------------------
define folder_rules
$(BUILD)/obj/$(or $(folder_$1),$1)/%.o: $(or $(folder_$1),$1)/%.c $$(GEN_H)
	@mkdir -p $$(@D)
	$$(CC) $$(ALL_CFLAGS) $$($1_CFLAGS) $$(call pkg_cflags,$$($1_PKGS)) -MMD -MP -c -o $$@ $$<
endef
# What own experts (runtime/blocks/own_expert.h) may call.
runtime_CFLAGS := -fvisibility=default
$(foreach f,$(FOLDERS) examples,$(eval $(call folder_rules,$f)))

# Their loops are copies: compilers make vectors of them where they are told to. Never a multiplication and an addition
# in one, which only some processors have: a frame is the same bytes wherever it is made. (Not in OPT, which who packages
# it gives.)
$(BUILD)/obj/proto/codec_%.o: proto_CFLAGS += -O3 -fno-math-errno -fno-trapping-math -ffp-contract=off

$(BUILD)/obj/dht/engine.o: dht/engine.cpp
	@mkdir -p $(@D)
	$(CXX) $(ALL_CXXFLAGS) $(patsubst -I%,-isystem %,$(call pkg_cflags,$(engine_PKGS))) -MMD -MP -c -o $@ $<

$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c $(GEN_H)
	@mkdir -p $(@D)
	$(CC) $(BASE) $(OPT) $(SAN) -MMD -MP -c -o $@ $<

common_OBJ   := $(call obj,$(call src,common))
proto_OBJ    := $(call obj,$(call src,proto)) $(patsubst $(BUILD)/gen/%.c,$(BUILD)/obj/gen/%.o,$(GEN_C))
pools_OBJ    := $(call obj,$(call src,pools))
frontend_OBJ := $(call obj,$(call src,frontend))
runtime_OBJ  := $(call obj,$(call src,runtime)) $(if $(KERNELS),$(BUILD)/obj/gen/runtime/kernel_sources.o)
dht_OBJ      := $(call obj,$(call src,dht)) $(BUILD)/obj/dht/engine.o
client_OBJ   := $(call obj,$(call src,client))
http_OBJ     := $(call obj,$(call src,http)) $(BUILD)/obj/gen/http/page.o
command_OBJ  := $(call obj,$(call src,command))
expertctl_OBJ := $(call obj,$(call src,expertctl))
# What the examples share; examples/*.c themselves are programs.
examples_OBJ := $(call obj,$(wildcard examples/digits/*.c))

# How each kind of program is linked: $(kind_WITH) is what all of that kind are made of, $(kind_LINK) how. Programs depend
# on a file with both, which changes when they do: so an object or a library that is no longer there is linked no more. An
# archive, likewise, depends on the list of its objects.
$(BUILD)/links/%: FORCE
	@mkdir -p $(@D); printf '%s\n' '$(subst ','\'',$(strip $(if $(filter archive-%,$*),,$(CC) $(ALL_LDFLAGS)) $($*_WITH) $($*_LINK)))' > $@.now
	@if cmp -s $@.now $@; then rm $@.now; else mv $@.now $@; fi
FORCE:
# What a program of a kind needs besides its own objects; and the command. A group: archives may need one another.
with = $($1_WITH) $(BUILD)/links/$1
link = @mkdir -p $(@D); $(CC) $(ALL_LDFLAGS) -o $@ -Wl,--start-group $(filter-out $(BUILD)/links/%,$^) -Wl,--end-group $($1_LINK)

define archive_rule
archive-$1_WITH = $$($1_OBJ)
$(call lib,$1): $$(call with,archive-$1)
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(AR) rcs $$@ $$($1_OBJ)
endef
$(foreach f,$(FOLDERS) examples,$(eval $(call archive_rule,$f)))

# --- programs and libraries ------------------------------------------------------------------------------------------
libs = $(foreach l,$1,$(call lib,$l))
frontend_WITH = $(call libs,frontend pools proto common)
frontend_LINK = $(call pkg_libs,$(frontend_PKGS) $(common_PKGS)) -ldl -lm
# All of runtime/, not only what is used: own experts may call it.
runtime_WITH  = $(runtime_OBJ) $(call libs,pools common)
runtime_LINK  = -rdynamic $(call pkg_libs,$(runtime_PKGS) $(common_PKGS)) -ldl -lm
dht_WITH      = $(call libs,dht proto common)
dht_LINK      = $(call pkg_libs,$(dht_PKGS) $(common_PKGS)) -lstdc++ -ldl -lm
http_WITH     = $(call libs,http client proto common)
http_LINK     = $(call pkg_libs,$(http_PKGS) $(common_PKGS)) -lm
command_WITH  = $(call libs,command common)
command_LINK  = $(call pkg_libs,$(common_PKGS)) -lm
expertctl_WITH = $(call libs,expertctl client proto common)
expertctl_LINK = $(call pkg_libs,$(expertctl_PKGS) $(common_PKGS)) -lm
# An example is what a user would write: it sees only the library.
examples_WITH = $(call lib,examples) $(BUILD)/lib/libexpertd.a
examples_LINK = $(call pkg_libs,$(examples_PKGS)) -lm

$(BUILD)/bin/expertd-frontend: $(BUILD)/obj/frontend/main.o $(BUILD)/obj/proto/socket_calls.o $(call with,frontend)
	$(call link,frontend)
$(BUILD)/bin/expertd-runtime: $(BUILD)/obj/runtime/main.o $(call with,runtime)
	$(call link,runtime)
$(BUILD)/bin/expertd-dht: $(BUILD)/obj/dht/main.o $(BUILD)/obj/proto/socket_calls.o $(call with,dht)
	$(call link,dht)
$(BUILD)/bin/expertd-http: $(BUILD)/obj/http/main.o $(call with,http)
	$(call link,http)
$(BUILD)/bin/expertd: $(BUILD)/obj/command/main.o $(call with,command)
	$(call link,command)
$(BUILD)/bin/expertctl: $(BUILD)/obj/client/expertctl/main.o $(call with,expertctl)
	$(call link,expertctl)
$(BUILD)/bin/%: $(BUILD)/obj/examples/%.o $(call with,examples)
	$(call link,examples)

own_expert_LINK = -shared
$(BUILD)/examples/%.so: examples/own_expert/%.c examples/own_expert/%.cl $(BUILD)/links/own_expert
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(call pkg_cflags,OpenCL) -MMD -MP -MF $(BUILD)/obj/$*.own.d $(ALL_LDFLAGS) $(own_expert_LINK) -o $@ $<
	cp examples/own_expert/$*.cl $(@D)

# libexpertd needs of common only what has no further package.
libexpertd_OBJ = $(client_OBJ) $(filter-out %/guard.o %/zap.o %/gate.o %/framing.o,$(proto_OBJ)) $(call obj,$(filter-out common/config%.c common/keyring.c,$(call src,common)))
libexpertd_WITH = $(libexpertd_OBJ)
libexpertd_LINK = -shared -Wl,-soname,libexpertd.so.$(SOVERSION) -Wl,--version-script=client/libexpertd.map $(call pkg_libs,$(client_PKGS)) -lm
# One object whose hidden names are local: a program may have a status_name() of its own.
$(BUILD)/lib/libexpertd.a: $(call with,libexpertd)
	@mkdir -p $(@D)
	@rm -f $@
	$(LD) -r -o $(BUILD)/lib/libexpertd.o $(libexpertd_OBJ)
	$(OBJCOPY) --localize-hidden --wildcard --keep-global-symbol='expertd_*' $(BUILD)/lib/libexpertd.o
	$(AR) rcs $@ $(BUILD)/lib/libexpertd.o
$(BUILD)/lib/libexpertd.so.$(VERSION): $(call with,libexpertd)
	$(call link,libexpertd)
	ln -sf libexpertd.so.$(VERSION) $(BUILD)/lib/libexpertd.so.$(SOVERSION)
	ln -sf libexpertd.so.$(SOVERSION) $(BUILD)/lib/libexpertd.so

# --- tests: tests/unit/test_<file>.c is one program; tests/system/* are scripts over the real processes ---------------
# Of what is left out, tests and tools go too: those that include from it, or a header of tests that does.
present   = $(if $(LEFT_OUT),$(filter-out $(shell grep -lE '$(foreach f,$(LEFT_OUT),"$f/|"(unit/)?$f_)' $1 /dev/null),$1),$1)
UNIT_SRC  := $(call present,$(wildcard tests/unit/test_*.c))
UNIT      := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))
HELPERS   := $(call obj,$(wildcard tests/unit/support*.c) $(if $(filter runtime,$(FOLDERS)),$(REFERENCES)))
HAVE      := $(foreach f,frontend runtime dht http command expertctl client pools proto common,$(if $(and $(filter $f,$(FOLDERS)),$(call src,$f)),$f)) examples
TEST_PKGS := check $(sort $(foreach f,$(HAVE),$($f_PKGS)))
$(BUILD)/obj/tests/%.o: tests/%.c $(GEN_H)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests $(call pkg_cflags,$(TEST_PKGS)) -MMD -MP -c -o $@ $<
tests_WITH = $(HELPERS) $(call libs,$(HAVE))
CXX_LIB   := $(if $(filter dht,$(HAVE)),-lstdc++)
# There are many of them, and each has everything in it: a linker that is several times as fast, where there is one.
FAST_LD   := $(shell for ld in lld gold; do if command -v ld.$$ld >/dev/null; then echo -fuse-ld=$$ld; break; fi; done)
# tests/unit/support_mark.c is asked before libcheck.
tests_LINK = $(FAST_LD) -rdynamic -Wl,--wrap=_mark_point $(call pkg_libs,$(TEST_PKGS)) $(CXX_LIB) -ldl -lm
$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(call with,tests)
	$(call link,tests)
TOOLS     := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(filter-out tests/bench/support%,$(call present,$(wildcard tests/bench/*.c))))
bench_WITH = $(call obj,$(wildcard tests/bench/support*.c)) $(call libs,$(HAVE))
bench_LINK = $(FAST_LD) $(call pkg_libs,$(sort $(foreach f,$(HAVE),$($f_PKGS)))) $(CXX_LIB) -ldl -lm
$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(call with,bench)
	$(call link,bench)
# What measures is not built instrumented: no test runs it there.
tests: $(UNIT) $(if $(SANITIZE),,$(TOOLS)) $(OWN_EXPERTS)
.PHONY: tests
check test: all tests
	BUILD=$(BUILD) tests/run $(T)

# --- fuzzers (clang's libFuzzer) ---------------------------------------------------------------------------------------
FUZZ_SECONDS ?= 10
FUZZ_OPT ?= -O1 -g1
# For many executions: FUZZ_OPT="-O2 -g1" FUZZ_SANITIZE=address; FUZZ_SANITIZE= has the fuzzers' own checks alone.
FUZZ_SANITIZE ?= address,undefined
FUZZ_BUILD := build/fuzz$(if $(filter address$(comma)undefined,$(FUZZ_SANITIZE)),,-$(or $(subst $(comma),-,$(FUZZ_SANITIZE)),plain))
FUZZ := $(patsubst tests/fuzz/%.c,%,$(call present,$(wildcard tests/fuzz/fuzz_*.c)))
fuzz: FUZZ_GOAL = fuzz-run
fuzz-build: FUZZ_GOAL = fuzz-programs
fuzz fuzz-build:
	$(MAKE) BUILD=$(FUZZ_BUILD) CC=clang SANITIZE= OPT="$(FUZZ_OPT)" CFLAGS="$(addprefix -fsanitize=,fuzzer-no-link $(FUZZ_SANITIZE)) -fno-sanitize-recover=undefined" LDFLAGS="$(addprefix -fsanitize=,$(FUZZ_SANITIZE))" $(FUZZ_GOAL)
FUZZ_PROGRAMS = $(addprefix $(BUILD)/fuzz/,$(FUZZ))
fuzz-programs: $(FUZZ_PROGRAMS)
# What a fuzzer finds stays in $(BUILD)/corpus for the next run; tests/fuzz/corpus/<fuzzer>/ and <fuzzer>.dict start it off.
fuzz-run: fuzz-programs
	@printf '%s\n' $(FUZZ_PROGRAMS) | BUILD=$(BUILD) FUZZ_SECONDS=$(FUZZ_SECONDS) xargs -P $$(nproc) -n 1 tests/fuzz/run
.PHONY: fuzz-build fuzz-programs fuzz-run
fuzz_WITH = $(call libs,$(HAVE))
fuzz_LINK = $(FAST_LD) -fsanitize=fuzzer $(call pkg_libs,$(filter-out check,$(TEST_PKGS))) $(CXX_LIB) -ldl -lm
$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(call with,fuzz)
	$(call link,fuzz)

# --- benchmarks --------------------------------------------------------------------------------------------------------
bench: all tests
	BUILD=$(BUILD) scripts/bench $(BENCH)

# --- checks ------------------------------------------------------------------------------------------------------------
# What calls whom is in the objects.
CALLS := $(filter-out $(BUILD)/obj/gen/%,$(foreach f,$(FOLDERS),$($f_OBJ))) $(call obj,$(filter-out $(addsuffix /%,$(LEFT_OUT)),$(MAINS)))
directions: $(CALLS)
	scripts/check-includes
	scripts/check-circles $(CALLS)
	@mkdir -p build; tests/mutate --list >build/mutations.txt || { grep -E '^MISFIT' build/mutations.txt; exit 1; }
C_FILES = $(shell git ls-files '*.c' '*.h' '*.cpp')
format:
	clang-format -i $(C_FILES)
# The versions by which the code is judged: Debian 12's. Others lay it out in another way and find other things, which is no
# reason for a red test: with them a linter says that it was left out, unless the command line names their version here.
LLVM_VERSION ?= 14
CPPCHECK_VERSION ?= 2.10
is_ours = v=$$($1 --version) || exit 1; echo "$$v" | grep -Eiq '(version|cppcheck) $2(\.|$$)' || { echo "make $@: left out, as it is for $1 $2"; exit 0; }
format-check:
	@$(call is_ours,clang-format,$(LLVM_VERSION)); clang-format --dry-run -Werror $(C_FILES)
LINT_PKGS = $(sort $(foreach f,$(HAVE),$($f_PKGS)))
LINT_C = $(shell git ls-files '*.c' | grep -v '^tests/')
lint: directions format-check cppcheck tidy
cppcheck:
	@$(call is_ours,cppcheck,$(CPPCHECK_VERSION)); cppcheck --quiet --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --std=c11 --library=posix \
	  -D_GNU_SOURCE -DEXPERTD_VERSION='""' -I. \
	  --suppress=missingIncludeSystem --suppress=readdirCalled $(LINT_C)
# How many states of a function the analyser goes through. clang's own 225,000 take four times as long, for the few functions
# that have so many.
TIDY_NODES ?= 40000
tidy: $(GEN_H) $(KERNELS_C)
	@$(call is_ours,clang-tidy,$(LLVM_VERSION)); printf '%s\n' $(LINT_C) | xargs -P $$(nproc) -I FILE \
	  clang-tidy --quiet FILE -- $(BASE) $(call pkg_cflags,$(LINT_PKGS)) -Xclang -analyzer-config -Xclang max-nodes=$(TIDY_NODES)

# --- installation ------------------------------------------------------------------------------------------------------
UNITDIR ?= $(PREFIX)/lib/systemd/system
UNITS_IN = $(DESTDIR)$(UNITDIR)
# They go into shell lines, sed's replacements and `rm -rf`.
UNFIT_IN_PATHS = & | \ ; < > * ? [ ] { } ( ) ' " ` $$ \#
is_unfit = $(filter-out 1,$(words x$1x))$(strip $(foreach c,$(UNFIT_IN_PATHS),$(findstring $c,$1)))
ifneq ($(filter install uninstall,$(MAKECMDGOALS)),)
$(foreach v,PREFIX DESTDIR UNITDIR,$(if $(call is_unfit,$($v)),$(error $v is '$($v)': it must have no spaces and none of $(UNFIT_IN_PATHS))))
endif
PUBLIC_HEADERS := $(wildcard client/expertd*.h)
PYTHON_CLIENT = $(patsubst client/python/%,%,$(shell find client/python/expertd -name '*.py' -o -name py.typed))
# What an expert of one's own may include, and whatever that includes. In folders of its own: a client sees none of it.
OWN_EXPERT_HEADERS = $(filter-out $(BUILD)/%,$(filter %.h,$(shell $(CC) $(BASE) $(call pkg_cflags,OpenCL) -MM -x c $(patsubst %,-include runtime/%.h, \
  blocks/own_expert compute/linear compute/rows compute/provider layers/product) /dev/null)))
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include/expertd \
	  $(DESTDIR)$(PREFIX)/share/expertd/own_expert $(DESTDIR)$(PREFIX)/share/doc/expertd
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(BUILD)/lib/libexpertd.a $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(BUILD)/lib/libexpertd.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib
	ln -sf libexpertd.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libexpertd.so.$(SOVERSION)
	ln -sf libexpertd.so.$(SOVERSION) $(DESTDIR)$(PREFIX)/lib/libexpertd.so
	install -m 644 $(PUBLIC_HEADERS) $(DESTDIR)$(PREFIX)/include/expertd
	sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g' client/libexpertd.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/libexpertd.pc
	set -e; for header in $(OWN_EXPERT_HEADERS); do \
	  install -D -m 644 $$header $(DESTDIR)$(PREFIX)/include/expertd-runtime/$$header; done
	install -m 644 $(ABI_H) $(DESTDIR)$(PREFIX)/include/expertd-runtime/runtime/blocks
	sed -e 's|EXPERTD_VERSION|"$(VERSION)"|g' runtime/blocks/own_expert.h > $(DESTDIR)$(PREFIX)/include/expertd-runtime/runtime/blocks/own_expert.h
	sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g' runtime/expertd-runtime.pc.in > \
	  $(DESTDIR)$(PREFIX)/lib/pkgconfig/expertd-runtime.pc
	install -m 644 examples/own_expert/* $(DESTDIR)$(PREFIX)/share/expertd/own_expert
	install -m 644 proto/*.proto $(DESTDIR)$(PREFIX)/share/expertd
	set -e; for file in $(PYTHON_CLIENT); do \
	  install -D -m 644 client/python/$$file $(DESTDIR)$(PREFIX)/share/expertd/python/$$file; done
	install -d $(DESTDIR)$(PREFIX)/lib/expertd
	install -m 644 scripts/tensor_file.py scripts/torch_file.py $(DESTDIR)$(PREFIX)/lib/expertd
	sed -e 's|@VERSION@|$(VERSION)|' scripts/command_line.py > $(DESTDIR)$(PREFIX)/lib/expertd/command_line.py
	chmod 644 $(DESTDIR)$(PREFIX)/lib/expertd/command_line.py
	install -m 755 scripts/convert-state-dict $(DESTDIR)$(PREFIX)/lib/expertd
	ln -sf ../lib/expertd/convert-state-dict $(DESTDIR)$(PREFIX)/bin/expertd-convert-state-dict
	install -m 755 $(BUILD)/bin/expertd-alert $(DESTDIR)$(PREFIX)/bin
	install -d $(UNITS_IN)
	set -e; for unit in systemd/*; do sed -e 's|@PREFIX@|$(PREFIX)|g' $$unit >$(UNITS_IN)/$${unit##*/}; done
	install -D -m 644 completions/expertd.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/expertd
	for program in $(filter-out expertd,$(notdir $(PROGRAMS))) expertd-alert expertd-convert-state-dict; do \
	  ln -sf expertd $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$program; done
	install -D -m 644 completions/_expertd $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_expertd
	install -D -m 644 http/grafana.json $(DESTDIR)$(PREFIX)/share/expertd/grafana.json
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	set -e; for program in $(PROGRAMS); do \
	  if [ $${program##*/} = expertd ]; then commands='serve dht check plan print'; else commands=; fi; \
	  scripts/man-page $$program $$commands >$(DESTDIR)$(PREFIX)/share/man/man1/$${program##*/}.1; done
	scripts/man-page $(BUILD)/bin/expertd-alert >$(DESTDIR)$(PREFIX)/share/man/man1/expertd-alert.1
	scripts/man-page $(DESTDIR)$(PREFIX)/bin/expertd-convert-state-dict >$(DESTDIR)$(PREFIX)/share/man/man1/expertd-convert-state-dict.1
	install -m 644 README.md ARCHITECTURE.md LICENSE $(wildcard docs/*.md) docs/page.png docs/soak.svg proto/PROTOCOL.md proto/PROTOCOL-dht.md $(DESTDIR)$(PREFIX)/share/doc/expertd
	if [ -x $(BUILD)/bin/expertd ]; then $(BUILD)/bin/expertd print --reference >$(DESTDIR)$(PREFIX)/share/doc/expertd/configuration.md; fi
	@# Programs linked with the library find it when the loader's cache knows it.
	@if [ -z "$(DESTDIR)" ]; then if [ "$$(id -u)" = 0 ] && command -v ldconfig >/dev/null; then ldconfig; \
	  else echo "run ldconfig as root, so that programs find libexpertd.so.$(SOVERSION)"; fi; fi

# What install has made, of this version.
uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,$(notdir $(PROGRAMS))) $(DESTDIR)$(PREFIX)/lib/libexpertd.a \
	  $(DESTDIR)$(PREFIX)/bin/expertd-convert-state-dict $(DESTDIR)$(PREFIX)/bin/expertd-alert \
	  $(addprefix $(UNITS_IN)/,$(notdir $(wildcard systemd/*))) \
	  $(addprefix $(DESTDIR)$(PREFIX)/share/bash-completion/completions/,$(notdir $(PROGRAMS)) expertd-alert expertd-convert-state-dict) \
	  $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_expertd \
	  $(patsubst %,$(DESTDIR)$(PREFIX)/share/man/man1/%.1,$(notdir $(PROGRAMS)) expertd-alert expertd-convert-state-dict) \
	  $(DESTDIR)$(PREFIX)/lib/libexpertd.so $(DESTDIR)$(PREFIX)/lib/libexpertd.so.$(SOVERSION) \
	  $(DESTDIR)$(PREFIX)/lib/libexpertd.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/pkgconfig/libexpertd.pc \
	  $(DESTDIR)$(PREFIX)/lib/pkgconfig/expertd-runtime.pc
	rm -rf $(DESTDIR)$(PREFIX)/lib/expertd $(DESTDIR)$(PREFIX)/include/expertd $(DESTDIR)$(PREFIX)/include/expertd-runtime \
	  $(DESTDIR)$(PREFIX)/share/expertd $(DESTDIR)$(PREFIX)/share/doc/expertd
.PHONY: uninstall

# --- Debian packages ---------------------------------------------------------------------------------------------------
# Of what git has, in a folder of its own (DEB): nothing is written beside the sources. What is lacking is said by
# dpkg-buildpackage. DEB_OBJECTS=build: with the objects that are there, whatever flags they were made with, for tests.
DEB ?= build/deb
deb:
	rm -rf $(DEB)
	mkdir -p $(DEB)/expertd/build
	git ls-files -z | grep -zv '^debian/' | xargs -0 cp -p --parents -t $(DEB)/expertd
	cp -r debian $(DEB)/expertd
	$(if $(DEB_OBJECTS),tar -C $(DEB_OBJECTS) --exclude=obj/tests -cf - obj gen lib links | tar -C $(DEB)/expertd/build -xf -)
	cd $(DEB)/expertd && dpkg-buildpackage -b -us -uc$(if $(DEB_OBJECTS), -nc)
.PHONY: deb

clean:
	rm -rf build

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# SPDX-License-Identifier: GPL-2.0-only
#
# One Makefile builds all of userspace; kernel/ has its own, for kbuild.
#
# How files find their way in, without an edit here:
#
#   slowpath/**/*.c       -> build/libslowpath.a
#   mapper/*.c            -> build/libubdmap.a
#   tools/*.c             -> build/ubdmap, with both libraries
#   tests/unit/test_X.c   -> build/asan/test_X, a cmocka program
#   tests/oracle/test_X.c -> likewise: against qemu's tools
#   tests/fuzz/fuzz_X.c   -> build/fuzz/fuzz_X (libFuzzer, by "make fuzz") and
#                            build/asan/replay_X, which tries each file of
#                            tests/fuzz/corpus/X once (by "make check")
#   tests/tools/X.c       -> build/X, a helper program for guest scripts
#   tests/host/*.sh       run by "make check"; TAP on stdout
#   tests/guest/*.sh      run in a guest by "make test"; see docs/testing.md
#
# Everything is compiled twice: into build/ as shipped, into build/asan/ with
# ASan and UBSan. Tests link the latter: both libraries, plus
#
#   tests/fake/*.c        -> build/asan/libfake.a, what tests share
#   kernel/{tlb,tlb_node,tlb_spare,tlb_txn,fault}.c
#                         -> build/asan/libkpure.a, the kernel's pure files
#
# A folder may bring a fragment, <dir>/build.mk, read after the lists are made.
# It may change SLOWPATH_SRCS, MAPPER_SRCS, TOOLS_SRCS or KPURE_SRCS, and for
# one test set test_X_SRCS (more sources), test_X_CFLAGS, test_X_LDFLAGS.
#
# Own headers are included with quotes, by a path relative to the file or by
# name from the folders in INCLUDES.

.DEFAULT_GOAL := all
SHELL := /bin/bash

CC ?= gcc
CLANG ?= clang
AR ?= ar
PREFIX ?= /usr/local
# "ubdmap bench" looks for its scripts in ../libexec/ubdmap/bench, from where it is.
LIBEXECDIR := $(PREFIX)/libexec
DESTDIR ?=
CFLAGS ?= -O2 -g
# What the guest's module is built with: by default from the cache, which knows
# what kernel guests run. "make install" is for the kernel that runs here.
KDIR ?= $(shell tests/vm/kernel build)
HOST_KDIR ?= /lib/modules/$(shell uname -r)/build

INCLUDES := -Iuapi -Imapper/include -iquote slowpath -I/usr/include/libnl3
TEST_INCLUDES := -Itests/shim -Itests/fake -iquote mapper -iquote tools -iquote kernel
WARNINGS := -Wall -Wextra -Werror
STD := -std=gnu11 -D_GNU_SOURCE
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	    -fno-omit-frame-pointer
LIBS := -luring -lnl-genl-3 -lnl-3 -lz -ldeflate -lzstd -ljson-c -lpthread

# "make V=1" shows the commands in full.
Q := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-6s %s\n' $(1) $@)

COMPILE := $(STD) $(WARNINGS) $(INCLUDES)

#
# What there is
#

SLOWPATH_SRCS := $(sort $(wildcard slowpath/*.c slowpath/*/*.c))
MAPPER_SRCS := $(sort $(wildcard mapper/*.c))
TOOLS_SRCS := $(sort $(wildcard tools/*.c))
KPURE_SRCS := $(sort $(wildcard \
	      kernel/tlb.c kernel/tlb_node.c kernel/tlb_spare.c \
	      kernel/tlb_txn.c kernel/fault.c))
FAKE_SRCS := $(sort $(wildcard tests/fake/*.c))
FAKEDEV_SRCS := $(addprefix tests/fake/,fakedev.c fakedrain.c fakeio.c fakemap.c)
UNIT_SRCS := $(sort $(wildcard tests/unit/test_*.c tests/oracle/test_*.c))
UNIT_TESTS := $(basename $(notdir $(UNIT_SRCS)))
FUZZERS := $(sort $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c)))
HELPERS := $(sort $(patsubst tests/tools/%.c,%,$(wildcard tests/tools/*.c)))

-include $(wildcard $(addsuffix /build.mk,slowpath mapper tools tests/unit tests/oracle tests/fuzz tests/tools))

objs = $(patsubst %.c,build/$(1)%.o,$(2))

UNIT_BINS := $(addprefix build/asan/,$(UNIT_TESTS))
REPLAY_BINS := $(addprefix build/asan/replay_,$(FUZZERS))
FUZZ_BINS := $(addprefix build/fuzz/fuzz_,$(FUZZERS))
HELPER_BINS := $(addprefix build/,$(HELPERS))
TOOL_BINS := $(if $(TOOLS_SRCS),build/ubdmap)
TEST_LIBS := build/asan/libfake.a build/asan/libkpure.a \
	     build/asan/libubdmap.a build/asan/libslowpath.a

#
# Targets for people: each line with two hashes shows in "make help"
#

help: ## this list
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F '\t' '{ printf "  %-14s %s\n", $$1, $$2 }'

all: module userspace ## module and userspace

module: ## kernel/ubdmap.ko for the guest's kernel, or with KDIR=
	@kdir="$(KDIR)"; [ -n "$$kdir" ] && $(MAKE) -C kernel KDIR="$$kdir" modules

# A copy for another kernel than the guest's, whose objects stay as they are.
build/%/kernel/ubdmap.ko: FORCE
	@mkdir -p build/$*/kernel build/$*/uapi/linux
	@cp -pu kernel/*.[ch] kernel/Kbuild kernel/Makefile build/$*/kernel/
	@cp -pru uapi/. build/$*/uapi/
	@$(MAKE) -C build/$*/kernel KDIR="$(KDIR)" modules

userspace: build/libslowpath.a build/libubdmap.a $(TOOL_BINS) $(HELPER_BINS) ## libraries, build/ubdmap, test helpers

check-build: userspace $(UNIT_BINS) $(REPLAY_BINS)

check: check-build ## tests that need no guest; under a minute
	@tests/run --check

test: deps ## install what is needed, build, run every test
	@$(MAKE) --no-print-directory all check-build
	@tests/run

# The slab's own debugging is built in for who looks for something with it. KASAN finds
# what that finds, and with both everything takes more than twice as long.
test-debug: ## the guests' tests on a kernel that looks for its own mistakes
	@tests/deps --debug
	@$(MAKE) --no-print-directory all
	@dir=$$(tests/vm/debug-kernel) && \
	$(MAKE) --no-print-directory build/debug/kernel/ubdmap.ko \
		KDIR=$$(tests/vm/kernel build "$$dir") && \
	VM_ARGS="--kernel $$dir --module $(CURDIR)/build/debug/kernel/ubdmap.ko \
		--slow 4 --more-mem 512 --append slab_debug=- $(VM_ARGS)" DEBUG_KERNEL=1 \
		tests/run --guest $(or $(TESTS),guest/)

demo: deps ## see it work, in a guest
	@$(MAKE) --no-print-directory all
	@tests/run --show tests/demo/demo.sh

# MODE=timed: all rows by the clock; MODE=counted: in instructions; MODE=profile: of one
# row, by function. ARGS has more words for the script.
bench: deps ## measure it beside others, in a guest; MODE=timed, counted or profile
	@$(MAKE) --no-print-directory all build/tcg_profile.so
	@case "$(MODE)" in \
	timed | counted) tests/bench/report.sh $(MODE) $(ARGS) ;; \
	profile) tests/bench/profile.sh $(ARGS) ;; \
	"") tests/run --show tests/bench/bench.sh && echo && \
		tests/run --show tests/bench/counted.sh ;; \
	*) echo "MODE=$(MODE): it can be timed, counted or profile" >&2; exit 2 ;; \
	esac

check-perf: deps ## instructions for each I/O, beside tests/bench/reference.json; UPDATE=1
	@$(MAKE) --no-print-directory all
	@if [ -n "$(UPDATE)" ]; then \
		tests/run --show tests/bench/counted.sh --guard --ms 150 --json \
			>tests/bench/reference.json.new && \
		mv tests/bench/reference.json.new tests/bench/reference.json; \
	else \
		tests/run -v guest/perf_counted; \
	fi

shell: deps ## a shell in a guest; IMG=FILE to have that image at hand
	@$(MAKE) --no-print-directory all
	@tests/vm/shell "$(IMG)"

deps: ## install the packages that building and testing need
	@tests/deps

install: userspace ## module, tool and manual for the kernel that runs here
	@[ -e "$(HOST_KDIR)/Makefile" ] || { \
		echo "There is no $(HOST_KDIR): install this kernel's headers first"; \
		echo "(Debian: apt install linux-headers-$$(uname -r)), or set HOST_KDIR."; \
		exit 1; } >&2
	@$(MAKE) --no-print-directory build/host/kernel/ubdmap.ko KDIR="$(HOST_KDIR)"
	$(MAKE) -C build/host/kernel KDIR="$(HOST_KDIR)" \
		$(if $(DESTDIR),INSTALL_MOD_PATH=$(DESTDIR) DEPMOD=true) modules_install
	install -D -m 755 build/ubdmap $(DESTDIR)$(PREFIX)/sbin/ubdmap
	install -D -m 755 -t $(DESTDIR)$(LIBEXECDIR)/ubdmap/bench tools/bench/*.sh
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 docs/man/*.8
	for f in $(wildcard tools/udev/*.rules); do \
		install -D -m 644 -t $(DESTDIR)/etc/udev/rules.d $$f; \
	done

check-layers: ## which part may include which
	@tests/check-layers

style: ## sparse, checkpatch, W=1, shellcheck, codespell, clang-format
	@tests/style

fuzz: $(FUZZ_BINS) ## libFuzzer, FUZZ_TIME seconds (60) for each target
	@for f in $(FUZZERS); do \
		mkdir -p build/fuzz/found/$$f tests/fuzz/corpus/$$f; \
		echo "== $$f"; \
		build/fuzz/fuzz_$$f -max_total_time=$(or $(FUZZ_TIME),60) \
			-rss_limit_mb=1024 -timeout=10 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/$$f- \
			build/fuzz/found/$$f tests/fuzz/corpus/$$f || exit; \
	done

soak: deps ## T seconds (600) of random load, kills and checks, in a guest and without
	@$(MAKE) --no-print-directory all check-build
	@tests/soak/all $(or $(T),600)

clean: ## remove what was built
	rm -rf build
	rm -f $(addprefix kernel/,*.o *.ko *.mod *.mod.c .*.cmd .module-common.o \
		modules.order Module.symvers)

#
# Rules
#

build/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(COMPILE) $(CFLAGS) -MMD -MP -c -o $@ $<

build/asan/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(COMPILE) $(TEST_INCLUDES) -O1 -g $(SANITIZE) -DUBDMAP_TEST \
		$($(*F)_CFLAGS) -MMD -MP -c -o $@ $<

build/fuzz/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CLANG)
	$(Q)$(CLANG) $(COMPILE) $(TEST_INCLUDES) -O1 -g -DUBDMAP_TEST \
		-fsanitize=fuzzer-no-link,address,undefined \
		-fno-sanitize-recover=undefined -MMD -MP -c -o $@ $<

# An archive is made anew, so that it forgets sources that are gone.
define archive
@mkdir -p $(@D)
@rm -f $@
$(call say,AR)
$(Q)$(AR) rcs $@ $(filter %.o,$^)
endef

build/libslowpath.a: $(call objs,,$(SLOWPATH_SRCS))
	$(archive)
build/libubdmap.a: $(call objs,,$(MAPPER_SRCS))
	$(archive)
build/asan/libslowpath.a: $(call objs,asan/,$(SLOWPATH_SRCS))
	$(archive)
build/asan/libubdmap.a: $(call objs,asan/,$(MAPPER_SRCS))
	$(archive)
build/asan/libkpure.a: $(call objs,asan/,$(KPURE_SRCS))
	$(archive)
build/asan/libfake.a: $(call objs,asan/,$(FAKE_SRCS))
	$(archive)
build/fuzz/libslowpath.a: $(call objs,fuzz/,$(SLOWPATH_SRCS))
	$(archive)

build/ubdmap: $(call objs,,$(TOOLS_SRCS)) build/libubdmap.a build/libslowpath.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(HELPER_BINS): build/%: build/tests/tools/%.o build/libubdmap.a build/libslowpath.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# A plugin for QEMU, which defines what it leaves undefined.
build/tcg_profile.so: tests/bench/tcg_profile.c Makefile
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(STD) $(WARNINGS) $(CFLAGS) -fPIC -fvisibility=hidden -shared -o $@ $<

test_name = $(basename $(notdir $(1)))
$(foreach t,$(UNIT_SRCS),$(eval build/asan/$(call test_name,$t): \
	build/asan/$(t:.c=.o) $(call objs,asan/,$($(call test_name,$t)_SRCS)) \
	$(TEST_LIBS)))

$(UNIT_BINS):
	$(call say,LD)
	$(Q)$(CC) $(SANITIZE) $($(@F)_LDFLAGS) -o $@ $(filter %.o,$^) \
		-Wl,--start-group $(filter %.a,$^) -Wl,--end-group -lcmocka $(LIBS)

$(REPLAY_BINS): build/asan/replay_%: build/asan/tests/fuzz/fuzz_%.o \
		build/asan/tests/fuzz/replay.o $(call objs,asan/,$(FAKEDEV_SRCS)) \
		build/asan/libslowpath.a
	$(call say,LD)
	$(Q)$(CC) $(SANITIZE) -o $@ $^ $(LIBS)

$(FUZZ_BINS): build/fuzz/fuzz_%: build/fuzz/tests/fuzz/fuzz_%.o \
		$(call objs,fuzz/,$(FAKEDEV_SRCS)) build/fuzz/libslowpath.a
	$(call say,LD)
	$(Q)$(CLANG) -fsanitize=fuzzer,address,undefined -o $@ $^ $(LIBS)

-include $(shell [ -d build ] && find build -name '*.d')

# Objects stay, to be used again.
.SECONDARY:
.PHONY: help all module userspace check-build check test test-debug demo bench check-perf shell deps \
	install check-layers style fuzz soak clean FORCE

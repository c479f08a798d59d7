# Every target works in an empty clone on Debian 12 with Rust, gcc and make.
PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
RRUN    ?= $(CURDIR)/target/release/rrun
# With musl and not glibc, whose start asks the processor what it can do before main, by dozens of cpuid instructions of
# which each is a hypervisor's to answer, and takes longer for its relocations and tunables. A Rust that has no musl, nor
# can fetch it, links glibc.
MUSL    ?= $(shell rustc -vV | sed -n 's/^host: //p' | sed 's/-gnu.*/-musl/')
HAS_MUSL = [ -d "$$(rustc --print target-libdir --target $(MUSL))" ]
# Those that `make conformance` and `make bench` look at beside it; an empty one is left out.
RUNC  ?= $(shell command -v runc)
CRUN  ?= $(shell command -v crun)
YOUKI ?= $(shell command -v youki)
# Many tests wait (for a stop timeout, for a daemon) rather than compute.
TEST_THREADS ?= 4

BIN = $(DESTDIR)$(PREFIX)/sbin
MAN = $(DESTDIR)$(PREFIX)/share/man/man8
MAN1 = $(DESTDIR)$(PREFIX)/share/man/man1
BASH_COMPLETION = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH_COMPLETION  = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISH_COMPLETION = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
UNITS = $(DESTDIR)$(PREFIX)/lib/systemd/system
USER_UNITS = $(DESTDIR)$(PREFIX)/lib/systemd/user

.PHONY: all build engine demo test test-deep test-host test-guest guest-image unit suite suite-old-kernel test-attacks test-vm test-cri test-engine test-engine-vm test-engine-kill test-engine-side \
        test-attacks-vm test-sweeps-vm \
        test-cri-vm conformance conformance-vm bench bench-vm bench-engine test-kill test-faults test-concurrency test-soak fuzz packages lint unsafe \
        install install-engine uninstall clean

all: build

# What `rrun --version` calls the commit; an archive without git has none.
build: export RRUN_COMMIT = $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
build:
	$(HAS_MUSL) || rustup target add $(MUSL) || echo "no rust-std for $(MUSL): linking with glibc" >&2
	if $(HAS_MUSL); then \
	  $(CARGO) build --release --locked --target $(MUSL) && \
	    mkdir -p target/release && ln -f target/$(MUSL)/release/rrun target/release/rrun; \
	else $(CARGO) build --release --locked; fi

# rrunctl is a package of its own (its Cargo.toml says why), for the target of `build`: `--target` keeps the static flags
# off its procedural macros. What its libraries have in C the machine's compiler compiles for musl, too.
ENGINE = --manifest-path rrunctl/Cargo.toml --locked --target-dir target/rrunctl \
         --target $$($(HAS_MUSL) && echo $(MUSL) || rustc -vV | sed -n 's/^host: //p')
export CC_$(subst -,_,$(MUSL)) = $(CC)
engine: build
	$(CARGO) build --release $(ENGINE)
	ln -f target/rrunctl/*/release/rrunctl target/rrunctl/*/release/rrunmon target/release/

demo: build
	examples/demo "$(RRUN)"

# The guest works beside the host's tests: they wait more than they compute. Time limits are of a machine that does
# nothing else, hence the patience. Each of the two is printed as a whole when it ends.
test: packages build guest-image
	$(MAKE) -j2 --output-sync=recurse test-host test-guest

test-host: export RRUN_TEST_PATIENCE = 4
test-host:
	$(MAKE) unit && $(MAKE) suite && $(MAKE) suite-old-kernel && $(MAKE) test-cri && \
	  $(MAKE) test-engine && $(MAKE) test-attacks && $(MAKE) test-kill test-faults SWEEP_SAMPLE=40

test-guest:
	$(MAKE) test-vm && $(MAKE) test-cri-vm && $(MAKE) test-engine-vm

# What `make test` has no time for: the sweeps at every call, two commands at once, 20,000 lifecycles, ten minutes of
# each fuzzer, and the clauses of the specification, the attacks and a part of the sweeps in the guest. Hours.
test-deep: packages build
	$(MAKE) test-kill test-faults test-concurrency test-soak
	$(MAKE) test-engine-kill test-engine-side
	$(MAKE) fuzz SECONDS=600
	$(MAKE) conformance-vm
	$(MAKE) test-attacks-vm SWEEP_SAMPLE=8
	$(MAKE) test-sweeps-vm T="killed init_killed signalled refused" SWEEP_SAMPLE=10

packages:
	tests/install-packages

# A step of its own: mmdebstrap mounts on the host, which the suite beside it would notice.
guest-image: packages
	[ "$$(uname -m)" != x86_64 ] || tests/vm/build-image

# With the corpus of the fuzzers, which takes a second.
unit:
	$(CARGO) test --workspace --locked --lib --bins
	$(CARGO) test --locked --test fuzzed
	$(CARGO) test $(BENCH)

# The runtime is tested as it is shipped: the release binary, unless RRUN names another runtime.
# The host is compared before and after the whole suite, and the comparison runs even when a test failed.
suite: build
	RUST_BACKTRACE=0 RRUN="$(RRUN)" RRUN_LACKS="$(RRUN_LACKS)" tests/unchanged tests/second-try \
	  $(CARGO) test --locked --test tests -- --show-output --test-threads=$(TEST_THREADS)

# Each published escape, done to rrun and to a runtime that falls for it; the table in docs/security.md is of this run.
test-attacks: export RUST_BACKTRACE = 0
test-attacks: export RRUN_WEAKENED = $(CURDIR)/target/attacks/build/debug/rrun
test-attacks: export RRUN_ATTACKS = $(CURDIR)/target/attacks/verdicts
test-attacks: packages build
	CARGO="$(CARGO)" tests/attacks/weaken/build target/attacks
	rm -f "$$RRUN_ATTACKS"
	RRUN="$(RRUN)" tests/unchanged tests/second-try \
	  $(CARGO) test --locked --test attacks -- --show-output --test-threads=$(TEST_THREADS); \
	status=$$?; tests/attacks/table "$$RRUN_ATTACKS" docs/security.md; exit $$status

# The same in the guest: cgroup v2 and another kernel. T=NAME... as for test-vm; SWEEP_SAMPLE=N takes every Nth window
# of a race.
test-attacks-vm: packages build
	RRUN_VM_SECONDS=$${RRUN_VM_SECONDS:-5400} tests/vm/suite --attacks "$(RRUN)" $(T)

# tests/cri is a package of its own; `--target` keeps the static flags off its procedural macros.
CRI = --manifest-path tests/cri/Cargo.toml
CRI_BUILD = $(CRI) --locked --target $$(rustc -vV | sed -n 's/^host: //p') --target-dir target/cri

# Engines leave the cgroup in which their containers' are, as dockerd does; one that was not there before goes again.
WITHOUT_PARENTS = sh -c 'parents() { find /sys/fs/cgroup -depth -type d -name rrunctl; }; before=$$(parents); \
  "$$@"; status=$$?; for dir in $$(parents); do case " $$(echo $$before) " in *" $$dir "*) ;; *) rmdir $$dir ;; esac; done; \
  exit $$status' -
# rrunctl, its commands and what they talk to: real registries, and what other tools make of an image.
test-engine: export RUST_BACKTRACE = 0
test-engine: export RRUN := $(RRUN)
test-engine: packages build
	# One at a time: a test that forks has the locks of the others until it executes.
	$(CARGO) test $(ENGINE) --lib --bins -- --test-threads=1
	$(CARGO) test $(ENGINE) --test engine --no-run
	tests/unchanged $(WITHOUT_PARENTS) tests/second-try \
	  $(CARGO) test $(ENGINE) --test engine -- --show-output --test-threads=$(TEST_THREADS)

# Its containers again in the guest: cgroup v2 and another kernel, whose overlayfs and mount calls are older.
test-engine-vm: packages build
	tests/vm/suite --engine "$(RRUN)" $(T)

# SIGKILL of rrunctl and of monitors in 500 operations; RRUNCTL_SEED=N does those of an earlier run again.
test-engine-kill: export RUST_BACKTRACE = 0
test-engine-kill: export RRUN := $(RRUN)
test-engine-kill: export RRUNCTL_KILLS ?= 500
test-engine-kill: packages build
	$(CARGO) test $(ENGINE) --test engine --no-run
	tests/unchanged $(WITHOUT_PARENTS) $(CARGO) test $(ENGINE) --test engine -- --nocapture killed::whoever_is_killed

# The same script by dockerd, podman and rrunctl, and what differs.
test-engine-side: export RUST_BACKTRACE = 0
test-engine-side: export RRUN := $(RRUN)
test-engine-side: packages build
	$(CARGO) test $(ENGINE) --test engine --no-run
	tests/unchanged $(WITHOUT_PARENTS) $(CARGO) test $(ENGINE) --test engine -- --ignored --nocapture sidebyside::

# Kubernetes' path: containerd's CRI service, driven through its socket.
test-cri: export RUST_BACKTRACE = 0
test-cri: export RRUN := $(RRUN)
test-cri: packages build
	$(CARGO) test $(CRI_BUILD) --test cri --no-run
	tests/unchanged tests/second-try \
	  $(CARGO) test $(CRI_BUILD) --test cri -- --show-output --test-threads=$(TEST_THREADS)

# The same in the guest: cgroup v2, and both cgroup drivers. T=NAME... as for test-vm.
test-cri-vm: packages build
	tests/vm/suite --cri "$(RRUN)" $(T)

# The same suite on a kernel without the calls that rrun has a substitute for: tests/old_kernel.c takes them away.
LACKS = clone3 mount_setattr fsopen fsconfig fsmount fspick open_tree move_mount close_range faccessat2 fchmodat2 \
        open_tree_attr
OLD_KERNEL = target/old-kernel
suite-old-kernel: build
	mkdir -p $(OLD_KERNEL)
	$(CC) -static -O1 -Wall -Wextra -Werror -o $(OLD_KERNEL)/old_kernel tests/old_kernel.c
	printf '#!/bin/sh\nexec "%s" "%s" "%s" "$$@"\n' "$(CURDIR)/$(OLD_KERNEL)/old_kernel" "$(LACKS)" "$(RRUN)" \
	  > $(OLD_KERNEL)/rrun
	chmod 755 $(OLD_KERNEL)/rrun
	$(MAKE) suite RRUN_LACKS="$(LACKS)" RRUN="$(CURDIR)/$(OLD_KERNEL)/rrun"

# The suite again where there is systemd, cgroup v2, AppArmor and CAP_SYS_RESOURCE: in a guest of Debian's.
# T=NAME... runs the tests of these names only, V1=1 boots it with cgroup v1.
test-vm: packages build
	tests/vm/suite "$(RRUN)" $(T) -- \
	  $(if $(V1),systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller)

# The specification's clauses and how rrun, and every other runtime of this machine, keeps them: a table in
# docs/conformance-clauses.md, and what each check saw in target/conformance/NAME.json.
conformance: build
	$(CARGO) build --locked -p conformance
	conformance/table target/debug/conformance target/conformance docs/conformance-clauses.md \
	  rrun="$(RRUN)" runc="$(RUNC)" crun="$(CRUN)" youki="$(YOUKI)"

# The same in the guest, where it is rrun that is judged: cgroup v2, systemd, and a user.
conformance-vm: packages build
	$(CARGO) build --locked -p conformance
	tests/vm/conformance target/debug/conformance "$(RRUN)"

# What the commands cost beside those of the same runtimes and beside the kernel's own share, into docs/performance.md;
# PEERS="NAME=PATH ..." adds runtimes. Wants a machine that does nothing else.
BENCH = --manifest-path benches/runtime/Cargo.toml --locked --target-dir target/bench
bench: ROUNDS ?= 100
bench: packages build
	$(CARGO) build $(BENCH) --release
	benches/bench target/bench/release/bench docs/performance.md $(ROUNDS) \
	  rrun="$(RRUN)" runc="$(RUNC)" crun="$(CRUN)" youki="$(YOUKI)" $(PEERS)

# The same in the guest, beside its runc and crun, with cgroup v2 alone: ratios, into docs/performance-v2.md.
bench-vm: ROUNDS ?= 5
bench-vm: packages build
	$(CARGO) build $(BENCH) --release
	tests/vm/bench target/bench/release/bench docs/performance-v2.md $(ROUNDS) "$(RRUN)"

# rrunctl beside dockerd and podman, in namespaces of their own, into docs/engine-performance.md. Wants a machine that
# does nothing else.
BENCH_ENGINE = --manifest-path rrunctl/bench/Cargo.toml --locked --target-dir target/bench-engine
bench-engine: ROUNDS ?= 5
bench-engine: packages engine
	$(CARGO) build $(BENCH_ENGINE) --release
	rrunctl/bench/bench target/bench-engine/release/bench-engine docs/engine-performance.md $(ROUNDS) \
	  "$$(ls -t target/rrunctl/*/release/rrunctl | head -1)" "$(RRUN)"

# A package of its own, as tests/cri: each command killed, and refused what it asks of the kernel, at every system call;
# with SWEEP_SAMPLE=N at every Nth; with ALONE=tests/cgroup2-alone on the v2 hierarchy of a machine that has v1 too.
SWEEP_SAMPLE ?= 1
export SWEEP_SAMPLE
SWEEPS = --manifest-path tests/sweeps/Cargo.toml --locked --target-dir target/sweeps
test-kill: build
	RRUN="$(RRUN)" $(ALONE) $(CARGO) test $(SWEEPS) -- --nocapture --test-threads=2 killed signalled
test-faults: build
	RRUN="$(RRUN)" $(ALONE) $(CARGO) test $(SWEEPS) -- --nocapture --test-threads=2 refused
test-concurrency: build
	RRUN="$(RRUN)" $(CARGO) test $(SWEEPS) -- --nocapture --test-threads=1 at_once
test-soak: build
	RRUN="$(RRUN)" $(CARGO) test $(SWEEPS) -- --nocapture lifecycles
# In the guest: T=killed, T=refused::start and so on. SWEEP_SAMPLE=N takes every Nth point.
test-sweeps-vm: packages build
	RRUN_VM_SECONDS=$${RRUN_VM_SECONDS:-5400} tests/vm/suite --sweeps "$(RRUN)" $(T)

# Each fuzzer for SECONDS, or those that T names, until one finds something. Needs rustup, and a C++ compiler.
SECONDS = 60
fuzz:
	fuzz/run $(SECONDS) $(T)

lint: unsafe
	$(CARGO) fmt --all --check
	$(CARGO) fmt $(CRI) --check
	$(CARGO) fmt --manifest-path tests/sweeps/Cargo.toml --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) fmt --manifest-path rrunctl/Cargo.toml --check
	$(CARGO) fmt --manifest-path benches/runtime/Cargo.toml --check
	$(CARGO) fmt --manifest-path rrunctl/bench/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy $(CRI_BUILD) --all-targets -- -D warnings
	$(CARGO) clippy $(SWEEPS) --all-targets -- -D warnings
	$(CARGO) clippy $(BENCH) --all-targets -- -D warnings
	$(CARGO) clippy $(BENCH_ENGINE) --all-targets -- -D warnings
	$(CARGO) clippy $(ENGINE) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

# `unsafe` stands only in src/sys/; every other source file forbids it itself.
unsafe:
	@bad=$$(find src conformance/src tests rrunctl -name '*.rs' -not -path 'src/sys/*' -not -path rrunctl/src/sys.rs \
	  -exec grep -nE '\bunsafe[[:space:]]*(\{|fn|impl|extern|trait)|allow\(unsafe_code\)' {} +); \
	if [ -n "$$bad" ]; then echo "$$bad"; echo "unsafe outside src/sys/" >&2; exit 1; fi
	@bad=$$(find src -name '*.rs' -not -path 'src/sys/*' -not -path src/lib.rs \
	  -exec grep -L '^#!\[forbid(unsafe_code)\]' {} +); \
	if [ -n "$$bad" ]; then echo "$$bad"; echo 'lacks #![forbid(unsafe_code)]' >&2; exit 1; fi
	@bad=$$(find src/sys -name '*.rs' -exec grep -lE '\bunsafe[[:space:]]*\{' {} + | xargs -r grep -L 'SAFETY:'); \
	if [ -n "$$bad" ]; then echo "$$bad"; echo 'unsafe without a // SAFETY: line' >&2; exit 1; fi

install: build
	install -Dm755 "$(RRUN)" "$(BIN)/rrun"
	install -d "$(MAN)" "$(BASH_COMPLETION)" "$(ZSH_COMPLETION)" "$(FISH_COMPLETION)"
	"$(RRUN)" generate man "$(MAN)"
	"$(RRUN)" completion bash > "$(BASH_COMPLETION)/rrun"
	"$(RRUN)" completion zsh > "$(ZSH_COMPLETION)/_rrun"
	"$(RRUN)" completion fish > "$(FISH_COMPLETION)/rrun.fish"

# rrunctl and rrunmon, and what starts containers again at boot and looks after monitors that were killed.
install-engine: install engine
	install -Dm755 target/release/rrunctl target/release/rrunmon -t "$(BIN)"
	install -d "$(MAN1)" "$(UNITS)" "$(USER_UNITS)"
	target/release/rrunctl generate man "$(MAN1)"
	target/release/rrunctl completion bash > "$(BASH_COMPLETION)/rrunctl"
	target/release/rrunctl completion zsh > "$(ZSH_COMPLETION)/_rrunctl"
	target/release/rrunctl completion fish > "$(FISH_COMPLETION)/rrunctl.fish"
	for unit in service timer; do \
	  sed 's|@SBIN@|$(PREFIX)/sbin|' rrunctl/systemd/rrunctl-restore.$$unit > "$(UNITS)/rrunctl-restore.$$unit"; done
	install -m644 rrunctl/systemd/rrunctl-restore.timer -t "$(USER_UNITS)"
	sed 's|@SBIN@|$(PREFIX)/sbin|' rrunctl/systemd/user.service > "$(USER_UNITS)/rrunctl-restore.service"

uninstall:
	rm -f "$(BIN)/rrun" "$(MAN)/rrun.8" "$(MAN)"/rrun-*.8 \
	  "$(BASH_COMPLETION)/rrun" "$(ZSH_COMPLETION)/_rrun" "$(FISH_COMPLETION)/rrun.fish"
	rm -f "$(BIN)/rrunctl" "$(BIN)/rrunmon" "$(MAN1)/rrunctl.1" "$(MAN1)"/rrunctl-*.1 \
	  "$(BASH_COMPLETION)/rrunctl" "$(ZSH_COMPLETION)/_rrunctl" "$(FISH_COMPLETION)/rrunctl.fish" \
	  "$(UNITS)"/rrunctl-restore.* "$(USER_UNITS)"/rrunctl-restore.*

clean:
	$(CARGO) clean

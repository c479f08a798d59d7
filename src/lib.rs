//! rrun: a low-level OCI runtime. This page is the architecture; each module's page says the rest.
//!
//! # The data flow of `create`
//!
//! ```text
//! argv ─► cli::Command       what was typed; no I/O
//! config.json ─► spec::Spec  one field per property; read once
//! /proc, /sys ─► host::Host  facts about this machine, read once
//! Command + Spec + Host ─► plan::Plan   decisions; PURE; every error about config.json arises here
//! Plan ─► launch::parent ══ one SOCK_SEQPACKET pair ══ launch::init ─► execve
//!             │                                    │
//!             └─ state: intent, then record        └─ Fault{step, index, call, errno} on failure
//! ```
//!
//! [`commands::create`] reads in this order: open the bundle, plan, reserve the id, write the intent, make the
//! cgroups, launch, record, commit. Each acquired thing is undone by its `Drop` unless it is kept.
//!
//! # Where things are
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line from one table of flags, its help, man pages and completions |
//! | [`spec`] | config.json as types, and how it is read ([`spec::read`]) and written |
//! | [`plan`] | the decisions, one file a subject; [`plan::seccomp`] compiles the filter |
//! | [`launch`] | who forks, the words between the processes, and the two flat functions that are the child's life, [`launch::init`] and [`launch::exec`], up to its last steps, which are a list of system calls: [`launch::last`] |
//! | [`rootfs`] | makes the root filesystem inside the child, by fds |
//! | [`cgroup`] | makes, limits, freezes, counts and removes cgroups, by hand or through systemd ([`cgroup::systemd`], over [`dbus`]) |
//! | [`state`] | what is remembered on disk, so that a kill at any instant loses nothing |
//! | [`container`] | a container on record, and what is done to it |
//! | [`commands`] | one function a command |
//! | [`hooks`], [`notify`], [`console`], [`netdev`], [`rdt`], [`criu`] | hooks, sd_notify, terminals, network devices, resctrl, checkpoint and restore |
//! | [`mod@file`] | small files, read and written as a whole |
//! | [`exe`] | keeps the host's binary out of containers |
//! | [`sys`] | the only `unsafe`: system calls that rustix lacks |
//!
//! # Invariants
//!
//! Each is about an absence; `make lint` and the trace tests check those that a command can check.
//!
//! * `plan` makes no system call. [`launch::init`] never sees [`spec::Spec`].
//! * `unsafe` stands only in `src/sys/`; every other file forbids it.
//! * Only `main.rs` and the log print. Nothing is logged and also returned.
//! * No thread is started; no code runs before `main`; no procedural macro is used.
//! * Every path inside a rootfs is resolved by openat2 from one O_PATH fd and acted on through the fd that
//!   came back. No path string into a rootfs before pivot_root, no /proc opened by path after the first
//!   mount that the container controls.
//! * Whatever a container's processes can see never has the host's rrun binary as its /proc/self/exe, nor a page of it.
//! * `state` never says `created` before init waits for `start`; a killed rrun leaves nothing that
//!   `delete --force` cannot remove.
//! * Waiting is on events: pidfds, sockets, signalfds, cgroup.events. Where the kernel has none (cgroup v1's
//!   freezer, the last moments of an rmdir) it is asked again, with a bound.
//! * Nothing assumes x86_64 outside `sys` and the tables of system calls.
//! * The words are the specification's and the kernel's.
//!
//! # Where this differs from the design, and why
//!
//! * **Own spec types and no `oci-spec`.** Callers need duplicate keys (the last wins, as in Go), `null` for
//!   anything, a warning for an unknown capability where its enum is an error, and the JSON path in every
//!   error; `oci-spec` can say none of these. Without it and without serde's derive there is no procedural
//!   macro, so a plain `cargo build` links statically and the tree is a dozen crates.
//! * **No clap.** The contract is Go's flag syntax, which it cannot express ([`cli`]).
//! * **No seccompiler, libseccomp, caps, nix, procfs, pathrs.** [`plan::seccomp`] needs several actions, many
//!   architectures and the -ENOSYS rule, and is compared with libseccomp's own output in its tests; openat2 is
//!   used directly, as the fallback that `pathrs` adds is not wanted silently.
//! * **An own D-Bus client, and no zbus or rustbus.** One conversation of four methods needs no object server, no
//!   thread and no procedural macro, but a deadline on each wait, which a runtime must not miss ([`dbus`]).
//! * **Limits are decided once, as cgroup files; systemd's properties are made from those.** So `unified`, `update`
//!   and both drivers cannot disagree, and the files have the exact values ([`plan::cgroup::systemd`]).
//! * **The device program of cgroup v2 is rrun's own, also under systemd**, beside the one that systemd makes of
//!   `DeviceAllow=`: an access needs the consent of both, and neither reload nor update opens a gap ([`cgroup`]).
//! * **Linux 5.6 is the oldest kernel.** What is newer than openat2 has a substitute or is an error with the kernel's
//!   version; `make suite-old-kernel` runs the suite without those calls. `exec` needs 5.8 (setns of a pidfd).
//! * **A socket and no fifo for `start`.** A fifo can only say "go on"; on the socket init also answers, so that
//!   `start` reports a failed startContainer hook or execve, which no other runtime does. It also decides races:
//!   init accepts one `start`. And whether a container is `created` or `running` is asked of the kernel (does
//!   anybody listen) and so is right at every instant ([`state`]).
//! * **User, lookup of the program and working directory come before `created`; capabilities, seccomp and
//!   execve after `start`.** So `create` reports what it can, and the filter is loaded as the very last thing:
//!   without startContainer hooks it has to allow nothing of ours but execve and, without no_new_privs, capset.
//!   A filter that notifies an agent is the exception: agents expect its descriptor of `create`, as from runc, so it
//!   comes right before `created` and has to let init's read, write, accept4, sendto, fcntl and close pass, or the agent
//!   has to.
//! * **startContainer hooks run when init is confined as the process will be**, filter included: their programs
//!   are the container's, so they get no right that it has not ([`launch::init`]).
//! * **musl where `make build` finds or fetches it.** A static glibc asks the processor before main, by dozens of cpuid
//!   instructions that a hypervisor answers, and reads its tunables: `make bench MUSL=none` shows what that takes. musl
//!   leaves PT_GNU_RELRO writable ([`sys`] does not), words some errnos otherwise ([`error`] does not), and maps memory by
//!   the page, which is why [dlmalloc](https://docs.rs/dlmalloc) allocates here.
//! * **The container's process makes its namespaces itself**, but for those that own others or that it is found by. The
//!   kernel takes longer for them than for all of a rootfs's mounts, and rrun makes the cgroups of v1 in that time
//!   ([`launch::parent`]).
//! * **Resource limits are set last, and raised by the parent before**, which has the privilege to.
//!
//! # Who is /proc/self/exe inside (CVE-2019-5736)
//!
//! `cargo bench --bench exe`, 2026-11-23, two cores, Linux 6.18, binary of 3.2 MB, one core at other work: a command that
//! finds no container takes 0.81 ms when the file itself is executed, 0.84 by a detached read-only clone of its mount,
//! 3.00 by a sealed memfd copy, to which a start of the file that makes the copy has to be added, and 2.96 if its pages
//! are copied where they are mapped. A child that ends takes 0.12 ms, one that unmaps the file before it 0.21.
//!
//! A process that unmaps the file was chosen ([`exe`]): the price is that what it does from there on, to wait for
//! `start`, to confine itself and to execute, is a list of system calls and a few instructions in a page of their own
//! ([`launch::last`], [`sys::script`]), and that an `exec` does its work in a relay outside of the container's pid
//! namespace. Where others could see the process before, the pages are copied, and the memfd is for where the kernel
//! refuses both. The clone shares the page cache with the host's file, and containers have escaped by writing to exactly
//! these pages (CVE-2022-0847, CVE-2026-31431); a trampoline leaves a window in which the host's binary is what a
//! process with CAP_SYS_PTRACE finds.

pub mod bundle;
pub mod cgroup;
pub mod check;
pub mod cli;
pub mod commands;
pub mod console;
pub mod container;
pub mod criu;
pub mod dbus;
pub mod default_spec;
pub mod error;
pub mod exe;
pub mod features;
pub mod file;
pub mod hooks;
pub mod host;
pub mod ids;
pub mod launch;
pub mod log;
pub mod mount_namespace;
pub mod netdev;
pub mod notify;
pub mod oci_state;
pub mod plan;
pub mod rdt;
pub mod rootfs;
pub mod spec;
pub mod state;
pub mod sys;

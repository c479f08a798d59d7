//! The attack suite: a test for each published escape from a container runtime and for each class that is left, named
//! by its CVE where there is one. Each runs the attack on rrun, which must withstand it, and on a runtime that does not:
//! a test that nobody fails proves nothing. Where Debian's runc or crun is no such runtime any more, it is rrun
//! weakened by `weaken/rrun.patch` (`make test-attacks` builds it, `RRUN_WEAKENED` names it).
//!
//! What is published about a peer is told in `docs/security.md`, and nothing else: a control is a peer only where its
//! own advisory says so.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test panics to fail")]
#![allow(clippy::disallowed_methods, reason = "the tests write only into their own directories")]
#![allow(missing_docs, missing_debug_implementations, reason = "nothing here is used from elsewhere")]

#[path = "../harness.rs"]
#[allow(dead_code, reason = "shared with the suite")]
mod harness;
#[path = "../pty.rs"]
#[allow(dead_code, reason = "shared with the suite")]
mod pty;

mod race; // a name that changes its meaning: at each window, and all the time
mod scene; // an attack on several runtimes, and what it must not have changed

mod cgroups; // what a container sees and writes of cgroups
mod destinations; // mounts, devices, masks and the console, led elsewhere
mod hostside; // what the runtime does on the host: hooks, state, pid file, joined namespaces
mod identity; // users, groups, capabilities, environment
mod procfs; // false and misplaced /proc
mod runtime; // the runtime's own process, binary and descriptors, seen from inside

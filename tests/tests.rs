//! rrun's tests from outside: each drives the real binary, or the runtime that `RRUN` names (Debian's runc
//! proves that a test tests what it says). One binary, so that the suite links once; one line per subject.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test panics to fail")]
#![allow(clippy::disallowed_methods, reason = "the tests write only into their own directories")]
#![allow(missing_docs, missing_debug_implementations, reason = "nothing here is used from elsewhere")]

mod harness; // bundles, running with a time limit, what is left behind
mod pty; // the caller's side of a terminal and of --console-socket

mod annotations; // those of crun's that rrun heeds
mod bad_input; // the 125 rows of the bad-input table
mod callers; // dockerd, containerd and podman with the runtime under them
mod cgroup2; // cgroup v2 alone, beside Debian's runc and crun
mod cgroups; // resources, update, events, pause and resume, OOM
mod checkpoint; // checkpoint and restore, flag by flag
mod cli; // what callers parse: version, help, usage, log, pid file
mod exec; // exec and all its flags
mod hooks; // the six kinds and what their failure does
mod instructions; // valgrind: what building a plan costs
mod killed; // create killed at a sample of its system calls
mod leaks; // fds, canaries, keyring, host settings
mod lifecycle; // create, start, state, kill, delete, run, list, and both at once
mod lsm; // AppArmor and SELinux
mod mounts; // every mount option, masks, devices, idmapped mounts
mod namespaces; // every kind created and joined, user namespaces, time offsets
mod netdevices; // network devices moved into the container
mod old_kernel; // system calls that old kernels lack
mod outputs; // key by key beside Debian's runc
mod plan; // golden tests of the decisions
mod process; // user, capabilities, rlimits, cwd, env, scheduler, sysctl, personality
mod rootless; // an ordinary user: maps, groups, cgroups, systemd, podman
mod seccomp; // actions, arguments, listener
mod shortage; // room, descriptors, processes, memory, mounts, pids that run out
mod systemd; // systemd as the cgroup driver, beside the peers
mod terminal; // foreground pty, console socket, detach, fds, sd_notify
mod trace; // strace: path safety and the syscall budget

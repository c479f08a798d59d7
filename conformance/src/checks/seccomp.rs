//! config-linux.md on seccomp.

#![forbid(unsafe_code)]

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::thread;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use super::{Check, check};
use crate::case::{Case, Facts, Shared, Why, connection, expect, expect_eq, fails, own};

const EPERM: &str = "errno 1";

/// An action for chmod, and what comes of calling it.
const ACTIONS: &[(&str, &str)] = &[
    ("SCMP_ACT_ALLOW", "ok"),
    ("SCMP_ACT_ERRNO", EPERM),
    ("SCMP_ACT_KILL", "signal 31"),
    ("SCMP_ACT_KILL_PROCESS", "signal 31"),
    ("SCMP_ACT_KILL_THREAD", "signal 31"),
    ("SCMP_ACT_LOG", "ok"),
    // Nobody traces.
    ("SCMP_ACT_TRACE", "errno 38"),
    ("SCMP_ACT_TRAP", "signal 31"),
];

/// An operator, its value and, for the mask, its second one; offsets that match, and some that do not.
type Operator = (&'static str, u64, u64, &'static [u64], &'static [u64]);

const OPERATORS: &[Operator] = &[
    ("SCMP_CMP_NE", 50, 0, &[49, 51], &[50]),
    ("SCMP_CMP_LT", 50, 0, &[49], &[50, 51]),
    ("SCMP_CMP_LE", 50, 0, &[49, 50], &[51]),
    ("SCMP_CMP_EQ", 50, 0, &[50], &[49, 51]),
    ("SCMP_CMP_GE", 50, 0, &[50, 51], &[49]),
    ("SCMP_CMP_GT", 50, 0, &[51], &[50, 49]),
    ("SCMP_CMP_MASKED_EQ", 0xf0, 0x30, &[0x30, 0x3f], &[0x40, 0x130 + 0x40]),
    // The upper half counts too.
    ("SCMP_CMP_EQ", 1 << 33, 0, &[1 << 33], &[0, 1 << 34]),
];

const FLAGS: &[&str] =
    &["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];

const CHMOD: &[&str] = &["chmod", "fchmodat", "fchmodat2", "fchmod"];

pub fn checks() -> Vec<Check> {
    let mut all = vec![
        check("seccomp-errno", &["configLinuxSeccomp.errnoRet"], |case| {
            for (errno, want) in [(json!(38), "errno 38"), (Value::Null, EPERM)] {
                let mut entry = json!({"names": CHMOD, "action": "SCMP_ACT_ERRNO"});
                if !errno.is_null() {
                    entry["errnoRet"] = errno;
                }
                expect_eq("chmod", with_entry(case, entry, &["chmod:/sys"])?.done("chmod:/sys"), want)?;
            }
            Ok(())
        }),
        check("seccomp-default-errno", &["configLinuxSeccomp.defaultErrnoRet"], |case| {
            let common: Vec<_> = COMMON.split_whitespace().collect();
            for (errno, want) in [(json!(71), "errno 71"), (Value::Null, EPERM)] {
                let facts = case.facts(&["mknod:/node:1:3"], |config| {
                    config["linux"]["seccomp"] = json!({
                        "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": common, "action": "SCMP_ACT_ALLOW"}],
                    });
                    if !errno.is_null() {
                        config["linux"]["seccomp"]["defaultErrnoRet"] = errno;
                    }
                })?;
                expect_eq("mknod", facts.done("mknod:/node:1:3"), want)?;
            }
            Ok(())
        }),
        check(
            "seccomp-listener-fd",
            &["configLinuxSeccomp.8", "containerprocessstate.2", "containerprocessstate.4"],
            |case| {
                let told = listened(case)?;
                expect(
                    told.0["fds"] == json!(["anon_inode:seccomp notify"]),
                    format!("descriptors of the first message: {}", told.0["fds"]),
                )?;
                expect(
                    told.0["state"]["fds"] == json!(["seccompFd"]),
                    format!("fds is {}", told.0["state"]["fds"]),
                )
            },
        ),
        check("seccomp-listener-json", &["containerprocessstate.1"], |case| {
            let told = listened(case)?;
            expect(told.0["state"].is_object(), format!("no JSON: {}", told.0["text"]))
        }),
        check(
            "seccomp-listener-once",
            &["configLinuxSeccomp.4", "configLinuxSeccomp.5", "configLinuxSeccomp.6"],
            |case| {
                let told = listened(case)?;
                expect(told.0["ended"] == true, "the connection stays open after the state")?;
                expect(told.0["state"].is_object(), "there is not one state on the connection")
            },
        ),
        check("seccomp-listener-version", &["containerprocessstate.5"], |case| {
            let told = listened(case)?;
            expect(told.0["state"]["ociVersion"].is_string(), format!("no ociVersion: {}", told.0["text"]))
        }),
        check("seccomp-listener-pid", &["containerprocessstate.6"], |case| {
            let told = listened(case)?;
            expect_eq("pid", &told.0["state"]["pid"].to_string(), told.text("/pid"))
        }),
        check("seccomp-listener-state", &["containerprocessstate.7"], |case| {
            let told = listened(case)?;
            let state = &told.0["state"]["state"];
            let right = state["id"] == told.0["id"] && state["bundle"] == told.0["bundle"];
            expect(
                right && state["status"].is_string() && state["ociVersion"].is_string(),
                format!("state: {state}"),
            )
        }),
        check("seccomp-listener-metadata", &["containerprocessstate.metadata"], |case| {
            let told = listened(case)?;
            expect_eq("metadata", told.text("/state/metadata"), "its metadata")
        }),
        check("seccomp-listener-refused", &["configLinuxSeccomp.7"], |case| {
            let nobody = case.dir.join("nobody");
            case.refuses("a listenerPath where nobody listens", |config| {
                notify(config, &nobody.display().to_string())
            })
        }),
        check("seccomp-flags", &["configLinuxSeccomp.flags"], |case| {
            for flag in FLAGS {
                let facts = case.facts(&["chmod:/sys"], |config| {
                    let entry = json!({"names": CHMOD, "action": "SCMP_ACT_ERRNO"});
                    config["linux"]["seccomp"] =
                        json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag], "syscalls": [entry]});
                })?;
                expect_eq(&format!("chmod, with {flag}"), facts.done("chmod:/sys"), EPERM)?;
            }
            Ok(())
        }),
    ];
    all.extend(ACTIONS.iter().map(|(action, want)| {
        check(format!("seccomp-{action}"), &["configLinuxSeccomp.action"], move |case| {
            let operation = "child:chmod:/sys";
            let facts = with_entry(case, json!({"names": CHMOD, "action": action}), &[operation])?;
            expect_eq("chmod", facts.done(operation), want)
        })
    }));
    all.extend(OPERATORS.iter().enumerate().map(|(n, (operator, value, second, matching, others))| {
        let name = if n == 7 { "upper-half".to_owned() } else { (*operator).to_owned() };
        check(format!("seccomp-{name}"), &["configLinuxSeccomp.args"], move |case| {
            let argument = json!({"index": 1, "value": value, "valueTwo": second, "op": operator});
            let operations: Vec<_> = matching.iter().chain(*others).map(|at| format!("seek:{at}")).collect();
            let operations: Vec<_> = operations.iter().map(String::as_str).collect();
            let entry =
                json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71, "args": [argument]});
            let facts = with_entry(case, entry, &operations)?;
            for (n, operation) in operations.iter().enumerate() {
                let want = if n < matching.len() { "errno 71" } else { "ok" };
                expect_eq(operation, facts.done(operation), want)?;
            }
            Ok(())
        })
    }));
    all
}

fn with_entry(case: &Case, entry: Value, operations: &[&str]) -> Result<Facts, Why> {
    case.facts(operations, |config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]});
    })
}

fn notify(config: &mut Value, socket: &str) {
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "its metadata",
        "syscalls": [{"names": CHMOD, "action": "SCMP_ACT_NOTIFY"}],
    });
}

/// What came through the socket: the state, what was sent with the first message, and whether the
/// connection then ended. Nobody answers the filter, as no system call asks it.
fn listened(case: &Case) -> Shared {
    case.shared("seccomp listener", |case| {
        let path = case.dir.join("s");
        let socket = UnixListener::bind(&path).map_err(own(&path))?;
        let received = thread::spawn(move || {
            let stream = connection(&socket)?;
            let (mut text, mut fds, mut ended) = (Vec::new(), Vec::new(), false);
            // They are kept open, as the filter ends with the last of them.
            let mut kept = Vec::new();
            for message in 0.. {
                let (mut bytes, mut space) = ([0; 8192], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))]);
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
                let Ok(got) = got else { break };
                text.extend_from_slice(&bytes[..got.bytes]);
                for part in control.drain() {
                    let RecvAncillaryMessage::ScmRights(sent) = part else { continue };
                    for fd in sent {
                        let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
                        let link = fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
                        fds.push(if message == 0 { link.display().to_string() } else { "in a later message".into() });
                        kept.push(fd);
                    }
                }
                if got.bytes == 0 {
                    ended = true;
                    break;
                }
            }
            Some((String::from_utf8_lossy(&text).into_owned(), fds, ended, kept))
        });
        let bundle = case.bundle(&["/probe", "probe", "facts"], |config| notify(config, &path.display().to_string()))?;
        let container = case.create(&bundle)?;
        let pid = container.pid()?;
        container.started()?;
        container.output.line()?;
        let Ok(Some((text, fds, ended, _kept))) = received.join() else { return fails("nobody connected to listenerPath") };
        // The rest after one value, if any, makes it no JSON.
        let state: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Facts(json!({
            "text": text, "state": state, "fds": fds, "ended": ended, "pid": pid, "id": container.id, "bundle": bundle.path,
        })))
    })
}

/// What a runtime, before it executes the program, and the probe need on any architecture; mknod is
/// not among them.
const COMMON: &str = "\
    accept accept4 access arch_prctl bind brk capget capset chdir clock_gettime clock_nanosleep clone clone3 \
    close close_range connect dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 execve \
    execveat exit exit_group faccessat faccessat2 fchdir fchmod fchown fcntl flock fstat fstatfs fsync \
    ftruncate futex get_robust_list getcwd getdents getdents64 getegid geteuid getgid getgroups getpgid \
    getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getsid getsockname getsockopt \
    gettid gettimeofday getuid ioctl keyctl kill lgetxattr listen lseek lstat madvise membarrier mincore \
    mkdir mkdirat mlock mmap mprotect mremap munmap nanosleep newfstatat open openat openat2 pause \
    personality pidfd_open pidfd_send_signal pipe pipe2 poll ppoll prctl pread64 prlimit64 pselect6 pwrite64 \
    read readlink readlinkat readv recvfrom recvmsg restart_syscall riscv_flush_icache rseq rt_sigaction \
    rt_sigpending rt_sigprocmask rt_sigreturn rt_sigtimedwait sched_getaffinity sched_getparam \
    sched_getscheduler sched_setaffinity sched_yield seccomp select sendmsg sendto set_robust_list \
    set_tid_address setfsgid setfsuid setgid setgroups setitimer setns setpgid setpriority setresgid \
    setresuid setrlimit setsid setuid shutdown sigaltstack signalfd4 socket socketpair stat statfs statx \
    sysinfo tgkill timer_create timer_delete timer_settime timerfd_create timerfd_settime tkill umask uname \
    unlink unlinkat unshare vfork wait4 waitid write writev";

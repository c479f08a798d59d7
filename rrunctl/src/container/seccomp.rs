//! Seccomp profiles: the default one, and those of `--security-opt seccomp=FILE`, for one container's capabilities.
//!
//! What the default allows is what Docker's allows (moby profiles of August 2026), arranged by purpose. A profile says
//! for which capabilities, architectures and kernels an entry holds; config.json has only what holds.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::env::consts::ARCH;

/// What every container may call; names that an architecture does not have do no harm.
const ALWAYS: &[&str] = &[
    // Identity and credentials.
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpeername \
     getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getsid gettid \
     getuid getuid32 landlock_add_rule landlock_create_ruleset landlock_restrict_self prctl seccomp setfsgid \
     setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid \
     setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setsid setuid setuid32 umask",
    // Time and timers.
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time \
     timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
     timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times",
    // Network.
    "accept accept4 bind connect getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
     send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    // Queues, semaphores and shared memory.
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
     mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop \
     semtimedop_time64 shmat shmctl shmdt shmget",
    // Waiting for descriptors.
    "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 \
     inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit \
     poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4",
    // Signals.
    "kill pause pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
     rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack \
     sigprocmask sigreturn tgkill tkill",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap \
     mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect \
     process_mrelease remap_file_pages",
    // Processes, threads and scheduling.
    "execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
     get_robust_list get_thread_area getcpu getrlimit getrusage ioprio_get ioprio_set pidfd_open prlimit64 \
     riscv_hwprobe rseq sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr \
     sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity \
     sched_setattr sched_setparam sched_setscheduler sched_yield set_robust_list set_thread_area \
     set_tid_address setrlimit ugetrlimit uretprobe vfork wait4 waitid waitpid",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat \
     llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // The tree of files.
    "access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 fchown \
     fchown32 fchownat fstat fstat64 fstatat64 fstatfs fstatfs64 ftruncate ftruncate64 futimesat getcwd \
     getdents getdents64 lchown lchown32 link linkat listmount lstat lstat64 mkdir mkdirat mknod mknodat \
     name_to_handle_at newfstatat open openat openat2 readlink readlinkat rename renameat renameat2 rmdir \
     stat stat64 statfs statfs64 statmount statx symlink symlinkat truncate truncate64 unlink unlinkat utime \
     utimensat utimensat_time64 utimes",
    // Reading and writing.
    "_llseek cachestat close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl \
     fcntl64 fdatasync flock fsync getrandom ioctl lseek pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev \
     pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range syncfs sysinfo tee uname \
     vmsplice write writev",
    // Of other processes; safe since seccomp comes after ptrace (Linux 4.8).
    "process_vm_readv process_vm_writev ptrace",
];

/// What a capability allows.
const WITH_CAPABILITY: &[(&str, &str)] = &[
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
];

/// What one architecture has besides.
const ON_ARCHITECTURE: &[(&[&str], &str)] = &[
    (&["x86_64"], "arch_prctl"),
    (&["x86", "x86_64"], "modify_ldt"),
    (
        &["aarch64", "arm"],
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    (&["powerpc64"], "swapcontext sync_file_range2"),
    (&["riscv64"], "riscv_flush_icache"),
    (&["s390x"], "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
];

/// What personality(2) may be asked for: Linux, Linux with 32 bit addresses, Linux 2.6 versions, both, and to tell.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, u32::MAX];

/// The address families that socket(2) may be asked for, as masks and what is left by them: all below 64 but AF_ALG (38),
/// which has had its holes, and AF_VSOCK (40), which knows no network namespaces.
///
/// Only the lower half of the argument is looked at, because it is an int: the kernel ignores the upper one, in which a
/// caller can set what it likes so that the whole is no longer 38.
const FAMILIES: [(u32, u32); 8] = [
    (!31, 0),
    (!3, 32),
    (!1, 36),
    (!0, libc::AF_NFC.unsigned_abs()),
    (!0, 41),
    (!1, 42),
    (!3, 44),
    (!15, 48),
];

/// Every CLONE_NEW* flag of clone(2) but CLONE_NEWTIME, whose bit is the exit signal's there.
const CLONE_NEW: u32 = 0x7e02_0000;

/// Rust's name, Go's, and the ABIs of a processor, its own first.
const ARCHITECTURES: &[(&str, &str, &[&str])] = &[
    ("x86_64", "amd64", &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    ("x86", "x86", &["SCMP_ARCH_X86"]),
    ("aarch64", "arm64", &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
    ("arm", "arm", &["SCMP_ARCH_ARM"]),
    ("powerpc64", "ppc64le", &["SCMP_ARCH_PPC64LE"]),
    ("riscv64", "riscv64", &["SCMP_ARCH_RISCV64"]),
    ("s390x", "s390x", &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"]),
];

fn allow_if(name: &str, argument: u32, value: u32, op: &str) -> Value {
    json!({
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": argument, "value": value, "op": op}],
    })
}

/// The default profile for a container whose bounding set is `capabilities`, as `linux.seccomp` of config.json.
pub fn default(capabilities: &[String]) -> Value {
    let has = |capability: &str| capabilities.iter().any(|has| has == capability);
    let mut names: Vec<_> = ALWAYS.iter().flat_map(|group| group.split(' ')).collect();
    for (archs, more) in ON_ARCHITECTURE {
        if archs.contains(&ARCH) {
            names.extend(more.split(' '));
        }
    }
    for (capability, more) in WITH_CAPABILITY {
        if has(capability) {
            names.extend(more.split(' '));
        }
    }
    names.sort_unstable();
    names.dedup();
    let mut syscalls = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    syscalls.extend(PERSONALITIES.map(|value| allow_if("personality", 0, value, "SCMP_CMP_EQ")));
    for (mask, family) in FAMILIES {
        let mut socket = allow_if("socket", 0, mask, "SCMP_CMP_MASKED_EQ");
        socket["args"][0]["valueTwo"] = family.into();
        syscalls.push(socket);
    }
    if !has("CAP_SYS_ADMIN") {
        // s390 has clone's flags second.
        let flags = u32::from(ARCH == "s390x");
        let mut clone = allow_if("clone", flags, CLONE_NEW, "SCMP_CMP_MASKED_EQ");
        clone["args"][0]["valueTwo"] = 0.into();
        syscalls.push(clone);
        // A filter cannot see clone3's flags; without it the C library takes clone.
        syscalls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": abis(),
        "syscalls": syscalls,
    })
}

fn abis() -> &'static [&'static str] {
    ARCHITECTURES.iter().find(|(arch, ..)| *arch == ARCH).map_or(&[], |(_, _, abis)| abis)
}

/// What an entry of a profile depends on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// A profile of the user's, in Docker's form: `archMap`, and `includes` and `excludes` of an entry.
///
/// # Errors
/// What is no such JSON, and contradictions.
pub fn load(profile: &str, capabilities: &[String], kernel: (u32, u32)) -> Result<Value> {
    let invalid = |text: String| Error::invalid(format!("Decoding seccomp profile failed: {text}"));
    let mut profile: Map<String, Value> =
        serde_json::from_str(profile).map_err(|e| invalid(e.to_string()))?;
    let arch = ARCHITECTURES.iter().find(|(arch, ..)| *arch == ARCH).map_or(ARCH, |(_, go, _)| go);
    if let Some(map) = profile.remove("archMap").filter(|map| !map.is_null()) {
        if profile.get("architectures").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
            return Err(Error::invalid(
                "both 'architectures' and 'archMap' are specified in the seccomp profile, use either \
                 'architectures' or 'archMap'",
            ));
        }
        let entries = map.as_array().ok_or_else(|| invalid("archMap is no list".to_owned()))?;
        let own = entries
            .iter()
            .find(|entry| entry.get("architecture").and_then(Value::as_str) == abis().first().copied());
        if let Some(own) = own {
            let mut list = vec![own["architecture"].clone()];
            list.extend(own.get("subArchitectures").and_then(Value::as_array).into_iter().flatten().cloned());
            profile.insert("architectures".to_owned(), list.into());
        }
    }
    let mut holding = Vec::new();
    let entries = profile.remove("syscalls").filter(|list| !list.is_null()).unwrap_or_else(|| json!([]));
    let Value::Array(entries) = entries else { return Err(invalid("syscalls is no list".to_owned())) };
    for entry in entries {
        let Value::Object(mut entry) = entry else { return Err(invalid("an entry is no object".to_owned())) };
        let mut filter = |name: &str| -> Result<Option<Filter>> {
            let filter = entry.remove(name).filter(|filter| !filter.is_null());
            filter
                .map(|filter| serde_json::from_value(filter).map_err(|e| invalid(e.to_string())))
                .transpose()
        };
        let (includes, excludes) = (filter("includes")?, filter("excludes")?);
        if let Some(excludes) = excludes
            && (lists(&excludes.arches, |given| given == arch)
                || lists(&excludes.caps, |given| capabilities.contains(given))
                || reached(excludes.min_kernel.as_deref(), kernel)?)
        {
            continue;
        }
        if let Some(includes) = includes {
            let archs = includes.arches.is_none_or(|list| list.is_empty() || list.iter().any(|a| a == arch));
            let caps = includes.caps.is_none_or(|list| list.iter().all(|cap| capabilities.contains(cap)));
            if !(archs && caps) {
                continue;
            }
            let least = includes.min_kernel.as_deref();
            if least.is_some_and(|least| !least.is_empty()) && !reached(least, kernel)? {
                continue;
            }
        }
        entry.remove("comment");
        if let Some(name) = entry.remove("name").filter(|name| name.as_str() != Some("")) {
            if entry.get("names").and_then(Value::as_array).is_some_and(|names| !names.is_empty()) {
                return Err(Error::invalid(
                    "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
                ));
            }
            entry.insert("names".to_owned(), json!([name]));
        }
        entry.retain(|_, value| !value.is_null());
        holding.push(Value::Object(entry));
    }
    profile.insert("syscalls".to_owned(), holding.into());
    Ok(Value::Object(profile))
}

fn lists(list: &Option<Vec<String>>, matches: impl FnMut(&String) -> bool) -> bool {
    list.as_ref().is_some_and(|list| list.iter().any(matches))
}

/// Whether the kernel is at least `least`, if there is one.
fn reached(least: Option<&str>, kernel: (u32, u32)) -> Result<bool> {
    let Some(least) = least.filter(|least| !least.is_empty()) else { return Ok(false) };
    let version = least.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let version: (u32, u32) = version.filter(|version| *version != (0, 0)).ok_or_else(|| {
        Error::invalid(format!("invalid kernel version: {least:?}, expected \"<kernel>.<major>\""))
    })?;
    Ok(kernel >= version)
}

/// Whether `name` is allowed whatever its arguments are.
#[cfg(test)]
fn allows(profile: &Value, name: &str) -> bool {
    profile["syscalls"].as_array().expect("a list").iter().any(|entry| {
        entry["action"] == "SCMP_ACT_ALLOW"
            && entry.get("args").is_none()
            && entry["names"].as_array().expect("a list").iter().any(|has| has == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_capability_brings_its_calls() {
        let (none, all) = (default(&[]), default(&capabilities(&["CAP_SYS_ADMIN", "CAP_SYS_TIME"])));
        for name in ["read", "ptrace", "openat2", "mseal"] {
            assert!(allows(&none, name), "{name}");
        }
        for name in ["mount", "unshare", "clone", "clock_settime"] {
            assert!(!allows(&none, name) && allows(&all, name), "{name}");
        }
        for name in ["kexec_load", "add_key", "keyctl", "io_uring_setup", "userfaultfd", "swapon"] {
            assert!(!allows(&all, name), "{name}");
        }
        let last = none["syscalls"].as_array().expect("a list").last().expect("some").clone();
        assert_eq!(last, json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
        assert_eq!(none["defaultErrnoRet"], 1);
    }

    #[test]
    fn no_socket_of_a_refused_family_whatever_the_upper_half_of_the_argument_is() {
        let profile = default(&[]);
        let allowed = |family: u64| {
            profile["syscalls"].as_array().expect("a list").iter().any(|entry| {
                if entry["names"] != json!(["socket"]) {
                    return false;
                }
                let argument = &entry["args"][0];
                let number = |name: &str| argument[name].as_u64().unwrap_or_default();
                match argument["op"].as_str().expect("an operator") {
                    "SCMP_CMP_LT" => family < number("value"),
                    "SCMP_CMP_GT" => family > number("value"),
                    "SCMP_CMP_EQ" => family == number("value"),
                    "SCMP_CMP_MASKED_EQ" => family & number("value") == number("valueTwo"),
                    other => panic!("{other}"),
                }
            })
        };
        for upper in [0, 1 << 32, u64::from(u32::MAX) << 32] {
            for family in 0..64 {
                let refused = family == 38 || family == 40;
                assert_eq!(allowed(upper | family), !refused, "{upper:x} {family}");
            }
        }
    }

    #[test]
    fn a_profile_of_ones_own_holds_where_it_says() {
        let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[
            {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"c"},
            {"name":"b","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_X"]}},
            {"name":"c","action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_X"]}},
            {"name":"d","action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.1"}},
            {"name":"e","action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"6.1"}},
            {"name":"f","action":"SCMP_ACT_ALLOW","includes":{"arches":["vax"]}}]}"#;
        let names = |caps: &[&str], kernel| {
            let loaded = load(profile, &capabilities(caps), kernel).expect("valid");
            let list = loaded["syscalls"].as_array().expect("a list").clone();
            list.iter().map(|entry| entry["names"][0].as_str().expect("text")).collect::<String>()
        };
        assert_eq!(names(&["CAP_X"], (6, 1)), "abd");
        assert_eq!(names(&[], (5, 19)), "ace");
        let loaded = load(profile, &[], (6, 1)).expect("valid");
        assert_eq!(loaded["syscalls"][0], json!({"names": ["a"], "action": "SCMP_ACT_ALLOW"}));
        if ARCH == "x86_64" {
            assert_eq!(loaded["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
        }
    }

    #[test]
    fn a_broken_profile_is_refused() {
        for (profile, text) in [
            ("{", "Decoding seccomp profile failed: "),
            (r#"{"syscalls":[{"name":"a","names":["b"]}]}"#, "both 'name' and 'names'"),
            (r#"{"architectures":["SCMP_ARCH_X86"],"archMap":[]}"#, "both 'architectures' and 'archMap'"),
            (r#"{"syscalls":[{"name":"a","includes":{"minKernel":"six"}}]}"#, "invalid kernel version"),
            (r#"{"syscalls":7}"#, "syscalls is no list"),
        ] {
            let e = load(profile, &[], (6, 1)).expect_err(profile).to_string();
            assert!(e.starts_with(text) || e.contains(text), "{e}");
        }
    }
}

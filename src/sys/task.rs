//! What a process sets on itself before execve(2): ids, capabilities, limits, scheduling, names.
//!
//! Everything here is the bare system call. That matters for the ids: libc's setresuid(3) and its like stop
//! every other thread with a signal to change them together, and rrun has no other thread; it also makes
//! these calls act on the calling thread alone, which is how the tests below undo nothing.

#![allow(unsafe_code)]

use super::{Result, check};
use libc::{c_int, c_long, c_ulong};

/// Argument of [`sched_setattr`]; the kernel's `struct sched_attr` of 5.3, which older kernels take as long
/// as the last two are zero.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Size of this struct; [`sched_setattr`] fills it in.
    pub size: u32,
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// -20 to 19
    pub nice: i32,
    /// 1 to 99 for real-time policies
    pub priority: u32,
    /// Nanoseconds
    pub runtime: u64,
    /// Nanoseconds
    pub deadline: u64,
    /// Nanoseconds
    pub period: u64,
    /// Utilization clamp; unused.
    pub util_min: u32,
    /// Utilization clamp; unused.
    pub util_max: u32,
}

/// sched_setattr(2) on this thread.
///
/// # Errors
/// EPERM without CAP_SYS_NICE, or for SCHED_DEADLINE with an affinity or cpuset of fewer than all CPUs.
pub fn sched_setattr(attr: SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attr };
    // SAFETY: `attr` lives through the call, and its size field is its size.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    check("sched_setattr", ret).map(drop)
}

/// ioprio_set(2) on this thread; what it starts inherits the value.
///
/// # Errors
/// EPERM for the real-time class without CAP_SYS_NICE or CAP_SYS_ADMIN.
pub fn ioprio_set(value: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    // SAFETY: no pointers.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value as c_long) };
    check("ioprio_set", ret).map(drop)
}

/// sched_setaffinity(2) on a thread, 0 being this one; the mask may be longer than the kernel's.
///
/// # Errors
/// EINVAL if no CPU of the mask may be used.
pub fn sched_setaffinity(pid: i32, mask: &[usize]) -> Result<()> {
    // SAFETY: the kernel reads as many bytes as the slice has.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) };
    check("sched_setaffinity", ret).map(drop)
}

/// set_mempolicy(2) on this thread; `mode` includes the flags.
///
/// # Errors
/// EINVAL for nodes that do not exist or a mode that the kernel does not know.
pub fn set_mempolicy(mode: u32, nodes: &[usize]) -> Result<()> {
    // One more than the bits there are: the kernel subtracts one before it looks.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * usize::BITS as usize + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits` - 1 bits, which is what the slice has.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode as c_long, pointer, bits) };
    check("set_mempolicy", ret).map(drop)
}

/// personality(2).
///
/// # Errors
/// EINVAL.
pub fn personality(persona: u32) -> Result<()> {
    // SAFETY: no pointers.
    let ret = unsafe { libc::syscall(libc::SYS_personality, c_ulong::from(persona)) };
    check("personality", ret).map(drop)
}

/// prlimit(2) on a process, 0 being this one; `u64::MAX` is unlimited.
///
/// # Errors
/// EPERM for a hard limit above the present one without CAP_SYS_RESOURCE.
pub fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    // The kernel's rlimit64, whatever libc's rlim_t is.
    let limit = [soft, hard];
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: `limit` has the layout of struct rlimit64 and lives through the call; a null `old` is allowed.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, limit.as_ptr(), old) };
    check("prlimit", ret).map(drop)
}

/// Effective, permitted and inheritable sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSets {
    /// Effective set.
    pub effective: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Inheritable set.
    pub inheritable: u64,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words a set.
pub(super) const CAP_VERSION: u32 = 0x2008_0522;

#[repr(C)]
pub(super) struct CapHeader {
    pub(super) version: u32,
    pub(super) pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct CapData {
    pub(super) effective: u32,
    pub(super) permitted: u32,
    pub(super) inheritable: u32,
}

impl CapSets {
    /// As capset(2) takes them.
    pub(super) fn data(self) -> [CapData; 2] {
        [0, 32].map(|shift| CapData {
            effective: (self.effective >> shift) as u32,
            permitted: (self.permitted >> shift) as u32,
            inheritable: (self.inheritable >> shift) as u32,
        })
    }
}

/// capget(2) of this thread.
///
/// # Errors
/// None that the kernel documents for oneself.
pub fn capget() -> Result<CapSets> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 fills two elements, which `data` has.
    let ret = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check("capget", ret)?;
    let [low, high] = data;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(CapSets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// capset(2) on this thread; bits beyond the kernel's last capability are ignored by it.
///
/// # Errors
/// EPERM for what capabilities(7) does not let a thread add.
pub fn capset(sets: CapSets) -> Result<()> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    let data = sets.data();
    // SAFETY: version 3 reads two elements, which `data` has.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    check("capset", ret).map(drop)
}

fn prctl(call: &'static str, option: c_int, args: [c_ulong; 2]) -> Result<c_long> {
    let [a, b] = args;
    let zero: c_ulong = 0;
    // SAFETY: none of the options used in this file takes a pointer.
    let ret = unsafe { libc::syscall(libc::SYS_prctl, c_long::from(option), a, b, zero, zero) };
    check(call, ret)
}

/// Whether a capability is in the bounding set; `None` if the kernel does not know it.
pub fn bounding_has(number: u32) -> Option<bool> {
    prctl("prctl PR_CAPBSET_READ", libc::PR_CAPBSET_READ, [number.into(), 0]).ok().map(|set| set == 1)
}

/// The bounding set of this thread.
pub fn bounding() -> u64 {
    (0..64)
        .take_while(|n| bounding_has(*n).is_some())
        .filter(|n| bounding_has(*n) == Some(true))
        .fold(0, |mask, n| mask | 1 << n)
}

/// Takes a capability from the bounding set.
///
/// # Errors
/// EPERM without CAP_SETPCAP, EINVAL for one that the kernel does not know.
pub fn bounding_drop(number: u32) -> Result<()> {
    prctl("prctl PR_CAPBSET_DROP", libc::PR_CAPBSET_DROP, [number.into(), 0]).map(drop)
}

/// Whether permitted capabilities survive the change from root to another user; execve(2) clears it.
///
/// # Errors
/// EPERM if the securebits lock it.
pub fn set_keep_caps(keep: bool) -> Result<()> {
    prctl("prctl PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, [keep.into(), 0]).map(drop)
}

/// Whether others may trace the process and read its /proc files; execve(2) and changes of id reset it.
///
/// # Errors
/// None that the kernel documents.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl("prctl PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, [dumpable.into(), 0]).map(drop)
}

/// The signal this process gets when its parent's thread ends, 0 for none; changes of id clear it.
///
/// # Errors
/// EINVAL for what is no signal.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl("prctl PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, [signal as c_ulong, 0]).map(drop)
}

// On the 32-bit architectures of old, the plain numbers take 16-bit ids.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID};

/// setgroups(2) on this thread.
///
/// # Errors
/// EPERM without CAP_SETGID or where /proc/PID/setgroups says `deny`.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads as many elements as the slice has.
    let ret = unsafe { libc::syscall(SETGROUPS, groups.len(), groups.as_ptr()) };
    check("setgroups", ret).map(drop)
}

/// Real, effective and saved group id of this thread.
///
/// # Errors
/// EINVAL for an id without a mapping, EPERM without CAP_SETGID.
pub fn setresgid(gid: u32) -> Result<()> {
    let gid = c_long::from(gid as i32);
    // SAFETY: no pointers.
    check("setresgid", unsafe { libc::syscall(SETRESGID, gid, gid, gid) }).map(drop)
}

/// Real, effective and saved user id of this thread.
///
/// # Errors
/// EINVAL for an id without a mapping, EPERM without CAP_SETUID, EAGAIN at the user's RLIMIT_NPROC on
/// kernels before 5.14.
pub fn setresuid(uid: u32) -> Result<()> {
    let uid = c_long::from(uid as i32);
    // SAFETY: no pointers.
    check("setresuid", unsafe { libc::syscall(SETRESUID, uid, uid, uid) }).map(drop)
}

/// sethostname(2).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over the UTS namespace.
pub fn sethostname(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads as many bytes as the slice has.
    check("sethostname", unsafe { libc::syscall(libc::SYS_sethostname, name.as_ptr(), name.len()) }).map(drop)
}

/// setdomainname(2).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over the UTS namespace.
pub fn setdomainname(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads as many bytes as the slice has.
    check("setdomainname", unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.len()) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    //! Each test has a thread of its own, so what it changes ends with it.

    use super::*;
    use crate::sys::script::Script;
    use rustix::io::Errno;

    fn status(key: &str) -> String {
        let text = std::fs::read_to_string("/proc/thread-self/status").expect("/proc");
        let line = text.lines().find(|line| line.starts_with(key)).expect("a line");
        line.split_once(':').expect("a colon").1.trim().to_owned()
    }

    fn mask(key: &str) -> u64 {
        u64::from_str_radix(&status(key), 16).expect("a mask")
    }

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    #[test]
    fn capabilities_are_what_proc_says() {
        let sets = capget().expect("capget");
        assert_eq!(
            (sets.effective, sets.permitted, sets.inheritable, bounding()),
            (mask("CapEff"), mask("CapPrm"), mask("CapInh"), mask("CapBnd"))
        );
        assert_eq!(bounding_has(63), None);
    }

    #[test]
    fn capabilities_survive_a_change_of_user() {
        if !is_root() {
            return;
        }
        let kill = 1 << 5;
        bounding_drop(12).expect("drop");
        set_keep_caps(true).expect("keep");
        setgroups(&[7, 9]).expect("setgroups");
        setresgid(65_534).expect("setresgid");
        setresuid(65_534).expect("setresuid");
        let s = &mut Script::default();
        let refused = s.label();
        s.capset(CapSets { effective: kill, permitted: kill, inheritable: kill });
        s.ambient_clear();
        s.ambient_raise(5);
        s.ambient_raise(0).or(refused);
        s.at(refused).leave();
        s.run();
        assert_eq!([mask("CapEff"), mask("CapPrm"), mask("CapInh"), mask("CapAmb")], [kill; 4]);
        assert_eq!(mask("CapBnd") & 1 << 12, 0);
        assert_eq!(status("Uid"), "65534\t65534\t65534\t65534");
        assert_eq!(status("Groups"), "7 9");
        assert_eq!(setresuid(0).map_err(|e| e.errno), Err(Errno::PERM));
    }

    #[test]
    fn scheduling_is_what_the_kernel_says() {
        sched_setattr(SchedAttr { policy: 3, nice: 5, ..Default::default() }).expect("SCHED_BATCH");
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("/proc");
        let fields: Vec<_> = stat.rsplit_once(')').expect("comm").1.split_whitespace().collect();
        // Fields 19 (nice) and 41 (policy) of proc_pid_stat(5), counted from the third.
        assert_eq!((fields.get(16), fields.get(38)), (Some(&"5"), Some(&"3")));
        let e = sched_setattr(SchedAttr { policy: 99, ..Default::default() }).expect_err("no policy");
        assert_eq!((e.call, e.errno), ("sched_setattr", Errno::INVAL));
        ioprio_set(2 << 13 | 7).expect("ioprio_set");
        ioprio_set(7 << 13).expect_err("no class");
    }

    #[test]
    fn masks_may_be_longer_than_the_kernels() {
        let mut mask = vec![0; 4096 / usize::BITS as usize];
        let allowed = status("Cpus_allowed_list");
        let first: usize = allowed.split(['-', ',']).next().and_then(|n| n.parse().ok()).expect("a CPU");
        *mask.get_mut(first / usize::BITS as usize).expect("a word") = 1 << (first % usize::BITS as usize);
        sched_setaffinity(0, &mask).expect("affinity");
        assert_eq!(status("Cpus_allowed_list"), first.to_string());
        sched_setaffinity(0, &[0, 0]).expect_err("no CPU");
        match set_mempolicy(2, &[1]) {
            Ok(()) => set_mempolicy(0, &[]).expect("MPOL_DEFAULT"),
            Err(e) => assert_eq!(e.errno, Errno::NOSYS),
        }
    }

    #[test]
    fn flags_are_set() {
        let s = &mut Script::default();
        s.no_new_privs();
        s.leave();
        s.run();
        assert_eq!(status("NoNewPrivs"), "1");
        personality(8).expect("LINUX32");
        assert_eq!(
            std::fs::read_to_string("/proc/thread-self/personality").expect("/proc").trim(),
            "00000008"
        );
        let hard = rustix::process::getrlimit(rustix::process::Resource::Core).maximum.unwrap_or(u64::MAX);
        prlimit(0, libc::RLIMIT_CORE, 0, hard).expect("prlimit");
        assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Core).current, Some(0));
        prlimit(0, 99, 0, 0).expect_err("no resource");
        set_parent_death_signal(0).expect("pdeathsig");
        set_parent_death_signal(999).expect_err("no signal");
    }

    #[test]
    fn names_are_the_namespaces() {
        if !is_root() {
            return;
        }
        // SAFETY: no pointers; only this thread moves.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWUTS) }, 0);
        sethostname(b"rrun-host").expect("sethostname");
        setdomainname(b"rrun-domain").expect("setdomainname");
        let name = rustix::system::uname();
        assert_eq!(
            (name.nodename().to_bytes(), name.domainname().to_bytes()),
            (&b"rrun-host"[..], &b"rrun-domain"[..])
        );
    }
}

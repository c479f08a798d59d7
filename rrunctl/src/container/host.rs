//! What this machine is and can: read once, given to what decides.

#![forbid(unsafe_code)]

use super::{apparmor, capability};
use crate::rootless;
use std::fs;
use std::path::{Path, PathBuf};

/// Facts; everything that decides takes them from here, so that it can be tried with others.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Its name.
    pub hostname: String,
    /// 6.18 is (6, 18).
    pub kernel: (u32, u32),
    /// The capabilities that this process may give, a bit for each number.
    pub capabilities: u64,
    /// Whether it has cgroup v2 alone.
    pub unified: bool,
    /// What its cgroups can limit.
    pub limits: Limits,
    /// How many processors are up.
    pub processors: u32,
    /// Processors that a cgroup may have: `0-1`.
    pub cpus: String,
    /// Memory nodes that a cgroup may have.
    pub mems: String,
    /// Whether AppArmor has profiles here.
    pub apparmor: bool,
    /// The profile of who names none, if one is loaded: Docker's or ours.
    pub apparmor_default: Option<&'static str>,
    /// Whether the kernel can make what is below a mount read-only as well (mount_setattr(2), Linux 5.12).
    pub recursive_read_only: bool,
    /// Whether this is a user namespace, where some sysctls and devices are out of reach.
    pub user_namespace: bool,
    /// There, whether the user's systemd can make cgroups for containers (cgroup v2).
    pub user_systemd: bool,
    /// Which of [`SYSCTLS`] there are.
    pub sysctls: Vec<&'static str>,
    /// Directories that tell how hot a processor runs, and so what others compute (GHSA-6fw5-f8r9-fgfm).
    pub thermal_throttle: Vec<String>,
    /// Whether packets are forwarded.
    pub ip_forward: bool,
}

/// Sysctls that a network namespace of a container's own gets, and their values.
pub const SYSCTLS: [(&str, &str); 2] = [
    // Echo sockets for everybody, without CAP_NET_RAW.
    ("net.ipv4.ping_group_range", "0 2147483647"),
    // Ports below 1024 for everybody, without CAP_NET_BIND_SERVICE.
    ("net.ipv4.ip_unprivileged_port_start", "0"),
];

/// Which limits there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a file that is there or not")]
pub struct Limits {
    /// Memory at all.
    pub memory: bool,
    /// Memory and swap.
    pub swap: bool,
    /// memory.swappiness.
    pub swappiness: bool,
    /// memory.oom_control.
    pub oom_kill_disable: bool,
    /// memory.kmem.limit_in_bytes.
    pub kernel_memory: bool,
    /// Shares or weight.
    pub cpu_shares: bool,
    /// Quotas.
    pub cpu_cfs: bool,
    /// Quotas of real time.
    pub cpu_realtime: bool,
    /// Processors and nodes.
    pub cpuset: bool,
    /// Processes.
    pub pids: bool,
    /// Shares of block devices.
    pub blkio_weight: bool,
    /// Shares of one block device.
    pub blkio_weight_device: bool,
    /// Rates of block devices.
    pub blkio_throttle: bool,
}

impl Host {
    /// Of this machine. What cannot be read is taken for missing.
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
        let capabilities =
            u64::from_str_radix(effective.trim(), 16).unwrap_or(0) & ((1 << capability::ALL.len()) - 1);
        let mounts = Cgroups::read(&text("/proc/self/mountinfo"));
        let sysctl = |name: &str| Path::new("/proc/sys").join(name.replace('.', "/"));
        let kernel = version(&uname.release().to_string_lossy());
        let unified = mounts.unified();
        let user_namespace = rootless::is_inside();
        Self {
            user_systemd: user_namespace && unified && rootless::has_systemd(),
            user_namespace,
            unified,
            hostname: uname.nodename().to_string_lossy().into_owned(),
            kernel,
            capabilities,
            limits: mounts.limits(),
            processors: processors(&text("/sys/devices/system/cpu/online")).len().try_into().unwrap_or(1),
            cpus: mounts.cpuset("cpus"),
            mems: mounts.cpuset("mems"),
            apparmor: text("/sys/module/apparmor/parameters/enabled").starts_with('Y')
                && Path::new("/sys/kernel/security/apparmor").exists(),
            apparmor_default: apparmor::first_loaded(&text("/sys/kernel/security/apparmor/profiles")),
            recursive_read_only: kernel >= (5, 12),
            sysctls: SYSCTLS.iter().map(|(name, _)| *name).filter(|name| sysctl(name).exists()).collect(),
            thermal_throttle: processors(&text("/sys/devices/system/cpu/possible"))
                .into_iter()
                .map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle"))
                .filter(|path| Path::new(path).exists())
                .collect(),
            ip_forward: text("/proc/sys/net/ipv4/ip_forward").starts_with('1'),
        }
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The numbers of a list as the kernel writes it: `0-2,4`. At most 8192, the most processors Linux can have.
pub fn processors(list: &str) -> Vec<u32> {
    parse_list(list).unwrap_or_default()
}

/// Likewise; nothing if it is no such list.
pub fn parse_list(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',').filter(|_| !list.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > 8191 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Where cgroup hierarchies are mounted: the controllers of one, none for v2's.
struct Cgroups(Vec<(Vec<String>, PathBuf)>);

impl Cgroups {
    fn read(mountinfo: &str) -> Self {
        let mount = |line: &str| {
            let (fields, rest) = line.split_once(" - ")?;
            let mut rest = rest.split(' ');
            let controllers = match rest.next()? {
                "cgroup" => rest.nth(1)?.split(',').map(str::to_owned).collect(),
                "cgroup2" => Vec::new(),
                _ => return None,
            };
            Some((controllers, PathBuf::from(fields.split(' ').nth(4)?)))
        };
        Self(mountinfo.lines().filter_map(mount).collect())
    }

    fn unified(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(controllers, _)| controllers.is_empty())
    }

    fn v1(&self, controller: &str) -> Option<&Path> {
        let has =
            |(controllers, _): &&(Vec<String>, PathBuf)| controllers.iter().any(|has| has == controller);
        self.0.iter().find(has).map(|(_, path)| path.as_path())
    }

    fn limits(&self) -> Limits {
        if self.unified() {
            let controllers =
                self.0.first().and_then(|(_, path)| fs::read_to_string(path.join("cgroup.controllers")).ok());
            let controllers = controllers.unwrap_or_default();
            let has = |name: &str| controllers.split_whitespace().any(|has| has == name);
            // Files of v2 are not in the root's cgroup; where the controller is, they are.
            return Limits {
                memory: has("memory"),
                swap: has("memory"),
                cpu_shares: has("cpu"),
                cpu_cfs: has("cpu"),
                cpuset: has("cpuset"),
                pids: has("pids"),
                blkio_weight: has("io"),
                blkio_weight_device: has("io"),
                blkio_throttle: has("io"),
                ..Limits::default()
            };
        }
        let has =
            |controller: &str, file: &str| self.v1(controller).is_some_and(|dir| dir.join(file).exists());
        Limits {
            memory: has("memory", "memory.limit_in_bytes"),
            swap: has("memory", "memory.memsw.limit_in_bytes"),
            swappiness: has("memory", "memory.swappiness"),
            oom_kill_disable: has("memory", "memory.oom_control"),
            kernel_memory: has("memory", "memory.kmem.limit_in_bytes"),
            cpu_shares: has("cpu", "cpu.shares"),
            cpu_cfs: has("cpu", "cpu.cfs_quota_us"),
            cpu_realtime: has("cpu", "cpu.rt_runtime_us"),
            cpuset: self.v1("cpuset").is_some(),
            pids: self.v1("pids").is_some(),
            blkio_weight: has("blkio", "blkio.weight"),
            blkio_weight_device: has("blkio", "blkio.weight_device"),
            blkio_throttle: has("blkio", "blkio.throttle.read_bps_device"),
        }
    }

    fn cpuset(&self, what: &str) -> String {
        let file = match self.v1("cpuset") {
            Some(dir) => dir.join(format!("cpuset.{what}")),
            None => match self.0.first() {
                Some((_, dir)) => dir.join(format!("cpuset.{what}.effective")),
                None => return String::new(),
            },
        };
        fs::read_to_string(file).unwrap_or_default().trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_read() {
        let host = Host::read();
        assert!(host.kernel >= (4, 0) && host.processors >= 1 && !host.hostname.is_empty());
        assert!(host.sysctls.contains(&"net.ipv4.ip_unprivileged_port_start"));
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_list("0-2,4\n"), Some(vec![0, 1, 2, 4]));
        assert_eq!(parse_list(""), Some(vec![]));
        for bad in ["x", "1-", "3-1", "0-4294967295", ","] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
        assert_eq!(version("6.18.44-rc1"), (6, 18));
    }

    #[test]
    fn cgroups_are_unified_only_where_nothing_else_is_mounted() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let v1 = "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct";
        assert!(Cgroups::read(v2).unified());
        let hybrid = Cgroups::read(&format!("{v1}\n{v2}\n1 1 0:1 / / rw - ext4 x rw"));
        assert!(!hybrid.unified());
        assert_eq!(hybrid.v1("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu")));
        assert!(!Cgroups::read("").unified());
    }
}

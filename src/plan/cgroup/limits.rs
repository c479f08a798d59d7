//! `linux.resources` without devices: every setting as a file and a value, for v1 or v2.
//!
//! Zero means "not set" where runc takes it so (memory, shares, quota, period, weight): callers written in
//! Go send it for an absent value.

#![forbid(unsafe_code)]

use super::Write;
use crate::cgroup::layout::{Layout, Version};
use crate::error::{Error, Result};
use crate::spec;
use std::fmt;

const RESOURCES: &str = "linux.resources";

/// The writes as they are collected.
pub(super) struct Limits<'a> {
    layout: &'a Layout,
    // Whether the cgroup may be new, so that defaults need no write.
    create: bool,
    pub(super) writes: Vec<Write>,
    pub(super) warnings: Vec<String>,
}

fn bad<T>(at: &str, text: impl fmt::Display) -> Result<T> {
    Err(Error::config(format!("{RESOURCES}.{at}"), text))
}

impl<'a> Limits<'a> {
    pub(super) fn new(layout: &'a Layout, create: bool) -> Self {
        Self { layout, create, writes: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn add(&mut self, resources: &spec::Resources) -> Result<()> {
        if let Some(cpu) = &resources.cpu {
            self.cpu(cpu)?;
            self.realtime(cpu)?;
            self.cpuset(cpu)?;
        }
        if let Some(memory) = &resources.memory {
            self.memory(memory)?;
        }
        if let Some(pids) = &resources.pids {
            self.pids(pids)?;
        }
        if let Some(io) = &resources.block_io {
            self.weights(io)?;
            self.throttles(io)?;
        }
        self.hugepages(&resources.hugepage_limits)?;
        self.rdma(&resources.rdma)?;
        if let Some(network) = &resources.network {
            self.network(network)?;
        }
        self.unified(&resources.unified)
    }

    /// The version of the hierarchy with this controller.
    fn version(&self, controller: &str, at: &str) -> Result<Version> {
        match self.layout.find(controller) {
            Some(hierarchy) => Ok(hierarchy.version),
            None => bad(at, format!("cgroup controller {controller:?} is not available on this machine")),
        }
    }

    fn write(&mut self, controller: &str, file: &str, value: impl fmt::Display, at: &str) -> &mut Write {
        let write = Write {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            otherwise: None,
            at: format!("{RESOURCES}.{at}"),
            default: false,
            optional: false,
            keeps_first: false,
            above_usage: None,
        };
        let i = self.writes.len();
        self.writes.push(write);
        &mut self.writes[i]
    }

    fn cpu(&mut self, cpu: &spec::Cpu) -> Result<()> {
        let shares = cpu.shares.filter(|&n| n != 0);
        // Any negative one is none, to the kernel and so to runc, crun and youki.
        let quota = cpu.quota.filter(|&n| n != 0).map(|n| n.max(-1));
        let period = cpu.period.filter(|&n| n != 0);
        let first = [
            shares.map(|_| "cpu.shares"),
            quota.map(|_| "cpu.quota"),
            period.map(|_| "cpu.period"),
            cpu.burst.map(|_| "cpu.burst"),
            cpu.idle.map(|_| "cpu.idle"),
        ];
        let Some(at) = first.into_iter().flatten().next() else {
            return Ok(());
        };
        if let (Some(burst), Some(quota)) = (cpu.burst, quota.and_then(|quota| u64::try_from(quota).ok()))
            && burst > quota
        {
            return bad("cpu.burst", format!("{burst} is larger than the quota {quota}"));
        }
        if let Some(idle) = cpu.idle.filter(|idle| !matches!(idle, 0 | 1)) {
            return bad("cpu.idle", format!("{idle} is neither 0 nor 1"));
        }
        match self.version("cpu", at)? {
            Version::V1 => self.cpu_v1(shares, quota, period, cpu),
            Version::V2 => {
                self.cpu_v2(shares, quota, period, cpu);
                Ok(())
            }
        }
    }

    fn cpu_v1(
        &mut self,
        shares: Option<u64>,
        quota: Option<i64>,
        period: Option<u64>,
        cpu: &spec::Cpu,
    ) -> Result<()> {
        if let Some(shares) = shares {
            // The kernel would take the nearest allowed value without a word.
            match shares {
                ..2 => return bad("cpu.shares", "the minimum allowed cpu-shares is 2"),
                262_145.. => return bad("cpu.shares", "the maximum allowed cpu-shares is 262144"),
                _ => {}
            }
            self.write("cpu", "cpu.shares", shares, "cpu.shares").default = shares == 1024;
        }
        if let Some(period) = period {
            self.write("cpu", "cpu.cfs_period_us", period, "cpu.period").default = period == 100_000;
        }
        if let Some(quota) = quota {
            self.write("cpu", "cpu.cfs_quota_us", quota, "cpu.quota").default = quota == -1;
        }
        self.burst_and_idle("cpu.cfs_burst_us", cpu);
        Ok(())
    }

    fn cpu_v2(&mut self, shares: Option<u64>, quota: Option<i64>, period: Option<u64>, cpu: &spec::Cpu) {
        if let Some(shares) = shares {
            self.write("cpu", "cpu.weight", weight_of_shares(shares), "cpu.shares").default = shares == 1024;
        }
        let quota_text = |quota: i64| if quota < 0 { "max".to_owned() } else { quota.to_string() };
        match (quota, period) {
            // A first word alone keeps the period.
            (Some(quota), None) => {
                self.write("cpu", "cpu.max", quota_text(quota), "cpu.quota").default = quota == -1;
            }
            (Some(quota), Some(period)) => {
                let value = format!("{} {period}", quota_text(quota));
                self.write("cpu", "cpu.max", value, "cpu.quota").default = quota == -1 && period == 100_000;
            }
            (None, Some(period)) => {
                let write = self.write("cpu", "cpu.max", period, "cpu.period");
                write.keeps_first = true;
                write.default = period == 100_000;
            }
            (None, None) => {}
        }
        self.burst_and_idle("cpu.max.burst", cpu);
    }

    fn burst_and_idle(&mut self, burst_file: &str, cpu: &spec::Cpu) {
        if let Some(burst) = cpu.burst {
            let write = self.write("cpu", burst_file, burst, "cpu.burst");
            // Since 5.14; without the file there is no burst, which is what 0 asks for.
            (write.default, write.optional) = (burst == 0, burst == 0);
        }
        if let Some(idle) = cpu.idle {
            let write = self.write("cpu", "cpu.idle", idle, "cpu.idle");
            // Since 5.15.
            (write.default, write.optional) = (idle == 0, idle == 0);
        }
    }

    fn realtime(&mut self, cpu: &spec::Cpu) -> Result<()> {
        let settings = [
            (
                "cpu.rt_period_us",
                "cpu.realtimePeriod",
                cpu.realtime_period.filter(|&n| n != 0).map(|n| n.to_string()),
            ),
            (
                "cpu.rt_runtime_us",
                "cpu.realtimeRuntime",
                cpu.realtime_runtime.filter(|&n| n != 0).map(|n| n.to_string()),
            ),
        ];
        for (file, at, value) in settings {
            let Some(value) = value else { continue };
            match self.version("cpu", at)? {
                Version::V1 => drop(self.write("cpu", file, value, at)),
                Version::V2 => return bad(at, "cgroup v2 cannot limit realtime scheduling"),
            }
        }
        Ok(())
    }

    fn cpuset(&mut self, cpu: &spec::Cpu) -> Result<()> {
        for (file, at, value) in
            [("cpuset.cpus", "cpu.cpus", &cpu.cpus), ("cpuset.mems", "cpu.mems", &cpu.mems)]
        {
            if value.is_empty() {
                continue;
            }
            if !is_list(value) {
                return bad(at, format!("{value:?} is not a list such as \"0-3,7\""));
            }
            self.version("cpuset", at)?;
            self.write("cpuset", file, value, at);
        }
        Ok(())
    }

    fn memory(&mut self, memory: &spec::Memory) -> Result<()> {
        if memory.kernel.is_some() {
            let text = "kernel memory limits are ignored: the kernel has none since 5.16";
            self.warnings.push(format!("{RESOURCES}.memory.kernel: {text}"));
        }
        for (at, value) in [
            ("memory.limit", memory.limit),
            ("memory.swap", memory.swap),
            ("memory.reservation", memory.reservation),
            ("memory.kernelTCP", memory.kernel_tcp),
        ] {
            if let Some(value) = value.filter(|&value| value < -1) {
                return bad(at, format!("{value} is neither a number of bytes nor -1"));
            }
        }
        let set = |value: Option<i64>| value.filter(|&value| value != 0);
        let (limit, swap, reservation) = (set(memory.limit), set(memory.swap), set(memory.reservation));
        let tcp = set(memory.kernel_tcp);
        if let (Some(limit @ 1..), Some(swap @ 1..)) = (limit, swap)
            && swap < limit
        {
            return bad("memory.swap", "memory+swap limit should be >= memory limit")
                .map_err(|e: Error| e.remedy("swap is the limit of memory and swap together"));
        }
        // moby's "not set" is -1, which arrives here as the largest u64.
        let swappiness = memory.swappiness.filter(|&n| n != u64::MAX);
        if let Some(n) = swappiness.filter(|&n| n > 100) {
            return bad(
                "memory.swappiness",
                format!("invalid memory swappiness value: {n} (valid range is 0-100)"),
            );
        }
        let oom = memory.disable_oom_killer.filter(|&off| off || !self.create);
        let first = [
            limit.map(|_| "memory.limit"),
            swap.map(|_| "memory.swap"),
            reservation.map(|_| "memory.reservation"),
            tcp.map(|_| "memory.kernelTCP"),
            swappiness.map(|_| "memory.swappiness"),
            oom.map(|_| "memory.disableOOMKiller"),
        ];
        let Some(at) = first.into_iter().flatten().next() else {
            return Ok(());
        };
        match self.version("memory", at)? {
            Version::V1 => {
                self.memory_v1(limit, swap, reservation);
                if let Some(bytes) = tcp {
                    let write =
                        self.write("memory", "memory.kmem.tcp.limit_in_bytes", bytes, "memory.kernelTCP");
                    write.default = bytes == -1;
                }
                if let Some(n) = swappiness {
                    self.write("memory", "memory.swappiness", n, "memory.swappiness");
                }
                if let Some(off) = oom {
                    self.write("memory", "memory.oom_control", u8::from(off), "memory.disableOOMKiller");
                }
                Ok(())
            }
            Version::V2 if swappiness.is_some() => bad("memory.swappiness", "cgroup v2 has no swappiness"),
            Version::V2 if oom == Some(true) => {
                bad("memory.disableOOMKiller", "cannot disable OOM killer with cgroupv2")
            }
            Version::V2 => {
                if tcp.is_some() {
                    let text = "ignored: cgroup v2 counts the buffers of sockets in memory.limit";
                    self.warnings.push(format!("{RESOURCES}.memory.kernelTCP: {text}"));
                }
                self.memory_v2(limit, swap, reservation, memory.check_before_update == Some(true))
            }
        }
    }

    // Of limit and memory+swap, the kernel refuses (EINVAL) whichever contradicts the other's old value; the
    // executor writes such a one again after the rest, so no order needs to be found here.
    fn memory_v1(&mut self, limit: Option<i64>, swap: Option<i64>, reservation: Option<i64>) {
        if let Some(limit) = limit {
            self.write("memory", "memory.limit_in_bytes", limit, "memory.limit").default = limit == -1;
        }
        let implied = limit == Some(-1) && swap.is_none();
        if let Some(swap) = swap.or_else(|| implied.then_some(-1)) {
            let write = self.write("memory", "memory.memsw.limit_in_bytes", swap, "memory.swap");
            // The file is absent where swap is not accounted.
            (write.default, write.optional) = (swap == -1, swap == -1);
        }
        if let Some(bytes) = reservation {
            let write = self.write("memory", "memory.soft_limit_in_bytes", bytes, "memory.reservation");
            write.default = bytes == -1;
        }
    }

    fn memory_v2(
        &mut self,
        limit: Option<i64>,
        swap: Option<i64>,
        reservation: Option<i64>,
        check: bool,
    ) -> Result<()> {
        let max = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
        let above = |what, bytes: Option<i64>| {
            bytes.filter(|_| check).and_then(|bytes| u64::try_from(bytes).ok()).map(|bytes| (what, bytes))
        };
        // v1 counts memory and swap together, v2 swap alone.
        let swap_only = match (limit, swap) {
            (Some(-1), None) => Some(-1),
            (_, None) => None,
            (_, Some(-1)) => Some(-1),
            (Some(-1), Some(swap)) => Some(swap),
            (Some(limit), Some(swap)) => Some(swap - limit),
            (None, Some(_)) => return bad("memory.swap", "unable to set swap limit without memory limit"),
        };
        if let Some(bytes) = swap_only {
            let write = self.write("memory", "memory.swap.max", max(bytes), "memory.swap");
            (write.default, write.optional) = (bytes == -1, bytes <= 0);
            write.above_usage = above("memory+swap", swap);
        }
        if let Some(limit) = limit {
            let write = self.write("memory", "memory.max", max(limit), "memory.limit");
            write.default = limit == -1;
            write.above_usage = above("memory", Some(limit));
        }
        if let Some(bytes) = reservation {
            self.write("memory", "memory.low", max(bytes), "memory.reservation");
        }
        Ok(())
    }

    fn pids(&mut self, pids: &spec::Pids) -> Result<()> {
        let value = match pids.limit {
            None => return Ok(()),
            Some(-1) => "max".to_owned(),
            // Joining is allowed above the limit and forking is not, so 0 and 1 are the same for the kernel;
            // 1 is what systemd can express, and what runc writes.
            Some(0) => "1".to_owned(),
            Some(limit @ 1..) => limit.to_string(),
            Some(limit) => return bad("pids.limit", format!("{limit} is neither a number of tasks nor -1")),
        };
        self.version("pids", "pids.limit")?;
        self.write("pids", "pids.max", &value, "pids.limit").default = value == "max";
        Ok(())
    }

    /// The version of the block I/O controller, and its name there.
    fn io(&self, at: &str) -> Result<(Version, &'static str)> {
        match self.layout.find("io") {
            Some(_) => Ok((Version::V2, "io")),
            None => Ok((self.version("blkio", at)?, "blkio")),
        }
    }

    fn weights(&mut self, io: &spec::BlockIo) -> Result<()> {
        let check = |weight: Option<u16>, at: &str| match weight.filter(|&weight| weight != 0) {
            Some(weight @ (..=9 | 1001..)) => bad(at, format!("{weight} is not between 10 and 1000")),
            weight => Ok(weight),
        };
        if let Some(weight) = check(io.weight, "blockIO.weight")? {
            match self.io("blockIO.weight")? {
                (Version::V1, name) => {
                    self.write(name, "blkio.weight", weight, "blockIO.weight").otherwise =
                        Some(("blkio.bfq.weight".into(), weight.to_string()));
                }
                (Version::V2, name) => {
                    self.write(name, "io.bfq.weight", weight, "blockIO.weight").otherwise =
                        Some(("io.weight".into(), weight_of_blkio(weight).to_string()));
                }
            }
        }
        self.leaf_weight(check(io.leaf_weight, "blockIO.leafWeight")?, "", "blockIO.leafWeight")?;
        for (i, device) in io.weight_device.iter().enumerate() {
            let at = format!("blockIO.weightDevice[{i}]");
            if device.weight.or(device.leaf_weight).is_none() {
                return bad(&at, "at least one of weight and leafWeight is needed");
            }
            let numbers = numbers(device.major, device.minor, &at)?;
            if let Some(weight) = check(device.weight, &format!("{at}.weight"))? {
                let value = format!("{numbers} {weight}");
                match self.io(&at)? {
                    (Version::V1, name) => {
                        self.write(name, "blkio.weight_device", &value, &at).otherwise =
                            Some(("blkio.bfq.weight_device".into(), value.clone()));
                    }
                    (Version::V2, name) => {
                        let converted = format!("{numbers} {}", weight_of_blkio(weight));
                        self.write(name, "io.bfq.weight", value, &at).otherwise =
                            Some(("io.weight".into(), converted));
                    }
                }
            }
            let leaf = check(device.leaf_weight, &format!("{at}.leafWeight"))?;
            self.leaf_weight(leaf, &format!("{numbers} "), &format!("{at}.leafWeight"))?;
        }
        Ok(())
    }

    fn leaf_weight(&mut self, weight: Option<u16>, numbers: &str, at: &str) -> Result<()> {
        let Some(weight) = weight else { return Ok(()) };
        let file = if numbers.is_empty() { "blkio.leaf_weight" } else { "blkio.leaf_weight_device" };
        match self.io(at)? {
            (Version::V1, name) => drop(self.write(name, file, format!("{numbers}{weight}"), at)),
            (Version::V2, _) => return bad(at, "cgroup v2 has no leaf weight"),
        }
        Ok(())
    }

    fn throttles(&mut self, io: &spec::BlockIo) -> Result<()> {
        let lists = [
            (&io.throttle_read_bps_device, "throttleReadBpsDevice", "read_bps", "rbps"),
            (&io.throttle_write_bps_device, "throttleWriteBpsDevice", "write_bps", "wbps"),
            (&io.throttle_read_iops_device, "throttleReadIOPSDevice", "read_iops", "riops"),
            (&io.throttle_write_iops_device, "throttleWriteIOPSDevice", "write_iops", "wiops"),
        ];
        for (list, key, v1, v2) in lists {
            for (i, device) in list.iter().enumerate() {
                let at = format!("blockIO.{key}[{i}]");
                let numbers = numbers(device.major, device.minor, &at)?;
                let rate = device.rate;
                match self.io(&at)? {
                    (Version::V1, name) => {
                        self.write(
                            name,
                            &format!("blkio.throttle.{v1}_device"),
                            format!("{numbers} {rate}"),
                            &at,
                        );
                    }
                    (Version::V2, name) => {
                        // 0 removes a limit in v1; v2 refuses it.
                        let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
                        self.write(name, "io.max", format!("{numbers} {v2}={rate}"), &at);
                    }
                }
            }
        }
        Ok(())
    }

    fn hugepages(&mut self, limits: &[spec::HugepageLimit]) -> Result<()> {
        for (i, limit) in limits.iter().enumerate() {
            let at = format!("hugepageLimits[{i}]");
            let size = &limit.page_size;
            // Part of a file name (runc #4103).
            let digits = size.trim_end_matches("KB").trim_end_matches("MB").trim_end_matches("GB");
            if digits.is_empty()
                || digits.len() + 2 != size.len()
                || !digits.bytes().all(|b| b.is_ascii_digit())
            {
                let text = format!("{size:?} is not a page size such as \"64KB\", \"2MB\" or \"1GB\"");
                return bad(&format!("{at}.pageSize"), text);
            }
            let suffix = match self.version("hugetlb", &at)? {
                Version::V1 => "limit_in_bytes",
                Version::V2 => "max",
            };
            self.write("hugetlb", &format!("hugetlb.{size}.{suffix}"), limit.limit, &at);
            // Limits at reservation spare the container a SIGBUS at the fault; since 5.7.
            self.write("hugetlb", &format!("hugetlb.{size}.rsvd.{suffix}"), limit.limit, &at).optional = true;
        }
        Ok(())
    }

    fn rdma(&mut self, devices: &std::collections::BTreeMap<String, spec::Rdma>) -> Result<()> {
        for (device, limit) in devices {
            let at = format!("rdma.{device:?}");
            if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c == '/') {
                return bad(&at, "not the name of a device");
            }
            let mut value = device.clone();
            for (key, n) in [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)] {
                if let Some(n) = n {
                    value.push_str(&format!(" {key}={n}"));
                }
            }
            if value.len() == device.len() {
                return bad(&at, "at least one of hcaHandles and hcaObjects is needed");
            }
            self.version("rdma", &at)?;
            self.write("rdma", "rdma.max", value, &at);
        }
        Ok(())
    }

    fn network(&mut self, network: &spec::Network) -> Result<()> {
        if let Some(id) = network.class_id.filter(|&id| id != 0) {
            self.version("net_cls", "network.classID")?;
            self.write("net_cls", "net_cls.classid", id, "network.classID");
        }
        for (i, entry) in network.priorities.iter().enumerate() {
            let at = format!("network.priorities[{i}]");
            if entry.name.is_empty() || entry.name.contains(|c: char| c.is_whitespace() || c == '/') {
                return bad(
                    &format!("{at}.name"),
                    format!("{:?} is not the name of an interface", entry.name),
                );
            }
            self.version("net_prio", &at)?;
            self.write("net_prio", "net_prio.ifpriomap", format!("{} {}", entry.name, entry.priority), &at);
        }
        Ok(())
    }

    fn unified(&mut self, files: &std::collections::BTreeMap<String, String>) -> Result<()> {
        for (file, value) in files {
            let at = format!("unified.{file:?}");
            if file.contains('/') {
                return bad(&at, format!("unified resource {file:?} must be a file name (no slashes)"));
            }
            let Some((controller, _)) = file.split_once('.') else {
                return bad(
                    &at,
                    format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER"),
                );
            };
            let v2 = self.layout.hierarchies.iter().find(|h| h.version == Version::V2);
            let held = v2.is_some_and(|h| h.controllers.iter().any(|name| name == controller));
            if !held && !self.layout.is_v2() {
                return bad(&at, "invalid configuration: cannot use unified on cgroup v1");
            }
            if !held && controller != "cgroup" {
                let text = format!(
                    "unified resource {file:?} can't be set: controller {controller:?} not available"
                );
                return bad(&at, text);
            }
            // cgroup.* files are in every v2 cgroup: any controller leads to it.
            let controller = match (held, v2.and_then(|h| h.controllers.first())) {
                (false, Some(any)) => any.clone(),
                _ => controller.to_owned(),
            };
            self.write(&controller, file, value, &at);
        }
        Ok(())
    }
}

fn numbers(major: i64, minor: i64, at: &str) -> Result<String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => bad(at, format!("{major}:{minor} is not a device number")),
    }
}

/// Digits, `-` and `,` as cpuset(7) lists are; what the numbers mean is the kernel's to judge.
fn is_list(text: &str) -> bool {
    text.split(',').all(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        // "0-31:2/4" strides and surrounding blanks are the kernel's too.
        let (to, stride) = to.split_once(':').unwrap_or((to, "1/1"));
        let (used, of) = stride.split_once('/').unwrap_or(("", ""));
        [from, to, used, of]
            .iter()
            .all(|n| !n.trim().is_empty() && n.trim().bytes().all(|b| b.is_ascii_digit()))
    })
}

/// cpu.weight (1 to 10000) of cpu.shares (2 to 262144): the quadratic in log2 through (2, 1), (1024, 100) and
/// (262144, 10000) that every runtime uses.
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            // Exact enough for integers of 18 bits.
            #[allow(clippy::cast_precision_loss)]
            let l = (shares as f64).log2();
            let weight = 10f64.powf(l * (l + 125.0) / 612.0 - 7.0 / 34.0).ceil();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let weight = weight as u64;
            weight
        }
    }
}

/// io.weight (1 to 10000) of blkio.weight (10 to 1000), linear.
fn weight_of_blkio(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::super::tests::{plan, v1, v2};
    use super::*;
    use crate::spec::read::document;

    fn writes(resources: &str, layout: &Layout) -> Vec<String> {
        let plan = plan(&format!("{{\"resources\":{resources}}}"), layout).expect("accepted");
        plan.limits.iter().map(|write| format!("{}={}", write.file, write.value)).collect()
    }

    fn refused(resources: &str, layout: &Layout) -> String {
        plan(&format!("{{\"resources\":{resources}}}"), layout).expect_err(resources).to_string()
    }

    #[test]
    fn cpu() {
        let json = r#"{"cpu":{"shares":512,"quota":5000,"period":10000,"burst":1000,"idle":1,"cpus":"0-1","mems":"0"}}"#;
        assert_eq!(
            writes(json, &v1()),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=10000",
                "cpu.cfs_quota_us=5000",
                "cpu.cfs_burst_us=1000",
                "cpu.idle=1",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
            ]
        );
        assert_eq!(
            writes(json, &v2()),
            [
                "cpu.weight=59",
                "cpu.max=5000 10000",
                "cpu.max.burst=1000",
                "cpu.idle=1",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
            ]
        );
        let rt = r#"{"cpu":{"realtimeRuntime":1000,"realtimePeriod":5000}}"#;
        assert_eq!(writes(rt, &v1()), ["cpu.rt_period_us=5000", "cpu.rt_runtime_us=1000"]);
        let none = r#"{"cpu":{"quota":-9999}}"#;
        assert_eq!(
            (writes(none, &v1()), writes(none, &v2())),
            (vec!["cpu.cfs_quota_us=-1".to_owned()], vec!["cpu.max=max".into()])
        );
        assert!(refused(rt, &v2()).contains("cpu.realtimePeriod: cgroup v2 cannot"));
    }

    #[test]
    fn shares_become_weights() {
        for (shares, weight) in [(1, 1), (2, 1), (100, 17), (512, 59), (1024, 100), (262_144, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert_eq!((weight_of_blkio(10), weight_of_blkio(1000)), (1, 10_000));
    }

    #[test]
    fn zero_is_unset_as_go_callers_send_it() {
        let json = r#"{"cpu":{"shares":0,"quota":0,"period":0,"realtimeRuntime":0,"realtimePeriod":0,"cpus":""},
            "memory":{"limit":0,"swap":0,"reservation":0,"kernelTCP":0,"swappiness":18446744073709551615},
            "blockIO":{"weight":0,"leafWeight":0},"network":{"classID":0,"priorities":null},"pids":{}}"#;
        assert!(writes(json, &v1()).is_empty());
        assert!(writes(json, &v2()).is_empty());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (json, text) in [
            (r#"{"cpu":{"shares":1}}"#, "cpu.shares: the minimum allowed cpu-shares is 2"),
            (r#"{"cpu":{"shares":262145}}"#, "cpu.shares: the maximum allowed cpu-shares is 262144"),
            (r#"{"cpu":{"quota":1000,"burst":1001}}"#, "cpu.burst: 1001 is larger"),
            (r#"{"cpu":{"idle":2}}"#, "cpu.idle: 2"),
            (r#"{"cpu":{"cpus":"0-"}}"#, "cpu.cpus: \"0-\""),
            (r#"{"cpu":{"mems":"a"}}"#, "cpu.mems: \"a\""),
            (r#"{"memory":{"limit":-2}}"#, "memory.limit: -2"),
            (r#"{"memory":{"limit":4096,"swap":4095}}"#, "memory.swap: memory+swap limit should be >="),
            (r#"{"memory":{"swappiness":101}}"#, "memory.swappiness: invalid memory swappiness value: 101"),
            (r#"{"pids":{"limit":-2}}"#, "pids.limit: -2"),
            (r#"{"blockIO":{"weight":9}}"#, "blockIO.weight: 9"),
            (r#"{"blockIO":{"weight":1001}}"#, "blockIO.weight: 1001"),
            (r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0}]}}"#, "blockIO.weightDevice[0]: at least"),
            (r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":1}]}}"#, "Device[0]: -1:0"),
            (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "hugepageLimits[0].pageSize: \"../x\""),
            (r#"{"hugepageLimits":[{"pageSize":"MB","limit":1}]}"#, "hugepageLimits[0].pageSize: \"MB\""),
            (r#"{"rdma":{"a/b":{"hcaHandles":1}}}"#, "rdma.\"a/b\": not the name"),
            (r#"{"rdma":{"mlx":{}}}"#, "rdma.\"mlx\": at least one"),
            (r#"{"network":{"priorities":[{"name":"a b","priority":1}]}}"#, "priorities[0].name: \"a b\""),
            (r#"{"unified":{"../x":"1"}}"#, "must be a file name (no slashes)"),
            (r#"{"unified":{"foo":"1"}}"#, "must be in the form CONTROLLER.PARAMETER"),
            (r#"{"unified":{"memory.min":"1"}}"#, "invalid configuration: cannot use unified on cgroup v1"),
        ] {
            let e = refused(json, &v1());
            assert!(e.starts_with("config.json: linux.resources.") && e.contains(text), "{e}");
        }
    }

    #[test]
    fn an_absent_controller_is_an_error() {
        for json in [
            r#"{"network":{"classID":1}}"#,
            r#"{"network":{"priorities":[{"name":"lo","priority":1}]}}"#,
            r#"{"rdma":{"mlx":{"hcaHandles":1}}}"#,
        ] {
            assert!(refused(json, &v1()).contains("is not available on this machine"), "{json}");
        }
        assert!(refused(r#"{"unified":{"foo.x":"1"}}"#, &v2()).contains("controller \"foo\" not available"));
    }

    #[test]
    fn memory() {
        let json = r#"{"memory":{"limit":100,"swap":150,"reservation":50,"swappiness":7,"disableOOMKiller":true,"kernel":1,
            "kernelTCP":30}}"#;
        assert_eq!(
            writes(json, &v1()),
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=150",
                "memory.soft_limit_in_bytes=50",
                "memory.kmem.tcp.limit_in_bytes=30",
                "memory.swappiness=7",
                "memory.oom_control=1",
            ]
        );
        assert!(refused(json, &v2()).contains("memory.swappiness: cgroup v2 has no"));
        assert!(refused(r#"{"memory":{"disableOOMKiller":true}}"#, &v2()).contains("with cgroupv2"));
        let v2_json = r#"{"memory":{"limit":100,"swap":150,"reservation":50,"disableOOMKiller":false,
            "kernelTCP":30}}"#;
        assert_eq!(writes(v2_json, &v2()), ["memory.swap.max=50", "memory.max=100", "memory.low=50"]);
        assert_eq!(writes(r#"{"memory":{"limit":-1}}"#, &v2()), ["memory.swap.max=max", "memory.max=max"]);
        let equal = r#"{"memory":{"limit":100,"swap":100}}"#;
        assert_eq!(writes(equal, &v2()), ["memory.swap.max=0", "memory.max=100"]);
        assert!(refused(r#"{"memory":{"swap":100}}"#, &v2()).contains("without memory limit"));
    }

    #[test]
    fn pids_zero_is_a_limit() {
        assert_eq!(writes(r#"{"pids":{"limit":0}}"#, &v1()), ["pids.max=1"]);
        assert_eq!(writes(r#"{"pids":{"limit":-1}}"#, &v2()), ["pids.max=max"]);
    }

    #[test]
    fn block_io() {
        let json = r#"{"blockIO":{"weight":10,"weightDevice":[{"major":8,"minor":0,"weight":1000}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],
            "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#;
        assert_eq!(
            writes(json, &v1()),
            [
                "blkio.weight=10",
                "blkio.weight_device=8:0 1000",
                "blkio.throttle.read_bps_device=8:0 600",
                "blkio.throttle.write_iops_device=8:16 0",
            ]
        );
        assert_eq!(
            writes(json, &v2()),
            ["io.bfq.weight=10", "io.bfq.weight=8:0 1000", "io.max=8:0 rbps=600", "io.max=8:16 wiops=max",]
        );
        let plan = plan(&format!("{{\"resources\":{json}}}"), &v2()).expect("accepted");
        assert_eq!(plan.limits[0].otherwise, Some(("io.weight".into(), "1".into())));
        assert!(refused(r#"{"blockIO":{"leafWeight":10}}"#, &v2()).contains("no leaf weight"));
    }

    #[test]
    fn hugepages_rdma_and_unified() {
        let huge = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4096}]}"#;
        assert_eq!(writes(huge, &v1()), ["hugetlb.2MB.max=4096", "hugetlb.2MB.rsvd.max=4096"]);
        let rdma = r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10}}}"#;
        assert_eq!(writes(rdma, &v2()), ["rdma.max=mlx5_1 hca_handle=3 hca_object=10"]);
        let unified = r#"{"unified":{"memory.min":"1","cgroup.max.depth":"3"}}"#;
        assert_eq!(writes(unified, &v2()), ["cgroup.max.depth=3", "memory.min=1"]);
        assert_eq!(writes(r#"{"unified":{"hugetlb.1GB.max":"0"}}"#, &v1()), ["hugetlb.1GB.max=0"]);
    }

    #[test]
    fn update_changes_only_what_is_given() {
        let resources: spec::Resources =
            document(br#"{"cpu":{"period":50000},"memory":{"limit":-1}}"#).expect("valid JSON");
        let writes = super::super::update(&resources, &v2()).expect("accepted");
        let files: Vec<_> = writes.iter().map(|w| (w.file.as_str(), w.keeps_first)).collect();
        assert_eq!(files, [("cpu.max", true), ("memory.swap.max", false), ("memory.max", false)]);
    }
}

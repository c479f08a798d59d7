//! What a container uses, in the JSON that `runc events` prints and containerd, cAdvisor and others parse:
//! the names and units of cgroup v1, for v2 as well.

#![forbid(unsafe_code)]

use super::Cgroup;
use super::dir::{Dir, is_gone};
use super::layout::Version;
use crate::error::{Error, Result};
use crate::spec::write::writes;
use std::collections::BTreeMap;

/// The `data` of an event of type `stats`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// CPU time.
    pub cpu: Cpu,
    /// CPUs and memory nodes; v1 only.
    pub cpuset: Cpuset,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block I/O.
    pub blkio: Blkio,
    /// Huge pages, by size.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Resource Director Technology; filled in by whoever knows of it.
    pub intel_rdt: BTreeMap<String, serde_json::Value>,
    /// Network interfaces: none, as runtimes do not make any.
    pub network_interfaces: Vec<String>,
}
writes!(Stats {
    cpu = "cpu",
    cpuset = "cpuset",
    memory = "memory",
    pids = "pids",
    blkio = "blkio",
    hugetlb = "hugetlb",
    intel_rdt = "intel_rdt",
    network_interfaces = "network_interfaces",
});

/// `cpu`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    /// Time used.
    pub usage: Option<CpuUsage>,
    /// Time denied.
    pub throttling: Option<Throttling>,
    /// Pressure; v2 only.
    pub psi: Option<Psi>,
}
writes!(Cpu { usage = "usage", throttling = "throttling", psi = "psi" });

/// Nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuUsage {
    /// Sum.
    pub total: Option<u64>,
    /// By CPU.
    pub percpu: Option<Vec<u64>>,
    /// By CPU, in the kernel.
    pub percpu_kernel: Option<Vec<u64>>,
    /// By CPU, in user mode.
    pub percpu_user: Option<Vec<u64>>,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}
writes!(CpuUsage {
    total = "total",
    percpu = "percpu",
    percpu_kernel = "percpu_kernel",
    percpu_user = "percpu_user",
    kernel = "kernel",
    user = "user",
});

/// Effects of the quota.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Throttling {
    /// Periods begun.
    pub periods: Option<u64>,
    /// Periods in which the quota was used up.
    pub throttled_periods: Option<u64>,
    /// Nanoseconds.
    pub throttled_time: Option<u64>,
}
writes!(Throttling {
    periods = "periods",
    throttled_periods = "throttledPeriods",
    throttled_time = "throttledTime",
});

/// Pressure stall information.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Psi {
    /// Some tasks stalled.
    pub some: Option<Pressure>,
    /// All tasks stalled.
    pub full: Option<Pressure>,
}
writes!(Psi { some = "some", full = "full" });

/// One line of a pressure file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pressure {
    /// Percent in the last 10 seconds.
    pub avg10: f64,
    /// Percent in the last 60 seconds.
    pub avg60: f64,
    /// Percent in the last 300 seconds.
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}
writes!(Pressure { avg10 = "avg10", avg60 = "avg60", avg300 = "avg300", total = "total" });

/// The files of a v1 cpuset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpuset {
    /// CPUs.
    pub cpus: Option<Vec<u16>>,
    /// `cpuset.cpu_exclusive`
    pub cpu_exclusive: u64,
    /// Memory nodes.
    pub mems: Option<Vec<u16>>,
    /// `cpuset.mem_hardwall`
    pub mem_hardwall: u64,
    /// `cpuset.mem_exclusive`
    pub mem_exclusive: u64,
    /// `cpuset.memory_migrate`
    pub memory_migrate: u64,
    /// `cpuset.memory_spread_page`
    pub memory_spread_page: u64,
    /// `cpuset.memory_spread_slab`
    pub memory_spread_slab: u64,
    /// `cpuset.memory_pressure`
    pub memory_pressure: u64,
    /// `cpuset.sched_load_balance`
    pub sched_load_balance: u64,
    /// `cpuset.sched_relax_domain_level`
    pub sched_relax_domain_level: i64,
}
writes!(Cpuset {
    cpus = "cpus",
    cpu_exclusive = "cpu_exclusive",
    mems = "mems",
    mem_hardwall = "mem_hardwall",
    mem_exclusive = "mem_exclusive",
    memory_migrate = "memory_migrate",
    memory_spread_page = "memory_spread_page",
    memory_spread_slab = "memory_spread_slab",
    memory_pressure = "memory_pressure",
    sched_load_balance = "sched_load_balance",
    sched_relax_domain_level = "sched_relax_domain_level",
});

/// `memory`, in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Page cache.
    pub cache: Option<u64>,
    /// Memory.
    pub usage: Option<MemoryEntry>,
    /// Memory and swap together.
    pub swap: Option<MemoryEntry>,
    /// Kernel memory.
    pub kernel: Option<MemoryEntry>,
    /// TCP buffers.
    pub kernel_tcp: Option<MemoryEntry>,
    /// `memory.stat`
    pub raw: Option<BTreeMap<String, u64>>,
    /// Pressure; v2 only.
    pub psi: Option<Psi>,
}
writes!(Memory {
    cache = "cache",
    usage = "usage",
    swap = "swap",
    kernel = "kernel",
    kernel_tcp = "kernelTCP",
    raw = "raw",
    psi = "psi",
});

/// One counter of the memory controller.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryEntry {
    /// Limit.
    pub limit: u64,
    /// In use.
    pub usage: Option<u64>,
    /// Most ever in use.
    pub max: Option<u64>,
    /// How often the limit was hit.
    pub failcnt: u64,
}
writes!(MemoryEntry { limit = "limit", usage = "usage", max = "max", failcnt = "failcnt" });

/// `pids`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pids {
    /// Tasks.
    pub current: Option<u64>,
    /// Limit; absent if there is none.
    pub limit: Option<u64>,
}
writes!(Pids { current = "current", limit = "limit" });

/// `blkio`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Blkio {
    /// Bytes.
    pub io_service_bytes: Option<Vec<BlkioEntry>>,
    /// Operations.
    pub io_serviced: Option<Vec<BlkioEntry>>,
    /// Queued operations.
    pub io_queued: Option<Vec<BlkioEntry>>,
    /// Nanoseconds in the device.
    pub io_service_time: Option<Vec<BlkioEntry>>,
    /// Nanoseconds in the queues.
    pub io_wait_time: Option<Vec<BlkioEntry>>,
    /// Merged operations.
    pub io_merged: Option<Vec<BlkioEntry>>,
    /// Milliseconds of the disk.
    pub io_time: Option<Vec<BlkioEntry>>,
    /// Sectors.
    pub sectors: Option<Vec<BlkioEntry>>,
    /// Pressure; v2 only.
    pub psi: Option<Psi>,
}
writes!(Blkio {
    io_service_bytes = "ioServiceBytesRecursive",
    io_serviced = "ioServicedRecursive",
    io_queued = "ioQueueRecursive",
    io_service_time = "ioServiceTimeRecursive",
    io_wait_time = "ioWaitTimeRecursive",
    io_merged = "ioMergedRecursive",
    io_time = "ioTimeRecursive",
    sectors = "sectorsRecursive",
    psi = "psi",
});

/// One counter of a block device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlkioEntry {
    /// Major number.
    pub major: Option<u64>,
    /// Minor number.
    pub minor: Option<u64>,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard` or `Total`.
    pub op: Option<String>,
    /// Value.
    pub value: Option<u64>,
}
writes!(BlkioEntry { major = "major", minor = "minor", op = "op", value = "value" });

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hugetlb {
    /// In use.
    pub usage: Option<u64>,
    /// Most ever in use; v1 only.
    pub max: Option<u64>,
    /// How often the limit was hit.
    pub failcnt: u64,
}
writes!(Hugetlb { usage = "usage", max = "max", failcnt = "failcnt" });

fn some<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// A number; `max`, and the -1 of older kernels, is the largest one. An absent file is `None`.
fn number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    let Some(text) = text(dir, file)? else { return Ok(None) };
    match text.trim() {
        "max" => Ok(Some(u64::MAX)),
        text if text.starts_with('-') => Ok(Some(0)),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| Error::new(format!("{}/{file}: {text:?} is not a number", dir.path().display()))),
    }
}

fn text(dir: &Dir, file: &str) -> Result<Option<String>> {
    match dir.read(file) {
        Err(e) if is_gone(&e) => Ok(None),
        // Pressure is off in the kernel, or for this cgroup.
        Err(e) if e.errno() == Some(rustix::io::Errno::OPNOTSUPP) => Ok(None),
        text => text.map(Some),
    }
}

/// `key value` lines.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair =
        |line: &str| line.split_once(' ').and_then(|(key, n)| Some((key.to_owned(), n.trim().parse().ok()?)));
    text.lines().filter_map(pair).collect()
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

impl Cgroup {
    /// Reads what the container uses. What a controller that is absent would tell is left out.
    ///
    /// # Errors
    /// A file cannot be read or understood.
    pub fn stats(&self) -> Result<Stats> {
        self.read_controllers()?;
        let mut stats = Stats::default();
        for group in &self.groups {
            let Some(dir) = group.dir()? else { continue };
            match group.version {
                Version::V1 => {
                    for controller in group.controllers() {
                        v1(controller, dir, &mut stats)?;
                    }
                }
                // Beside v1 hierarchies, this one tells only of the controllers that it holds.
                Version::V2 => {
                    let only = self.groups.iter().all(|group| group.version == Version::V2);
                    if only {
                        v2(dir, &mut stats)?;
                    }
                    if only || group.has("hugetlb") {
                        stats.hugetlb = hugetlb(dir, "current", None)?;
                    }
                }
            }
        }
        Ok(stats)
    }
}

fn v1(controller: &str, dir: &Dir, stats: &mut Stats) -> Result<()> {
    match controller {
        "cpu" => {
            if let Some(text) = text(dir, "cpu.stat")? {
                stats.cpu.throttling =
                    Some(throttling(&pairs(&text), "throttled_time", 1).unwrap_or_default());
            }
        }
        "cpuacct" => stats.cpu.usage = cpu_usage_v1(dir)?,
        "cpuset" => stats.cpuset = cpuset(dir)?,
        "memory" => stats.memory = memory_v1(dir)?,
        "pids" => stats.pids = pids(dir)?,
        "blkio" => blkio_v1(dir, &mut stats.blkio)?,
        "hugetlb" => stats.hugetlb = hugetlb(dir, "usage_in_bytes", Some("max_usage_in_bytes"))?,
        _ => {}
    }
    Ok(())
}

fn throttling(pairs: &BTreeMap<String, u64>, time: &str, nanoseconds: u64) -> Option<Throttling> {
    let get = |key: &str| pairs.get(key).copied().and_then(some);
    some(Throttling {
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled_time: get(time).map(|n| n.saturating_mul(nanoseconds)),
    })
}

fn cpu_usage_v1(dir: &Dir) -> Result<Option<CpuUsage>> {
    // USER_HZ is 100 on every architecture of today.
    const TICK: u64 = 1_000_000_000 / 100;
    let ticks = pairs(&text(dir, "cpuacct.stat")?.unwrap_or_default());
    let time = |key: &str| ticks.get(key).map_or(0, |n| n.saturating_mul(TICK));
    let all = text(dir, "cpuacct.usage_all")?.unwrap_or_default();
    let column = |i: usize| {
        let rows = all.lines().skip(1).map(numbers);
        some(rows.filter_map(|row| row.get(i).copied()).collect::<Vec<_>>())
    };
    Ok(some(CpuUsage {
        total: number(dir, "cpuacct.usage")?.and_then(some),
        percpu: text(dir, "cpuacct.usage_percpu")?.map(|text| numbers(&text)).and_then(some),
        percpu_kernel: column(2),
        percpu_user: column(1),
        kernel: time("system"),
        user: time("user"),
    }))
}

fn cpuset(dir: &Dir) -> Result<Cpuset> {
    let get = |file: &str| Ok::<_, Error>(number(dir, &format!("cpuset.{file}"))?.unwrap_or(0));
    let ids = |file: &str| Ok::<_, Error>(text(dir, file)?.and_then(|text| some(list(&text))));
    let level = text(dir, "cpuset.sched_relax_domain_level")?;
    Ok(Cpuset {
        cpus: ids("cpuset.cpus")?,
        cpu_exclusive: get("cpu_exclusive")?,
        mems: ids("cpuset.mems")?,
        mem_hardwall: get("mem_hardwall")?,
        mem_exclusive: get("mem_exclusive")?,
        memory_migrate: get("memory_migrate")?,
        memory_spread_page: get("memory_spread_page")?,
        memory_spread_slab: get("memory_spread_slab")?,
        memory_pressure: get("memory_pressure")?,
        sched_load_balance: get("sched_load_balance")?,
        sched_relax_domain_level: level.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
    })
}

/// The numbers of a list such as `0-3,7`.
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse().ok()?..=to.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn memory_v1(dir: &Dir) -> Result<Memory> {
    let raw = pairs(&text(dir, "memory.stat")?.unwrap_or_default());
    let entry = |prefix: &str| -> Result<Option<MemoryEntry>> {
        let get = |suffix: &str| number(dir, &format!("{prefix}.{suffix}"));
        Ok(some(MemoryEntry {
            limit: get("limit_in_bytes")?.unwrap_or(0),
            usage: get("usage_in_bytes")?.and_then(some),
            max: get("max_usage_in_bytes")?.and_then(some),
            failcnt: get("failcnt")?.unwrap_or(0),
        }))
    };
    Ok(Memory {
        cache: raw.get("cache").copied(),
        usage: entry("memory")?,
        swap: entry("memory.memsw")?,
        kernel: entry("memory.kmem")?,
        kernel_tcp: entry("memory.kmem.tcp")?,
        raw: some(raw),
        psi: None,
    })
}

fn pids(dir: &Dir) -> Result<Pids> {
    let current = match number(dir, "pids.current")? {
        Some(n) => n,
        // The controller is not enabled.
        None => u64::try_from(dir.own_procs().map_or(0, |pids| pids.len())).unwrap_or(u64::MAX),
    };
    let limit = number(dir, "pids.max")?.filter(|&n| n != u64::MAX).and_then(some);
    Ok(Pids { current: some(current), limit })
}

fn blkio_v1(dir: &Dir, blkio: &mut Blkio) -> Result<()> {
    // The first kind of counters that has counted: the scheduler's own where there is one.
    let kinds = ["blkio.bfq.", "blkio.", "blkio.throttle."];
    for (prefix, suffix) in
        kinds.map(|kind| (kind, "_recursive")).into_iter().chain([("blkio.throttle.", "")])
    {
        let table = |name: &str| -> Result<Option<Vec<BlkioEntry>>> {
            let text = text(dir, &format!("{prefix}{name}{suffix}"))?.unwrap_or_default();
            Ok(some(text.lines().filter_map(blkio_entry).collect()))
        };
        blkio.io_serviced = table("io_serviced")?;
        if blkio.io_serviced.is_none() {
            continue;
        }
        blkio.io_service_bytes = table("io_service_bytes")?;
        blkio.io_queued = table("io_queued")?;
        blkio.io_service_time = table("io_service_time")?;
        blkio.io_wait_time = table("io_wait_time")?;
        blkio.io_merged = table("io_merged")?;
        blkio.io_time = table("time")?;
        blkio.sectors = table("sectors")?;
        break;
    }
    Ok(())
}

/// `MAJOR:MINOR [OP] VALUE`; the line with the total of all devices is none.
fn blkio_entry(line: &str) -> Option<BlkioEntry> {
    let mut fields = line.split_whitespace();
    let (major, minor) = fields.next()?.split_once(':')?;
    let second = fields.next()?;
    let (op, value) = match fields.next() {
        Some(value) => (Some(second.to_owned()), value),
        None => (None, second),
    };
    let number = |text: &str| text.parse::<u64>().ok();
    Some(BlkioEntry {
        major: some(number(major)?),
        minor: some(number(minor)?),
        op,
        value: some(number(value)?),
    })
}

fn hugetlb(dir: &Dir, usage: &str, max: Option<&str>) -> Result<BTreeMap<String, Hugetlb>> {
    let mut sizes = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Ok(sizes) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(size) = name.to_str().and_then(page_size) else { continue };
        let rsvd = format!("hugetlb.{size}.rsvd");
        let plain = format!("hugetlb.{size}");
        let (prefix, used) = match number(dir, &format!("{rsvd}.{usage}"))? {
            Some(used) => (rsvd, used),
            None => match number(dir, &format!("{plain}.{usage}"))? {
                Some(used) => (plain.clone(), used),
                None => continue,
            },
        };
        let (most, failcnt) = match max {
            Some(max) => {
                (number(dir, &format!("{prefix}.{max}"))?, number(dir, &format!("{prefix}.failcnt"))?)
            }
            None => {
                let events = pairs(&text(dir, &format!("{plain}.events"))?.unwrap_or_default());
                (None, events.get("max").copied())
            }
        };
        let entry = Hugetlb { usage: some(used), max: most.and_then(some), failcnt: failcnt.unwrap_or(0) };
        sizes.insert(size, entry);
    }
    Ok(sizes)
}

/// `hugepages-2048kB` as in the names of cgroup files, `2MB`.
fn page_size(name: &str) -> Option<String> {
    let size: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match size {
        0..1024 => format!("{size}KB"),
        1024..1_048_576 => format!("{}MB", size / 1024),
        _ => format!("{}GB", size / 1_048_576),
    })
}

fn v2(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let cpu = pairs(&text(dir, "cpu.stat")?.unwrap_or_default());
    let time = |key: &str| cpu.get(key).map_or(0, |n| n.saturating_mul(1000));
    stats.cpu.usage = some(CpuUsage {
        total: some(time("usage_usec")),
        kernel: time("system_usec"),
        user: time("user_usec"),
        ..CpuUsage::default()
    });
    stats.cpu.throttling = throttling(&cpu, "throttled_usec", 1000);
    stats.cpu.psi = psi(dir, "cpu.pressure")?;
    stats.memory = memory_v2(dir)?;
    stats.pids = pids(dir)?;
    io_v2(&text(dir, "io.stat")?.unwrap_or_default(), &mut stats.blkio);
    stats.blkio.psi = psi(dir, "io.pressure")?;
    Ok(())
}

fn memory_v2(dir: &Dir) -> Result<Memory> {
    let raw = pairs(&text(dir, "memory.stat")?.unwrap_or_default());
    let get = |file: &str| Ok::<_, Error>(number(dir, file)?.unwrap_or(0));
    let (limit, used) = (get("memory.max")?, get("memory.current")?);
    let usage = MemoryEntry { limit, usage: some(used), max: some(get("memory.peak")?), failcnt: 0 };
    // v1 counts memory and swap together.
    let swap = MemoryEntry {
        limit: get("memory.swap.max")?.saturating_add(limit),
        usage: some(get("memory.swap.current")?.saturating_add(used)),
        ..MemoryEntry::default()
    };
    Ok(Memory {
        cache: raw.get("file").copied(),
        usage: some(usage),
        // runc leaves no object out, not even those for which v2 has no numbers.
        swap: Some(swap),
        kernel: Some(MemoryEntry::default()),
        kernel_tcp: Some(MemoryEntry::default()),
        raw: some(raw),
        psi: psi(dir, "memory.pressure")?,
    })
}

/// `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...` lines, as the tables of v1.
fn io_v2(text: &str, blkio: &mut Blkio) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(|numbers| numbers.split_once(':')) else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            table.extend(blkio_entry(&format!("{major}:{minor} {op} {value}")));
        }
    }
    (blkio.io_service_bytes, blkio.io_serviced) = (some(bytes), some(operations));
}

fn psi(dir: &Dir, file: &str) -> Result<Option<Psi>> {
    Ok(text(dir, file)?.map(|text| {
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(pressure);
        Psi { some: Some(line("some ").unwrap_or_default()), full: Some(line("full ").unwrap_or_default()) }
    }))
}

fn pressure(line: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for (key, value) in line.split_whitespace().filter_map(|field| field.split_once('=')) {
        let average = value.parse().unwrap_or(0.0);
        match key {
            "avg10" => pressure.avg10 = average,
            "avg60" => pressure.avg60 = average,
            "avg300" => pressure.avg300 = average,
            "total" => pressure.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unused_container_has_the_keys_that_runc_always_prints() {
        let text = serde_json::to_string(&Stats::default()).expect("serialisable");
        assert_eq!(
            text,
            "{\"cpu\":{},\"cpuset\":{\"cpu_exclusive\":0,\"mem_hardwall\":0,\"mem_exclusive\":0,\"memory_migrate\":0,\
            \"memory_spread_page\":0,\"memory_spread_slab\":0,\"memory_pressure\":0,\"sched_load_balance\":0,\
            \"sched_relax_domain_level\":0},\"memory\":{},\"pids\":{},\"blkio\":{},\"hugetlb\":{},\"intel_rdt\":{},\
            \"network_interfaces\":[]}"
        );
    }

    #[test]
    fn v2_io_becomes_the_tables_of_v1() {
        let mut blkio = Blkio::default();
        io_v2("8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=9\nbroken\n", &mut blkio);
        let text = serde_json::to_string(&blkio).expect("serialisable");
        assert_eq!(
            text,
            "{\"ioServiceBytesRecursive\":[{\"major\":8,\"op\":\"Read\",\"value\":4096},{\"major\":8,\"op\":\"Write\"}],\
            \"ioServicedRecursive\":[{\"major\":8,\"op\":\"Read\",\"value\":1},{\"major\":8,\"op\":\"Write\"}]}"
        );
    }

    #[test]
    fn lists_sizes_and_pressure_are_read() {
        assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(page_size("hugepages-1048576kB").as_deref(), Some("1GB"));
        assert_eq!(page_size("hugepages-2048kB").as_deref(), Some("2MB"));
        let read = pressure("avg10=1.50 avg60=0.00 avg300=0.25 total=7");
        assert_eq!((read.avg10, read.avg300, read.total), (1.5, 0.25, 7));
        assert_eq!(blkio_entry("Total 5"), None);
    }
}

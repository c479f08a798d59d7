//! What containers use: `docker stats`.

#![forbid(unsafe_code)]

use super::Engine;
use crate::container::record::Container;
use crate::container::types::State;
use crate::error::{Context as _, Error, Result};
use rustix::system::sysinfo;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;

/// USER_HZ, the unit of /proc/stat: the same on every architecture that there is (proc_stat(5)).
const TICKS: u64 = 100;

/// What a container has used until now, and what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// How many processes and threads there are.
    pub pids: u64,
    /// By the interface's name inside; none in the host's network.
    pub networks: BTreeMap<String, Interface>,
    /// Block devices.
    pub io: Io,
}

/// CPU time, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    /// The container's.
    pub total: u64,
    /// What all processors had to give since the machine started, used or not.
    pub system: u64,
    /// How many processors there are.
    pub online: u32,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// With the page cache.
    pub usage: u64,
    /// Of it the page cache that the kernel would give back first.
    pub inactive_file: u64,
    /// The limit, or the machine's memory if there is none or it is larger.
    pub limit: u64,
}

/// proc_net_dev(5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interface {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Packets dropped on the way in.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Packets dropped on the way out.
    pub tx_dropped: u64,
}

/// Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Io {
    /// Read.
    pub read: u64,
    /// Written.
    pub write: u64,
}

impl Cpu {
    /// How much of one processor was used since `before`, in percent, as Docker has it: 200 is two of them.
    pub fn percent_since(&self, before: &Self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let all = since(self.system, before.system);
        if all > 0.0 { since(self.total, before.total) / all * f64::from(self.online) * 100.0 } else { 0.0 }
    }
}

impl Memory {
    /// Without what the kernel would give back first.
    pub fn used(&self) -> u64 {
        // A page that is counted late makes the cache the larger one.
        if self.inactive_file < self.usage { self.usage - self.inactive_file } else { self.usage }
    }
}

/// The part of `rrun events --stats`, which has the same form with both versions of cgroups, that is wanted here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    cpu: DataCpu,
    memory: DataMemory,
    pids: DataPids,
    blkio: DataBlkio,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DataCpu {
    usage: DataUsage,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DataUsage {
    total: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DataMemory {
    usage: DataEntry,
    raw: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DataEntry {
    limit: u64,
    usage: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DataPids {
    current: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DataBlkio {
    io_service_bytes_recursive: Vec<DataIo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DataIo {
    op: String,
    value: u64,
}

impl Engine {
    /// What a container uses; nothing, if it does not run.
    ///
    /// # Errors
    /// rrun's; /proc cannot be read.
    pub fn stats(&self, container: &Container, state: &State) -> Result<Option<Stats>> {
        if state.pid == 0 {
            return Ok(None);
        }
        let id = &container.record.id;
        let text = match self.runtime_output(&["events", "--stats", id]) {
            Err(e) if super::stop::gone(&e.to_string()) => return Ok(None),
            text => text?,
        };
        let event: Event =
            serde_json::from_slice(&text).map_err(|e| Error::system(e.to_string()).context("rrun events"))?;
        let processors = fs::read_to_string("/proc/stat").context(|| "read /proc/stat")?;
        // The host's interfaces are none of the container's.
        let networks = match container.host.network_mode.as_str() {
            "host" => BTreeMap::new(),
            // It may have ended since.
            _ => fs::read_to_string(format!("/proc/{}/net/dev", state.pid))
                .map_or_else(|_| BTreeMap::new(), |text| interfaces(&text)),
        };
        let memory = sysinfo();
        let there_is = u64::from(memory.mem_unit).saturating_mul(memory.totalram);
        Ok(Some(stats(event.data, &processors, networks, there_is)))
    }
}

fn stats(data: Data, processors: &str, networks: BTreeMap<String, Interface>, memory: u64) -> Stats {
    let (system, online) = system(processors);
    let raw = |name: &str| data.memory.raw.get(name).copied();
    let mut io = Io::default();
    for entry in &data.blkio.io_service_bytes_recursive {
        match entry.op.to_lowercase().as_str() {
            "read" => io.read = io.read.saturating_add(entry.value),
            "write" => io.write = io.write.saturating_add(entry.value),
            _ => {}
        }
    }
    Stats {
        cpu: Cpu { total: data.cpu.usage.total, system, online },
        memory: Memory {
            usage: data.memory.usage.usage,
            // v1 has it with and without the cgroups below.
            inactive_file: raw("total_inactive_file").or_else(|| raw("inactive_file")).unwrap_or(0),
            limit: match data.memory.usage.limit {
                0 => memory,
                limit => limit.min(memory),
            },
        },
        pids: data.pids.current,
        networks,
        io,
    }
}

/// The sum of the first line of /proc/stat without what other guests took, as Docker has it, in nanoseconds; and how
/// many processors there are.
fn system(text: &str) -> (u64, u32) {
    let mut lines = text.lines();
    let all = lines.next().unwrap_or_default().split_whitespace().skip(1).take(7);
    let ticks = all.filter_map(|n| n.parse::<u64>().ok()).fold(0, u64::saturating_add);
    let online = lines.take_while(|line| line.starts_with("cpu")).count();
    (ticks.saturating_mul(1_000_000_000 / TICKS), u32::try_from(online).unwrap_or(u32::MAX))
}

/// /proc/PID/net/dev without the loopback.
fn interfaces(text: &str) -> BTreeMap<String, Interface> {
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let (
            name,
            [
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                _,
                _,
                _,
                _,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
                ..,
            ],
        ) = (name.trim(), &numbers[..])
        else {
            continue;
        };
        if name != "lo" {
            let one = Interface {
                rx_bytes: *rx_bytes,
                rx_packets: *rx_packets,
                rx_errors: *rx_errors,
                rx_dropped: *rx_dropped,
                tx_bytes: *tx_bytes,
                tx_packets: *tx_packets,
                tx_errors: *tx_errors,
                tx_dropped: *tx_dropped,
            };
            all.insert(name.to_owned(), one);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 0 50 1000 20 0 5 900 0 0\ncpu0 50 0 25 500 10 0 2 450 0 0\n\
                        cpu1 50 0 25 500 10 0 3 450 0 0\nintr 1 2 3\n";

    fn of(event: &str) -> Stats {
        let event: Event = serde_json::from_str(event).expect("an event");
        stats(event.data, STAT, BTreeMap::new(), 1 << 30)
    }

    #[test]
    fn the_cpu_time_is_that_of_all_processors_without_what_was_stolen() {
        assert_eq!(system(STAT), (11_750_000_000, 2));
        assert_eq!(system(""), (0, 0));
    }

    #[test]
    fn percents_are_of_one_processor() {
        let cpu = |total, system| Cpu { total, system, online: 2 };
        // Two processors had two seconds to give, of which one second's half was used.
        assert!((cpu(1_500, 4_000).percent_since(&cpu(1_000, 2_000)) - 50.0).abs() < 1e-9);
        assert!(cpu(2, 5).percent_since(&cpu(1, 5)).abs() < 1e-9);
        assert!(cpu(1, 9).percent_since(&cpu(2, 5)).abs() < 1e-9, "its cgroup is another one");
    }

    #[test]
    fn both_versions_of_cgroups_are_understood() {
        let v1 = of(r#"{"type":"stats","id":"x","data":{"cpu":{"usage":{"total":7}},"memory":{"usage":
            {"limit":9223372036854771712,"usage":1000},"raw":{"inactive_file":1,"total_inactive_file":300}},
            "pids":{"current":3},"blkio":{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":5},
            {"major":9,"op":"Read","value":6},{"major":8,"op":"Write","value":2},{"major":8,"op":"Total","value":13}]}}}"#);
        assert_eq!((v1.cpu.total, v1.pids, v1.io), (7, 3, Io { read: 11, write: 2 }));
        assert_eq!((v1.memory.used(), v1.memory.limit), (700, 1 << 30));
        let v2 =
            of(r#"{"data":{"memory":{"usage":{"limit":4096,"usage":1000},"raw":{"inactive_file":400}}}}"#);
        assert_eq!((v2.memory.used(), v2.memory.limit), (600, 4096));
        // Without controllers.
        assert_eq!(of(r#"{"data":{}}"#).memory, Memory { limit: 1 << 30, ..Memory::default() });
    }

    #[test]
    fn the_loopback_is_no_network() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
                    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
                    eth0:    1000      10    1    2    0     0          0         0     2000      20    3    4    0     0       0          0\n\
                    short: 1 2\n";
        let all = interfaces(text);
        let eth0 = Interface {
            rx_bytes: 1000,
            rx_packets: 10,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 2000,
            tx_packets: 20,
            tx_errors: 3,
            tx_dropped: 4,
        };
        assert_eq!(all, BTreeMap::from([("eth0".to_owned(), eth0)]));
    }
}

//! `linux` of config.json (config-linux.md).

#![forbid(unsafe_code)]

use super::IdMapping;
use super::read::record;
use std::collections::BTreeMap;

record! {
    /// `linux`.
    pub struct Linux {
        /// Namespaces to create or join.
        namespaces: Vec<Namespace> = "namespaces",
        /// User ids of a new user namespace.
        uid_mappings: Vec<IdMapping> = "uidMappings",
        /// Group ids of a new user namespace.
        gid_mappings: Vec<IdMapping> = "gidMappings",
        /// Offsets of a new time namespace, by clock.
        time_offsets: BTreeMap<String, TimeOffset> = "timeOffsets",
        /// Devices to make beyond the default ones.
        devices: Vec<Device> = "devices",
        /// Network devices to move in, by their name on the host.
        net_devices: BTreeMap<String, NetDevice> = "netDevices",
        /// Path of the cgroup.
        cgroups_path: String = "cgroupsPath",
        /// Limits.
        resources: Option<Resources> = "resources",
        /// Resource Director Technology.
        intel_rdt: Option<IntelRdt> = "intelRdt",
        /// NUMA memory policy.
        memory_policy: Option<MemoryPolicy> = "memoryPolicy",
        /// Kernel parameters.
        sysctl: BTreeMap<String, String> = "sysctl",
        /// System call filter.
        seccomp: Option<Seccomp> = "seccomp",
        /// Propagation of the root mount.
        rootfs_propagation: String = "rootfsPropagation",
        /// Paths made unreadable.
        masked_paths: Vec<String> = "maskedPaths",
        /// Paths made read-only.
        readonly_paths: Vec<String> = "readonlyPaths",
        /// SELinux context of the mounts.
        mount_label: String = "mountLabel",
        /// Execution domain.
        personality: Option<Personality> = "personality",
    }
}

record! {
    /// `linux.namespaces[]`.
    pub struct Namespace {
        /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup` or `time`.
        typ: String = "type",
        /// Namespace file to join; empty creates one.
        path: String = "path",
    }
}

record! {
    /// `linux.timeOffsets.*`.
    pub struct TimeOffset {
        /// Seconds.
        secs: i64 = "secs",
        /// Nanoseconds.
        nanosecs: u32 = "nanosecs",
    }
}

record! {
    /// `linux.devices[]`.
    pub struct Device {
        /// `c`, `u`, `b` or `p`.
        typ: String = "type",
        /// Path inside the container.
        path: String = "path",
        /// Major number.
        major: i64 = "major",
        /// Minor number.
        minor: i64 = "minor",
        /// Permission bits; absent means 0666.
        file_mode: Option<u32> = "fileMode",
        /// Owner.
        uid: Option<u32> = "uid",
        /// Group.
        gid: Option<u32> = "gid",
    }
}

record! {
    /// `linux.netDevices.*`.
    pub struct NetDevice {
        /// Name inside; empty keeps the name.
        name: String = "name",
    }
}

record! {
    /// `linux.resources`.
    pub struct Resources {
        /// Device access rules, in order.
        devices: Vec<DeviceRule> = "devices",
        /// Memory.
        memory: Option<Memory> = "memory",
        /// CPU.
        cpu: Option<Cpu> = "cpu",
        /// Number of tasks.
        pids: Option<Pids> = "pids",
        /// Block I/O.
        block_io: Option<BlockIo> = "blockIO",
        /// Huge pages.
        hugepage_limits: Vec<HugepageLimit> = "hugepageLimits",
        /// Network class and priorities (cgroup v1).
        network: Option<Network> = "network",
        /// RDMA, by device.
        rdma: BTreeMap<String, Rdma> = "rdma",
        /// cgroup v2 files, by name.
        unified: BTreeMap<String, String> = "unified",
    }
}

record! {
    /// `linux.resources.devices[]`.
    pub struct DeviceRule {
        /// Whether access is allowed.
        allow: bool = "allow",
        /// `a`, `c` or `b`; empty means `a`.
        typ: String = "type",
        /// Major number; absent means any.
        major: Option<i64> = "major",
        /// Minor number; absent means any.
        minor: Option<i64> = "minor",
        /// Some of `r`, `w` and `m`.
        access: String = "access",
    }
}

record! {
    /// `linux.resources.memory`, in bytes.
    pub struct Memory {
        /// Limit; -1 is unlimited.
        limit: Option<i64> = "limit",
        /// Soft limit.
        reservation: Option<i64> = "reservation",
        /// Limit of memory and swap together.
        swap: Option<i64> = "swap",
        /// Kernel memory; ignored as the kernel does since 5.16.
        kernel: Option<i64> = "kernel",
        /// Kernel TCP memory; likewise.
        kernel_tcp: Option<i64> = "kernelTCP",
        /// 0 to 100.
        swappiness: Option<u64> = "swappiness",
        /// Whether the OOM killer is off.
        disable_oom_killer: Option<bool> = "disableOOMKiller",
        /// Whether limits are hierarchical; always so since 5.11.
        use_hierarchy: Option<bool> = "useHierarchy",
        /// Whether a limit below the current usage is refused.
        check_before_update: Option<bool> = "checkBeforeUpdate",
    }
}

record! {
    /// `linux.resources.cpu`.
    pub struct Cpu {
        /// Relative weight.
        shares: Option<u64> = "shares",
        /// Microseconds per period; -1 is unlimited.
        quota: Option<i64> = "quota",
        /// Microseconds of accumulated quota.
        burst: Option<u64> = "burst",
        /// Microseconds.
        period: Option<u64> = "period",
        /// Microseconds per real-time period.
        realtime_runtime: Option<i64> = "realtimeRuntime",
        /// Microseconds.
        realtime_period: Option<u64> = "realtimePeriod",
        /// CPU list.
        cpus: String = "cpus",
        /// Memory node list.
        mems: String = "mems",
        /// 1 makes the cgroup SCHED_IDLE.
        idle: Option<i64> = "idle",
    }
}

record! {
    /// `linux.resources.pids`.
    pub struct Pids {
        /// Most tasks; -1 is unlimited.
        limit: Option<i64> = "limit",
    }
}

record! {
    /// `linux.resources.blockIO`.
    pub struct BlockIo {
        /// 10 to 1000.
        weight: Option<u16> = "weight",
        /// Weight against child cgroups.
        leaf_weight: Option<u16> = "leafWeight",
        /// Weight by device.
        weight_device: Vec<WeightDevice> = "weightDevice",
        /// Bytes per second.
        throttle_read_bps_device: Vec<ThrottleDevice> = "throttleReadBpsDevice",
        /// Bytes per second.
        throttle_write_bps_device: Vec<ThrottleDevice> = "throttleWriteBpsDevice",
        /// Operations per second.
        throttle_read_iops_device: Vec<ThrottleDevice> = "throttleReadIOPSDevice",
        /// Operations per second.
        throttle_write_iops_device: Vec<ThrottleDevice> = "throttleWriteIOPSDevice",
    }
}

record! {
    /// `weightDevice[]`.
    pub struct WeightDevice {
        /// Major number.
        major: i64 = "major",
        /// Minor number.
        minor: i64 = "minor",
        /// 10 to 1000.
        weight: Option<u16> = "weight",
        /// Weight against child cgroups.
        leaf_weight: Option<u16> = "leafWeight",
    }
}

record! {
    /// `throttle*Device[]`.
    pub struct ThrottleDevice {
        /// Major number.
        major: i64 = "major",
        /// Minor number.
        minor: i64 = "minor",
        /// Per second.
        rate: u64 = "rate",
    }
}

record! {
    /// `linux.resources.hugepageLimits[]`.
    pub struct HugepageLimit {
        /// As in the file names, `2MB`.
        page_size: String = "pageSize",
        /// Bytes.
        limit: u64 = "limit",
    }
}

record! {
    /// `linux.resources.network`.
    pub struct Network {
        /// net_cls.classid.
        class_id: Option<u32> = "classID",
        /// net_prio.ifpriomap.
        priorities: Vec<InterfacePriority> = "priorities",
    }
}

record! {
    /// `priorities[]`.
    pub struct InterfacePriority {
        /// Interface.
        name: String = "name",
        /// Priority.
        priority: u32 = "priority",
    }
}

record! {
    /// `linux.resources.rdma.*`.
    pub struct Rdma {
        /// Most handles.
        hca_handles: Option<u32> = "hcaHandles",
        /// Most objects.
        hca_objects: Option<u32> = "hcaObjects",
    }
}

record! {
    /// `linux.intelRdt`.
    pub struct IntelRdt {
        /// Class of service.
        clos_id: String = "closID",
        /// Schemata lines, written last.
        schemata: Vec<String> = "schemata",
        /// L3 cache schema.
        l3_cache_schema: String = "l3CacheSchema",
        /// Memory bandwidth schema.
        mem_bw_schema: String = "memBwSchema",
        /// Whether a monitoring group is made.
        enable_monitoring: bool = "enableMonitoring",
    }
}

record! {
    /// `linux.memoryPolicy`, see set_mempolicy(2).
    pub struct MemoryPolicy {
        /// `MPOL_*`.
        mode: String = "mode",
        /// Node list.
        nodes: String = "nodes",
        /// `MPOL_F_*`.
        flags: Vec<String> = "flags",
    }
}

record! {
    /// `linux.personality`, see personality(2).
    pub struct Personality {
        /// `LINUX` or `LINUX32`.
        domain: String = "domain",
        /// None are defined.
        flags: Vec<String> = "flags",
    }
}

record! {
    /// `linux.seccomp`.
    pub struct Seccomp {
        /// What a system call without a rule gets.
        default_action: String = "defaultAction",
        /// errno of the default action.
        default_errno_ret: Option<u32> = "defaultErrnoRet",
        /// `SCMP_ARCH_*`; empty means the native one.
        architectures: Vec<String> = "architectures",
        /// `SECCOMP_FILTER_FLAG_*`; absent means SPEC_ALLOW, empty means none, as in runc.
        flags: Option<Vec<String>> = "flags",
        /// Socket that receives the notification fd.
        listener_path: String = "listenerPath",
        /// Opaque text sent with it.
        listener_metadata: String = "listenerMetadata",
        /// Rules.
        syscalls: Vec<SyscallRule> = "syscalls",
    }
}

record! {
    /// `linux.seccomp.syscalls[]`.
    pub struct SyscallRule {
        /// System calls; at least one.
        names: Vec<String> = "names",
        /// `SCMP_ACT_*`.
        action: String = "action",
        /// errno or trace message.
        errno_ret: Option<u32> = "errnoRet",
        /// Conditions, all of which must hold.
        args: Vec<SyscallArg> = "args",
    }
}

record! {
    /// `args[]`.
    pub struct SyscallArg {
        /// 0 to 5.
        index: u32 = "index",
        /// Value to compare with.
        value: u64 = "value",
        /// Second value, for SCMP_CMP_MASKED_EQ.
        value_two: u64 = "valueTwo",
        /// `SCMP_CMP_*`.
        op: String = "op",
    }
}

//! config.json as types: one field per property of runtime-spec 1.3 for Linux, no logic.
//!
//! Absent and `null` read alike; a field is an `Option` only where the two differ from the type's default
//! in meaning. Enumerations stay strings here: what they may hold is decided in [`crate::plan`], where an
//! error can name its JSON path and an unknown capability can be the warning that the specification asks
//! for. The `oci-spec` crate was not used for these reasons and those in [`read`].

#![forbid(unsafe_code)]

mod linux;
pub mod read;
pub mod write;

pub use linux::*;
use read::record;
use std::collections::BTreeMap;

record! {
    /// The whole of config.json (config.md).
    pub struct Spec {
        /// Version of the specification the bundle complies with.
        oci_version: String = "ociVersion",
        /// The root filesystem; required on Linux.
        root: Option<Root> = "root",
        /// Mounts beyond the root, in the order in which they are made.
        mounts: Vec<Mount> = "mounts",
        /// The process; required by `start`.
        process: Option<Box<Process>> = "process",
        /// Host name inside the UTS namespace; empty leaves it.
        hostname: String = "hostname",
        /// NIS domain name inside the UTS namespace; empty leaves it.
        domainname: String = "domainname",
        /// Programs run at points of the lifecycle.
        hooks: Hooks = "hooks",
        /// Free-form metadata.
        annotations: BTreeMap<String, String> = "annotations",
        /// Linux-specific properties.
        linux: Option<Box<Linux>> = "linux",
    }
}

record! {
    /// `root` (config.md, "Root").
    pub struct Root {
        /// Path of the root filesystem, relative to the bundle unless absolute.
        path: String = "path",
        /// Whether the root is read-only inside the container.
        readonly: bool = "readonly",
    }
}

record! {
    /// `mounts[]` (config.md, "Mounts").
    pub struct Mount {
        /// Where to mount, inside the container.
        destination: String = "destination",
        /// File system type, as in /proc/filesystems; ignored for binds.
        typ: String = "type",
        /// Device, or directory or file of a bind.
        source: String = "source",
        /// Options: flags, propagation, and data for the file system.
        options: Vec<String> = "options",
        /// User ids of an idmapped mount.
        uid_mappings: Vec<IdMapping> = "uidMappings",
        /// Group ids of an idmapped mount.
        gid_mappings: Vec<IdMapping> = "gidMappings",
    }
}

record! {
    /// A line of uid_map or gid_map (config-linux.md, "User namespace mappings").
    pub struct IdMapping {
        /// First id inside.
        container_id: u32 = "containerID",
        /// First id outside.
        host_id: u32 = "hostID",
        /// How many ids.
        size: u32 = "size",
    }
}

record! {
    /// `process` (config.md, "Process"); also the input of `exec --process`.
    pub struct Process {
        /// Whether a pseudo-terminal is attached.
        terminal: bool = "terminal",
        /// Size of the terminal; ignored without one.
        console_size: Option<ConsoleSize> = "consoleSize",
        /// Working directory, absolute.
        cwd: String = "cwd",
        /// Environment, `NAME=value` each.
        env: Vec<String> = "env",
        /// Program and arguments.
        args: Vec<String> = "args",
        /// Resource limits.
        rlimits: Vec<Rlimit> = "rlimits",
        /// User and groups.
        user: User = "user",
        /// Capability sets.
        capabilities: Option<Capabilities> = "capabilities",
        /// Whether `no_new_privs` is set.
        no_new_privileges: bool = "noNewPrivileges",
        /// AppArmor profile.
        apparmor_profile: String = "apparmorProfile",
        /// SELinux label.
        selinux_label: String = "selinuxLabel",
        /// oom_score_adj; absent leaves it.
        oom_score_adj: Option<i32> = "oomScoreAdj",
        /// Scheduler attributes.
        scheduler: Option<Scheduler> = "scheduler",
        /// I/O priority.
        io_priority: Option<IoPriority> = "ioPriority",
        /// CPU affinity of exec'd processes.
        exec_cpu_affinity: Option<ExecCpuAffinity> = "execCPUAffinity",
    }
}

record! {
    /// `process.consoleSize`, in characters.
    pub struct ConsoleSize {
        /// Rows.
        height: u16 = "height",
        /// Columns.
        width: u16 = "width",
    }
}

record! {
    /// `process.rlimits[]`.
    pub struct Rlimit {
        /// `RLIMIT_*`.
        typ: String = "type",
        /// Ceiling of the soft limit.
        hard: u64 = "hard",
        /// The limit that the kernel enforces.
        soft: u64 = "soft",
    }
}

record! {
    /// `process.user` (config.md, "POSIX-platform User").
    pub struct User {
        /// User id inside the container.
        uid: u32 = "uid",
        /// Group id inside the container.
        gid: u32 = "gid",
        /// umask; absent leaves it.
        umask: Option<u32> = "umask",
        /// Supplementary groups.
        additional_gids: Vec<u32> = "additionalGids",
    }
}

record! {
    /// `process.capabilities`, names as `CAP_*`.
    pub struct Capabilities {
        /// Bounding set.
        bounding: Vec<String> = "bounding",
        /// Effective set.
        effective: Vec<String> = "effective",
        /// Inheritable set.
        inheritable: Vec<String> = "inheritable",
        /// Permitted set.
        permitted: Vec<String> = "permitted",
        /// Ambient set.
        ambient: Vec<String> = "ambient",
    }
}

record! {
    /// `process.scheduler`, see sched_setattr(2).
    pub struct Scheduler {
        /// `SCHED_*`.
        policy: String = "policy",
        /// Nice value.
        nice: i32 = "nice",
        /// Static priority.
        priority: i32 = "priority",
        /// `SCHED_FLAG_*`.
        flags: Vec<String> = "flags",
        /// Nanoseconds, for SCHED_DEADLINE.
        runtime: u64 = "runtime",
        /// Nanoseconds, for SCHED_DEADLINE.
        deadline: u64 = "deadline",
        /// Nanoseconds, for SCHED_DEADLINE.
        period: u64 = "period",
    }
}

record! {
    /// `process.ioPriority`, see ioprio_set(2).
    pub struct IoPriority {
        /// `IOPRIO_CLASS_*`.
        class: String = "class",
        /// 0 (highest) to 7.
        priority: i32 = "priority",
    }
}

record! {
    /// `process.execCPUAffinity`, CPU lists as in cpuset(7).
    pub struct ExecCpuAffinity {
        /// Before the process joins the container's cgroup.
        initial: String = "initial",
        /// After it.
        last: String = "final",
    }
}

record! {
    /// `hooks` (config.md, "POSIX-platform Hooks").
    pub struct Hooks {
        /// Deprecated; before `create_runtime`, in the runtime's namespaces.
        prestart: Vec<Hook> = "prestart",
        /// During create, in the runtime's namespaces.
        create_runtime: Vec<Hook> = "createRuntime",
        /// During create, in the container's namespaces, before pivot_root.
        create_container: Vec<Hook> = "createContainer",
        /// During start, in the container, before the process.
        start_container: Vec<Hook> = "startContainer",
        /// During start, in the runtime's namespaces, after the process began.
        poststart: Vec<Hook> = "poststart",
        /// During delete, in the runtime's namespaces.
        poststop: Vec<Hook> = "poststop",
    }
}

record! {
    /// One hook.
    pub struct Hook {
        /// Absolute path of the program.
        path: String = "path",
        /// argv, the first being the program's name; empty means the path alone.
        args: Vec<String> = "args",
        /// The whole environment of the hook.
        env: Vec<String> = "env",
        /// Seconds until the hook is killed; absent means never.
        timeout: Option<i64> = "timeout",
    }
}

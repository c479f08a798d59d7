//! The types of Docker's API for containers (API 1.47), with its names, in its order, as `docker inspect` prints them.
//!
//! Go tells a nil list from an empty one and writes `null` for it; what a client sent is shown as it was sent, so
//! [`List`] and [`Map`] remember which they are. A `null` on the way in is the zero value, as it is for Go.

#![forbid(unsafe_code)]

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// What Docker writes for a time that has not come: Go's zero time.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// A list or map that may be Go's nil, which is written `null` and otherwise the same as empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Nil<C> {
    nil: bool,
    inner: C,
}

/// A list that may be nil.
pub type List<T> = Nil<Vec<T>>;
/// A map that may be nil, written in the order of its keys, as Go does.
pub type Map<V> = Nil<BTreeMap<String, V>>;
/// Words: on the way in one string is a list of one (`StrSlice`).
pub type StrSlice = Nil<Words>;

impl<C> Nil<C> {
    /// Whether it is written `null`.
    pub fn is_nil(&self) -> bool {
        self.nil
    }

    /// What is in it, if it is not nil.
    pub fn given(&self) -> Option<&C> {
        (!self.nil).then_some(&self.inner)
    }
}

impl<C: Default> Default for Nil<C> {
    fn default() -> Self {
        Self { nil: true, inner: C::default() }
    }
}

impl<C> From<C> for Nil<C> {
    fn from(inner: C) -> Self {
        Self { nil: false, inner }
    }
}

impl<C> Deref for Nil<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.inner
    }
}

impl<C> DerefMut for Nil<C> {
    // Go's append and make leave no nil behind.
    fn deref_mut(&mut self) -> &mut C {
        self.nil = false;
        &mut self.inner
    }
}

impl<C: fmt::Debug> fmt::Debug for Nil<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nil { f.write_str("null") } else { self.inner.fmt(f) }
    }
}

impl<C: Serialize> Serialize for Nil<C> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.given().serialize(s)
    }
}

impl<'de, C: Deserialize<'de> + Default> Deserialize<'de> for Nil<C> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Option::<C>::deserialize(d)?.map(Self::from).unwrap_or_default())
    }
}

impl<A, C: FromIterator<A>> FromIterator<A> for Nil<C> {
    fn from_iter<I: IntoIterator<Item = A>>(items: I) -> Self {
        Self::from(C::from_iter(items))
    }
}

/// The words of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Words(pub Vec<String>);

impl Deref for Words {
    type Target = Vec<String>;

    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut Vec<String> {
        &mut self.0
    }
}

impl<A: Into<String>> FromIterator<A> for Words {
    fn from_iter<I: IntoIterator<Item = A>>(items: I) -> Self {
        Self(items.into_iter().map(Into::into).collect())
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct StringOrList;
        impl<'de> de::Visitor<'de> for StringOrList {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Words, E> {
                Ok(Words(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element::<String>()? {
                    words.push(word);
                }
                Ok(Words(words))
            }
        }
        d.deserialize_any(StringOrList)
    }
}

/// A set's member: `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The zero value where there is `null`.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// Go's `omitempty`.
pub(crate) trait Omit {
    fn omit(&self) -> bool;
}

impl<C: Default + PartialEq> Omit for Nil<C> {
    fn omit(&self) -> bool {
        self.inner == C::default()
    }
}

impl<T> Omit for Option<T> {
    fn omit(&self) -> bool {
        self.is_none()
    }
}

macro_rules! omit_zero {
    ($($type:ty)*) => { $(impl Omit for $type {
        fn omit(&self) -> bool {
            *self == <$type>::default()
        }
    })* };
}
omit_zero!(String bool i64 u16 u32);

pub(crate) fn omit<T: Omit>(value: &T) -> bool {
    value.omit()
}

/// Structs as Go has them: names in PascalCase, every member may be missing or `null`; `?` is `omitempty`.
macro_rules! go {
    ($($(#[$meta:meta])* struct $name:ident { $($(#[$member:meta])* $field:ident $(? $omit:tt)?: $type:ty,)* })*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name {
            $($(#[$member])* #[serde(deserialize_with = "crate::container::types::nullable")]
            $(#[serde(skip_serializing_if = $omit)])?
            pub $field: $type,)*
        }
    )* };
}
pub(crate) use go;

go! {
    /// What is run, as an image has it too (`Config`).
    struct Config {
        /// The name of the host inside; the id's first 12 digits unless given.
        hostname: String,
        /// Its NIS domain.
        domainname: String,
        /// `user`, `uid`, `user:group`, `uid:gid`.
        user: String,
        /// `run` is attached to stdin.
        attach_stdin: bool,
        /// `run` is attached to stdout.
        attach_stdout: bool,
        /// `run` is attached to stderr.
        attach_stderr: bool,
        /// `80/tcp`: what listens inside.
        exposed_ports ? "omit": Map<Empty>,
        /// Whether it has a terminal.
        tty: bool,
        /// Whether stdin stays open although nobody is attached.
        open_stdin: bool,
        /// Whether stdin ends with the first who was attached.
        stdin_once: bool,
        /// `KEY=VALUE`; a `KEY` alone removes the image's.
        env: List<String>,
        /// The command, or the entrypoint's arguments.
        cmd: StrSlice,
        /// The check that tells whether it works.
        healthcheck ? "omit": Option<Healthcheck>,
        /// Windows only.
        args_escaped ? "omit": bool,
        /// The image's name as it was given.
        image: String,
        /// Paths that get a volume of their own.
        volumes: Map<Empty>,
        /// Where the command starts.
        working_dir: String,
        /// What goes in front of the command.
        entrypoint: StrSlice,
        /// Whether it has no network at all.
        network_disabled ? "omit": bool,
        /// The address of its interface in the first network.
        mac_address ? "omit": String,
        /// What a build from this image does first.
        on_build: List<String>,
        /// Whatever its owner wants to keep with it.
        labels: Map<String>,
        /// What `stop` sends.
        stop_signal ? "omit": String,
        /// Seconds until `stop` sends SIGKILL.
        stop_timeout ? "omit": Option<i64>,
        /// What a Dockerfile's shell form runs.
        shell ? "omit": StrSlice,
    }

    /// A check of a container's health; times are nanoseconds, 0 is the default or what the image says.
    struct Healthcheck {
        /// Empty: the image's; `NONE`; `CMD` and words; `CMD-SHELL` and a line.
        test ? "omit": List<String>,
        /// Between two checks.
        interval ? "omit": i64,
        /// Until a check is held for hanging.
        timeout ? "omit": i64,
        /// How long failures do not count.
        start_period ? "omit": i64,
        /// Between two checks as long as failures do not count.
        start_interval ? "omit": i64,
        /// How many failures in a row make it unhealthy.
        retries ? "omit": i64,
    }

    /// How this machine runs it (`HostConfig`).
    struct HostConfig {
        /// `-v`: `source:target[:options]`.
        binds: List<String>,
        /// `--cidfile`.
        #[serde(rename = "ContainerIDFile")]
        container_id_file: String,
        /// Where its output goes.
        log_config: LogConfig,
        /// `bridge` (`default`), `host`, `none`, `container:ID`, or a network's name.
        network_mode: String,
        /// `-p`, by `80/tcp`.
        port_bindings: Map<List<PortBinding>>,
        /// What is done when it has ended.
        restart_policy: RestartPolicy,
        /// `--rm`.
        auto_remove: bool,
        /// Who makes volumes.
        volume_driver: String,
        /// `--volumes-from`.
        volumes_from: List<String>,
        /// Rows and columns of the terminal at the start.
        console_size: [u32; 2],
        /// Handed to the runtime as they are.
        annotations ? "omit": Map<String>,
        /// `--cap-add`.
        cap_add: StrSlice,
        /// `--cap-drop`.
        cap_drop: StrSlice,
        /// `private`, `host`.
        cgroupns_mode: String,
        /// `--dns`.
        dns: List<String>,
        /// `--dns-option`.
        dns_options: List<String>,
        /// `--dns-search`.
        dns_search: List<String>,
        /// `--add-host`: `name:address`.
        extra_hosts: List<String>,
        /// `--group-add`.
        group_add: List<String>,
        /// `private`, `shareable`, `host`, `none`, `container:ID`.
        ipc_mode: String,
        /// Unused.
        cgroup: String,
        /// `--link`: `name:alias`.
        links: List<String>,
        /// `--oom-score-adj`.
        oom_score_adj: i64,
        /// Empty, `host`, `container:ID`.
        pid_mode: String,
        /// `--privileged`.
        privileged: bool,
        /// `-P`.
        publish_all_ports: bool,
        /// `--read-only`.
        readonly_rootfs: bool,
        /// `--security-opt`.
        security_opt: List<String>,
        /// `--storage-opt`.
        storage_opt ? "omit": Map<String>,
        /// `--tmpfs`: options by path.
        tmpfs ? "omit": Map<String>,
        /// Empty or `host`.
        #[serde(rename = "UTSMode")]
        uts_mode: String,
        /// Empty or `host`.
        userns_mode: String,
        /// Bytes of /dev/shm.
        shm_size: i64,
        /// `--sysctl`.
        sysctls ? "omit": Map<String>,
        /// `--runtime`.
        runtime ? "omit": String,
        /// Windows only; `default`.
        isolation: String,
        /// What it may use up.
        #[serde(flatten)]
        resources: Resources,
        /// `--mount`.
        mounts ? "omit": List<Mount>,
        /// What is hidden; nil where nobody asked for anything else than the default.
        masked_paths: List<String>,
        /// What is read-only; likewise.
        readonly_paths: List<String>,
        /// `--init`; nil is what the engine is set to.
        init ? "omit": Option<bool>,
    }

    /// Limits; 0 is none (`Resources`).
    struct Resources {
        /// Weight among siblings; 1024 is usual.
        cpu_shares: i64,
        /// Bytes.
        memory: i64,
        /// 10⁻⁹ processors.
        nano_cpus: i64,
        /// The cgroup in which the container's is made.
        cgroup_parent: String,
        /// 10 to 1000.
        blkio_weight: u16,
        /// 10 to 1000 for one device.
        blkio_weight_device: List<WeightDevice>,
        /// Bytes a second.
        blkio_device_read_bps: List<ThrottleDevice>,
        /// Bytes a second.
        blkio_device_write_bps: List<ThrottleDevice>,
        /// Operations a second.
        #[serde(rename = "BlkioDeviceReadIOps")]
        blkio_device_read_iops: List<ThrottleDevice>,
        /// Operations a second.
        #[serde(rename = "BlkioDeviceWriteIOps")]
        blkio_device_write_iops: List<ThrottleDevice>,
        /// Microseconds.
        cpu_period: i64,
        /// Microseconds in a period.
        cpu_quota: i64,
        /// Microseconds.
        cpu_realtime_period: i64,
        /// Microseconds in a period.
        cpu_realtime_runtime: i64,
        /// `0-2,4`.
        cpuset_cpus: String,
        /// `0-2,4`.
        cpuset_mems: String,
        /// `--device`.
        devices: List<DeviceMapping>,
        /// `--device-cgroup-rule`: `c 1:3 rwm`.
        device_cgroup_rules: List<String>,
        /// `--gpus`: no driver is here to answer one.
        device_requests: List<DeviceRequest>,
        /// Bytes; gone from kernels since 5.16.
        kernel_memory ? "omit": i64,
        /// Bytes.
        #[serde(rename = "KernelMemoryTCP")]
        kernel_memory_tcp ? "omit": i64,
        /// Bytes that are left to it when memory is short.
        memory_reservation: i64,
        /// Bytes of memory and swap; -1 is without limit.
        memory_swap: i64,
        /// 0 to 100; -1 is the machine's.
        memory_swappiness: Option<i64>,
        /// Whether it waits for memory instead of being killed.
        oom_kill_disable: Option<bool>,
        /// Processes; 0 and -1 are without limit.
        pids_limit: Option<i64>,
        /// `--ulimit`.
        ulimits: List<Ulimit>,
        /// Windows only.
        cpu_count: i64,
        /// Windows only.
        cpu_percent: i64,
        /// Windows only.
        #[serde(rename = "IOMaximumIOps")]
        io_maximum_iops: u64,
        /// Windows only.
        #[serde(rename = "IOMaximumBandwidth")]
        io_maximum_bandwidth: u64,
    }

    /// A device's share.
    struct WeightDevice {
        /// Its node on the host.
        path: String,
        /// 10 to 1000.
        weight: u16,
    }

    /// A device's limit.
    struct ThrottleDevice {
        /// Its node on the host.
        path: String,
        /// Bytes or operations a second.
        rate: u64,
    }

    /// `--device`.
    struct DeviceMapping {
        /// The node, or a directory of nodes, on the host.
        path_on_host: String,
        /// What it is inside.
        path_in_container: String,
        /// Of `rwm`.
        cgroup_permissions: String,
    }

    /// `--gpus`.
    struct DeviceRequest {
        /// Who answers it.
        driver: String,
        /// How many; -1 is all.
        count: i64,
        /// Which.
        #[serde(rename = "DeviceIDs")]
        device_ids: List<String>,
        /// What they can do: one of these lists, in full.
        capabilities: List<List<String>>,
        /// For the driver.
        options: Map<String>,
    }

    /// `--ulimit`; -1 is without limit.
    struct Ulimit {
        /// `nofile`.
        name: String,
        /// How far the process may raise it.
        hard: i64,
        /// What holds.
        soft: i64,
    }

    /// `--restart`.
    struct RestartPolicy {
        /// Empty, `no`, `always`, `unless-stopped`, `on-failure`.
        name: String,
        /// Tries of `on-failure`; 0 is without limit.
        maximum_retry_count: i64,
    }

    /// `--log-driver` and `--log-opt`.
    struct LogConfig {
        /// `json-file`, `none`.
        r#type: String,
        /// `max-size`, `max-file`.
        config: Map<String>,
    }

    /// An address and a port of the host.
    struct PortBinding {
        /// Empty is every one.
        host_ip: String,
        /// A number, a range, or empty for any.
        host_port: String,
    }

    /// `--mount`.
    struct Mount {
        /// `bind`, `volume`, `tmpfs`.
        r#type ? "omit": String,
        /// A path of the host, or a volume's name.
        source ? "omit": String,
        /// Where it is inside.
        target ? "omit": String,
        /// With everything below it, where the kernel can.
        read_only ? "omit": bool,
        /// macOS only.
        consistency ? "omit": String,
        /// For `bind`.
        bind_options ? "omit": Option<BindOptions>,
        /// For `volume`.
        volume_options ? "omit": Option<VolumeOptions>,
        /// For `tmpfs`.
        tmpfs_options ? "omit": Option<TmpfsOptions>,
    }

    /// Of a `--mount type=bind`.
    struct BindOptions {
        /// `rprivate`, `private`, `rshared`, `shared`, `rslave`, `slave`.
        propagation ? "omit": String,
        /// Without the mounts below it.
        non_recursive ? "omit": bool,
        /// Makes the source.
        create_mountpoint ? "omit": bool,
        /// Only itself is read-only.
        read_only_non_recursive ? "omit": bool,
        /// Fails where not everything below can be read-only.
        read_only_force_recursive ? "omit": bool,
    }

    /// Of a `--mount type=volume`.
    struct VolumeOptions {
        /// Not filled from the image.
        no_copy ? "omit": bool,
        /// For a volume that is made.
        labels ? "omit": Map<String>,
        /// A directory in the volume.
        subpath ? "omit": String,
        /// Who makes it.
        driver_config ? "omit": Option<Driver>,
    }

    /// Who makes a volume.
    struct Driver {
        /// `local`.
        name ? "omit": String,
        /// For the driver.
        options ? "omit": Map<String>,
    }

    /// Of a `--mount type=tmpfs`.
    struct TmpfsOptions {
        /// Bytes; 0 is without limit.
        size_bytes ? "omit": i64,
        /// Of the directory, as Go has it; 0 is 01777.
        mode ? "omit": u32,
        /// `[key]` or `[key, value]`.
        options ? "omit": List<List<String>>,
    }

    /// The networks that a container is to be in.
    struct NetworkingConfig {
        /// By name or id.
        endpoints_config: Map<Option<EndpointSettings>>,
    }

    /// A container's place in one network: what was asked for, and what it got.
    struct EndpointSettings {
        /// Asked-for addresses.
        #[serde(rename = "IPAMConfig")]
        ipam_config: Option<EndpointIpamConfig>,
        /// `--link` in a network of one's own.
        links: List<String>,
        /// `--network-alias`.
        aliases: List<String>,
        /// `02:42:…`.
        mac_address: String,
        /// For the driver.
        driver_opts: Map<String>,
        /// Of the networks the one with the highest has the default route.
        gw_priority: i64,
        /// The network's id.
        #[serde(rename = "NetworkID")]
        network_id: String,
        /// Its own.
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        /// The IPv4 gateway.
        gateway: String,
        /// The IPv4 address.
        #[serde(rename = "IPAddress")]
        ip_address: String,
        /// The IPv4 network's bits.
        #[serde(rename = "IPPrefixLen")]
        ip_prefix_len: i64,
        /// The IPv6 gateway.
        #[serde(rename = "IPv6Gateway")]
        ipv6_gateway: String,
        /// The IPv6 address.
        #[serde(rename = "GlobalIPv6Address")]
        global_ipv6_address: String,
        /// The IPv6 network's bits.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        global_ipv6_prefix_len: i64,
        /// The names under which the network knows it.
        #[serde(rename = "DNSNames")]
        dns_names: List<String>,
    }

    /// `--ip` and `--ip6`.
    struct EndpointIpamConfig {
        /// An IPv4 address.
        #[serde(rename = "IPv4Address")]
        ipv4_address ? "omit": String,
        /// An IPv6 address.
        #[serde(rename = "IPv6Address")]
        ipv6_address ? "omit": String,
        /// Further addresses of the link.
        #[serde(rename = "LinkLocalIPs")]
        link_local_ips ? "omit": List<String>,
    }

    /// What a container is at.
    struct State {
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
        status: String,
        /// Also when it is paused or waits for a restart.
        running: bool,
        /// It is frozen.
        paused: bool,
        /// Its policy will start it again.
        restarting: bool,
        /// The kernel killed one of it for want of memory.
        #[serde(rename = "OOMKilled")]
        oom_killed: bool,
        /// It could not be removed.
        dead: bool,
        /// On the host; 0 when it does not run.
        pid: i64,
        /// Of the last run.
        exit_code: i64,
        /// Why it could not be started.
        error: String,
        /// RFC 3339 with nanoseconds, or [`NEVER`].
        started_at: String,
        /// RFC 3339 with nanoseconds, or [`NEVER`].
        finished_at: String,
        /// If it has a check.
        health ? "omit": Option<Health>,
    }

    /// What the checks say.
    struct Health {
        /// `starting`, `healthy`, `unhealthy`.
        status: String,
        /// Failures in a row.
        failing_streak: i64,
        /// The last five, the oldest first.
        log: List<HealthcheckResult>,
    }

    /// One check.
    struct HealthcheckResult {
        /// RFC 3339.
        start: String,
        /// RFC 3339.
        end: String,
        /// 0 is healthy, 1 is unhealthy.
        exit_code: i64,
        /// Its first 4096 bytes.
        output: String,
    }

    /// What is mounted in a container.
    struct MountPoint {
        /// `bind`, `volume`, `tmpfs`.
        r#type ? "omit": String,
        /// The volume's.
        name ? "omit": String,
        /// A path of the host.
        source: String,
        /// A path inside.
        destination: String,
        /// `local` for volumes.
        driver ? "omit": String,
        /// The options as they were given.
        mode: String,
        /// Whether it can be written to.
        #[serde(rename = "RW")]
        rw: bool,
        /// `rprivate`, or nothing for volumes.
        propagation: String,
    }

    /// What became of the network.
    struct NetworkSettings {
        /// Unused.
        bridge: String,
        /// The network namespace's.
        #[serde(rename = "SandboxID")]
        sandbox_id: String,
        /// Its path.
        sandbox_key: String,
        /// The ports, exposed (nil) and published.
        ports: Map<List<PortBinding>>,
        /// Unused.
        hairpin_mode: bool,
        /// Unused.
        #[serde(rename = "LinkLocalIPv6Address")]
        link_local_ipv6_address: String,
        /// Unused.
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        link_local_ipv6_prefix_len: i64,
        /// Unused.
        #[serde(rename = "SecondaryIPAddresses")]
        secondary_ip_addresses: List<Empty>,
        /// Unused.
        #[serde(rename = "SecondaryIPv6Addresses")]
        secondary_ipv6_addresses: List<Empty>,
        /// That of the network `bridge`, as the rest.
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        /// Likewise.
        gateway: String,
        /// Likewise.
        #[serde(rename = "GlobalIPv6Address")]
        global_ipv6_address: String,
        /// Likewise.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        global_ipv6_prefix_len: i64,
        /// Likewise.
        #[serde(rename = "IPAddress")]
        ip_address: String,
        /// Likewise.
        #[serde(rename = "IPPrefixLen")]
        ip_prefix_len: i64,
        /// Likewise.
        #[serde(rename = "IPv6Gateway")]
        ipv6_gateway: String,
        /// Likewise.
        mac_address: String,
        /// By the network's name.
        networks: Map<Option<EndpointSettings>>,
    }

    /// Where the root file system comes from.
    struct GraphDriver {
        /// `LowerDir`, `MergedDir`, `UpperDir`, `WorkDir`.
        data: Map<String>,
        /// `overlay2`.
        name: String,
    }

    /// `docker inspect` of a container.
    struct Inspect {
        /// 64 digits.
        id: String,
        /// RFC 3339 with nanoseconds.
        created: String,
        /// The program.
        path: String,
        /// Its arguments.
        args: List<String>,
        /// What it is at.
        state: State,
        /// The image's id.
        image: String,
        /// On the host.
        resolv_conf_path: String,
        /// On the host.
        hostname_path: String,
        /// On the host.
        hosts_path: String,
        /// On the host; empty without a log.
        log_path: String,
        /// With a slash in front.
        name: String,
        /// By its policy.
        restart_count: i64,
        /// `overlay2`.
        driver: String,
        /// `linux`.
        platform: String,
        /// Of SELinux.
        mount_label: String,
        /// Of SELinux.
        process_label: String,
        /// The profile that holds.
        app_armor_profile: String,
        /// Those of `exec` that run.
        #[serde(rename = "ExecIDs")]
        exec_ids: List<String>,
        /// How this machine runs it.
        host_config: HostConfig,
        /// Its root file system.
        graph_driver: GraphDriver,
        /// Bytes written; with `--size`.
        size_rw ? "omit": Option<i64>,
        /// Bytes in all; with `--size`.
        size_root_fs ? "omit": Option<i64>,
        /// What is mounted.
        mounts: List<MountPoint>,
        /// What is run.
        config: Config,
        /// Its networks.
        network_settings: NetworkSettings,
    }

    /// A port in a list of containers.
    struct Port {
        /// Of the host, where it is published.
        #[serde(rename = "IP")]
        ip ? "omit": String,
        /// Inside.
        private_port: u16,
        /// Of the host, where it is published.
        public_port ? "omit": u16,
        /// `tcp`, `udp`, `sctp`.
        r#type: String,
    }

    /// A row of `docker ps`.
    struct Summary {
        /// 64 digits.
        id: String,
        /// Its name with a slash in front, and those that links give it.
        names: List<String>,
        /// As it was given, or the id if the name means another by now.
        image: String,
        /// The image's id.
        #[serde(rename = "ImageID")]
        image_id: String,
        /// The program and its arguments.
        command: String,
        /// Seconds since 1970.
        created: i64,
        /// Exposed and published.
        ports: List<Port>,
        /// Bytes written; with `--size`.
        size_rw ? "omit": i64,
        /// Bytes in all; with `--size`.
        size_root_fs ? "omit": i64,
        /// Its labels.
        labels: Map<String>,
        /// `running`.
        state: String,
        /// `Up 25 minutes`.
        status: String,
        /// Of it the network mode alone.
        host_config: SummaryHostConfig,
        /// Its networks.
        network_settings: SummaryNetworkSettings,
        /// What is mounted.
        mounts: List<MountPoint>,
    }

    /// What a list tells of [`HostConfig`].
    struct SummaryHostConfig {
        /// As it was asked for.
        network_mode ? "omit": String,
        /// As they were asked for.
        annotations ? "omit": Map<String>,
    }

    /// What a list tells of [`NetworkSettings`].
    struct SummaryNetworkSettings {
        /// By the network's name.
        networks: Map<Option<EndpointSettings>>,
    }
}

/// What `create` is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateRequest {
    /// Without the slash; a made-up one if there is none.
    pub name: Option<String>,
    /// What is run, and of which image.
    pub config: Config,
    /// How.
    pub host: HostConfig,
    /// In which networks.
    pub networking: NetworkingConfig,
}

impl CreateRequest {
    /// What the API's `POST /containers/create` has for a body: [`Config`] with `HostConfig` and `NetworkingConfig`
    /// among its members.
    ///
    /// # Errors
    /// What is no such JSON.
    pub fn from_body(name: Option<String>, body: &[u8]) -> crate::Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Rest {
            host_config: Option<HostConfig>,
            networking_config: Option<NetworkingConfig>,
        }
        let invalid = |e: serde_json::Error| crate::Error::invalid(format!("invalid JSON: {e}"));
        let config = serde_json::from_slice(body).map_err(invalid)?;
        let rest: Rest = serde_json::from_slice(body).map_err(invalid)?;
        Ok(Self {
            name,
            config,
            host: rest.host_config.unwrap_or_default(),
            networking: rest.networking_config.unwrap_or_default(),
        })
    }
}

/// The id of a `container:ID` mode.
pub fn of_container(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn keys(value: &Value) -> String {
        value.as_object().expect("an object").keys().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn zero_values_are_written_as_docker_inspect_prints_them() {
        let config = serde_json::to_string(&Config::default()).expect("json");
        assert_eq!(
            config,
            concat!(
                r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"#,
                r#""AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"#,
                r#""Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}"#
            )
        );
        let host = serde_json::to_value(HostConfig::default()).expect("json");
        assert_eq!(
            keys(&host),
            "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver \
             VolumesFrom ConsoleSize CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode \
             Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt UTSMode \
             UsernsMode ShmSize Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice \
             BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod CpuQuota \
             CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices DeviceCgroupRules DeviceRequests \
             MemoryReservation MemorySwap MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent \
             IOMaximumIOps IOMaximumBandwidth MaskedPaths ReadonlyPaths"
        );
        assert_eq!(host["ConsoleSize"], json!([0, 0]));
        assert_eq!(host["LogConfig"], json!({"Type": "", "Config": null}));
        let state = State { started_at: NEVER.into(), ..State::default() };
        assert_eq!(
            keys(&serde_json::to_value(state).expect("json")),
            "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt"
        );
    }

    #[test]
    fn nil_and_empty_stay_what_they_are() {
        let text = r#"{"Env":[],"Cmd":null,"Volumes":{},"Labels":null}"#;
        let config: Config = serde_json::from_str(text).expect("parses");
        assert!(config.cmd.is_nil() && !config.env.is_nil());
        let back = serde_json::to_value(&config).expect("json");
        assert_eq!(back["Env"], json!([]));
        assert_eq!(back["Cmd"], Value::Null);
        assert_eq!(back["Volumes"], json!({}));
        assert_eq!(back["Labels"], Value::Null);
    }

    #[test]
    fn a_command_is_a_string_or_a_list() {
        let config: Config =
            serde_json::from_value(json!({"Cmd": "top -b", "Entrypoint": ["a", "b"]})).expect("parses");
        assert_eq!(config.cmd.0, ["top -b"].map(String::from));
        assert_eq!(config.entrypoint.0, ["a", "b"].map(String::from));
        assert!(serde_json::from_value::<Config>(json!({"Cmd": 7})).is_err());
        assert!(serde_json::from_value::<Config>(json!({"Env": "A=B"})).is_err());
    }

    #[test]
    fn null_is_the_zero_value_and_unknown_members_are_ignored() {
        let host: HostConfig = serde_json::from_value(json!({
            "Memory": null, "NetworkMode": null, "LogConfig": null, "Unknown": 1,
            "PortBindings": {"80/tcp": null, "81/tcp": [{"HostPort": "8081"}]}, "PidsLimit": 0,
        }))
        .expect("parses");
        assert_eq!((host.resources.memory, host.network_mode.as_str()), (0, ""));
        assert_eq!(host.resources.pids_limit, Some(0));
        assert!(host.port_bindings["80/tcp"].is_nil());
        assert_eq!(host.port_bindings["81/tcp"][0].host_port, "8081");
        let written = serde_json::to_value(&host).expect("json");
        assert_eq!(written["PortBindings"]["80/tcp"], Value::Null);
    }

    #[test]
    fn a_request_is_one_object_in_the_api() {
        let body = br#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"Memory":10485760,"Init":true},
            "NetworkingConfig":{"EndpointsConfig":{"n":{"IPAMConfig":{"IPv4Address":"10.0.0.9"}},"m":null}}}"#;
        let request = CreateRequest::from_body(Some("x".into()), body).expect("parses");
        assert_eq!(request.config.image, "busybox");
        assert_eq!((request.host.resources.memory, request.host.init), (10 << 20, Some(true)));
        let of_n = request.networking.endpoints_config["n"].as_ref().expect("given");
        assert_eq!(of_n.ipam_config.as_ref().expect("given").ipv4_address, "10.0.0.9");
        assert!(request.networking.endpoints_config["m"].is_none());
        let bad = CreateRequest::from_body(None, b"{\"Image\":1}").expect_err("no string");
        assert!(bad.to_string().starts_with("invalid JSON: "), "{bad}");
    }
}

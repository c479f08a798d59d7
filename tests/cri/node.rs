//! A node without its kubelet: containerd with the CRI service and handlers for the runtime under test, a CNI
//! bridge, two images, and a client on the socket. Requests are as the kubelet makes them.

use crate::callers::{Engine, Kind, remove_empty_parents};
use crate::harness::{cgroup_of, is_cgroup2, patiently, runtime, wait_for};
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Uri};

pub const LONG: Duration = Duration::from_secs(90);
/// The last line of a script's output.
const END: &str = "end of the script";
pub const PAUSE: &str = "localhost/rrun-pause:1";
pub const BUSYBOX: &str = "localhost/rrun-busybox:1";
/// Debian's; upstream's archives go to /opt/cni/bin.
pub const PLUGINS: &str = "/usr/lib/cni";

/// The program of the sandbox; in `RRUN_TEST_PROGRAMS` where the tests run without cargo.
fn pause_program() -> PathBuf {
    match std::env::var_os("RRUN_TEST_PROGRAMS") {
        Some(directory) => Path::new(&directory).join("pause"),
        None => env!("CARGO_BIN_EXE_pause").into(),
    }
}

/// Who makes the pods' cgroups, as a kubelet is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

/// A file of a process's cgroup: `v1` as `controller/file`, or `v2`.
pub fn cgroup_file(pid: u32, v1: &str, v2: &str) -> PathBuf {
    if is_cgroup2() {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let path = text.lines().find_map(|l| l.strip_prefix("0::/")).unwrap().to_owned();
        return Path::new("/sys/fs/cgroup").join(path).join(v2);
    }
    let (controller, file) = v1.split_once('/').unwrap();
    cgroup_of(pid, controller).join(file)
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim_end().to_owned()
}

pub struct Node {
    pub engine: Engine,
    tokio: tokio::runtime::Runtime,
    client: RuntimeServiceClient<Channel>,
    images: image_service_client::ImageServiceClient<Channel>,
    driver: Driver,
    /// Counts the pods and the containers: each one's name is its own.
    names: AtomicU32,
    common: OnceLock<(String, PodSandboxConfig)>,
}

/// The node that the tests running at the same time share; the last one takes it down.
pub fn shared(driver: Driver) -> Arc<Node> {
    static RUNNING: [Mutex<Weak<Node>>; 2] = [const { Mutex::new(Weak::new()) }; 2];
    let mut slot = RUNNING[driver as usize].lock().unwrap_or_else(PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let node = Arc::new(Node::start(driver));
        *slot = Arc::downgrade(&node);
        node
    })
}

macro_rules! rpcs {
    ($($service:ident.$name:ident($request:ty) -> $response:ty;)*) => {
        impl Node {
            $(pub fn $name(&self, request: $request) -> Result<$response, tonic::Status> {
                let mut client = self.$service.clone();
                let mut request = tonic::Request::new(request);
                request.set_timeout(patiently(LONG));
                self.tokio.block_on(client.$name(request)).map(tonic::Response::into_inner)
            })*
        }
    };
}

rpcs! {
    client.version(VersionRequest) -> VersionResponse;
    client.status(StatusRequest) -> StatusResponse;
    client.run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
    client.stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
    client.remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
    client.pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
    client.list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
    client.pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
    client.create_container(CreateContainerRequest) -> CreateContainerResponse;
    client.start_container(StartContainerRequest) -> StartContainerResponse;
    client.stop_container(StopContainerRequest) -> StopContainerResponse;
    client.remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
    client.container_status(ContainerStatusRequest) -> ContainerStatusResponse;
    client.list_containers(ListContainersRequest) -> ListContainersResponse;
    client.update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
    client.reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
    client.exec_sync(ExecSyncRequest) -> ExecSyncResponse;
    client.exec(ExecRequest) -> ExecResponse;
    client.attach(AttachRequest) -> AttachResponse;
    client.container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
    client.list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
    images.image_status(ImageStatusRequest) -> ImageStatusResponse;
}

impl Node {
    pub fn start(driver: Driver) -> Self {
        let mut engine = Engine::prepared(Kind::Containerd);
        let shell = engine.inside("sh").args(["-c", "mount -t tmpfs tmpfs /var/lib"]).status().unwrap();
        assert!(shell.success(), "a /var/lib of its own, where CNI keeps its results");
        fs::create_dir(engine.dir("cni")).unwrap();
        let network = json!({ "cniVersion": "0.4.0", "name": "rrun", "plugins": [
            { "type": "bridge", "bridge": "cri0", "isGateway": true, "hairpinMode": true,
              "ipam": { "type": "host-local", "dataDir": engine.dir("addresses"),
                        "ranges": [[{ "subnet": "10.213.9.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }
        ]});
        fs::write(engine.dir("cni/10-rrun.conflist"), network.to_string()).unwrap();
        engine.start_containerd(&config(&engine));
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = engine.dir("socket");
        let channel = tokio.block_on(async {
            let connector = tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move {
                    let stream = tokio::net::UnixStream::connect(socket).await?;
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
                }
            });
            Endpoint::from_static("http://containerd").connect_with_connector_lazy(connector)
        });
        let node = Self {
            engine,
            tokio,
            client: RuntimeServiceClient::new(channel.clone()),
            images: image_service_client::ImageServiceClient::new(channel),
            driver,
            names: AtomicU32::new(0),
            common: OnceLock::new(),
        };
        node.import_images();
        node
    }

    /// Makes an archive as `docker save` does, and imports it: no registry is needed.
    fn import_images(&self) {
        let pause = self.engine.dir("pause");
        fs::create_dir(&pause).unwrap();
        fs::copy(pause_program(), pause.join("pause")).unwrap();
        let rootfs = &self.engine.test.rootfs;
        fs::write(rootfs.join("etc/not-executable"), "x").unwrap();
        let dir = self.engine.dir("archive");
        fs::create_dir(&dir).unwrap();
        let manifest = json!([image(&dir, PAUSE, &pause, "/pause"), image(&dir, BUSYBOX, rootfs, "sh")]);
        fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
        let archive = self.engine.dir("archive.tar");
        tar(&archive, &dir);
        let mut ctr = self.engine.inside("/usr/bin/ctr");
        ctr.arg("--address").arg(self.engine.dir("socket"));
        ctr.args(["--namespace", "k8s.io", "images", "import"]);
        let out = ctr.arg(&archive).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        fs::remove_dir_all(dir).unwrap();
        fs::remove_file(archive).unwrap();
        // The CRI service learns of them by events.
        for name in [PAUSE, BUSYBOX] {
            let image = ImageSpec { image: name.into(), ..Default::default() };
            let request = ImageStatusRequest { image: Some(image), verbose: false };
            wait_for(name, LONG, || self.image_status(request.clone()).unwrap().image);
        }
    }

    /// Ends containerd and starts it again, as an update of its package does.
    pub fn restart_containerd(&mut self) {
        self.engine.end_daemon();
        let config = config(&self.engine);
        self.engine.start_containerd(&config);
        wait_for("the CRI service", LONG, || self.status(Default::default()).ok());
    }

    /// `name` and `name-systemd` are the handlers of one runtime for the two cgroup drivers.
    pub fn handler(&self, name: &str) -> String {
        match self.driver {
            Driver::Systemd => format!("{name}-systemd"),
            Driver::Cgroupfs => name.to_owned(),
        }
    }

    /// What the kubelet does about pods' cgroups with the `systemd` driver is a slice.
    fn slice(&self) -> String {
        self.engine.test.id.replace('-', "_")
    }

    /// A sandbox of the runtime under test.
    pub fn pod(&self, edit: impl FnOnce(&mut PodSandboxConfig)) -> Pod<'_> {
        self.pod_of(&self.handler("rrun"), edit).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The pod of the tests whose subject is in the container, for a pod takes longer than all else. Each removes
    /// its containers; the pod goes with the node.
    pub fn common(&self) -> Pod<'_> {
        let (id, config) = self.common.get_or_init(|| {
            let pod = self.pod(|c| {
                c.dns_config = Some(DnsConfig {
                    servers: vec!["10.96.0.10".into()],
                    searches: vec!["svc.cluster.local".into()],
                    options: vec!["ndots:5".into()],
                });
                let sysctls = [
                    ("net.ipv4.ip_unprivileged_port_start", "80"),
                    ("kernel.shmmni", "77"),
                    ("net.core.somaxconn", "99"),
                ];
                c.linux.as_mut().unwrap().sysctls = sysctls.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
            });
            (pod.id, pod.config)
        });
        Pod { node: self, id: id.clone(), config: config.clone() }
    }

    fn name(&self, kind: &str) -> String {
        format!("{kind}{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    pub fn pod_of(
        &self,
        handler: &str,
        edit: impl FnOnce(&mut PodSandboxConfig),
    ) -> Result<Pod<'_>, tonic::Status> {
        let name = self.name("pod");
        let logs = self.engine.dir(&format!("logs-{name}"));
        fs::create_dir(&logs).unwrap();
        let parent = match self.driver {
            // The whole path, as the kubelet gives it.
            Driver::Systemd => format!("/{0}.slice/{0}-{name}.slice", self.slice()),
            Driver::Cgroupfs => format!("/{}/{name}", self.engine.test.id),
        };
        let runtime_default = SecurityProfile::default();
        let mut config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: format!("uid-of-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.clone(),
            log_directory: logs.to_str().unwrap().into(),
            labels: HashMap::from([("app".into(), name)]),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: parent,
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        network: NamespaceMode::Pod.into(),
                        pid: NamespaceMode::Container.into(),
                        ipc: NamespaceMode::Pod.into(),
                        ..Default::default()
                    }),
                    seccomp: Some(runtime_default),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        edit(&mut config);
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        let id = self.run_pod_sandbox(request)?.pod_sandbox_id;
        Ok(Pod { node: self, id, config })
    }

    fn remove_all_pods(&self) {
        for pod in self.list_pod_sandbox(Default::default()).map(|l| l.items).unwrap_or_default() {
            let _ = self.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() });
            let _ = self.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod.id });
        }
    }
}

fn tar(archive: &Path, directory: &Path) {
    let status = Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(directory).arg(".").status();
    assert!(status.unwrap().success());
}

/// Puts an image with one layer into `dir`, and gives its entry in the manifest.
fn image(dir: &Path, name: &str, rootfs: &Path, command: &str) -> Value {
    let base = name.replace(['/', ':'], "-");
    let (layer, config) = (format!("{base}.tar"), format!("{base}.json"));
    tar(&dir.join(&layer), rootfs);
    let sum = Command::new("sha256sum").arg(dir.join(&layer)).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap();
    let diff = format!("sha256:{}", sum.split_whitespace().next().unwrap());
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let image = json!({ "architecture": architecture, "os": "linux",
        "config": { "Cmd": [command], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [diff] } });
    fs::write(dir.join(&config), image.to_string()).unwrap();
    json!({ "Config": config, "RepoTags": [name], "Layers": [layer] })
}

/// The part of config.toml that `docs/kubernetes.md` shows, and what keeps it apart from the machine's own.
fn config(engine: &Engine) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:\t")).unwrap();
    let sys_resource = u64::from_str_radix(effective, 16).unwrap() >> 24 & 1 == 1;
    let mut text = format!(
        "disabled_plugins = [\"io.containerd.internal.v1.opt\"]
[plugins.\"io.containerd.grpc.v1.cri\"]
sandbox_image = {PAUSE:?}
netns_mounts_under_state_dir = true
disable_hugetlb_controller = false
restrict_oom_score_adj = {}
[plugins.\"io.containerd.grpc.v1.cri\".cni]
bin_dir = {PLUGINS:?}
conf_dir = {:?}
[plugins.\"io.containerd.grpc.v1.cri\".containerd]
default_runtime_name = \"rrun\"
",
        !sys_resource,
        engine.dir("cni"),
    );
    // Its own limits, of which the shortest makes it take a sandbox that answers late for one without a process.
    text += "[timeouts]\n";
    for (what, seconds) in [("shim.cleanup", 5), ("shim.load", 5), ("shim.shutdown", 3), ("task.state", 2)] {
        let limit = patiently(Duration::from_secs(seconds)).as_secs();
        text += &format!("\"io.containerd.timeout.{what}\" = \"{limit}s\"\n");
    }
    for (name, program) in [("rrun", runtime()), ("runc", Path::new("/usr/sbin/runc"))] {
        for (suffix, systemd) in [("", false), ("-systemd", true)] {
            text += &format!(
                "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}{suffix}]
runtime_type = \"io.containerd.runc.v2\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}{suffix}.options]
BinaryName = {program:?}
SystemdCgroup = {systemd}
"
            );
        }
    }
    text
}

impl Drop for Node {
    fn drop(&mut self) {
        self.remove_all_pods();
        match self.driver {
            Driver::Systemd => {
                let _ = Command::new("systemctl").args(["stop", &format!("{}.slice", self.slice())]).status();
            }
            Driver::Cgroupfs => remove_empty_parents(&self.engine.test.id),
        }
    }
}

pub struct Pod<'a> {
    pub node: &'a Node,
    pub id: String,
    pub config: PodSandboxConfig,
}

impl<'a> Pod<'a> {
    pub fn status(&self) -> PodSandboxStatus {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        self.node.pod_sandbox_status(request).unwrap().status.unwrap()
    }

    pub fn pid(&self) -> u32 {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: true };
        pid_of(&self.node.pod_sandbox_status(request).unwrap().info)
    }

    pub fn ip(&self) -> String {
        self.status().network.unwrap().ip
    }

    /// A container that runs `script`, created and not started.
    pub fn try_create(
        &self,
        command: &[&str],
        edit: impl FnOnce(&mut ContainerConfig, &mut LinuxContainerSecurityContext),
    ) -> Result<Container<'_>, tonic::Status> {
        let name = self.node.name("c");
        let log_path = format!("{name}.log");
        let pods = self.config.linux.as_ref().unwrap().security_context.as_ref().unwrap();
        let mut security = LinuxContainerSecurityContext {
            namespace_options: pods.namespace_options.clone(),
            seccomp: Some(SecurityProfile::default()),
            masked_paths: ["/proc/kcore", "/proc/keys", "/sys/firmware"].map(String::from).into(),
            readonly_paths: ["/proc/sys", "/proc/sysrq-trigger"].map(String::from).into(),
            ..Default::default()
        };
        let mark = KeyValue { key: "RRUN_TEST".into(), value: self.node.engine.test.id.clone() };
        let mut config = ContainerConfig {
            metadata: Some(ContainerMetadata { name, attempt: 0 }),
            image: Some(ImageSpec { image: BUSYBOX.into(), ..Default::default() }),
            command: command.iter().map(|&a| a.to_owned()).collect(),
            envs: vec![mark],
            labels: self.config.labels.clone(),
            log_path,
            linux: Some(LinuxContainerConfig { resources: None, security_context: None }),
            ..Default::default()
        };
        edit(&mut config, &mut security);
        config.linux.as_mut().unwrap().security_context = Some(security);
        let log = Path::new(&self.config.log_directory).join(&config.log_path);
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id = self.node.create_container(request)?.container_id;
        Ok(Container { node: self.node, id, log })
    }

    /// A running container with `edit`ed configuration.
    #[track_caller]
    pub fn container(
        &self,
        script: &str,
        edit: impl FnOnce(&mut ContainerConfig, &mut LinuxContainerSecurityContext),
    ) -> Container<'_> {
        let container = self.try_create(&["sh", "-c", script], edit).unwrap_or_else(|e| panic!("{e}"));
        container.start().unwrap_or_else(|e| panic!("{e}"));
        container
    }

    #[track_caller]
    pub fn running(&self, script: &str) -> Container<'_> {
        self.container(script, |_, _| ())
    }

    /// Runs a script to its end, which must be success, and gives its stdout and stderr.
    #[track_caller]
    pub fn sh(
        &self,
        script: &str,
        edit: impl FnOnce(&mut ContainerConfig, &mut LinuxContainerSecurityContext),
    ) -> String {
        // The end and the last line come on two ways, in either order.
        let container = self.container(&format!("({script}) || exit; echo {END}"), edit);
        let status = container.wait();
        assert_eq!(status.exit_code, 0, "{}\n{status:?}", container.output());
        container.wait_output(END);
        let output = container.output().replace(END, "").trim_end().to_owned();
        container.remove();
        output
    }

    pub fn stop(&self) {
        self.node.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: self.id.clone() }).unwrap();
    }

    /// Stops and removes the pod with its containers.
    pub fn remove(self) {
        self.stop();
        self.node.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() }).unwrap();
    }
}

fn pid_of(info: &HashMap<String, String>) -> u32 {
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    info["pid"].as_u64().unwrap().try_into().unwrap()
}

pub struct Container<'a> {
    pub node: &'a Node,
    pub id: String,
    pub log: PathBuf,
}

impl Container<'_> {
    pub fn start(&self) -> Result<StartContainerResponse, tonic::Status> {
        self.node.start_container(StartContainerRequest { container_id: self.id.clone() })
    }

    pub fn status(&self) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        self.node.container_status(request).unwrap().status.unwrap()
    }

    pub fn pid(&self) -> u32 {
        let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: true };
        pid_of(&self.node.container_status(request).unwrap().info)
    }

    /// Waits for its end.
    pub fn wait(&self) -> ContainerStatus {
        wait_for("a container's end", LONG, || {
            let status = self.status();
            (status.state() == ContainerState::ContainerExited).then_some(status)
        })
    }

    /// `exec` for a script, which must succeed, and its stdout.
    #[track_caller]
    pub fn exec(&self, script: &str) -> String {
        let done = self.exec_of(&["sh", "-c", script], 0).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(done.exit_code, 0, "{done:?}");
        String::from_utf8(done.stdout).unwrap().trim_end().to_owned()
    }

    pub fn exec_of(&self, cmd: &[&str], timeout: i64) -> Result<ExecSyncResponse, tonic::Status> {
        let cmd = cmd.iter().map(|&a| a.to_owned()).collect();
        self.node.exec_sync(ExecSyncRequest { container_id: self.id.clone(), cmd, timeout })
    }

    /// The lines of its log, of either stream, without what CRI puts before each.
    pub fn output(&self) -> String {
        let log = read(&self.log);
        log.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap_or("")).collect::<Vec<_>>().join("\n")
    }

    pub fn wait_output(&self, text: &str) {
        wait_for(text, LONG, || self.output().contains(text).then_some(()));
    }

    /// Lets a script go on that made the fifo /go and reads it.
    pub fn go(&self, text: &str) {
        fs::write(format!("/proc/{}/root/go", self.pid()), text).unwrap();
    }

    pub fn stop(&self, timeout: i64) {
        self.node.stop_container(StopContainerRequest { container_id: self.id.clone(), timeout }).unwrap();
    }

    pub fn remove(&self) {
        self.node.remove_container(RemoveContainerRequest { container_id: self.id.clone() }).unwrap();
    }
}

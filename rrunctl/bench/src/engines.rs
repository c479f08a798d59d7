//! The engines: each with directories and sockets of its own, started here, and called by its client.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

/// Where all of it is.
pub struct Place {
    /// Files.
    pub dir: PathBuf,
    /// The cgroup that containers are below, without a slash.
    cgroup: String,
}

impl Place {
    pub fn new(dir: &Path, cgroup: &str) -> Result<Self, Box<dyn Error>> {
        Ok(Self { dir: fs::canonicalize(dir)?, cgroup: cgroup.to_owned() })
    }
}

/// How a command ended.
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// From before it was started until it had been waited for.
    pub took: Duration,
}

/// An engine that answers.
pub struct Engine {
    pub name: &'static str,
    pub version: String,
    /// What each of its containers has beside it, by the name in `/proc/PID/comm`, which has 15 bytes.
    pub monitor: &'static str,
    /// What there is once.
    pub daemons: &'static [&'static str],
    client: Vec<String>,
    /// What `run` needs here.
    run: Vec<String>,
    pull: Vec<String>,
    dir: PathBuf,
}

impl Engine {
    pub fn rrunctl(place: &Place, program: &Path, runtime: &Path) -> Result<Self, Box<dyn Error>> {
        let dir = directory(place, "rrunctl")?;
        let config = dir.join("daemon.json");
        fs::write(
            &config,
            r#"{"bip": "10.213.8.1/24", "default-address-pools": [{"base": "10.214.0.0/16", "size": 24}]}"#,
        )?;
        let client = vec![
            text(program),
            "--root".to_owned(),
            text(&dir.join("root")),
            // As /run: in memory.
            "--run".to_owned(),
            "/run/rrunctl".to_owned(),
            "--config".to_owned(),
            text(&config),
            "--oci-runtime".to_owned(),
            text(runtime),
        ];
        let run = vec!["--cgroup-parent".to_owned(), format!("/{}", place.cgroup)];
        let mut engine = Self {
            name: "rrunctl",
            version: String::new(),
            monitor: "rrunmon",
            daemons: &[],
            client,
            run,
            pull: Vec::new(),
            dir,
        };
        engine.version = engine.first_line(&["--version"])?;
        Ok(engine)
    }

    pub fn docker(place: &Place) -> Result<Self, Box<dyn Error>> {
        let dir = directory(place, "docker")?;
        let at = |name: &str| text(&dir.join(name));
        fs::write(
            dir.join("containerd.toml"),
            format!(
                "version = 2\nroot = {:?}\nstate = \"/run/containerd\"\ndisabled_plugins = \
                 [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"/run/containerd/containerd.sock\"\n",
                dir.join("containerd")
            ),
        )?;
        // Without a file of its own it would read the machine's /etc/docker/daemon.json.
        fs::write(dir.join("daemon.json"), "{}")?;
        daemon(
            Command::new("containerd").arg("--config").arg(dir.join("containerd.toml")),
            &at("containerd.log"),
        )?;
        wait("containerd", || fs::exists("/run/containerd/containerd.sock").unwrap_or(false))?;
        daemon(
            Command::new("dockerd")
                .args([
                    "--containerd",
                    "/run/containerd/containerd.sock",
                    "--config-file",
                    &at("daemon.json"),
                ])
                .args([
                    "--data-root",
                    &at("data"),
                    "--exec-root",
                    "/run/docker",
                    "--pidfile",
                    "/run/docker.pid",
                ])
                .args(["--host", "unix:///run/docker.sock", "--storage-driver", "overlay2"])
                .args(["--cgroup-parent", &format!("/{}", place.cgroup), "--bip", "10.213.7.1/24"]),
            &at("dockerd.log"),
        )?;
        let mut engine = Self {
            name: "docker",
            version: String::new(),
            monitor: "containerd-shim",
            daemons: &["dockerd", "containerd"],
            client: ["docker", "--host", "unix:///run/docker.sock"].map(str::to_owned).to_vec(),
            run: Vec::new(),
            pull: Vec::new(),
            dir: dir.clone(),
        };
        let log = at("dockerd.log");
        wait("dockerd", || engine.call(&["info"]).is_ok_and(|done| done.code == Some(0)))
            .map_err(|e| format!("{e}: {}", fs::read_to_string(log).unwrap_or_default()))?;
        let server = engine.first_line(&[
            "version",
            "--format",
            "dockerd {{.Server.Version}}, docker {{.Client.Version}}",
        ])?;
        engine.version = server;
        Ok(engine)
    }

    pub fn podman(place: &Place) -> Result<Self, Box<dyn Error>> {
        let dir = directory(place, "podman")?;
        let at = |name: &str| text(&dir.join(name));
        fs::create_dir(dir.join("net"))?;
        let mut client = vec!["podman".to_owned(), "--root".to_owned(), at("data")];
        let words = [
            "--runroot",
            "/run/bench-podman",
            "--tmpdir",
            "/run/bench-podman-tmp",
            "--cgroup-manager",
            "cgroupfs",
        ];
        client.extend(words.map(str::to_owned));
        client.extend(["--events-backend", "file", "--storage-driver", "overlay"].map(str::to_owned));
        client.extend(["--network-config-dir".to_owned(), at("net")]);
        let mut run = vec!["--cgroup-parent".to_owned(), format!("/{}", place.cgroup)];
        if !may_raise_rlimits()? {
            // It asks for more than this machine lets it have.
            run.extend(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"].map(str::to_owned));
        }
        let mut engine = Self {
            name: "podman",
            version: String::new(),
            monitor: "conmon",
            daemons: &[],
            client,
            run,
            pull: vec!["--tls-verify=false".to_owned()],
            dir,
        };
        engine.version = engine.first_line(&["--version"])?.replace(" version", "");
        Ok(engine)
    }

    fn first_line(&self, words: &[&str]) -> Result<String, Box<dyn Error>> {
        let done = self.call(words)?;
        match done.code {
            Some(0) => Ok(done.stdout.lines().next().unwrap_or_default().to_owned()),
            _ => Err(format!("{} {words:?}: {}", self.name, done.stderr).into()),
        }
    }

    /// A command that has its output in files: one that waited for the end of a pipe would wait for what a container's
    /// monitor keeps open.
    pub fn started(&self, words: &[&str], number: usize) -> Result<Started, Box<dyn Error>> {
        let mut command = Command::new(&self.client[0]);
        command.args(&self.client[1..]).args(&words[..1]);
        match words[0] {
            "run" => drop(command.args(&self.run)),
            "pull" => drop(command.args(&self.pull)),
            _ => {}
        }
        let files = ["out", "err"].map(|name| self.dir.join(format!("{name}-{number}")));
        command.args(&words[1..]).env("DOCKER_CONFIG", self.dir.join("config")).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(File::create(&files[0])?).stderr(File::create(&files[1])?);
        let from = Instant::now();
        let child = command.spawn().map_err(|e| format!("{}: {e}", self.client[0]))?;
        Ok(Started { child, files, from })
    }

    pub fn call(&self, words: &[&str]) -> Result<Done, Box<dyn Error>> {
        self.started(words, 0)?.done()
    }
}

pub struct Started {
    child: std::process::Child,
    files: [PathBuf; 2],
    from: Instant,
}

impl Started {
    pub fn done(mut self) -> Result<Done, Box<dyn Error>> {
        let status: ExitStatus = self.child.wait()?;
        let took = self.from.elapsed();
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        let read = |file: &Path| fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Done { code, stdout: read(&self.files[0])?, stderr: read(&self.files[1])?, took })
    }
}

fn directory(place: &Place, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let dir = place.dir.join(name);
    fs::create_dir_all(dir.join("config"))?;
    // Not the user's, who may have a proxy or a helper for credentials there.
    fs::write(dir.join("config/config.json"), "{}")?;
    Ok(dir)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Starts what ends with the PID namespace.
fn daemon(command: &mut Command, log: &str) -> Result<(), Box<dyn Error>> {
    let log = File::create(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    Ok(())
}

fn wait(what: &str, so: impl Fn() -> bool) -> Result<(), Box<dyn Error>> {
    let until = Instant::now() + LONG;
    while !so() {
        if Instant::now() > until {
            return Err(format!("{what} does not answer").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// CAP_SYS_RESOURCE in the effective set.
fn may_raise_rlimits() -> Result<bool, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).ok_or("no CapEff")?;
    Ok(u64::from_str_radix(set.trim(), 16)? >> 24 & 1 == 1)
}

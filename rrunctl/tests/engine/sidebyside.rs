//! The same commands by dockerd 20.10, podman 4.3 and rrunctl, and what each of them answers.
//!
//! `sidebyside/steps` has the commands, `sidebyside/differences` what may differ, and why. A difference that is not
//! listed fails, and so does one that is listed and not there. `SIDEBYSIDE=WORD` keeps to steps whose names have it;
//! what is listed and not seen is no fault then. `SIDEBYSIDE_LOG=FILE` has all that each of them said.

use crate::harness::Engine as Ours;
use regex_lite::{Captures, Regex};
use rrunctl::home::Lock;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DOCKER: &str = "/usr/bin/docker";

fn sh(dir: &Path, script: &str) {
    let status = Command::new("bash").args(["-ec", script]).current_dir(dir).status().expect("bash");
    assert!(status.success(), "{script}");
}

/// A base, what takes from it, and what has hard links into it.
const LAYERS: &str = r#"
mkdir -p 1/{bin,dev,proc,sys,tmp,srv/deep,usr/moved,etc/conf.d,home/alice,var/{seed,cache,opaque/in,full}} 2 3; cd 1
cp /bin/busybox bin/busybox
for applet in $(bin/busybox --list); do [ $applet = busybox ] || ln -s busybox bin/$applet; done
cp bin/busybox bin/capable; setcap cap_net_raw+ep bin/capable
chmod 1777 tmp; chown 33:44 var/cache; chmod 2750 var/cache; chmod 700 var/opaque
echo hello >etc/motd; echo gone >etc/gone; echo later >etc/gone-later; echo replaced >etc/file; echo x >etc/conf.d/a
printf 'root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1001:100::/nowhere:/bin/sh\n' >etc/passwd
printf 'root:x:0:\nusers:x:100:alice,bob\naudio:x:29:alice\nalice:x:1000:\n' >etc/group
cp bin/true bin/suid; chmod 4755 bin/suid; ln bin/suid bin/suid2; chown 1000:1000 home/alice
echo seed >var/seed/file; ln -s file var/seed/link; chown -R 1000:29 var/seed; chmod 2770 var/seed; chmod 600 var/seed/file
mkfifo var/fifo; mknod var/null c 1 3; mknod var/loop b 7 0; chown 70000:80000 var/fifo; chmod 606 var/fifo
truncate -s 5M var/sparse; printf y | dd of=var/sparse bs=1 seek=4500000 conv=notrunc status=none
for n in $(seq 0 40); do printf z | dd of=var/holes bs=1 seek=$((n * 65536)) conv=notrunc status=none; done
l=$(printf '%0200d' 0); mkdir -p usr/$l/$l; echo deep >usr/$l/$l/$l; ln -s /$l/$l/$l usr/long
echo name >'etc/with space and ü'; printf x >"etc/$(printf 'latin\351')"; echo n >'etc/new
line'
echo lower >var/opaque/in/x; echo full >var/full/x; ln -s motd etc/link; echo dir >srv/deep/x
python3 -c 'import os; os.setxattr("etc/conf.d", "user.name", b"value"); os.setxattr("etc/motd", "user.empty", b"")'
find . -exec touch -h -d '2020-02-02 02:02:02 UTC' {} +
touch -d '1930-05-06 07:08:09.123456789 UTC' etc/file; touch -d '2300-01-01 UTC' bin/suid; touch -h -d '1970-01-01 UTC' usr/long
touch -d '2001-02-03 04:05:06.7 UTC' etc/conf.d tmp . usr
cd ../2
mkdir -p etc var/opaque var/full srv usr; : >etc/.wh.gone; : >var/opaque/.wh..wh..opq; echo upper >var/opaque/y
: >var/.wh.full; mkdir etc/file; echo below >etc/file/below; echo file >srv/deep; : >etc/.wh.nothing
chmod 710 var/opaque; chown 5:6 usr; chmod 751 usr
find . -exec touch -h -d '2021-02-02 02:02:02 UTC' {} +
"#;

/// Writes `odd.tar`, `debian.tar`, and `links.tar`, which only we take.
fn image(dir: &Path) {
    sh(dir, LAYERS);
    let tar = "--format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime --xattrs --xattrs-include=* --numeric-owner --sort=name -b1";
    sh(dir, &format!("tar {tar} -S -C 1 -cf 1.tar . && tar {tar} -C 2 -cf 2.tar ."));
    // A file whose directories are not in the layer.
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_mtime(1_650_000_000);
    header.set_size(2);
    layer.append_data(&mut header, "usr/implied/by/file", &b"a\n"[..]).expect("a vector");
    fs::write(dir.join("3.tar"), layer.into_inner().expect("a vector")).expect("write");
    // A file that two entries name, and hard links to what is in the layer below.
    let mut layer = tar::Builder::new(Vec::new());
    for _ in 0..2 {
        layer.append_data(&mut header, "var/twice", &b"2\n"[..]).expect("a vector");
    }
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Link);
    for (path, to) in
        [("etc/motd-link", "etc/motd"), ("bin/suid3", "bin/suid"), ("etc/link-link", "etc/link")]
    {
        layer.append_link(&mut header, path, to).expect("a vector");
    }
    fs::write(dir.join("4.tar"), layer.into_inner().expect("a vector")).expect("write");
    archive(dir, "odd", &[1, 2, 3]);
    archive(dir, "links", &[1, 4]);
    archive(dir, "small", &[2]);
    sh(dir, "rm -r 1 2 3");
    // A system as people run it. What mmdebstrap(1) mounts meanwhile goes with the namespace.
    sh(dir, "unshare --mount mmdebstrap --quiet --variant=minbase bookworm 5.tar");
    archive(dir, "debian", &[5]);
}

/// Writes `NAME.tar`, an image of layers, as `docker save` would, and adds its ids to `known`.
fn archive(dir: &Path, name: &str, layers: &[u32]) {
    let layers: Vec<String> = layers.iter().map(|n| format!("{n}.tar")).collect();
    let mut diff_ids = Vec::new();
    for layer in &layers {
        let bytes = fs::read(dir.join(layer)).expect("read");
        diff_ids.push(format!("sha256:{:x}", Sha256::digest(&bytes)));
    }
    let made = |by: &str, empty: bool| {
        let mut entry = json!({"created": "2024-01-02T03:04:05.678901234Z", "created_by": by});
        if empty {
            entry["empty_layer"] = true.into();
        }
        entry
    };
    let mut history = vec![
        made("/bin/sh -c #(nop) ADD file:0 in / ", false),
        made(
            "/bin/sh -c rm -r /etc/gone && a line that is much longer than what a table has room for",
            false,
        ),
        made("COPY /x /y # buildkit", false),
    ];
    history.truncate(layers.len());
    history.push(made("/bin/sh -c #(nop)  CMD [\"sh\"]", true));
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "created": "2024-01-02T03:04:05.678901234Z", "author": "nobody", "docker_version": "20.10.24",
        "config": {"Env": ["PATH=/bin", "LEVEL=1"], "Cmd": ["sh"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Labels": {"maker": "a test"}, "StopSignal": "SIGTERM"},
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let id = format!("{:x}", Sha256::digest(config.as_bytes()));
    fs::write(dir.join(format!("{id}.json")), config).expect("write");
    let known = fs::read_to_string(dir.join("known")).unwrap_or_default();
    let ids: Vec<&str> = diff_ids.iter().map(|id| &id["sha256:".len()..]).chain([&*id]).collect();
    fs::write(dir.join("known"), format!("{known}{}\n", ids.join("\n"))).expect("write");
    let manifest =
        json!([{"Config": format!("{id}.json"), "RepoTags": [format!("{name}:latest")], "Layers": layers}]);
    fs::write(dir.join("manifest.json"), manifest.to_string()).expect("write");
    sh(dir, &format!("tar -cf {name}.tar manifest.json {id}.json {}", layers.join(" ")));
}

/// The exit code and the lines of both outputs.
type Answer = (i32, Vec<String>, Vec<String>);

/// An engine with directories and namespaces of its own.
struct Side {
    name: &'static str,
    dir: PathBuf,
    /// Its network and mount namespaces.
    holder: Child,
    daemon: Option<Child>,
    /// The program and what it is always told.
    program: Vec<String>,
    ours: Option<Ours>,
}

impl Side {
    fn new(name: &'static str, dir: &Path) -> Self {
        let dir = dir.join(name);
        fs::create_dir(&dir).expect("mkdir");
        let script = "ip link set lo up && mount -t tmpfs none /run && echo up && exec sleep infinity";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut said = [0; 3];
        std::io::Read::read_exact(holder.stdout.as_mut().expect("a pipe"), &mut said)
            .expect("the namespaces");
        let mut side = Self { name, dir, holder, daemon: None, program: Vec::new(), ours: None };
        let at = |name: &str| side.dir.join(name).display().to_string();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match name {
            "docker" => {
                fs::write(at("none.json"), "{}").expect("write");
                let host = format!("unix://{}", at("socket"));
                let arguments =
                    words(&["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
                let more = words(&[
                    "--host",
                    &host,
                    "--config-file",
                    &at("none.json"),
                    "--storage-driver",
                    "overlay2",
                ]);
                let parent = format!("/{}", side.cgroup());
                let log = fs::File::create(at("log")).expect("a log");
                let daemon = side
                    .inside("dockerd")
                    .args(arguments)
                    .args(more)
                    .args(["--cgroup-parent", &parent, "--exec-opt", "native.cgroupdriver=cgroupfs"])
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().expect("dup"))
                    .stderr(log)
                    .spawn()
                    .expect("dockerd");
                side.program = words(&[DOCKER, "--host", &host]);
                side.daemon = Some(daemon);
                let until = Instant::now() + Duration::from_secs(120);
                while side.sh("d info").0 != 0 {
                    let log = || fs::read_to_string(side.dir.join("log")).unwrap_or_default();
                    assert!(Instant::now() < until, "dockerd does not come up: {}", log());
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            "podman" => {
                side.program = words(&[
                    "podman",
                    "--runtime",
                    "runc",
                    "--root",
                    &at("data"),
                    "--runroot",
                    &at("run"),
                    "--tmpdir",
                    &at("tmp"),
                ]);
                side.program.extend(words(&["--cgroup-manager", "cgroupfs", "--events-backend", "file"]));
                side.program.extend(words(&[
                    "--storage-driver",
                    "overlay",
                    "--network-config-dir",
                    &at("net"),
                ]));
            }
            _ => {
                let ours = Ours::new();
                let command = ours.command(&[]);
                side.program.push(command.get_program().to_str().expect("UTF-8").to_owned());
                side.program.extend(command.get_args().map(|word| word.to_str().expect("UTF-8").to_owned()));
                side.ours = Some(ours);
            }
        }
        for (name, file, text) in [("cwd", "here", ""), ("config", "config.json", "{}")] {
            fs::create_dir(side.dir.join(name)).expect("mkdir");
            fs::write(side.dir.join(name).join(file), text).expect("write");
        }
        side
    }

    fn cgroup(&self) -> String {
        format!("rrunctl-{}-{}", self.name, std::process::id())
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.holder.id().to_string(), "--", program]);
        // Images, and what programs leave.
        command.env("TMPDIR", &self.dir).env("DOCKER_CONFIG", self.dir.join("config")).current_dir(&self.dir);
        command.env_remove("DOCKER_HOST");
        command
    }

    /// The exit code and both outputs of a line for `sh`.
    fn sh(&self, line: &str) -> (i32, String, String) {
        let quoted: Vec<String> = self.program.iter().map(|word| format!("'{word}'")).collect();
        let program = quoted.join(" ");
        let defined = match self.name {
            // What it asks for by itself, this machine may not let it have.
            "podman" => format!(
                "d() {{ case $1 in run | create) verb=$1; shift; set -- $verb --ulimit nofile=1024:1024 \
                 --ulimit nproc=1000:1000 --cgroup-parent /{} \"$@\" ;; esac; {program} \"$@\"; }}",
                self.cgroup()
            ),
            _ => format!("d() {{ {program} \"$@\"; }}"),
        };
        let says = "until_says() { until d logs $1 2>&1 | grep -q \"$2\"; do sleep 0.1; done; }";
        let cwd = self.dir.join("cwd");
        let output = self
            .inside("timeout")
            .args(["50", "sh", "-c"])
            .arg(format!("cd {} 2>/dev/null; {defined}; {says}; {line}", cwd.display()))
            .env("DIR", self.dir.parent().expect("it has one"))
            .stdin(Stdio::null())
            .output()
            .expect("nsenter");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.sh("for c in $(d ps -aq); do d rm -f -v $c; done");
        if self.name == "podman" {
            self.sh("d rmi -af; d volume prune -f; d system prune -af");
        }
        self.ours = None;
        if let Some(mut daemon) = self.daemon.take() {
            let pid = rustix::process::Pid::from_child(&daemon);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = daemon.wait();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let cgroups = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(cgroups).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([cgroups.to_owned()]) {
            let parent = hierarchy.join(self.cgroup());
            for below in fs::read_dir(&parent).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(below.path());
            }
            let _ = fs::remove_dir(parent);
        }
    }
}

/// What must differ is made the same: ids, times, directories, podman's subnets, and how programs name themselves.
fn normal(side: &Side, text: &str) -> String {
    let mut text = text.replace(&side.dir.display().to_string(), "<dir>");
    if let Some(ours) = &side.ours {
        text = text.replace(&ours.dir.display().to_string(), "<dir>");
    }
    for (what, by) in [
        ("localhost/", ""),
        ("docker.io/library/", ""),
        ("10.88.0.", "172.17.0."),
        ("10.89.0.", "172.18.0."),
        ("docker: ", ""),
        ("Error response from daemon: ", "Error: "),
        ("unable to upgrade to tcp, received ", ""),
    ] {
        text = text.replace(what, by);
    }
    for (what, by) in [
        (r"(?m)^See '(docker|rrunctl|podman)[^\n]*\n", ""),
        // docker says it now and then, when a start fails.
        (r#"(?m)^time=[^\n]* msg="error waiting for container: context canceled"\n"#, ""),
        (r"(?m)^Error: Error: ", "Error: "),
        (r"(?m)^(Error: .*)\.$", "$1"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?Z| ?[+-]\d\d:?\d\d( [A-Z]+)?)?", "<time>"),
        (
            r"(Less than a second|About an? \w+|\d+ (seconds?|minutes?|hours?|days?|weeks?|months?|years?))( ago)?",
            "<ago>",
        ),
        (r"size=\d+k,nr_inodes=\d+", "<size>"),
        // Now.
        (r"\b1[789]\d{8}\b", "<time>"),
        (r#""Pid": ?[1-9]\d*"#, r#""Pid":77"#),
    ] {
        text = Regex::new(what).expect("a pattern").replace_all(&text, by).into_owned();
    }
    // The image's ids are everybody's.
    let hex = Regex::new(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b").expect("a pattern");
    let known = fs::read_to_string(side.dir.parent().expect("it has one").join("known")).expect("read");
    hex.replace_all(&text, |found: &Captures<'_>| {
        let found = &found[0];
        match known.lines().position(|id| id.starts_with(found)) {
            Some(n) => format!("<known {n}, {}>", found.len()),
            None => format!("<id {}>", found.len()),
        }
    })
    .into_owned()
}

/// Its lines; of JSON, a line for each leaf.
fn lines(text: &str) -> Vec<String> {
    fn walk(at: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                members.iter().for_each(|(key, value)| walk(&format!("{at}/{key}"), value, found));
            }
            Value::Array(members) if at.is_empty() || members.iter().any(Value::is_object) => {
                members.iter().enumerate().for_each(|(n, value)| walk(&format!("{at}/{n}"), value, found));
            }
            leaf => found.push(format!("{at} = {leaf}")),
        }
    }
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if rest.starts_with("[\n") || rest.starts_with("{") {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            if let Some(Ok(value)) = values.next() {
                walk("", &value, &mut found);
                rest = rest[values.byte_offset()..].trim_start_matches('\n');
                continue;
            }
        }
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        found.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        rest = after;
    }
    found
}

/// `-` is what only the peer says, `+` what only we say.
fn differences(peer: &Answer, ours: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if peer.0 != ours.0 {
        found.extend([format!("- exit code {}", peer.0), format!("+ exit code {}", ours.0)]);
    }
    for (mark, theirs, ours) in [("", &peer.1, &ours.1), ("stderr: ", &peer.2, &ours.2)] {
        let mut count: BTreeMap<&str, i32> = BTreeMap::new();
        theirs.iter().for_each(|line| *count.entry(line).or_default() -= 1);
        ours.iter().for_each(|line| *count.entry(line).or_default() += 1);
        for (sign, lines, is) in [('-', theirs, -1), ('+', ours, 1)] {
            for line in lines {
                let left = count.get_mut(&**line).expect("counted");
                if left.signum() == is {
                    *left -= is;
                    found.push(format!("{sign} {mark}{line}").trim_end().to_owned());
                }
            }
        }
        if theirs != ours && found.is_empty() {
            found.push(format!("~ {mark}in another order"));
        }
    }
    found
}

#[derive(Debug)]
struct Listed {
    step: String,
    peer: String,
    reason: String,
    lines: Vec<String>,
}

/// `STEP, PEER: REASON`, and the lines below it; a line `*` stands for all.
fn listed(text: &str) -> Vec<Listed> {
    let mut all: Vec<Listed> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(line) => all.last_mut().expect("a step above it").lines.push(line.to_owned()),
            None => {
                let (step, rest) =
                    line.split_once(", ").unwrap_or_else(|| panic!("STEP, PEER: REASON: {line}"));
                let (peer, reason) = rest.split_once(": ").unwrap_or_else(|| panic!("no reason: {line}"));
                all.push(Listed {
                    step: step.to_owned(),
                    peer: peer.to_owned(),
                    reason: reason.to_owned(),
                    lines: Vec::new(),
                });
            }
        }
    }
    all
}

fn lacks() -> Option<&'static str> {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    if !version("dockerd").is_some_and(|said| said.contains(" 20.10.")) || !Path::new(DOCKER).exists() {
        return Some("dockerd 20.10: apt-get install docker.io");
    }
    if version("mmdebstrap").is_none() {
        return Some("apt-get install mmdebstrap");
    }
    if !version("podman").is_some_and(|said| said.contains(" 4.3.")) {
        return Some("podman 4.3: apt-get install podman");
    }
    None
}

#[test]
#[ignore = "minutes, with dockerd and podman: make test-engine-side"]
fn the_same_script_by_docker_podman_and_us() {
    if let Some(lacks) = lacks() {
        println!("skipped: needs {lacks}");
        return;
    }
    let _lock = Lock::exclusive(Path::new("/tmp/dockerd.lock")).expect("a lock");
    let dir = std::env::temp_dir().join(format!("rrunctl-side-by-side-{}", std::process::id()));
    fs::create_dir(&dir).expect("mkdir");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).expect("chmod");
    struct Gone<'a>(&'a Path);
    impl Drop for Gone<'_> {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0);
        }
    }
    let _gone = Gone(&dir);
    image(&dir);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/sidebyside");
    let steps = fs::read_to_string(source.join("steps")).expect("the steps");
    let only = std::env::var("SIDEBYSIDE").unwrap_or_default();
    let steps: Vec<(&str, &str)> = steps
        .split("\n# ")
        .skip(1)
        .map(|step| step.split_once('\n').expect("a name and a line"))
        // Each needs the image.
        .filter(|(name, _)| only.is_empty() || *name == "load" || name.contains(&*only))
        .collect();
    let answers: Vec<Vec<Answer>> = std::thread::scope(|scope| {
        let sides: Vec<_> = ["docker", "podman", "rrunctl"]
            .map(|name| {
                let (dir, steps) = (&dir, &steps);
                scope.spawn(move || {
                    let side = Side::new(name, dir);
                    let answer = |(name, line): &(&str, &str)| {
                        let start = Instant::now();
                        let (code, out, err) = side.sh(line);
                        println!("{}: {name}: {:.1} s", side.name, start.elapsed().as_secs_f32());
                        (code, lines(&normal(&side, &out)), lines(&normal(&side, &err)))
                    };
                    steps.iter().map(answer).collect::<Vec<_>>()
                })
            })
            .into();
        sides.into_iter().map(|side| side.join().expect("the steps")).collect::<Vec<_>>()
    });
    let [docker, podman, ours] = &answers[..] else { unreachable!("three") };
    let mut may: Vec<Listed> =
        listed(&fs::read_to_string(source.join("differences")).expect("the differences"));
    let mut wrong = String::new();
    for (n, (name, _)) in steps.iter().enumerate() {
        for (peer, answers) in [("docker", docker), ("podman", podman)] {
            let mut theirs = answers[n].clone();
            let mut we = ours[n].clone();
            if peer == "podman" {
                // Its words are its own: that it complains is what is compared.
                for side in [&mut theirs, &mut we] {
                    side.2 = if side.2.is_empty() { Vec::new() } else { vec!["something".to_owned()] };
                }
            }
            let mut found = differences(&theirs, &we);
            for listed in may.iter_mut().filter(|listed| listed.step == *name && listed.peer == peer) {
                if listed.lines == ["*"] {
                    if !found.is_empty() {
                        listed.lines.clear();
                        found.clear();
                    }
                    continue;
                }
                listed.lines.retain(|line| match found.iter().position(|found| found == line) {
                    Some(at) => {
                        found.remove(at);
                        false
                    }
                    None => true,
                });
            }
            if !found.is_empty() {
                let _ = writeln!(wrong, "{name}, {peer}: \n  {}", found.join("\n  "));
            }
        }
    }
    may.retain(|listed| only.is_empty() && !listed.lines.is_empty());
    for listed in &may {
        let lines = listed.lines.join("\n  ");
        let _ = writeln!(wrong, "no more: {}, {}: {}\n  {lines}", listed.step, listed.peer, listed.reason);
    }
    if let Some(to) = std::env::var_os("SIDEBYSIDE_LOG") {
        let mut log = fs::File::create(to).expect("a log");
        for (n, (name, _)) in steps.iter().enumerate() {
            for (side, answers) in ["docker", "podman", "rrunctl"].into_iter().zip(&answers) {
                let (code, out, err) = &answers[n];
                let all = format!("# {name}, {side}: {code}\n{}\n--\n{}\n", out.join("\n"), err.join("\n"));
                log.write_all(all.as_bytes()).expect("write");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

//! An engine of its own for each test, what runs `rrunctl` in it, and images made by hand.

use rrunctl::digest::Digest;
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// `rrunctl` or `rrunmon`; in `RRUN_TEST_PROGRAMS` where the tests run without cargo.
pub fn program(name: &str) -> PathBuf {
    match (std::env::var_os("RRUN_TEST_PROGRAMS"), name) {
        (Some(dir), name) => Path::new(&dir).join(name),
        (None, "rrunctl") => env!("CARGO_BIN_EXE_rrunctl").into(),
        (None, _) => env!("CARGO_BIN_EXE_rrunmon").into(),
    }
}

static ENGINES: AtomicU32 = AtomicU32::new(0);

/// An engine of its own, which goes with all that is in it.
pub struct Engine {
    pub dir: PathBuf,
}

impl Drop for Engine {
    fn drop(&mut self) {
        let containers = fs::read_dir(self.root().join("containers")).into_iter().flatten().flatten();
        let ids: Vec<String> = containers.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        if !ids.is_empty() {
            let ids = ids.iter().map(String::as_str);
            self.run(&["rm", "-fv"].into_iter().chain(ids).collect::<Vec<_>>());
        }
        fs::remove_dir_all(&self.dir).expect("the engine's directory is removed");
    }
}

impl Engine {
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "the engine's tests unpack files of any owner: run them as root"
        );
        let n = ENGINES.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("rrunctl-images-{}-{n}", std::process::id()));
        fs::create_dir(&dir).expect("a directory");
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("rrunctl"));
        let runtime = std::env::var_os("RRUN").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/rrun"),
            PathBuf::from,
        );
        command.arg("--root").arg(self.root()).arg("--run").arg(self.path("run"));
        command.arg("--oci-runtime").arg(runtime).args(arguments);
        // A registry of the test is not behind the proxy of whoever runs it.
        for name in [
            "RRUNCTL_ROOT",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "http_proxy",
            "https_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(name);
        }
        command.env("DOCKER_CONFIG", self.path("docker")).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("rrunctl starts")
    }

    /// What it prints, having nothing to complain about.
    #[track_caller]
    pub fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{arguments:?}");
        text(&output.stdout)
    }

    /// The one line that it complains with.
    #[track_caller]
    pub fn refuses(&self, arguments: &[&str]) -> String {
        refusal(&self.run(arguments), arguments)
    }

    /// Gives it bytes to read.
    pub fn fed(&self, arguments: &[&str], bytes: &[u8]) -> Output {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("rrunctl starts");
        let mut input = child.stdin.take().expect("a pipe");
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&bytes));
        let output = child.wait_with_output().expect("it ends");
        // Whoever refuses it does not read it all.
        let _ = writer.join().expect("no panic");
        output
    }

    #[track_caller]
    pub fn loads(&self, archive: &[u8]) -> String {
        let output = self.fed(&["load"], archive);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
        text(&output.stdout)
    }

    pub fn inspect(&self, image: &str) -> Value {
        let value: Value = serde_json::from_str(&self.prints(&["image", "inspect", image])).expect("JSON");
        value[0].clone()
    }

    pub fn id(&self, image: &str) -> String {
        self.inspect(image)["Id"].as_str().expect("an id").to_owned()
    }

    /// Every file that is kept, but for the locks.
    pub fn files(&self) -> Vec<String> {
        fn list(dir: &Path, files: &mut Vec<String>) {
            for entry in fs::read_dir(dir).expect("readdir").map(|entry| entry.expect("an entry")) {
                if entry.file_type().expect("a type").is_dir() {
                    list(&entry.path(), files);
                } else if entry.metadata().expect("stat").len() > 0 {
                    files.push(entry.path().display().to_string());
                }
            }
        }
        let mut files = Vec::new();
        list(&self.root(), &mut files);
        files.sort();
        files
    }

    /// A container of an image, as `create` leaves it.
    pub fn container(&self, image: &str) -> String {
        let id = "c0ffee".repeat(11)[..64].to_owned();
        let dir = self.root().join("containers").join(&id);
        fs::create_dir_all(&dir).expect("mkdir");
        let config = json!({"ID": id, "Image": self.id(image), "Config": {"Image": image},
            "Name": "/c"});
        fs::write(dir.join("config.v2.json"), config.to_string()).expect("write");
        fs::write(dir.join("hostconfig.json"), "{}").expect("write");
        id
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[track_caller]
pub fn refusal(output: &Output, arguments: &[&str]) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert_eq!(said.matches('\n').count(), 1, "{arguments:?}: {said}");
    said.strip_prefix("Error: ").unwrap_or_else(|| panic!("{arguments:?}: {said}")).trim_end().to_owned()
}

/// What a terminal shows of a command that is run after `first`; each text is typed when its question is seen.
pub fn terminal(command: &Command, first: &str, typed: &[(&str, &str)]) -> String {
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().expect("UTF-8"));
    let words: Vec<String> = command.get_args().map(quoted).collect();
    let line = format!("{first}; {} {}", quoted(command.get_program()), words.join(" "));
    // A question that is not asked shall end the test all the same.
    let mut script = Command::new("timeout");
    script.args(["--foreground", "100", "script", "-qec", &line, "/dev/null"]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let mut child =
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("apt-get install bsdutils");
    // It stays open: at its end script(1) types the end of the file.
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = child.stdout.take().expect("a pipe");
    let mut seen = Vec::new();
    let mut answered = 0;
    let mut typed = typed.iter();
    let mut next = typed.next();
    loop {
        let mut piece = [0; 4096];
        let length = output.read(&mut piece).expect("read");
        if length == 0 {
            break;
        }
        seen.extend_from_slice(&piece[..length]);
        while let Some((question, answer)) = next {
            let Some(at) = text(&seen[answered..]).find(question) else { break };
            answered += at + question.len();
            input.write_all(answer.as_bytes()).expect("it is read");
            next = typed.next();
        }
    }
    child.wait().expect("it ends");
    assert!(next.is_none(), "{next:?} was not asked: {}", text(&seen));
    text(&seen)
}

/// What a program makes of bytes.
pub fn piped(program: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("apt-get install {program}: {e}"));
    let mut input = child.stdin.take().expect("a pipe");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads everything");
    assert!(output.status.success(), "{program}");
    output.stdout
}

pub fn tar(entries: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes, mode) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(*mode);
        header.set_mtime(1_700_000_000);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, *bytes).expect("a vector takes everything");
    }
    tar.into_inner().expect("a vector takes everything")
}

/// An image to be saved as `docker save` does.
pub struct Made {
    pub names: Vec<String>,
    pub created: OffsetDateTime,
    pub layers: Vec<Vec<u8>>,
    pub config: Value,
}

/// busybox in two layers, made five weeks ago.
pub fn busybox(names: &[&str]) -> Made {
    let busybox = fs::read("/bin/busybox").expect("apt-get install busybox-static");
    let base = tar(&[
        ("bin/", b"", 0o755),
        ("bin/busybox", &busybox, 0o755),
        ("etc/", b"", 0o755),
        ("etc/gone", b"x", 0o644),
    ]);
    let above = tar(&[("etc/motd", b"hello\n", 0o644), ("etc/.wh.gone", b"", 0o644)]);
    Made {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        created: OffsetDateTime::now_utc() - Duration::weeks(5) - Duration::hours(1),
        layers: vec![base, above],
        config: json!({"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"maker": "a test"}}),
    }
}

/// One file of so many zeros.
pub fn zeros(name: &str, length: usize, created: OffsetDateTime) -> Made {
    let layer = tar(&[("zeros", &vec![0; length], 0o644)]);
    Made { names: vec![name.to_owned()], created, layers: vec![layer], config: json!({"Cmd": [name]}) }
}

impl Made {
    pub fn config(&self) -> Vec<u8> {
        let created = self.created.format(&Rfc3339).expect("a time");
        let mut history: Vec<Value> = (0..self.layers.len())
            .map(|n| json!({"created": created, "created_by": format!("/bin/sh -c #(nop) ADD file:{n} in / ")}))
            .collect();
        history.push(
            json!({"created": created, "created_by": "/bin/sh -c #(nop)  CMD [\"sh\"]", "empty_layer": true}),
        );
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({"architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux", "created": created, "config": self.config, "history": history,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        config.to_string().into_bytes()
    }

    pub fn id(&self) -> String {
        Digest::of(&self.config()).to_string()
    }

    pub fn short(&self) -> String {
        Digest::of(&self.config()).short()
    }

    /// As `docker save` of version 20 writes it.
    pub fn archive(&self) -> Vec<u8> {
        archive(&[self])
    }
}

pub fn archive(images: &[&Made]) -> Vec<u8> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut manifest = Vec::new();
    for image in images {
        let config = image.config();
        let name = format!("{}.json", Digest::of(&config).hex());
        let layers: Vec<String> =
            image.layers.iter().map(|layer| format!("{}/layer.tar", Digest::of(layer).hex())).collect();
        manifest.push(json!({"Config": name, "RepoTags": image.names, "Layers": layers}));
        files.push((name, config));
        files.extend(layers.into_iter().zip(image.layers.iter().cloned()));
    }
    files.push(("manifest.json".to_owned(), Value::from(manifest).to_string().into_bytes()));
    let entries: Vec<(&str, &[u8], u32)> =
        files.iter().map(|(name, bytes)| (&**name, &**bytes, 0o644)).collect();
    tar(&entries)
}

pub fn ago(weeks: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() - Duration::weeks(weeks) - Duration::hours(1)
}

/// Runs a test where it has its own links and tables, which go with the thread.
pub fn alone(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(|| {
        #[expect(deprecated, reason = "files are what the other is about, and this unshares none")]
        rustix::thread::unshare(UnshareFlags::NEWNET).expect("unshare as root");
        // What is published is reached by it.
        let up =
            Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("apt-get install iproute2");
        assert!(up.success());
        test();
    })
    .join()
    .expect("the test");
}

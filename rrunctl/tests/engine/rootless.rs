//! An ordinary user's engine, as somebody with a range in /etc/subuid who is logged in.
//!
//! The user is of a mount namespace in which /etc/passwd has one line more: the machine's own files stay as they are.

use crate::harness::{Engine, alone, busybox, program, text};
use crate::networks::{is_answered_by, kill_monitor, udp_server};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

const UID: u32 = 54321;
const RANGE: u32 = 1_000_000;

struct User {
    engine: Engine,
}

impl Drop for User {
    fn drop(&mut self) {
        let ids = text(&self.run(&["ps", "-aq"]).stdout);
        for id in ids.lines() {
            self.run(&["rm", "-fv", id]);
        }
        for name in ["namespaces", "namespaces.out"] {
            if let Some(pid) = self.pid_in(name) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl User {
    fn new() -> Self {
        let user = Self { engine: Engine::new() };
        fs::set_permissions(&user.engine.dir, fs::Permissions::from_mode(0o755)).expect("chmod");
        for name in ["bin", "home", "runtime"] {
            fs::create_dir(user.path(name)).expect("mkdir");
        }
        for name in ["home", "runtime"] {
            chown(user.path(name), Some(UID), Some(UID)).expect("chown");
        }
        // By another process: one that is forked by another test meanwhile would have it open for writing.
        let runtime = std::env::var_os("RRUN").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/rrun"),
            PathBuf::from,
        );
        let programs = [program("rrunctl"), program("rrunmon"), runtime];
        let copied = Command::new("cp").args(programs).arg(user.path("bin")).status().expect("cp");
        assert!(copied.success());
        user.file("passwd", &format!("root:x:0:0::/root:/bin/sh\nann:x:{UID}:{UID}::/:/bin/sh\n"));
        user.file("ranges", &format!("ann:{RANGE}:65536\n"));
        // A device that everybody may open, as udev has it.
        let tun =
            Command::new("mknod").args(["-m", "666"]).arg(user.path("tun")).args(["c", "10", "200"]).status();
        assert!(tun.expect("mknod").success());
        user
    }

    fn path(&self, name: &str) -> PathBuf {
        self.engine.path(name)
    }

    fn file(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("write");
    }

    fn pid_in(&self, name: &str) -> Option<Pid> {
        let text = fs::read_to_string(self.path("runtime/rrunctl").join(name)).ok()?;
        Pid::from_raw(text.split_whitespace().next()?.parse().ok()?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let dir = self.engine.dir.display();
        let mut command = Command::new("unshare");
        let script = format!(
            "cd {dir}/home
             mount --bind {dir}/passwd /etc/passwd
             for file in subuid subgid; do mount --bind {dir}/ranges /etc/$file; done
             [ ! -e /dev/net/tun ] || mount --bind {dir}/tun /dev/net/tun
             exec setpriv --reuid {UID} --regid {UID} --clear-groups {dir}/bin/rrunctl \"$@\""
        );
        command.args(["--mount", "--propagation", "private", "sh", "-ec", &script, "-"]).args(arguments);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.path("home"));
        command.env("XDG_RUNTIME_DIR", self.path("runtime")).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("apt-get install util-linux")
    }

    #[track_caller]
    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{arguments:?}");
        text(&output.stdout)
    }

    #[track_caller]
    fn refuses(&self, arguments: &[&str], words: &str) {
        let output = self.run(arguments);
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && said.matches('\n').count() == 1 && said.contains(words),
            "{said}"
        );
    }

    /// Without a way out, of which most tests need none.
    fn with_busybox(self) -> Self {
        self.file("image.tar", "");
        fs::write(self.path("image.tar"), busybox(&["box"]).archive()).expect("write");
        let image = self.path("image.tar");
        self.prints(&["load", "-i", image.to_str().expect("UTF-8")]);
        self
    }
}

/// What a server at `at` says, when it is there.
fn fetched(at: &str) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let said = TcpStream::connect(at).and_then(|mut stream| {
            stream.write_all(b"GET /etc/motd HTTP/1.0\r\n\r\n")?;
            let mut said = String::new();
            stream.read_to_string(&mut said).map(|_| said)
        });
        match said {
            Ok(said) if !said.is_empty() => return said,
            other => assert!(Instant::now() < end, "{at}: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A network namespace with a server, and a route of this one that leads there.
fn outside(dir: &Path) -> Server {
    let sh = |script: &str| {
        assert!(Command::new("sh").args(["-ec", script]).status().expect("sh").success(), "{script}");
    };
    let server = format!(
        "until ip link show out >/dev/null 2>&1; do sleep 0.02; done
         ip addr add 198.51.100.1/24 dev out; ip link set out up
         exec busybox httpd -f -p 198.51.100.1:80 -h {}",
        dir.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-ec", &server]).stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.stderr(Stdio::null()).spawn().expect("unshare");
    let own = fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
    let there = format!("/proc/{}/ns/net", child.id());
    while fs::read_link(&there).is_ok_and(|namespace| namespace == own) {
        std::thread::sleep(Duration::from_millis(5));
    }
    sh(&format!(
        "ip link add in type veth peer name out netns {}
         ip addr add 198.51.100.2/24 dev in; ip link set in up; ip route add default via 198.51.100.1",
        child.id()
    ));
    Server(child)
}

struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn c20_an_ordinary_user_runs_containers() {
    alone(|| {
        let user = User::new().with_busybox();
        let script = "busybox id -u; busybox cat /etc/motd; busybox test -e /etc/gone || echo gone
            echo x >/x; busybox chown 33:44 /x; busybox stat -c %u:%g /x";
        assert_eq!(
            user.prints(&["run", "--name", "one", "box", "busybox", "sh", "-c", script]),
            "0\nhello\ngone\n33:44\n"
        );
        // An id of the container is one of the range outside.
        let id = user.prints(&["ps", "-aq", "--no-trunc"]);
        let upper = user.path("home/.local/share/rrunctl/containers").join(id.trim()).join("rw/x");
        let file = fs::metadata(upper).expect("the file");
        assert_eq!((file.uid(), file.gid()), (RANGE + 32, RANGE + 43));
        assert_eq!(user.prints(&["diff", "one"]), "A /x\n");
        assert_eq!(user.run(&["run", "--rm", "box", "busybox", "sh", "-c", "exit 7"]).status.code(), Some(7));

        // A path is the user's, and seen from where the user is.
        user.prints(&["cp", "one:/etc/motd", "here"]);
        assert_eq!(fs::metadata(user.path("home/here")).expect("a copy").uid(), UID);
        fs::create_dir(user.path("home/dir")).expect("mkdir");
        chown(user.path("home/dir"), Some(UID), Some(UID)).expect("chown");
        let script = "echo y >/v/y; echo z >/dir/z";
        user.prints(&[
            "run",
            "--rm",
            "-v",
            "vol:/v",
            "-v",
            "./dir:/dir",
            "box",
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(fs::metadata(user.path("home/dir/z")).expect("a file").uid(), UID);
        assert_eq!(user.prints(&["run", "--rm", "-v", "vol:/v", "box", "busybox", "cat", "/v/y"]), "y\n");

        user.prints(&["commit", "one", "two"]);
        assert_eq!(user.prints(&["run", "--rm", "two", "busybox", "cat", "/x"]), "x\n");
        // What is the host's is shown as far as the kernel lets it.
        let script = "busybox ip -o link; busybox test -e /sys/class/net";
        let links = user.prints(&["run", "--rm", "--network", "host", "box", "busybox", "sh", "-c", script]);
        assert!(links.starts_with("1: lo:") && links.lines().count() == 1, "{links}");
        assert!(user.prints(&["info", "-f", "{{.SecurityOptions}}"]).contains("name=rootless"));
        user.prints(&["run", "-d", "--name", "long", "box", "busybox", "sleep", "1000"]);
        let top = user.prints(&["top", "long", "-o", "pid,args"]);
        assert!(top.lines().count() == 2 && top.contains("busybox sleep 1000"), "{top}");
        user.prints(&["commit", "long", "three"]);
        user.prints(&["rm", "-f", "long"]);
        // Nobody has given this user a part of the cgroups.
        user.refuses(&["run", "--rm", "-m", "64m", "box", "busybox", "true"], " limit");
    });
}

#[test]
fn c20_networks_of_an_ordinary_user_lead_out() {
    alone(|| {
        let user = User::new();
        fs::create_dir_all(user.path("served/etc")).expect("mkdir");
        user.file("served/etc/motd", "from outside\n");
        let _server = outside(&user.path("served"));
        let user = user.with_busybox();

        user.prints(&["network", "create", "net"]);
        let httpd = ["box", "busybox", "httpd", "-f", "-h", "/"];
        let port = ["run", "-d", "--name", "web", "--network", "net", "-p", "127.0.0.1:8080:80"];
        user.prints(&[&port[..], &httpd].concat());
        assert!(fetched("127.0.0.1:8080").ends_with("hello\n"));
        // Another monitor holds the ports that the last one held.
        let id = user.prints(&["inspect", "-f", "{{.Id}}", "web"]);
        kill_monitor(&user.path("runtime/rrunctl").join(id.trim()));
        user.prints(&["system", "restore"]);
        assert!(fetched("127.0.0.1:8080").ends_with("hello\n"));
        let fetch = |of: &str| format!("busybox wget -qO- http://{of}/etc/motd");
        let got = |of: &str| {
            user.prints(&["run", "--rm", "--network", "net", "box", "busybox", "sh", "-c", &fetch(of)])
        };
        // The gateway is who it is, and not the host's loopback, for which pasta would take it by itself.
        assert_eq!((got("web").as_str(), got("198.51.100.1").as_str()), ("hello\n", "from outside\n"));
        let other = user.run(&["run", "-d", "-p", "127.0.0.1:8080:80", "box", "busybox"]);
        assert_eq!(other.status.code(), Some(125));
        assert!(text(&other.stderr).contains("Bind for 127.0.0.1:8080 failed: port is already allocated"));
        let udp = ["run", "-d", "--name", "dns", "-p", "5300:53/udp", "-p", "[::1]:5301:53/udp"];
        user.prints(&[&udp[..], &["box", "busybox", "sleep", "1000"]].concat());
        let server = udp_server(user.prints(&["inspect", "-f", "{{.State.Pid}}", "dns"]).trim(), 53);
        for (from, at) in [
            ("127.0.0.1", "127.0.0.1:5300"),
            // Not the address that the kernel would answer it from.
            ("127.0.0.1", "127.0.0.9:5300"),
            ("198.51.100.2", "198.51.100.2:5300"),
            ("::1", "[::1]:5300"),
            ("::1", "[::1]:5301"),
        ] {
            is_answered_by(&server, from, at);
        }
        user.prints(&["rm", "-f", "dns"]);
        // Nothing of it is among the host's links.
        let links = Command::new("ip").args(["-o", "link"]).output().expect("ip");
        assert_eq!(text(&links.stdout).lines().count(), 2, "{}", text(&links.stdout));

        // Killed, the keeper of the namespaces is replaced, and containers that run are still within reach.
        kill_process(user.pid_in("namespaces").expect("a keeper"), Signal::KILL).expect("kill");
        let out = user.pid_in("namespaces.out").expect("a way out");
        assert_eq!(user.prints(&["exec", "web", "busybox", "cat", "/etc/motd"]), "hello\n");
        user.prints(&["restart", "-t", "0", "web"]);
        assert!(fetched("127.0.0.1:8080").ends_with("hello\n"));
        assert_eq!(got("198.51.100.1"), "from outside\n");
        // A zombie has no arguments.
        let left = fs::read(format!("/proc/{}/cmdline", out.as_raw_nonzero())).unwrap_or_default();
        assert_eq!(text(&left), "", "the last way out is still there");
        // A way out that has ended is replaced, although not more often than each half minute.
        let out = user.pid_in("namespaces.out").expect("a way out");
        kill_process(out, Signal::KILL).expect("kill");
        // It ends when its link has gone, which takes the kernel a while.
        let stat = format!("/proc/{}/stat", out.as_raw_nonzero());
        let end = Instant::now() + Duration::from_secs(20);
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < end, "{stat}");
            std::thread::sleep(Duration::from_millis(5));
        }
        user.prints(&["ps"]);
        assert_eq!(user.pid_in("namespaces.out"), Some(out));
        let tried = user.path("runtime/rrunctl/namespaces.tried");
        fs::File::options()
            .append(true)
            .open(&tried)
            .and_then(|file| file.set_modified(UNIX_EPOCH))
            .expect("utimensat");
        let fetched = user.prints(&["exec", "web", "busybox", "sh", "-c", &fetch("198.51.100.1")]);
        assert_eq!(fetched, "from outside\n");
        assert_ne!(user.pid_in("namespaces.out"), Some(out));
        user.prints(&["rm", "-f", "web"]);
    });
}

#[test]
fn c20_who_has_no_range_of_ids_is_told_how_to_get_one() {
    let user = User::new();
    user.file("ranges", "bob:1:2\n");
    user.refuses(&["ps"], "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann` gives one");
    // Nobody was left to keep anything.
    assert_eq!(user.pid_in("namespaces"), None);
    let output = user.command(&["ps"]).env_remove("XDG_RUNTIME_DIR").output().expect("unshare");
    assert!(text(&output.stderr).contains("$XDG_RUNTIME_DIR is not set"), "{}", text(&output.stderr));
}

//! Containers from their making to their end, each test in a network namespace of its own. The names begin with the rows
//! of the table of what users do.

use crate::harness::*;
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// busybox with users, a page, and a directory that is a volume.
pub fn site(engine: &Engine) {
    let busybox = fs::read("/bin/busybox").expect("apt-get install busybox-static");
    let mut archive = tar::Builder::new(Vec::new());
    let files: [(&str, &[u8], u32); 10] = [
        ("bin/", b"", 0o755),
        ("bin/busybox", &busybox, 0o755),
        ("etc/", b"", 0o755),
        ("etc/passwd", b"root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n", 0o644),
        ("etc/group", b"root:x:0:\nstaff:x:1001:\naudio:x:29:alice\n", 0o644),
        ("www/", b"", 0o755),
        ("www/index.html", b"a page\n", 0o644),
        ("data/", b"", 0o750),
        ("data/seed", b"from the image\n", 0o600),
        ("tmp/", b"", 0o1777),
    ];
    for (path, bytes, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        archive.append_data(&mut header, path, bytes).expect("a vector");
    }
    for applet in [
        "cat", "chmod", "date", "echo", "env", "false", "hostname", "httpd", "id", "ip", "kill", "ls",
        "mkdir", "mount", "nc", "nslookup", "ping", "pwd", "readlink", "rm", "sh", "sleep", "stat", "stty",
        "touch", "true", "wget",
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("a vector");
    }
    let bytes = archive.into_inner().expect("a vector");
    let changes = ["CMD [\"sh\"]", "EXPOSE 80", "WORKDIR /www", "ENV LEVEL=1"];
    let mut arguments = vec!["import", "-q"];
    for change in &changes {
        arguments.extend(["-c", change]);
    }
    arguments.retain(|word| *word != "-q");
    arguments.extend(["-", "site"]);
    let output = engine.fed(&arguments, &bytes);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

/// An engine with the image `site`, in a network namespace of its own.
pub fn with_site(test: impl FnOnce(&Engine) + Send + 'static) {
    alone(|| {
        let engine = Engine::new();
        site(&engine);
        test(&engine);
    });
}

/// What `run` gives: its code, and both outputs.
pub fn ran(engine: &Engine, arguments: &[&str]) -> (i32, String, String) {
    let output = engine.run(&[&["run", "--rm"], arguments].concat());
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Standard output of a container that has nothing to complain about.
#[track_caller]
pub fn says(engine: &Engine, arguments: &[&str]) -> String {
    let (code, out, err) = ran(engine, arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    out
}

/// A part of what `inspect` prints.
#[track_caller]
pub fn shown(engine: &Engine, container: &str, pointer: &str) -> Value {
    let value: Value = serde_json::from_str(&engine.prints(&["inspect", container])).expect("JSON");
    value[0].pointer(pointer).cloned().unwrap_or_else(|| panic!("{pointer}: {}", value[0]))
}

/// Waits for something that comes by itself.
#[track_caller]
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a web server answers.
pub fn page(at: &str) -> Option<String> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

fn links() -> usize {
    let output = Command::new("ip").args(["-o", "link"]).output().expect("iproute2");
    text(&output.stdout).lines().filter(|line| line.contains("veth")).count()
}

#[test]
fn i18_run_hello_needs_no_registry() {
    alone(|| {
        let engine = Engine::new();
        let said = engine.prints(&["run", "--rm", "hello"]);
        assert!(said.starts_with("\nHello from a container.\n"), "{said}");
        assert_eq!(engine.prints(&["images", "--format", "{{.Repository}}:{{.Tag}}"]), "hello:latest\n");
        assert_eq!(engine.prints(&["run", "--rm", "--network", "none", "hello"]), said);
    });
}

#[test]
fn c1_run_makes_a_container_that_knows_its_name() {
    with_site(|engine| {
        let id = engine.prints(&["run", "-d", "--name", "web", "site", "sleep", "1000"]);
        let id = id.trim_end();
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let hostname = engine.root().join("containers").join(id).join("hostname");
        assert_eq!(fs::read_to_string(hostname).expect("read"), format!("{}\n", &id[..12]));
        let conflict = engine.run(&["run", "-d", "--name", "web", "site", "true"]);
        assert_eq!(conflict.status.code(), Some(125));
        assert!(
            text(&conflict.stderr).contains("The container name \"/web\" is already in use by container")
        );
        let refusal = engine.refuses(&["create", "--name", "web", "site", "true"]);
        assert!(refusal.contains("is already in use by container"), "{refusal}");
        // A made-up name has two parts.
        let id = engine.prints(&["create", "site"]);
        let name = shown(engine, id.trim_end(), "/Name");
        assert!(name.as_str().expect("a name").contains('_'), "{name}");
        assert_eq!(shown(engine, "web", "/State/Status"), "running");
        assert_eq!(shown(engine, id.trim_end(), "/State/Status"), "created");
        assert_eq!(
            says(
                engine,
                &["--hostname", "box", "site", "sh", "-c", "hostname; echo $LEVEL; pwd; echo $HOSTNAME"]
            ),
            "box\n1\n/www\nbox\n"
        );
    });
}

#[test]
fn c2_exit_codes_are_dockers() {
    with_site(|engine| {
        let code = |arguments: &[&str]| ran(engine, arguments).0;
        assert_eq!(code(&["site", "sh", "-c", "exit 7"]), 7);
        engine.prints(&["run", "-d", "--name", "killed", "site", "sleep", "1000"]);
        engine.prints(&["kill", "killed"]);
        assert_eq!(engine.prints(&["wait", "killed"]), "137\n");
        engine.prints(&["rm", "killed"]);
        assert_eq!(code(&["site", "nothing"]), 127);
        assert_eq!(code(&["site", "/etc/passwd"]), 126);
        assert_eq!(code(&["--memory", "1", "site", "true"]), 125);
        assert_eq!(code(&["--no-such-flag", "site", "true"]), 125);
        assert_eq!(code(&["nosuch:image", "true"]), 125);
        // Nothing of those that could not be executed is left.
        assert_eq!(fs::read_dir(engine.root().join("containers")).expect("readdir").count(), 0);
        eventually("its link goes", || links() == 0);
    });
}

#[test]
fn c2_a_container_that_cannot_be_started_says_why_and_not_how_it_ended_before() {
    with_site(|engine| {
        let said = |name: &str| {
            let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.StartedAt}} {{.State.Error}}";
            engine.prints(&["inspect", "-f", format, name])
        };
        for (name, program, code) in [("none", "nothing", 127), ("no-program", "/etc/passwd", 126)] {
            assert_eq!(engine.run(&["run", "--name", name, "site", program]).status.code(), Some(code));
            let said = said(name);
            assert!(said.starts_with(&format!("created {code} 0001-01-01T00:00:00Z ")), "{said}");
            assert!(said.contains(program), "{said}");
        }
        let port = ["-p", "127.0.0.1:18083:80", "site", "sh", "-c"];
        assert_eq!(
            engine.run(&[&["run", "--name", "ran"], &port[..], &["exit 3"]].concat()).status.code(),
            Some(3)
        );
        engine.prints(&[&["run", "-d", "--name", "other"], &port[..], &["sleep 1000"]].concat());
        engine.refuses(&["start", "ran"]);
        let said = said("ran");
        assert!(said.starts_with("exited 128 0001-01-01T00:00:00Z "), "{said}");
        assert!(said.contains("port is already allocated"), "{said}");
        engine.prints(&["rm", "-f", "other"]);
        engine.run(&["start", "ran"]);
        assert_eq!(engine.prints(&["wait", "ran"]), "3\n");
    });
}

#[test]
fn c2_at_the_moment_of_its_end_a_container_was_not_just_created() {
    with_site(|engine| {
        engine.prints(&["create", "--name", "short", "site", "sh", "-c", "sleep 0.2; exit 3"]);
        for _ in 0..5 {
            engine.prints(&["start", "short"]);
            let is = || engine.prints(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "short"]);
            let mut said = is();
            while said != "exited 3\n" {
                assert_eq!(said, "running 0\n");
                said = is();
            }
        }
    });
}

#[test]
fn c4_start_stop_and_restart_take_several_and_say_each() {
    with_site(|engine| {
        for name in ["one", "two"] {
            engine.prints(&[
                "create",
                "--name",
                name,
                "site",
                "sh",
                "-c",
                "echo up >>/log; trap 'exit 5' TERM; sleep 1000 & wait",
            ]);
        }
        assert_eq!(engine.prints(&["start", "one", "two"]), "one\ntwo\n");
        assert_eq!(engine.prints(&["start", "one"]), "one\n");
        let upper = |name: &str| {
            Path::new(shown(engine, name, "/GraphDriver/Data/UpperDir").as_str().expect("a path")).to_owned()
        };
        eventually("it has written", || {
            fs::read_to_string(upper("one").join("log")).is_ok_and(|log| log == "up\n")
        });
        assert_eq!(engine.prints(&["restart", "one"]), "one\n");
        // What it wrote is kept.
        eventually("it has written again", || {
            fs::read_to_string(upper("one").join("log")).is_ok_and(|log| log == "up\nup\n")
        });
        assert_eq!(engine.prints(&["stop", "one", "two"]), "one\ntwo\n");
        assert_eq!(shown(engine, "one", "/State/ExitCode"), 5);
        assert_eq!(shown(engine, "one", "/State/Status"), "exited");
        assert_eq!(engine.prints(&["stop", "one"]), "one\n");
        let refused = engine.run(&["stop", "nobody", "two"]);
        assert_eq!((refused.status.code(), text(&refused.stdout).as_str()), (Some(1), "two\n"));
        assert_eq!(text(&refused.stderr), "Error: No such container: nobody\n");
        // Who does not listen to SIGTERM is killed.
        engine.prints(&[
            "run",
            "-d",
            "--name",
            "deaf",
            "site",
            "sh",
            "-c",
            "trap '' TERM; while true; do sleep 1; done",
        ]);
        let begun = Instant::now();
        engine.prints(&["stop", "-t", "1", "deaf"]);
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!(shown(engine, "deaf", "/State/ExitCode"), 137);
    });
}

#[test]
fn c4_a_stop_with_much_patience_keeps_nobody_from_ending_it() {
    with_site(|engine| {
        // As process 1 it does not end by SIGTERM.
        let run = ["site", "sh", "-c", "trap : TERM; while :; do sleep 0.1; done"];
        for (name, rm) in [("aa", false), ("bb", true), ("cc", false)] {
            let flags = ["run", "-d", "--name", name, if rm { "--rm" } else { "--init=false" }];
            let id = engine.prints(&[&flags[..], &run].concat());
            let mut patient = engine.command(&["stop", "-t", "3600", name]);
            let mut patient = patient.stdout(Stdio::null()).spawn().expect("rrunctl starts");
            let lock = engine.root().join("containers").join(id.trim()).join("lock");
            eventually("it is locked", || {
                Command::new("flock").arg("-n").arg(&lock).arg("true").status().is_ok_and(|s| !s.success())
            });
            match name {
                "cc" => assert_eq!(engine.prints(&["rm", "-f", name]), "cc\n"),
                _ => assert_eq!(engine.prints(&["stop", "-t", "1", name]), format!("{name}\n")),
            }
            assert!(patient.wait().expect("it ends").success(), "{name}");
        }
        assert_eq!(shown(engine, "aa", "/State/ExitCode"), 137);
        assert_eq!(engine.prints(&["ps", "-a", "--format", "{{.Names}}"]), "aa\n");
    });
}

#[test]
fn c8_cp_works_both_ways_running_and_stopped() {
    with_site(|engine| {
        let here = engine.path("here");
        fs::create_dir_all(here.join("dir/sub")).expect("mkdir");
        fs::write(here.join("file"), "hello\n").expect("write");
        fs::write(here.join("dir/sub/deep"), "deep\n").expect("write");
        let local = |path: &str| here.join(path).display().to_string();
        engine.prints(&["run", "-d", "--name", "up", "-v", "vol:/vol", "site", "sleep", "1000"]);
        engine.prints(&["create", "--name", "down", "-v", "vol:/vol", "site", "true"]);
        for name in ["up", "down"] {
            let to = |path: &str| format!("{name}:{path}");
            engine.prints(&["cp", &local("file"), &to("/tmp/")]);
            engine.prints(&["cp", &local("file"), &to("/tmp/other")]);
            // A directory into one that is there, one that is not, and only what is in it.
            engine.prints(&["cp", &local("dir"), &to("/tmp")]);
            engine.prints(&["cp", &local("dir"), &to("/tmp/new")]);
            engine.prints(&["cp", &local("dir/."), &to("/www")]);
            // A volume is where the container has it.
            engine.prints(&["cp", &local("file"), &to(&format!("/vol/{name}"))]);
            for (path, content) in [
                ("/tmp/file", "hello\n"),
                ("/tmp/other", "hello\n"),
                ("/tmp/dir/sub/deep", "deep\n"),
                ("/tmp/new/sub/deep", "deep\n"),
                ("/www/sub/deep", "deep\n"),
                ("/www/index.html", "a page\n"),
                (&format!("/vol/{name}"), "hello\n"),
                ("etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n"),
            ] {
                let back = local(&format!("{name}-back"));
                engine.prints(&["cp", &to(path), &back]);
                assert_eq!(fs::read_to_string(&back).expect(path), content, "{name} {path}");
                fs::remove_file(back).expect("remove");
            }
            let refused = engine.refuses(&["cp", &to("/nowhere"), &local("x")]);
            assert_eq!(refused, format!("Could not find the file /nowhere in container {name}"));
            let refused = engine.refuses(&["cp", &local("dir"), &to("/etc/passwd")]);
            assert_eq!(refused, "cannot copy directory");
            let stream = engine.run(&["cp", &to("/etc/passwd"), "-"]);
            assert!(text(&piped("tar", &["t"], &stream.stdout)).contains("passwd"));
        }
        // A link in the container leads nowhere else.
        engine.prints(&[
            "run",
            "--name",
            "evil",
            "site",
            "sh",
            "-c",
            "rm -r /tmp; ln -s / /tmp 2>/dev/null || busybox ln -s /etc /tmp",
        ]);
        let target = engine.path("rrunctl-canary");
        engine.prints(&["cp", &local("file"), "evil:/tmp/rrunctl-canary"]);
        assert!(!target.exists() && !Path::new("/etc/rrunctl-canary").exists());
        assert_eq!(engine.refuses(&["cp", "a", "b"]), "must specify at least one container source");
    });
}

#[test]
fn c9_rm_takes_what_runs_by_force_and_volumes_without_a_name() {
    with_site(|engine| {
        engine.prints(&[
            "run",
            "-d",
            "--name",
            "web",
            "-v",
            "/data",
            "-v",
            "named:/named",
            "site",
            "sleep",
            "1000",
        ]);
        let volume = shown(engine, "web", "/Mounts/0/Name").as_str().expect("a volume").to_owned();
        let refused = engine.refuses(&["rm", "web"]);
        assert_eq!(
            refused,
            "cannot remove container \"/web\": container is running: stop the container before removing or force remove"
        );
        // Flags may stand behind, as people write them.
        assert_eq!(engine.prints(&["rm", "web", "-f", "-v"]), "web\n");
        let left = engine.prints(&["volume", "ls", "-q"]);
        assert_eq!(left, "named\n", "{volume}");
        assert_eq!(engine.run(&["rm", "-f", "web"]).status.code(), Some(0));
        assert_eq!(engine.refuses(&["rm", "web"]), "No such container: web");
        eventually("its link goes", || links() == 0);
    });
}

#[test]
fn c13_the_process_has_the_user_the_variables_and_the_directory() {
    with_site(|engine| {
        let id = "id; pwd; echo $HOME $A $B";
        assert_eq!(
            says(
                engine,
                &["--user", "alice", "-w", "/tmp", "-e", "A=1", "-e", "B=2", "site", "sh", "-c", id]
            ),
            "uid=1000(alice) gid=1001(staff) groups=29(audio),1001(staff)\n/tmp\n/home/alice 1 2\n"
        );
        assert_eq!(says(engine, &["-u", "1000:1001", "site", "sh", "-c", "id -u; id -g"]), "1000\n1001\n");
        assert_eq!(says(engine, &["-w", "/new/place", "site", "pwd"]), "/new/place\n");
        let (code, _, err) = ran(engine, &["-u", "nobodyhere", "site", "true"]);
        assert_eq!(code, 125);
        assert!(err.contains("unable to find user nobodyhere"), "{err}");
    });
}

#[test]
fn c13_whoever_starts_it_with_whatever_umask_its_user_reads_what_is_made_for_it() {
    with_site(|engine| {
        let path = |name: &str| engine.path(name).display().to_string();
        let (made, cidfile) = (format!("{}:/m", path("made")), path("cidfile"));
        let flags = ["run", "--rm", "-u", "alice", "-v", "volume:/v", "-v", &made, "--cidfile", &cidfile];
        let script = "cat /etc/hosts /etc/hostname /etc/resolv.conf >/dev/null && ls /v && ls /m && umask";
        let plain = engine.command(&[&flags[..], &["site", "sh", "-c", script]].concat());
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(plain.get_program());
        let output = command.args(plain.get_args()).output().expect("sh starts");
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("0022\n", ""));
        let mode = |name: &str| fs::metadata(path(name)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode("made"), mode("cidfile")), (0o755, 0o600));
    });
}

#[test]
fn c14_restart_policies_start_it_again() {
    with_site(|engine| {
        let count = |name: &str| shown(engine, name, "/RestartCount").as_i64().expect("a number");
        engine.prints(&[
            "run",
            "-d",
            "--name",
            "twice",
            "--restart",
            "on-failure:2",
            "site",
            "sh",
            "-c",
            "exit 3",
        ]);
        eventually("it was started three times", || {
            shown(engine, "twice", "/State/Status") == "exited" && count("twice") == 2
        });
        assert_eq!(shown(engine, "twice", "/State/ExitCode"), 3);
        engine.prints(&["run", "-d", "--name", "always", "--restart", "always", "site", "sleep", "1000"]);
        engine.prints(&[
            "run",
            "-d",
            "--name",
            "unless",
            "--restart",
            "unless-stopped",
            "site",
            "sleep",
            "1000",
        ]);
        let pid = shown(engine, "always", "/State/Pid");
        Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
        eventually("it runs again", || {
            shown(engine, "always", "/State/Status") == "running"
                && shown(engine, "always", "/State/Pid") != pid
        });
        // Whoever stops it means it, and a boot starts it all the same; but not `unless-stopped`.
        engine.prints(&["stop", "-t", "1", "always", "unless"]);
        engine.prints(&["system", "restore"]);
        for name in ["always", "unless", "twice"] {
            assert_eq!(shown(engine, name, "/State/Status"), "exited", "{name}: nobody booted");
        }
        for name in ["always", "unless", "twice"] {
            let id = shown(engine, name, "/Id");
            fs::remove_dir_all(engine.path("run").join(id.as_str().expect("an id"))).expect("remove");
        }
        engine.prints(&["system", "restore"]);
        assert_eq!(shown(engine, "always", "/State/Status"), "running");
        assert_eq!(shown(engine, "unless", "/State/Status"), "exited");
        assert_eq!(shown(engine, "twice", "/State/Status"), "exited", "its retries are used up");
        let refused = engine.run(&["run", "--rm", "--restart", "always", "site", "true"]);
        assert_eq!(refused.status.code(), Some(125));
    });
}

#[test]
fn c15_a_link_is_a_name_and_variables() {
    with_site(|engine| {
        let refused = engine.run(&["run", "--rm", "--link", "nobody:db", "site", "true"]);
        assert_eq!(refused.status.code(), Some(125));
        engine.prints(&["create", "--name", "asleep", "site", "true"]);
        let refused = engine.run(&["run", "--rm", "--name", "app", "--link", "asleep:db", "site", "true"]);
        assert!(
            text(&refused.stderr).contains("Cannot link to a non running container: /asleep AS /app/db"),
            "{}",
            text(&refused.stderr)
        );
        engine.prints(&[
            "run",
            "-d",
            "--name",
            "mysql2",
            "-e",
            "MYSQL_ROOT_PASSWORD=x",
            "site",
            "sleep",
            "1000",
        ]);
        let said = says(
            engine,
            &["--name", "app", "--link", "mysql2:mysql", "site", "sh", "-c", "cat /etc/hosts; env"],
        );
        let address = shown(engine, "mysql2", "/NetworkSettings/IPAddress");
        let address = address.as_str().expect("an address");
        assert!(said.contains(&format!("{address}\tmysql ")), "{said}");
        for variable in [
            format!("MYSQL_PORT=tcp://{address}:80"),
            "MYSQL_NAME=/app/mysql".to_owned(),
            "MYSQL_ENV_MYSQL_ROOT_PASSWORD=x".to_owned(),
        ] {
            assert!(said.lines().any(|line| line == variable), "{variable}: {said}");
        }
    });
}

#[test]
fn c16_what_a_container_writes_is_its_own_and_goes_with_it() {
    with_site(|engine| {
        engine.prints(&[
            "run",
            "--name",
            "aa",
            "site",
            "sh",
            "-c",
            "echo mine >/www/new; rm /www/index.html; chmod 700 /data",
        ]);
        assert_eq!(engine.prints(&["diff", "aa"]), "C /data\nC /www\nD /www/index.html\nA /www/new\n");
        assert_eq!(says(engine, &["site", "ls", "/www"]), "index.html\n");
        engine.prints(&["rm", "aa"]);
        assert_eq!(fs::read_dir(engine.root().join("containers")).expect("readdir").count(), 0);
    });
}

#[test]
fn c17_n6_an_edited_hostconfig_json_holds_from_the_next_start() {
    with_site(|engine| {
        let id = engine.prints(&["run", "-d", "--name", "web", "site", "httpd", "-f", "-h", "/www"]);
        let file = engine.root().join("containers").join(id.trim_end()).join("hostconfig.json");
        let mut host: Value = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
        host["PortBindings"] = serde_json::json!({"80/tcp": [{"HostIp": "", "HostPort": "18080"}]});
        fs::write(&file, host.to_string()).expect("write");
        assert_eq!(page("127.0.0.1:18080"), None);
        engine.prints(&["restart", "-t", "1", "web"]);
        eventually("the port is published", || page("127.0.0.1:18080").as_deref() == Some("a page\n"));
        engine.prints(&["stop", "-t", "1", "web"]);
        fs::write(&file, "{ no JSON").expect("write");
        let refused = engine.refuses(&["start", "web"]);
        assert!(refused.contains("hostconfig.json: key must be a string at line 1"), "{refused}");
        fs::write(&file, host.to_string()).expect("write");
    });
}

/// Adds to `site` what a system's init reads.
fn with_system(test: impl FnOnce(&Engine) + Send + 'static) {
    with_site(|engine| {
        // As `lxc-create` leaves it: a directory with a root file system.
        let dir = engine.path("alpine");
        fs::create_dir_all(&dir).expect("mkdir");
        engine.prints(&["create", "--name", "from", "site"]);
        let exported = engine.run(&["export", "from"]).stdout;
        engine.prints(&["rm", "from"]);
        let inittab = "::sysinit:/bin/hostname -F /etc/hostname\n::respawn:/bin/httpd -f -h /www\n\
                       ::respawn:/bin/sleep 1000\n";
        piped("tar", &["-x", "-C", dir.to_str().expect("UTF-8")], &exported);
        fs::create_dir_all(dir.join("sbin")).expect("mkdir");
        std::os::unix::fs::symlink("/bin/busybox", dir.join("sbin/init")).expect("symlink");
        fs::write(dir.join("etc/inittab"), inittab).expect("write");
        let packed = piped("tar", &["-c", "-C", dir.to_str().expect("UTF-8"), "."], b"");
        let imported = engine.fed(&["import", "-c", "CMD [\"/sbin/init\"]", "-", "alpine:3.9"], &packed);
        assert!(imported.status.success(), "{}", text(&imported.stderr));
        test(engine);
    });
}

#[test]
fn an_init_hands_on_real_time_signals_too() {
    with_site(|engine| {
        let script = "trap 'exit 7' 40; echo ready; while :; do sleep 0.1; done";
        engine.prints(&["run", "-d", "--init", "--name", "rt", "site", "sh", "-c", script]);
        eventually("it is ready", || engine.prints(&["logs", "rt"]) == "ready\n");
        engine.prints(&["kill", "-s", "40", "rt"]);
        assert_eq!(engine.prints(&["wait", "rt"]), "7\n");
    });
}

#[test]
fn a_program_begins_with_no_signal_blocked_or_ignored() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "box", "site", "sleep", "1000"]);
        let look = ["cat", "/proc/self/status"];
        for how in [
            &["run", "--rm", "site"][..],
            &["run", "--rm", "-i", "site"],
            &["run", "--rm", "--init", "site"],
            &["exec", "box"],
            &["exec", "-i", "box"],
        ] {
            let said = engine.prints(&[how, &look].concat());
            for mask in ["SigBlk", "SigIgn"] {
                let line = said.lines().find_map(|line| line.strip_prefix(mask)).expect("a mask");
                assert_eq!(line, ":\t0000000000000000", "{mask} of {how:?}");
            }
        }
        // So that it is ended by the first one.
        engine.prints(&["run", "-d", "--name", "init", "--init", "site", "sleep", "1000"]);
        engine.prints(&["stop", "-t", "20", "init"]);
        assert_eq!(shown(engine, "init", "/State/ExitCode"), 143);
    });
}

#[test]
fn c18_a_system_with_its_own_init_runs_and_is_entered() {
    with_system(|engine| {
        engine.prints(&[
            "run",
            "-d",
            "--name",
            "sys",
            "--hostname",
            "sys",
            "--cap-add",
            "SYS_BOOT",
            "--restart",
            "on-failure:1",
            "alpine:3.9",
        ]);
        let address = shown(engine, "sys", "/NetworkSettings/IPAddress").as_str().expect("one").to_owned();
        let runs =
            || eventually("its server", || page(&format!("{address}:80")).as_deref() == Some("a page\n"));
        runs();
        let exec = |script: &str| engine.prints(&["exec", "sys", "busybox", "sh", "-c", script]);
        // All namespaces are init's, and so is whoever comes in.
        let all = "mnt uts ipc pid net cgroup user";
        let same = format!(
            "for n in {all}; do busybox test \"$(busybox readlink /proc/self/ns/$n)\" = \
             \"$(busybox readlink /proc/1/ns/$n)\" || echo $n; done; busybox hostname"
        );
        assert_eq!(exec(&same), "sys\n");
        assert!(exec("busybox cat /proc/1/cmdline").starts_with("init"));
        // What it is for: what ends is started again, and orphans have somebody who waits for them.
        exec("busybox killall httpd; (busybox sleep 0.01 &)");
        runs();
        eventually("no zombies", || !exec("busybox ps -o stat").contains('Z'));
        // A reboot in there is the end of init by SIGHUP (pid_namespaces(7)), and a failure, so that it comes up again.
        engine.run(&["exec", "sys", "busybox", "reboot", "-f"]);
        eventually("it comes back", || shown(engine, "sys", "/RestartCount") == 1);
        runs();
        engine.prints(&["stop", "-t", "0", "sys"]);
        assert_eq!(shown(engine, "sys", "/State/ExitCode"), 137);
    });
}

#[test]
fn c19_a_service_is_run_by_hand_where_there_is_no_systemd() {
    with_site(|engine| {
        // As the main process, what ExecStart says with the word that keeps it in the foreground.
        engine.prints(&["run", "-d", "--name", "main", "site", "httpd", "-f", "-v", "-h", "/www"]);
        let at = |name: &str, port: u16| {
            let address = shown(engine, name, "/NetworkSettings/IPAddress");
            format!("{}:{port}", address.as_str().expect("an address"))
        };
        eventually("it serves", || page(&at("main", 80)).as_deref() == Some("a page\n"));
        assert!(engine.prints(&["top", "main", "-o", "pid,args"]).contains("httpd -f -v -h /www"));
        // Without it the container ends with the process that leaves.
        let (code, ..) = ran(engine, &["site", "httpd", "-h", "/www"]);
        assert_eq!(code, 0);
        // In a container that is there for something else, in the foreground of a detached exec, and as a daemon.
        engine.prints(&["run", "-d", "--name", "shell", "-i", "site", "sh"]);
        engine.prints(&["exec", "-d", "shell", "httpd", "-f", "-p", "81", "-h", "/www"]);
        engine.prints(&["exec", "shell", "httpd", "-p", "82", "-h", "/www"]);
        for port in [81, 82] {
            eventually("it serves", || page(&at("shell", port)).as_deref() == Some("a page\n"));
        }
        assert_eq!(shown(engine, "shell", "/State/Status"), "running");
    });
}

#[test]
fn c20_a_container_is_confined_by_a_profile_of_apparmor() {
    if !Path::new("/sys/kernel/security/apparmor").exists() {
        println!("skipped: needs AppArmor");
        return;
    }
    with_site(|engine| {
        let current = ["site", "cat", "/proc/self/attr/current"];
        let profile = says(engine, &current);
        assert!(
            ["rrunctl-default (enforce)\n", "docker-default (enforce)\n"].contains(&&*profile),
            "{profile}"
        );
        let free = ["--security-opt", "apparmor=unconfined"];
        assert_eq!(says(engine, &[&free[..], &current].concat()), "unconfined\n");
        let mounts = ["--cap-add", "SYS_ADMIN", "site", "mount", "-t", "tmpfs", "none", "/tmp"];
        let (code, _, err) = ran(engine, &mounts);
        assert_eq!((code != 0, err.contains("ermission denied")), (true, true), "{err}");
        assert_eq!(says(engine, &[&free[..], &mounts].concat()), "");
        // What runs is ended and entered all the same.
        engine.prints(&["run", "-d", "--name", "box", "site", "sleep", "1000"]);
        assert_eq!(engine.prints(&["exec", "box", "cat", "/proc/self/attr/current"]), profile);
        engine.prints(&["exec", "box", "sh", "-c", "sleep 1000 & kill $!"]);
        engine.prints(&["stop", "-t", "1", "box"]);
    });
}

#[test]
fn c20_privileges_are_given_only_when_asked_for() {
    with_site(|engine| {
        let mount = ["site", "mount", "-t", "tmpfs", "none", "/tmp"];
        assert_ne!(ran(engine, &mount).0, 0);
        assert_eq!(ran(engine, &[&["--privileged"][..], &mount].concat()).0, 0);
        // The profile of AppArmor, where there is one, denies it all the same.
        let admin = ["--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"];
        assert_eq!(ran(engine, &[&admin[..], &mount].concat()).0, 0);
        assert_ne!(ran(engine, &["--read-only", "site", "touch", "/new"]).0, 0);
        assert_eq!(ran(engine, &["--read-only", "--tmpfs", "/run", "site", "touch", "/run/new"]).0, 0);
        let limit =
            says(engine, &["--ulimit", "nofile=100:200", "site", "sh", "-c", "ulimit -n; ulimit -Hn"]);
        assert_eq!(limit, "100\n200\n");
        assert_eq!(
            says(
                engine,
                &["--sysctl", "net.core.somaxconn=77", "site", "cat", "/proc/sys/net/core/somaxconn"]
            ),
            "77\n"
        );
        assert!(says(engine, &["--init", "site", "cat", "/proc/1/cmdline"]).starts_with("/sbin/docker-init"));
        assert_eq!(
            says(engine, &["--device", "/dev/null:/dev/nix", "site", "stat", "-c", "%t:%T", "/dev/nix"]),
            "1:3\n"
        );
    });
}

#[test]
fn i10_commit_makes_an_image_of_what_was_written() {
    with_site(|engine| {
        engine.prints(&[
            "run",
            "--name",
            "aa",
            "-p",
            "18081:80",
            "-e",
            "ADDED=1",
            "site",
            "sh",
            "-c",
            "echo two >/www/index.html; rm -r /data",
        ]);
        let id = engine.prints(&["commit", "-a", "wy", "-m", "msg", "aa", "site:2"]);
        assert!(id.starts_with("sha256:") && id.trim_end().len() == 71, "{id}");
        assert_eq!(
            says(engine, &["site:2", "sh", "-c", "cat /www/index.html; ls /data 2>&1; echo $ADDED"]),
            "two\nls: /data: No such file or directory\n1\n"
        );
        let image = engine.inspect("site:2");
        assert_eq!((&image["Author"], &image["Comment"]), (&"wy".into(), &"msg".into()));
        assert_eq!(image["RootFS"]["Layers"].as_array().expect("layers").len(), 2);
        assert_eq!(image["Config"]["Env"][0], "ADDED=1");
        assert!(!image.to_string().contains("18081"), "ports are the container's");
        let layer = piped("tar", &["t"], &engine.run(&["export", "aa"]).stdout);
        assert!(text(&layer).contains("www/index.html"));
    });
}

#[test]
fn i5_an_image_with_a_layer_twice_starts() {
    with_site(|engine| {
        let mut image = busybox(&["twice:1"]);
        let empty = tar(&[("./", b"", 0o755)]);
        image.layers.insert(1, empty.clone());
        image.layers.push(empty);
        engine.loads(&image.archive());
        assert_eq!(says(engine, &["twice:1", "busybox", "cat", "/etc/motd"]), "hello\n");
    });
}

#[test]
fn i10_a_commit_that_fails_leaves_the_name_to_the_image_of_before() {
    with_site(|engine| {
        let script = "echo >/www/.a; echo >/www/.wh.x; echo >/www/late";
        engine.prints(&["run", "--name", "odd", "site", "sh", "-c", script]);
        let (before, images) = (engine.id("site"), engine.prints(&["images", "-aq"]));
        let refused = engine.refuses(&["commit", "odd", "site"]);
        assert!(refused.contains("\"www/.wh.x\": a layer cannot have a file of this name"), "{refused}");
        assert_eq!((engine.id("site"), engine.prints(&["images", "-aq"])), (before, images));
    });
}

/// A script in the place of another program, which stops until [`Stopped::go`].
struct Stopped(PathBuf);

impl Stopped {
    /// `script` has `$stop` where that is, and the program's arguments.
    fn new(path: PathBuf, script: &str) -> Self {
        let at = path.with_extension("stopped");
        let stop = format!("{{ echo >{0}; until [ -e {0}.go ]; do sleep 0.02; done; }}", at.display());
        fs::write(&path, format!("#!/bin/sh\n{}\n", script.replace("$stop", &stop))).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        Self(at)
    }

    /// Starts rrunctl, and returns when the program stands.
    fn starts(&self, command: &mut Command) -> Child {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rrunctl");
        eventually("the program is called", || self.0.exists());
        child
    }

    fn go(&self) {
        fs::write(self.0.with_extension("stopped.go"), "").expect("write");
    }
}

#[test]
fn i10_a_commit_that_is_killed_leaves_no_container_frozen() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "web", "site", "sleep", "1000"]);
        let path = engine.path("stopping");
        let plain = engine.command(&[]);
        let words: Vec<&str> = plain.get_args().filter_map(|word| word.to_str()).collect();
        let rrun = words[words.iter().position(|word| *word == "--oci-runtime").expect("it is named") + 1];
        let stopped = Stopped::new(
            path.clone(),
            &format!("{rrun} \"$@\" || exit; for word; do [ \"$word\" != pause ] || $stop; done"),
        );
        let runtime = ["--oci-runtime", path.to_str().expect("UTF-8")];
        let commit = [&runtime[..], &["commit", "web", "frozen"]].concat();
        let mut commit = stopped.starts(&mut engine.command(&commit));
        assert_eq!(shown(engine, "web", "/State/Status"), "paused");
        commit.kill().and_then(|()| commit.wait()).expect("SIGKILL");
        // Who comes next waits until it is thawed, and does not take it for frozen by somebody.
        let mut pause = engine.command(&["pause", "web"]).stdout(Stdio::null()).spawn().expect("rrunctl");
        let pid = format!(" {} ", pause.id());
        eventually("it waits", || {
            let locks = fs::read_to_string("/proc/locks").expect("/proc/locks");
            let waits = locks.lines().any(|lock| lock.contains("->") && lock.contains(&pid));
            waits || pause.try_wait().expect("wait").is_some()
        });
        stopped.go();
        eventually("it is thawed and paused", || pause.try_wait().expect("wait").is_some());
        assert!(pause.wait().expect("wait").success());
        assert_eq!(shown(engine, "web", "/State/Status"), "paused");
        engine.prints(&["unpause", "web"]);
        engine.prints(&["commit", "web", "thawed"]);
        assert_eq!(shown(engine, "web", "/State/Status"), "running");
    });
}

#[test]
fn i9_the_image_of_a_container_is_not_removed_under_it() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "web", "site", "sleep", "1000"]);
        let refused = engine.refuses(&["rmi", "site"]);
        assert!(
            refused.starts_with(
                "conflict: unable to remove repository reference \"site\" (must force) - container "
            ),
            "{refused}"
        );
        assert_eq!(engine.prints(&["rmi", "-f", "site"]), "Untagged: site:latest\n");
        assert_eq!(shown(engine, "web", "/State/Status"), "running");
        let id = shown(engine, "web", "/Image");
        engine.prints(&["tag", id.as_str().expect("an id"), "site:again"]);
        assert_eq!(says(engine, &["site:again", "echo", "there"]), "there\n");
    });
}

#[test]
fn i9_a_stopped_container_works_without_its_image() {
    with_site(|engine| {
        engine.prints(&["create", "--name", "left", "site", "cat", "/www/index.html"]);
        let removed = engine.prints(&["rmi", "-f", "site"]);
        assert!(removed.starts_with("Untagged: site:latest\nDeleted: sha256:"), "{removed}");
        let lower = shown(engine, "left", "/GraphDriver/Data/LowerDir");
        assert!(lower.as_str().is_some_and(|lower| lower.contains("/layers/")), "{lower}");
        assert_eq!(engine.prints(&["start", "-a", "left"]), "a page\n");
        let back = engine.path("back");
        engine.prints(&["cp", "left:/www/index.html", &back.display().to_string()]);
        assert_eq!(fs::read_to_string(&back).expect("it was copied"), "a page\n");
        engine.prints(&["cp", &back.display().to_string(), "left:/www/new"]);
        assert_eq!(engine.prints(&["diff", "left"]), "C /www\nA /www/new\n");
        let root = piped("tar", &["t"], &engine.run(&["export", "left"]).stdout);
        assert!(text(&root).contains("www/new"));
        engine.prints(&["commit", "left", "again"]);
        assert_eq!(says(engine, &["again", "cat", "/www/new"]), "a page\n");
        engine.prints(&["rm", "left"]);
        assert_eq!(says(engine, &["again", "cat", "/www/index.html"]), "a page\n");
    });
}

#[test]
fn e6_n1_host_and_containers_reach_each_other() {
    with_site(|engine| {
        // Of this network namespace.
        let forwards = "/proc/sys/net/ipv4/ip_forward";
        fs::write(forwards, "0").expect("write");
        engine.prints(&["run", "-d", "--name", "web", "site", "httpd", "-f", "-h", "/www"]);
        let address =
            shown(engine, "web", "/NetworkSettings/IPAddress").as_str().expect("an address").to_owned();
        assert_eq!(shown(engine, "web", "/NetworkSettings/Gateway"), "172.17.0.1");
        assert_eq!(shown(engine, "web", "/NetworkSettings/IPPrefixLen"), 16);
        eventually("the host reaches it", || page(&format!("{address}:80")).as_deref() == Some("a page\n"));
        assert_eq!(says(engine, &["site", "wget", "-qO-", &format!("http://{address}/")]), "a page\n");
        assert_eq!(fs::read_to_string(forwards).expect("read"), "1\n");
    });
}

#[test]
fn n2_host_and_none_are_networks_too() {
    with_site(|engine| {
        let own = fs::read_link("/proc/thread-self/ns/net").expect("readlink").display().to_string();
        assert_eq!(
            says(engine, &["--network", "host", "site", "readlink", "/proc/self/ns/net"]).trim_end(),
            own
        );
        let links = says(engine, &["--network", "none", "site", "ip", "-o", "link"]);
        assert_eq!(links.lines().count(), 1, "{links}");
        engine.prints(&["run", "-d", "--name", "web", "site", "httpd", "-f", "-h", "/www"]);
        assert_eq!(
            says(engine, &["--network", "container:web", "site", "wget", "-qO-", "http://127.0.0.1/"]),
            "a page\n"
        );
        let (code, _, err) = ran(engine, &["--network", "nowhere", "site", "true"]);
        assert_eq!(code, 125);
        assert!(err.contains("network nowhere not found"), "{err}");
    });
}

#[test]
fn n5_ports_are_published_and_conflicts_refused() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "web", "-p", "18082:80", "site", "httpd", "-f", "-h", "/www"]);
        for at in ["127.0.0.1:18082", "[::1]:18082"] {
            eventually(at, || page(at).as_deref() == Some("a page\n"));
        }
        let refused = engine.run(&["run", "-d", "--name", "second", "-p", "18082:80", "site", "true"]);
        assert_eq!(refused.status.code(), Some(125));
        assert!(text(&refused.stderr).contains("port is already allocated"), "{}", text(&refused.stderr));
        engine.prints(&["rm", "-f", "web"]);
        assert_eq!(page("127.0.0.1:18082"), None);
        engine.prints(&["start", "second"]);
        engine.prints(&["run", "-d", "--name", "any", "-P", "site", "httpd", "-f", "-h", "/www"]);
        let port = shown(engine, "any", "/NetworkSettings/Ports/80~1tcp/0/HostPort");
        let port: u16 = port.as_str().expect("a port").parse().expect("a number");
        assert!(port >= 32768, "{port}");
        eventually("it answers", || page(&format!("127.0.0.1:{port}")).as_deref() == Some("a page\n"));
    });
}

#[test]
fn n5_whoever_has_seen_the_end_of_a_container_may_have_its_port() {
    with_site(|engine| {
        let with = |words: &[&str], script: &str| {
            let run = ["--name", "web", "-p", "127.0.0.1:18082:80", "site", "sh", "-c", script];
            engine.prints(&[&["run"], words, &run].concat());
        };
        for _ in 0..3 {
            with(&[], "true");
            engine.prints(&["rename", "web", "before"]);
            with(&["-d"], "sleep 0.2");
            assert_eq!(engine.prints(&["wait", "web"]), "0\n");
            assert_eq!(engine.prints(&["start", "-a", "before"]), "");
            engine.prints(&["start", "web"]);
            engine.prints(&["rm", "-f", "web", "before"]);
        }
    });
}

#[test]
fn n3_containers_of_a_network_know_each_other_by_name() {
    with_site(|engine| {
        engine.prints(&["network", "create", "mynet"]);
        engine.prints(&[
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "mynet",
            "--network-alias",
            "www",
            "site",
            "httpd",
            "-f",
            "-h",
            "/www",
        ]);
        for name in ["web", "www"] {
            assert_eq!(
                says(engine, &["--network", "mynet", "site", "wget", "-qO-", &format!("http://{name}/")]),
                "a page\n"
            );
        }
        // A container that is in it later is known too.
        engine.prints(&["run", "-d", "--name", "late", "site", "httpd", "-f", "-h", "/www"]);
        engine.prints(&["network", "connect", "--alias", "other", "mynet", "late"]);
        assert_eq!(
            says(engine, &["--network", "mynet", "site", "wget", "-qO-", "http://other/"]),
            "a page\n"
        );
        engine.prints(&["network", "disconnect", "mynet", "late"]);
        assert_ne!(
            ran(engine, &["--network", "mynet", "site", "wget", "-T", "3", "-qO-", "http://other/"]).0,
            0
        );
        // A new name is known at once, and the old one no more.
        engine.prints(&["rename", "web", "site"]);
        assert_eq!(says(engine, &["--network", "mynet", "site", "wget", "-qO-", "http://site/"]), "a page\n");
        assert_ne!(
            ran(engine, &["--network", "mynet", "site", "wget", "-T", "3", "-qO-", "http://web/"]).0,
            0
        );
        let refused = engine.refuses(&["network", "rm", "mynet"]);
        assert!(refused.contains("has active endpoints"), "{refused}");
    });
}

#[test]
fn n8_the_network_namespace_is_a_file_that_nsenter_takes() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "web", "site", "sleep", "1000"]);
        let key = shown(engine, "web", "/NetworkSettings/SandboxKey");
        let address = shown(engine, "web", "/NetworkSettings/IPAddress");
        let output = Command::new("nsenter")
            .args([&format!("--net={}", key.as_str().expect("a path")), "ip", "-o", "addr"])
            .output()
            .expect("util-linux");
        assert!(
            text(&output.stdout).contains(address.as_str().expect("an address")),
            "{}",
            text(&output.stderr)
        );
    });
}

#[test]
fn n9_a_container_has_namespaces_of_its_own_but_for_users_and_time() {
    with_site(|engine| {
        // As docker, of cgroups only with cgroup v2 unless it is asked for.
        engine.prints(&["run", "-d", "--name", "web", "--cgroupns", "private", "site", "sleep", "1000"]);
        let pid = shown(engine, "web", "/State/Pid");
        let of = |process: &str, kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).expect(kind);
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts", "user", "time"] {
            let is_own = of(&pid.to_string(), kind) != of("thread-self", kind);
            assert_eq!(is_own, !["user", "time"].contains(&kind), "{kind}");
        }
        let target = format!("--target={pid}");
        let nsenter = [&*target, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "/bin/hostname"];
        let output = Command::new("nsenter").args(nsenter).output().expect("util-linux");
        assert_eq!(
            text(&output.stdout),
            shown(engine, "web", "/Config/Hostname").as_str().expect("one").to_owned() + "\n"
        );
    });
}

#[test]
fn v1_volumes_are_filled_once_and_outlive_containers() {
    with_site(|engine| {
        assert_eq!(engine.prints(&["volume", "create", "mydb"]), "mydb\n");
        let script = "cat /data/seed; echo more >/data/more; stat -c %a /data";
        assert_eq!(says(engine, &["-v", "mydb:/data", "site", "sh", "-c", script]), "from the image\n750\n");
        assert_eq!(says(engine, &["-v", "mydb:/elsewhere", "site", "cat", "/elsewhere/more"]), "more\n");
        // A bind's source is made, and nothing is copied to it.
        let source = engine.path("made/by/run");
        let bind = format!("{}:/data", source.display());
        assert_eq!(says(engine, &["-v", &bind, "site", "ls", "/data"]), "");
        assert!(source.is_dir());
        assert_ne!(ran(engine, &["-v", "mydb:/data:ro", "site", "touch", "/data/x"]).0, 0);
        engine.prints(&["create", "--name", "user", "-v", "mydb:/data", "site", "true"]);
        let refused = engine.refuses(&["volume", "rm", "mydb"]);
        assert!(refused.starts_with("remove mydb: volume is in use - ["), "{refused}");
        engine.prints(&["rm", "user"]);
        assert_eq!(engine.prints(&["volume", "rm", "mydb"]), "mydb\n");
        // One that nobody named goes with `--rm`.
        says(engine, &["-v", "/data", "site", "true"]);
        assert_eq!(engine.prints(&["volume", "ls", "-q"]), "");
    });
}

#[test]
fn a_pause_freezes_and_an_update_holds_at_once() {
    with_site(|engine| {
        engine.prints(&[
            "run",
            "-d",
            "--name",
            "web",
            "--memory",
            "64m",
            "site",
            "sh",
            "-c",
            "while true; do date >/tmp/now; sleep 0.1; done",
        ]);
        engine.prints(&["pause", "web"]);
        assert_eq!(shown(engine, "web", "/State/Status"), "paused");
        assert_eq!(
            engine.refuses(&["pause", "web"]).split(' ').skip(2).collect::<Vec<_>>(),
            ["is", "already", "paused"]
        );
        assert!(engine.refuses(&["rm", "web"]).contains("container is paused and must be unpaused first"));
        engine.prints(&["unpause", "web"]);
        assert_eq!(shown(engine, "web", "/State/Status"), "running");
        engine.prints(&["update", "--memory", "100m", "--restart", "always", "web"]);
        assert_eq!(shown(engine, "web", "/HostConfig/Memory"), 100 << 20);
        assert_eq!(shown(engine, "web", "/HostConfig/RestartPolicy/Name"), "always");
        // The next run by policy has the new limit, too.
        let pid = shown(engine, "web", "/State/Pid");
        Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
        eventually("it runs again", || {
            shown(engine, "web", "/State/Status") == "running" && shown(engine, "web", "/State/Pid") != pid
        });
        let limit = "cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes";
        assert_eq!(engine.prints(&["exec", "web", "sh", "-c", limit]), format!("{}\n", 100 << 20));
        engine.prints(&["pause", "web"]);
        engine.prints(&["stop", "-t", "5", "web"]);
        assert_eq!(shown(engine, "web", "/State/Status"), "exited");
        engine.prints(&["rename", "web", "old"]);
        assert_eq!(shown(engine, "old", "/Name"), "/old");
        assert_eq!(engine.refuses(&["start", "web"]), "No such container: web");
        assert_eq!(engine.prints(&["wait", "old"]), "137\n");
    });
}

#[test]
fn what_cannot_be_done_is_refused_with_words() {
    with_site(|engine| {
        for (flags, words) in [
            (&["--runtime", "nope"][..], "unknown or invalid runtime name: nope"),
            (&["--storage-opt", "size=1G"], "--storage-opt is supported only for"),
            (&["--log-opt", "tag=x"], "log opt tag: a log has nothing but its lines here"),
            (&["--log-opt", "compress=true"], "log opt compress: a log is not compressed here"),
            (&["--gpus", "all"], "could not select device driver"),
            (&["--pull", "never", "--platform", "linux/s390x"], "does not provide the specified platform"),
        ] {
            let (code, _, err) = ran(engine, &[flags, &["site", "true"]].concat());
            assert_eq!(code, 125, "{flags:?}: {err}");
            assert!(err.contains(words), "{flags:?}: {err}");
        }
        let (code, _, err) = ran(engine, &["--health-cmd", "true", "site", "true"]);
        assert_eq!((code, err.contains("Health checks are not run")), (0, true), "{err}");
    });
}

#[test]
fn v1_a_volume_with_options_is_mounted_while_somebody_has_it() {
    with_site(|engine| {
        let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,nosuid"];
        engine.prints(&[&["volume", "create"][..], &options, &["scratch"]].concat());
        engine.prints(&["run", "-d", "--name", "one", "-v", "scratch:/s", "site", "sleep", "1000"]);
        engine.prints(&["exec", "one", "sh", "-c", "echo here >/s/file"]);
        // The same file system, for everybody.
        let two = ["-v", "scratch:/t", "site", "sh", "-c", "cat /t/file; grep ' /t ' /proc/mounts"];
        let said = says(engine, &two);
        assert!(said.starts_with("here\ntmpfs /t tmpfs rw,nosuid,relatime,size=1024k"), "{said}");
        let data = shown(engine, "scratch", "/Mountpoint").as_str().expect("a path").to_owned();
        assert!(Path::new(&data).join("file").exists());
        engine.prints(&["rm", "-f", "one"]);
        assert!(!Path::new(&data).join("file").exists());
        engine.prints(&["volume", "rm", "scratch"]);
        // What cannot be mounted is said when it is to be.
        engine.prints(&["volume", "create", "-o", "type=nonesuch", "-o", "device=x", "bad"]);
        let (code, _, err) = ran(engine, &["-v", "bad:/s", "site", "true"]);
        assert_eq!(code, 125);
        assert!(err.contains("mount the volume bad: x as nonesuch"), "{err}");
    });
}

#[test]
fn v1_a_volume_with_options_stays_mounted_for_who_is_about_to_have_it() {
    with_site(|engine| {
        let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m"];
        engine.prints(&[&["volume", "create"][..], &options, &["scratch"]].concat());
        let one = ["run", "-d", "--name", "one", "-v", "scratch:/s", "site"];
        engine.prints(&[&one[..], &["sh", "-c", "echo here >/s/file; sleep 1000"]].concat());
        let data = shown(engine, "scratch", "/Mountpoint").as_str().expect("a path").to_owned();
        eventually("it is written", || Path::new(&data).join("file").exists());
        // The last one that has it ends while another one is made.
        let bin = engine.path("bin");
        fs::create_dir(&bin).expect("mkdir");
        // By another process: one that is forked by another test meanwhile would have it open for writing.
        assert!(Command::new("cp").args([&program("rrunctl"), &bin]).status().expect("cp").success());
        let stopped = Stopped::new(
            bin.join("rrunmon"),
            &format!("$stop\nexec {} \"$@\"", program("rrunmon").display()),
        );
        let plain = engine.command(&["run", "--rm", "-v", "scratch:/t", "site", "cat", "/t/file"]);
        let two = stopped.starts(Command::new(bin.join("rrunctl")).args(plain.get_args()));
        let mut ending = engine.command(&["rm", "-f", "one"]).stdout(Stdio::null()).spawn().expect("rrunctl");
        let users = Path::new(&data).with_file_name("users");
        let waited_for = || {
            use std::os::unix::fs::MetadataExt as _;
            let inode =
                fs::metadata(&users).map_or_else(|_| "none".to_owned(), |users| format!(":{} ", users.ino()));
            let locks = fs::read_to_string("/proc/locks").expect("/proc/locks");
            locks.lines().any(|lock| lock.contains("->") && lock.contains(&inode))
        };
        eventually("it ends", || waited_for() || ending.try_wait().expect("wait").is_some());
        stopped.go();
        let output = two.wait_with_output().expect("it ends");
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("here\n", ""));
        assert!(ending.wait().expect("wait").success());
        // Nobody has it any more, and a copy from one that is stopped has what is in it all the same.
        eventually("it is unmounted", || !Path::new(&data).join("file").exists());
        let bind = engine.path("bound");
        fs::create_dir(&bind).expect("mkdir");
        fs::write(bind.join("file"), "bound\n").expect("write");
        let device = format!("device={}", bind.display());
        engine.prints(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bind"]);
        engine.prints(&["create", "--name", "three", "-v", "bind:/b", "site", "true"]);
        let copied = engine.path("copied");
        engine.prints(&["cp", "three:/b/file", copied.to_str().expect("UTF-8")]);
        assert_eq!(fs::read_to_string(copied).expect("read"), "bound\n");
        // One container's files are another's: neither waits for the other's end.
        engine.prints(&["create", "--name", "four", "-v", "bind:/b", "site", "true"]);
        let mut from = engine.command(&["cp", "three:/b/file", "-"]);
        let mut from = from.stdout(Stdio::piped()).spawn().expect("rrunctl");
        let mut to = engine.command(&["cp", "-", "four:/tmp"]);
        let mut to = to.stdin(from.stdout.take().expect("a pipe")).spawn().expect("rrunctl");
        eventually("both end", || {
            [&mut from, &mut to].into_iter().all(|child| child.try_wait().expect("wait").is_some())
        });
        assert!(from.wait().expect("wait").success() && to.wait().expect("wait").success());
        // And nobody's end waits for who takes his time with another's files.
        let mut slow = engine.command(&["cp", "-", "four:/tmp"]);
        let mut slow = slow.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("rrunctl");
        engine.prints(&["start", "three"]);
        assert_eq!(engine.prints(&["wait", "three"]), "0\n");
        engine.prints(&["rm", "three"]);
        drop(slow.stdin.take());
        slow.wait().expect("wait");
        // What a killed one has mounted goes with a prune.
        let scratch = fs::canonicalize(&bind).expect("a path");
        let volume = shown(engine, "bind", "/Mountpoint").as_str().expect("a path").to_owned();
        rustix::mount::mount_bind(&scratch, &volume).expect("mount");
        engine.prints(&["system", "prune", "-f"]);
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(&engine.root().join("volumes").display().to_string()), "{mounts}");
    });
}

#[test]
fn one_engine_does_not_sweep_what_is_anothers() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "web", "site", "sleep", "1000"]);
        let other = engine.path("other").display().to_string();
        let refused = engine.refuses(&["--root", &other, "system", "prune", "-f"]);
        assert!(refused.contains("is the engine's in"), "{refused}");
        assert_eq!(shown(engine, "web", "/State/Status"), "running");
    });
}

#[test]
fn a_record_with_anothers_id_is_broken_and_harms_nobody() {
    with_site(|engine| {
        let id = engine.prints(&["create", "--name", "bad", "site", "true"]);
        engine.prints(&["create", "--name", "good", "site", "true"]);
        let record = engine.root().join("containers").join(id.trim_end()).join("config.v2.json");
        fs::write(record, "{}").expect("write");
        engine.run(&["rm", "-f", "bad"]);
        assert_eq!(shown(engine, "good", "/Name"), "/good");
    });
}

#[test]
fn c4_a_restart_is_not_the_end_of_one_with_rm() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--rm", "--name", "web", "-v", "/data", "site", "sleep", "1000"]);
        assert_eq!(engine.prints(&["restart", "-t", "1", "web"]), "web\n");
        assert_eq!(shown(engine, "web", "/State/Status"), "running");
        engine.prints(&["stop", "-t", "1", "web"]);
        assert_eq!(engine.refuses(&["start", "web"]), "No such container: web");
        assert_eq!(engine.prints(&["volume", "ls", "-q"]), "");
    });
}

#[test]
fn c8_what_is_copied_here_gets_no_power_and_what_is_read_only_stays_so() {
    with_site(|engine| {
        let here = engine.path("here");
        fs::create_dir(&here).expect("mkdir");
        fs::write(here.join("file"), "x").expect("write");
        let local = |path: &str| here.join(path).display().to_string();
        let ro = format!("{}:/ro:ro", here.display());
        let one = format!("{}:/etc/one", local("file"));
        engine.prints(&["create", "--name", "box", "-v", &ro, "-v", &one, "site", "cat", "/etc/one"]);
        let refused = engine.refuses(&["cp", &local("file"), "box:/ro/new"]);
        assert!(refused.contains("read-only file system"), "{refused}");
        assert!(!here.join("new").exists());
        // What is a file on the host is one inside, before the first start as well.
        assert_eq!(engine.prints(&["start", "-a", "box"]), "x");
        engine.prints(&["run", "--name", "evil", "site", "sh", "-c", "echo >/tmp/su; chmod 4777 /tmp/su"]);
        engine.prints(&["cp", "evil:/tmp/su", &local("su")]);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(here.join("su")).expect("stat").permissions(),
        );
        assert_eq!(mode & 0o7777, 0o777);
    });
}

#[test]
fn c8_cp_follows_a_link_at_its_end() {
    with_site(|engine| {
        let here = engine.path("here");
        fs::create_dir(&here).expect("mkdir");
        fs::write(here.join("file"), "hello\n").expect("write");
        let local = |path: &str| here.join(path).display().to_string();
        let links = "cd /tmp; ln() { busybox ln -s $1 $2; }; ln /www/index.html abs; ln abs two; ln ../www/new none; \
                     ln /www dir; ln index.html /www/page; ln self self";
        engine.prints(&["run", "--name", "down", "site", "sh", "-c", links]);
        engine.prints(&["run", "-d", "--name", "up", "site", "sleep", "1000"]);
        engine.prints(&["exec", "up", "sh", "-c", links]);
        for name in ["up", "down"] {
            let at = |path: &str| format!("{name}:{path}");
            let shown = |path: &str| {
                let back = local("back");
                engine.prints(&["cp", &at(path), &back]);
                let shown = fs::symlink_metadata(&back).expect("it was copied");
                let shown = if shown.is_symlink() {
                    fs::read_link(&back).expect("a link").display().to_string()
                } else {
                    fs::read_to_string(&back).expect("a file")
                };
                fs::remove_file(&back).expect("remove");
                shown
            };
            // What is absolute on the way is the container's.
            engine.prints(&["cp", "-L", &at("/tmp/dir/page"), &local("followed")]);
            assert_eq!(fs::read_to_string(local("followed")).expect("followed"), "a page\n");
            fs::remove_file(local("followed")).expect("remove");
            engine.prints(&["cp", &local("file"), &at("/tmp/two")]);
            engine.prints(&["cp", &local("file"), &at("/tmp/none")]);
            assert_eq!(
                ["/tmp/two", "/tmp/abs", "/tmp/none"].map(shown),
                ["abs", "/www/index.html", "../www/new"]
            );
            assert_eq!(["/www/index.html", "/www/new"].map(shown), ["hello\n"; 2]);
            let refused = engine.refuses(&["cp", &local("file"), &at("/tmp/self")]);
            assert!(refused.contains("symbolic link"), "{refused}");
            // The same here.
            std::os::unix::fs::symlink(format!("to-{name}"), here.join(name)).expect("symlink");
            for path in ["/etc/passwd", "/www/new"] {
                engine.prints(&["cp", &at(path), &local(name)]);
            }
            assert!(fs::symlink_metadata(local(name)).expect("stat").is_symlink());
            assert_eq!(fs::read_to_string(local(&format!("to-{name}"))).expect("a file"), "hello\n");
        }
    });
}

#[test]
fn c8_what_is_mounted_on_a_file_stays_mounted_there() {
    with_site(|engine| {
        let file = engine.path("file");
        fs::write(&file, "127.0.0.1 other\n").expect("write");
        let one = format!("{}:/etc/one", file.display());
        engine.prints(&["run", "-d", "--name", "up", "-v", &one, "site", "sleep", "1000"]);
        let hosts = engine.prints(&["exec", "up", "cat", "/etc/hosts"]);
        for path in ["/etc/hosts", "/etc/one"] {
            let refused = engine.refuses(&["cp", &file.display().to_string(), &format!("up:{path}")]);
            assert!(refused.contains("resource busy"), "{refused}");
            let mounted = engine.prints(&["exec", "up", "cat", "/proc/self/mountinfo"]);
            assert!(mounted.contains(&format!(" {path} ")), "{mounted}");
        }
        assert_eq!(engine.prints(&["exec", "up", "cat", "/etc/hosts"]), hosts);
    });
}

#[test]
fn a_pid_namespace_is_shared_by_a_file_that_stays_what_it_is() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "first", "--ipc", "shareable", "site", "sleep", "1000"]);
        let of = ["--pid", "container:first", "--ipc", "container:first", "site"];
        let seen = says(
            engine,
            &[&of[..], &["sh", "-c", "cat /proc/1/cmdline; readlink /proc/self/ns/ipc"]].concat(),
        );
        assert!(seen.starts_with("sleep"), "{seen}");
        engine.prints(&["create", "--name", "second", "--pid", "container:first", "site", "sleep", "1000"]);
        engine.prints(&["start", "second"]);
        engine.prints(&["rm", "-f", "first"]);
        let refused = engine.refuses(&["restart", "-t", "1", "second"]);
        assert!(refused.contains("No such container"), "{refused}");
    });
}

#[test]
fn n1_an_address_is_anothers_although_somebody_keeps_the_old_namespace() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "one", "site", "httpd", "-f", "-h", "/tmp"]);
        let key = shown(engine, "one", "/NetworkSettings/SandboxKey");
        let address =
            shown(engine, "one", "/NetworkSettings/IPAddress").as_str().expect("an address").to_owned();
        let mut guest = Command::new("nsenter")
            .args([&format!("--net={}", key.as_str().expect("a path")), "busybox", "nc", "-lk", "-p", "80"])
            .spawn()
            .expect("util-linux");
        engine.prints(&["rm", "-f", "one"]);
        engine.prints(&["run", "-d", "--name", "two", "site", "httpd", "-f", "-h", "/www"]);
        assert_eq!(shown(engine, "two", "/NetworkSettings/IPAddress"), address.as_str());
        eventually("the new one answers", || page(&format!("{address}:80")).as_deref() == Some("a page\n"));
        // What somebody else keeps alive is removed by a prune.
        engine.prints(&["system", "prune", "-f"]);
        assert_eq!(links(), 1);
        guest.kill().expect("kill");
        guest.wait().expect("wait");
    });
}

#[test]
fn n1_an_address_that_was_asked_for_stays_over_restarts() {
    with_site(|engine| {
        engine.prints(&["network", "create", "--subnet", "10.77.0.0/24", "fixed"]);
        let mac = "02:00:5e:00:53:01";
        let asked = ["--network", "fixed", "--ip", "10.77.0.9", "--mac-address", mac];
        engine.prints(&[&["run", "-d", "--name", "web"][..], &asked, &["site", "sleep", "1000"]].concat());
        for _ in 0..2 {
            let link = engine.prints(&["exec", "web", "ip", "-o", "addr", "show", "eth0"]);
            assert!(link.contains("10.77.0.9/24"), "{link}");
            let seen = engine.prints(&["exec", "web", "cat", "/sys/class/net/eth0/address"]);
            assert_eq!(seen.trim(), mac);
            engine.prints(&["restart", "-t", "1", "web"]);
        }
        // Nothing is changed where the record could not say so.
        engine.prints(&["run", "-d", "--name", "db", "site", "sleep", "1000"]);
        engine.prints(&["run", "-d", "--name", "app", "--link", "db", "site", "sleep", "1000"]);
        engine.prints(&["stop", "-t", "1", "db"]);
        engine.refuses(&["network", "connect", "fixed", "app"]);
        assert!(!engine.prints(&["inspect", "app"]).contains("fixed"));
        engine.prints(&["network", "disconnect", "fixed", "web"]);
        engine.prints(&["network", "rm", "fixed"]);
    });
}

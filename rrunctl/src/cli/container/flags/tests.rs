//! Beside what docker's CLI makes of the same arguments.

#![forbid(unsafe_code)]

use super::observed::{BODY, CREATED, REFUSED};
use super::*;
use crate::error::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct Create {
    #[command(flatten)]
    ways: Ways,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct Run {
    #[command(flatten)]
    client: Client,
    #[command(flatten)]
    ways: Ways,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct Executing {
    #[command(flatten)]
    exec: Exec,
}

#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct Updating {
    #[command(flatten)]
    update: Update,
}

fn read<P: Parser>(line: &str) -> Result<P, clap::Error> {
    let words = line.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace('·', " "));
    P::try_parse_from(["x".to_owned()].into_iter().chain(words))
}

fn parse<P: Parser>(line: &str) -> P {
    read(line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// Files that the lines name, gone with it.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let dir =
            std::env::temp_dir().join(format!("rrunctl-flags-{}", crate::home::unique().expect("random")));
        std::fs::create_dir(&dir).expect("mkdir");
        for (name, content) in [
            ("env", "\u{feff}# comment\n\n  A=1\nB=x y=z \nPATH\nUNSET_VARIABLE_X\nC=\nA=2\n".as_bytes()),
            ("labels", b"#c\nl.one=1\nl.two\nl.three=a b\n"),
            ("seccomp.json", b"{\n \"defaultAction\": \"SCMP_ACT_ALLOW\",\n \"x\": [1, 2, \"a b\"]\n}\n"),
            ("bad-env", b"A B=1\n"),
            ("no-name", b"=1\n"),
            ("bytes", b"A=1\nB=\xff\n"),
            ("long", &[b'x'; 70_000]),
        ] {
            std::fs::write(dir.join(name), content).expect("write");
        }
        Self(dir)
    }

    /// Puts in what is not the same everywhere.
    fn fill_in(&self, line: &str) -> String {
        let here = std::env::current_dir().expect("a directory");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        line.replace("$DIR", &text(&self.0))
            .replace("$PWD", &text(&here))
            .replace("$UP", &text(here.parent().expect("not the root")))
            .replace("$PATH", &std::env::var("PATH").expect("set"))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The arguments of a line, and what came of them.
fn lines(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let table = table.strip_prefix('\n').and_then(|table| table.strip_suffix('\n')).expect("lines");
    table.split('\n').map(|line| match line.strip_prefix("=> ") {
        Some(came) => ("", came),
        None => line.split_once(" => ").expect("two parts"),
    })
}

/// The arguments with an image.
fn arguments(files: &Files, line: &str) -> String {
    let line = match line.rsplit_once(' ') {
        // The image was given instead of the usual one.
        Some((image, "busybox")) if !image.starts_with('-') => image.to_owned(),
        _ if line.contains("busybox") => line.to_owned(),
        _ => format!("{line} busybox"),
    };
    files.fill_in(&line)
}

/// A request as `POST /containers/create` has it.
fn body(request: &crate::container::types::CreateRequest) -> Value {
    let mut body = serde_json::to_value(&request.config).expect("json");
    body["HostConfig"] = serde_json::to_value(&request.host).expect("json");
    body["NetworkingConfig"] = serde_json::to_value(&request.networking).expect("json");
    body
}

fn put(into: &mut Value, members: &Value) {
    for (key, value) in members.as_object().expect("an object") {
        into[key] = value.clone();
    }
}

/// What docker's CLI sent, from how it differs.
fn expected(differs: &str) -> Value {
    let mut body: Value = serde_json::from_str(BODY).expect("json");
    let mut differs: Value = serde_json::from_str(differs).expect("json");
    let usual = body["NetworkingConfig"]["EndpointsConfig"]["default"].clone();
    let members = differs.as_object_mut().expect("an object");
    if let Some(endpoints) = members.remove("Endpoints") {
        let all = &mut body["NetworkingConfig"]["EndpointsConfig"];
        *all = json!({});
        for (network, members) in endpoints.as_object().expect("an object") {
            all[network] = usual.clone();
            put(&mut all[network], members);
        }
    }
    if let Some(host) = members.remove("HostConfig") {
        put(&mut body["HostConfig"], &host);
    }
    put(&mut body, &differs);
    body
}

/// In what two differ, for a person to read.
fn difference(ours: &Value, theirs: &Value) -> String {
    match (ours.as_object(), theirs.as_object()) {
        (Some(a), Some(b)) => a
            .keys()
            .chain(b.keys().filter(|key| !a.contains_key(*key)))
            .filter(|key| a.get(*key) != b.get(*key))
            .map(|key| {
                let none = Value::String("nothing".into());
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or_else(|| none.clone())
                };
                format!("{key}: {}; ", difference(&of(a), &of(b)))
            })
            .collect(),
        _ => format!("{ours}, not {theirs}"),
    }
}

#[test]
fn what_is_sent_is_what_dockers_cli_sends() {
    let files = Files::new();
    let mut wrong = Vec::new();
    for (line, differs) in lines(CREATED) {
        let Create { ways, flags } = match read(&arguments(&files, line)) {
            Ok(create) => create,
            Err(e) => {
                wrong.push(format!("{line}: {e}"));
                continue;
            }
        };
        let theirs = expected(&files.fill_in(differs));
        match ways.image().and_then(|_| flags.request()) {
            Ok(request) if body(&request) == theirs => {}
            Ok(request) => wrong.push(format!("{line}: {}", difference(&body(&request), &theirs))),
            Err(e) => wrong.push(format!("{line}: {e}")),
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_is_refused_is_refused_in_dockers_words() {
    let files = Files::new();
    let mut wrong = Vec::new();
    for (line, words) in lines(REFUSED) {
        let ours = match read::<Create>(&arguments(&files, line)) {
            Ok(create) => create.flags.request().map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let words = files.fill_in(words);
        // An error is one line, without spaces around it.
        if ours.as_ref().err().map(String::as_str) != Some(words.trim()) {
            wrong.push(format!("{line}: {ours:?}, not {words}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn flags_stand_before_the_image_and_unknown_ones_are_refused() {
    for (line, kind) in [
        ("--zzz busybox", ErrorKind::UnknownArgument),
        ("-Z busybox", ErrorKind::UnknownArgument),
        ("-itZ busybox", ErrorKind::UnknownArgument),
        ("--memory", ErrorKind::InvalidValue),
        ("-it", ErrorKind::MissingRequiredArgument),
        ("--help", ErrorKind::DisplayHelp),
    ] {
        assert_eq!(read::<Create>(line).expect_err(line).kind(), kind, "{line}");
    }
    let request =
        parse::<Create>("--rm busybox --zzz -h --help -- x --rm=false").flags.request().expect("valid");
    assert_eq!(request.config.cmd.0, ["--zzz", "-h", "--help", "--", "x", "--rm=false"].map(String::from));
    assert!(request.host.auto_remove);
}

#[test]
fn every_flag_says_what_it_is_and_none_is_there_twice() {
    for command in [Create::command(), Run::command(), Executing::command(), Updating::command()] {
        command.clone().debug_assert();
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{}", argument.get_id());
        }
    }
}

#[test]
fn whoever_is_not_stayed_with_is_not_attached_to() {
    let Run { client, flags, .. } = parse("-di busybox");
    let session = client.session(&flags).expect("valid");
    let mut request = flags.request().expect("valid");
    assert!(request.config.attach_stdin && request.config.stdin_once);
    session.prepare(&mut request);
    assert!(session.detach && session.sig_proxy);
    let config = &request.config;
    assert!(config.open_stdin && !config.attach_stdin && !config.attach_stdout && !config.attach_stderr);
    assert!(!config.stdin_once);
    let Run { client, flags, .. } = parse("--sig-proxy=false --detach-keys ctrl-a busybox");
    let session = client.session(&flags).expect("valid");
    assert!(!session.detach && !session.sig_proxy);
    assert_eq!(session.keys, crate::monitor::Keys::parse("ctrl-a").expect("valid"));
    let mut request = flags.request().expect("valid");
    session.prepare(&mut request);
    assert!(request.config.attach_stdout && request.config.attach_stderr);
    for (line, words) in [
        ("-d -a stdout busybox", "conflicting options: cannot specify both --attach and --detach"),
        (
            "-d=x busybox",
            "invalid argument \"x\" for \"-d, --detach\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        ("--detach-keys ctrl-1 busybox", "invalid detach keys (ctrl-1): Unknown character: 'ctrl-1'"),
    ] {
        let Run { client, flags, .. } = parse(line);
        assert_eq!(client.session(&flags).expect_err(line).to_string(), words);
    }
}

#[test]
fn the_image_comes_as_it_is_asked_for() {
    for (line, pull) in [
        ("busybox", Pull::Missing),
        ("--pull missing busybox", Pull::Missing),
        ("--pull=always busybox", Pull::Always),
        ("--pull never busybox", Pull::Never),
        ("--pull= busybox", Pull::Never),
    ] {
        assert_eq!(parse::<Create>(line).ways.image().expect(line).pull, pull, "{line}");
    }
    let image = parse::<Create>("-q --platform linux/arm64 busybox").ways.image().expect("valid");
    assert!(image.quiet);
    assert_eq!(image.platform, Some(crate::image::Platform::parse("linux/arm64").expect("valid")));
    for (line, words) in [
        (
            "--pull foo busybox",
            "invalid pull option: 'foo': must be one of \"always\", \"missing\" or \"never\"",
        ),
        (
            "--platform x/y/z/w busybox",
            "error parsing specified platform: platform \"x/y/z/w\" is not OS/ARCHITECTURE[/VARIANT]",
        ),
        (
            "--disable-content-trust=false busybox",
            "--disable-content-trust=false: signatures are not checked here",
        ),
    ] {
        assert_eq!(parse::<Create>(line).ways.image().expect_err(line).to_string(), words);
    }
}

#[test]
fn a_profile_is_sent_and_not_its_name() {
    let files = Files::new();
    let line = files.fill_in("--security-opt seccomp=$DIR/bad-env busybox");
    let words = parse::<Create>(&line).flags.request().expect_err("no JSON").to_string();
    let begins = files.fill_in("compacting json for seccomp profile ($DIR/bad-env) failed: ");
    assert!(words.starts_with(&begins), "{words}");
}

#[test]
fn a_line_without_an_end_is_refused() {
    let files = Files::new();
    let line = files.fill_in("--env-file $DIR/long busybox");
    let words = parse::<Create>(&line).flags.request().expect_err("too long").to_string();
    assert_eq!(words, files.fill_in("invalid env file ($DIR/long): bufio.Scanner: token too long"));
    let words =
        parse::<Create>("--env-file /tmp busybox").flags.request().expect_err("a directory").to_string();
    assert_eq!(words, "read /tmp: is a directory");
}

#[test]
fn update_changes_what_it_was_told_to() {
    let usual = json!({
        "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "BlkioWeight": 0, "CpuPeriod": 0, "CpuQuota": 0,
        "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "MemoryReservation": 0,
        "MemorySwap": 0, "CgroupParent": "", "BlkioWeightDevice": null, "BlkioDeviceReadBps": null,
        "BlkioDeviceWriteBps": null, "BlkioDeviceReadIOps": null, "BlkioDeviceWriteIOps": null, "Devices": null,
        "DeviceCgroupRules": null, "DeviceRequests": null, "MemorySwappiness": null, "OomKillDisable": null,
        "PidsLimit": null, "Ulimits": null, "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0, "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
    });
    let all = "--blkio-weight 300 --cpu-shares 5 --cpu-period 6 --cpu-quota 7 --cpu-rt-period 8 --cpu-rt-runtime 9 \
               --cpuset-cpus 0 --cpuset-mems 1 --memory-reservation 1m c1";
    for (line, differs) in [
        ("--cpus 1 c1", json!({"NanoCpus": 1_000_000_000})),
        ("c1 -m 64m --memory-swap -1 c2", json!({"Memory": 64 << 20, "MemorySwap": -1})),
        ("--restart always c1", json!({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}})),
        (
            "--restart on-failure:3 c1",
            json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}),
        ),
        ("--restart= c1", json!({})),
        ("--pids-limit 0 c1", json!({})),
        ("--pids-limit -1 c1", json!({"PidsLimit": -1})),
        ("--kernel-memory 64m c1", json!({"KernelMemory": 64 << 20})),
        ("--memory-swap 1g c1", json!({"MemorySwap": 1 << 30})),
        (
            all,
            json!({"BlkioWeight": 300, "CpuShares": 5, "CpuPeriod": 6, "CpuQuota": 7, "CpuRealtimePeriod": 8,
                "CpuRealtimeRuntime": 9, "CpusetCpus": "0", "CpusetMems": "1", "MemoryReservation": 1 << 20}),
        ),
    ] {
        let (resources, restart) = parse::<Updating>(line).update.request().expect(line);
        let mut ours = serde_json::to_value(resources).expect("json");
        ours["RestartPolicy"] = serde_json::to_value(restart).expect("json");
        let mut theirs = usual.clone();
        put(&mut theirs, &differs);
        assert_eq!(difference(&ours, &theirs), "", "{line}");
    }
    assert_eq!(parse::<Updating>("c1 -m 64m c2").update.names, ["c1", "c2"]);
    for (line, words) in [
        ("c1", "you must provide one or more flags when using this command"),
        (
            "--restart on-failure:x c1",
            "invalid restart policy format: maximum retry count must be an integer",
        ),
        ("-m x c1", "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'"),
        ("--cpus x c1", "invalid argument \"x\" for \"--cpus\" flag: failed to parse x as a rational number"),
    ] {
        assert_eq!(parse::<Updating>(line).update.request().expect_err(line).to_string(), words);
    }
    let e = read::<Updating>("-m 64m").expect_err("no container");
    assert_eq!(e.kind(), ErrorKind::MissingRequiredArgument);
}

#[test]
fn exec_asks_for_what_it_was_told_to() {
    let files = Files::new();
    let usual = json!({
        "User": "", "Privileged": false, "Tty": false, "AttachStdin": false, "AttachStderr": true,
        "AttachStdout": true, "Detach": false, "DetachKeys": "", "Env": null, "WorkingDir": "", "Cmd": ["ls"],
    });
    let path = format!("PATH={}", std::env::var("PATH").expect("set"));
    let with_file = ["A=1", "B=x y=z ", &path, "C=", "A=2", "A=3"];
    for (line, differs) in [
        ("c1 ls", json!({})),
        ("c1 ls -l -t -- -d", json!({"Cmd": ["ls", "-l", "-t", "--", "-d"]})),
        ("-d c1 ls", json!({"Detach": true, "AttachStdout": false, "AttachStderr": false})),
        ("-di c1 ls", json!({"Detach": true, "AttachStdout": false, "AttachStderr": false})),
        ("-d --detach=false c1 ls", json!({})),
        ("-it c1 ls", json!({"AttachStdin": true, "Tty": true})),
        ("-t c1 ls", json!({"Tty": true})),
        ("-u 1 -w /x --privileged c1 ls", json!({"User": "1", "WorkingDir": "/x", "Privileged": true})),
        ("-e A=1 -e A=2 -e PATH c1 ls", json!({"Env": ["A=1", "A=2", path]})),
        ("--env-file $DIR/env -e A=3 c1 ls", json!({"Env": with_file})),
        ("--detach-keys ctrl-a c1 ls", json!({"DetachKeys": "ctrl-a"})),
    ] {
        let (container, options) = parse::<Executing>(&files.fill_in(line)).exec.request().expect(line);
        let mut theirs = usual.clone();
        put(&mut theirs, &differs);
        let ours = serde_json::to_value(options).expect("json");
        assert_eq!((container.as_str(), difference(&ours, &theirs).as_str()), ("c1", ""), "{line}");
    }
    for (line, words) in [
        ("c1", "'exec' requires at least 2 arguments: a container and a command"),
        ("--env-file /nonexistent c1 ls", "open /nonexistent: no such file or directory"),
        ("-e =x c1 ls", "invalid argument \"=x\" for \"-e, --env\" flag: invalid environment variable: =x"),
        ("--detach-keys no c1 ls", "invalid detach keys (no): Unknown character: 'no'"),
    ] {
        assert_eq!(parse::<Executing>(line).exec.request().expect_err(line).to_string(), words);
    }
}

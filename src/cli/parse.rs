//! The parser: the syntax of Go's flag package, with options also behind operands, as in runc 1.5.
//!
//! `-name` and `--name` are the same; a value follows as `=value` or as the next argument, whatever that
//! looks like; a switch takes `=true` or `=false` only; `--` ends the options. An argument that begins
//! with a dash and a digit is an operand, as in `kill ID -9`, for no option begins with a digit.

#![forbid(unsafe_code)]

use super::flags::{self, Draft, Flag, GLOBAL, Set, Topic};
use super::{Command, Global, Invocation, Manager, values};
use crate::error::{Error, Kind, Result};
use crate::log;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// What is known of a command line even if it is wrong: under which name and where to complain.
#[derive(Debug)]
pub struct Parsed {
    /// See [`Invocation::name`].
    pub name: String,
    /// The global options before the mistake.
    pub global: Global,
    /// The command's name, if it got so far.
    pub topic: Option<&'static Topic>,
    /// The command, or the mistake, of [`Kind::Usage`].
    pub command: Result<Command>,
}

/// Parses `argv`, its first element being the program's name.
///
/// # Errors
/// [`Kind::Usage`].
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Invocation> {
    let Parsed { name, global, command, .. } = read(args);
    Ok(Invocation { name, global, command: command? })
}

/// Parses `argv`, and keeps what is needed to report a mistake in it.
pub fn read(mut args: impl Iterator<Item = OsString>) -> Parsed {
    let name = program(args.next());
    let mut reader = Reader { draft: Draft::default(), topic: None, operands: Vec::new() };
    let outcome = reader.read(&mut args);
    let Reader { mut draft, topic, operands } = reader;
    let outcome = outcome.and_then(|asked| settle(&mut draft.global).map(|()| asked));
    let global = draft.global.clone();
    let command = match (outcome, topic) {
        (Err(e), _) => Err(e),
        (Ok(Some(asked)), _) => Ok(asked),
        (Ok(None), None) => Ok(Command::Help(None)),
        (Ok(None), Some(topic)) => {
            count(topic, operands.len()).and_then(|()| (topic.finish)(draft, operands))
        }
    };
    Parsed { name, global, topic, command: command.map_err(|text| Error::kind(Kind::Usage, text)) }
}

/// Base name of `argv[0]`; `rrun` where there is none (argc may be 0) or it could garble a message.
fn program(arg: Option<OsString>) -> String {
    let name =
        arg.as_deref().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_+.-".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) { "rrun".to_owned() } else { name.to_owned() }
}

struct Reader {
    draft: Draft,
    topic: Option<&'static Topic>,
    operands: Vec<String>,
}

impl Reader {
    /// Reads to the end, or to a request for help or version, which ends everything.
    fn read(&mut self, args: &mut dyn Iterator<Item = OsString>) -> Result<Option<Command>, String> {
        let mut verbatim = false;
        while let Some(arg) = args.next() {
            if verbatim || !is_option(&arg) {
                self.operand(arg)?;
                verbatim |= self.topic.is_some_and(|t| t.verbatim) && !self.operands.is_empty();
            } else if arg == "--" {
                verbatim = true;
            } else if let Some(asked) = self.option(&arg, args)? {
                return Ok(Some(asked));
            }
        }
        Ok(None)
    }

    fn operand(&mut self, arg: OsString) -> Result<(), String> {
        let arg = flags::operand(arg)?;
        match self.topic {
            Some(_) => self.operands.push(arg),
            None => self.topic = Some(flags::topic(&arg).ok_or_else(|| flags::no_topic(&arg))?),
        }
        Ok(())
    }

    fn option(
        &mut self,
        arg: &OsStr,
        args: &mut dyn Iterator<Item = OsString>,
    ) -> Result<Option<Command>, String> {
        let (name, value) = split(arg);
        let shown = name.to_string_lossy();
        let Some(flag) = self.find(name) else {
            return match (name.to_str(), self.topic) {
                (Some("h" | "help"), topic) => Ok(Some(Command::Help(topic))),
                (Some("v" | "version"), None) => Ok(Some(Command::Version)),
                _ => Err(format!("flag provided but not defined: -{shown}")),
            };
        };
        match flag.set {
            Set::Switch(set) => {
                let on = match value {
                    None => true,
                    Some(value) => value.to_str().and_then(values::boolean).ok_or_else(|| {
                        format!("invalid boolean value {value:?} for flag -{shown}: parse error")
                    })?,
                };
                set(&mut self.draft, on);
            }
            Set::Value(_, set) => {
                let value = match value {
                    Some(value) => value.to_owned(),
                    None => args.next().ok_or_else(|| format!("flag needs an argument: -{shown}"))?,
                };
                set(&mut self.draft, &value)
                    .map_err(|why| format!("invalid value {value:?} for flag -{shown}: {why}"))?;
            }
        }
        Ok(None)
    }

    /// The command's own flag before the global one: `spec --rootless` is not `--rootless spec`.
    fn find(&self, name: &OsStr) -> Option<&'static Flag> {
        let name = name.to_str()?;
        let mut letters = name.chars();
        let letter = letters.next().filter(|_| letters.next().is_none());
        let is = |f: &&Flag| f.name == name || (letter.is_some() && f.short == letter);
        let own = self.topic.and_then(|t| flags::of(t.name).find(is));
        own.or_else(|| flags::of(GLOBAL).find(is))
    }
}

/// A dash alone is an operand, and so is a negative number.
fn is_option(arg: &OsStr) -> bool {
    matches!(arg.as_bytes(), [b'-', second, ..] if !second.is_ascii_digit())
}

/// Takes the dashes off and splits at the first `=`.
fn split(arg: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let bytes = arg.as_bytes();
    let bytes = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).unwrap_or(bytes);
    match bytes.iter().position(|b| *b == b'=') {
        Some(at) => {
            let (name, value) = bytes.split_at(at);
            (OsStr::from_bytes(name), Some(OsStr::from_bytes(value.get(1..).unwrap_or_default())))
        }
        None => (OsStr::from_bytes(bytes), None),
    }
}

/// Checks the number of operands, in runc's words.
fn count(topic: &Topic, given: usize) -> Result<(), String> {
    let name = topic.name;
    match topic.count {
        (min, Some(max)) if min == max && given != min => {
            Err(format!("{name:?} requires exactly {min} argument(s)"))
        }
        (min, _) if given < min => Err(format!("{name:?} requires a minimum of {min} argument(s)")),
        (_, Some(max)) if given > max => Err(format!("{name:?} requires a maximum of {max} argument(s)")),
        _ => Ok(()),
    }
}

/// Decides what several global options say together.
fn settle(global: &mut Global) -> Result<(), String> {
    if global.debug {
        global.log_level = log::Level::Debug;
    } else {
        global.debug = global.log_level == log::Level::Debug;
    }
    if global.cgroup_manager == Some(Manager::Systemd) {
        global.systemd_cgroup = true;
    } else if global.cgroup_manager.is_some() && global.systemd_cgroup {
        return Err("--systemd-cgroup contradicts --cgroup-manager".to_owned());
    }
    if let Some(root) = &mut global.root {
        *root = absolute(root)?;
        if root == Path::new("/") {
            return Err("Option --root argument should not be set to /".to_owned());
        }
    }
    Ok(())
}

/// Absolute, so that it holds after a change of directory, and without `.` and `..`.
fn absolute(path: &Path) -> Result<PathBuf, String> {
    let path = std::path::absolute(path).map_err(|e| format!("--root {}: {e}", path.display()))?;
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::super::{Exec, Kill, Rootless, SubCgroup, User};
    use super::*;
    use std::time::Duration;

    fn args(line: &[&str]) -> Result<Invocation> {
        parse(std::iter::once("/usr/bin/rrun").chain(line.iter().copied()).map(OsString::from))
    }

    fn command(line: &[&str]) -> Command {
        args(line).unwrap_or_else(|e| panic!("{line:?}: {e}")).command
    }

    /// What is wrong with the line.
    fn wrong(line: &[&str]) -> String {
        match args(line) {
            Ok(taken) => panic!("{line:?} taken as {taken:?}"),
            Err(e) => {
                assert_eq!(e.what(), Kind::Usage, "{line:?}");
                e.to_string()
            }
        }
    }

    fn exec(line: &[&str]) -> Exec {
        match command(&[&["exec"], line].concat()) {
            Command::Exec(exec) => exec,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_name_is_that_of_the_program_file() {
        let name = |arg: Option<&str>| read(arg.map(OsString::from).into_iter()).name;
        assert_eq!(name(Some("/usr/sbin/runc")), "runc");
        assert_eq!(name(Some("rrun-dev_1.2")), "rrun-dev_1.2");
        for odd in [None, Some(""), Some("/"), Some(".."), Some("a b"), Some("a\nb"), Some("é")] {
            assert_eq!(name(odd), "rrun", "{odd:?}");
        }
        assert!(matches!(parse(std::iter::empty()).unwrap().command, Command::Help(None)));
    }

    #[test]
    fn what_go_runc_passes_is_understood() {
        let inv = args(&[
            "--root",
            "/run/containerd/runc/k8s.io",
            "--criu",
            "criu",
            "--debug",
            "--log",
            "/b/log.json",
            "--log-format",
            "json",
            "--systemd-cgroup",
            "--rootless=true",
            "create",
            "--bundle",
            "/b",
            "--pid-file",
            "/b/init.pid",
            "--console-socket",
            "/s",
            "--pidfd-socket",
            "/p",
            "--no-pivot",
            "--no-new-keyring",
            "--detach",
            "--preserve-fds",
            "2",
            "abc",
        ])
        .unwrap();
        assert_eq!(inv.global.root.as_deref(), Some(Path::new("/run/containerd/runc/k8s.io")));
        assert_eq!(inv.global.log, Some(log::Target::File("/b/log.json".into())));
        assert_eq!((inv.global.log_format, inv.global.log_level), (log::Format::Json, log::Level::Debug));
        assert!(inv.global.debug && inv.global.systemd_cgroup);
        assert_eq!(inv.global.rootless, Rootless::True);
        let Command::Create(c) = inv.command else { panic!() };
        assert_eq!((c.id.as_str(), c.preserve_fds), ("abc", 2));
        assert_eq!(c.bundle.as_deref(), Some(Path::new("/b")));
        assert_eq!(c.pid_file.as_deref(), Some(Path::new("/b/init.pid")));
        assert_eq!(c.console_socket.as_deref(), Some(Path::new("/s")));
        assert_eq!(c.pidfd_socket.as_deref(), Some(Path::new("/p")));
        assert!(c.no_pivot && c.no_new_keyring);

        let Command::Restore(r) =
            command(&["restore", "-no-subreaper", "--bundle", "B", "--lsm-profile=selinux:x", "x"])
        else {
            panic!()
        };
        assert!(r.no_subreaper);
        assert_eq!((r.criu.id.as_str(), r.lsm_profile.as_deref()), ("x", Some("selinux:x")));
        for line in [&["update", "--resources=-", "x"][..], &["update", "--resources", "-", "x"]] {
            let Command::Update(u) = command(line) else { panic!() };
            assert_eq!(u.resources.as_deref(), Some(Path::new("-")));
        }
        let Command::Events(e) = command(&["events", "--interval=1s", "x"]) else { panic!() };
        assert_eq!(e.interval, Duration::from_secs(1));
        let Command::Checkpoint(c) = command(&["checkpoint", "--status-fd", "3", "x"]) else { panic!() };
        assert_eq!(c.status_fd, Some(3));
    }

    #[test]
    fn a_switch_takes_only_an_equals_sign() {
        let Command::Run(run) = command(&["run", "--detach=false", "-keep=T", "--no-pivot=0", "x"]) else {
            panic!()
        };
        assert!(!run.detach && run.keep && !run.create.no_pivot);
        assert_eq!(wrong(&["run", "--detach", "false", "x"]), "\"run\" requires exactly 1 argument(s)");
        assert_eq!(
            wrong(&["run", "--detach=maybe", "x"]),
            "invalid boolean value \"maybe\" for flag -detach: parse error"
        );
        assert_eq!(exec(&["--no-new-privs=false", "x", "y"]).no_new_privs, Some(false));
        assert_eq!(exec(&["x", "y"]).no_new_privs, None);
    }

    #[test]
    fn a_flag_that_needs_an_argument_takes_whatever_follows() {
        assert_eq!(wrong(&["restore", "--lsm-mount-context"]), "flag needs an argument: -lsm-mount-context");
        assert_eq!(wrong(&["--log"]), "flag needs an argument: -log");
        assert!(
            matches!(command(&["update", "--cpu-quota", "-1", "x"]), Command::Update(u) if u.cpu_quota == Some(-1))
        );
        assert_eq!(exec(&["--env", "--tty", "x", "y"]).env, ["--tty"]);
        assert_eq!(exec(&["-e", "A=B=C", "-env=D=", "x", "y"]).env, ["A=B=C", "D="]);
    }

    #[test]
    fn nothing_is_parsed_behind_the_id_of_exec_and_ps() {
        let e = exec(&["-t", "x", "ls", "--tty", "-h", "--", "--bogus"]);
        assert_eq!((e.id.as_str(), e.tty), ("x", true));
        assert_eq!(e.args, ["ls", "--tty", "-h", "--", "--bogus"]);
        let Command::Ps(ps) = command(&["ps", "-f", "json", "x", "-aux", "--format"]) else { panic!() };
        assert_eq!(ps.args, ["-aux", "--format"]);
        assert!(matches!(
            command(&["kill", "x", "--all", "9"]),
            Command::Kill(Kill { all: true, signal: 9, .. })
        ));
        assert!(matches!(command(&["delete", "--", "-x"]), Command::Delete(d) if d.id == "-x"));
        assert_eq!(wrong(&["delete", "-x"]), "flag provided but not defined: -x");
    }

    #[test]
    fn the_number_of_operands_is_told_in_runcs_words() {
        assert_eq!(wrong(&["state"]), "\"state\" requires exactly 1 argument(s)");
        assert_eq!(wrong(&["start", "a", "b"]), "\"start\" requires exactly 1 argument(s)");
        assert_eq!(wrong(&["list", "x"]), "\"list\" requires exactly 0 argument(s)");
        assert_eq!(wrong(&["kill"]), "\"kill\" requires a minimum of 1 argument(s)");
        assert_eq!(wrong(&["kill", "a", "9", "b"]), "\"kill\" requires a maximum of 2 argument(s)");
        assert_eq!(wrong(&["exec"]), "\"exec\" requires a minimum of 1 argument(s)");
        assert_eq!(wrong(&["exec", "x"]), "exec args cannot be empty");
        assert_eq!(exec(&["-p", "f", "x"]).args, [""; 0]);
    }

    #[test]
    fn unknown_commands_and_flags_are_refused() {
        assert_eq!(wrong(&["foo"]), "No help topic for 'foo'");
        assert_eq!(wrong(&["foo", "-h"]), "No help topic for 'foo'");
        assert_eq!(wrong(&["help", "foo"]), "No help topic for 'foo'");
        assert_eq!(wrong(&["--bogus", "list"]), "flag provided but not defined: -bogus");
        assert_eq!(wrong(&["create", "--keep", "x"]), "flag provided but not defined: -keep");
        assert_eq!(wrong(&["list", "-=x"]), "flag provided but not defined: -");
        assert_eq!(wrong(&["list", "---q"]), "flag provided but not defined: --q");
    }

    #[test]
    fn help_and_version_end_the_parsing() {
        assert!(matches!(command(&[]), Command::Help(None)));
        assert!(matches!(command(&["--help", "foo"]), Command::Help(None)));
        for line in [
            &["state", "-h"][..],
            &["help", "state"],
            &["state", "x", "-help"],
            &["state", "--debug", "--help"],
        ] {
            assert!(matches!(command(line), Command::Help(Some(topic)) if topic.name == "state"), "{line:?}");
        }
        assert!(matches!(command(&["-v"]), Command::Version));
        assert!(matches!(command(&["--root", "/x", "-version", "list"]), Command::Version));
    }

    #[test]
    fn global_options_may_follow_the_command_but_its_own_come_first() {
        let inv = args(&["list", "--root", "/x/../y/./z", "-q"]).unwrap();
        assert_eq!(inv.global.root.as_deref(), Some(Path::new("/y/z")));
        let inv = args(&["--rootless", "FALSE", "spec", "--rootless"]).unwrap();
        assert_eq!(inv.global.rootless, Rootless::False);
        assert!(matches!(inv.command, Command::Spec(s) if s.rootless));
    }

    #[test]
    fn root_is_absolute_and_not_the_root_directory() {
        for bad in ["/", "/..", "/a/..", "/./", "../../../../../../../../../../../../../../../../.."] {
            assert_eq!(wrong(&["--root", bad, "list"]), "Option --root argument should not be set to /");
        }
        assert_eq!(wrong(&["--root=", "list"]), "invalid value \"\" for flag -root: must not be empty");
        let inv = args(&["--root", "relative", "list"]).unwrap();
        assert_eq!(inv.global.root, Some(std::env::current_dir().unwrap().join("relative")));
    }

    #[test]
    fn the_log_has_a_target_a_format_and_a_level() {
        let log =
            |text: &str| args(&["--log", text, "list"]).map(|i| i.global.log).map_err(|e| e.to_string());
        assert_eq!(log(""), Ok(None));
        assert_eq!(log("a/b"), Ok(Some(log::Target::File("a/b".into()))));
        assert_eq!(log("file:/x:y"), Ok(Some(log::Target::File("/x:y".into()))));
        assert_eq!(log("journald:abc"), Ok(Some(log::Target::Journald("abc".to_owned()))));
        assert_eq!(log("syslog:abc"), Ok(Some(log::Target::Syslog("abc".to_owned()))));
        assert!(log("journald:").is_err() && log("syslog:a\nb").is_err() && log("file:").is_err());
        assert!(wrong(&["--log-format", "foo", "list"]).contains("invalid log-format: foo"));
        assert!(wrong(&["--log-level", "loud", "list"]).contains("debug, info, warning, error"));
        assert_eq!(args(&["list"]).unwrap().global.log_level, log::Level::Warning);
        assert!(args(&["--log-level=DEBUG", "list"]).unwrap().global.debug);
    }

    #[test]
    fn cgroup_options_must_agree() {
        assert!(args(&["--cgroup-manager", "systemd", "list"]).unwrap().global.systemd_cgroup);
        assert!(!args(&["--cgroup-manager=disabled", "list"]).unwrap().global.systemd_cgroup);
        assert!(wrong(&["--systemd-cgroup", "--cgroup-manager=cgroupfs", "list"]).contains("contradicts"));
    }

    #[test]
    fn exec_options_are_typed() {
        let e = exec(&[
            "-u",
            "1000:5",
            "-g",
            "7",
            "--additional-gids=8",
            "-c",
            "CAP_KILL",
            "--cgroup",
            "cpu,memory:a",
            "--cwd",
            "/w",
            "--apparmor",
            "p",
            "--process-label",
            "l",
            "--ignore-paused",
            "-d",
            "--pid-file",
            "f",
            "--preserve-fds=3",
            "x",
            "y",
        ]);
        assert_eq!(e.user, Some(User { uid: 1000, gid: Some(5) }));
        assert_eq!((e.additional_gids, e.cap, e.preserve_fds), (vec![7, 8], vec!["CAP_KILL".to_owned()], 3));
        let cgroup =
            SubCgroup { controllers: vec!["cpu".to_owned(), "memory".to_owned()], path: "a".to_owned() };
        assert_eq!(e.cgroup, [cgroup]);
        assert!(e.ignore_paused && e.detach);
        assert_eq!(
            (e.cwd.as_deref(), e.apparmor.as_deref(), e.process_label.as_deref()),
            (Some("/w"), Some("p"), Some("l"))
        );
    }

    #[test]
    fn wrong_values_are_refused_before_anything_is_done() {
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "01",
            "+1",
            " 1",
            "1e3",
            "0x1",
            "4294967295",
            "4294967296",
            "-1",
            "root",
            "1:2:3",
        ] {
            assert!(wrong(&["exec", "--user", bad, "x", "y"]).contains("for flag -user"), "{bad:?}");
        }
        for line in [
            &["exec", "-g", "-1", "x", "y"][..],
            &["exec", "--cgroup", ":../x", "x", "y"],
            &["exec", "--cgroup=a", "--cgroup=b", "x", "y"],
            &["exec", "--preserve-fds", "-1", "x", "y"],
            &["create", "--preserve-fds=", "--preserve-fds=x", "x"],
            &["create", "--preserve-fds=99999999999", "x"],
            &["run", "--preserve-fds=+1", "x"],
            &["update", "--memory", "foo", "x"],
            &["update", "--memory=-2", "x"],
            &["update", "--cpu-share", "-1", "x"],
            &["update", "--cpu-period=1e3", "x"],
            &["update", "--pids-limit=+5", "x"],
            &["update", "--blkio-weight=65536", "x"],
            &["update", "--kernel-memory=foo", "x"],
            &["events", "--interval", "0", "x"],
            &["events", "--interval", "5", "x"],
            &["events", "--interval=-1s", "x"],
            &["list", "-f", "yaml"],
            &["ps", "--format=", "x"],
            &["checkpoint", "--manage-cgroups-mode=hard", "x"],
            &["checkpoint", "--page-server", "host", "x"],
            &["restore", "--empty-ns", "pid", "x"],
            &["restore", "--network-lock=no", "x"],
            &["--rootless", "maybe", "list"],
            &["--cgroup-manager", "me", "list"],
            &["completion", "tcsh"],
            &["generate", "html", "d"],
        ] {
            wrong(line);
        }
        for bad in ["FOO", "SIGFOO", "65", "-1", "9999"] {
            assert_eq!(wrong(&["kill", "x", bad]), format!("unknown signal {bad:?}"));
        }
    }

    #[test]
    fn empty_values_are_absent_as_in_runc() {
        let Command::Update(u) =
            command(&["update", "--memory=", "--cpu-quota=", "--cpuset-cpus=", "-r", "", "x"])
        else {
            panic!()
        };
        assert!(
            u.memory.is_none() && u.cpu_quota.is_none() && u.cpuset_cpus.is_none() && u.resources.is_none()
        );
        assert!(matches!(command(&["create", "-b", "", "x"]), Command::Create(c) if c.bundle.is_none()));
        assert!(matches!(command(&["kill", "x"]), Command::Kill(Kill { signal: libc::SIGTERM, .. })));
    }

    #[test]
    fn a_mistake_is_reported_where_the_log_was_asked_for() {
        let line = ["rrun", "--log", "l", "--log-format=json", "state", "--bogus"];
        let parsed = read(line.into_iter().map(OsString::from));
        assert_eq!(parsed.global.log, Some(log::Target::File("l".into())));
        assert_eq!(parsed.topic.map(|t| t.name), Some("state"));
        assert!(parsed.command.is_err());
    }

    #[test]
    fn every_flag_is_parsed_in_all_its_forms() {
        for flag in flags::FLAGS {
            for on in flag.on {
                let topic = flags::topic(on);
                let spellings = [format!("--{}", flag.name), format!("-{}", flag.name)];
                for spelling in spellings.into_iter().chain(flag.short.map(|c| format!("-{c}"))) {
                    let mut line: Vec<&str> = topic.map(|t| t.name).into_iter().collect();
                    line.push(&spelling);
                    let told = wrong_or_help(&line);
                    match flag.set {
                        Set::Value(..) => {
                            assert!(told.starts_with("flag needs an argument"), "{line:?}: {told}")
                        }
                        Set::Switch(_) => assert!(!told.contains("not defined"), "{line:?}: {told}"),
                    }
                }
            }
        }
    }

    /// A value that the flag takes and that is not its default.
    fn sample(flag: &Flag, metavar: &str) -> &'static str {
        match (flag.name, flag.offer, metavar) {
            (_, flags::Offer::Words(words), _) => {
                words.iter().find(|w| !["text", "table", "auto"].contains(w)).unwrap()
            }
            (_, _, "UID[:GID]" | "GID" | "N" | "FD" | "WEIGHT" | "SHARES" | "MICROSECONDS") => "7",
            (_, _, "SIZE") => "8M",
            (_, _, "DURATION") => "9s",
            (_, _, "ADDRESS:PORT") => "a:10",
            _ => "sample",
        }
    }

    #[test]
    fn every_flag_arrives_in_its_command() {
        for flag in flags::FLAGS {
            for on in flag.on {
                let command = if *on == GLOBAL { "list" } else { on };
                let topic = flags::topic(command).unwrap();
                let operands =
                    ["x", "y"].get(..topic.count.0.max(usize::from(command == "exec") * 2)).unwrap();
                let option = match flag.set {
                    Set::Switch(_) => format!("--{}", flag.name),
                    Set::Value(metavar, _) => format!("--{}={}", flag.name, sample(flag, metavar)),
                };
                let without = format!("{:?}", args(&[&[command], operands].concat()).unwrap());
                let with = format!("{:?}", args(&[&[command, option.as_str()], operands].concat()).unwrap());
                assert_eq!(with != without, !with_no_effect(flag), "{command} {option}");
            }
        }
    }

    /// Hidden flags are those that have no effect, but for two.
    fn with_no_effect(flag: &Flag) -> bool {
        flag.hidden && !["all", "kernel-memory"].contains(&flag.name)
    }

    #[test]
    fn values_of_update_have_their_types() {
        let Command::Update(u) = command(&[
            "update",
            "--memory=512M",
            "--memory-swap",
            "-1",
            "--memory-reservation=1.5g",
            "--cpu-idle=1",
            "--cpu-share",
            "1024",
            "--cpu-rt-runtime=-1",
            "--pids-limit",
            "-1",
            "--blkio-weight=10",
            "--cpuset-cpus",
            "0-3,5",
            "x",
        ]) else {
            panic!()
        };
        assert_eq!(
            (u.memory, u.memory_swap, u.memory_reservation),
            (Some(512 << 20), Some(-1), Some(3 << 29))
        );
        assert_eq!((u.cpu_idle, u.cpu_share, u.cpu_rt_runtime), (Some(1), Some(1024), Some(-1)));
        assert_eq!(
            (u.pids_limit, u.blkio_weight, u.cpuset_cpus.as_deref()),
            (Some(-1), Some(10), Some("0-3,5"))
        );
        assert_eq!((u.cpu_quota, u.cpu_period, u.kernel_memory), (None, None, false));
    }

    #[test]
    fn an_argument_that_is_not_utf8_is_refused_where_it_is_text_and_taken_where_it_is_a_path() {
        use std::os::unix::ffi::OsStringExt;
        let bad = || OsString::from_vec(vec![0xff, b'a']);
        let line = |args: Vec<OsString>| read(std::iter::once("rrun".into()).chain(args)).command;
        assert!(
            matches!(line(vec!["create".into(), "-b".into(), bad(), "x".into()]), Ok(Command::Create(c)) if c.bundle == Some(bad().into()))
        );
        assert!(line(vec!["state".into(), bad()]).is_err());
        assert!(line(vec![bad()]).is_err());
        assert!(line(vec!["exec".into(), "-e".into(), bad(), "x".into(), "y".into()]).is_err());
        assert!(line(vec!["list".into(), OsString::from_vec(vec![b'-', 0xff])]).is_err());
    }

    fn wrong_or_help(line: &[&str]) -> String {
        args(line).map_or_else(|e| e.to_string(), |_| String::new())
    }
}

//! What this program is inside of a container, as a hook, and around the runtime: it looks, acts and
//! reports, and judges nothing.
//!
//! It is the program itself, copied into each root file system as `/probe`, so it has to be linked
//! statically.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, thread};

use rustix::fs::{CWD, FileType, Mode, major, makedev, minor, mknodat, statfs};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

/// The namespaces, as `/proc/PID/ns` calls them.
pub const NAMESPACES: &[&str] = &["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

pub fn main(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        // A line of facts, among them what came of each operation.
        ["facts", operations @ ..] => report(operations),
        ["wait", operations @ ..] => {
            let told = report(operations);
            if told == ExitCode::SUCCESS {
                thread::sleep(Duration::from_secs(1000));
            }
            told
        }
        ["act", operation] => {
            print!("{}", act(operation));
            ExitCode::SUCCESS
        }
        ["sleep", seconds] => {
            thread::sleep(Duration::from_secs(seconds.parse().unwrap_or(0)));
            ExitCode::SUCCESS
        }
        ["hook", log, name, status, runtime @ ..] => hook(Path::new(log), name, status, runtime),
        // Gives a command an environment that is told from the default.
        ["as", score, umask, command, rest @ ..] => caller(score, umask, command, rest),
        _ => ExitCode::from(2),
    }
}

fn report(operations: &[&str]) -> ExitCode {
    let line = facts(operations).to_string() + "\n";
    match io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The namespaces of a process, by kind.
pub fn namespaces(pid: &str) -> BTreeMap<&'static str, String> {
    let link = |kind| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    NAMESPACES.iter().filter_map(|kind| Some((*kind, link(*kind).ok()?.display().to_string()))).collect()
}

fn limits() -> BTreeMap<&'static str, [Option<u64>; 2]> {
    let all = [
        ("RLIMIT_AS", Resource::As),
        ("RLIMIT_CORE", Resource::Core),
        ("RLIMIT_CPU", Resource::Cpu),
        ("RLIMIT_DATA", Resource::Data),
        ("RLIMIT_FSIZE", Resource::Fsize),
        ("RLIMIT_LOCKS", Resource::Locks),
        ("RLIMIT_MEMLOCK", Resource::Memlock),
        ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
        ("RLIMIT_NICE", Resource::Nice),
        ("RLIMIT_NOFILE", Resource::Nofile),
        ("RLIMIT_NPROC", Resource::Nproc),
        ("RLIMIT_RSS", Resource::Rss),
        ("RLIMIT_RTPRIO", Resource::Rtprio),
        ("RLIMIT_RTTIME", Resource::Rttime),
        ("RLIMIT_SIGPENDING", Resource::Sigpending),
        ("RLIMIT_STACK", Resource::Stack),
    ];
    let both = |resource| getrlimit(resource);
    all.map(|(name, resource)| (name, [both(resource).current, both(resource).maximum])).into()
}

/// Where each open descriptor leads, without the one that this listing opens.
fn descriptors() -> BTreeMap<String, String> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let own = format!("/proc/{}/fd", std::process::id());
    entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read_link(entry.path()).ok()?)))
        .map(|(number, to)| (number, to.display().to_string()))
        .filter(|(_, to)| *to != own)
        .collect()
}

fn terminal() -> Value {
    let size = rustix::termios::tcgetwinsize(io::stdin()).ok().map(|size| [size.ws_row, size.ws_col]);
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let are = [input.as_fd(), output.as_fd(), error.as_fd()].map(rustix::termios::isatty);
    json!({"are": are, "size": size})
}

fn facts(operations: &[&str]) -> Value {
    let name = rustix::system::uname();
    let files = [
        "attr/current",
        "cgroup",
        "gid_map",
        "mountinfo",
        "numa_maps",
        "oom_score_adj",
        "personality",
        "stat",
        "status",
        "timens_offsets",
        "uid_map",
    ];
    let proc: BTreeMap<_, _> = files.map(|file| (file, text(format!("/proc/self/{file}")))).into();
    let done: BTreeMap<_, _> = operations.iter().map(|operation| (*operation, act(operation))).collect();
    json!({
        "args": env::args().collect::<Vec<_>>(),
        "env": env::vars().collect::<BTreeMap<_, _>>(),
        "cwd": env::current_dir().ok(),
        "hostname": name.nodename().to_string_lossy(),
        "domainname": name.domainname().to_string_lossy(),
        "machine": name.machine().to_string_lossy(),
        "limits": limits(),
        "namespaces": namespaces("self"),
        "descriptors": descriptors(),
        "terminal": terminal(),
        "proc": proc,
        "done": done,
    })
}

/// Tries an operation: `WHAT:PATH` and for some `:` and more. What came of it is a word or a value,
/// or `errno N`.
fn act(operation: &str) -> String {
    let mut words = operation.split(':');
    let (what, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let rest: Vec<u32> = words.filter_map(|word| word.parse().ok()).collect();
    let done = |result: io::Result<()>| result.map(|()| "ok".to_owned());
    let outcome = match what {
        "read" => fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()),
        "list" => fs::read_dir(path).map(|entries| {
            let mut names: Vec<_> =
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort_unstable();
            names.join(" ")
        }),
        "write" => done(fs::write(path, "written")),
        "open" => done(File::open(path).map(drop)),
        "openw" => done(OpenOptions::new().write(true).open(path).map(drop)),
        "link" => fs::read_link(path).map(|to| to.display().to_string()),
        "chmod" => done(fs::set_permissions(path, PermissionsExt::from_mode(0o600))),
        "mkdir" => done(fs::create_dir(path)),
        "cwd" => env::current_dir().map(|cwd| cwd.display().to_string()),
        // Its second argument is the one that a seccomp filter can look at.
        "seek" => File::open("/proc/self/exe")
            .and_then(|mut file| file.seek(SeekFrom::Start(path.parse().unwrap_or_default())))
            .map(|_| "ok".to_owned()),
        "stat" => stat(Path::new(path)),
        "type" => statfs(path).map(|stat| format!("{:x}", stat.f_type)).map_err(io::Error::from),
        "mknod" => {
            let device = makedev(rest.first().copied().unwrap_or(0), rest.get(1).copied().unwrap_or(0));
            done(mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR, device).map_err(io::Error::from))
        }
        "exec" => Command::new(path).args(["probe", "act", "cwd:"]).output().map(|_| "ok".to_owned()),
        // In a child, as it may be the last that it does.
        "child" => Command::new("/proc/self/exe")
            .args(["probe", "act", &operation["child:".len()..]])
            .output()
            .map(|out| match out.status.signal() {
                Some(signal) => format!("signal {signal}"),
                None => String::from_utf8_lossy(&out.stdout).into_owned(),
            }),
        _ => Ok("unknown operation".to_owned()),
    };
    outcome.unwrap_or_else(|e| e.raw_os_error().map_or_else(|| e.to_string(), |code| format!("errno {code}")))
}

/// Kind, device number, mode and owners: `c 1:3 666 0:0`.
fn stat(path: &Path) -> io::Result<String> {
    let stat = fs::symlink_metadata(path)?;
    let kind = stat.file_type();
    let letter = match () {
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () if kind.is_fifo() => 'p',
        () if kind.is_symlink() => 'l',
        () if kind.is_dir() => 'd',
        () => 'f',
    };
    let (device, mode) = (stat.rdev(), stat.mode() & 0o7777);
    let (major, minor) = (major(device), minor(device));
    Ok(format!("{letter} {major}:{minor} {mode:o} {}:{}", stat.uid(), stat.gid()))
}

/// Writes what this hook sees to `<log>/<name>`, its name to the end of `<log>/order`, and ends with
/// `status`; or lasts that many seconds if `status` says so by an `s`. Given the runtime, it also asks
/// that for the state of the container.
fn hook(log: &Path, name: &str, status: &str, runtime: &[&str]) -> ExitCode {
    let mut input = String::new();
    let _ = io::stdin().read_to_string(&mut input);
    let state: Value = serde_json::from_str(&input).unwrap_or(Value::Null);
    let pid = state["pid"].to_string();
    let seen = json!({
        "input": input, "state": state,
        "args": env::args().collect::<Vec<_>>(),
        "env": env::vars().collect::<BTreeMap<_, _>>(),
        "namespaces": namespaces("self"),
        "own pid": fs::read_link("/proc/self").ok(),
        "namespaces of pid": namespaces(&pid),
        "pid's command": text(format!("/proc/{pid}/cmdline")),
        "pid's root has the probe": Path::new(&format!("/proc/{pid}/root/probe")).exists(),
        "runtime knows it": runtime.split_first().map(|(program, global)| {
            let id = state["id"].as_str().unwrap_or_default();
            Command::new(program).args(global).args(["state", id]).output().is_ok_and(|out| out.status.success())
        }),
        "root has the probe": Path::new("/probe").exists(),
    });
    let told = fs::write(log.join(name), seen.to_string()).and_then(|()| {
        let mut order = OpenOptions::new().create(true).append(true).open(log.join("order"))?;
        order.write_all(format!("{name} ").as_bytes())
    });
    if let Some(seconds) = status.strip_suffix('s') {
        thread::sleep(Duration::from_secs(seconds.parse().unwrap_or(0)));
    }
    match (told, status.parse::<u8>()) {
        (Ok(()), Ok(status)) => ExitCode::from(status),
        (Ok(()), _) => ExitCode::SUCCESS,
        (Err(_), _) => ExitCode::from(77),
    }
}

/// Executes a command with this `oom_score_adj` and umask, with a descriptor 9 that is open for it,
/// and with a variable of its own in the environment. `-` keeps what there is.
fn caller(score: &str, umask: &str, command: &str, rest: &[&str]) -> ExitCode {
    if score != "-" && fs::write("/proc/self/oom_score_adj", score).is_err() {
        return ExitCode::from(78);
    }
    if let Ok(mask) = u32::from_str_radix(umask, 8) {
        rustix::process::umask(Mode::from_raw_mode(mask));
    }
    let open = File::open("/dev/null").and_then(|file| Ok(rustix::io::fcntl_dupfd_cloexec(file, 9)?));
    let Ok(open) = open else { return ExitCode::from(78) };
    if rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).is_err() {
        return ExitCode::from(78);
    }
    eprintln!("{}", Command::new(command).args(rest).env("CONFORMANCE_CALLER", "1").exec());
    ExitCode::from(79)
}

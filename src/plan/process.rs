//! `process`: the program, its surroundings and its credentials, ready to be applied.

#![forbid(unsafe_code)]

use super::capabilities::Capabilities;
use super::scheduling::{ExecAffinity, IoPriority, Scheduler};
use crate::error::{Error, Result};
use crate::spec;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fmt;

/// Where `HOME` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HomeRule {
    /// `process.env` has it, and so does [`ProcessPlan::envp`].
    Given,
    /// The process adds it once it can see the container's /etc/passwd: [`super::passwd::home`].
    FromPasswd,
}

/// User and groups, all of them inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPlan {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Whether the runtime's own are kept instead.
    pub keep_groups: bool,
    /// File mode creation mask; `None` leaves it.
    pub umask: Option<u32>,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RlimitPlan {
    /// `RLIMIT_*`, the name.
    pub name: &'static str,
    /// `RLIMIT_*`, the number on this architecture.
    pub resource: u32,
    /// The limit that is enforced.
    pub soft: u64,
    /// Its ceiling.
    pub hard: u64,
}

/// What a process is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    /// Arguments, at least one.
    pub argv: Vec<CString>,
    /// Paths to try for `argv[0]`, in order, as execvp(3) would; none if it is empty.
    pub candidates: Vec<CString>,
    /// Environment, each name once.
    pub envp: Vec<CString>,
    /// Whether `HOME` is still to be added.
    pub home: HomeRule,
    /// Working directory, absolute.
    pub cwd: CString,
    /// User and groups.
    pub user: UserPlan,
    /// Whether a pseudo-terminal is made.
    pub terminal: bool,
    /// Its rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Resource limits, in the order of config.json.
    pub rlimits: Vec<RlimitPlan>,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Whether `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// SELinux label.
    pub selinux_label: Option<String>,
    /// oom_score_adj; `None` leaves it.
    pub oom_score_adj: Option<i32>,
    /// Scheduler attributes; `None` leaves them.
    pub scheduler: Option<Scheduler>,
    /// I/O priority; `None` leaves it.
    pub io_priority: Option<IoPriority>,
    /// CPU affinity around joining the cgroup; for `exec` only.
    pub exec_affinity: ExecAffinity,
    /// What the specification wants warned about.
    pub warnings: Vec<String>,
}

impl ProcessPlan {
    /// Decides `process`.
    ///
    /// # Errors
    /// The first value that is missing or cannot be applied.
    pub fn build(process: Option<&spec::Process>) -> Result<Self> {
        let Some(process) = process else {
            return Err(Error::config("process", "process property must not be empty"));
        };
        let cwd = match process.cwd.as_str() {
            "" => return Err(Error::config("process.cwd", "Cwd property must not be empty")),
            cwd if !cwd.starts_with('/') => {
                return Err(Error::config(
                    "process.cwd",
                    format!("Cwd must be an absolute path, not {cwd:?}"),
                ));
            }
            cwd => cwd,
        };
        let Some(program) = process.args.first() else {
            return Err(Error::config("process.args", "args must not be empty"));
        };
        let (env, home) = environment(&process.env)?;
        let path = env.iter().find_map(|entry| entry.strip_prefix("PATH="));
        let candidates = candidates(program, path, cwd)
            .into_iter()
            .map(|candidate| c_string("process.args[0]", &candidate))
            .collect::<Result<_>>()?;
        let (capabilities, warnings) = Capabilities::build(process.capabilities.as_ref());
        Ok(Self {
            argv: c_strings("process.args", &process.args)?,
            candidates,
            envp: c_strings("process.env", &env)?,
            home,
            cwd: c_string("process.cwd", cwd)?,
            user: user(&process.user)?,
            terminal: process.terminal,
            console_size: process
                .console_size
                .as_ref()
                .filter(|_| process.terminal)
                .map(|size| (size.height, size.width)),
            rlimits: rlimits(&process.rlimits)?,
            capabilities,
            no_new_privileges: process.no_new_privileges,
            apparmor_profile: given(&process.apparmor_profile),
            selinux_label: given(&process.selinux_label),
            oom_score_adj: oom_score_adj(process.oom_score_adj)?,
            scheduler: process.scheduler.as_ref().map(Scheduler::build).transpose()?,
            io_priority: process.io_priority.as_ref().map(IoPriority::build).transpose()?,
            exec_affinity: ExecAffinity::build(process.exec_cpu_affinity.as_ref())?,
            warnings,
        })
    }
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A string for a system call; `path` is its place in config.json.
pub(super) fn c_string(path: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::config(path, "contains a NUL"))
}

/// A list of strings for a system call.
pub(super) fn c_strings<T: AsRef<str>>(path: &str, list: &[T]) -> Result<Vec<CString>> {
    list.iter().enumerate().map(|(i, text)| c_string(&format!("{path}[{i}]"), text.as_ref())).collect()
}

/// Keeps the last of several entries for a name, in its place, and drops an empty `HOME`.
fn environment(env: &[String]) -> Result<(Vec<&str>, HomeRule)> {
    let mut seen = BTreeSet::new();
    let mut home = HomeRule::FromPasswd;
    let mut out = Vec::with_capacity(env.len());
    for (i, entry) in env.iter().enumerate().rev() {
        let at = || format!("process.env[{i}]");
        let Some((name, value)) = entry.split_once('=') else {
            return Err(Error::config(at(), format!("invalid environment variable {entry:?}: missing '='")));
        };
        if name.is_empty() {
            return Err(Error::config(at(), "invalid environment variable: name cannot be empty"));
        }
        if !seen.insert(name) {
            continue;
        }
        if name == "HOME" {
            if value.is_empty() {
                continue;
            }
            home = HomeRule::Given;
        }
        out.push(entry.as_str());
    }
    out.reverse();
    Ok((out, home))
}

/// The paths that execvp(3) would try, made absolute by `cwd` where PATH has an empty or relative element;
/// without PATH, those of glibc.
fn candidates(program: &str, path: Option<&str>, cwd: &str) -> Vec<String> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let cwd = cwd.trim_end_matches('/');
    path.unwrap_or("/bin:/usr/bin")
        .split(':')
        .map(|directory| match directory {
            "" => format!("{cwd}/{program}"),
            _ if directory.starts_with('/') => format!("{}/{program}", directory.trim_end_matches('/')),
            _ => format!("{cwd}/{}/{program}", directory.trim_end_matches('/')),
        })
        .collect()
}

/// The most supplementary groups that setgroups(2) takes (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

fn user(user: &spec::User) -> Result<UserPlan> {
    let groups = &user.additional_gids;
    let ids = [("process.user.uid".to_owned(), user.uid), ("process.user.gid".to_owned(), user.gid)];
    let more = groups.iter().enumerate().map(|(i, gid)| (format!("process.user.additionalGids[{i}]"), *gid));
    for (path, id) in ids.into_iter().chain(more) {
        // setresuid(2) takes it for "leave as it is": the process would stay root.
        if id == u32::MAX {
            return Err(Error::config(path, "4294967295 is not an id, it is the kernel's \"unchanged\""));
        }
    }
    if groups.len() > GROUPS_MAX {
        let text = format!("{} groups are more than the kernel's {GROUPS_MAX}", groups.len());
        return Err(Error::config("process.user.additionalGids", text));
    }
    if let Some(umask) = user.umask.filter(|umask| *umask > 0o777) {
        return Err(Error::config("process.user.umask", format!("{umask} is above 511 (octal 777)")));
    }
    Ok(UserPlan {
        uid: user.uid,
        gid: user.gid,
        groups: groups.clone(),
        keep_groups: false,
        umask: user.umask,
    })
}

/// Names and numbers; the numbers differ between architectures, and their type between C libraries.
#[allow(clippy::unnecessary_cast)]
const RLIMITS: [(&str, u32); 16] = [
    ("RLIMIT_AS", libc::RLIMIT_AS as u32),
    ("RLIMIT_CORE", libc::RLIMIT_CORE as u32),
    ("RLIMIT_CPU", libc::RLIMIT_CPU as u32),
    ("RLIMIT_DATA", libc::RLIMIT_DATA as u32),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE as u32),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS as u32),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK as u32),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE as u32),
    ("RLIMIT_NICE", libc::RLIMIT_NICE as u32),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE as u32),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC as u32),
    ("RLIMIT_RSS", libc::RLIMIT_RSS as u32),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO as u32),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME as u32),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING as u32),
    ("RLIMIT_STACK", libc::RLIMIT_STACK as u32),
];

fn rlimits(listed: &[spec::Rlimit]) -> Result<Vec<RlimitPlan>> {
    let mut out: Vec<RlimitPlan> = Vec::with_capacity(listed.len());
    for (i, limit) in listed.iter().enumerate() {
        let at = |field: &str| format!("process.rlimits[{i}].{field}");
        let Some((name, resource)) = RLIMITS.into_iter().find(|(name, _)| *name == limit.typ) else {
            return Err(Error::config(at("type"), format!("wrong rlimit value: {}", limit.typ)));
        };
        if out.iter().any(|earlier| earlier.resource == resource) {
            return Err(Error::config(at("type"), format!("duplicated rlimit {name}")));
        }
        if limit.soft > limit.hard {
            let text = format!("soft limit {} of {name} is above the hard limit {}", limit.soft, limit.hard);
            return Err(Error::config(at("soft"), text));
        }
        out.push(RlimitPlan { name, resource, soft: limit.soft, hard: limit.hard });
    }
    Ok(out)
}

fn oom_score_adj(value: Option<i32>) -> Result<Option<i32>> {
    match value {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::config("process.oomScoreAdj", format!("{score} is not in -1000 to 1000")))
        }
        value => Ok(value),
    }
}

impl fmt::Display for UserPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid={} gid={} groups={:?}", self.uid, self.gid, self.groups)?;
        self.umask.map_or(Ok(()), |umask| write!(f, " umask={umask:04o}"))
    }
}

impl fmt::Display for RlimitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |n: u64| if n == u64::MAX { "unlimited".to_owned() } else { n.to_string() };
        write!(f, "{} {}:{}", self.name, text(self.soft), text(self.hard))
    }
}

impl fmt::Display for ProcessPlan {
    /// One line per decision.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "args {:?}", self.argv)?;
        writeln!(f, "lookup {:?}", self.candidates)?;
        for entry in &self.envp {
            // Only the names: environments hold passwords, and plans are pasted into bug reports.
            let text = entry.to_string_lossy();
            writeln!(f, "env {:?}", text.split('=').next().unwrap_or_default())?;
        }
        if self.home == HomeRule::FromPasswd {
            writeln!(f, "env \"HOME\" from /etc/passwd")?;
        }
        writeln!(f, "cwd {:?}", self.cwd)?;
        writeln!(f, "user {}", self.user)?;
        match (self.terminal, self.console_size) {
            (true, Some((rows, columns))) => writeln!(f, "terminal {rows}x{columns}")?,
            (terminal, _) => writeln!(f, "terminal {}", if terminal { "yes" } else { "no" })?,
        }
        for limit in &self.rlimits {
            writeln!(f, "rlimit {limit}")?;
        }
        writeln!(f, "capabilities {}", self.capabilities)?;
        writeln!(f, "no_new_privs {}", if self.no_new_privileges { "yes" } else { "no" })?;
        for (key, value) in [("apparmor", &self.apparmor_profile), ("selinux", &self.selinux_label)] {
            if let Some(value) = value {
                writeln!(f, "{key} {value:?}")?;
            }
        }
        if let Some(score) = self.oom_score_adj {
            writeln!(f, "oom_score_adj {score}")?;
        }
        if let Some(scheduler) = &self.scheduler {
            writeln!(f, "scheduler {scheduler}")?;
        }
        if let Some(priority) = &self.io_priority {
            writeln!(f, "io_priority {priority}")?;
        }
        let affinity = &self.exec_affinity;
        for (name, mask) in [("initial", &affinity.initial), ("final", &affinity.last)] {
            if let Some(mask) = mask {
                writeln!(f, "exec cpu affinity {name} {mask}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read::document;

    fn build(json: &str) -> Result<ProcessPlan> {
        let process: spec::Process = document(json.as_bytes()).expect("readable");
        ProcessPlan::build(Some(&process))
    }

    /// A process with one more property.
    fn with(property: &str) -> Result<ProcessPlan> {
        build(&format!(r#"{{"cwd":"/","args":["sh"],{property}}}"#))
    }

    fn fails(property: &str) -> String {
        with(property).expect_err("must be refused").to_string()
    }

    fn texts(list: &[CString]) -> Vec<&str> {
        list.iter().map(|text| text.to_str().expect("UTF-8")).collect()
    }

    #[test]
    fn what_is_required_is_missed_in_runcs_words() {
        let fails = |json| build(json).expect_err("must be refused").to_string();
        assert_eq!(
            ProcessPlan::build(None).expect_err("must be refused").to_string(),
            "config.json: process: process property must not be empty"
        );
        assert_eq!(fails(r#"{"args":["sh"]}"#), "config.json: process.cwd: Cwd property must not be empty");
        assert!(fails(r#"{"cwd":"a","args":["sh"]}"#).contains("Cwd must be an absolute path"));
        assert_eq!(fails(r#"{"cwd":"/"}"#), "config.json: process.args: args must not be empty");
    }

    #[test]
    fn the_lookup_is_that_of_execvp() {
        for (program, path, cwd, expected) in [
            ("sh", Some("/usr/bin:/bin/"), "/", vec!["/usr/bin/sh", "/bin/sh"]),
            ("sh", None, "/", vec!["/bin/sh", "/usr/bin/sh"]),
            ("sh", Some(""), "/root", vec!["/root/sh"]),
            ("sh", Some("a::/b"), "/root/", vec!["/root/a/sh", "/root/sh", "/b/sh"]),
            ("sh", Some("/"), "/", vec!["/sh"]),
            ("./sh", Some("/bin"), "/", vec!["./sh"]),
            ("/x/sh", Some("/bin"), "/", vec!["/x/sh"]),
            ("", Some("/bin"), "/", vec![]),
        ] {
            assert_eq!(candidates(program, path, cwd), expected, "{program:?} in {path:?}");
        }
    }

    #[test]
    fn the_last_entry_of_a_name_wins_and_an_empty_home_is_none() {
        let plan =
            with(r#""env":["A=1","HOME=/x","B=x=y","A=2","HOME=","PATH=/p","N=\n"]"#).expect("accepted");
        assert_eq!(texts(&plan.envp), ["B=x=y", "A=2", "PATH=/p", "N=\n"]);
        assert_eq!(plan.home, HomeRule::FromPasswd);
        assert_eq!(texts(&plan.candidates), ["/p/sh"]);
        let plan = with(r#""env":["HOME=","HOME=/x"]"#).expect("accepted");
        assert_eq!((texts(&plan.envp), plan.home), (vec!["HOME=/x"], HomeRule::Given));
    }

    #[test]
    fn environment_entries_need_a_name() {
        assert!(fails(r#""env":["A=1","B"]"#).contains("process.env[1]: invalid environment variable \"B\""));
        assert!(fails(r#""env":["=x"]"#).contains("name cannot be empty"));
    }

    #[test]
    fn minus_one_is_no_id() {
        for (property, path) in [
            (r#""user":{"uid":4294967295}"#, "process.user.uid"),
            (r#""user":{"gid":4294967295}"#, "process.user.gid"),
            (r#""user":{"additionalGids":[1,4294967295]}"#, "process.user.additionalGids[1]"),
            (r#""user":{"umask":512}"#, "process.user.umask"),
            (r#""oomScoreAdj":1001"#, "process.oomScoreAdj"),
            (r#""oomScoreAdj":-1001"#, "process.oomScoreAdj"),
        ] {
            assert!(fails(property).starts_with(&format!("config.json: {path}: ")), "{property}");
        }
    }

    #[test]
    fn rlimits_are_known_single_and_ordered() {
        let limit = |list: &str| format!(r#""rlimits":[{list}]"#);
        for (list, text) in [
            (r#"{"type":"nofile"}"#, "wrong rlimit value: nofile"),
            (r#"{"type":"RLIMIT_FOO"}"#, "wrong rlimit value: RLIMIT_FOO"),
            (
                r#"{"type":"RLIMIT_CPU"},{"type":"RLIMIT_CPU"}"#,
                "process.rlimits[1].type: duplicated rlimit RLIMIT_CPU",
            ),
            (r#"{"type":"RLIMIT_CPU","soft":2,"hard":1}"#, "process.rlimits[0].soft"),
        ] {
            assert!(fails(&limit(list)).contains(text), "{list}");
        }
        let plan = with(&limit(r#"{"type":"RLIMIT_NOFILE","soft":1,"hard":18446744073709551615}"#));
        let limits = plan.expect("accepted").rlimits;
        assert_eq!(limits.len(), 1);
        assert_eq!(limits.first().map(ToString::to_string).as_deref(), Some("RLIMIT_NOFILE 1:unlimited"));
        assert_eq!(limits.first().map(|limit| limit.resource), Some(libc::RLIMIT_NOFILE));
    }

    #[test]
    fn a_console_has_a_size_only_with_a_terminal() {
        let size = r#""consoleSize":{"height":24,"width":80}"#;
        assert_eq!(with(size).expect("accepted").console_size, None);
        let plan = with(&format!(r#""terminal":true,{size}"#)).expect("accepted");
        assert_eq!(plan.console_size, Some((24, 80)));
    }

    #[test]
    fn the_description_has_no_values_of_the_environment() {
        let plan = with(r#""env":["SECRET=hunter2"]"#).expect("accepted");
        let text = plan.to_string();
        assert!(text.contains("env \"SECRET\"\nenv \"HOME\" from /etc/passwd\n"), "{text}");
        assert!(!text.contains("hunter2"));
    }
}

//! `hooks`: programs that run at points of the lifecycle, ready for execve(2).

#![forbid(unsafe_code)]

use super::process::{c_string, c_strings};
use crate::error::{Error, Result};
use crate::spec;
use std::ffi::CString;
use std::fmt;
use std::time::Duration;

/// One program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute path.
    pub path: CString,
    /// Arguments, at least one.
    pub argv: Vec<CString>,
    /// Environment; `None` if config.json has none or an empty one: a `startContainer` hook then gets the
    /// process's, every other the runtime's own. The specification leaves it open; runc does so, and its
    /// tests and hooks written in shell rely on it.
    pub envp: Option<Vec<CString>>,
    /// After which it is killed.
    pub timeout: Option<Duration>,
}

/// The six lists (config.md, "POSIX-platform Hooks").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Deprecated; before `create_runtime`, in the runtime's namespaces.
    pub prestart: Vec<Hook>,
    /// During create, in the runtime's namespaces.
    pub create_runtime: Vec<Hook>,
    /// During create, in the container's namespaces, before pivot_root.
    pub create_container: Vec<Hook>,
    /// During start, in the container, before the process.
    pub start_container: Vec<Hook>,
    /// During start, in the runtime's namespaces, after the process began.
    pub poststart: Vec<Hook>,
    /// During delete, in the runtime's namespaces.
    pub poststop: Vec<Hook>,
}

/// The names in config.json, in the order in which they run.
pub const NAMES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

impl Hooks {
    /// Decides `hooks`.
    ///
    /// # Errors
    /// A path that is not absolute, a timeout that is not above zero.
    pub fn build(given: &spec::Hooks) -> Result<Self> {
        let [prestart, create_runtime, create_container, start_container, poststart, poststop] = NAMES;
        Ok(Self {
            prestart: list(prestart, &given.prestart)?,
            create_runtime: list(create_runtime, &given.create_runtime)?,
            create_container: list(create_container, &given.create_container)?,
            start_container: list(start_container, &given.start_container)?,
            poststart: list(poststart, &given.poststart)?,
            poststop: list(poststop, &given.poststop)?,
        })
    }

    /// The lists with their names, in the order of [`NAMES`].
    pub fn lists(&self) -> [(&'static str, &[Hook]); 6] {
        let [prestart, create_runtime, create_container, start_container, poststart, poststop] = NAMES;
        [
            (prestart, &self.prestart),
            (create_runtime, &self.create_runtime),
            (create_container, &self.create_container),
            (start_container, &self.start_container),
            (poststart, &self.poststart),
            (poststop, &self.poststop),
        ]
    }
}

fn list(name: &str, given: &[spec::Hook]) -> Result<Vec<Hook>> {
    given.iter().enumerate().map(|(i, hook)| build(&format!("hooks.{name}[{i}]"), hook)).collect()
}

fn build(at: &str, given: &spec::Hook) -> Result<Hook> {
    let path = format!("{at}.path");
    if !given.path.starts_with('/') {
        return Err(Error::config(path, format!("{:?} is not an absolute path", given.path)));
    }
    let timeout = match given.timeout.map(u64::try_from) {
        None => None,
        Some(Ok(seconds @ 1..)) => Some(Duration::from_secs(seconds)),
        Some(_) => {
            return Err(Error::config(format!("{at}.timeout"), "a timeout must be greater than zero"));
        }
    };
    let program = c_string(&path, &given.path)?;
    let argv = match given.args.as_slice() {
        [] => vec![program.clone()],
        args => c_strings(&format!("{at}.args"), args)?,
    };
    let envp = match given.env.as_slice() {
        [] => None,
        env => Some(c_strings(&format!("{at}.env"), env)?),
    };
    Ok(Hook { path: program, argv, envp, timeout })
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.path, self.argv)?;
        self.timeout.map_or(Ok(()), |timeout| write!(f, " timeout={}s", timeout.as_secs()))
    }
}

impl fmt::Display for Hooks {
    /// One line per hook.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, list) in self.lists() {
            list.iter().enumerate().try_for_each(|(i, hook)| writeln!(f, "hook {name}[{i}] {hook}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read::document;

    fn build(json: &str) -> Result<Hooks> {
        let given: spec::Hooks = document(json.as_bytes()).expect("readable");
        Hooks::build(&given)
    }

    #[test]
    fn hooks_are_ready_to_run() {
        let hooks = build(
            r#"{"prestart":[{"path":"/bin/a"}],
                "poststop":[{"path":"/bin/b","args":["x","-y"],"env":["A=1"],"timeout":5}]}"#,
        )
        .expect("accepted");
        assert_eq!(
            hooks.to_string(),
            "hook prestart[0] \"/bin/a\" [\"/bin/a\"]\nhook poststop[0] \"/bin/b\" [\"x\", \"-y\"] timeout=5s\n"
        );
        assert_eq!(hooks.prestart.first().map(|hook| hook.envp.is_none()), Some(true));
    }

    #[test]
    fn a_bad_hook_is_named_by_its_path() {
        for (json, text) in [
            (
                r#"{"prestart":[{"path":"a"}]}"#,
                "config.json: hooks.prestart[0].path: \"a\" is not an absolute",
            ),
            (r#"{"createRuntime":[{}]}"#, "hooks.createRuntime[0].path: \"\" is not"),
            (
                r#"{"createContainer":[{"path":"/a"},{"path":"/a","timeout":0}]}"#,
                "hooks.createContainer[1].timeout: a timeout must be greater than zero",
            ),
            (r#"{"startContainer":[{"path":"/a","timeout":-1}]}"#, "hooks.startContainer[0].timeout"),
        ] {
            let e = build(json).expect_err(json).to_string();
            assert!(e.contains(text), "{json}: {e}");
        }
    }
}

//! Runs hooks (config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle").
//!
//! A hook gets the container's state on standard input, its own environment and nothing of the process's
//! (NVIDIA CVE-2025-23266: LD_PRELOAD of an image, run by a hook of the host), no fd beyond 2, and signals
//! as a fresh program expects them. It may ignore its input, print without end, leave processes behind or
//! hang: none of that may stop the runtime for longer than the hook's own timeout.

#![forbid(unsafe_code)]

use crate::error::{Call, Context, Error, Result};
use crate::plan::hooks::Hook;
use crate::sys::signal::NoSigpipe;
use crate::sys::spawn::{Child, Exit, Program, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

/// What the hooks of a kind have in common.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Environment of a hook that lists none. runc's callers rely on two things: hooks in the runtime
    /// namespace have the runtime's own (PATH), and startContainer hooks have that of the process.
    pub env: &'a [CString],
    /// Working directory: the bundle for a hook in the runtime namespace, `/` after pivot_root.
    pub cwd: Option<&'a CStr>,
    /// Where standard output goes instead of into the error.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Where standard error goes instead of into the error.
    pub stderr: Option<BorrowedFd<'a>>,
}

/// Files of the annotations `run.oci.hooks.stdout` and `run.oci.hooks.stderr` (crun), for [`Options`].
#[derive(Debug, Default)]
pub struct Outputs {
    /// Standard output of every hook.
    pub stdout: Option<OwnedFd>,
    /// Standard error of every hook.
    pub stderr: Option<OwnedFd>,
}

impl Outputs {
    /// Opens the files for appending, in the runtime namespace.
    ///
    /// # Errors
    /// open(2) of either.
    pub fn open(annotations: &BTreeMap<String, String>) -> Result<Self> {
        let open = |name: &str| {
            let Some(path) = annotations.get(name) else { return Ok(None) };
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOCTTY;
            let fd = rustix::fs::open(path.as_str(), flags, Mode::RUSR | Mode::WUSR)
                .call(|| format!("annotation {name}: open {path}"))?;
            Ok::<_, Error>(Some(fd))
        };
        Ok(Self { stdout: open("run.oci.hooks.stdout")?, stderr: open("run.oci.hooks.stderr")? })
    }
}

impl Outputs {
    /// The options of hooks in the runtime's namespaces.
    pub fn options<'a>(&'a self, env: &'a [CString]) -> Options<'a> {
        let fd = |file: &'a Option<OwnedFd>| file.as_ref().map(AsFd::as_fd);
        Options { env, cwd: None, stdout: fd(&self.stdout), stderr: fd(&self.stderr) }
    }
}

/// The runtime's own environment, which hooks in its namespaces get unless they list one.
pub fn own_environment() -> Vec<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect()
}

/// Runs hooks in order until one fails. `kind` is the name in config.json, `state` the JSON for stdin.
///
/// # Errors
/// The first hook that could not be run, did not exit with 0, or was killed at its timeout.
pub fn run(kind: &str, hooks: &[Hook], state: &[u8], options: &Options<'_>) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(i, hook)| numbered(kind, i, hook, state, options))
}

/// Runs every hook and returns the failures, which for `poststop` are warnings (runtime.md, step 13).
#[must_use]
pub fn run_all(kind: &str, hooks: &[Hook], state: &[u8], options: &Options<'_>) -> Vec<Error> {
    let failure = |(i, hook)| numbered(kind, i, hook, state, options).err();
    hooks.iter().enumerate().filter_map(failure).collect()
}

fn numbered(kind: &str, i: usize, hook: &Hook, state: &[u8], options: &Options<'_>) -> Result<()> {
    one(hook, state, options).context(|| format!("error running {kind} hook #{i}"))
}

fn one(hook: &Hook, state: &[u8], options: &Options<'_>) -> Result<()> {
    let _no_sigpipe = NoSigpipe::new();
    let (stdin, feed) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2")?;
    let (mut out, stdout) = Tail::pipe()?;
    let (mut err, stderr) = Tail::pipe()?;
    let fds = [
        stdin.as_fd(),
        options.stdout.unwrap_or_else(|| stdout.as_fd()),
        options.stderr.unwrap_or_else(|| stderr.as_fd()),
    ];
    let envp = hook.envp.as_deref().unwrap_or(options.env);
    let program =
        Program { path: &hook.path, argv: &hook.argv, envp, cwd: options.cwd, fds: &fds, group: true };
    let mut child = spawn(&program).map_err(|e| {
        let what = if e.call == "chdir" { options.cwd } else { Some(hook.path.as_c_str()) };
        Error::sys(format!("{} {}", e.call, what.unwrap_or_default().to_string_lossy()), e.errno)
    })?;
    drop((stdin, stdout, stderr));
    rustix::io::ioctl_fionbio(&feed, true).call(|| "ioctl FIONBIO")?;

    let deadline = hook.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let end = attend(&mut child, Some((feed, state)), &mut out, &mut err, deadline)?;
    if end.is_some_and(Exit::success) {
        return Ok(());
    }
    let end = match (end, hook.timeout) {
        (Some(exit), _) => exit.to_string(),
        (None, timeout) => format!("killed at its timeout of {:?}", timeout.unwrap_or(Duration::ZERO)),
    };
    Err(Error::new(format!("{end}, stdout: {}, stderr: {}", out.text(), err.text())))
}

/// Feeds and drains the hook until it ends; `None` means that it was killed at the deadline.
fn attend(
    child: &mut Child,
    mut feed: Option<(OwnedFd, &[u8])>,
    out: &mut Tail,
    err: &mut Tail,
    deadline: Option<Instant>,
) -> Result<Option<Exit>> {
    loop {
        if let Some((fd, rest)) = &mut feed {
            match rustix::io::write(&*fd, rest) {
                Ok(n) => *rest = rest.get(n..).unwrap_or_default(),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // EPIPE: the hook does not care for its input.
                Err(_) => *rest = &[],
            }
            if rest.is_empty() {
                feed = None;
            }
        }
        let (ended, timed_out) = {
            let mut fds = vec![PollFd::from_borrowed_fd(child.pidfd(), PollFlags::IN)];
            fds.extend(feed.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::OUT)));
            fds.extend(
                [&*out, &*err]
                    .into_iter()
                    .filter_map(|tail| tail.fd.as_ref())
                    .map(|fd| PollFd::new(fd, PollFlags::IN)),
            );
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => (false, true),
                Ok(_) => (fds.first().is_some_and(|fd| !fd.revents().is_empty()), false),
                Err(Errno::INTR) => (false, false),
                Err(errno) => return Err(Error::sys("poll", errno)),
            }
        };
        if timed_out || ended {
            if timed_out {
                child.kill();
            }
            let exit = child.wait()?;
            // Not until EOF: a process that the hook left behind may hold the pipes for ever.
            out.drain();
            err.drain();
            return Ok(Some(exit).filter(|_| !timed_out));
        }
        out.drain();
        err.drain();
    }
}

/// The last part of what comes out of a pipe.
struct Tail {
    fd: Option<OwnedFd>,
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    /// Kept for the error message.
    const KEPT: usize = 4096;

    /// The tail, which reads without blocking, and the end to write to.
    fn pipe() -> Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2")?;
        rustix::io::ioctl_fionbio(&read, true).call(|| "ioctl FIONBIO")?;
        Ok((Self { fd: Some(read), bytes: Vec::new(), cut: false }, write))
    }

    /// Takes what is there, but no more than a pipe can hold (fs.pipe-max-size): the writer may never end.
    fn drain(&mut self) {
        let mut buffer = [0u8; 16384];
        for _ in 0..64 {
            let Some(fd) = &self.fd else { return };
            match rustix::io::read(fd, &mut buffer) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(0) | Err(_) => self.fd = None,
                Ok(n) => {
                    self.bytes.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    let excess = self.bytes.len().saturating_sub(Self::KEPT);
                    self.cut |= excess > 0;
                    self.bytes.drain(..excess);
                }
            }
        }
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        format!("{}{}", if self.cut { "..." } else { "" }, text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn hook(script: &str) -> Hook {
        let argv = ["sh", "-c", script].map(|s| CString::new(s).unwrap()).to_vec();
        Hook { path: c"/bin/sh".into(), argv, envp: Some(vec![c"PATH=/bin:/usr/bin".into()]), timeout: None }
    }

    fn failure(script: &str) -> String {
        run("createRuntime", &[hook("true"), hook(script)], b"{}", &Options::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_error_names_kind_and_number_and_shows_both_outputs_in_one_line() {
        assert_eq!(
            failure("echo out; echo er 1>&2; echo ror 1>&2; exit 1"),
            "error running createRuntime hook #1: exit status 1, stdout: out, stderr: er\\nror"
        );
        assert_eq!(
            failure("kill -9 $$"),
            "error running createRuntime hook #1: killed by signal 9 (killed), stdout: , stderr: "
        );
    }

    #[test]
    fn a_hook_that_does_not_exist_fails_with_its_path() {
        let hook = Hook { path: c"/nonexistent".into(), ..hook("") };
        let e = run("prestart", &[hook], b"{}", &Options::default()).unwrap_err().to_string();
        assert_eq!(e, "error running prestart hook #0: execve /nonexistent: no such file or directory");
    }

    #[test]
    fn the_state_arrives_whole_on_standard_input() {
        // Larger than a pipe, so that feeding has to wait for the reader.
        let state = vec![b'x'; 300_000];
        run("poststart", &[hook("test $(wc -c) = 300000")], &state, &Options::default()).unwrap();
    }

    #[test]
    fn a_hook_may_ignore_its_input() {
        let state = vec![b'x'; 300_000];
        run("poststart", &[hook("exec <&-; head -c 10000000 /dev/zero")], &state, &Options::default())
            .unwrap();
    }

    #[test]
    fn only_the_end_of_much_output_is_kept() {
        let e = failure("yes | head -c 10000000; echo end; exit 3");
        assert!(e.starts_with("error running createRuntime hook #1: exit status 3, stdout: ..."), "{e:.99}");
        assert!(e.ends_with("y\\nend, stderr: ") && e.len() < 8400, "{}", e.len());
    }

    #[test]
    fn the_timeout_kills_the_hook_and_its_children() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let slow = Hook { timeout: Some(Duration::from_millis(50)), ..hook("sleep 1000 & sleep 1000") };
        let options = Options { stdout: Some(write.as_fd()), ..Options::default() };
        let e = run("prestart", &[slow], b"{}", &options).unwrap_err().to_string();
        assert_eq!(e, "error running prestart hook #0: killed at its timeout of 50ms, stdout: , stderr: ");
        drop(write);
        assert_eq!(rustix::io::read(&read, &mut [0u8; 1]), Ok(0), "nobody holds the pipe any more");
    }

    #[test]
    fn a_process_left_behind_does_not_hold_up_the_runtime() {
        let leave = hook("setsid sleep 3 & exit 0");
        let before = Instant::now();
        run("prestart", &[leave], b"{}", &Options::default()).unwrap();
        assert!(before.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn the_environment_is_the_hooks_or_else_the_default_and_nothing_more() {
        let default = [c"ONE=two".to_owned()];
        let options = Options { env: &default, cwd: Some(c"/usr"), ..Options::default() };
        let mut bare = hook("");
        bare.argv = ["sh", "-c", "test \"$ONE\" = two && test \"$(pwd)\" = /usr"]
            .map(|s| CString::new(s).unwrap())
            .to_vec();
        bare.envp = None;
        run("startContainer", &[bare], b"{}", &options).unwrap();
        run("startContainer", &[hook("test -z \"$ONE$CARGO$HOME\"")], b"{}", &options).unwrap();
    }

    #[test]
    fn output_can_go_to_a_file() {
        let mut file =
            std::fs::File::from(rustix::fs::memfd_create("out", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let shared = file.try_clone().unwrap();
        let options = Options { stdout: Some(shared.as_fd()), ..Options::default() };
        let e = run("prestart", &[hook("echo a; exit 1")], b"{}", &options).unwrap_err().to_string();
        assert_eq!(e, "error running prestart hook #0: exit status 1, stdout: , stderr: ");
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a\n");
    }

    #[test]
    fn all_poststop_hooks_run_whatever_fails() {
        let hooks = [hook("exit 1"), hook("exit 0"), hook("exit 2")];
        let warnings: Vec<String> =
            run_all("poststop", &hooks, b"{}", &Options::default()).iter().map(Error::to_string).collect();
        assert_eq!(
            warnings,
            [
                "error running poststop hook #0: exit status 1, stdout: , stderr: ",
                "error running poststop hook #2: exit status 2, stdout: , stderr: ",
            ]
        );
    }
}

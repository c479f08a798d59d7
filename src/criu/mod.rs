//! Checkpoint and restore by CRIU, driven over the RPC of `criu swrk`.
//!
//! CRIU dumps and restores processes; what a container adds to them is told to it here: which mounts and
//! namespaces come from outside, which cgroups are the container's, where its terminal goes. Where it works, and why not
//! in the host's mount namespace, `apart` tells.

#![forbid(unsafe_code)]

mod apart;
mod checkpoint;
mod restore;
pub mod rpc;
mod tracer;

pub use apart::DIRECTORY;
pub use checkpoint::checkpoint;
pub use restore::restore;
pub use tracer::kill_tracer;

use crate::cgroup::layout::Layout;
use crate::error::{Call, Context, Error, Result};
use crate::plan;
use crate::spec::Spec;
use crate::sys::spawn::{Child, Exit, Program, spawn_surviving};
use apart::Apart;
use rpc::{Kind, Message, Response, opt};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags, ResolveFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};
use std::ffi::{CString, OsStr};
use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The flags of `checkpoint` and `restore`; each named as its flag.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Options {
    pub image_path: PathBuf,
    pub work_path: Option<PathBuf>,
    /// Relative to `image_path`.
    pub parent_path: Option<PathBuf>,
    pub leave_running: bool,
    pub tcp_established: bool,
    pub tcp_close: bool,
    pub tcp_skip_in_flight: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub link_remap: bool,
    pub pre_dump: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
    /// Gets one zero byte when the server of the lazy pages listens.
    pub status_fd: Option<OwnedFd>,
    /// Address and port.
    pub page_server: Option<(String, u16)>,
    pub manage_cgroups_mode: CgroupMode,
    pub network_lock: Option<NetworkLock>,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

/// `--manage-cgroups-mode`, with the numbers of `criu_cg_mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
    /// CRIU's choice, where the flag is not given.
    #[default]
    Default = 6,
}

/// `--network-lock`, with the numbers of `criu_network_lock_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NetworkLock {
    Iptables = 1,
    Nftables = 2,
    Skip = 3,
}

/// The container.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Its id, for messages.
    pub id: &'a str,
    /// Init; 0 for `restore`.
    pub pid: u32,
    /// Its directory below `--root`, absolute and without symlinks.
    pub state: &'a Path,
    /// The root filesystem, absolute.
    pub root: &'a Path,
    /// config.json.
    pub spec: &'a Spec,
    /// Which namespaces it made and joined.
    pub namespaces: &'a plan::Namespaces,
    /// Its cgroups on the host by controller, the empty name standing for cgroup v2.
    pub cgroup_paths: &'a [(String, PathBuf)],
}

/// What init's standard fds are, as CRIU names those that come from outside: `pipe:[1234]`.
///
/// # Errors
/// readlink, unless the fd is closed, which is the empty string.
fn descriptors(pid: u32) -> Result<Vec<String>> {
    let name = |fd: u32| {
        let path = format!("/proc/{pid}/fd/{fd}");
        match rustix::fs::readlink(path.as_str(), Vec::new()) {
            Ok(link) => Ok(link.to_string_lossy().into_owned()),
            Err(Errno::NOENT) => Ok(String::new()),
            Err(errno) => Err(Error::sys(format!("readlink {path}"), errno)),
        }
    };
    (0..3).map(name).collect()
}

/// What CRIU reports while it restores; an error from the callback makes it give up.
#[derive(Debug)]
pub enum Notify {
    /// CRIU runs and has read nothing: put this pid into the container's cgroups now.
    Started(u32),
    /// The namespaces exist: run the hooks `prestart` and `createRuntime`; pid of init.
    SetupNamespaces(u32),
    /// The processes are restored and not running yet: commit the state; pid of init, a child of ours.
    PostRestore(u32),
    /// The master of the container's terminal.
    Terminal(OwnedFd),
}

/// A file of the images' names: what standard fds were at the time of the dump.
const DESCRIPTORS: &str = "descriptors.json";
/// Oldest CRIU with the VERSION request.
const OLDEST: u32 = 30000;
/// Nodes that runc binds where mknod is not allowed; config.md, "Default Devices".
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// `criu swrk` and our end of its socket.
struct Criu {
    child: Child,
    socket: OwnedFd,
    /// What it writes before it has a log, and after: a file without a name, as a pipe could fill up.
    said: Option<OwnedFd>,
}

/// Where CRIU's standard error goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stderr {
    /// Ours, as a restored process may get it for its own.
    Shared,
    /// Kept for the failure's line: after a pre-dump CRIU waits for the next one, and complains that none comes.
    Kept,
}

/// Called with a notification's name, the pid of init and an fd, if they come with it.
type Notified<'a> = dyn FnMut(&str, u32, Option<OwnedFd>) -> Result<()> + 'a;

/// Why an exchange failed: CRIU's answer, or we.
enum Failure {
    Refused(Response),
    Ours(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Ours(e)
    }
}

impl Criu {
    /// Starts the program with our standard fds, the socket as fd 3 and `fds` from 4 on.
    fn start(stderr: Stderr, fds: &[BorrowedFd<'_>]) -> Result<Self> {
        let path = find_in_path("criu", std::env::var_os("PATH").as_deref())?;
        let env = std::env::vars_os().map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
                .map_err(|_| Error::new("environment"))
        });
        let env = env.collect::<Result<Vec<_>>>()?;
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .call(|| "socketpair")?;
        let memory = || memfd_create("criu-stderr", MemfdFlags::CLOEXEC).call(|| "memfd_create");
        let said = (stderr == Stderr::Kept).then(memory).transpose()?;
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let shown = said.as_ref().map_or_else(|| stderr.as_fd(), AsFd::as_fd);
        let mut all = vec![stdin.as_fd(), stdout.as_fd(), shown, theirs.as_fd()];
        all.extend_from_slice(fds);
        let argv = [c"criu".to_owned(), c"swrk".to_owned(), c"3".to_owned()];
        let program = Program { path: &path, argv: &argv, envp: &env, cwd: None, fds: &all, group: false };
        // Killed in the middle it would leave processes frozen or with its code inside, and the network locked.
        let child = spawn_surviving(&program).context(|| path.to_string_lossy().into_owned())?;
        Ok(Self { child, socket, said })
    }

    fn pid(&self) -> u32 {
        self.child.pid().as_raw_nonzero().get().cast_unsigned()
    }

    /// Sends a request, answers CRIU's notifications until the response comes, and waits for CRIU's end:
    /// it must not be killed while it undoes what failed.
    fn ask(self, request: &Message, notified: &mut Notified<'_>) -> Result<(Response, Exit), Failure> {
        self.send(request)?;
        let mut ours = Ok(());
        let response = loop {
            let (response, fd) = self.receive().map_err(|e| self.quote(e))?;
            let notify = response.notify.as_ref().filter(|_| response.kind == Kind::Notify as u64);
            let Some((script, pid)) = notify.filter(|_| response.success) else {
                break response;
            };
            if ours.is_ok() {
                ours = notified(script, *pid, fd).context(|| format!("criu: {script}"));
            }
            let mut reply = rpc::request(Kind::Notify);
            reply.int(3, ours.is_ok());
            self.send(&reply)?;
        };
        let Self { mut child, socket, said } = self;
        drop(socket);
        let exit = child.wait().map_err(Error::from)?;
        ours?;
        if response.success {
            return Ok((response, exit));
        }
        let message = Some(response.message).filter(|words| !words.is_empty());
        let message = message.or_else(|| said.and_then(|fd| last_error(fd.into()))).unwrap_or_default();
        Err(Failure::Refused(Response { message, ..response }))
    }

    /// Adds what CRIU wrote, as one that ends without an answer has no log as a rule.
    fn quote(&self, e: Error) -> Error {
        let said = self.said.as_ref().and_then(|fd| fd.try_clone().ok());
        match said.and_then(|fd| last_error(fd.into())) {
            Some(line) => Error::new(format!("{e}: {line}")),
            None => e,
        }
    }

    fn send(&self, message: &Message) -> Result<()> {
        rustix::net::send(&self.socket, message.as_ref(), SendFlags::NOSIGNAL).map(drop).call(|| "criu: send")
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let mut buffer = vec![0u8; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let n = loop {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            match rustix::net::recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                // It ended before it had read what we sent.
                Err(Errno::CONNRESET) => break 0,
                other => break other.call(|| "criu: recvmsg")?.bytes,
            }
        };
        if n == 0 {
            return Err(Error::new("criu ended without an answer"));
        }
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let response = Response::decode(buffer.get(..n).unwrap_or_default());
        Ok((response.ok_or_else(|| Error::new("criu: the answer is not protobuf"))?, fd))
    }
}

/// CRIU's version; its absence and its age are told here.
fn version() -> Result<u32> {
    let criu = Criu::start(Stderr::Kept, &[])?;
    let response = criu.ask(&rpc::request(Kind::Version), &mut |_, _, _| Ok(()));
    let version = response.map_err(|failure| explain(failure, None))?.0.version;
    need(version, OLDEST, "the RPC")?;
    Ok(version)
}

fn need(version: u32, wanted: u32, what: &str) -> Result<()> {
    let dotted = |v: u32| format!("{}.{}", v / 10000, v / 100 % 100);
    if version < wanted {
        return Err(Error::new(format!("{what} needs CRIU {}, this is {}", dotted(wanted), dotted(version))));
    }
    Ok(())
}

/// One line: CRIU's own words or the log's last error, and where the log is.
fn explain(failure: Failure, log: Option<&Path>) -> Error {
    let response = match failure {
        Failure::Refused(response) => response,
        Failure::Ours(e) => {
            let words = log.and_then(logged_error).map_or_else(String::new, |line| format!(": {line}"));
            let place = log.map_or_else(String::new, |log| format!("; log file: {}", log.display()));
            return if words.is_empty() { e } else { Error::new(format!("{e}{words}{place}")) };
        }
    };
    let mut text = format!("criu failed: type {} errno {}", Kind::name(response.kind), response.errno);
    let words = log.and_then(logged_error);
    let words = words.or_else(|| Some(response.message).filter(|words| !words.is_empty()));
    let words = words.or_else(|| crate::sys::errno(response.errno).map(crate::error::strerror));
    if let Some(words) = words {
        text = format!("{text}: {words}");
    }
    if let Some(log) = log {
        text = format!("{text}; log file: {}", log.display());
    }
    Error::new(text)
}

fn logged_error(log: &Path) -> Option<String> {
    last_error(std::fs::File::open(log).ok()?)
}

/// The last error in what CRIU wrote that says more than that it failed.
fn last_error(mut file: std::fs::File) -> Option<String> {
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(1 << 18))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let errors = || text.lines().rev().filter(|line| line.contains("Error (")).map(str::trim);
    let telling = errors().find(|line| !is_consequence(line));
    telling.or_else(|| errors().next()).map(str::to_owned)
}

/// Whether a line of CRIU's only says that something failed of which an earlier one said why.
fn is_consequence(line: &str) -> bool {
    let signs = ["failed with ", "exited, status=", "killed by signal", "Unable to open fd="];
    line.ends_with("FAILED.") || signs.iter().any(|sign| line.contains(sign))
}

/// An absolute path of a program in the host's PATH.
fn find_in_path(name: &str, path: Option<&OsStr>) -> Result<CString> {
    let default = OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for directory in path.unwrap_or(default).as_bytes().split(|b| *b == b':').filter(|d| d.starts_with(b"/"))
    {
        let file = Path::new(OsStr::from_bytes(directory)).join(name);
        let is_file =
            rustix::fs::stat(&file).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_file());
        if is_file && rustix::fs::access(&file, rustix::fs::Access::EXEC_OK).is_ok() {
            return CString::new(file.as_os_str().as_bytes()).map_err(|_| Error::new("PATH"));
        }
    }
    Err(Error::new(format!("exec: {name:?}: executable file not found in $PATH")).remedy("install CRIU"))
}

/// Opens a directory for CRIU, which reaches it through our /proc/PID/fd.
fn open_directory(path: &Path, make: bool) -> Result<OwnedFd> {
    if make {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::sys(format!("mkdir {}", path.display()), errno)),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).call(|| format!("open {}", path.display()))
}

/// The options that dump and restore share.
fn common(
    apart: &Apart<'_>,
    options: &Options,
    images: &OwnedFd,
    work: Option<&OwnedFd>,
    log: &str,
) -> Result<Message> {
    let subject = apart.subject;
    let mut opts = Message::default();
    opts.int(opt::IMAGES_DIR_FD, images.as_raw_fd()).int(opt::LOG_LEVEL, 4).bytes(opt::LOG_FILE, log);
    if let Some(work) = work {
        opts.int(opt::WORK_DIR_FD, work.as_raw_fd());
    }
    let mode = match options.manage_cgroups_mode {
        // The container has none of its own, and CRIU cannot restore processes that were in its own.
        CgroupMode::Default if subject.cgroup_paths.is_empty() => CgroupMode::Ignore,
        mode => mode,
    };
    if let Some(yard) = (mode != CgroupMode::Ignore).then(|| apart.yard()).transpose()?.flatten() {
        opts.bytes(opt::CGROUP_YARD, yard.as_os_str().as_bytes());
    }
    opts.int(opt::MANAGE_CGROUPS, 1).int(opt::MANAGE_CGROUPS_MODE, mode as i32);
    opts.flag(opt::NOTIFY_SCRIPTS, true).flag(opt::ORPHAN_PTS_MASTER, true);
    opts.flag(opt::SHELL_JOB, options.shell_job).flag(opt::TCP_ESTABLISHED, options.tcp_established);
    opts.flag(opt::TCP_CLOSE, options.tcp_close).flag(opt::EXT_UNIX_SK, options.ext_unix_sk);
    opts.flag(opt::FILE_LOCKS, options.file_locks).flag(opt::AUTO_DEDUP, options.auto_dedup);
    opts.flag(opt::LAZY_PAGES, options.lazy_pages);
    // Network devices are the caller's (CNI, libnetwork), never CRIU's to rebuild.
    opts.int(opt::EMPTY_NS, plan::Kind::Network.flag());
    if let Some(lock) = options.network_lock {
        opts.int(opt::NETWORK_LOCK, lock as i32);
    }
    // An empty annotation means no file; CRIU ignores one that does not exist.
    let file = subject.spec.annotations.get("org.criu.config").map_or("/etc/criu/runc.conf", String::as_str);
    if !file.is_empty() {
        opts.bytes(opt::CONFIG_FILE, file);
    }
    Ok(opts)
}

/// The key under which an external namespace is dumped and found again.
fn namespace_key(kind: plan::Kind) -> &'static str {
    match kind {
        plan::Kind::Pid => "extRootPidNS",
        _ => "extRootNetNS",
    }
}

/// The mounts that come from outside: where they are, resolved in the root, and their source on the host.
fn external_mounts(subject: &Subject<'_>) -> Result<Vec<(PathBuf, PathBuf)>> {
    let root = open_directory(subject.root, false)?;
    let mut mounts = Vec::new();
    for mount in &subject.spec.mounts {
        let target = || resolve(&root, Path::new(&mount.destination));
        if mount.options.iter().any(|option| option == "bind" || option == "rbind") {
            mounts.push((target()?, PathBuf::from(&mount.source)));
        } else if mount.typ.starts_with("cgroup") && !subject.namespaces.has(plan::Kind::Cgroup) {
            mounts.extend(bound_cgroups(subject, &target()?)?);
        }
    }
    let listed =
        subject.spec.linux.iter().flat_map(|linux| &linux.devices).map(|device| device.path.as_str());
    mounts.extend(DEVICES.into_iter().chain(listed).map(|path| (path.into(), path.into())));
    mounts.dedup();
    Ok(mounts)
}

/// What a mount of type `cgroup` is without a cgroup namespace: binds of the container's cgroups, on v1 one for
/// each hierarchy and under its name, on v2 without a user namespace of the whole tree, as [`crate::plan`] has it.
fn bound_cgroups(subject: &Subject<'_>, target: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let layout = Layout::read()?;
    let whole = layout.is_v2() && !subject.namespaces.has(plan::Kind::User);
    let bound = layout.hierarchies.iter().filter_map(|hierarchy| {
        let key = hierarchy.key();
        let known = subject.cgroup_paths.iter().find(|(controllers, _)| *controllers == key);
        let own = || hierarchy.mount.join(hierarchy.own.trim_start_matches('/'));
        let source = match whole {
            true => hierarchy.mount.clone(),
            false => known.map_or_else(own, |(_, path)| path.clone()),
        };
        let target =
            if layout.is_v2() { target.to_owned() } else { target.join(hierarchy.mount.file_name()?) };
        Some((target, source))
    });
    Ok(bound.collect())
}

/// The path of a mount point as CRIU finds it in mountinfo: without the root's symlinks. What does not exist
/// yet keeps its name.
fn resolve(root: &OwnedFd, path: &Path) -> Result<PathBuf> {
    let link = |fd: &OwnedFd| {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let link = rustix::fs::readlink(path.as_str(), Vec::new()).call(|| format!("readlink {path}"))?;
        Ok::<_, Error>(PathBuf::from(OsStr::from_bytes(link.as_bytes())))
    };
    let mut missing = PathBuf::new();
    let mut present = path;
    loop {
        match open_in_root(root, present) {
            Ok(fd) => {
                let (base, full) = (link(root)?, link(&fd)?);
                let inside = full
                    .strip_prefix(&base)
                    .map_err(|_| Error::new(format!("{} left the root", path.display())))?;
                let inside = Path::new("/").join(inside);
                return Ok(if missing.as_os_str().is_empty() { inside } else { inside.join(missing) });
            }
            Err(Errno::NOENT) if present.parent().is_some() => {
                let name =
                    present.file_name().ok_or_else(|| Error::new(format!("{}: `..`", path.display())))?;
                missing =
                    if missing.as_os_str().is_empty() { name.into() } else { Path::new(name).join(missing) };
                present = present.parent().unwrap_or(present);
            }
            Err(errno) => return Err(Error::sys(format!("openat2 {}", path.display()), errno)),
        }
    }
}

fn open_in_root(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);
    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn directory(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("rrun-criu-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn has_criu() -> bool {
        let found = find_in_path("criu", None).is_ok();
        if !found {
            eprintln!("skipped: criu is not installed");
        }
        found
    }

    #[test]
    fn the_real_criu_tells_its_version() {
        if has_criu() {
            assert!((30000..100_000).contains(&version().unwrap()));
        }
    }

    #[test]
    fn the_real_criu_s_failure_is_one_line_with_its_log() {
        if !has_criu() {
            return;
        }
        let images = directory("fail");
        let spec = Spec::default();
        let namespaces = plan::Namespaces::build(&[]).unwrap();
        let subject = Subject {
            id: "c",
            // No process has this pid: above the largest pid_max.
            pid: 4_194_305,
            state: &images.0,
            root: Path::new("/"),
            spec: &spec,
            namespaces: &namespaces,
            cgroup_paths: &[],
        };
        let options = Options { image_path: images.0.clone(), ..Options::default() };
        let e = checkpoint(&subject, &options).unwrap_err().to_string();
        let log = images.0.join("dump.log");
        assert!(e.starts_with("criu failed: type DUMP errno "), "{e}");
        assert!(e.contains(": ") && e.ends_with(&format!("; log file: {}", log.display())), "{e}");
        assert!(e.contains("Error (criu/"), "{e}");
        assert!(!e.contains('\n') && log.exists(), "{e}");
        let names = std::fs::read_to_string(images.0.join(DESCRIPTORS)).unwrap();
        assert_eq!(names, r#"["","",""]"#);
    }

    #[test]
    fn the_parent_path_is_judged_before_anything_is_dumped() {
        if !has_criu() {
            return;
        }
        let images = directory("parent");
        let spec = Spec::default();
        let namespaces = plan::Namespaces::build(&[]).unwrap();
        let (state, root) = (images.0.as_path(), Path::new("/"));
        let subject =
            Subject { id: "c", pid: 1, state, root, spec: &spec, namespaces: &namespaces, cgroup_paths: &[] };
        let fail = |parent: &str| {
            let parent_path = Some(parent.into());
            let options = Options { image_path: images.0.clone(), parent_path, ..Options::default() };
            checkpoint(&subject, &options).unwrap_err().to_string()
        };
        assert!(fail("/abs").starts_with("--parent-path must be relative"));
        assert!(fail("none").starts_with("invalid --parent-path: "));
    }

    #[test]
    fn the_last_error_that_tells_something_is_quoted() {
        let directory = directory("log");
        let log = directory.0.join("dump.log");
        let text = "(0.1) all is well\n(0.2) Error (criu/x.c:1): first\n(0.3) Error (criu/x.c:2): second\n\
                    (0.4) Error (criu/cr-dump.c:8): Dump files (pid: 7) failed with -1\n\
                    (0.4) Error (criu/cr-dump.c:9): Dumping FAILED.\n";
        std::fs::write(&log, text).unwrap();
        assert_eq!(logged_error(&log).as_deref(), Some("(0.3) Error (criu/x.c:2): second"));
    }
}

//! `restore`: asks CRIU to make the container again from its images.

#![forbid(unsafe_code)]

use super::apart::Apart;
use super::rpc::{self, Kind, Message, opt};
use super::{Criu, DESCRIPTORS, NetworkLock, Notify, Options, Stderr, Subject};
use crate::container;
use crate::error::{Call, Context, Error, Result};
use crate::plan;
use crate::state::Root;
use crate::sys::launch::setns;
use crate::sys::spawn::{Program, spawn_surviving};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, ResolveFlags, memfd_create};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Restores the container and returns the pid of its init, a child of ours that runs by then. Its standard
/// fds, where they were pipes, become ours. What the caller must do meanwhile, [`Notify`] says.
///
/// # Errors
/// As [`super::checkpoint()`], and those of the callback.
pub fn restore(
    subject: &Subject<'_>,
    options: &Options,
    hooks: &mut dyn FnMut(Notify) -> Result<()>,
) -> Result<u32> {
    let version = super::version()?;
    if options.lsm_profile.is_some() || options.lsm_mount_context.is_some() {
        super::need(version, 31600, "--lsm-profile or --lsm-mount-context")?;
    }
    make_mount_points(subject)?;
    let log = options.work_path.as_deref().unwrap_or(&options.image_path).join("restore.log");
    let apart = Apart::new(subject)?;
    let _turn = turn()?;
    let (criu, mut opts, inherited, _open) = apart.enter(|| {
        let images = super::open_directory(&options.image_path, false)?;
        let work = options.work_path.as_deref().map(|path| super::open_directory(path, true)).transpose()?;
        let (opts, inherited) = restore_options(&apart, options, &images, work.as_ref())?;
        // An earlier one's errors are not this one's.
        let _ = rustix::fs::unlink(&log);
        let fds: Vec<_> = inherited.iter().map(|(_, fd)| fd.as_fd()).collect();
        Ok((Criu::start(Stderr::Shared, &fds)?, opts, inherited, (images, work)))
    })?;
    hooks(Notify::Started(criu.pid()))?;
    cgroup_roots(criu.pid(), &mut opts)?;
    let mut request = rpc::request(Kind::Restore);
    request.bytes(2, &opts);
    let mut notified = |script: &str, pid: u32, fd: Option<OwnedFd>| match (script, fd) {
        ("setup-namespaces", _) => hooks(Notify::SetupNamespaces(pid)),
        ("post-restore", _) => hooks(Notify::PostRestore(pid)),
        ("orphan-pts-master", Some(master)) => hooks(Notify::Terminal(master)),
        _ => Ok(()),
    };
    let (response, exit) = criu.ask(&request, &mut notified).map_err(|failure| {
        let e = super::explain(failure, Some(&log));
        // CRIU opens most images as the container's root.
        if subject.namespaces.has(plan::Kind::User) && e.to_string().contains("Permission denied") {
            return e
                .remedy("the root of its user namespace must reach the images: chmod o+x their directory");
        }
        e
    })?;
    match response.restored {
        Some(pid) if exit.success() => {
            let locked = options.network_lock.is_none_or(|lock| lock == NetworkLock::Iptables);
            if let Some((_, network)) =
                inherited.iter().find(|(kind, _)| locked && *kind == plan::Kind::Network)
            {
                unlock(network)?;
            }
            Ok(pid)
        }
        _ => Err(Error::new(format!("criu failed: {exit}; log file: {}", log.display()))),
    }
}

fn restore_options(
    apart: &Apart<'_>,
    options: &Options,
    images: &OwnedFd,
    work: Option<&OwnedFd>,
) -> Result<(Message, Inherited)> {
    let subject = apart.subject;
    let mut opts = super::common(apart, options, images, work, "restore.log")?;
    opts.bytes(opt::ROOT, apart.root()?.as_os_str().as_bytes());
    opts.flag(opt::EVASIVE_DEVICES, true).flag(opt::RST_SIBLING, true);
    if let Some(profile) = &options.lsm_profile {
        opts.bytes(opt::LSM_PROFILE, profile);
    }
    if let Some(context) = &options.lsm_mount_context {
        opts.bytes(opt::LSM_MOUNT_CONTEXT, context);
    }
    for (target, source) in super::external_mounts(subject)? {
        opts.pair(opt::EXT_MNT, target.as_os_str().as_bytes(), source.as_os_str().as_bytes());
    }
    // The name under which masked files were dumped.
    opts.pair(opt::EXT_MNT, "/dev/null", "/dev/null");
    let inherited = namespaces(subject, &mut opts)?;
    inherit_pipes(images, &mut opts)?;
    Ok((opts, inherited))
}

/// Namespaces that CRIU gets as fds.
type Inherited = Vec<(plan::Kind, OwnedFd)>;

/// Waits until no other restore is under way on this machine, until the fd is closed. CRIU names a socket in the host's
/// network namespace by the pid inside the container alone (`transport_name_gen`; the number that tells runs apart is
/// 0 over RPC, 3.17 to 4.0), so that the second of two at once fails with `Address already in use`.
///
/// The lock is on the default root directory, whatever `--root` says; nobody else can open that and hold it.
fn turn() -> Result<OwnedFd> {
    Root::open_or_make(&container::root(None)?)?.lock().context(|| "wait for other restores")
}

/// Tells CRIU which namespaces to take from where, and opens those that it inherits, from fd 4 on.
fn namespaces(subject: &Subject<'_>, opts: &mut Message) -> Result<Inherited> {
    let mut inherited = Vec::new();
    for kind in plan::Kind::ALL {
        let Some(path) = subject.namespaces.joins(kind) else { continue };
        match kind {
            plan::Kind::Network | plan::Kind::Pid => {
                let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .call(|| format!("open {} namespace {}", kind.name(), path.display()))?;
                let number = i32::try_from(inherited.len()).unwrap_or(i32::MAX).saturating_add(4);
                opts.numbered(opt::INHERIT_FD, super::namespace_key(kind), number);
                inherited.push((kind, fd));
            }
            plan::Kind::Cgroup => {
                return Err(Error::new(format!(
                    "restore cannot join the cgroup namespace {}",
                    path.display()
                )));
            }
            _ => {
                opts.pair(opt::JOIN_NS, kind.file(), path.as_os_str().as_bytes());
            }
        }
    }
    Ok(inherited)
}

/// Unlocks a network namespace that has outlived the container. CRIU locks it when it dumps, so that no peer is
/// told that its connection is gone, and again when it restores, each time with a jump into its chain; then it
/// takes away one jump only (3.17, whoever calls it), and every packet is dropped from there on.
fn unlock(network: &OwnedFd) -> Result<()> {
    let path = "/proc/thread-self/ns/net";
    let own = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open {path}"))?;
    setns(network, plan::Kind::Network.flag()).context(|| "unlock the network namespace")?;
    let done = ["iptables-restore", "ip6tables-restore"].iter().try_for_each(|name| {
        let mut jumps = 0;
        // More than two are of restores that failed.
        while jumps < 64 && change_rules(name, "-D INPUT -j CRIU\n-D OUTPUT -j CRIU\n")? {
            jumps += 1;
        }
        if jumps > 0 {
            change_rules(name, "-F CRIU\n-X CRIU\n")?;
        }
        Ok(())
    });
    setns(&own, plan::Kind::Network.flag()).context(|| "return to the network namespace")?;
    done
}

/// Whether these changes of the filter table, all or none, succeed in this network namespace. Without the program,
/// CRIU has not locked anything with it.
fn change_rules(program: &str, rules: &str) -> Result<bool> {
    let Ok(path) = super::find_in_path(program, std::env::var_os("PATH").as_deref()) else {
        return Ok(false);
    };
    let memory = memfd_create("rules", MemfdFlags::CLOEXEC).call(|| "memfd_create")?;
    let text = format!("*filter\n{rules}COMMIT\n");
    rustix::io::pwrite(&memory, text.as_bytes(), 0).call(|| "write")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open /dev/null")?;
    // The name says whose rules: all of them are one program.
    let name = CString::new(program).map_err(|_| Error::new("NUL"))?;
    let argv = [name, c"--wait".to_owned(), c"--noflush".to_owned()];
    let fds = [memory.as_fd(), null.as_fd(), null.as_fd()];
    let program = Program { path: &path, argv: &argv, envp: &[], cwd: None, fds: &fds, group: false };
    let mut child = spawn_surviving(&program).context(|| path.to_string_lossy().into_owned())?;
    Ok(child.wait()?.success())
}

/// Gives the container our standard fds for those that were pipes.
fn inherit_pipes(images: &OwnedFd, opts: &mut Message) -> Result<()> {
    let file = rustix::fs::openat(images, DESCRIPTORS, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open {DESCRIPTORS} of the checkpoint"))?;
    let names: Vec<Option<String>> = serde_json::from_reader(std::fs::File::from(file))
        .map_err(|e| Error::new(format!("{DESCRIPTORS} of the checkpoint: {e}")))?;
    for (fd, name) in (0..3).zip(names) {
        if let Some(name) = name.filter(|name| name.starts_with("pipe:[")) {
            opts.numbered(opt::INHERIT_FD, name, fd);
        }
    }
    Ok(())
}

/// Maps the cgroups of the dump onto those that CRIU itself was put into.
fn cgroup_roots(criu: u32, opts: &mut Message) -> Result<()> {
    let path = format!("/proc/{criu}/cgroup");
    let text = crate::file::read(&path)?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(cgroup)) = (parts.next(), parts.next()) {
            for controller in controllers.split(',') {
                opts.pair(opt::CG_ROOT, controller, cgroup);
            }
        }
    }
    Ok(())
}

/// Makes the mount points that creation made, as the images hold none of the root filesystem. One inside an
/// earlier bind is made in that bind's source; one on a tmpfs comes with the tmpfs's contents.
fn make_mount_points(subject: &Subject<'_>) -> Result<()> {
    let mounts = &subject.spec.mounts;
    for (i, mount) in mounts.iter().enumerate() {
        let target = Path::new(&mount.destination);
        let below = mounts.iter().take(i).rev().find(|other| {
            let other = Path::new(&other.destination);
            target != other && target.starts_with(other)
        });
        let is_bind = |options: &[String]| options.iter().any(|option| option == "bind" || option == "rbind");
        let (base, rest) = match below {
            None => (subject.root, target),
            Some(other) if is_bind(&other.options) => {
                (Path::new(&other.source), target.strip_prefix(&other.destination).unwrap_or(target))
            }
            Some(_) => continue,
        };
        let is_file = is_bind(&mount.options)
            && !rustix::fs::stat(&mount.source)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
        make_mount_point(base, rest, is_file).context(|| format!("mount point {}", mount.destination))?;
    }
    Ok(())
}

fn make_mount_point(base: &Path, rest: &Path, is_file: bool) -> Result<()> {
    let root = super::open_directory(base, false)?;
    let mut walked = PathBuf::from("/");
    let names: Vec<_> = rest.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect();
    for (i, name) in names.iter().enumerate() {
        let last = i.saturating_add(1) == names.len();
        let parent_path = walked.clone();
        walked.push(name);
        match super::open_in_root(&root, &walked) {
            Ok(_) => continue,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::sys(format!("openat2 {}", walked.display()), errno)),
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat2(&root, &parent_path, flags, Mode::empty(), resolve)
            .call(|| format!("openat2 {}", parent_path.display()))?;
        if last && is_file {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&parent, name.as_os_str(), flags, Mode::from_raw_mode(0o755))
                .call(|| format!("open {}", walked.display()))?;
        } else {
            rustix::fs::mkdirat(&parent, name.as_os_str(), Mode::from_raw_mode(0o755))
                .call(|| format!("mkdir {}", walked.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_made_inside_the_root_whatever_links_it_holds() {
        let base = std::env::temp_dir().join(format!("rrun-criu-points-{}", std::process::id()));
        let root = base.join("root");
        for directory in [&base, &root, &root.join("real")] {
            std::fs::create_dir(directory).unwrap();
        }
        std::os::unix::fs::symlink("/real", root.join("link")).unwrap();
        std::os::unix::fs::symlink("../../outside", root.join("out")).unwrap();
        make_mount_point(&root, Path::new("/link/a/b"), false).unwrap();
        make_mount_point(&root, Path::new("/link/file"), true).unwrap();
        make_mount_point(&root, Path::new("/link/a/b"), false).unwrap();
        assert!(root.join("real/a/b").is_dir() && root.join("real/file").is_file());
        // A dangling link is neither followed out of the root nor replaced.
        assert!(make_mount_point(&root, Path::new("/out/x"), false).is_err());
        assert!(!base.join("outside").exists() && !root.join("outside").exists());
        let root_fd = super::super::open_directory(&root, false).unwrap();
        assert_eq!(
            super::super::resolve(&root_fd, Path::new("/link/a/none/x")).unwrap(),
            Path::new("/real/a/none/x")
        );
        std::fs::remove_dir_all(&base).unwrap();
    }
}

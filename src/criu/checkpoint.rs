//! `checkpoint`: asks CRIU to dump the container.

#![forbid(unsafe_code)]

use super::apart::Apart;
use super::rpc::{self, Kind, Message, opt};
use super::{Criu, DESCRIPTORS, Options, Stderr, Subject};
use crate::error::{Call, Error, Result};
use crate::plan;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Dumps a running container; its processes are gone afterwards, unless `leave_running` or `pre_dump`.
/// `image_path` must exist.
///
/// # Errors
/// Flags that do not go together, a CRIU that is missing or too old, and CRIU's own failure with its log's
/// last error and path.
pub fn checkpoint(subject: &Subject<'_>, options: &Options) -> Result<()> {
    let version = super::version()?;
    if let Some(parent) = &options.parent_path {
        check_parent(&options.image_path, parent)?;
    }
    if options.lazy_pages && options.status_fd.is_some() {
        super::need(version, 31500, "--status-fd")?;
    }
    let log = options.work_path.as_deref().unwrap_or(&options.image_path).join("dump.log");
    let apart = Apart::new(subject)?;
    let (criu, request, _open) = apart.enter(|| {
        if options.pre_dump || options.lazy_pages {
            check_features(options)?;
        }
        let images = super::open_directory(&options.image_path, true)?;
        let work = options.work_path.as_deref().map(|path| super::open_directory(path, true)).transpose()?;
        let opts = dump_options(&apart, options, &images, work.as_ref())?;
        if !options.pre_dump {
            write_descriptors(subject, &images)?;
        }
        let mut request = rpc::request(if options.pre_dump { Kind::PreDump } else { Kind::Dump });
        request.bytes(2, &opts);
        // An earlier one's errors are not this one's.
        let _ = rustix::fs::unlink(&log);
        Ok((Criu::start(Stderr::Kept, &[])?, request, (images, work)))
    })?;
    let mut notified = |script: &str, _: u32, _: Option<OwnedFd>| match (script, &options.status_fd) {
        ("status-ready", Some(fd)) => rustix::io::write(fd, &[0]).map(drop).call(|| "write --status-fd"),
        _ => Ok(()),
    };
    let (_, exit) =
        criu.ask(&request, &mut notified).map_err(|failure| super::explain(failure, Some(&log)))?;
    // After a pre-dump CRIU waits for the next one, which another process of ours will ask for.
    if !exit.success() && !options.pre_dump {
        return Err(Error::new(format!("criu failed: {exit}; log file: {}", log.display())));
    }
    // Here and not at restore, where with --detach standard error is the container's.
    let guarded = subject.spec.process.as_ref().is_some_and(|process| process.no_new_privileges);
    if guarded && version < 31900 && !options.pre_dump {
        crate::log::warning(
            "this CRIU restores no no_new_privs: set-user-ID programs give privileges then (3.19 does)",
        );
    }
    Ok(())
}

fn check_parent(images: &Path, parent: &Path) -> Result<()> {
    if parent.is_absolute() {
        return Err(Error::new("--parent-path must be relative").remedy("it is relative to --image-path"));
    }
    let path = images.join(parent);
    let call = || format!("invalid --parent-path: stat {}", path.display());
    let stat = rustix::fs::stat(&path).call(call)?;
    if !FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Err(Error::sys(call(), Errno::NOTDIR));
    }
    Ok(())
}

fn dump_options(
    apart: &Apart<'_>,
    options: &Options,
    images: &OwnedFd,
    work: Option<&OwnedFd>,
) -> Result<Message> {
    let subject = apart.subject;
    let mut opts = super::common(apart, options, images, work, "dump.log")?;
    opts.int(opt::PID, subject.pid).bytes(opt::ROOT, subject.root.as_os_str().as_bytes());
    opts.flag(opt::LEAVE_RUNNING, options.leave_running).flag(opt::LINK_REMAP, options.link_remap);
    opts.flag(opt::TCP_SKIP_IN_FLIGHT, options.tcp_skip_in_flight);
    if let Some(parent) = &options.parent_path {
        opts.bytes(opt::PARENT_IMG, parent.as_os_str().as_bytes()).flag(opt::TRACK_MEM, true);
    }
    if let Some((address, port)) = &options.page_server {
        opts.numbered(opt::PS, address, *port);
    }
    // Without it CRIU stops each process with ptrace, and new ones can escape it meanwhile.
    let of = |name: &str| subject.cgroup_paths.iter().find(|(controller, _)| controller == name);
    if let Some((_, path)) = of("freezer").or_else(|| of("")) {
        opts.bytes(opt::FREEZE_CGROUP, path.as_os_str().as_bytes());
    }
    for kind in [plan::Kind::Network, plan::Kind::Pid] {
        if let Some(path) = subject.namespaces.joins(kind) {
            let stat = rustix::fs::stat(path).call(|| format!("stat {}", path.display()))?;
            let key = super::namespace_key(kind);
            opts.bytes(opt::EXTERNAL, format!("{}[{}]:{key}", kind.file(), stat.st_ino));
        }
    }
    if !options.pre_dump {
        for (target, _) in super::external_mounts(subject)? {
            opts.pair(opt::EXT_MNT, target.as_os_str().as_bytes(), target.as_os_str().as_bytes());
        }
        for path in masked_files(subject)? {
            opts.pair(opt::EXT_MNT, path, "/dev/null");
        }
    }
    Ok(opts)
}

/// Masked paths that are files, and so covered by the host's /dev/null. Asked of the container's own mounts.
fn masked_files<'a>(subject: &Subject<'a>) -> Result<Vec<&'a str>> {
    let Some(linux) = subject.spec.linux.as_deref().filter(|linux| !linux.masked_paths.is_empty()) else {
        return Ok(Vec::new());
    };
    let root = super::open_directory(Path::new(&format!("/proc/{}/root", subject.pid)), false)?;
    let mut files = Vec::new();
    for path in &linux.masked_paths {
        match super::open_in_root(&root, Path::new(path)).and_then(rustix::fs::fstat) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {}
            Ok(_) => files.push(path.as_str()),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(Error::sys(format!("openat2 {path}"), errno)),
        }
    }
    Ok(files)
}

/// Asks the kernel's CRIU for what it may lack, as its own failure would come late and be obscure.
fn check_features(options: &Options) -> Result<()> {
    let mut features = Message::default();
    features.flag(1, options.pre_dump).flag(2, options.lazy_pages);
    let mut request = rpc::request(Kind::FeatureCheck);
    request.bytes(5, &features);
    let criu = Criu::start(Stderr::Kept, &[])?;
    let response =
        criu.ask(&request, &mut |_, _, _| Ok(())).map_err(|failure| super::explain(failure, None))?;
    let (mem_track, lazy_pages) = response.0.features;
    match (options.pre_dump && !mem_track, options.lazy_pages && !lazy_pages) {
        (true, _) => Err(Error::new("criu is missing features: mem_track").remedy("for --pre-dump")),
        (_, true) => Err(Error::new("criu is missing features: lazy_pages").remedy("needs userfaultfd(2)")),
        _ => Ok(()),
    }
}

fn write_descriptors(subject: &Subject<'_>, images: &OwnedFd) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(images, DESCRIPTORS, flags, Mode::RUSR | Mode::WUSR)
        .call(|| format!("open {DESCRIPTORS}"))?;
    let json = serde_json::json!(super::descriptors(subject.pid)?).to_string();
    std::io::Write::write_all(&mut std::fs::File::from(file), json.as_bytes())
        .call(|| format!("write {DESCRIPTORS}"))
}

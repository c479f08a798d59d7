//! The fault sweep: each system call of each process of a command gives, once, each error that it may give.
//!
//! The command may get over it, and then it has to have done all that it does otherwise; or it fails within its time,
//! says in one line which call it was, and has left nothing.

use crate::harness::is_rrun;
use crate::scenes::{SCENES, Scene, left, scrub, seen};
use crate::tracer::{Deed, Point, Traced, trace};
use crate::{Tally, complaint, rehearse, sampled};
use nix::errno::Errno;
use std::collections::HashSet;
use syscalls::Sysno;

/// What the call may give on a machine that is short of something, interrupted, or stricter than usual. Not what only a
/// process that is gone could be the cause of: that is for the kill sweeps.
fn errors(call: Sysno) -> &'static [Errno] {
    use Errno::*;
    match call {
        // Those that never fail; and those whose failure the allocator, libc and std take for granted, for they have
        // another way (brk, munmap) or none (set_tid_address, rseq, arch_prctl).
        Sysno::exit
        | Sysno::exit_group
        | Sysno::rt_sigreturn
        | Sysno::brk
        | Sysno::getpid
        | Sysno::gettid
        | Sysno::getppid
        | Sysno::getuid
        | Sysno::geteuid
        | Sysno::getgid
        | Sysno::getegid
        | Sysno::umask
        | Sysno::set_tid_address
        | Sysno::set_robust_list
        | Sysno::rseq
        | Sysno::arch_prctl
        | Sysno::restart_syscall
        | Sysno::sched_yield
        | Sysno::munmap
        | Sysno::futex
        | Sysno::alarm => &[],
        Sysno::open | Sysno::openat => &[EINTR, EMFILE, ENOMEM, EACCES, EIO],
        Sysno::openat2 => &[EINTR, EAGAIN, EMFILE, ENOMEM, EACCES, EIO],
        Sysno::read | Sysno::pread64 | Sysno::readv => &[EINTR, EIO, ENOMEM],
        Sysno::write | Sysno::pwrite64 | Sysno::writev => &[EINTR, EIO, ENOSPC, ENOMEM, EBUSY, EPERM],
        Sysno::clone | Sysno::clone3 | Sysno::fork | Sysno::vfork => &[EAGAIN, ENOMEM, EPERM, ENOSPC],
        Sysno::execve | Sysno::execveat => &[EACCES, ENOMEM, E2BIG],
        Sysno::mmap | Sysno::mprotect | Sysno::mremap | Sysno::madvise => &[ENOMEM],
        Sysno::mkdir
        | Sysno::mkdirat
        | Sysno::rename
        | Sysno::renameat
        | Sysno::renameat2
        | Sysno::symlink
        | Sysno::symlinkat
        | Sysno::link
        | Sysno::linkat
        | Sysno::mknod
        | Sysno::mknodat => &[ENOSPC, EPERM, EIO, ENOMEM],
        Sysno::rmdir | Sysno::unlink | Sysno::unlinkat => &[EBUSY, EPERM, EIO, ENOMEM],
        Sysno::mount
        | Sysno::move_mount
        | Sysno::open_tree
        | Sysno::fsopen
        | Sysno::fsconfig
        | Sysno::fsmount
        | Sysno::mount_setattr
        | Sysno::umount2
        | Sysno::pivot_root => &[EPERM, ENOMEM, EBUSY, EIO, EMFILE],
        Sysno::setns | Sysno::unshare => &[EPERM, ENOMEM, ENOSPC],
        Sysno::socket
        | Sysno::socketpair
        | Sysno::pipe2
        | Sysno::epoll_create1
        | Sysno::eventfd2
        | Sysno::signalfd4
        | Sysno::memfd_create
        | Sysno::pidfd_open
        | Sysno::dup
        | Sysno::inotify_init1
        | Sysno::timerfd_create => &[EMFILE, ENFILE, ENOMEM],
        Sysno::accept
        | Sysno::accept4
        | Sysno::connect
        | Sysno::recvmsg
        | Sysno::recvfrom
        | Sysno::sendmsg
        | Sysno::sendto => &[EINTR, ENOMEM, EPERM],
        Sysno::bind | Sysno::listen => &[ENOMEM, EACCES, EADDRINUSE],
        Sysno::poll
        | Sysno::ppoll
        | Sysno::epoll_wait
        | Sysno::epoll_pwait
        | Sysno::wait4
        | Sysno::waitid
        | Sysno::flock
        | Sysno::nanosleep
        | Sysno::clock_nanosleep => &[EINTR, ENOMEM],
        Sysno::fcntl => &[EMFILE, EPERM, EINVAL],
        Sysno::close | Sysno::close_range => &[EINTR, EIO],
        Sysno::copy_file_range | Sysno::sendfile => &[EINTR, EIO, ENOSPC, EINVAL],
        Sysno::kill | Sysno::pidfd_send_signal | Sysno::tgkill => &[EPERM],
        _ => &[EPERM, ENOMEM, EIO],
    }
}

/// The call as a message may name it: without the letters that tell its variants apart, or as the manual and the shell
/// call it.
fn words(call: Sysno) -> Vec<&'static str> {
    match call {
        Sysno::newfstatat | Sysno::statx => vec!["stat"],
        Sysno::unlinkat => vec!["unlink", "rmdir"],
        Sysno::execve | Sysno::execveat => vec!["exec"],
        Sysno::ppoll => vec!["poll"],
        Sysno::dup3 => vec!["dup"],
        other => {
            let name = other.name();
            vec![name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches("at")]
        }
    }
}

/// Faults each call of a command, or those of the names in `SWEEP_CALLS`: for a finding that is looked at again.
pub fn sweep(name: &str) {
    let scene = SCENES.iter().find(|scene| scene.name == name).unwrap();
    let t = scene.bundle();
    let (points, listing, told) = rehearse(scene, &t);
    let mut tally = Tally::of("faults", scene);
    let only = std::env::var("SWEEP_CALLS").ok();
    let wanted =
        |point: &&Point| only.as_ref().is_none_or(|only| only.split(',').any(|c| c == point.call.name()));
    let all = points
        .iter()
        .filter(wanted)
        .flat_map(|&point| errors(point.call).iter().map(move |&errno| (point, errno)));
    for (point, errno) in sampled(all) {
        scene.prepare(&t);
        let traced = trace(&t, scene.command(&t), scene.init(&t), Some((point, Deed::Fail(errno))));
        let mut wrong = judge(scene, point, errno, &traced);
        // Nothing was left out for the sake of success.
        if traced.succeeded() {
            let tells = traced.stdout.clone() + &seen(&t);
            if tells != told && !is_substitute(&told, &tells, errno) {
                wrong.push(format!("it succeeded with another container: {}", difference(&told, &tells)));
            }
        }
        if scene.creates && !traced.succeeded() {
            wrong.extend(left(&t).into_iter().map(|left| format!("at once: {left}")));
        }
        let delete = t.rt(&["delete", "--force", &t.id]).go();
        if delete.code != Some(0) {
            wrong.push(format!("delete --force: {}", delete.stderr().trim()));
        }
        wrong.extend(left(&t));
        if t.rootfs_listing() != listing {
            wrong.push("the rootfs has changed".into());
        }
        if !wrong.is_empty() {
            scrub(&t);
        }
        tally.add(&format!("{errno:?} of {point}"), traced.reached, wrong);
    }
    tally.tell();
}

/// What is wrong with the command's own end.
fn judge(scene: &Scene, point: Point, errno: Errno, traced: &Traced) -> Vec<String> {
    // Before main nobody is there who could tell it in rrun's way.
    let mut wrong = if point.own { complaint(&traced.stderr) } else { Vec::new() };
    if traced.hung {
        wrong.push("it hung".into());
    } else if !traced.succeeded() && point.own && is_rrun() {
        let stderr = traced.stderr.to_lowercase();
        let text = std::io::Error::from(errno).to_string().to_lowercase();
        if !text.split(" (os error").next().is_some_and(|text| stderr.contains(text)) {
            wrong.push(format!("{}: the error is not told: {:?}", scene.name, traced.stderr.trim_end()));
        } else if !words(point.call).iter().any(|word| stderr.contains(word)) {
            wrong.push(format!("the call is not told: {:?}", traced.stderr.trim_end()));
        }
    }
    wrong
}

/// Whether two containers differ in no more than what rrun does instead of a call that a filter around it forbids,
/// which is what EPERM means: where it may not make a device it binds the host's, mount(2) makes a new sysfs as a whole
/// read-only, without open_tree(2) it is the container's own /dev/null that covers a file, and without CAP_NET_ADMIN the
/// loopback stays down. A hierarchy of v2 beside those of v1 that it may not use, EACCES too, it goes without.
fn is_substitute(one: &str, other: &str, errno: Errno) -> bool {
    let (gone, new) = differing(one, other);
    let beside_v1 = one.contains(":pids:/") && matches!(errno, Errno::EPERM | Errno::EACCES);
    gone.iter().chain(&new).all(|line| {
        beside_v1 && line.starts_with("0::/")
            || errno == Errno::EPERM
                && (line.contains(" - devtmpfs ")
                    || line.contains("ro,nosuid,nodev,noexec,relatime - sysfs ")
                    || line.starts_with("/null /proc/")
                    || line.contains(": lo: <LOOPBACK"))
    }) && gone.len() <= new.len()
}

fn differing<'a>(one: &'a str, other: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    let (a, b): (HashSet<_>, HashSet<_>) = (one.lines().collect(), other.lines().collect());
    (a.difference(&b).copied().collect(), b.difference(&a).copied().collect())
}

/// The lines that only one of two texts has.
fn difference(one: &str, other: &str) -> String {
    let (gone, new) = differing(one, other);
    let some = |lines: &[&str]| lines.iter().take(3).copied().collect::<Vec<_>>().join(" | ");
    format!("-{} +{}", some(&gone), some(&new))
}

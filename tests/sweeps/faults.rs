//! The fault sweep: each system call of each process of a command gives, once, each error that it may give.
//!
//! The command may get over it, and then it has to have done all that it does otherwise; or it fails within its time,
//! says in one line which call it was, and has left nothing.

use crate::harness::is_rrun;
use crate::scenes::{SCENES, Scene, left, scrub};
use crate::tracer::{Deed, Point, Traced, trace};
use crate::{Tally, complaint, rehearse};
use nix::errno::Errno;
use std::collections::HashSet;
use syscalls::Sysno;

/// What the call may give on a machine that is short of something, interrupted, or stricter than usual.
fn errors(call: Sysno) -> &'static [Errno] {
    use Errno::*;
    match call {
        // Those that never fail, or whose failure is not told by an errno.
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
        | Sysno::sendto => &[EINTR, ENOMEM, ECONNRESET, EPERM],
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
        Sysno::kill | Sysno::pidfd_send_signal | Sysno::tgkill => &[EPERM, ESRCH],
        _ => &[EPERM, ENOMEM, EIO],
    }
}

/// Faults each call of a command.
pub fn sweep(name: &str) {
    let scene = SCENES.iter().find(|scene| scene.name == name).unwrap();
    let t = scene.bundle();
    let (points, listing, told) = rehearse(scene, &t);
    let mut tally = Tally::default();
    for &point in &points {
        for &errno in errors(point.call) {
            scene.prepare(&t);
            let traced = trace(&t, scene.command(&t), scene.init(&t), Some((point, Deed::Fail(errno))));
            let mut wrong = judge(scene, point, errno, &traced, &told);
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
    }
    tally.tell("faults", scene);
}

/// What is wrong with the command's own end.
fn judge(scene: &Scene, point: Point, errno: Errno, traced: &Traced, told: &str) -> Vec<String> {
    let mut wrong = complaint(&traced.stderr);
    if traced.hung {
        wrong.push("it hung".into());
    } else if traced.succeeded() {
        // Nothing was left out for the sake of success.
        if traced.stdout != told {
            wrong.push(format!("it succeeded with another container: {}", difference(told, &traced.stdout)));
        }
    } else if is_rrun() {
        let stderr = traced.stderr.to_lowercase();
        let stem = point.call.name().trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches("at");
        if !stderr.contains(&errno.desc().to_lowercase()) {
            wrong.push(format!("{}: the error is not told: {:?}", scene.name, traced.stderr.trim_end()));
        } else if !stderr.contains(stem) {
            wrong.push(format!("the call is not told: {:?}", traced.stderr.trim_end()));
        }
    }
    wrong
}

/// The lines that only one of two texts has.
fn difference(one: &str, other: &str) -> String {
    let (a, b): (HashSet<_>, HashSet<_>) = (one.lines().collect(), other.lines().collect());
    let only = |x: &HashSet<&str>, y: &HashSet<&str>| {
        x.difference(y).take(3).copied().collect::<Vec<_>>().join(" | ")
    };
    format!("-{} +{}", only(&a, &b), only(&b, &a))
}

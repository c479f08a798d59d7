//! What it costs to keep the host's binary out of a container (CVE-2019-5736): the variants of `rrun::exe`, interleaved,
//! medians. `cargo bench --bench exe`
//!
//! Executing or copying the file is timed by whole commands about a container that there is not. Unmapping it happens
//! in a process that is there already: that is a child of this program, beside one that only ends.

use rrun::sys::image::MemoryMap;
use rrun::sys::launch::{Cloned, clone3, exit_now};
use rrun::sys::mount::{MountAttr, mount_setattr};
use rrun::sys::script::Script;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::OpenTreeFlags;
use std::ffi::CString;
use std::time::{Duration, Instant};

const ROUNDS: usize = 300;

/// What a variant's child does.
enum Child {
    /// Executes what is opened so, with these arguments.
    Executes(fn(&str) -> OwnedFd, &'static [&'static str]),
    /// Ends.
    Ends,
    /// Unmaps this program's file and ends.
    Unmaps,
}

fn main() {
    // `state` leaves the binary alone, `restore` copies it.
    const STATE: &[&str] = &["rrun", "state", "none"];
    const RESTORE: &[&str] = &["rrun", "restore", "none"];
    let variants = [
        ("the file itself", Child::Executes(file, STATE)),
        ("detached read-only mount", Child::Executes(clone, STATE)),
        ("sealed memfd copy", Child::Executes(memfd, STATE)),
        ("its pages copied in memory", Child::Executes(file, RESTORE)),
        ("a child that ends", Child::Ends),
        ("a child, the file unmapped", Child::Unmaps),
    ];
    let mut times = variants.each_ref().map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((_, child), times) in variants.iter().zip(&mut times) {
            times.push(run(child));
        }
    }
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_rrun")).expect("rrun").len();
    println!("binary of {size} bytes, median of {ROUNDS}, interleaved");
    for ((name, _), times) in variants.iter().zip(&mut times) {
        times.sort_unstable();
        println!("{name:27} {:7.3} ms", times[ROUNDS / 2].as_secs_f64() * 1e3);
    }
}

fn run(child: &Child) -> Duration {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    let start = Instant::now();
    match clone3(0, None).expect("clone3") {
        Cloned::Child => {
            let _ = rrun::sys::launch::duplicate_onto(&null, 2);
            match child {
                Child::Executes(open, argv) => {
                    let argv: Vec<_> = argv.iter().map(|arg| CString::new(*arg).expect("no NUL")).collect();
                    let fd = open(env!("CARGO_BIN_EXE_rrun"));
                    let _ = rrun::sys::launch::fexecve(fd.as_fd(), &argv, &[]);
                }
                Child::Ends => {}
                Child::Unmaps => {
                    let mut script = Script::default();
                    let map = MemoryMap::read().expect("/proc/self/stat");
                    let nothing = rrun::exe::nothing().expect("memfd_create");
                    script.forget_program(&map, &nothing, [&[0; 8]; 2]).expect("mmap");
                    script.exit(1);
                    script.run();
                }
            }
            exit_now(1)
        }
        Cloned::Parent(_, pidfd) => {
            let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
            let end = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).expect("waitid");
            assert!(end.is_some_and(|end| matches!(end.exit_status(), Some(1 | 255))));
            start.elapsed()
        }
    }
}

fn file(path: &str) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("open")
}

fn clone(path: &str) -> OwnedFd {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, path, flags).expect("open_tree");
    let attr = MountAttr { set: rrun::plan::rootfs::attr::RDONLY, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), false, &attr).expect("mount_setattr");
    tree
}

fn memfd(path: &str) -> OwnedFd {
    let exe = file(path);
    let size = rustix::fs::fstat(&exe).expect("fstat").st_size as usize;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::EXEC;
    let copy = rustix::fs::memfd_create(c"rrun", flags).expect("memfd_create");
    let mut left = size;
    while left > 0 {
        left -= rustix::fs::sendfile(&copy, &exe, None, left).expect("sendfile");
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).expect("seal");
    copy
}

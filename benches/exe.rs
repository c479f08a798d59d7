//! What it costs to keep the host's binary out of a container (CVE-2019-5736): the variants of `rrun::exe`,
//! timed as whole `rrun --version` runs, interleaved, medians. `cargo bench --bench exe`

use rrun::sys::mount::{MountAttr, mount_setattr};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::OpenTreeFlags;
use std::ffi::CString;
use std::time::{Duration, Instant};

const ROUNDS: usize = 300;

/// Opens what is executed.
type Open = fn(&str) -> OwnedFd;

fn main() {
    let path = env!("CARGO_BIN_EXE_rrun");
    let variants: [(&str, Open); 3] =
        [("the file itself", file), ("detached read-only mount", clone), ("sealed memfd copy", memfd)];
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for ((_, open), times) in variants.iter().zip(&mut times) {
            times.push(run(path, *open));
        }
    }
    let size = std::fs::metadata(path).expect("rrun").len();
    println!("rrun --version, binary of {size} bytes, median of {ROUNDS}, interleaved");
    for ((name, _), times) in variants.iter().zip(&mut times) {
        times.sort_unstable();
        println!("{name:26} {:7.3} ms", times[ROUNDS / 2].as_secs_f64() * 1e3);
    }
}

fn run(path: &str, open: Open) -> Duration {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    let argv = ["rrun", "--version"].map(|arg| CString::new(arg).expect("no NUL"));
    let start = Instant::now();
    match rrun::sys::launch::clone3(0, None).expect("clone3") {
        rrun::sys::launch::Cloned::Child => {
            let _ = rrun::sys::launch::duplicate_onto(&null, 1);
            let fd = open(path);
            let _ = rrun::sys::launch::execveat(Some(fd.as_fd()), c"", &argv, &[]);
            rrun::sys::launch::exit_now(1)
        }
        rrun::sys::launch::Cloned::Parent(_, pidfd) => {
            let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
            let end = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).expect("waitid");
            assert_eq!(end.and_then(|end| end.exit_status()), Some(0));
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

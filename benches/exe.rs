//! What it costs to keep the host's binary out of a container (CVE-2019-5736): the variants of `rrun::exe`, timed as
//! whole commands about a container that there is not, interleaved, medians. `cargo bench --bench exe`

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
    // `state` leaves the binary alone, `exec` protects it.
    let (state, exec) = (&["rrun", "state", "none"][..], &["rrun", "exec", "none", "true"][..]);
    let variants: [(&str, Open, &[&str]); 4] = [
        ("the file itself", file, state),
        ("detached read-only mount", clone, state),
        ("sealed memfd copy", memfd, state),
        ("its pages copied in memory", file, exec),
    ];
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for ((_, open, argv), times) in variants.iter().zip(&mut times) {
            times.push(run(path, *open, argv));
        }
    }
    let size = std::fs::metadata(path).expect("rrun").len();
    println!("binary of {size} bytes, median of {ROUNDS}, interleaved");
    for ((name, ..), times) in variants.iter().zip(&mut times) {
        times.sort_unstable();
        println!("{name:27} {:7.3} ms", times[ROUNDS / 2].as_secs_f64() * 1e3);
    }
}

fn run(path: &str, open: Open, argv: &[&str]) -> Duration {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    let argv: Vec<_> = argv.iter().map(|arg| CString::new(*arg).expect("no NUL")).collect();
    let start = Instant::now();
    match rrun::sys::launch::clone3(0, None).expect("clone3") {
        rrun::sys::launch::Cloned::Child => {
            let _ = rrun::sys::launch::duplicate_onto(&null, 2);
            let fd = open(path);
            let _ = rrun::sys::launch::execveat(Some(fd.as_fd()), c"", &argv, &[]);
            rrun::sys::launch::exit_now(1)
        }
        rrun::sys::launch::Cloned::Parent(_, pidfd) => {
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

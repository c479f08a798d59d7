//! Races: a name that means one thing when the runtime looks and another when it acts.

use crate::harness::compiled;
use crate::scene::Scene;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn tracer() -> &'static Path {
    static TRACER: OnceLock<PathBuf> = OnceLock::new();
    TRACER.get_or_init(|| compiled("attacks/tracer"))
}

pub fn hunter() -> &'static Path {
    static HUNTER: OnceLock<PathBuf> = OnceLock::new();
    HUNTER.get_or_init(|| compiled("attacks/hunter"))
}

pub fn exchange(a: &Path, b: &Path) {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
}

/// Tries a race at every one of its windows: `go` runs a container, and behind the nth call with a path that the
/// runtime does in the container's mount namespace, the names are exchanged; for every n that there is, or of rrun for
/// every one in `SWEEP_SAMPLE`, as in an emulated guest each takes a second. `go` gives
/// the evidence if it escaped, and is called with `a` and `b` as they were at first.
pub fn windows(
    s: &mut Scene,
    names: (&Path, &Path),
    go: impl Fn(&Scene) -> Option<String>,
) -> Option<String> {
    windows_of("swap", s, names, go)
}

/// The same with the windows of the runtime's own process on the host.
pub fn windows_on_host(
    s: &mut Scene,
    names: (&Path, &Path),
    go: impl Fn(&Scene) -> Option<String>,
) -> Option<String> {
    windows_of("swapall", s, names, go)
}

fn windows_of(
    mode: &str,
    s: &mut Scene,
    (a, b): (&Path, &Path),
    go: impl Fn(&Scene) -> Option<String>,
) -> Option<String> {
    let was = inode(a);
    let count = s.t.dir.join("count");
    let sample = std::env::var("SWEEP_SAMPLE").ok().and_then(|n| n.parse().ok());
    let step = sample.filter(|_| s.control.is_none()).unwrap_or(1);
    let (mut n, mut last) = (0_usize, 1_usize);
    let mut evidence = None;
    // A run that is changed may do more than one that is not.
    while n <= last && evidence.is_none() {
        let number = n.to_string();
        let words = [mode.as_ref(), number.as_ref(), a.as_os_str(), b.as_os_str(), count.as_os_str()];
        let mut all = vec![OsString::from(tracer())];
        all.extend(words.map(OsString::from));
        s.through(&all);
        evidence = go(s).map(|what| format!("{what} (exchanged behind call {n} of {last})"));
        s.through(&[]);
        s.end();
        if inode(a) != was {
            exchange(a, b);
        }
        let text = fs::read_to_string(&count).unwrap_or_default();
        last = last.max(text.trim().parse().unwrap_or(0));
        n += step;
    }
    assert!(last > 10, "the tracer saw {last} calls");
    evidence
}

/// Runs containers while another processor exchanges the names as fast as it can.
pub fn swapper(
    s: &Scene,
    (a, b): (&Path, &Path),
    runs: usize,
    go: impl Fn(&Scene) -> Option<String>,
) -> Option<String> {
    let was = inode(a);
    let done = AtomicBool::new(false);
    let evidence = std::thread::scope(|scope| {
        // Also when `go` panics, or the thread would be waited for in vain.
        let _end = End(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                exchange(a, b);
            }
        });
        (0..runs).find_map(|n| go(s).map(|what| format!("{what} (run {n} of {runs})")))
    });
    if inode(a) != was {
        exchange(a, b);
    }
    evidence
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).unwrap().ino()
}

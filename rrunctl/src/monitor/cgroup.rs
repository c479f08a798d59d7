//! Whether the kernel killed for want of memory: a counter of the container's cgroup.
//!
//! The file is opened while the container waits to be started and read when it has ended, before rrun removes the
//! cgroup. `rrun events --stats` has the number too, but costs a process at every end.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// The counter of one cgroup.
#[derive(Debug)]
pub(super) struct OomKills {
    file: File,
    /// What it was at first: a container without a cgroup of its own shares its caller's.
    before: u64,
}

impl OomKills {
    /// The counter of the cgroup in which the process is; nothing where memory is not counted.
    pub fn of(pid: i32) -> Option<Self> {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let file = File::open(counter(&cgroups)?).ok()?;
        let before = read(&file);
        Some(Self { file, before })
    }

    /// Whether it has counted since.
    pub fn any(&self) -> bool {
        read(&self.file) > self.before
    }
}

/// The file with the counter, by the text of `/proc/PID/cgroup`: memory's own hierarchy (v1), else the unified one.
fn counter(cgroups: &str) -> Option<PathBuf> {
    let path = |find: &dyn Fn(&str, &str) -> bool| {
        cgroups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            find(hierarchy, controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    match path(&|_, controllers| controllers.split(',').any(|controller| controller == "memory")) {
        Some(v1) => Some(PathBuf::from("/sys/fs/cgroup/memory").join(v1).join("memory.oom_control")),
        None => path(&|hierarchy, _| hierarchy == "0")
            .map(|v2| PathBuf::from("/sys/fs/cgroup").join(v2).join("memory.events")),
    }
}

/// `oom_kill N` is a line of both files.
fn read(file: &File) -> u64 {
    let mut text = [0; 512];
    let n = file.read_at(&mut text, 0).unwrap_or(0);
    let text = str::from_utf8(&text[..n]).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_in_the_hierarchy_of_memory() {
        let v1 = "5:pids:/x\n4:cpu,memory:/rrunctl/a\n0::/rrunctl/a\n";
        assert_eq!(counter(v1), Some("/sys/fs/cgroup/memory/rrunctl/a/memory.oom_control".into()));
        assert_eq!(counter("0::/a:b\n"), Some("/sys/fs/cgroup/a:b/memory.events".into()));
        assert_eq!(counter("1:name=systemd:/x\n"), None);
    }

    #[test]
    fn a_counter_that_others_have_moved_before_is_not_the_containers() {
        let dir =
            std::env::temp_dir().join(format!("rrunctl-oom-{}", crate::home::unique().expect("random")));
        fs::write(&dir, "low 0\noom 3\noom_kill 2\noom_group_kill 9\n").expect("write");
        let file = File::open(&dir).expect("open");
        let kills = OomKills { before: read(&file), file };
        assert_eq!((kills.before, kills.any()), (2, false));
        fs::write(&dir, "low 0\noom 4\noom_kill 3\n").expect("write");
        assert!(kills.any());
        fs::remove_file(&dir).expect("remove");
        assert!(kills.any());
    }
}

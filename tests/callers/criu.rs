//! What engines do with CRIU: checkpoint and restore of a container that counts.

use super::shared::{Engine, IMAGE, Kind, on};
use crate::checkpoint::criu_works;
use crate::harness::wait_for;
use crate::requires;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(90);

/// Counts in a tmpfs; the name tells whether it is still the same process.
const COUNT: &str = "name=$(cat /proc/sys/kernel/random/uuid); i=0
    while :; do i=$((i+1)); echo $name $i >/count/n; sleep 0.1; done";

fn count(e: &Engine, name: &str) -> (String, u64) {
    wait_for("a count", LONG, || {
        let text = e.client(&["exec", name, "cat", "/count/n"]).stdout;
        let (who, n) = text.trim().split_once(' ')?;
        Some((who.to_owned(), n.parse().ok()?))
    })
}

#[track_caller]
fn counts_on(e: &Engine, name: &str, before: &(String, u64)) {
    let now = wait_for("counting", LONG, || Some(count(e, name)).filter(|now| now.1 > before.1));
    assert_eq!(now.0, before.0, "another process counts");
}

fn podman(e: &Engine) {
    requires!(criu_works(), "needs a CRIU that passes `criu check` on this kernel");
    let flags = ["--network", "none", "--tmpfs", "/count", "--memory", "64m"];
    let name = e.detached(&flags, COUNT);
    let container = |args: &[&str]| drop(e.client(&[&["container"], args].concat()).ok().to_owned());
    let before = count(e, &name);
    container(&["checkpoint", &name]);
    assert_eq!(e.inspect(&name, ".State.Status"), "exited");
    container(&["restore", &name]);
    counts_on(e, &name, &before);
    let memory = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null";
    assert_eq!(e.client(&["exec", &name, "sh", "-c", memory]).stdout.trim(), "67108864");
    // Into a file, and from it a container that was not there; the other goes on.
    let file = e.dir("checkpoint.tar");
    let file = file.to_str().unwrap();
    let before = count(e, &name);
    container(&["checkpoint", "--leave-running", "--compress", "none", "--export", file, &name]);
    counts_on(e, &name, &before);
    e.remove(&name);
    let again = e.name();
    container(&["restore", "--import", file, "--name", &again]);
    counts_on(e, &again, &before);
    e.remove(&again);
    assert_eq!(e.run(&["--rm", IMAGE, "echo", "up"]).ok(), "up");
}

#[test]
fn podman_checkpoints_restores_exports_and_imports() {
    on(Kind::Podman, podman);
}

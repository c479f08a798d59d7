//! The profile of AppArmor that a container has where nobody has named one, and Docker has loaded none: `rrunctl-default`.
//!
//! It is a second lock behind seccomp, masked paths and read-only mounts, for what one of these lets by: seccomp cannot see
//! which family a 32-bit program asks of socketcall(2), and --cap-add SYS_ADMIN leaves mount(2) to nobody else.
//!
//! apparmor.d(5), apparmor_parser(8).

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::{Command, Stdio};

/// What it is called.
pub const NAME: &str = "rrunctl-default";

/// What is allowed is everything but this: the masked paths and mount flags of a container may be undone by who has the
/// capabilities for it, and these may not.
const PROFILE: &str = "
profile rrunctl-default flags=(attach_disconnected, mediate_deleted) {
  capability,
  file,
  network,
  umount,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=rrunctl-default,
  ptrace (trace, read, tracedby, readby) peer=rrunctl-default,

  deny network alg,
  deny mount,

  # Of the host, and writable by root wherever a procfs is.
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /proc/kmem rwklx,
  deny /proc/mem rwklx,
  deny /proc/acpi/** rwklx,
  deny /proc/bus/** wklx,
  deny /proc/irq/** wklx,
  deny /proc/sys/kernel/core_pattern wklx,
  deny /proc/sys/kernel/modprobe wklx,
  deny /proc/sys/kernel/sysrq wklx,
  deny /proc/sys/kernel/hotplug wklx,
  deny /proc/sys/fs/binfmt_misc/** wklx,
  deny /proc/sys/vm/** wklx,

  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/kernel/debug/** rwklx,
  deny /sys/kernel/uevent_helper wklx,
  deny /sys/devices/virtual/powercap/** rwklx,
}
";

/// The profile that is to be had without loading one, Docker's or this; `profiles` is what the kernel says of those that it
/// has.
pub fn first_loaded(profiles: &str) -> Option<&'static str> {
    let is_loaded = |name: &str| profiles.lines().any(|line| line.split(' ').next() == Some(name));
    ["docker-default", NAME].into_iter().find(|name| is_loaded(name))
}

/// Loads the profile; it stays until the next boot. Why not, otherwise.
pub fn load() -> Result<(), String> {
    let mut command = Command::new("apparmor_parser");
    // Without a cache: what is loaded is this text.
    command
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let done = command.spawn().and_then(|mut parser| {
        let written = parser.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(PROFILE.as_bytes()));
        let output = parser.wait_with_output()?;
        written.map(|()| output)
    });
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")),
        Err(e) => Err(format!("apparmor_parser: {e}")),
    }
}

//! Words for the numbers that a child reports: the parent has the same plan.
//!
//! Some are other programs' to read: dockerd and podman make exit code 127 of `executable file not found in
//! $PATH` and `no such file or directory`, and 126 of `permission denied`.

#![forbid(unsafe_code)]

use super::fault::Step;
use super::protocol::Report;
use crate::error::Error;
use crate::plan::exec::ExecPlan;
use crate::plan::process::ProcessPlan;
use crate::plan::rootfs::RootfsOp;
use crate::plan::{Kind, Plan};
use rustix::io::Errno;

/// A failure of init.
pub fn of_init(plan: &Plan, report: &Report) -> Error {
    let index = usize::from(report.index);
    let doing = match report.step {
        Step::Namespaces => return of_namespaces(plan, call(report)),
        // runc's first words.
        Step::Rootfs => plan.rootfs.ops.get(index).map(|op| match op {
            RootfsOp::Mount(_) => format!("error mounting: {op}"),
            _ => format!("mounts: {op}"),
        }),
        Step::Root => Some(format!("root.path: {}", plan.rootfs.path.display())),
        Step::Pivot => Some("pivot_root".into()),
        Step::RootReadonly => Some("root.readonly".into()),
        Step::Sysctl => plan.sysctls.list.get(index).map(|sysctl| format!("linux.sysctl: {}", sysctl.name)),
        Step::ReadonlyPath => plan
            .rootfs
            .readonly_paths
            .get(index)
            .map(|path| format!("linux.readonlyPaths: {}", path.to_string_lossy())),
        Step::MaskedPath => plan
            .rootfs
            .masked_paths
            .get(index)
            .map(|path| format!("linux.maskedPaths: {}", path.to_string_lossy())),
        Step::Hostname => {
            Some(["hostname", "domainname"].get(index).map_or("hostname", |name| name).to_owned())
        }
        Step::TimeOffsets => Some("linux.timeOffsets".into()),
        _ => None,
    };
    let error = match doing {
        Some(doing) => with_note(report, call(report)).context(doing),
        None => of_process(&plan.process, report),
    };
    error.context("unable to start container process: error during container init")
}

/// New namespaces that the kernel has refused to the process, or refused the process with.
pub fn of_namespaces(plan: &Plan, e: Error) -> Error {
    let e = match e.errno() {
        Some(Errno::NOSPC) => {
            e.remedy("a limit of /proc/sys/user, or of nesting, is reached (namespaces(7))")
        }
        _ => e,
    };
    e.context(format!("create namespaces ({})", plan.namespaces))
}

/// A failure of an exec'd process.
pub fn of_exec(plan: &ExecPlan, report: &Report) -> Error {
    if report.step == Step::Namespace {
        // All of init's at once, by its pidfd.
        let e = call(report).context("enter the container's namespaces");
        return match (report.call.as_ref(), report.errno) {
            ("setns", Errno::INVAL) => e.remedy("by a pidfd it needs Linux 5.8"),
            _ => e.remedy("has it just ended?"),
        };
    }
    of_process(&plan.process, report).context("unable to start container process")
}

/// A failure of a step that only needs the process.
pub fn of_process(process: &ProcessPlan, report: &Report) -> Error {
    let name = process.argv.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
    let doing = match report.step {
        Step::Lookup => return not_found(&name, report),
        Step::Exec => {
            return with_note(report, Error::sys(format!("exec {name}"), report.errno));
        }
        Step::CreateContainerHook | Step::StartContainerHook if !report.note.is_empty() => {
            return Error::new(report.note.clone());
        }
        Step::Cwd if report.call == "getcwd" && report.errno == Errno::NOENT => {
            let text =
                format!("process.cwd: {:?} is outside of the container", process.cwd.to_string_lossy());
            return Error::new(text);
        }
        Step::Cwd => format!(
            "process.cwd: chdir to cwd ({:?}) set in config.json failed",
            process.cwd.to_string_lossy()
        ),
        Step::Namespace => {
            let kind = Kind::ALL.get(usize::from(report.index)).map_or("", |kind| kind.name());
            format!("linux.namespaces: {kind}")
        }
        Step::Rlimit => match process.rlimits.get(usize::from(report.index)) {
            Some(limit) => format!("process.rlimits: {} soft {} hard {}", limit.name, limit.soft, limit.hard),
            None => "process.rlimits".into(),
        },
        Step::Scheduling => {
            let names =
                ["process.scheduler", "process.ioPriority", "linux.personality", "linux.memoryPolicy"];
            (*names.get(usize::from(report.index)).unwrap_or(&"process")).to_owned()
        }
        Step::Cgroup => {
            let e = Error::sys(format!("write {}", report.note), report.errno);
            return e.context("failed to write 0").context("unable to apply cgroup configuration");
        }
        Step::Label => return not_labelled(process, report),
        Step::Capabilities => "process.capabilities".into(),
        Step::User if report.call == "setgroups" && report.errno == Errno::PERM => {
            let text = "cannot set any additional groups in a rootless container";
            return call(report).context(text).context("process.user.additionalGids").remedy(
                "the kernel lets groups be set only where newgidmap has mapped them: see /etc/subgid, or use the \
                 annotation run.oci.keep_original_groups",
            );
        }
        Step::User => format!("process.user: uid {} gid {}", process.user.uid, process.user.gid),
        Step::Seccomp => "linux.seccomp".into(),
        Step::Exe => "leave rrun's own file behind".into(),
        Step::Console => "process.terminal".into(),
        Step::Stdio => "standard streams".into(),
        Step::Session => "session keyring".into(),
        _ => return with_note(report, call(report)),
    };
    with_note(report, call(report)).context(doing)
}

/// What the kernel answers to a label says little: ENOENT is an AppArmor profile that is not loaded.
fn not_labelled(process: &ProcessPlan, report: &Report) -> Error {
    let error = with_note(report, call(report));
    match (&process.apparmor_profile, &process.selinux_label) {
        (Some(profile), _) => {
            let error = error
                .context(format!("process.apparmorProfile: apparmor failed to apply profile {profile:?}"));
            match report.errno {
                Errno::NOENT => error.remedy("it is not loaded: see aa-status, apparmor_parser"),
                _ => error,
            }
        }
        (None, label) => {
            let label = label.as_deref().unwrap_or_default();
            error.context(format!("process.selinuxLabel: cannot set {label:?}"))
        }
    }
}

fn call(report: &Report) -> Error {
    Error::sys(report.call.clone(), report.errno)
}

fn with_note(report: &Report, error: Error) -> Error {
    if report.note.is_empty() { error } else { error.remedy(&report.note) }
}

fn not_found(name: &str, report: &Report) -> Error {
    match report.errno {
        Errno::NOENT if !name.contains('/') => {
            Error::new(format!("exec: {name:?}: executable file not found in $PATH"))
        }
        Errno::NOENT => Error::sys(format!("exec: {name:?}: stat {name}"), report.errno),
        // dockerd before 23 makes 126 of these two words alone.
        Errno::ISDIR => Error::sys(format!("exec: {name:?}"), Errno::ACCESS).remedy("it is a directory"),
        Errno::ACCESS => Error::sys(format!("exec: {name:?}"), report.errno),
        errno => Error::sys(format!("exec: {name:?}: {}", report.call), errno),
    }
}

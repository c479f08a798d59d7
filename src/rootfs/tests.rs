//! Real mounts, each case in a process of its own: this test binary again, under unshare(1).

#![forbid(unsafe_code)]
// A test may take the paths that it made itself.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use super::*;
use crate::plan::rootfs::{Cgroups, Given, Hierarchy, build};
use crate::plan::{Kind, Namespaces};
use crate::spec::{Spec, read};
use rustix::fs::{FileType, stat};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const PRIVILEGED: &[&str] = &["--mount", "--pid", "--fork", "--propagation", "unchanged"];
/// The parent side finds its children in the /proc of its own pid namespace.
const PARENT: &[&str] = &["--mount", "--propagation", "unchanged"];
const USERNS: &[&str] =
    &["--user", "--map-root-user", "--mount", "--pid", "--fork", "--propagation", "unchanged"];

/// Runs a case; afterwards the host must have no mount of it.
fn run(case: &str, flags: &[&str]) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("rrun-rootfs-{}-{n}", std::process::id()));
    for sub in ["rootfs", "canary"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    let output = Command::new("unshare")
        .args(flags)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "rootfs::tests::inside", "--ignored", "--nocapture"])
        .env("RRUN_CASE", case)
        .env("RRUN_DIR", &dir)
        .output()
        .unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left = mounts.contains(&*dir.to_string_lossy());
    let canary: Vec<_> = fs::read_dir(dir.join("canary")).unwrap().map(|e| e.unwrap().file_name()).collect();
    if !left {
        fs::remove_dir_all(&dir).unwrap();
    }
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{case}: {text}");
    assert!(!left, "{case}: a mount is on the host: {mounts}");
    assert!(canary.is_empty(), "{case}: in the canary: {canary:?}");
}

macro_rules! cases {
    ($($name:ident $flags:expr;)*) => {
        $(#[test] fn $name() { run(stringify!($name), $flags); })*

        #[test]
        #[ignore = "run by the others, in namespaces"]
        fn inside() {
            let dir = PathBuf::from(std::env::var("RRUN_DIR").unwrap());
            match &*std::env::var("RRUN_CASE").unwrap() {
                $(stringify!($name) => case::$name(&dir),)*
                case => panic!("no case {case}"),
            }
        }
    };
}

cases! {
    whole PRIVILEGED;
    whole_in_a_user_namespace USERNS;
    no_pivot PRIVILEGED;
    shared_root PRIVILEGED;
    dev_is_a_symlink_to_a_volume PRIVILEGED;
    dev_is_a_symlink_out_of_the_root PRIVILEGED;
    volume_on_dev_through_a_symlink PRIVILEGED;
    odd_files_in_dev PRIVILEGED;
    console_is_a_symlink PRIVILEGED;
    listed_device_with_another_file_there PRIVILEGED;
    proc_on_a_symlink PRIVILEGED;
    into_proc_through_a_symlink PRIVILEGED;
    dangling_and_absolute_links_stay_inside PRIVILEGED;
    tmpcopyup PRIVILEGED;
    the_kernel_names_a_bad_option PRIVILEGED;
    ids_of_its_own PARENT;
    many_mounts_need_few_fds PRIVILEGED;
    without_a_mount_namespace PRIVILEGED;
    device_owner_and_mode PRIVILEGED;
    cgroup_v1 PRIVILEGED;
}

fn spec(text: &str) -> Spec {
    read::document(text.as_bytes()).unwrap()
}

fn plan_with(
    dir: &Path,
    mounts: &str,
    linux: &str,
    mount_ns: bool,
    no_pivot: bool,
    root: &str,
) -> RootfsPlan {
    let user =
        fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) != Some("4294967295");
    let mut kinds = vec!["pid"];
    kinds.extend(mount_ns.then_some("mount"));
    kinds.extend(user.then_some("user"));
    let listed: Vec<String> = kinds.iter().map(|kind| format!(r#"{{"type":"{kind}"}}"#)).collect();
    let text = format!(
        r#"{{"root":{{"path":"rootfs"{root}}},"mounts":[{mounts}],"linux":{{"namespaces":[{}]{linux}}}}}"#,
        listed.join(",")
    );
    let spec = spec(&text);
    let namespaces = Namespaces::build(&spec.linux.as_deref().unwrap().namespaces).unwrap();
    assert_eq!(namespaces.has(Kind::User), user);
    let memory =
        Hierarchy { name: "memory".into(), options: "memory".into(), path: "/sys/fs/cgroup/memory".into() };
    let cgroups = Cgroups::V1(vec![memory]);
    let given = Given {
        bundle: dir,
        namespaces: &namespaces,
        cgroups: &cgroups,
        foreign_cgroups: false,
        rootless: false,
        no_pivot,
    };
    build(&spec, &given).unwrap()
}

fn plan(dir: &Path, mounts: &str, linux: &str) -> RootfsPlan {
    plan_with(dir, mounts, linux, true, false, "")
}

fn populate(plan: &RootfsPlan) -> Result<Rootfs, Fault> {
    let mut rootfs = Rootfs::enter(plan)?;
    let opened = if plan.needs_parent { open_sources(plan, None).unwrap() } else { Vec::new() };
    rootfs.populate(plan, &mut Sources::new(opened, None))?;
    Ok(rootfs)
}

fn finished(plan: &RootfsPlan) -> Rootfs {
    let mut rootfs = populate(plan).unwrap_or_else(|f| panic!("{f:?}\n{plan}"));
    rootfs.pivot(plan).unwrap();
    rootfs.finish(plan).unwrap();
    rootfs
}

/// The options of the topmost mount on a path, after pivot.
fn options(path: &str) -> String {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line =
        text.lines().rfind(|l| l.split(' ').nth(4) == Some(path)).unwrap_or_else(|| panic!("{path}\n{text}"));
    let fields: Vec<&str> = line.split(' ').collect();
    format!("{} {}", fields[5], fields[6])
}

fn is_device(path: &str, major: u32, minor: u32) -> bool {
    let st = stat(path).unwrap();
    FileType::from_raw_mode(st.st_mode).is_char_device() && st.st_rdev == rustix::fs::makedev(major, minor)
}

const PROC: &str = r#"{"destination":"/proc","type":"proc","source":"proc"}"#;
const DEV: &str = r#"{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k","ro"]},
    {"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620"]}"#;

mod case {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn typical(dir: &Path) -> RootfsPlan {
        let root = dir.join("rootfs");
        fs::create_dir_all(root.join("secret/x")).unwrap();
        fs::write(root.join("secretfile"), "secret").unwrap();
        fs::create_dir(dir.join("vol")).unwrap();
        fs::write(dir.join("vol/file"), "v").unwrap();
        let mounts = format!(
            r#"{PROC},{DEV},
            {{"destination":"/vol","source":"{0}/vol","options":["rbind","ro","nosuid","noexec"]}},
            {{"destination":"/volrw","source":"vol","options":["bind","nodev","rw","rprivate"]}},
            {{"destination":"/etc/one","source":"{0}/vol/file","options":["bind"]}},
            {{"destination":"/run","type":"tmpfs","source":"tmpfs","options":["ro","mode=1777","noatime"]}},
            {{"destination":"/run/in/run","type":"tmpfs","source":"tmpfs"}}"#,
            dir.display()
        );
        let linux = r#","maskedPaths":["/secret","/secretfile","/secret","/absent/x","/proc/version","/proc/scsi"],
            "readonlyPaths":["/proc/sys","/absent"],"sysctl":{"a":"b"}"#;
        plan_with(dir, &mounts, linux, true, false, r#","readonly":true"#)
    }

    fn check_whole(dir: &Path) {
        assert!(!dir.exists(), "the old root is still there");
        assert_eq!(options("/proc/sys").split(',').next(), Some("ro"));
        assert!(fs::write("/x", "").is_err());
        assert_eq!(fs::read_to_string("/vol/file").unwrap(), "v");
        assert!(fs::write("/vol/file", "w").is_err());
        assert!(options("/vol").starts_with("ro,nosuid,noexec"), "{}", options("/vol"));
        fs::write("/volrw/file", "w").unwrap();
        assert_eq!(fs::read_to_string("/etc/one").unwrap(), "w");
        assert!(fs::write("/run/x", "").is_err());
        assert!(options("/run").contains("ro,noatime"), "{}", options("/run"));
        fs::write("/run/in/run/x", "").unwrap();
        assert!(fs::write("/dev/x", "").is_err());
        assert!(options("/dev").starts_with("ro,nosuid"));
        for (path, major, minor) in [("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/tty", 5, 0)] {
            assert!(is_device(path, major, minor), "{path}");
        }
        fs::write("/dev/null", "x").unwrap();
        assert_eq!(fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
        assert_eq!(fs::read_link("/dev/fd").unwrap(), Path::new("/proc/self/fd"));
        assert_eq!(fs::read_dir("/secret").unwrap().count(), 0);
        assert_eq!(fs::read("/secretfile").unwrap(), b"");
        assert!(is_device("/proc/version", 1, 3));
    }

    pub(super) fn whole(dir: &Path) {
        let plan = typical(dir);
        let mut rootfs = populate(&plan).unwrap();
        let console = rootfs.console(Some((25, 80))).unwrap();
        rootfs.pivot(&plan).unwrap();
        rootfs.finish(&plan).unwrap();
        check_whole(dir);
        assert_eq!(console.name.to_str().unwrap(), "/dev/pts/0");
        assert_eq!(stat("/dev/console").unwrap().st_rdev, fstat(&console.slave).unwrap().st_rdev);
        assert_eq!(rustix::termios::tcgetwinsize(&console.master).unwrap().ws_col, 80);
    }

    pub(super) fn whole_in_a_user_namespace(dir: &Path) {
        let plan = typical(dir);
        super::finished(&plan);
        check_whole(dir);
    }

    pub(super) fn no_pivot(dir: &Path) {
        let mounts = format!("{PROC},{DEV}");
        let plan = plan_with(dir, &mounts, "", true, true, "");
        super::finished(&plan);
        assert!(!dir.exists());
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(text.matches(" - proc ").count(), 1, "{text}");
        assert_eq!(text.matches(" - sysfs ").count(), 0, "{text}");
    }

    pub(super) fn shared_root(dir: &Path) {
        let mounts = format!(
            r#"{PROC},{{"destination":"/v","source":"vol","options":["rbind","rslave"]}},
            {{"destination":"/s","type":"tmpfs","options":["shared"]}},{{"destination":"/v/in","type":"tmpfs"}}"#
        );
        fs::create_dir_all(dir.join("vol/in")).unwrap();
        super::finished(&plan(dir, &mounts, r#","rootfsPropagation":"shared""#));
        assert!(options("/").contains("shared:"), "{}", options("/"));
        assert!(options("/s").contains("shared:"), "{}", options("/s"));
        assert!(!options("/v").contains("shared:"), "{}", options("/v"));
    }

    fn canary(dir: &Path, at: &str) -> String {
        format!(r#"{{"destination":"{at}","source":"{}/canary","options":["bind"]}}"#, dir.display())
    }

    pub(super) fn dev_is_a_symlink_to_a_volume(dir: &Path) {
        symlink("/vol", dir.join("rootfs/dev")).unwrap();
        let fault = populate(&plan(dir, &canary(dir, "/vol"), "")).unwrap_err();
        assert!(fault.note.contains("behind a symbolic link"), "{fault:?}");
        assert_eq!(fault.index, 1);
    }

    pub(super) fn dev_is_a_symlink_out_of_the_root(dir: &Path) {
        for target in [dir.join("canary"), PathBuf::from("../../canary"), PathBuf::from("../canary")] {
            symlink(&target, dir.join("rootfs/dev")).unwrap();
            let fault = populate(&plan(dir, "", "")).unwrap_err();
            assert!(fault.note.contains("behind a symbolic link"), "{fault:?}");
            fs::remove_file(dir.join("rootfs/dev")).unwrap();
        }
        // A mount on it lands inside the root, on what the link names there.
        symlink(dir.join("canary"), dir.join("rootfs/dev")).unwrap();
        assert!(populate(&plan(dir, DEV, "")).is_err());
    }

    pub(super) fn volume_on_dev_through_a_symlink(dir: &Path) {
        fs::create_dir(dir.join("rootfs/dev")).unwrap();
        symlink("dev", dir.join("rootfs/x")).unwrap();
        let fault = populate(&plan(dir, &canary(dir, "/x"), "")).unwrap_err();
        assert!(fault.note.contains("on a volume"), "{fault:?}");
    }

    pub(super) fn odd_files_in_dev(dir: &Path) {
        let dev = dir.join("rootfs/dev");
        fs::create_dir(&dev).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, dev.join("null"), FileType::Fifo, mode, 0).unwrap();
        fs::write(dev.join("zero"), "not a device").unwrap();
        fs::write(dev.join("ptmx"), "x").unwrap();
        super::finished(&plan(dir, PROC, r#","maskedPaths":["/proc/version"]"#));
        assert!(
            is_device("/dev/null", 1, 3) && is_device("/dev/zero", 1, 5) && is_device("/proc/version", 1, 3)
        );
        assert_eq!(fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
    }

    pub(super) fn console_is_a_symlink(dir: &Path) {
        let root = dir.join("rootfs/dev");
        fs::create_dir_all(root.join("pts")).unwrap();
        symlink("/proc/sys/kernel/core_pattern", root.join("console")).unwrap();
        let rootfs = populate(&plan(dir, PROC, "")).unwrap();
        let fault = rootfs.console(None).unwrap_err();
        assert!(fault.note.contains("devpts") && fault.step == Step::Console, "{fault:?}");
        let devpts =
            r#"{"destination":"/dev/pts","type":"devpts","options":["newinstance","ptmxmode=0666"]}"#;
        let rootfs = populate(&plan(dir, devpts, "")).unwrap();
        let fault = rootfs.console(None).unwrap_err();
        assert_eq!((fault.errno, &*fault.note), (Errno::LOOP, "/dev/console"), "{fault:?}");
    }

    pub(super) fn listed_device_with_another_file_there(dir: &Path) {
        fs::write(dir.join("rootfs/d"), "x").unwrap();
        let linux = r#","devices":[{"type":"c","path":"/d","major":1,"minor":3}]"#;
        let fault = populate(&plan(dir, "", linux)).unwrap_err();
        assert_eq!((fault.errno, &*fault.note), (Errno::EXIST, "another file is at /d"));
        fs::remove_file(dir.join("rootfs/d")).unwrap();
        symlink("/dev/null", dir.join("rootfs/d")).unwrap();
        assert_eq!(populate(&plan(dir, "", linux)).unwrap_err().errno, Errno::EXIST);
    }

    pub(super) fn proc_on_a_symlink(dir: &Path) {
        let root = dir.join("rootfs");
        fs::create_dir_all(root.join("vol/p")).unwrap();
        for target in ["vol/p", ".", "/", "absent", "../../.."] {
            symlink(target, root.join("proc")).unwrap();
            let fault = populate(&plan(dir, PROC, "")).unwrap_err();
            assert!(fault.note.contains("must be mounted on ordinary directory"), "{target}: {fault:?}");
            fs::remove_file(root.join("proc")).unwrap();
        }
        fs::write(root.join("proc"), "").unwrap();
        let fault = populate(&plan(dir, PROC, "")).unwrap_err();
        assert!(fault.note.contains("must be mounted on ordinary directory"), "{fault:?}");
        let at_link = r#"{"destination":"/proc","source":"/proc","options":["bind"]}"#;
        fs::remove_file(root.join("proc")).unwrap();
        symlink("/vol/p", root.join("proc")).unwrap();
        let fault = populate(&plan(dir, at_link, "")).unwrap_err();
        assert!(fault.note.contains("must be mounted on ordinary directory"), "{fault:?}");
    }

    pub(super) fn into_proc_through_a_symlink(dir: &Path) {
        let root = dir.join("rootfs");
        symlink("/proc/self/attr", root.join("a")).unwrap();
        symlink("/proc", root.join("p")).unwrap();
        symlink("..", root.join("top")).unwrap();
        for (at, words) in [
            ("/a", "because it is inside /proc"),
            ("/p/sys", "because it is inside /proc"),
            ("/p", "because it is not of type proc"),
            ("/top", "on the top of the root"),
        ] {
            let fault = populate(&plan(dir, &format!("{PROC},{}", canary(dir, at)), "")).unwrap_err();
            assert!(fault.note.contains(words) && fault.index == 1, "{at}: {fault:?}");
        }
        let fake = populate(&plan(dir, &canary(dir, "/proc"), "")).unwrap_err();
        assert!(fake.note.contains("because it is not of type proc"), "{fake:?}");
        let real = r#"{"destination":"/proc","source":"/proc","options":["rbind"]},
            {"destination":"/proc/uptime","source":"/proc/version","options":["bind"]},
            {"destination":"/proc/net/dev","source":"/proc/version","options":["bind"]}"#;
        populate(&plan(dir, real, "")).unwrap();
    }

    pub(super) fn dangling_and_absolute_links_stay_inside(dir: &Path) {
        let root = dir.join("rootfs");
        symlink(dir.join("canary"), root.join("abs")).unwrap();
        symlink("../../../made/here", root.join("rel")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let tmpfs = |at: &str| format!(r#"{{"destination":"{at}","type":"tmpfs"}}"#);
        populate(&plan(dir, &[tmpfs("/abs/x"), tmpfs("/rel/y")].join(","), "")).unwrap();
        assert!(root.join(dir.join("canary/x").strip_prefix("/").unwrap()).is_dir());
        assert!(root.join("made/here/y").is_dir());
        assert_eq!(fs::metadata(root.join("made")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(populate(&plan(dir, &tmpfs("/loop/x"), "")).unwrap_err().errno, Errno::LOOP);
    }

    pub(super) fn tmpcopyup(dir: &Path) {
        let top = dir.join("rootfs/t");
        fs::create_dir_all(top.join("d/e")).unwrap();
        fs::write(top.join("d/f"), "text").unwrap();
        std::os::unix::fs::chown(top.join("d/f"), Some(12), Some(34)).unwrap();
        fs::set_permissions(top.join("d/f"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(&top, fs::Permissions::from_mode(0o1770)).unwrap();
        symlink("/absent", top.join("l")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, top.join("fifo"), FileType::Fifo, mode, 0).unwrap();
        let mounts = r#"{"destination":"/t","type":"tmpfs","options":["tmpcopyup","ro"]}"#;
        super::finished(&plan(dir, mounts, ""));
        let st = fs::metadata("/t/d/f").unwrap();
        assert_eq!((st.uid(), st.gid(), st.mode() & 0o7777), (12, 34, 0o4751));
        assert_eq!(fs::read_to_string("/t/d/f").unwrap(), "text");
        assert_eq!(fs::read_link("/t/l").unwrap(), Path::new("/absent"));
        assert_eq!(fs::metadata("/t").unwrap().mode() & 0o7777, 0o1770);
        assert!(fs::metadata("/t/fifo").is_ok() && fs::write("/t/x", "").is_err());
    }

    pub(super) fn the_kernel_names_a_bad_option(dir: &Path) {
        let mounts = r#"{"destination":"/t","type":"tmpfs","options":["foo=bar"]}"#;
        let fault = populate(&plan(dir, mounts, "")).unwrap_err();
        assert_eq!((fault.call, fault.errno), ("fsconfig", Errno::INVAL));
        assert!(fault.note.contains("foo"), "{fault:?}");
        let fault = populate(&plan(dir, r#"{"destination":"/t","type":"foofs"}"#, "")).unwrap_err();
        assert_eq!(fault.errno, Errno::NODEV);
    }

    pub(super) fn ids_of_its_own(dir: &Path) {
        fs::create_dir(dir.join("vol")).unwrap();
        fs::write(dir.join("vol/f"), "").unwrap();
        let maps = r#"[{"containerID":0,"hostID":1000,"size":10}]"#;
        let mounts = format!(
            r#"{{"destination":"/v","source":"vol","options":["bind","idmap"],"uidMappings":{maps},"gidMappings":{maps}}}"#
        );
        super::finished(&plan(dir, &mounts, ""));
        let st = fs::metadata("/v/f").unwrap();
        assert_eq!((st.uid(), st.gid()), (1000, 1000));
    }

    pub(super) fn many_mounts_need_few_fds(dir: &Path) {
        let limit = rustix::process::Rlimit { current: Some(32), maximum: Some(32) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
        let one = |i| format!(r#"{{"destination":"/m/{i}","type":"tmpfs","options":["ro"]}}"#);
        let mounts: Vec<String> = (0..100).map(one).collect();
        super::finished(&plan(dir, &mounts.join(","), ""));
        assert!(fs::write("/m/99/x", "").is_err());
    }

    pub(super) fn without_a_mount_namespace(dir: &Path) {
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let plan = plan_with(dir, "", "", false, false, "");
        let mut rootfs = populate(&plan).unwrap();
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
        rootfs.pivot(&plan).unwrap();
        rootfs.finish(&plan).unwrap();
        assert!(is_device("/dev/null", 1, 3) && !dir.exists());
    }

    pub(super) fn device_owner_and_mode(dir: &Path) {
        let linux = r#","devices":[{"type":"b","path":"/a/b/d","major":7,"minor":300,"fileMode":8624,"uid":5,"gid":6},
            {"type":"p","path":"/fifo","fileMode":384}]"#;
        super::finished(&plan(dir, "", linux));
        let st = fs::metadata("/a/b/d").unwrap();
        assert_eq!((st.mode(), st.uid(), st.gid()), (libc::S_IFBLK | 0o660, 5, 6));
        assert_eq!(st.rdev(), rustix::fs::makedev(7, 300));
        assert_eq!(fs::metadata("/fifo").unwrap().mode(), libc::S_IFIFO | 0o600);
    }

    pub(super) fn cgroup_v1(dir: &Path) {
        if !Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            return;
        }
        let mounts = r#"{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
            {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro","nosuid","noexec","nodev"]}"#;
        let rootfs = finished(&plan(dir, &format!("{PROC},{mounts}"), ""));
        drop(rootfs);
        assert!(fs::read_to_string("/sys/fs/cgroup/memory/memory.limit_in_bytes").is_ok());
        assert!(options("/sys/fs/cgroup/memory").starts_with("ro,nosuid,nodev,noexec"));
        assert!(options("/sys/fs/cgroup").starts_with("ro,"));
        assert!(options("/sys").starts_with("ro,"));
    }
}

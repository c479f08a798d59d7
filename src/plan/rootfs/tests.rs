//! Decisions as text, and every refusal with its JSON path.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use super::*;
use crate::spec::read;

struct Case {
    namespaces: &'static [&'static str],
    cgroups: Cgroups,
    foreign: bool,
}

fn usual() -> Case {
    Case { namespaces: &["mount", "pid"], cgroups: Cgroups::V2(None), foreign: false }
}

fn plan(case: &Case, mounts: &str, linux: &str) -> Result<RootfsPlan> {
    let listed: Vec<String> = case.namespaces.iter().map(|kind| format!(r#"{{"type":"{kind}"}}"#)).collect();
    let text = format!(
        r#"{{"root":{{"path":"rootfs"}},"mounts":[{mounts}],"linux":{{"namespaces":[{}]{linux}}}}}"#,
        listed.join(",")
    );
    let spec: Spec = read::document(text.as_bytes()).unwrap();
    let namespaces = Namespaces::build(&spec.linux.as_deref().unwrap().namespaces).unwrap();
    let given = Given {
        bundle: Path::new("/b"),
        namespaces: &namespaces,
        cgroups: &case.cgroups,
        foreign_cgroups: case.foreign,
        rootless: false,
        no_pivot: false,
    };
    build(&spec, &given)
}

/// The lines of the mounts.
fn mounts(case: &Case, mounts: &str) -> String {
    let plan = plan(case, mounts, "").unwrap();
    let ops = plan.ops.iter().filter(|op| match op {
        RootfsOp::Mount(_) => true,
        RootfsOp::Symlink(link) => !link.in_dev,
        RootfsOp::Device(_) => false,
    });
    ops.map(|op| format!("{op}\n")).collect()
}

fn refusal(mounts: &str, linux: &str) -> String {
    plan(&usual(), mounts, linux).unwrap_err().to_string()
}

#[test]
fn a_whole_plan_reads_as_it_is_done() {
    let text = r#"{"destination":"/proc","type":"proc","source":"proc"},
        {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755"]},
        {"destination":"vol","source":"v","options":["rbind","ro","rro","rslave"]}"#;
    let linux = r#","maskedPaths":["/proc/../x/"],"readonlyPaths":["/proc/sys"],
        "devices":[{"type":"c","path":"/dev/null","major":1,"minor":3,"fileMode":8630,"uid":1}]"#;
    let plan = plan(&usual(), text, linux).unwrap();
    assert_eq!(
        plan.to_string(),
        "root /b/rootfs, pivot_root\n\
         mount #0 proc on /proc\n\
         mount #1 tmpfs on /dev (nosuid,strictatime,mode=755)\n\
         mount #2 rbind /b/v on /vol (ro,rro,rslave)\n\
         device /dev/null c 1:3 0o666 1:0\n\
         device /dev/random c 1:8 0o666 0:0\n\
         device /dev/full c 1:7 0o666 0:0\n\
         device /dev/tty c 5:0 0o666 0:0\n\
         device /dev/zero c 1:5 0o666 0:0\n\
         device /dev/urandom c 1:9 0o666 0:0\n\
         symlink /dev/ptmx -> pts/ptmx\n\
         symlink /dev/fd -> /proc/self/fd\n\
         symlink /dev/stdin -> /proc/self/fd/0\n\
         symlink /dev/stdout -> /proc/self/fd/1\n\
         symlink /dev/stderr -> /proc/self/fd/2\n\
         symlink /dev/core -> /proc/kcore\n\
         read-only /proc/sys\n\
         mask /x\n"
    );
    assert_eq!(plan.warnings, ["config.json: mounts[2].destination: relative path is taken from /"]);
    assert!(!plan.needs_parent);
}

#[test]
fn a_dev_bound_from_the_host_is_left_alone() {
    let text = r#"{"destination":"/dev/","source":"/dev","options":["rbind"]}"#;
    assert_eq!(plan(&usual(), text, "").unwrap().ops.len(), 1);
}

#[test]
fn binds_are_known_by_their_options_or_type() {
    let text = r#"{"destination":"/a","type":"tmpfs","source":"/s","options":["bind"]},
        {"destination":"/b","type":"bind","source":"/s"}"#;
    assert_eq!(mounts(&usual(), text), "mount #0 bind /s on /a\nmount #1 bind /s on /b\n");
}

#[test]
fn a_read_only_tmpfs_waits_unless_it_is_covered() {
    let text = r#"{"destination":"/a/b","type":"tmpfs","options":["ro"]},
        {"destination":"/c","type":"tmpfs","options":["ro"]},{"destination":"/a","type":"tmpfs"}"#;
    let want = "mount #0 tmpfs on /a/b (ro)\nmount #1 tmpfs on /c (ro at last)\nmount #2 tmpfs on /a\n";
    assert_eq!(mounts(&usual(), text), want);
}

#[test]
fn only_a_real_file_system_gets_a_read_only_superblock() {
    let flags = |typ: &str| {
        let text = format!(r#"{{"destination":"/a","type":"{typ}","options":["ro"]}}"#);
        match plan(&usual(), &text, "").unwrap().ops.swap_remove(0) {
            RootfsOp::Mount(Mount { source: Source::New(fs), .. }) => fs.flags,
            op => panic!("{op}"),
        }
    };
    assert_eq!((flags("ext4"), flags("sysfs")), (libc::MS_RDONLY as u32, 0));
}

#[test]
fn contexts_keep_their_commas() {
    let text = r#"{"destination":"/a","type":"tmpfs","options":["context=\"a:b:c1,c2\"","size=1m,mode=1"]}"#;
    assert_eq!(mounts(&usual(), text), "mount #0 tmpfs on /a (context=a:b:c1,c2,size=1m,mode=1)\n");
    let plan =
        plan(&usual(), r#"{"destination":"/a","type":"tmpfs"}"#, r#","mountLabel":"l:c1,c2""#).unwrap();
    assert_eq!(plan.ops[0].to_string(), "mount #0 tmpfs on /a (context=l:c1,c2)");
}

fn v1(namespaces: &'static [&'static str]) -> Case {
    let one = |name: &str, options: &str| Hierarchy {
        name: name.into(),
        options: options.into(),
        path: Path::new("/sys/fs/cgroup").join(name).join("c"),
    };
    let cgroups = vec![one("cpu,cpuacct", "cpu,cpuacct"), one("systemd", "name=systemd"), one("unified", "")];
    Case { namespaces, cgroups: Cgroups::V1(cgroups), foreign: false }
}

const CGROUP: &str = r#"{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup",
    "options":["ro","nosuid","noexec","nodev"]}"#;

#[test]
fn cgroup_v1_shows_the_containers_own_directories() {
    assert_eq!(
        mounts(&v1(&["mount"]), CGROUP),
        "mount #0 tmpfs on /sys/fs/cgroup (nosuid,nodev,noexec,mode=755,ro at last)\n\
         mount #0 rbind /sys/fs/cgroup/cpu,cpuacct/c on /sys/fs/cgroup/cpu,cpuacct (ro,nosuid,nodev,noexec)\n\
         symlink /sys/fs/cgroup/cpu -> cpu,cpuacct\n\
         symlink /sys/fs/cgroup/cpuacct -> cpu,cpuacct\n\
         mount #0 rbind /sys/fs/cgroup/systemd/c on /sys/fs/cgroup/systemd (ro,nosuid,nodev,noexec)\n\
         mount #0 rbind /sys/fs/cgroup/unified/c on /sys/fs/cgroup/unified (ro,nosuid,nodev,noexec)\n"
    );
    let own = mounts(&v1(&["mount", "cgroup"]), CGROUP);
    let want = "mount #0 cgroup on /sys/fs/cgroup/systemd (ro,nosuid,nodev,noexec,name=systemd)\n\
                mount #0 cgroup2 on /sys/fs/cgroup/unified (ro,nosuid,nodev,noexec)\n";
    assert!(own.ends_with(want), "{own}");
}

#[test]
fn recursive_options_of_a_cgroup_mount_hold_for_each_of_its_mounts() {
    let v2 = Case {
        namespaces: &["mount"],
        cgroups: Cgroups::V2(Some("/sys/fs/cgroup/c".into())),
        foreign: false,
    };
    for case in [v1(&["mount"]), v1(&["mount", "cgroup"]), v2] {
        assert_eq!(mounts(&case, &CGROUP.replace("\"ro\"", "\"rro\"")), mounts(&case, CGROUP));
        let withdrawn = CGROUP.replace("\"ro\"", "\"ro\",\"rrw\"");
        let writable = mounts(&case, &withdrawn).replace("rw,", "");
        assert_eq!(writable, mounts(&case, &CGROUP.replace("\"ro\",", "")));
    }
}

#[test]
fn cgroup_v2_is_mounted_or_bound() {
    let cgroups = || Cgroups::V2(Some("/sys/fs/cgroup/c".into()));
    let own = Case { namespaces: &["mount", "cgroup"], cgroups: cgroups(), foreign: false };
    assert_eq!(mounts(&own, CGROUP), "mount #0 cgroup2 on /sys/fs/cgroup (ro,nosuid,nodev,noexec)\n");
    let shared = Case { namespaces: &["mount"], cgroups: cgroups(), foreign: false };
    let want = "mount #0 bind /sys/fs/cgroup/c on /sys/fs/cgroup (ro,nosuid,nodev,noexec)\n";
    assert_eq!(mounts(&shared, CGROUP), want);
    // CVE-2023-25809: those of the user who runs the container.
    let foreign = Case { namespaces: &["mount"], cgroups: cgroups(), foreign: true };
    let writable = CGROUP.replace("\"ro\",", "");
    assert_ne!(writable, CGROUP);
    assert_eq!(mounts(&foreign, &writable), want);
}

#[test]
fn in_a_user_namespace_devices_are_bound_and_the_parent_helps() {
    let case = Case { namespaces: &["mount", "user"], cgroups: Cgroups::V2(None), foreign: false };
    let text = r#"{"destination":"/a","source":"/s","options":["bind","idmap"]}"#;
    let plan = plan(&case, text, "").unwrap();
    assert!(plan.needs_parent);
    assert_eq!(plan.ops[1].to_string(), "bind device /dev/null c 1:3 0o666 0:0");
}

#[test]
fn refusals_name_the_place() {
    let mount = |rest: &str| format!(r#"{{"destination":"/a",{rest}}}"#);
    let maps = r#"[{"containerID":0,"hostID":0,"size":1}]"#;
    for (mounts, linux, want) in [
        (r#"{"type":"tmpfs"}"#.to_owned(), "", "mounts[0].destination: missing"),
        (
            r#"{"destination":"/..","type":"tmpfs"}"#.to_owned(),
            "",
            "mounts[0].destination: mountpoint is on the top",
        ),
        (mount(r#""source":"x""#), "", "mounts[0].type: missing"),
        (mount(r#""type":"bind""#), "", "mounts[0].source: missing"),
        (mount(r#""source":"x","options":["bind","idmap"]"#), "", "mounts[0].options: idmap needs"),
        (mount(r#""type":"tmpfs","options":["tmpcopyup","idmap"]"#), "", "mounts[0].options: id-mapped"),
        (
            mount(&format!(r#""source":"x","options":["bind"],"uidMappings":{maps}"#)),
            "",
            "mounts[0].gidMappings:",
        ),
        (
            r#"{"destination":"/x/../proc/self/attr","type":"tmpfs"}"#.to_owned(),
            "",
            "mounts[0].destination: \"/proc/self/attr\" cannot be mounted because it is inside /proc",
        ),
        (r#"{"destination":"/proc","type":"tmpfs"}"#.to_owned(), "", "because it is not of type proc"),
        (
            String::new(),
            r#","maskedPaths":["/a","b"]"#,
            "linux.maskedPaths[1]: \"b\" is not an absolute path",
        ),
        (String::new(), r#","readonlyPaths":["b"]"#, "linux.readonlyPaths[0]: \"b\" is not an absolute path"),
        (
            String::new(),
            r#","rootfsPropagation":"foo""#,
            "linux.rootfsPropagation: rootfsPropagation=\"foo\" is not",
        ),
        (
            String::new(),
            r#","devices":[{"type":"x","path":"/a"}]"#,
            "linux.devices[0].type: invalid device type \"x\"",
        ),
        (String::new(), r#","devices":[{"type":"c","path":"a"}]"#, "linux.devices[0].path: \"a\" is not an"),
        (
            String::new(),
            r#","devices":[{"type":"c","path":"/proc/a"}]"#,
            "linux.devices[0].path: a device cannot",
        ),
        (
            String::new(),
            r#","devices":[{"type":"c","path":"/a","major":-1}]"#,
            "linux.devices[0].major: -1 is out",
        ),
        (
            String::new(),
            r#","devices":[{"type":"b","path":"/a","minor":1099511627776}]"#,
            "linux.devices[0].minor: 1099511627776 is out of range",
        ),
    ] {
        let got = refusal(&mounts, linux);
        assert!(got.contains(want), "{got}\nwant {want}");
    }
}

#[test]
fn without_a_mount_namespace_no_mount_that_is_there_may_change() {
    let case = Case { namespaces: &[], cgroups: Cgroups::V2(None), foreign: false };
    let got = plan(&case, "", r#","rootfsPropagation":"private""#).unwrap_err().to_string();
    assert!(got.starts_with("config.json: linux.rootfsPropagation: needs a mount namespace"), "{got}");
    let mounts = r#"{"destination":"/a","type":"tmpfs"}"#;
    let (masked, readonly) = (r#","maskedPaths":["/a"]"#, r#","readonlyPaths":["/a"]"#);
    for (mounts, linux, shares) in
        [("", "", false), (mounts, "", true), ("", masked, true), ("", readonly, true)]
    {
        let plan = plan(&case, mounts, linux).unwrap();
        assert_eq!((plan.jail, plan.shares_mounts()), (Jail::Chroot, shares));
    }
}

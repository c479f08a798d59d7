//! config.md, Mounts, and config-linux.md, Devices and masked paths: options one by one, as /proc shows them.

use crate::harness::Test;
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn tmpfs(options: &[&str]) -> Value {
    json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options })
}

/// The line of /proc/self/mountinfo that stands for `/mnt` inside.
fn mountinfo_of(mount: Value) -> String {
    let t = Test::new("mount");
    t.add_mount(mount);
    let line = t.output("grep ' /mnt ' /proc/self/mountinfo");
    t.nothing_left();
    line
}

/// The option table of config.md: each option is seen in mountinfo (per mount, or of the file system).
#[test]
fn options_of_a_tmpfs() {
    requires!(root);
    for (options, seen) in [
        (&["ro"][..], &["ro"][..]),
        (&["ro", "rw"], &["rw"]),
        (&["nosuid", "nodev", "noexec"], &["nosuid", "nodev", "noexec"]),
        (&["noatime"], &["noatime"]),
        (&["nodiratime"], &["nodiratime"]),
        (&["relatime"], &["relatime"]),
        (&["sync"], &["sync"]),
        (&["dirsync"], &["dirsync"]),
        (&["size=1m", "mode=711"], &["size=1024k", "mode=711"]),
        (&["nr_inodes=50"], &["nr_inodes=50"]),
    ] {
        let line = mountinfo_of(tmpfs(options));
        for word in seen {
            assert!(line.split([',', ' ', '\n']).any(|w| w == *word), "{options:?}: no {word} in {line}");
        }
    }
}

#[test]
fn options_that_peers_lack() {
    requires!(root);
    rrun_only!("nosymfollow, lazytime and the clearing of strictatime are newer than runc 1.1");
    assert!(mountinfo_of(tmpfs(&["nosymfollow"])).contains("nosymfollow"));
    assert!(!mountinfo_of(tmpfs(&["nosymfollow", "symfollow"])).contains("nosymfollow"));
    assert!(!mountinfo_of(tmpfs(&["strictatime"])).contains("relatime"));
    for options in
        [&["lazytime"][..], &["nolazytime"], &["silent", "loud"], &["iversion", "noiversion"], &["defaults"]]
    {
        mountinfo_of(tmpfs(options));
    }
}

#[test]
fn a_bind_of_a_directory_and_of_a_file() {
    requires!(root);
    let t = Test::new("bind");
    let source = t.dir.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content\n").unwrap();
    t.add_mount(
        json!({ "destination": "/mnt/dir", "source": source, "options": ["bind", "ro", "nosuid", "noexec"] }),
    );
    t.add_mount(json!({ "destination": "/mnt/one", "type": "none", "source": source.join("file"), "options": ["bind"] }));
    let text = t.output(
        "cat /mnt/dir/file; touch /mnt/dir/x 2>/dev/null || echo ro; echo new > /mnt/one; cat /mnt/dir/file",
    );
    assert_eq!(text, "content\nro\nnew\n");
    t.nothing_left();
}

#[test]
fn clearing_options_on_a_bind() {
    requires!(root);
    let t = Test::new("clear");
    let source = t.dir.join("source");
    fs::create_dir(&source).unwrap();
    for (options, seen) in
        [(json!(["bind", "ro", "rw"]), "rw"), (json!(["bind", "noexec", "exec", "nodev"]), "nodev")]
    {
        t.edit(|c| {
            let mounts = c["mounts"].as_array_mut().unwrap();
            mounts.retain(|m| m["destination"] != "/mnt");
            mounts.push(json!({ "destination": "/mnt", "source": source, "options": options }));
        });
        let line = t.output("grep ' /mnt ' /proc/self/mountinfo");
        assert!(line.contains(seen) && !line.contains("noexec"), "{line}");
    }
}

/// The words of a bind are the whole set, as with runc and crun (mount(2) with MS_REMOUNT | MS_BIND); access times
/// stay without a word, and in a user namespace so does what it locks and nobody asked to clear.
#[test]
fn a_word_about_a_bind_replaces_what_the_source_has() {
    requires!(root);
    requires!(call "mount_setattr");
    rrun_only!("runc 1.1 keeps what is set for access times only");
    let cases: [(&str, &[&str], &str, &str); 7] = [
        ("ro,noexec,noatime", &["bind", "rprivate"], "ro,noexec,noatime", "ro,noexec,noatime"),
        ("ro,noexec,nodiratime", &["bind", "dev"], "rw,nodiratime,relatime", "ro,noexec,nodiratime,relatime"),
        ("ro", &["bind", "nosuid", "nodev"], "rw,nosuid,nodev,relatime", "ro,nosuid,nodev,relatime"),
        ("ro", &["bind", "rw"], "rw,relatime", "operation not permitted"),
        ("nosuid,nodev,noatime", &["bind", "ro"], "ro,noatime", "ro,nosuid,nodev,noatime"),
        ("noatime", &["bind", "atime"], "rw,noatime", "rw,noatime"),
        ("noatime", &["bind", "nodiratime"], "rw,nodiratime,relatime", "operation not permitted"),
    ];
    for (host, options, root, user) in cases {
        for (mapped, want) in [(false, root), (true, user)] {
            let t = Test::new("bindwords");
            let source = t.dir.join("source");
            fs::create_dir(&source).unwrap();
            fs::create_dir_all(t.rootfs.join("mnt")).unwrap();
            t.add_mount(json!({ "destination": "/mnt", "source": source, "options": options }));
            if mapped {
                t.map_users();
            }
            t.sh("awk '$2 == \"/mnt\" { print $4 }' /proc/mounts");
            let inner = format!(
                "mount -t tmpfs -o rw,mode=755 none {s} && mount --bind -o remount,{host} {s} && exec \"$@\"",
                s = source.display()
            );
            let out = t.bundle_command("run", &[]).under(&["unshare", "-m", "sh", "-c", &inner, "sh"]).go();
            if want.contains(' ') {
                out.fails("error mounting").fails(want);
                continue;
            }
            let seen = out.ok().stdout();
            let words: Vec<&str> = seen.trim().split(',').take(want.split(',').count()).collect();
            assert_eq!(
                words.join(","),
                want,
                "{host} with {options:?} in a user namespace: {mapped}: {seen}"
            );
        }
    }
}

#[test]
fn recursive_options_reach_the_mounts_below() {
    requires!(root);
    requires!(call "mount_setattr");
    let t = Test::new("recursive");
    let source = t.dir.join("source");
    fs::create_dir(&source).unwrap();
    t.add_mount(json!({ "destination": "/mnt", "source": source, "options": ["rbind", "rro", "rnosuid"] }));
    t.sh("for d in /mnt /mnt/sub; do touch $d/x 2>/dev/null || echo ro; done; grep -c nosuid.*x-sub /proc/self/mountinfo");
    // The mount below lives in a mount namespace of the test's own, not on the host.
    let inner = format!("mkdir {s}/sub && mount -t tmpfs x-sub {s}/sub && exec \"$@\"", s = source.display());
    let out = t.bundle_command("run", &[]).under(&["unshare", "-m", "sh", "-c", &inner, "sh"]).go();
    assert_eq!(out.ok().stdout(), "ro\nro\n1\n");
}

/// config.md: mounts MUST be made in the listed order.
#[test]
fn mounts_are_made_in_order() {
    requires!(root);
    let t = Test::new("order");
    t.add_mount(tmpfs(&[]));
    t.add_mount(json!({ "destination": "/mnt/in", "type": "tmpfs", "source": "inner" }));
    assert_eq!(t.output("grep -c ' /mnt' /proc/self/mountinfo; ls /mnt"), "2\nin\n");
}

#[test]
fn propagation_of_a_mount_and_of_the_root() {
    requires!(root);
    let t = Test::new("propagation");
    t.add_mount(tmpfs(&["shared"]));
    t.edit(|c| c["linux"]["rootfsPropagation"] = json!("slave"));
    let line = t.output("grep ' /mnt ' /proc/self/mountinfo");
    assert!(line.contains("shared:"), "{line}");
}

#[test]
fn tmpcopyup_keeps_what_was_there() {
    requires!(root);
    let t = Test::new("copyup");
    fs::create_dir(t.rootfs.join("mnt")).unwrap();
    fs::write(t.rootfs.join("mnt/file"), "kept\n").unwrap();
    symlink("file", t.rootfs.join("mnt/link")).unwrap();
    t.add_mount(tmpfs(&["tmpcopyup"]));
    assert_eq!(t.output("cat /mnt/link; echo new > /mnt/file"), "kept\n");
    assert_eq!(fs::read_to_string(t.rootfs.join("mnt/file")).unwrap(), "kept\n");
}

#[test]
fn an_idmapped_mount_shows_shifted_owners() {
    requires!(root);
    requires!(call "mount_setattr");
    rrun_only!("runc 1.1 has no idmapped mounts");
    let t = Test::new("idmap");
    let source = t.dir.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    std::os::unix::fs::chown(source.join("file"), Some(1), Some(2)).unwrap();
    let map = json!([{ "containerID": 0, "hostID": 5000, "size": 1000 }]);
    t.add_mount(json!({ "destination": "/mnt", "source": source, "options": ["bind", "idmap"],
        "uidMappings": map, "gidMappings": map }));
    assert_eq!(t.output("stat -c %u:%g /mnt/file"), "5001:5002\n");
    let meta = fs::metadata(source.join("file")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1, 2), "the source MUST NOT change (config.md)");
    t.nothing_left();
}

/// What mounts[] has made of the container's tree so far is what the next one can bind, id maps or none.
#[test]
fn an_idmapped_source_may_be_an_earlier_mount() {
    requires!(root);
    requires!(call "mount_setattr");
    rrun_only!("runc 1.1 has no idmapped mounts");
    for mapped in [false, true] {
        let t = Test::new("idmapinside");
        let source = t.dir.join("source");
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::write(source.join("sub/file"), "").unwrap();
        std::os::unix::fs::chown(source.join("sub/file"), Some(1), Some(2)).unwrap();
        for directory in ["mnt", "final"] {
            fs::create_dir_all(t.rootfs.join(directory)).unwrap();
        }
        t.add_mount(json!({ "destination": "/mnt", "source": source, "options": ["bind"] }));
        let inside = t.rootfs.join("mnt/sub");
        let mut mount = json!({ "destination": "/final", "source": inside, "options": ["rbind", "idmap"] });
        if !mapped {
            let map = json!([{ "containerID": 0, "hostID": 5000, "size": 1000 }]);
            mount["uidMappings"] = map.clone();
            mount["gidMappings"] = map;
        }
        t.add_mount(mount);
        if mapped {
            t.map_users();
        }
        let want = if mapped { "1:2\n" } else { "5001:5002\n" };
        assert_eq!(t.output("stat -c %u:%g /final/file"), want);
        t.nothing_left();
    }
}

/// A file system in user space, of one empty directory: without `allow_other` it answers nobody but root of the host.
fn serve_fuse(mut device: fs::File) {
    let mut request = vec![0_u8; 1 << 17];
    let reply = |device: &mut fs::File, unique: &[u8], error: i32, body: &[u8]| {
        let length = u32::try_from(16 + body.len()).unwrap();
        device.write_all(&[&length.to_le_bytes(), &error.to_le_bytes(), unique, body].concat())
    };
    // Until it is unmounted. The head of a request (linux/fuse.h): length, opcode, unique.
    while let Ok(16..) = device.read(&mut request) {
        let unique = request[8..16].to_vec();
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let _ = match u32::from_le_bytes(request[4..8].try_into().unwrap()) {
            // FUSE_INIT: version 7.31, and what is not asked for.
            26 => {
                reply(&mut device, &unique, 0, &words(&[7, 31, 0, 0, 0, 4096, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]))
            }
            // FUSE_GETATTR: valid for no time, inode 1, a directory of root's.
            3 => {
                let (times, inode) = ([0; 9], [1, 0, 0, 0, 0, 0]);
                let owner = [0o40755, 2, 0, 0, 0, 4096, 0];
                reply(&mut device, &unique, 0, &words(&[&[0; 4][..], &inode, &times, &owner].concat()))
            }
            // FUSE_FORGET and FUSE_BATCH_FORGET have no reply.
            2 | 42 => Ok(()),
            _ => reply(&mut device, &unique, -38, &[]),
        };
    }
}

/// The container's root is nobody there, and may not even look what it is.
#[test]
fn a_user_namespace_gets_a_bind_of_the_hosts_fuse() {
    requires!(root);
    requires!(call "open_tree");
    requires!(Path::new("/dev/fuse").exists(), "needs FUSE");
    let t = Test::new("fuse");
    let source = t.dir.join("source");
    for directory in [&source, &t.rootfs.join("mnt")] {
        fs::create_dir_all(directory).unwrap();
    }
    let device = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = std::ffi::CString::new(options).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("fuse", &source, "fuse", flags, options.as_c_str()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| serve_fuse(device));
        t.add_mount(json!({ "destination": "/mnt", "source": source, "options": ["bind", "ro"] }));
        t.map_users();
        let out = t.sh("grep ' /mnt ' /proc/self/mountinfo").run();
        rustix::mount::unmount(&source, rustix::mount::UnmountFlags::DETACH).unwrap();
        let line = out.ok().stdout();
        assert!(line.contains(" fuse ") && line.contains(" ro,"), "{line}");
    });
    t.nothing_left();
}

#[test]
fn the_readonly_root() {
    requires!(root);
    let t = Test::new("roroot");
    t.edit(|c| c["root"]["readonly"] = json!(true));
    assert_eq!(t.output("touch /x 2>/dev/null || echo ro; touch /dev/shm/x && echo rw"), "ro\nrw\n");
}

#[test]
fn masked_and_readonly_paths() {
    requires!(root);
    let t = Test::new("masked");
    fs::create_dir(t.rootfs.join("usr/secret")).unwrap();
    fs::write(t.rootfs.join("usr/secret/file"), "s").unwrap();
    fs::write(t.rootfs.join("usr/one"), "s").unwrap();
    t.edit(|c| {
        c["linux"]["maskedPaths"] = json!(["/usr/secret", "/usr/one", "/usr/not-there"]);
        c["linux"]["readonlyPaths"] = json!(["/usr", "/proc/sys"]);
    });
    // config-linux.md: a masked path cannot be read.
    let text = t.output(
        "ls /usr/secret | wc -l; wc -c < /usr/one; touch /usr/x 2>/dev/null || echo ro; \
                         echo x 2>/dev/null >/proc/sys/kernel/hostname || echo ro",
    );
    assert_eq!(text, "0\n0\nro\nro\n");
}

/// config-linux.md, Default Devices, and the links of runtime-linux.md.
#[test]
fn the_default_devices_and_links() {
    requires!(root);
    let t = Test::new("devices");
    let text = t.output(
        "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done; \
                         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done",
    );
    let expected = "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n\
                    /dev/tty 5:0 666\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    assert_eq!(text, expected);
}

#[test]
fn devices_with_mode_and_owner() {
    requires!(root);
    let t = Test::new("devowner");
    t.edit(|c| {
        c["linux"]["devices"] = json!([
            { "path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8 },
            { "path": "/dev/deep/fifo", "type": "p", "fileMode": 0o600 }
        ]);
        c["linux"]["resources"]["devices"].as_array_mut().unwrap()
            .push(json!({ "allow": true, "type": "c", "major": 1, "minor": 5, "access": "r" }));
    });
    let text =
        t.output("stat -c '%t:%T %a %u:%g' /dev/own; stat -c %F /dev/deep/fifo; head -c 2 /dev/own | wc -c");
    assert_eq!(text, "1:5 640 7:8\nfifo\n2\n");
}

#[test]
fn a_device_that_is_not_allowed_cannot_be_opened() {
    requires!(root);
    requires!(crate::harness::controller("devices"), "needs the v1 devices controller");
    let t = Test::new("devdenied");
    assert_eq!(t.output("mknod /dev/mem c 1 1 && head -c 1 /dev/mem 2>/dev/null || echo denied"), "denied\n");
}

#[test]
fn mount_points_that_are_missing_are_made() {
    requires!(root);
    let t = Test::new("made");
    t.add_mount(json!({ "destination": "/new/deep", "type": "tmpfs", "source": "x" }));
    t.add_mount(json!({ "destination": "/newfile", "source": "/etc/hostname", "options": ["bind"] }));
    t.run().ok();
    assert!(t.rootfs.join("new/deep").is_dir() && t.rootfs.join("newfile").is_file());
    assert_eq!(fs::metadata(t.rootfs.join("new")).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn the_cgroup_mount_shows_the_containers_own() {
    requires!(root);
    let t = Test::new("cgmount");
    t.add_mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }));
    t.edit(|c| c["linux"]["resources"]["pids"] = json!({ "limit": 77 }));
    let dir = if crate::harness::is_cgroup2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    assert_eq!(t.output(&format!("cat {dir}/pids.max; mkdir {dir}/x 2>/dev/null || echo ro")), "77\nro\n");
}

#[test]
fn no_pivot() {
    requires!(root);
    let t = Test::new("nopivot");
    t.sh("ls -d /bin /etc");
    assert_eq!(t.bundle_command("run", &["--no-pivot"]).go().ok().stdout(), "/bin\n/etc\n");
    t.nothing_left();
}

//! Whole layers: against GNU tar, umoci and overlayfs.

#![forbid(unsafe_code)]

use super::testing::{Scratch, filter, set, sh, told, unpack_into};
use super::{Unpacked, changes, decompress, pack_diff, settle, unpack};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// An overlay, unmounted when it is dropped.
struct Overlay<'a>(&'a Path);

impl Drop for Overlay<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Mounts the layers, the uppermost first, in a directory of the scratch.
fn mount<'a>(at: &'a Path, lowers: &[&Path], upper: Option<(&Path, &Path)>) -> Overlay<'a> {
    let lowers: Vec<_> = lowers.iter().map(|lower| lower.display().to_string()).collect();
    let mut options = format!("redirect_dir=off,metacopy=off,index=off,lowerdir={}", lowers.join(":"));
    if let Some((upper, work)) = upper {
        options = format!("{options},upperdir={},workdir={}", upper.display(), work.display());
    }
    let options = std::ffi::CString::new(options).expect("no NUL");
    rustix::mount::mount(
        "overlay",
        at,
        "overlay",
        rustix::mount::MountFlags::empty(),
        Some(options.as_c_str()),
    )
    .expect("these tests need root and overlayfs");
    Overlay(at)
}

/// Settles layers from the lowest on; they are the uppermost first.
fn settle_all(layers: &[&Path], unpacked: &[Unpacked]) {
    let open: Vec<File> = layers.iter().map(|layer| File::open(layer).expect("open")).collect();
    let fds: Vec<_> = open.iter().map(|file| file.as_fd()).collect();
    for n in (0..layers.len()).rev() {
        settle(fds[n], &fds[n + 1..], &unpacked[n]).expect("settle");
    }
}

/// Fails with the lines that only one side has.
fn assert_same(ours: &[String], theirs: &[String], what: &str) {
    let only = |a: &[String], b: &[String], sign: char| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{sign} {line}")).collect()
    };
    let differences = [only(theirs, ours, '-'), only(ours, theirs, '+')].concat();
    assert!(differences.is_empty(), "{what}\n{}", differences.join("\n"));
    assert_eq!(ours.len(), theirs.len(), "{what}");
}

/// A tree as the container sees it: how many links a file has, overlayfs tells of the layer.
fn seen(root: &Path) -> Vec<String> {
    told(root).into_iter().map(|line| line.replace(" trusted.overlay.opaque=\"y\"", "")).collect()
}

const BASE: &str = "
    mkdir -p bin etc/conf.d usr/share/doc tmp var/cache; chmod 1777 tmp; chown 33:44 var/cache; chmod 2750 var/cache
    printf '#!/bin/sh\n' >bin/su; chmod 4755 bin/su; ln bin/su bin/sudo; ln -s su bin/login; ln -s /etc/passwd etc/p
    mkfifo var/fifo; mknod var/null c 1 3; mknod var/loop b 7 0; chown 70000:80000 var/fifo; chmod 606 var/fifo
    cp bin/su bin/ping; setcap cap_net_raw+ep bin/ping
    truncate -s 5M var/sparse; printf x | dd of=var/sparse bs=1 seek=3000000 conv=notrunc status=none
    printf y | dd of=var/sparse bs=1 seek=4500000 conv=notrunc status=none
    n=0; while [ $n -lt 40 ]; do printf z | dd of=var/holes bs=1 seek=$((n * 65536)) conv=notrunc status=none; n=$((n + 1)); done
    l=$(printf '%0200d' 0); mkdir -p usr/$l/$l; echo deep >usr/$l/$l/$l; ln -s /$l/$l/$l usr/long
    touch -d '1930-05-06 07:08:09.123456789 UTC' etc/p -h; touch -d '2300-01-01 UTC' bin/su
    echo name >'etc/with space and ü'; touch -d '2001-02-03 04:05:06.7 UTC' etc/conf.d tmp . usr";

fn base(dir: &Path) {
    sh(dir, BASE);
    set(&dir.join("etc/conf.d"), "user.name", b"two\nlines");
    set(&dir.join("bin/ping"), "user.empty", b"");
}

#[test]
fn a_tree_of_gnu_tar_in_each_of_its_formats_is_as_gnu_tar_makes_it() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    base(&source);
    let expected = told(&source);
    for (n, (format, compression)) in [
        ("--format=gnu --sparse", "gzip"),
        ("--format=posix --xattrs --xattrs-include=*", "zstd"),
        ("--format=posix --sparse --sparse-version=0.0 --xattrs --xattrs-include=*", "bzip2"),
        ("--format=posix --sparse --sparse-version=0.1 --xattrs --xattrs-include=*", "xz"),
        ("--format=posix --sparse --sparse-version=1.0 --xattrs --xattrs-include=*", "cat"),
    ]
    .into_iter()
    .enumerate()
    {
        sh(&scratch.0, &format!("tar {format} -C source -cf {n}.tar ."));
        let archive = fs::read(scratch.0.join(format!("{n}.tar"))).expect("read");
        let compressed = if compression == "cat" { archive } else { filter(compression, &["-c"], &archive) };
        let layer = scratch.dir(&format!("layer{n}"));
        let (_, stream) = decompress(&compressed[..]).expect("decompress");
        let open = File::open(&layer).expect("open");
        let unpacked = unpack(stream, open.as_fd(), &super::UnpackOptions::default()).expect("unpack");
        assert_eq!((unpacked.implied, unpacked.deferred), (vec![], vec![]), "{format}");
        sh(
            &scratch.0,
            &format!(
                "mkdir gnu{n}; tar --xattrs --xattrs-include='*' --numeric-owner -C gnu{n} -xpf {n}.tar"
            ),
        );
        assert_same(&told(&layer), &told(&scratch.dir(&format!("gnu{n}"))), format);
        if format.contains("posix") {
            assert_same(&told(&layer), &expected, format);
        }
        if format.contains("--sparse") {
            let blocks = sh(&layer, "stat -c %b var/sparse");
            assert!(blocks.trim().parse::<u64>().expect("a number") < 200, "{format}: {blocks}");
        }
        // What others see of it, by another's eyes.
        let find = "find . -printf '%p %m %U %G %s %y %l %n %T@\\n' | sort";
        assert_eq!(sh(&layer, find), sh(&scratch.dir(&format!("gnu{n}")), find), "{format}");
        let same = sh(
            &scratch.0,
            &format!(
                "diff -r --no-dereference source layer{n} 2>&1 | grep -v 'special file\\|fifo\\|block\\|character' || true"
            ),
        );
        assert_eq!(same, "", "{format}");
    }
}

#[test]
fn layers_are_seen_as_they_were_made_and_as_umoci_makes_them() {
    let scratch = Scratch::new();
    let at = scratch.dir("merged");
    let low = scratch.dir("base");
    base(&low);
    let upper = scratch.dir("upper1");
    {
        let _overlay = mount(&at, &[&low], Some((&upper, &scratch.dir("work1"))));
        sh(
            &at,
            "rm bin/login; rm -r usr/share; mkdir usr/share; echo new >usr/share/file; echo more >>bin/ping
             setcap cap_sys_time+ep bin/ping; chmod 700 etc; mv etc/p etc/moved; echo x >tmp/file; ln tmp/file tmp/link
             chmod 711 .; rm var/null; mkdir var/null; touch -d '2020-01-01 UTC' var/null usr/share tmp etc .; mkdir -p a/b/c",
        );
    }
    let upper2 = scratch.dir("upper2");
    // As whoever makes an upper directory must: the mode of the root is that of the uppermost one.
    sh(&upper2, "chmod 711 .");
    {
        let _overlay = mount(&at, &[&upper, &low], Some((&upper2, &scratch.dir("work2"))));
        sh(
            &at,
            "rm tmp/file; echo back >bin/login; rm -r a/b; echo file >a/b; rmdir var/null; chmod 701 etc",
        );
        set(&at.join("etc"), "user.z", b"1");
        sh(&scratch.0, "cp -a merged expected");
    }
    let expected = {
        let _overlay = mount(&at, &[&upper2, &upper, &low], None);
        let found = changes(
            File::open(&upper2).expect("open").as_fd(),
            &[File::open(&upper).expect("open").as_fd(), File::open(&low).expect("open").as_fd()],
            &[],
        );
        let found: Vec<String> = found
            .expect("changes")
            .iter()
            .map(|change| format!("{} {}", change.kind.letter(), change.path.display()))
            .collect();
        assert_eq!(
            found,
            [
                "C /a",
                "C /a/b",
                "C /bin",
                "A /bin/login",
                "C /etc",
                "C /tmp",
                "D /tmp/file",
                "C /var",
                "D /var/null"
            ]
        );
        seen(&at)
    };
    // Each upper directory becomes an archive, and the archives become layers.
    let trees = [&upper2, &upper, &low];
    let open: Vec<File> = trees.iter().map(|tree| File::open(tree).expect("open")).collect();
    let fds: Vec<_> = open.iter().map(|file| file.as_fd()).collect();
    let (mut layers, mut unpacked): (Vec<PathBuf>, Vec<Unpacked>) = (Vec::new(), Vec::new());
    for n in 0..3 {
        let mut archive = Vec::new();
        pack_diff(fds[n], &fds[n + 1..], &[], &mut archive).expect("pack");
        fs::write(scratch.0.join(format!("{n}.tar")), &archive).expect("write");
        let layer = scratch.dir(&format!("layer{n}"));
        unpacked.push(unpack_into(&archive, &layer).expect("unpack"));
        layers.push(layer);
    }
    let layers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    settle_all(&layers, &unpacked);
    {
        let _overlay = mount(&at, &layers, None);
        let times = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| !line.starts_with("/ ")).cloned().collect()
        };
        assert_same(&times(&seen(&at)), &times(&expected), "packed and unpacked");
        assert!(seen(&at)[0].starts_with("/ 40711 0:0 "));
        assert_eq!(sh(&at, "getcap bin/ping").trim(), "bin/ping cap_sys_time=ep");
    }
    match std::process::Command::new("umoci").arg("--version").output() {
        Err(e) => println!("not compared with umoci, which is not there: {e}"),
        Ok(_) => umoci(&scratch, &at, &layers),
    }
}

/// The same layers as an image, unpacked by umoci.
fn umoci(scratch: &Scratch, at: &Path, layers: &[&Path]) {
    sh(
        &scratch.0,
        "umoci init --layout image; umoci new --image image:x
         for n in 2 1 0; do umoci raw add-layer --image image:x $n.tar; done; umoci raw unpack --image image:x rootfs",
    );
    let _overlay = mount(at, layers, None);
    // It does not keep the time of a directory in which it makes or removes something later.
    let find = "find . ! -type d -printf '%p %m %U %G %s %y %l %T@\\n' | sort
                find . -mindepth 1 -type d -printf '%p %m %U %G %y\\n' | sort";
    let lines = |dir: &Path| -> Vec<String> {
        // Its nanoseconds since 1970 end in 2262.
        sh(dir, find).lines().filter(|line| !line.starts_with("./bin/su")).map(str::to_owned).collect()
    };
    assert_same(&lines(at), &lines(&scratch.dir("rootfs")), "umoci");
}

#[test]
fn implied_directories_and_links_across_layers_are_seen_as_if_each_layer_came_on_the_last() {
    let scratch = Scratch::new();
    base(&scratch.dir("source"));
    sh(
        &scratch.0,
        "tar -C source --xattrs --xattrs-include='*' --format=posix -cf base.tar .
         mkdir work; cp -a source/. work; cd work; ln bin/ping etc/conf.d/ping; ln usr/long usr/share/doc/long
         echo 1 >tmp/file; echo 2 >var/cache/file
         touch -d '2001-02-03 04:05:06.7 UTC' etc/conf.d tmp; touch -r ../source/var/cache var/cache; touch -r ../source/usr/share/doc usr/share/doc
         tar --xattrs --xattrs-include='*' --format=posix -cf ../both.tar bin/ping etc/conf.d/ping usr/long usr/share/doc/long tmp/file var/cache/file
         tar --delete -f ../both.tar bin/ping usr/long",
    );
    let mut unpacked = Vec::new();
    let layers = [scratch.dir("top"), scratch.dir("base")];
    for (layer, archive) in layers.iter().zip(["both.tar", "base.tar"]) {
        let mut bytes = Vec::new();
        File::open(scratch.0.join(archive)).expect("open").read_to_end(&mut bytes).expect("read");
        unpacked.push(unpack_into(&bytes, layer).expect("unpack"));
    }
    assert_eq!(unpacked[0].deferred.len(), 2);
    let layers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    settle_all(&layers, &unpacked);
    let at = scratch.dir("merged");
    let _overlay = mount(&at, &layers, None);
    // A third name of a file stays with the one below: overlayfs breaks it off when it copies up.
    let links = |lines: Vec<String>| -> Vec<String> {
        lines
            .into_iter()
            .map(|line| line.split(' ').filter(|word| *word != "links").collect::<Vec<_>>().join(" "))
            .filter(|line| !line.contains("conf.d ping"))
            .collect()
    };
    assert_same(&links(seen(&at)), &links(told(&scratch.0.join("work"))), "on the layer below");
}

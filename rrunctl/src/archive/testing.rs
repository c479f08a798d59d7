//! What the tests of this module share: scratch directories, archives made by hand, and a tree told in lines.

#![forbid(unsafe_code)]

use super::{UnpackOptions, Unpacked, pax, unpack};
use crate::error::Result;
use crate::home;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tar::Header;

/// A directory of a test's own; gone with the test.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rrunctl-archive-{}", home::unique().expect("random")));
        fs::create_dir(&path).expect("mkdir");
        Self(path)
    }

    /// A directory in it, made if it is not there.
    pub(super) fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::DirBuilder::new().recursive(true).create(&path).expect("mkdir");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = home::remove_tree(&self.0);
    }
}

/// An archive, header by header.
#[derive(Default, Clone)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    pub(super) fn header(typ: u8, name: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkflag = [typ];
        header.set_mode(if typ == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        header
    }

    pub(super) fn raw(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, name: &str, data: &str) -> Self {
        self.raw(Self::header(b'0', name, data.len() as u64), data.as_bytes())
    }

    pub(super) fn dir(self, name: &str, mode: u32) -> Self {
        let mut header = Self::header(b'5', name, 0);
        header.set_mode(mode);
        self.raw(header, b"")
    }

    pub(super) fn link(self, typ: u8, name: &str, to: &str) -> Self {
        let mut header = Self::header(typ, name, 0);
        header.as_old_mut().linkname[..to.len()].copy_from_slice(to.as_bytes());
        self.raw(header, b"")
    }

    pub(super) fn symlink(self, name: &str, to: &str) -> Self {
        self.link(b'2', name, to)
    }

    pub(super) fn hard_link(self, name: &str, to: &str) -> Self {
        self.link(b'1', name, to)
    }

    pub(super) fn device(self, typ: u8, name: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(typ, name, 0);
        header.set_device_major(major).expect("a GNU header has it");
        header.set_device_minor(minor).expect("a GNU header has it");
        self.raw(header, b"")
    }

    /// A PAX header for what comes next.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(b'x', records)
    }

    pub(super) fn extended(self, typ: u8, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        records.iter().for_each(|(key, value)| pax::record(&mut text, key.as_bytes(), value));
        self.raw(Self::header(typ, "PaxHeaders/x", text.len() as u64), &text)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// Unpacks it into `dir`.
    pub(super) fn unpack(self, dir: &Path) -> Result<Unpacked> {
        unpack_into(&self.end(), dir)
    }
}

pub(super) fn unpack_into(bytes: &[u8], dir: &Path) -> Result<Unpacked> {
    unpack(bytes, File::open(dir).expect("open").as_fd(), &UnpackOptions::default())
}

/// Gives `bytes` to a program and takes what it writes.
pub(super) fn filter(program: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("these tests need {program}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).expect("it reads all"));
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{program}: {}", output.status);
        output.stdout
    })
}

/// Runs a script of the shell.
pub(super) fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).current_dir(dir).output().expect("sh");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Sets an attribute of a file, or of a symbolic link itself.
pub(super) fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).expect("lsetxattr");
}

/// A tree in lines: name, type, mode, owner, time, size, links, device, where a link leads, attributes, and content.
pub(super) fn told(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    tell(root, root, &mut lines);
    lines
}

fn tell(root: &Path, path: &Path, lines: &mut Vec<String>) {
    let meta = fs::symlink_metadata(path).expect("lstat");
    let typ = meta.file_type();
    let mut line = format!("/{}", path.strip_prefix(root).expect("below").display());
    let _ = write!(
        line,
        " {:o} {}:{} {}.{:09}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    if typ.is_file() {
        let _ = write!(line, " {} bytes {} links", meta.len(), meta.nlink());
        let _ = write!(line, " {}", crate::digest::Digest::of(&fs::read(path).expect("read")).short());
    } else if typ.is_symlink() {
        let _ = write!(line, " -> {}", fs::read_link(path).expect("readlink").display());
    } else if typ.is_char_device() || typ.is_block_device() {
        let _ = write!(line, " device {}", meta.rdev());
    }
    let mut list = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut list[..]).expect("llistxattr");
    let mut names: Vec<&[u8]> = list[..length].split(|&c| c == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    for name in names {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("lgetxattr");
        let _ = write!(
            line,
            " {}={:?}",
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(&value[..length])
        );
    }
    lines.push(line);
    if typ.is_dir() {
        let mut names: Vec<PathBuf> =
            fs::read_dir(path).expect("readdir").map(|e| e.expect("readdir").path()).collect();
        names.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        names.iter().for_each(|path| tell(root, path, lines));
    }
}

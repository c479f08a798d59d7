//! The container's pseudo-terminal and its /dev/console (CVE-2025-52565).

#![forbid(unsafe_code)]

use super::legacy::unavailable;
use super::resolve::{self, Links};
use super::tree::{self, fault, refuse};
use super::{Rootfs, devices};
use crate::launch::{Fault, Step};
use crate::plan::rootfs::Jail;
use crate::sys::{Named, SysError};
use rustix::fs::{FileType, Mode, OFlags, fstat, fstatfs, openat};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

/// DEVPTS_SUPER_MAGIC of linux/magic.h.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// A pseudo-terminal of the container's devpts.
#[derive(Debug)]
pub struct Console {
    /// For the caller's console socket.
    pub master: OwnedFd,
    /// For the container's standard streams.
    pub slave: OwnedFd,
    /// As `/dev/pts/0`.
    pub name: CString,
}

impl Rootfs {
    /// Opens a pseudo-terminal and puts it on /dev/console; `size` is rows and columns.
    ///
    /// # Errors
    /// [`Step::Console`]; without a devpts at /dev/pts there is no terminal.
    pub fn console(&self, size: Option<(u16, u16)>) -> Result<Console, Fault> {
        self.open_console(size).map_err(|fault| Fault { step: Step::Console, index: 0, ..fault })
    }

    fn open_console(&self, size: Option<(u16, u16)>) -> Result<Console, Fault> {
        let console = open_pty(&self.root, size)?;
        // Without a mount namespace the mount would be the host's.
        if self.jail != Jail::Chroot {
            self.put_on_console(&console.slave)?;
        }
        Ok(console)
    }

    fn put_on_console(&self, slave: &OwnedFd) -> Result<(), Fault> {
        let (dir, name) = self.parent_of(c"/dev/console")?;
        let at = if self.is_own(&dir)? {
            resolve::make_file(&dir, &name)
        } else {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&dir, &name, flags, Mode::empty()).named("openat")
        }
        .map_err(|e| fault(e, "/dev/console"))?;
        let st = fstat(&at).named("fstat").map_err(|e| fault(e, ""))?;
        if matches!(FileType::from_raw_mode(st.st_mode), FileType::Symlink | FileType::Directory) {
            return Err(fault(SysError { call: "openat", errno: Errno::LOOP }, "/dev/console is no file"));
        }
        match tree::clone_fd(slave.as_fd(), false) {
            Ok(clone) => tree::attach(clone.as_fd(), at.as_fd()),
            Err(e) => match self.proc() {
                Some(proc) if unavailable(e.errno) => proc.bind(slave.as_fd(), false, at.as_fd()),
                _ => Err(e),
            },
        }
        .map_err(|e| fault(e, "/dev/console"))
    }
}

/// Opens a pseudo-terminal for a further process, from the root that setns(2) has given this one; `size` is
/// rows and columns.
///
/// # Errors
/// As [`Rootfs::console`].
pub fn exec_console(size: Option<(u16, u16)>) -> Result<Console, Fault> {
    let open = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty()).named("open").map_err(|e| fault(e, "/"))?;
        open_pty(&root, size)
    };
    open().map_err(|fault| Fault { step: Step::Console, index: 0, ..fault })
}

fn open_pty(root: &OwnedFd, size: Option<(u16, u16)>) -> Result<Console, Fault> {
    let words = "process.terminal needs a devpts mounted on /dev/pts";
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let pts = resolve::open(root.as_fd(), c"/dev/pts", flags, Links::Refuse).map_err(|e| fault(e, words))?;
    let st = fstatfs(&pts).named("fstatfs").map_err(|e| fault(e, ""))?;
    // In a devpts every name is the kernel's.
    if st.f_type as u64 != DEVPTS_MAGIC {
        return Err(refuse(Errno::NODEV, words));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master = openat(&pts, "ptmx", flags, Mode::empty()).named("openat").map_err(|e| fault(e, "ptmx"))?;
    if !devices::is_char(&master, 5, 2).map_err(|e| fault(e, ""))? {
        return Err(refuse(Errno::NODEV, "/dev/pts/ptmx is not the device 5:2"));
    }
    unlockpt(&master).named("ioctl TIOCSPTLCK").map_err(|e| fault(e, ""))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).named("ioctl TIOCGPTPEER").map_err(|e| fault(e, ""))?;
    let name = ptsname(&master, Vec::new()).named("ioctl TIOCGPTN").map_err(|e| fault(e, ""))?;
    if let Some((rows, columns)) = size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).named("ioctl TIOCSWINSZ").map_err(|e| fault(e, ""))?;
    }
    Ok(Console { master, slave, name })
}

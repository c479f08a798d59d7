//! Programs that the kernel asks whether a cgroup's processes may use a device (bpf(2), cgroup v2).

#![allow(unsafe_code)]

use super::{Result, check};
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::ffi::CStr;

/// One instruction as the kernel reads it, struct bpf_insn.
pub type Instruction = [u8; 8];

// Commands and values of <linux/bpf.h>.
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// Length of a program's name with its NUL, `BPF_OBJ_NAME_LEN`.
pub const NAME: usize = 16;

/// The kernel's limit on programs of one kind on one cgroup, `BPF_CGROUP_MAX_PROGS`.
const MOST: usize = 64;

/// `union bpf_attr` as 32-bit words. It is longer than what any command here uses: kernels from 6.17 write the
/// `revision` of a query even past the size that they are given.
type Attr = [u32; 40];

fn bpf(command: libc::c_long, attr: &mut Attr) -> Result<libc::c_long> {
    // SAFETY: `attr` is live, of the size given, and each pointer that a caller puts into it is to memory that
    // lives until the call returns and is as long as the attribute beside it says.
    check("bpf", unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of::<Attr>()) })
}

fn new_fd(number: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made this fd, close-on-exec, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(number as RawFd) }
}

/// Puts an address into two words, in the order in which the machine has the halves of a u64.
fn pointer<T: ?Sized>(attr: &mut Attr, at: usize, to: *const T) {
    let bytes = (to.cast::<u8>().addr() as u64).to_ne_bytes();
    for (word, half) in attr.iter_mut().skip(at).zip(bytes.chunks_exact(4)) {
        *word = half.try_into().map_or(0, u32::from_ne_bytes);
    }
}

fn raw(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

/// Loads a program of the type for devices (Linux 4.15).
///
/// # Errors
/// EPERM without privilege in the initial user namespace, or on kernels before 5.11 over RLIMIT_MEMLOCK; EINVAL or
/// EACCES if the verifier refuses the program.
pub fn load_device_program(program: &[Instruction], name: &CStr) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attr: Attr = [0; 40];
    (attr[0], attr[1]) = (PROG_TYPE_CGROUP_DEVICE, u32::try_from(program.len()).unwrap_or(u32::MAX));
    pointer(&mut attr, 2, program.as_ptr());
    pointer(&mut attr, 4, license.as_ptr());
    // Words 6 to 9 are the verifier's log, 10 the kernel's version, 11 flags, 12 to 15 the name.
    let name = name.to_bytes();
    for (word, part) in attr[12..16].iter_mut().zip(name.chunks(4)) {
        let mut bytes = [0; 4];
        bytes[..part.len()].copy_from_slice(part);
        *word = u32::from_ne_bytes(bytes);
    }
    let mut rounds = 0;
    loop {
        match bpf(PROG_LOAD, &mut attr) {
            // The verifier gives up for any signal that is pending.
            Err(e) if e.errno == Errno::AGAIN && rounds < 30 => rounds += 1,
            result => return result.map(new_fd),
        }
    }
}

/// Attaches a program beside those that are there, or in the place of `replaced` at the same instant (Linux 5.6).
///
/// # Errors
/// EINVAL where the kernel cannot replace; EPERM if a cgroup above takes no further programs.
pub fn attach(cgroup: impl AsFd, program: impl AsFd, replaced: Option<&OwnedFd>) -> Result<()> {
    let mut attr: Attr = [0; 40];
    attr[..4].copy_from_slice(&[raw(cgroup), raw(program), CGROUP_DEVICE, ALLOW_MULTI]);
    if let Some(old) = replaced {
        (attr[3], attr[4]) = (ALLOW_MULTI | REPLACE, raw(old));
    }
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches a program.
///
/// # Errors
/// ENOENT if it is not attached.
pub fn detach(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    let mut attr: Attr = [0; 40];
    attr[..3].copy_from_slice(&[raw(cgroup), raw(program), CGROUP_DEVICE]);
    bpf(PROG_DETACH, &mut attr).map(drop)
}

/// The ids of the programs attached to this very cgroup.
///
/// # Errors
/// EPERM without privilege.
pub fn attached(cgroup: impl AsFd) -> Result<Vec<u32>> {
    let mut ids = [0_u32; MOST];
    let mut attr: Attr = [0; 40];
    attr[..2].copy_from_slice(&[raw(cgroup), CGROUP_DEVICE]);
    pointer(&mut attr, 4, ids.as_mut_ptr());
    attr[6] = MOST as u32;
    bpf(PROG_QUERY, &mut attr)?;
    Ok(ids.into_iter().take(attr[6] as usize).collect())
}

/// Opens a program by its id.
///
/// # Errors
/// ENOENT if it is gone; EPERM or EACCES without privilege.
pub fn by_id(id: u32) -> Result<OwnedFd> {
    let mut attr: Attr = [0; 40];
    attr[0] = id;
    bpf(PROG_GET_FD_BY_ID, &mut attr).map(new_fd)
}

/// The name of a program, filled up with NUL.
///
/// # Errors
/// Those of bpf(2).
pub fn name_of(program: impl AsFd) -> Result<[u8; NAME]> {
    // struct bpf_prog_info up to and with its name, which begins at byte 64.
    let mut info = [0_u8; 80];
    let mut attr: Attr = [0; 40];
    (attr[0], attr[1]) = (raw(program), info.len() as u32);
    pointer(&mut attr, 2, info.as_mut_ptr());
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    let mut name = [0; NAME];
    name.copy_from_slice(&info[64..]);
    Ok(name)
}

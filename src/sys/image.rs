//! The memory that this process's program lies in.

#![allow(unsafe_code)]

use super::{Result, check, task};
use crate::error::Error;
use crate::file;
use rustix::fd::{AsFd, AsRawFd as _};
use rustix::io::Errno;

/// One mapping of the program's file, a line of /proc/self/maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    protection: i32,
}

/// How much is there twice while it is copied.
const PIECE: usize = 512 << 10;

/// `struct prctl_mm_map` of <linux/prctl.h>.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryMap {
    /// start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end.
    places: [u64; 11],
    auxv: *const u64,
    auxv_size: u32,
    exe_fd: u32,
}

impl MemoryMap {
    /// This process's own, which a child has too.
    ///
    /// # Errors
    /// /proc/self/stat cannot be read.
    pub fn read() -> crate::error::Result<Self> {
        let stat = file::read("/proc/self/stat")?;
        let places = places(&stat).ok_or_else(|| Error::sys("read /proc/self/stat", Errno::INVAL))?;
        Ok(Self { places, auxv: std::ptr::null(), auxv_size: 0, exe_fd: u32::MAX })
    }

    /// As the kernel takes it, with the heap as it ends now.
    pub(super) fn with(&self, exe: impl AsFd) -> [u8; size_of::<Self>()] {
        let mut places = self.places;
        // SAFETY: no memory is passed; without an argument brk(2) tells where the heap ends.
        places[5] = unsafe { libc::syscall(libc::SYS_brk, 0) } as u64;
        let map = Self { places, exe_fd: exe.as_fd().as_raw_fd() as u32, ..*self };
        // SAFETY: twelve words and two halves, without padding.
        unsafe { std::mem::transmute(map) }
    }
}

/// Whether the kernel lets this process have another /proc/self/exe: it is configured to (CONFIG_CHECKPOINT_RESTORE),
/// and there is the capability, as in a user namespace that this process has made.
pub fn replaceable(new_user_namespace: bool) -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    const CHECKPOINT_RESTORE: u64 = 1 << 40;
    let mut size = 0_u32;
    // SAFETY: the kernel writes one u32.
    let known = unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_MM, libc::PR_SET_MM_MAP_SIZE, &raw mut size, 0, 0)
    };
    let allowed = || task::capget().is_ok_and(|sets| sets.effective & (SYS_ADMIN | CHECKPOINT_RESTORE) != 0);
    known == 0 && size as usize == size_of::<MemoryMap>() && (new_user_namespace || allowed())
}

/// Where the program's file is mapped, and how many bytes: one piece, with what is zero at its end.
pub(super) fn extent() -> (usize, usize) {
    unsafe extern "C" {
        static __ehdr_start: u8;
        static _end: u8;
    }
    // The linker defines both.
    let start = &raw const __ehdr_start as usize;
    (start, &raw const _end as usize - start)
}

/// Puts a copy in private memory in the place of every page of the program's file, and `exe` in the place of
/// /proc/self/exe: nothing of the file can be reached through this process then, nor through its children.
///
/// The kernel replaces mm->exe_file only once nothing of it is mapped (`replace_mm_exe_file`).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE in this user namespace, EINVAL of a kernel without
/// CONFIG_CHECKPOINT_RESTORE (prctl(2), PR_SET_MM_MAP). The memory is as good as before then.
pub fn detach(exe: impl AsFd) -> crate::error::Result<()> {
    let maps = file::read("/proc/self/maps")?;
    let mappings = mappings(&maps, copy as *const () as usize)
        .ok_or_else(|| Error::sys("read /proc/self/maps", Errno::INVAL))?;
    let map = MemoryMap::read()?;
    for Mapping { start, end, protection } in mappings {
        for start in (start..end).step_by(PIECE) {
            copy(Mapping { start, end: end.min(start + PIECE), protection })?;
        }
    }
    let map = map.with(exe);
    // SAFETY: `map` lives until the call returns, and without auxv the kernel reads no other memory.
    let set = unsafe {
        let (set, map, size) = (libc::PR_SET_MM_MAP, map.as_ptr(), map.len());
        libc::syscall(libc::SYS_prctl, libc::PR_SET_MM, set, map, size, 0)
    };
    Ok(check("prctl(PR_SET_MM_MAP)", set).map(drop)?)
}

/// Replaces a mapping, or a part of one, by a copy of it.
fn copy(mapping: Mapping) -> Result<()> {
    let Mapping { start, end, protection } = mapping;
    let length = end - start;
    // SAFETY: rrun has one thread, and nothing is written to the mapping between the copying and mremap(2), which takes
    // the old pages away and puts the new ones there in one step: the code that runs here is the same before and after.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let none = std::ptr::null_mut::<u8>();
        let new =
            libc::syscall(libc::SYS_mmap, none, length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        let new = check("mmap", new)? as usize;
        std::ptr::copy_nonoverlapping(start as *const u8, new as *mut u8, length);
        check("mprotect", libc::syscall(libc::SYS_mprotect, new, length, protection))?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        check("mremap", libc::syscall(libc::SYS_mremap, new, length, length, flags, start)).map(drop)
    }
}

/// Those of the file that is mapped at this address. By what the lines themselves call it: what stat(2) does is not the
/// same everywhere (Btrfs, overlayfs).
fn mappings(maps: &str, address: usize) -> Option<Vec<Mapping>> {
    let lines: Option<Vec<_>> = maps.lines().map(mapping).collect();
    let lines = lines?;
    let (_, file) = lines.iter().find(|(m, _)| m.start <= address && address < m.end)?;
    Some(lines.iter().filter(|(_, other)| other == file).map(|(mapping, _)| *mapping).collect())
}

/// One line, and the device and inode in it.
fn mapping(line: &str) -> Option<(Mapping, [&str; 2])> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let file = [fields.nth(1)?, fields.next()?];
    let (start, end) = range.split_once('-')?;
    let bit = |letter, bit| if permissions.contains(letter) { bit } else { 0 };
    let protection = bit('r', libc::PROT_READ) | bit('w', libc::PROT_WRITE) | bit('x', libc::PROT_EXEC);
    let parse = |text| usize::from_str_radix(text, 16).ok();
    Some((Mapping { start: parse(start)?, end: parse(end)?, protection }, file))
}

/// What /proc/PID/stat tells of the memory (proc_pid_stat(5)), in the order of `struct prctl_mm_map`.
fn places(stat: &str) -> Option<[u64; 11]> {
    // Behind the name, which may hold anything, comes field 3.
    let fields: Vec<u64> =
        stat.rsplit_once(')')?.1.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let mut places = [0; 11];
    for (place, number) in places.iter_mut().zip([26, 27, 45, 46, 47, 47, 28, 48, 49, 50, 51]) {
        *place = field(number)?;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7fbabee00000-7fbabee90000 r--p 00000000 fe:00 4711                       /usr/bin/a b
7fbabee90000-7fbabf0ee000 r-xp 00090000 fe:00 4711                       /usr/bin/a b
7fbabf104000-7fbabf107000 rw-p 00302000 fe:00 4711                       /usr/bin/a b
7fbabf107000-7fbabf10d000 rw-p 00000000 00:00 0
7fff961a0000-7fff961c1000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn mappings_are_those_of_the_file() {
        let found = mappings(MAPS, 0x7fba_bee9_1000).unwrap();
        let (r, w, x) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
        let seen: Vec<_> = found.iter().map(|m| (m.start, m.end, m.protection)).collect();
        assert_eq!(
            seen,
            [
                (0x7fba_bee0_0000, 0x7fba_bee9_0000, r),
                (0x7fba_bee9_0000, 0x7fba_bf0e_e000, r | x),
                (0x7fba_bf10_4000, 0x7fba_bf10_7000, r | w)
            ]
        );
        assert_eq!(mappings(MAPS, 1), None);
        assert_eq!(mappings("7fff961a0000 rw-p\n", 0x7fff_961a_0000), None);
    }

    #[test]
    fn places_follow_the_last_parenthesis() {
        let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = format!("12 (a) b) R {}\n", fields.join(" "));
        assert_eq!(places(&stat), Some([26, 27, 45, 46, 47, 47, 28, 48, 49, 50, 51]));
        assert_eq!(places("12 (a) R 1 2"), None);
    }

    #[test]
    fn of_this_process_both_are_found() {
        let here = of_this_process_both_are_found as *const () as usize;
        let found = mappings(&file::read("/proc/self/maps").unwrap(), here).unwrap();
        assert!(found.len() > 2, "{found:?}");
        assert!(found.iter().any(|m| m.start <= here && here < m.end && m.protection & libc::PROT_EXEC != 0));
        let [start_code, end_code, ..] = places(&file::read("/proc/self/stat").unwrap()).unwrap();
        assert!(start_code as usize <= here && here < end_code as usize);
    }
}

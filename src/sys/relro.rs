//! What the loader alone has to write (pointers to functions, tables of methods) made read-only. In a static program
//! that is left to its libc: glibc does it, musl does not.

#![allow(unsafe_code)]

use super::{Result, check};
use std::ffi::c_void;
use std::ops::Range;

/// Makes it read-only; done first of all.
///
/// # Errors
/// Those of mprotect(2).
pub fn protect() -> Result<()> {
    let pages = pages();
    // SAFETY: nothing but the relocations, which are done, writes to these pages (PT_GNU_RELRO).
    check("mprotect", unsafe {
        libc::mprotect(pages.start as *mut c_void, pages.len(), libc::PROT_READ).into()
    })?;
    Ok(())
}

/// The whole pages of PT_GNU_RELRO; none in a program without it.
fn pages() -> Range<usize> {
    let mut found = 0..0;
    // SAFETY: `note` runs before this returns, and `found` is what it takes its argument for.
    unsafe { libc::dl_iterate_phdr(Some(note), std::ptr::from_mut(&mut found).cast()) };
    found
}

/// The first that is named is the program itself.
unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _size: libc::size_t, found: *mut c_void) -> i32 {
    // SAFETY: the caller gives an object of its own, and what `pages` gave it.
    let (info, found) = unsafe { (&*info, &mut *found.cast::<Range<usize>>()) };
    // SAFETY: the program's headers, which are mapped as long as it runs.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    if let Some(header) = headers.iter().find(|header| header.p_type == libc::PT_GNU_RELRO) {
        // SAFETY: it only tells.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        let end = start.wrapping_add(header.p_memsz as usize);
        // What shares its last page is written to.
        *found = start & !(page - 1)..end & !(page - 1);
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_of_it_can_be_written() {
        let pages = pages();
        assert!(!pages.is_empty());
        protect().expect("mprotect");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let mut protected = 0;
        for line in maps.lines() {
            let (range, rest) = line.split_once(' ').expect("two fields");
            let (start, end) = range.split_once('-').expect("a range");
            let of = |hex| usize::from_str_radix(hex, 16).expect("hexadecimal");
            let (start, end) = (of(start).max(pages.start), of(end).min(pages.end));
            if start < end {
                assert!(rest.starts_with("r--p"), "{line}");
                protected += end - start;
            }
        }
        assert_eq!(protected, pages.len());
    }
}

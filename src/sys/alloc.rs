//! Memory, of which there may be more in a moment.
//!
//! It is dlmalloc's, which asks the kernel for 64 KiB at a time: musl's own allocator maps and unmaps single pages, each
//! an area more that clone copies and a fault more.
//!
//! An allocation can fail in the middle of anything; Rust's answer to that is to abort with words of its own. Here it is
//! asked for once more, as for any call that may pass, and then it is an error like others: one line that names the call.

#![allow(unsafe_code)]

use dlmalloc::GlobalDlmalloc as System;
use std::alloc::{GlobalAlloc, Layout};

struct Retried;

#[global_allocator]
static ALLOCATOR: Retried = Retried;

// SAFETY: every call is `System`'s, with the caller's arguments; what is returned is what it returned, never null.
unsafe impl GlobalAlloc for Retried {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        retried(|| unsafe { System.alloc(layout) })
    }
    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        retried(|| unsafe { System.alloc_zeroed(layout) })
    }
    #[inline(never)]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise; a failed realloc leaves the old memory as it was.
        retried(|| unsafe { System.realloc(ptr, layout, new_size) })
    }
    #[inline(never)]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn retried(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let first = allocate();
    if !first.is_null() {
        return first;
    }
    // SAFETY: it takes nothing.
    unsafe { libc::sched_yield() };
    let second = allocate();
    if second.is_null() {
        out_of_memory()
    }
    second
}

/// Nothing can be built any more, an error neither.
#[cold]
fn out_of_memory() -> ! {
    const WORDS: &[u8] = b"error: mmap: cannot allocate memory\n";
    // SAFETY: the bytes are live, and 2 is standard error, which main has made sure to be open.
    unsafe { libc::write(2, WORDS.as_ptr().cast(), WORDS.len()) };
    super::launch::exit_now(1)
}

#[cfg(test)]
mod tests {
    use super::retried;
    use std::cell::Cell;

    #[test]
    fn what_fails_once_is_asked_for_again() {
        let calls = Cell::new(0);
        let found = retried(|| {
            calls.set(calls.get() + 1);
            if calls.get() == 1 { std::ptr::null_mut() } else { std::ptr::dangling_mut() }
        });
        assert_eq!((calls.get(), found.is_null()), (2, false));
    }
}

//! `rrunctl`: see the library's page.

#![forbid(unsafe_code)]

/// musl's allocator maps and unmaps pages singly: a tenth of the time of a `run`. rrunmon has it all the same, as it gives
/// back what an idle monitor does not need.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> std::process::ExitCode {
    rrunctl::cli::main()
}

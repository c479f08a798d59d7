//! `rrunctl`: see the library's page.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rrunctl::cli::main()
}

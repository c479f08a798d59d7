//! `hooks`: programs to run at points of the lifecycle, ready for execve(2).

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::time::Duration;

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute path of the program.
    pub path: CString,
    /// Arguments, the first being the program's name.
    pub argv: Vec<CString>,
    /// The whole environment; empty means the default of the hook's kind.
    pub envp: Vec<CString>,
    /// When to kill it; `None` means never.
    pub timeout: Option<Duration>,
}

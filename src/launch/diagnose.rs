//! Why execve failed, in words: ENOENT of a file that exists is a missing interpreter, and ENOEXEC is
//! mostly the wrong architecture (runc #3237, podman #8174).

#![forbid(unsafe_code)]

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::ffi::{CStr, CString};

/// What is wrong with this program; empty if nothing shows.
pub fn program(path: &CStr) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else { return String::new() };
    let mut head = [0; 4096];
    let Ok(length) = rustix::io::read(&file, &mut head) else { return String::new() };
    explain(&head[..length], |interpreter| {
        CString::new(interpreter).is_ok_and(|path| rustix::fs::statat(CWD, path, AtFlags::empty()).is_ok())
    })
}

/// The words for a file that begins with `head`.
fn explain(head: &[u8], exists: impl Fn(&[u8]) -> bool) -> String {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or(line).trim_ascii();
        let interpreter = line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or(line);
        if !exists(interpreter) {
            let why = if interpreter.ends_with(b"\r") { ", the script has DOS line ends" } else { "" };
            return format!("its interpreter {:?} does not exist{why}", String::from_utf8_lossy(interpreter));
        }
        return String::new();
    }
    let Some(elf) = Elf::parse(head) else {
        return "it is neither an ELF file nor a script with a #! line".to_owned();
    };
    if elf.machine != native() {
        return format!("it is built for {}, this machine is {}", machine(elf.machine), machine(native()));
    }
    match elf.interpreter {
        Some(path) if !exists(path) => {
            format!("its dynamic loader {:?} does not exist", String::from_utf8_lossy(path))
        }
        _ => String::new(),
    }
}

struct Elf<'a> {
    machine: u16,
    interpreter: Option<&'a [u8]>,
}

impl<'a> Elf<'a> {
    /// Reads the header and PT_INTERP of elf(5), as far as `head` holds them.
    fn parse(head: &'a [u8]) -> Option<Self> {
        if !head.starts_with(b"\x7fELF") {
            return None;
        }
        let wide = *head.get(4)? == 2;
        let big = *head.get(5)? == 2;
        let number = |at: usize, size: usize| -> Option<u64> {
            let bytes = head.get(at..at.checked_add(size)?)?;
            let fold = |n: u64, byte: &u8| (n << 8) | u64::from(*byte);
            Some(if big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
        };
        let machine = u16::try_from(number(18, 2)?).ok()?;
        let (table, entry, count) =
            if wide { (number(32, 8)?, 56, number(56, 2)?) } else { (number(28, 4)?, 32, number(44, 2)?) };
        let segment = |i: u64| -> Option<&'a [u8]> {
            let at = usize::try_from(table.checked_add(i.checked_mul(entry)?)?).ok()?;
            if number(at, 4)? != 3 {
                return None;
            }
            let (offset, size) = if wide {
                (number(at.checked_add(8)?, 8)?, number(at.checked_add(32)?, 8)?)
            } else {
                (number(at.checked_add(4)?, 4)?, number(at.checked_add(16)?, 4)?)
            };
            let offset = usize::try_from(offset).ok()?;
            let path = head.get(offset..offset.checked_add(usize::try_from(size).ok()?)?)?;
            Some(path.split(|byte| *byte == 0).next().unwrap_or(path))
        };
        Some(Self { machine, interpreter: (0..count).find_map(segment) })
    }
}

const MACHINES: [(u16, &str); 9] = [
    (3, "x86"),
    (8, "mips"),
    (20, "ppc"),
    (21, "ppc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv"),
];

fn machine(number: u16) -> String {
    MACHINES
        .iter()
        .find(|(n, _)| *n == number)
        .map_or_else(|| format!("machine {number}"), |(_, name)| (*name).to_owned())
}

fn native() -> u16 {
    let name = if cfg!(target_arch = "riscv64") { "riscv" } else { std::env::consts::ARCH };
    MACHINES.iter().find(|(_, known)| *known == name).map_or(0, |(number, _)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_names_its_missing_interpreter() {
        assert_eq!(explain(b"#!/bin/nope -x\n", |_| false), "its interpreter \"/bin/nope\" does not exist");
        assert!(explain(b"#!/bin/sh\r\n", |p| p == b"/bin/sh").is_empty());
        assert!(explain(b"#! /bin/sh", |p| p == b"/bin/sh").is_empty());
    }

    #[test]
    fn an_elf_file_names_its_machine_or_its_loader() {
        let own = std::fs::read("/bin/ls").expect("/bin/ls");
        let head = &own[..4096];
        assert!(explain(head, |_| true).is_empty());
        assert!(explain(head, |_| false).starts_with("its dynamic loader \"/lib"));
        let mut foreign = head.to_vec();
        foreign[18] = 22;
        foreign[19] = 0;
        assert!(explain(&foreign, |_| true).starts_with("it is built for s390x, this machine is"));
    }

    #[test]
    fn anything_else_is_said_to_be_neither() {
        assert!(explain(b"", |_| true).starts_with("it is neither"));
        assert!(explain(b"\x7fELF", |_| true).starts_with("it is neither"));
        assert!(explain(&[0x7f, b'E', b'L', b'F', 2, 1, 0xff, 0xff], |_| true).starts_with("it is neither"));
    }
}

//! `linux.seccomp`: the profile as a finished BPF program.
//!
//! What it answers to every system call is what runc with libseccomp answers; the tests compare both number
//! by number. Where several rules of one call hold, this decides: a rule without conditions settles the call
//! and the first such rule stands; else conditions are tried in libseccomp's order (higher argument first,
//! equality before `<` before `>`, then the narrower one); an earlier rule is not narrowed by a later one.

#![forbid(unsafe_code)]

mod compile;
#[cfg(test)]
mod interpret;
pub mod table;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::spec;
use compile::{Condition, Failure, MAX_INSNS, Op, Policy, Rule};
use std::fmt;
use std::path::PathBuf;
use table::{ARCHS, Arch, COUNT, Call, NATIVE};

/// One instruction of classic BPF: `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// `BPF_*`, linux/bpf_common.h.
    pub code: u16,
    /// Instructions to skip if true.
    pub jt: u8,
    /// Instructions to skip if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Where the notification fd goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `listenerPath`, an AF_UNIX stream socket.
    pub path: PathBuf,
    /// `listenerMetadata`.
    pub metadata: String,
}

/// What is loaded into the container's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// At most 4096 instructions.
    pub program: Vec<Insn>,
    /// `SECCOMP_FILTER_FLAG_*`; NEW_LISTENER where a rule has SCMP_ACT_NOTIFY.
    pub flags: u32,
    /// `Some` exactly where `flags` has NEW_LISTENER.
    pub listener: Option<Listener>,
    /// What was ignored, a sentence each; worth a debug message only, as every common profile names calls
    /// of kernels and machines that are not this one.
    pub warnings: Vec<String>,
    default: u32,
    archs: Vec<&'static Arch>,
}

/// A name of config.json with the kernel's value.
type Named = (&'static str, u32);

// linux/seccomp.h SECCOMP_RET_*; SCMP_ACT_KILL is libseccomp's KILL_THREAD.
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

/// `SCMP_ACT_*`, sorted, with `SECCOMP_RET_*` as SECCOMP_GET_ACTION_AVAIL takes it.
pub const ACTIONS: [Named; 9] = [
    ("SCMP_ACT_ALLOW", ALLOW),
    ("SCMP_ACT_ERRNO", ERRNO),
    ("SCMP_ACT_KILL", 0),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_KILL_THREAD", 0),
    ("SCMP_ACT_LOG", LOG),
    ("SCMP_ACT_NOTIFY", NOTIFY),
    ("SCMP_ACT_TRACE", TRACE),
    ("SCMP_ACT_TRAP", 0x0003_0000),
];

const OPS: [(&str, Op); 7] = [
    ("SCMP_CMP_EQ", Op::Eq),
    ("SCMP_CMP_GE", Op::Ge),
    ("SCMP_CMP_GT", Op::Gt),
    ("SCMP_CMP_LE", Op::Le),
    ("SCMP_CMP_LT", Op::Lt),
    ("SCMP_CMP_MASKED_EQ", Op::MaskedEq),
    ("SCMP_CMP_NE", Op::Ne),
];

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`
pub const NEW_LISTENER: u32 = 1 << 3;
const SPEC_ALLOW: u32 = 1 << 2;
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The flags that config.json may name, with the kernel's bit.
pub const FLAGS: [Named; 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", WAIT_KILLABLE_RECV),
];

/// `SCMP_CMP_*`, sorted, for `features`.
pub fn operators() -> impl Iterator<Item = &'static str> {
    OPS.iter().map(|(name, _)| *name)
}

/// `SCMP_ARCH_*`, sorted, for `features`.
pub fn archs() -> impl Iterator<Item = &'static str> {
    ARCHS.iter().map(|arch| arch.name)
}

/// Compiles the profile; `None` where there is nothing to load: no action and no rule, or an allowing
/// default that no rule and no list of architectures restricts.
///
/// # Errors
/// An unknown action, operator, architecture or flag, an errno for an action that returns none, a rule
/// without names, two rules that contradict each other, a listener without a path, or a program longer than
/// the kernel takes.
pub fn build(seccomp: &spec::Seccomp) -> Result<Option<Filter>> {
    build_for(seccomp, NATIVE)
}

/// As [`build`], for a machine whose own ABI is `native`, one of [`archs`].
///
/// # Errors
/// As [`build`].
pub fn build_for(seccomp: &spec::Seccomp, native: &str) -> Result<Option<Filter>> {
    if seccomp.default_action.is_empty() && seccomp.syscalls.is_empty() {
        return Ok(None);
    }
    let at = |field: &str| format!("linux.seccomp.{field}");
    let mut warnings = Vec::new();
    let default = action(&seccomp.default_action, seccomp.default_errno_ret, || {
        (at("defaultAction"), at("defaultErrnoRet"))
    })?;
    if default == NOTIFY {
        // The process would wait for an answer before it could hand over the fd to ask through.
        return Err(Error::config(at("defaultAction"), "SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let archs = architectures(&seccomp.architectures, native)?;
    let mut policy =
        Policy { default, stub: restricts(default), archs, rules: Vec::new(), named: [false; COUNT] };
    let mut notifies = false;
    for (index, rule) in seccomp.syscalls.iter().enumerate() {
        notifies |= add(&mut policy, index, rule, &mut warnings)?;
    }
    let (flags, listener) = listener(seccomp, notifies, &mut warnings)?;
    if default == ALLOW && policy.rules.is_empty() && seccomp.architectures.is_empty() {
        return Ok(None);
    }
    let program = policy.compile().map_err(|failure| match failure {
        Failure::Conflict(index, call) => Error::config(
            at(&format!("syscalls[{index}]")),
            format_args!("an earlier rule for {} has the same args and another action", call.name()),
        ),
        Failure::TooLong(length) => Error::config(
            "linux.seccomp",
            format_args!("the filter takes {length} instructions or more, the kernel allows {MAX_INSNS}"),
        )
        .remedy("use fewer conditions or architectures"),
    })?;
    Ok(Some(Filter { program, flags, listener, warnings, default, archs: policy.archs }))
}

/// The first system call that has no number on any architecture known here, as the error it is where the bundle
/// asks for one.
pub fn unknown_call(seccomp: &spec::Seccomp) -> Option<Error> {
    let names = seccomp
        .syscalls
        .iter()
        .enumerate()
        .flat_map(|(i, rule)| rule.names.iter().enumerate().map(move |(j, name)| (i, j, name)));
    let (i, j, name) = names.into_iter().find(|(_, _, name)| Call::find(name).is_none())?;
    let at = format!("linux.seccomp.syscalls[{i}].names[{j}]");
    Some(Error::config(at, format_args!("unknown seccomp syscall {name:?}")))
}

/// Whether calls newer than the profile are better answered with ENOSYS: what allows, logs or traces by
/// default lets them through.
fn restricts(default: u32) -> bool {
    ![ALLOW, LOG].contains(&default) && default & 0xffff_0000 != TRACE
}

/// An action with its data; `fields` are the JSON paths of both.
fn action(name: &str, errno: Option<u32>, fields: impl Fn() -> (String, String)) -> Result<u32> {
    let Some((_, value)) = ACTIONS.iter().find(|known| known.0 == name) else {
        return Err(Error::config(fields().0, format_args!("{name:?} is not an action")));
    };
    match errno {
        _ if *value != ERRNO && *value != TRACE => match errno {
            Some(_) => Err(Error::config(fields().1, format_args!("{name} cannot return an errno"))),
            None => Ok(*value),
        },
        Some(errno) if errno > 0xffff => {
            Err(Error::config(fields().1, format_args!("{errno} is more than 65535, all that fits")))
        }
        errno => Ok(value | errno.unwrap_or(libc::EPERM as u32)),
    }
}

/// The ABIs named and the native one, which comes first as its calls are the most frequent.
fn architectures(names: &[String], native: &str) -> Result<Vec<&'static Arch>> {
    let mut archs: Vec<_> = Arch::find(native).into_iter().collect();
    for (i, name) in names.iter().enumerate() {
        let Some(arch) = Arch::find(name) else {
            let at = format!("linux.seccomp.architectures[{i}]");
            return Err(Error::config(at, format_args!("{name:?} is not an architecture")));
        };
        if !archs.contains(&arch) {
            archs.push(arch);
        }
    }
    Ok(archs)
}

/// Adds one of `syscalls`; says whether it notifies.
fn add(
    policy: &mut Policy,
    index: usize,
    rule: &spec::SyscallRule,
    warnings: &mut Vec<String>,
) -> Result<bool> {
    let at = |field: &str| format!("linux.seccomp.syscalls[{index}].{field}");
    let action = action(&rule.action, rule.errno_ret, || (at("action"), at("errnoRet")))?;
    if rule.names.is_empty() {
        return Err(Error::config(at("names"), "needs at least one system call"));
    }
    let mut calls = Vec::with_capacity(rule.names.len());
    for (i, name) in rule.names.iter().enumerate() {
        if name.is_empty() {
            return Err(Error::config(at(&format!("names[{i}]")), "empty string is not a valid syscall"));
        }
        if action == NOTIFY && name == "write" {
            // The process tells the runtime about the fd with it.
            let text = "SCMP_ACT_NOTIFY cannot be used for the write syscall";
            return Err(Error::config(at(&format!("names[{i}]")), text));
        }
        match Call::find(name) {
            Some(call) => {
                if let Some(named) = policy.named.get_mut(call.0 as usize) {
                    *named = true;
                }
                calls.push(call);
            }
            None => warnings.push(format!("unknown seccomp syscall {name:?} ignored")),
        }
    }
    let mut conditions = Vec::with_capacity(rule.args.len());
    for (i, arg) in rule.args.iter().enumerate() {
        let at = |field: &str| at(&format!("args[{i}].{field}"));
        conditions.push(condition(arg, at)?);
    }
    if action == policy.default || calls.is_empty() {
        return Ok(action == NOTIFY);
    }
    conditions.sort_by_key(|condition| condition.arg);
    if conditions.windows(2).any(|pair| matches!(pair, [a, b] if a.arg == b.arg)) {
        // As in runc, since Docker's profiles of old were written so: any condition suffices.
        for arg in &rule.args {
            let conditions = vec![condition(arg, |field| at(field))?];
            policy.rules.push(Rule { index, action, calls: calls.clone(), conditions });
        }
    } else {
        policy.rules.push(Rule { index, action, calls, conditions });
    }
    Ok(action == NOTIFY)
}

fn condition(arg: &spec::SyscallArg, at: impl Fn(&str) -> String) -> Result<Condition> {
    if arg.index > 5 {
        let text = format_args!("a system call has arguments 0 to 5, not {}", arg.index).to_string();
        return Err(Error::config(at("index"), text));
    }
    let Some((_, op)) = OPS.iter().find(|known| known.0 == arg.op) else {
        return Err(Error::config(at("op"), format_args!("{:?} is not an operator", arg.op)));
    };
    let (mask, datum) = match op {
        Op::MaskedEq => (arg.value, arg.value_two & arg.value),
        _ => (u64::MAX, arg.value),
    };
    Ok(Condition { arg: arg.index, op: *op, mask, datum })
}

/// The flags, and where notifications go.
fn listener(
    seccomp: &spec::Seccomp,
    notifies: bool,
    warnings: &mut Vec<String>,
) -> Result<(u32, Option<Listener>)> {
    let mut flags = 0;
    match &seccomp.flags {
        // runc's default: without it every process pays for a mitigation that it has not asked for.
        None => flags = SPEC_ALLOW,
        Some(names) => {
            for (i, name) in names.iter().enumerate() {
                let Some((_, flag)) = FLAGS.iter().find(|known| known.0 == name) else {
                    let at = format!("linux.seccomp.flags[{i}]");
                    return Err(Error::config(at, format_args!("{name:?} is not a flag")));
                };
                flags |= flag;
            }
        }
    }
    // The process that loads the filter has one thread, and the kernel refuses TSYNC beside NEW_LISTENER.
    flags &= !1;
    if seccomp.listener_path.is_empty() && !seccomp.listener_metadata.is_empty() {
        return Err(Error::config("linux.seccomp.listenerMetadata", "must not be set without listenerPath"));
    }
    if !notifies {
        if flags & WAIT_KILLABLE_RECV != 0 {
            // The kernel refuses it without a listener.
            warnings
                .push("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV without SCMP_ACT_NOTIFY ignored".to_owned());
        }
        return Ok((flags & !WAIT_KILLABLE_RECV, None));
    }
    if seccomp.listener_path.is_empty() {
        return Err(Error::config("linux.seccomp.listenerPath", "must be set for SCMP_ACT_NOTIFY"));
    }
    let path = PathBuf::from(&seccomp.listener_path);
    Ok((flags | NEW_LISTENER, Some(Listener { path, metadata: seccomp.listener_metadata.clone() })))
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} instructions for", self.program.len())?;
        for arch in &self.archs {
            write!(f, " {}", arch.name.trim_start_matches("SCMP_ARCH_").to_ascii_lowercase())?;
        }
        let base = if self.default == 0x8000_0000 { self.default } else { self.default & 0x7fff_0000 };
        let name = ACTIONS.iter().find(|known| known.1 == base).map_or("?", |known| known.0);
        write!(f, ", default {name}")?;
        if base == ERRNO || base == TRACE {
            write!(f, "({})", self.default & 0xffff)?;
        }
        write!(f, ", flags {:#x}", self.flags)?;
        match &self.listener {
            Some(listener) => write!(f, ", listener {}", listener.path.display()),
            None => Ok(()),
        }
    }
}

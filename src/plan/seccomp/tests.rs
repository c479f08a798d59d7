//! What the programs answer, on their own and beside libseccomp.

#![forbid(unsafe_code)]

use super::compile::ENOSYS;
use super::interpret::{Data, check, run};
use super::table::{SYSCALLS, X32_BIT};
use super::*;
use crate::spec::{Seccomp, SyscallArg, SyscallRule};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

const X86_64: &str = "SCMP_ARCH_X86_64";
const KILL: u32 = 0;
const EPERM: u32 = ERRNO | 1;

fn rule(names: &[&str], action: &str, errno_ret: Option<u32>, args: &[SyscallArg]) -> SyscallRule {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    SyscallRule { names, action: action.to_owned(), errno_ret, args: args.to_vec() }
}

fn arg(index: u32, op: &str, value: u64, value_two: u64) -> SyscallArg {
    SyscallArg { index, value, value_two, op: format!("SCMP_CMP_{op}") }
}

fn profile(default: &str, archs: &[&str], syscalls: Vec<SyscallRule>) -> Seccomp {
    Seccomp {
        default_action: default.to_owned(),
        architectures: archs.iter().map(|arch| format!("SCMP_ARCH_{arch}")).collect(),
        syscalls,
        ..Seccomp::default()
    }
}

fn compiled(profile: &Seccomp, native: &str) -> Filter {
    let filter = build_for(profile, native).unwrap().unwrap();
    check(&filter.program);
    filter
}

fn answer(filter: &Filter, arch: &str, name: &str, args: [u64; 6]) -> u32 {
    let arch = Arch::find(arch).unwrap();
    let number = arch.number(Call::find(name).unwrap()).unwrap();
    run(&filter.program, &Data { number, arch: arch.audit, args, big_endian: arch.big_endian }).0
}

fn refusal(profile: &Seccomp) -> String {
    build_for(profile, X86_64).unwrap_err().to_string()
}

#[test]
fn the_tables_are_sorted_and_no_number_is_given_twice() {
    assert!(SYSCALLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(ARCHS.windows(2).all(|pair| pair[0].name < pair[1].name));
    assert!(ACTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0) && OPS.windows(2).all(|p| p[0].0 < p[1].0));
    for arch in &ARCHS {
        let numbers = (0..COUNT).filter_map(|at| arch.number(Call(at as u16)));
        let mut numbers: Vec<_> = numbers.collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "{}", arch.name);
    }
    let number = |arch: &str, name: &str| Arch::find(arch).unwrap().number(Call::find(name).unwrap());
    assert_eq!(number(X86_64, "file_setattr"), Some(469));
    assert_eq!(number("SCMP_ARCH_AARCH64", "open"), None);
    assert_eq!(number("SCMP_ARCH_MIPS64", "read"), Some(5000));
    assert_eq!(number("SCMP_ARCH_ARM", "set_tls"), Some(0x000f_0005));
    assert_eq!(Call::find("mkdir").map(Call::name), Some("mkdir"));
}

#[test]
fn nothing_to_load_is_none() {
    assert_eq!(build(&Seccomp::default()).unwrap(), None);
    assert_eq!(build(&profile("SCMP_ACT_ALLOW", &[], vec![])).unwrap(), None);
    let repeats = vec![rule(&["mkdir"], "SCMP_ACT_ALLOW", None, &[])];
    assert_eq!(build(&profile("SCMP_ACT_ALLOW", &[], repeats)).unwrap(), None);
    assert!(build(&profile("SCMP_ACT_ALLOW", &["AARCH64"], vec![])).unwrap().is_some());
    assert!(build(&profile("SCMP_ACT_ERRNO", &[], vec![])).unwrap().is_some());
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_path() {
    let with = |rule| refusal(&profile("SCMP_ACT_ALLOW", &[], vec![rule]));
    let at = "config.json: linux.seccomp.syscalls[0]";
    assert_eq!(
        refusal(&profile("FOO", &[], vec![])),
        "config.json: linux.seccomp.defaultAction: \"FOO\" is not an action"
    );
    assert!(
        refusal(&profile("", &[], vec![rule(&["read"], "SCMP_ACT_LOG", None, &[])]))
            .contains("defaultAction")
    );
    assert_eq!(
        with(rule(&[], "SCMP_ACT_KILL", None, &[])),
        format!("{at}.names: needs at least one system call")
    );
    assert!(
        with(rule(&["read", ""], "SCMP_ACT_KILL", None, &[])).starts_with(&format!("{at}.names[1]: empty"))
    );
    assert_eq!(
        with(rule(&["read"], "SCMP_ACT_KILL", Some(1), &[])),
        format!("{at}.errnoRet: SCMP_ACT_KILL cannot return an errno")
    );
    assert!(with(rule(&["read"], "SCMP_ACT_ERRNO", Some(65536), &[])).contains("errnoRet: 65536"));
    assert!(with(rule(&["read"], "SCMP_ACT_KILL", None, &[arg(6, "EQ", 0, 0)])).contains("args[0].index: "));
    assert!(with(rule(&["read"], "SCMP_ACT_KILL", None, &[arg(0, "FOO", 0, 0)])).contains("args[0].op: "));
    assert!(
        with(rule(&["write"], "SCMP_ACT_NOTIFY", None, &[]))
            .contains("SCMP_ACT_NOTIFY cannot be used for the write syscall")
    );
    assert!(with(rule(&["read"], "SCMP_ACT_NOTIFY", None, &[])).contains("listenerPath: must be set"));
    assert!(refusal(&profile("SCMP_ACT_NOTIFY", &[], vec![])).contains("as default action"));
    assert!(
        refusal(&profile("SCMP_ACT_ALLOW", &["Z80"], vec![])).contains("architectures[0]: \"SCMP_ARCH_Z80\"")
    );
    let mut bad = profile("SCMP_ACT_KILL", &[], vec![]);
    bad.default_errno_ret = Some(1);
    assert!(refusal(&bad).contains("defaultErrnoRet"));
    let mut bad = profile("SCMP_ACT_KILL", &[], vec![]);
    bad.flags = Some(vec!["SECCOMP_FILTER_FLAG_FOO".to_owned()]);
    assert!(refusal(&bad).contains("flags[0]"));
    let mut bad = profile("SCMP_ACT_KILL", &[], vec![]);
    bad.listener_metadata = "x".to_owned();
    assert!(refusal(&bad).contains("listenerMetadata"));
    let one = |action| rule(&["read"], action, None, &[arg(0, "EQ", 1, 0)]);
    let contradiction = profile("SCMP_ACT_ALLOW", &[], vec![one("SCMP_ACT_KILL"), one("SCMP_ACT_LOG")]);
    assert!(refusal(&contradiction).contains("syscalls[1]: an earlier rule for read"));
}

#[test]
fn flags_and_listener() {
    let mut seccomp = profile("SCMP_ACT_ALLOW", &[], vec![rule(&["mkdir"], "SCMP_ACT_ERRNO", None, &[])]);
    let flags = |seccomp: &Seccomp| compiled(seccomp, X86_64).flags;
    assert_eq!(flags(&seccomp), SPEC_ALLOW);
    seccomp.flags = Some(vec![]);
    assert_eq!(flags(&seccomp), 0);
    seccomp.flags = Some(FLAGS.iter().map(|(name, _)| (*name).to_owned()).collect());
    assert_eq!(flags(&seccomp), 6);
    seccomp.listener_path = "/run/agent".to_owned();
    assert_eq!(compiled(&seccomp, X86_64).listener, None);
    seccomp.listener_metadata = "meta".to_owned();
    seccomp.syscalls.push(rule(&["chmod"], "SCMP_ACT_NOTIFY", None, &[]));
    let filter = compiled(&seccomp, X86_64);
    assert_eq!(filter.flags, 6 | NEW_LISTENER | WAIT_KILLABLE_RECV);
    assert_eq!(filter.listener, Some(Listener { path: "/run/agent".into(), metadata: "meta".to_owned() }));
    assert_eq!(answer(&filter, X86_64, "chmod", [0; 6]), NOTIFY);
    let length = filter.program.len();
    let shown =
        format!("{length} instructions for x86_64, default SCMP_ACT_ALLOW, flags 0x2e, listener /run/agent");
    assert_eq!(filter.to_string(), shown);
}

#[test]
fn calls_newer_than_the_profile_get_enosys_where_the_default_restricts() {
    let rules = vec![
        rule(&["read", "openat2", "no_such_call"], "SCMP_ACT_ALLOW", None, &[]),
        rule(&["clone3"], "SCMP_ACT_ERRNO", Some(38), &[]),
    ];
    let seccomp = profile("SCMP_ACT_ERRNO", &["X86", "X32"], rules.clone());
    let filter = compiled(&seccomp, X86_64);
    assert_eq!(filter.warnings, ["unknown seccomp syscall \"no_such_call\" ignored"]);
    assert_eq!(answer(&filter, X86_64, "read", [0; 6]), ALLOW);
    assert_eq!(answer(&filter, X86_64, "clone3", [0; 6]), ENOSYS);
    assert_eq!(answer(&filter, X86_64, "mount", [0; 6]), EPERM);
    assert_eq!(answer(&filter, X86_64, "pidfd_getfd", [0; 6]), ENOSYS);
    assert_eq!(answer(&filter, "SCMP_ARCH_X86", "mount_setattr", [0; 6]), ENOSYS);
    assert_eq!(answer(&filter, "SCMP_ARCH_AARCH64", "read", [0; 6]), KILL);
    let filter = compiled(&profile("SCMP_ACT_TRACE", &[], rules), X86_64);
    assert_eq!(answer(&filter, X86_64, "pidfd_getfd", [0; 6]), TRACE | 1);
}

#[test]
fn s390_answers_number_0_with_enosys() {
    let seccomp = profile("SCMP_ACT_ERRNO", &[], vec![rule(&["exit", "fork"], "SCMP_ACT_ALLOW", None, &[])]);
    let arch = Arch::find("SCMP_ARCH_S390X").unwrap();
    let filter = compiled(&seccomp, arch.name);
    let at =
        |number| run(&filter.program, &Data { number, arch: arch.audit, args: [0; 6], big_endian: true }).0;
    assert_eq!([0, 1, 2, 3].map(at), [ENOSYS, ALLOW, ALLOW, ENOSYS]);
}

#[test]
fn one_argument_twice_means_either() {
    let args = [arg(0, "EQ", 1, 0), arg(0, "EQ", 2, 0), arg(1, "EQ", 3, 0)];
    let filter = compiled(
        &profile("SCMP_ACT_ERRNO", &[], vec![rule(&["dup3"], "SCMP_ACT_ALLOW", None, &args)]),
        X86_64,
    );
    let dup3 = |a, b| answer(&filter, X86_64, "dup3", [a, b, 0, 0, 0, 0]);
    assert_eq!([dup3(1, 0), dup3(2, 0), dup3(9, 3), dup3(9, 0)], [ALLOW, ALLOW, ALLOW, EPERM]);
}

#[test]
fn podmans_rules_for_socket_load_where_it_is_multiplexed() {
    let socket = |action, errno, args: &[SyscallArg]| rule(&["socket"], action, errno, args);
    let rules = vec![
        socket("SCMP_ACT_ERRNO", Some(22), &[arg(0, "EQ", 16, 0), arg(2, "EQ", 9, 0)]),
        socket("SCMP_ACT_ALLOW", None, &[arg(2, "NE", 9, 0)]),
        socket("SCMP_ACT_ALLOW", None, &[arg(0, "NE", 16, 0)]),
    ];
    let filter = compiled(&profile("SCMP_ACT_ERRNO", &["X86"], rules), X86_64);
    for arch in [X86_64, "SCMP_ARCH_X86"] {
        let socket = |domain, protocol| answer(&filter, arch, "socket", [domain, 3, protocol, 0, 0, 0]);
        assert_eq!([socket(16, 9), socket(16, 0), socket(2, 9)], [ERRNO | 22, ALLOW, ALLOW]);
    }
    assert_eq!(answer(&filter, "SCMP_ARCH_X86", "socketcall", [1, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(answer(&filter, "SCMP_ARCH_X86", "socketcall", [2, 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn a_program_that_the_kernel_would_refuse_is_an_error() {
    let many = |count| {
        (0..count).map(|n| rule(&["ioctl"], "SCMP_ACT_LOG", None, &[arg(1, "EQ", n << 20, 0)])).collect()
    };
    let filter = compiled(&profile("SCMP_ACT_ALLOW", &[], many(900)), X86_64);
    assert!(filter.program.len() > 3000);
    assert_eq!(answer(&filter, X86_64, "ioctl", [0, 899 << 20, 0, 0, 0, 0]), LOG);
    assert_eq!(answer(&filter, X86_64, "ioctl", [0, 0, 0, 0, 0, 0]), LOG);
    assert_eq!(answer(&filter, X86_64, "ioctl", [0, 900 << 20, 0, 0, 0, 0]), ALLOW);
    for count in [1100, 10_000] {
        let text = refusal(&profile("SCMP_ACT_ALLOW", &[], many(count)));
        assert!(text.contains("linux.seccomp: the filter takes") && text.contains("4096"), "{text}");
    }
}

/// xorshift, so that every run is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Constants that share halves and border on each other.
const VALUES: [u64; 12] =
    [0, 1, 2, 7, 40, 0xff, 0x7e02_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 0x1_0000_0007, u64::MAX];
const NAMES: [&str; 14] = [
    "read",
    "openat2",
    "clone",
    "socket",
    "connect",
    "shmat",
    "ioctl",
    "personality",
    "mkdir",
    "mkdirat",
    "waitpid",
    "accept4",
    "semop",
    "prctl",
];
const OUTCOMES: [&str; 6] = ["ALLOW", "ERRNO", "KILL", "LOG", "TRAP", "KILL_PROCESS"];

/// How free a random profile is.
#[derive(Clone, Copy, PartialEq)]
enum Freedom {
    /// One action a call, and any conditions.
    OneAction,
    /// One action a call; in a rule with several conditions only the last is not an equality: libseccomp
    /// shares what follows an inequality between rules, so that a rule may match more than it says.
    OneActionPlain,
    /// Any actions, one condition a rule, where rules do not hold together in a way libseccomp gets wrong.
    ManyActions,
}

fn random_profile(random: &mut Random, freedom: Freedom, archs: &[&str]) -> Seccomp {
    let default = random.of(&["ERRNO", "ALLOW", "KILL", "TRACE", "TRAP"]);
    let mut rules = Vec::new();
    let offset = random.below(OUTCOMES.len());
    for _ in 0..random.below(40) {
        let at = random.below(NAMES.len());
        let action = match freedom {
            Freedom::ManyActions => random.of(&OUTCOMES),
            _ => OUTCOMES[(at + offset) % OUTCOMES.len()],
        };
        let mut args = Vec::new();
        let wanted = if freedom == Freedom::ManyActions { random.below(20).min(1) } else { random.below(4) };
        for index in 0..6 {
            if args.len() < wanted && random.below(3) == 0 {
                let ops: &[&str] = match freedom {
                    Freedom::OneAction => &["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"],
                    Freedom::OneActionPlain if args.len() + 1 < wanted => &["EQ", "MASKED_EQ"],
                    Freedom::OneActionPlain => &["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"],
                    Freedom::ManyActions => &["EQ", "LT", "LE", "GT", "GE"],
                };
                let op = random.of(ops);
                args.push(arg(index, op, random.of(&VALUES), random.of(&VALUES)));
            }
        }
        if freedom == Freedom::OneActionPlain && args.len() < wanted {
            args.truncate(0);
        }
        rules.push(rule(&[NAMES[at]], &format!("SCMP_ACT_{action}"), None, &args));
    }
    let mut seccomp = profile(&format!("SCMP_ACT_{default}"), archs, rules);
    if default == "ERRNO" {
        seccomp.default_errno_ret = random.of(&[None, Some(38), Some(5)]);
    }
    seccomp
}

/// Arguments around the constants of the random profiles.
fn random_args(random: &mut Random) -> [u64; 6] {
    [(); 6].map(|()| random.of(&VALUES).wrapping_add([0, 0, 0, 1, u64::MAX][random.below(5)]))
}

fn holds(arg: &SyscallArg, args: &[u64; 6], wide: bool) -> bool {
    let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let (have, want) = (cut(args[arg.index as usize]), cut(arg.value));
    match arg.op.as_str() {
        "SCMP_CMP_EQ" => have == want,
        "SCMP_CMP_NE" => have != want,
        "SCMP_CMP_LT" => have < want,
        "SCMP_CMP_LE" => have <= want,
        "SCMP_CMP_GT" => have > want,
        "SCMP_CMP_GE" => have >= want,
        _ => have & want == cut(arg.value_two) & want,
    }
}

#[test]
fn any_condition_means_what_it_says() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..400 {
        let seccomp = random_profile(&mut random, Freedom::OneAction, &["X86_64", "X32", "AARCH64"]);
        let Ok(Some(filter)) = build_for(&seccomp, X86_64) else {
            continue;
        };
        check(&filter.program);
        for arch in &filter.archs {
            for name in NAMES {
                let Some(number) = arch.number(Call::find(name).unwrap()) else {
                    continue;
                };
                for _ in 0..12 {
                    let args = random_args(&mut random);
                    let found = seccomp.syscalls.iter().find(|rule| {
                        rule.names[0] == name && rule.args.iter().all(|arg| holds(arg, &args, arch.wide))
                    });
                    let want = found.map_or(filter.default, |rule| {
                        action(&rule.action, None, || unreachable!()).unwrap()
                    });
                    let data = Data { number, arch: arch.audit, args, big_endian: false };
                    let want = if enosys_stub(&seccomp, &filter, &data) { ENOSYS } else { want };
                    assert_eq!(
                        run(&filter.program, &data).0,
                        want,
                        "{} {name} {args:x?} {seccomp:?}",
                        arch.name
                    );
                }
            }
        }
    }
}

/// runc's stub in front of libseccomp's program, told apart from the code under test.
fn enosys_stub(seccomp: &Seccomp, filter: &Filter, data: &Data) -> bool {
    if ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"].contains(&seccomp.default_action.as_str()) {
        return false;
    }
    let mut newest = BTreeMap::new();
    for arch in filter.archs.iter().filter(|arch| arch.audit == data.arch) {
        let names = seccomp.syscalls.iter().flat_map(|rule| &rule.names).filter_map(|name| Call::find(name));
        let names = names.filter(|call| !arch.multiplexed || call.multiplexer().is_none());
        let numbers = names.filter_map(|call| arch.number(call)).max().filter(|max| *max > 0);
        numbers.map(|max| newest.insert(arch.name, (arch, max)));
    }
    let x86 =
        filter.archs.iter().any(|arch| arch.audit == data.arch && (arch.is_x32() || arch.name == X86_64));
    newest.values().any(|(arch, max)| {
        let this_mode = !x86 || arch.is_x32() == (data.number & X32_BIT != 0);
        this_mode && (data.number > *max || (arch.unknown_is_zero() && data.number == 0))
    })
}

/// The actions of the rules that hold for a call that is not multiplexed, else the default: what an answer
/// must be one of. libseccomp 2.5 mixes up some of several conditional rules for one call.
fn permitted(seccomp: &Seccomp, filter: &Filter, data: &Data) -> Option<Vec<u32>> {
    let this = |arch: &&&Arch| arch.audit == data.arch && (arch.is_x32() == (data.number & X32_BIT != 0));
    let arch = filter.archs.iter().find(this)?;
    let is_it = |name: &String| Call::find(name).and_then(|call| arch.number(call)) == Some(data.number);
    let rules = seccomp.syscalls.iter().filter(|rule| rule.names.iter().any(is_it));
    let rules = rules.filter(|rule| rule.args.iter().all(|arg| holds(arg, &data.args, arch.wide)));
    let actions = rules.map(|rule| action(&rule.action, rule.errno_ret, || unreachable!()).unwrap());
    let actions: Vec<_> = actions.filter(|action| *action != filter.default).collect();
    Some(if actions.is_empty() { vec![filter.default] } else { actions })
}

/// libseccomp behind a pipe.
struct Oracle(std::path::PathBuf);

impl Oracle {
    /// Compiles libseccomp.c; `None` where there is no compiler or no library.
    fn new(test: &str) -> Option<Self> {
        let path = std::env::temp_dir().join(format!("rrun-seccomp-{test}-{}", std::process::id()));
        let mut cc = Command::new("cc");
        cc.args(["-w", "-x", "c", "-", "-l:libseccomp.so.2", "-o"]).arg(&path).stdin(Stdio::piped());
        let made = cc.stderr(Stdio::null()).spawn().and_then(|mut child| {
            child.stdin.take().unwrap().write_all(include_bytes!("libseccomp.c"))?;
            child.wait()
        });
        if made.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        eprintln!("skipped: no cc or no libseccomp.so.2 to compare with");
        None
    }

    fn ask(&self, text: &str) -> Vec<String> {
        let mut child = Command::new(&self.0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(text.as_bytes()).unwrap());
            let output = child.wait_with_output().unwrap();
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
        })
    }

    /// libseccomp's program as runc would ask for it; `None` where it refuses the rules.
    fn program(&self, seccomp: &Seccomp, native: &'static Arch) -> Option<Vec<Insn>> {
        let token = |arch: &Arch| if arch.is_x32() { arch.audit & 0x7fff_ffff } else { arch.audit };
        let value = |name: &str, errno: Option<u32>| action(name, errno, || unreachable!()).unwrap();
        let default = value(&seccomp.default_action, seccomp.default_errno_ret);
        let mut text = format!("init {default} {}\n", if native.name == X86_64 { 0 } else { token(native) });
        for name in &seccomp.architectures {
            writeln!(text, "arch {}", token(Arch::find(name).unwrap())).unwrap();
        }
        // Also for few rules, unlike runc: the linear search looks at the architecture instead of the number
        // when its first call does not exist on that ABI.
        text.push_str("tree\n");
        let ops = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
        for rule in &seccomp.syscalls {
            let action = value(&rule.action, rule.errno_ret);
            for name in rule.names.iter().filter(|_| action != default) {
                write!(text, "rule {action} {name} {}", rule.args.len()).unwrap();
                for arg in &rule.args {
                    let op = ops.iter().position(|op| arg.op.ends_with(&format!("CMP_{op}"))).unwrap() + 1;
                    write!(text, " {} {op} {} {}", arg.index, arg.value, arg.value_two).unwrap();
                }
                text.push('\n');
            }
        }
        text.push_str("end\n");
        let answer = self.ask(&text).pop().unwrap();
        if answer == "refused" {
            return None;
        }
        let bytes: Vec<u8> = (0..answer.len() / 2)
            .map(|i| u8::from_str_radix(&answer[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let insn = |b: &[u8]| match native.big_endian {
            false => (u16::from_le_bytes([b[0], b[1]]), u32::from_le_bytes([b[4], b[5], b[6], b[7]])),
            true => (u16::from_be_bytes([b[0], b[1]]), u32::from_be_bytes([b[4], b[5], b[6], b[7]])),
        };
        // For the other endianness libseccomp swaps some actions twice.
        let known =
            |k: u32| ACTIONS.iter().any(|(_, base)| k == *base || (k & 0xffff_0000 == *base && *base != 0));
        let swap =
            |code, k: u32| if code == 6 && native.big_endian && !known(k) { k.swap_bytes() } else { k };
        let insns = bytes.chunks(8).map(|b| (insn(b), b[2], b[3]));
        Some(insns.map(|((code, k), jt, jf)| Insn { code, jt, jf, k: swap(code, k) }).collect())
    }

    /// Compares the answers over all numbers and some arguments; the number of answers compared.
    fn compare(&self, seccomp: &Seccomp, native: &str, random: &mut Random, tries: usize) -> usize {
        let native = Arch::find(native).unwrap();
        let Some(theirs) = self.program(seccomp, native) else {
            return 0;
        };
        let Some(ours) = build_for(seccomp, native.name).unwrap() else {
            return 0;
        };
        check(&ours.program);
        let (mut compared, mut wrong) = (0, 0);
        let strangers = [0xc000_00b7, 0x4000_0003, 0xc000_003e, 0];
        let audits = ours.archs.iter().map(|arch| arch.audit).chain(strangers);
        for arch in audits {
            let plain = (0..600).chain([4000, 5000, 6000].into_iter().flat_map(|base| base..base + 500));
            let special =
                [0x000f_0000, 0x000f_0005, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000, 0xffff_fff0];
            let x32 = (0..600).map(|number| number | X32_BIT);
            for number in plain.chain(x32).chain(special).chain([X32_BIT - 1, u32::MAX - 1, u32::MAX]) {
                let conditional = ours.archs.iter().any(|arch| {
                    let has =
                        |name: &String| Call::find(name).and_then(|call| arch.number(call)) == Some(number);
                    seccomp.syscalls.iter().any(|rule| !rule.args.is_empty() && rule.names.iter().any(has))
                });
                let multiplexer = [102, 117, 4102, 4117].contains(&number);
                for _ in 0..if conditional || multiplexer { tries } else { 1 } {
                    let mut args = random_args(random);
                    if multiplexer {
                        args[0] = random.below(26) as u64;
                    }
                    let data = Data { number, arch, args, big_endian: native.big_endian };
                    let want =
                        if enosys_stub(seccomp, &ours, &data) { ENOSYS } else { run(&theirs, &data).0 };
                    let have = run(&ours.program, &data).0;
                    compared += 1;
                    if have != want
                        && permitted(seccomp, &ours, &data).is_some_and(|some| !some.contains(&want))
                    {
                        wrong += 1;
                        continue;
                    }
                    assert_eq!(have, want, "{data:x?} {ours} {:?}", seccomp.syscalls);
                }
            }
        }
        assert!(wrong * 20 <= compared, "{wrong} of {compared}");
        compared
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_numbers_are_those_of_libseccomp() {
    let Some(oracle) = Oracle::new("numbers") else {
        return;
    };
    let mut text = String::new();
    let mut asked = Vec::new();
    for arch in ARCHS.iter().filter(|arch| !arch.name.ends_with("M68K")) {
        for at in 0..COUNT {
            let call = Call(at as u16);
            let token = if arch.is_x32() { arch.audit & 0x7fff_ffff } else { arch.audit };
            writeln!(text, "number {token} {}", call.name()).unwrap();
            asked.push((arch, call));
        }
    }
    let (mut same, mut other) = (0, Vec::new());
    for ((arch, call), answer) in asked.into_iter().zip(oracle.ask(&text)) {
        let theirs: i32 = answer.parse().unwrap();
        // Negative: multiplexed, or not on that ABI, or not known to that version; and libseccomp 2.5 has a
        // 32-bit call too many on the 64-bit ABI of parisc.
        if theirs >= 0 && (arch.name, call.name()) != ("SCMP_ARCH_PARISC64", "_llseek") {
            match arch.number(call) == Some(theirs as u32) {
                true => same += 1,
                false => other.push((arch.name, call.name(), theirs, arch.number(call))),
            }
        }
    }
    assert!(same > 5000 && other.is_empty(), "{same} alike, not {other:?}");
}

#[test]
fn random_profiles_answer_as_libseccomp() {
    let Some(oracle) = Oracle::new("random") else {
        return;
    };
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut compared = 0;
    let (little, big) = (
        ["X86_64", "X86", "X32", "AARCH64", "ARM", "PPC64LE", "RISCV64", "MIPSEL"],
        ["S390X", "S390", "PPC", "MIPS64"],
    );
    for round in 0..60 {
        let freedom = [Freedom::OneActionPlain, Freedom::ManyActions][round % 2];
        let (set, native): (&[&str], _) =
            if round % 5 == 4 { (&big, "SCMP_ARCH_S390X") } else { (&little, X86_64) };
        let archs: Vec<_> = (0..random.below(4)).map(|_| random.of(set)).collect();
        let seccomp = random_profile(&mut random, freedom, &archs);
        compared += oracle.compare(&seccomp, native, &mut random, 30);
    }
    assert!(compared > 50_000, "{compared}");
}

/// A profile with the shape of Docker's: all names known to libseccomp 2.5 but some, three ABIs, conditions
/// on clone, personality and socket.
fn engine_profile(archs: &[&str]) -> Seccomp {
    let denied =
        ["mount", "umount2", "reboot", "kexec_load", "bpf", "setns", "unshare", "clone", "clone3", "socket"];
    let newer = Arch::find(X86_64).unwrap();
    let names = SYSCALLS.iter().map(|line| line.0).filter(|name| {
        let number = newer.number(Call::find(name).unwrap()).unwrap_or(0);
        !denied.contains(name)
            && *name != "personality"
            && number != 335
            && number != 336
            && number <= 450
            && !["cachestat", "fchmodat2"].contains(name)
            && !name.starts_with("riscv")
            && !name.starts_with("swapc")
    });
    let names: Vec<_> = names.collect();
    let mut rules = vec![rule(&names, "SCMP_ACT_ALLOW", None, &[])];
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(rule(&["personality"], "SCMP_ACT_ALLOW", None, &[arg(0, "EQ", persona, 0)]));
    }
    rules.push(rule(&["socket"], "SCMP_ACT_ALLOW", None, &[arg(0, "NE", 40, 0)]));
    rules.push(rule(&["clone"], "SCMP_ACT_ALLOW", None, &[arg(0, "MASKED_EQ", 0x7e02_0000, 0)]));
    rules.push(rule(&["clone3"], "SCMP_ACT_ERRNO", Some(38), &[]));
    let mut seccomp = profile("SCMP_ACT_ERRNO", archs, rules);
    seccomp.default_errno_ret = Some(1);
    seccomp
}

#[test]
fn an_engines_profile_answers_as_libseccomp_and_is_short_and_fast() {
    let seccomp = engine_profile(&["X86_64", "X86", "X32"]);
    let filter = compiled(&seccomp, X86_64);
    assert!(filter.program.len() < 450, "{filter}");
    let steps = (0..470).map(|number| {
        run(&filter.program, &Data { number, arch: 0xc000_003e, args: [0; 6], big_endian: false }).1
    });
    let steps = steps.max().unwrap();
    assert!(steps < 36, "{steps} {filter}");
    let Some(oracle) = Oracle::new("engine") else {
        return;
    };
    let mut random = Random(0x1234_5678_9abc_def1);
    assert!(oracle.compare(&seccomp, X86_64, &mut random, 200) > 5000);
    for (native, archs) in [
        ("SCMP_ARCH_S390X", &["S390"] as &[&str]),
        ("SCMP_ARCH_AARCH64", &["AARCH64", "ARM"]),
        ("SCMP_ARCH_PPC64LE", &[]),
        ("SCMP_ARCH_RISCV64", &[]),
        ("SCMP_ARCH_MIPS64", &["MIPS", "MIPS64N32"]),
        (X86_64, &["X86_64"]),
    ] {
        assert!(oracle.compare(&engine_profile(archs), native, &mut random, 50) > 1000, "{native}");
    }
}

/// Run with `cargo test --release -- --ignored --nocapture compile_time`.
#[test]
#[ignore = "a measurement"]
fn compile_time() {
    let seccomp = engine_profile(&["X86_64", "X86", "X32"]);
    let start = std::time::Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(build_for(&seccomp, X86_64).unwrap());
    }
    eprintln!("{:?} each, {}", start.elapsed() / 1000, compiled(&seccomp, X86_64));
}

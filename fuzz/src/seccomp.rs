//! A profile → a BPF program, run as the kernel would and compared with a model that evaluates the rules themselves. The
//! input is choices that always make a profile without a mistake in it; what is asked of the filter is made from the
//! profile, around its numbers and constants.

#![forbid(unsafe_code)]

use super::bytes::Bytes;
use super::report;
use rrun::plan::seccomp::table::{ARCHS, Arch, Call, SYSCALLS, X32_BIT};
use rrun::plan::seccomp::{ACTIONS, Filter, Insn, build_for, operators};
use rrun::spec::{Seccomp, SyscallArg, SyscallRule};
use std::cmp::Ordering;

// The unit tests' own.
#[path = "../../src/plan/seccomp/interpret.rs"]
mod interpret;
use interpret::Data;

/// Fails unless the kernel would take the program.
pub fn valid(program: &[Insn]) {
    interpret::check(program);
}

pub fn check(data: &[u8]) {
    let (native, profile) = profile(&mut Bytes(data));
    let model = Model::new(&profile, native);
    let filter = match build_for(&profile, native.name) {
        Ok(Some(filter)) => filter,
        Ok(None) => return assert!(model.allows_all(&profile), "no filter for {profile:?}"),
        Err(e) => {
            let text = e.to_string();
            report::one_line(&text, 0);
            assert!(text.starts_with("config.json: linux.seccomp"), "{text}");
            let conflict = text.contains("an earlier rule for");
            assert_eq!(conflict && model.contradicts(), conflict, "{text} {profile:?}");
            assert!(
                conflict || model.length() > 4096,
                "{text}, but is at most {} {profile:?}",
                model.length()
            );
            return;
        }
    };
    assert!(!model.contradicts(), "{profile:?}");
    valid(&filter.program);
    let mut random = Random::new(data);
    for arch in model.archs.iter().copied().chain([random.of(&ARCHS.each_ref())]) {
        for number in numbers(arch, &profile, &mut random) {
            for _ in 0..3 {
                let args = arguments(&profile, &mut random);
                compare(
                    &filter,
                    &model,
                    Data { number, arch: arch.audit, args, big_endian: arch.big_endian },
                );
            }
        }
    }
}

fn compare(filter: &Filter, model: &Model, data: Data) {
    let (got, steps) = interpret::run(&filter.program, &data);
    assert_eq!(got, model.answer(&data), "{data:x?} {model:x?} {:?}", filter.program);
    assert!(steps <= filter.program.len());
}

/// Calls of every kind: common ones, multiplexed ones, the multiplexers, and those few ABIs have.
const COMMON: [&str; 24] = [
    "read",
    "openat2",
    "clone",
    "socket",
    "connect",
    "shmat",
    "ioctl",
    "personality",
    "mkdir",
    "setup",
    "waitpid",
    "accept4",
    "semop",
    "prctl",
    "exit",
    "fork",
    "socketcall",
    "ipc",
    "accept",
    "recvmmsg",
    "semtimedop",
    "set_tls",
    "clone3",
    "file_setattr",
];

fn profile(bytes: &mut Bytes<'_>) -> (&'static Arch, Seccomp) {
    let common = ["X86_64", "X86", "X32", "AARCH64", "S390X", "PPC", "MIPS64N32", "X86_64"];
    let native = match bytes.byte() {
        at @ 0..8 => Arch::find(&format!("SCMP_ARCH_{}", common[usize::from(at)])).unwrap(),
        at => &ARCHS[usize::from(at) % ARCHS.len()],
    };
    let (default_action, default_errno_ret) = action(bytes, "SCMP_ACT_NOTIFY");
    let architectures =
        (0..bytes.byte() % 5).map(|_| ARCHS[bytes.below(ARCHS.len())].name.to_owned()).collect();
    let mut syscalls = Vec::new();
    while !bytes.is_empty() && syscalls.len() < 48 {
        syscalls.push(rule(bytes));
    }
    let profile = Seccomp {
        default_action,
        default_errno_ret,
        architectures,
        listener_path: "/agent".into(),
        syscalls,
        ..Seccomp::default()
    };
    (native, profile)
}

/// Any action but one, with an errno where it may have one.
fn action(bytes: &mut Bytes<'_>, but: &str) -> (String, Option<u32>) {
    let name = match bytes.of(&ACTIONS).0 {
        name if name == but => "SCMP_ACT_ERRNO",
        name => name,
    };
    let errno =
        ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&name).then(|| bytes.byte()).filter(|n| n % 2 == 1);
    (name.to_owned(), errno.map(|n| u32::from(n) * 257))
}

fn rule(bytes: &mut Bytes<'_>) -> SyscallRule {
    let names: Vec<String> = (0..1 + bytes.byte() % 3)
        .map(|_| match bytes.byte() {
            at @ 0..192 => COMMON[usize::from(at) % COMMON.len()].to_owned(),
            at @ 192..250 => {
                SYSCALLS[(usize::from(at - 192) << 8 | usize::from(bytes.byte())) % SYSCALLS.len()].0.into()
            }
            _ => "no_such_call".into(),
        })
        .collect();
    // Which would wait for an answer before it could be asked.
    let but = if names.iter().any(|name| name == "write") { "SCMP_ACT_NOTIFY" } else { "" };
    let (action, errno_ret) = action(bytes, but);
    let count = [0, 0, 1, 1, 2, 3, 4, 6][usize::from(bytes.byte() % 8)];
    let operators: Vec<_> = operators().collect();
    let args = (0..count)
        .map(|_| SyscallArg {
            index: bytes.below(6) as u32,
            op: bytes.of(&operators).to_owned(),
            value: constant(bytes),
            value_two: constant(bytes),
        })
        .collect();
    SyscallRule { names, action, errno_ret, args }
}

/// Constants that share halves and border on each other, or any.
fn constant(bytes: &mut Bytes<'_>) -> u64 {
    const COMMON: [u64; 14] = [
        0,
        1,
        2,
        3,
        7,
        0xff,
        0x7e02_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        0xffff_ffff_0000_0000,
        u64::MAX,
    ];
    match bytes.byte() {
        at @ 0..224 => COMMON[usize::from(at) % COMMON.len()],
        _ => bytes.u64(),
    }
}

/// xorshift from the input, so that an input always asks the same.
struct Random(u64);

impl Random {
    fn new(data: &[u8]) -> Self {
        let hash = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self(hash | 1)
    }

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

/// The numbers of the calls named, their neighbours, the same of the other x86 ABI, and the ends of every range.
fn numbers(arch: &Arch, profile: &Seccomp, random: &mut Random) -> Vec<u32> {
    let mut out = vec![
        0,
        X32_BIT - 1,
        X32_BIT,
        2 * X32_BIT - 1,
        2 * X32_BIT,
        3 * X32_BIT - 1,
        3 * X32_BIT,
        u32::MAX - 1,
    ];
    out.extend([u32::MAX, 1000, 5000, 6000, random.below(1 << 32) as u32]);
    for name in profile.syscalls.iter().flat_map(|rule| &rule.names) {
        let Some(number) = Call::find(name).and_then(|call| arch.number(call)) else { continue };
        out.extend([number, number, number ^ X32_BIT, number.wrapping_add(1), number.wrapping_sub(1)]);
    }
    for via in ["socketcall", "ipc"] {
        let number = Call::find(via).and_then(|call| arch.number(call));
        out.extend(number.filter(|_| arch.multiplexed).into_iter().flat_map(|number| [number; 4]));
    }
    // All of a long profile are too many for one input; another one asks for others.
    while out.len() > 64 {
        let at = random.below(out.len());
        out.swap_remove(at);
    }
    out
}

/// Arguments that meet one of the rules, or nearly.
fn arguments(profile: &Seccomp, random: &mut Random) -> [u64; 6] {
    let all: Vec<&SyscallArg> = profile.syscalls.iter().flat_map(|rule| &rule.args).collect();
    let near = |value: u64, random: &mut Random| match random.below(12) {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => value ^ 1 << 32,
        3 => value & 0xffff_ffff,
        4 => value | 0xffff_ffff_0000_0000,
        5 => value.swap_bytes(),
        6 => value ^ 1 << random.below(64),
        _ => value,
    };
    let mut out = [0; 6].map(|_: u64| match random.below(3) {
        0 => random.below(25) as u64,
        _ if all.is_empty() => random.below(1 << 50) as u64,
        _ => {
            let arg = random.of(&all);
            near(if random.below(4) == 0 { arg.value_two } else { arg.value }, random)
        }
    });
    if !profile.syscalls.is_empty() {
        let meant = &profile.syscalls[random.below(profile.syscalls.len())];
        for arg in &meant.args {
            let value = match arg.op.as_str() {
                "SCMP_CMP_MASKED_EQ" => arg.value_two & arg.value | random.below(1 << 40) as u64 & !arg.value,
                _ => arg.value,
            };
            out[arg.index as usize] = near(value, random);
        }
        if random.below(3) == 0 {
            out[0] = random.below(25) as u64;
        }
    }
    out
}

/// A condition as an ABI sees it: masked, in 32 bits where it has no more.
#[derive(Debug, Clone, PartialEq)]
struct Condition {
    arg: usize,
    op: &'static str,
    mask: u64,
    datum: u64,
}

impl Condition {
    fn holds(&self, args: &[u64; 6]) -> bool {
        let have = args[self.arg] & self.mask;
        match self.op {
            "NE" => have != self.datum,
            "LT" => have < self.datum,
            "LE" => have <= self.datum,
            "GE" => have >= self.datum,
            "GT" => have > self.datum,
            _ => have == self.datum,
        }
    }

    /// libseccomp's order: the higher argument, equality, what is below, what is above; there the narrower one.
    fn before(&self, other: &Self) -> Ordering {
        let class = |this: &Self| match this.op {
            "GT" | "GE" => 1,
            "LT" | "LE" => 2,
            _ => 3,
        };
        let narrow = match class(self) {
            2 => self.datum.cmp(&other.datum),
            _ => other.datum.cmp(&self.datum),
        };
        other.arg.cmp(&self.arg).then(class(other).cmp(&class(self))).then(narrow)
    }
}

/// A rule for one call of one ABI.
#[derive(Debug)]
struct Held {
    conditions: Vec<Condition>,
    action: u32,
}

/// What the rules say about one call of one ABI, from which the answer is read off rule by rule.
#[derive(Debug, Default)]
struct Rules {
    always: Option<u32>,
    list: Vec<Held>,
    contradicts: bool,
}

impl Rules {
    /// `multiplexed` ones that say otherwise give way.
    fn add(&mut self, conditions: Vec<Condition>, action: u32, multiplexed: bool) {
        if self.always.is_some() {
            return;
        }
        if conditions.is_empty() {
            self.always = Some(action);
            return;
        }
        // A longer one behind a shorter one that it begins with is void.
        if self
            .list
            .iter()
            .any(|held| held.conditions.len() < conditions.len() && conditions.starts_with(&held.conditions))
        {
            return;
        }
        match self.list.iter().find(|held| held.conditions == conditions) {
            Some(held) => self.contradicts |= held.action != action && !multiplexed,
            None => self.list.push(Held { conditions, action }),
        }
    }

    /// Which of two rules is asked first.
    fn order(&self, one: &Held, two: &Held) -> Ordering {
        let same = one.conditions.iter().zip(&two.conditions).take_while(|(a, b)| a == b).count();
        match (one.conditions.get(same), two.conditions.get(same)) {
            (None, None) => Ordering::Equal,
            (None, _) => Ordering::Greater,
            (_, None) => Ordering::Less,
            (Some(a), Some(b)) => a.before(b).then_with(|| {
                let first = |with: &Held| {
                    self.list.iter().position(|held| held.conditions.starts_with(&with.conditions[..=same]))
                };
                first(one).cmp(&first(two))
            }),
        }
    }

    fn answer(&self, args: &[u64; 6]) -> Option<u32> {
        if self.always.is_some() {
            return self.always;
        }
        let holds = |held: &&Held| held.conditions.iter().all(|condition| condition.holds(args));
        self.list.iter().filter(holds).min_by(|one, two| self.order(one, two)).map(|held| held.action)
    }
}

/// The rules of one ABI by number, and the highest number that is named.
type Table = (Vec<(u32, Rules)>, Option<u32>);

#[derive(Debug)]
struct Model {
    default: u32,
    archs: Vec<&'static Arch>,
    /// One for each ABI.
    tables: Vec<Table>,
}

fn number_of(action: &str, errno: Option<u32>) -> u32 {
    let value = ACTIONS.iter().find(|known| known.0 == action).unwrap().1;
    let has_data = ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&action);
    if has_data { value | errno.unwrap_or(1) } else { value }
}

const ENOSYS: u32 = 0x0005_0000 | 38;
const KILL_THREAD: u32 = 0;

impl Model {
    fn new(profile: &Seccomp, native: &'static Arch) -> Self {
        let default = number_of(&profile.default_action, profile.default_errno_ret);
        let mut archs = vec![native];
        for name in &profile.architectures {
            let arch = Arch::find(name).unwrap();
            if !archs.contains(&arch) {
                archs.push(arch);
            }
        }
        let tables = archs.iter().map(|arch| table(profile, default, arch)).collect();
        Self { default, archs, tables }
    }

    fn contradicts(&self) -> bool {
        self.tables.iter().flat_map(|(table, _)| table).any(|(_, rules)| rules.contradicts)
    }

    fn allows_all(&self, profile: &Seccomp) -> bool {
        let nothing = |(table, _): &Table| table.is_empty();
        self.default == 0x7fff_0000 && profile.architectures.is_empty() && self.tables.iter().all(nothing)
    }

    /// More instructions than it may have.
    fn length(&self) -> usize {
        let of =
            |rules: &Rules| 8 + rules.list.iter().map(|held| 2 + 8 * held.conditions.len()).sum::<usize>();
        let table = |table: &Table| 64 + table.0.iter().map(|(_, rules)| of(rules)).sum::<usize>();
        // Long jumps and returns that are written again.
        self.tables.iter().map(table).sum::<usize>() * 2
    }

    fn answer(&self, data: &Data) -> u32 {
        let of = |x32: bool| {
            let mut both = self.archs.iter().zip(&self.tables);
            both.find(|(arch, _)| arch.audit == data.arch && arch.is_x32() == x32)
        };
        let newest = |x32| of(x32).and_then(|(_, table)| table.1);
        let plain = of(false);
        let is_x86 = of(true).is_some() || plain.is_some_and(|(arch, _)| arch.has_x32());
        match data.number {
            _ if plain.is_none() && of(true).is_none() => KILL_THREAD,
            _ if !is_x86 => plain.map_or(KILL_THREAD, |(arch, table)| self.look_up(arch, table, data)),
            0..X32_BIT => plain.map_or(KILL_THREAD, |(arch, table)| self.look_up(arch, table, data)),
            number if number < 2 * X32_BIT => {
                of(true).map_or(KILL_THREAD, |(arch, table)| self.look_up(arch, table, data))
            }
            // No call has the topmost bit; -1 is what a tracer sets to skip one.
            number => {
                let x32 = number >= 3 * X32_BIT;
                match newest(x32) {
                    Some(_) => ENOSYS,
                    None if number == u32::MAX || of(true).is_some() => self.default,
                    None => KILL_THREAD,
                }
            }
        }
    }

    fn look_up(&self, arch: &Arch, (table, newest): &Table, data: &Data) -> u32 {
        if newest.is_some_and(|newest| data.number > newest || arch.unknown_is_zero() && data.number == 0) {
            return ENOSYS;
        }
        let rules = table.iter().find(|(number, _)| *number == data.number);
        rules.and_then(|(_, rules)| rules.answer(&data.args)).unwrap_or(self.default)
    }
}

fn table(profile: &Seccomp, default: u32, arch: &Arch) -> Table {
    let mut table: Vec<(u32, Rules)> = Vec::new();
    let mut newest = None;
    for rule in &profile.syscalls {
        let action = number_of(&rule.action, rule.errno_ret);
        let calls: Vec<Call> = rule.names.iter().filter_map(|name| Call::find(name)).collect();
        let mut conditions = rule.args.clone();
        conditions.sort_by_key(|arg| arg.index);
        let twice = conditions.windows(2).any(|pair| pair[0].index == pair[1].index);
        // An argument twice means either.
        let all =
            if twice { rule.args.iter().map(|arg| vec![arg.clone()]).collect() } else { vec![conditions] };
        for call in &calls {
            let via = call.multiplexer().filter(|_| arch.multiplexed);
            if via.is_none() {
                newest = newest.max(arch.number(*call));
            }
        }
        if action == default {
            continue;
        }
        for conditions in &all {
            for call in &calls {
                if let Some((via, number)) = call.multiplexer().filter(|_| arch.multiplexed)
                    && let Some(at) = Call::find(via).and_then(|via| arch.number(via))
                {
                    let first = Condition { arg: 0, op: "EQ", mask: mask(arch), datum: number };
                    let rest =
                        conditions.iter().filter(|arg| arg.index != 0).filter_map(|arg| seen(arg, arch));
                    let conditions = std::iter::once(first).chain(rest).collect();
                    entry(&mut table, at).add(conditions, action, true);
                }
                if let Some(at) = arch.number(*call) {
                    let conditions = conditions.iter().filter_map(|arg| seen(arg, arch)).collect();
                    entry(&mut table, at).add(conditions, action, false);
                }
            }
        }
    }
    let restricts = ![0x7fff_0000, 0x7ffc_0000].contains(&default) && default >> 16 != 0x7ff0;
    (table, newest.filter(|newest| restricts && *newest > 0))
}

fn entry(table: &mut Vec<(u32, Rules)>, number: u32) -> &mut Rules {
    if let Some(at) = table.iter().position(|(known, _)| *known == number) {
        return &mut table[at].1;
    }
    table.push((number, Rules::default()));
    &mut table.last_mut().unwrap().1
}

fn mask(arch: &Arch) -> u64 {
    if arch.wide { u64::MAX } else { 0xffff_ffff }
}

/// `None` where nothing is left to compare.
fn seen(arg: &SyscallArg, arch: &Arch) -> Option<Condition> {
    let op = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"];
    let op = op.into_iter().find(|op| arg.op == format!("SCMP_CMP_{op}")).unwrap();
    let (mask_, datum) = if op == "MASKED_EQ" { (arg.value, arg.value_two) } else { (u64::MAX, arg.value) };
    let mask = mask_ & mask(arch);
    (mask != 0).then_some(Condition { arg: arg.index as usize, op, mask, datum: datum & mask })
}

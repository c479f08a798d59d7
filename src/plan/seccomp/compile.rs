//! From rules to a BPF program.
//!
//! Every ABI's rules become a list of number ranges with one outcome each, searched by halving; what runc
//! does in three stacked programs (the -ENOSYS stub, the x32 check, the rules) is one lookup here. The
//! program is written from its end, where every jump's distance is known: BPF only jumps forwards, and a
//! conditional jump reaches 255 instructions.

#![forbid(unsafe_code)]

use super::Insn;
use super::table::{Arch, COUNT, Call, X32_BIT};

/// `SECCOMP_RET_KILL_THREAD`: what libseccomp gives an ABI that the filter does not name.
pub const BAD_ARCH: u32 = 0;
/// `SECCOMP_RET_ERRNO` with ENOSYS.
pub const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;
/// The kernel's BPF_MAXINSNS.
pub const MAX_INSNS: usize = 4096;

/// `SCMP_CMP_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `SCMP_CMP_NE`
    Ne,
    /// `SCMP_CMP_LT`
    Lt,
    /// `SCMP_CMP_LE`
    Le,
    /// `SCMP_CMP_EQ`
    Eq,
    /// `SCMP_CMP_GE`
    Ge,
    /// `SCMP_CMP_GT`
    Gt,
    /// `SCMP_CMP_MASKED_EQ`
    MaskedEq,
}

/// One condition on an argument; unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// 0 to 5.
    pub arg: u32,
    /// How to compare.
    pub op: Op,
    /// All ones but for [`Op::MaskedEq`].
    pub mask: u64,
    /// What to compare with, no bit outside of the mask.
    pub datum: u64,
}

impl Condition {
    /// What the ABI compares of it; `None` if that is always true.
    fn on(mut self, arch: &Arch) -> Option<Self> {
        if !arch.wide {
            self.mask &= 0xffff_ffff;
            self.datum &= 0xffff_ffff;
        }
        (self.mask != 0).then_some(self)
    }

    /// Where it stands among conditions at the same place of several rules, highest first: that of the
    /// higher argument, equality before `<` before `>`, then the one that is true for fewer values. This
    /// is libseccomp's order; it decides where two rules with different actions are both true.
    fn rank(&self) -> (u32, u8, u64) {
        match self.op {
            Op::Eq | Op::Ne | Op::MaskedEq => (self.arg, 3, self.datum),
            Op::Lt | Op::Le => (self.arg, 2, !self.datum),
            Op::Gt | Op::Ge => (self.arg, 1, self.datum),
        }
    }
}

/// A rule for some system calls.
#[derive(Debug)]
pub struct Rule {
    /// Index in `linux.seccomp.syscalls`.
    pub index: usize,
    /// `SECCOMP_RET_*` with its data.
    pub action: u32,
    /// The system calls.
    pub calls: Vec<Call>,
    /// All must hold; one an argument, sorted by it.
    pub conditions: Vec<Condition>,
}

/// Everything that decides about the program.
#[derive(Debug)]
pub struct Policy {
    /// `SECCOMP_RET_*` where no rule holds.
    pub default: u32,
    /// Whether calls newer than all those named get ENOSYS (see [`Policy::newest`]).
    pub stub: bool,
    /// The ABIs, native first.
    pub archs: Vec<&'static Arch>,
    /// The rules that do not just repeat the default.
    pub rules: Vec<Rule>,
    /// Which system calls any rule names, those that repeat the default too.
    pub named: [bool; COUNT],
}

/// Why there is no program.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The rule of that index has the conditions of an earlier one for the call, and another action.
    Conflict(usize, Call),
    /// More instructions than the kernel takes; at least so many.
    TooLong(usize),
}

/// Index of no node.
const NONE: u32 = u32::MAX;

/// A condition within the rules of one system call: true leads to `child`, then to `action`; false, and
/// true without an outcome, lead to `next`.
#[derive(Debug)]
struct Node {
    condition: Condition,
    action: Option<u32>,
    child: u32,
    next: u32,
}

/// What the rules say about one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing.
    Default,
    /// The same always.
    Always(u32),
    /// It depends on the arguments: the first node.
    Tree(u32),
}

/// The rules of one ABI.
struct Table<'a> {
    arch: &'a Arch,
    nodes: Vec<Node>,
    /// Number and outcome, sorted.
    calls: Vec<(u32, Outcome)>,
}

impl Policy {
    /// The program.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn compile(&self) -> Result<Vec<Insn>, Failure> {
        let mut code = Code { insns: Vec::with_capacity(1024), returns: Vec::new() };
        let mut other = code.ret(BAD_ARCH);
        for (i, arch) in self.archs.iter().enumerate().rev() {
            // x32 and x86_64 are one architecture to the kernel.
            if self.archs.iter().take(i).any(|earlier| earlier.audit == arch.audit) {
                continue;
            }
            let twin = self.archs.iter().skip(i + 1).find(|later| later.audit == arch.audit);
            let mut tables = vec![self.table(arch)?];
            if let Some(twin) = twin {
                tables.push(self.table(twin)?);
            }
            let start = self.search_number(&mut code, &tables);
            let start = code.load(0, start);
            other = code.branch(JEQ, arch.audit, start, other);
            if code.insns.len() > MAX_INSNS {
                return Err(Failure::TooLong(code.insns.len()));
            }
        }
        let entry = code.load(4, other);
        // Nothing in front of it is reached, as when all is killed anyway.
        code.insns.truncate(entry + 1);
        if code.insns.len() > MAX_INSNS {
            return Err(Failure::TooLong(code.insns.len()));
        }
        code.insns.reverse();
        Ok(code.insns)
    }

    /// The highest number of a call that the profile names: whoever wrote it did not know the later ones,
    /// so those are answered with ENOSYS and a C library falls back, where EPERM would make it fail (runc
    /// #2151). As in runc, 0 counts as none, and a multiplexed call does not count.
    fn newest(&self, arch: &Arch) -> Option<u32> {
        let named = self.named.iter().enumerate().filter(|(_, named)| **named);
        let calls = named.map(|(at, _)| Call(at as u16));
        let calls = calls.filter(|call| !arch.multiplexed || call.multiplexer().is_none());
        calls.filter_map(|call| arch.number(call)).max().filter(|newest| self.stub && *newest > 0)
    }

    fn table<'a>(&self, arch: &'a Arch) -> Result<Table<'a>, Failure> {
        let mut outcomes = [Outcome::Default; COUNT];
        let mut nodes = Vec::new();
        let mut conditions = Vec::with_capacity(6);
        for rule in &self.rules {
            for &call in &rule.calls {
                let multiplexer = if arch.multiplexed { call.multiplexer() } else { None };
                if let Some((name, number)) = multiplexer
                    && let Some(outcome) = Call::find(name).and_then(|via| outcomes.get_mut(via.0 as usize))
                {
                    // As libseccomp does it: what the rule says about argument 0 gives way, as the real
                    // arguments are in memory, which BPF cannot read.
                    let condition = Condition { arg: 0, op: Op::Eq, mask: u64::MAX, datum: number };
                    conditions.clear();
                    conditions.extend(condition.on(arch));
                    let rest = rule.conditions.iter().filter(|condition| condition.arg != 0);
                    conditions.extend(rest.filter_map(|condition| condition.on(arch)));
                    // Two rules that differed in argument 0 only cannot both stand: the earlier does.
                    let _same = insert(&mut nodes, outcome, &conditions, rule.action);
                }
                if arch.number(call).is_none() {
                    continue;
                }
                conditions.clear();
                conditions.extend(rule.conditions.iter().filter_map(|condition| condition.on(arch)));
                if let Some(outcome) = outcomes.get_mut(call.0 as usize)
                    && !insert(&mut nodes, outcome, &conditions, rule.action)
                {
                    return Err(Failure::Conflict(rule.index, call));
                }
                // A condition takes two instructions at least; this also bounds the time taken here.
                if nodes.len() > MAX_INSNS {
                    return Err(Failure::TooLong(2 * nodes.len()));
                }
            }
        }
        let decided = outcomes.iter().enumerate().filter(|(_, outcome)| **outcome != Outcome::Default);
        let numbered = decided.filter_map(|(at, outcome)| Some((arch.number(Call(at as u16))?, *outcome)));
        let mut calls: Vec<_> = numbered.collect();
        calls.sort_unstable_by_key(|(number, _)| *number);
        Ok(Table { arch, nodes, calls })
    }

    /// Writes the search for the number, which is in the accumulator, in the tables of one architecture.
    fn search_number(&self, code: &mut Code, tables: &[Table<'_>]) -> Label {
        let mut spans = Spans(Vec::with_capacity(256));
        let default = code.ret(self.default);
        let x32 = tables.iter().find(|table| table.arch.is_x32());
        let plain = tables.iter().find(|table| !table.arch.is_x32());
        match (plain, x32) {
            (Some(table), None) if !table.arch.has_x32() => {
                self.spans_of(code, &mut spans, table, 0, u32::MAX);
            }
            _ => {
                let bad = code.ret(BAD_ARCH);
                let enosys = code.ret(ENOSYS);
                let stub = |table: Option<&Table<'_>>| table.is_some_and(|t| self.newest(t.arch).is_some());
                match plain {
                    Some(table) => self.spans_of(code, &mut spans, table, 0, X32_BIT - 1),
                    None => spans.push(0, bad),
                }
                match x32 {
                    Some(table) => self.spans_of(code, &mut spans, table, X32_BIT, 2 * X32_BIT - 1),
                    None => spans.push(X32_BIT, bad),
                }
                // No call has the topmost bit. The stub tests the x32 bit, libseccomp compares with it.
                let negative = if x32.is_none() { bad } else { default };
                spans.push(2 * X32_BIT, if stub(plain) { enosys } else { negative });
                spans.push(3 * X32_BIT, if stub(x32) { enosys } else { negative });
                // A tracer sets -1 to skip a call (seccomp(2)); libseccomp gives it the default action.
                spans.push(u32::MAX, if stub(x32) { enosys } else { default });
            }
        }
        code.search(&spans.0)
    }

    /// The ranges from `first` to `last` of one ABI.
    fn spans_of(&self, code: &mut Code, spans: &mut Spans, table: &Table<'_>, first: u32, last: u32) {
        let default = code.ret(self.default);
        let newest = self.newest(table.arch);
        let end = newest.unwrap_or(last).min(last);
        let mut next = first;
        for (number, outcome) in table.calls.iter().filter(|(number, _)| (first..=end).contains(number)) {
            if *number > next {
                spans.push(next, default);
            }
            let label = match outcome {
                Outcome::Default => default,
                Outcome::Always(action) => code.ret(*action),
                Outcome::Tree(head) => code.level(table, *head, default),
            };
            spans.push(*number, label);
            next = number.saturating_add(1);
        }
        if next <= end {
            spans.push(next, default);
        }
        if end < last {
            let enosys = code.ret(ENOSYS);
            spans.push(end + 1, enosys);
        }
        // Calls newer than the kernel arrive as number 0 on s390, the setup(2) of old.
        if newest.is_some() && table.arch.unknown_is_zero() && first == 0 {
            let enosys = code.ret(ENOSYS);
            spans.zero(enosys);
        }
    }
}

/// Adds a rule to those of a system call; false if an earlier one says otherwise. Without conditions it
/// settles the call, unless an earlier one did. A longer one behind a shorter one that it begins with is
/// void; a shorter one behind it holds where the longer does not. libseccomp refuses that last case (unless
/// the actions are equal), but then podman's profile does not load where `socket` is multiplexed.
fn insert(nodes: &mut Vec<Node>, outcome: &mut Outcome, conditions: &[Condition], action: u32) -> bool {
    let Some((last, _)) = conditions.split_last() else {
        if !matches!(outcome, Outcome::Always(_)) {
            *outcome = Outcome::Always(action);
        }
        return true;
    };
    let mut head = match *outcome {
        Outcome::Always(_) => return true,
        Outcome::Tree(head) => head,
        Outcome::Default => NONE,
    };
    let mut parent = NONE;
    for condition in conditions {
        let (mut before, mut at) = (NONE, head);
        while at != NONE {
            let node = &nodes[at as usize];
            if node.condition == *condition || node.condition.rank() < condition.rank() {
                break;
            }
            (before, at) = (at, node.next);
        }
        let is_last = std::ptr::eq(condition, last);
        if at == NONE || nodes[at as usize].condition != *condition {
            let new = nodes.len() as u32;
            nodes.push(Node {
                condition: *condition,
                action: is_last.then_some(action),
                child: NONE,
                next: at,
            });
            match (before, parent) {
                (NONE, NONE) => *outcome = Outcome::Tree(new),
                (NONE, parent) => nodes[parent as usize].child = new,
                (before, _) => nodes[before as usize].next = new,
            }
            at = new;
        } else if is_last {
            match nodes[at as usize].action {
                Some(earlier) => return earlier == action,
                None if agrees(nodes, nodes[at as usize].child, action) => nodes[at as usize].child = NONE,
                None => {}
            }
            nodes[at as usize].action = Some(action);
        } else if nodes[at as usize].action.is_some() {
            return true;
        }
        parent = at;
        head = nodes[at as usize].child;
    }
    true
}

/// Whether every action in the level and below is this one.
fn agrees(nodes: &[Node], head: u32, action: u32) -> bool {
    let mut at = head;
    while at != NONE {
        let node = &nodes[at as usize];
        if node.action.is_some_and(|other| other != action) || !agrees(nodes, node.child, action) {
            return false;
        }
        at = node.next;
    }
    true
}

/// Where a range starts and what happens in it.
#[derive(Debug)]
struct Spans(Vec<(u32, Label)>);

impl Spans {
    /// A new range behind all others; merged with the last one if the same happens there.
    fn push(&mut self, start: u32, label: Label) {
        if self.0.last().is_none_or(|last| last.1 != label) {
            self.0.push((start, label));
        }
    }

    /// Cuts off number 0.
    fn zero(&mut self, label: Label) {
        if self.0.get(1).is_none_or(|second| second.0 > 1)
            && let Some(first) = self.0.first().copied()
        {
            self.0.insert(1, (1, first.1));
        }
        if let Some(first) = self.0.first_mut() {
            first.1 = label;
        }
    }
}

// linux/bpf_common.h
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// An instruction, as its place counted from the end of the program.
type Label = usize;

/// A distance at which a jump still reaches, with room for the long jumps inserted on its behalf.
const NEAR: usize = 250;

/// The program, last instruction first.
struct Code {
    insns: Vec<Insn>,
    /// Where each action was written first, and last.
    returns: Vec<(u32, Label, Label)>,
}

impl Code {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.insns.push(Insn { code, jt, jf, k });
        self.insns.len() - 1
    }

    /// The return of an action; the same label for the same action, however far.
    fn ret(&mut self, action: u32) -> Label {
        if let Some(known) = self.returns.iter().find(|known| known.0 == action) {
            return known.1;
        }
        let label = self.push(RET, 0, 0, action);
        self.returns.push((action, label, label));
        label
    }

    /// A label within reach that leads to the given one.
    fn near(&mut self, label: Label) -> Label {
        let here = self.insns.len();
        if here - label <= NEAR {
            return label;
        }
        let Some(known) = self.returns.iter_mut().find(|known| known.1 == label) else {
            return self.push(JA, 0, 0, (here - label - 1) as u32);
        };
        if here - known.2 > NEAR {
            known.2 = here;
            let action = known.0;
            return self.push(RET, 0, 0, action);
        }
        known.2
    }

    /// Compares the accumulator.
    fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let (yes, no) = (self.near(yes), self.near(no));
        let here = self.insns.len();
        // `near` keeps both below 256.
        self.push(code, (here - yes - 1) as u8, (here - no - 1) as u8, k)
    }

    /// Loads a word of `seccomp_data` for the instruction just written; one of before looks at none.
    fn load(&mut self, offset: u32, next: Label) -> Label {
        if next + 1 == self.insns.len() && self.insns.last().is_some_and(|insn| insn.code != RET) {
            return self.push(LOAD, 0, 0, offset);
        }
        next
    }

    /// Loads half of an argument and compares it.
    fn word(&mut self, offset: u32, mask: u32, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        self.branch(code, k, yes, no);
        if mask != u32::MAX {
            self.push(AND, 0, 0, mask);
        }
        self.push(LOAD, 0, 0, offset)
    }

    /// One condition.
    fn condition(&mut self, arch: &Arch, condition: &Condition, yes: Label, no: Label) -> Label {
        let Condition { arg, op, mask, datum } = *condition;
        let (high, low) = ((datum >> 32) as u32, datum as u32);
        let (high_mask, low_mask) = ((mask >> 32) as u32, mask as u32);
        // struct seccomp_data: the arguments follow number, architecture and instruction pointer.
        let at = 16 + 8 * arg;
        let (high_at, low_at) = if arch.big_endian { (at, at + 4) } else { (at + 4, at) };
        let (code, yes, no) = match op {
            Op::Eq | Op::MaskedEq => (JEQ, yes, no),
            Op::Ne => (JEQ, no, yes),
            Op::Gt => (JGT, yes, no),
            Op::Ge => (JGE, yes, no),
            Op::Lt => (JGE, no, yes),
            Op::Le => (JGT, no, yes),
        };
        let mut label = yes;
        if low_mask != 0 {
            label = self.word(low_at, low_mask, code, low, yes, no);
        }
        if !arch.wide || high_mask == 0 {
            return label;
        }
        if code == JEQ {
            return self.word(high_at, high_mask, JEQ, high, label, no);
        }
        let equal = self.branch(JEQ, high, label, no);
        self.word(high_at, u32::MAX, JGT, high, yes, equal)
    }

    /// The conditions of a level and below; `otherwise` where none decides.
    fn level(&mut self, table: &Table<'_>, head: u32, otherwise: Label) -> Label {
        let mut level = Vec::new();
        let mut at = head;
        while at != NONE {
            let node = &table.nodes[at as usize];
            level.push(node);
            at = node.next;
        }
        let mut next = otherwise;
        for node in level.into_iter().rev() {
            let mut yes = match node.action {
                Some(action) => self.ret(action),
                None => next,
            };
            if node.child != NONE {
                yes = self.level(table, node.child, yes);
            }
            next = self.condition(table.arch, &node.condition, yes, next);
        }
        next
    }

    /// Finds the range of the number in the accumulator.
    fn search(&mut self, spans: &[(u32, Label)]) -> Label {
        match spans {
            [] => self.ret(BAD_ARCH),
            [(_, label)] => *label,
            // One number in the midst of a range is one comparison.
            [(_, outside), (number, label), (after, again)]
                if outside == again && number.checked_add(1) == Some(*after) =>
            {
                self.branch(JEQ, *number, *label, *outside)
            }
            _ => {
                let (below, above) = spans.split_at(spans.len() / 2);
                let start = above.first().map_or(0, |span| span.0);
                let above = self.search(above);
                let below = self.search(below);
                self.branch(JGE, start, above, below)
            }
        }
    }
}

//! Device rules as a program for cgroup v2, whose device controller is what such a program answers.
//!
//! Rules are in order and a later one wins, so the program looks at them from the last to the first and strikes
//! out of the access that is asked for what a rule decides: a rule that denies a part of it ends in a refusal, and
//! once nothing is left everything was allowed. What no rule decides is refused. That is what the rules say bit by
//! bit; v1 can hold neither a hole in a wider rule nor an access put together from two rules.

#![forbid(unsafe_code)]

use super::devices::{Access, DeviceRule, DeviceType};

/// One instruction (struct bpf_insn).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    dst: u8,
    src: u8,
    off: i16,
    imm: i32,
}

// Codes of <linux/bpf.h> and <linux/bpf_common.h>.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOV_IMM: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOV_REG: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND_IMM: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP: u8 = 0x05; // BPF_JMP | BPF_JA
const JUMP_NE: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JUMP_SET: u8 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

// Registers: the answer, the context, and what is loaded from that.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

const fn op(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Instruction {
    Instruction { code, dst, src, off, imm }
}

/// What makes one answer.
const fn answer(allow: bool) -> [Instruction; 2] {
    [op(MOV_IMM, ANSWER, 0, 0, allow as i32), op(EXIT, 0, 0, 0, 0)]
}

impl Instruction {
    /// As the kernel reads it.
    pub fn encode(self) -> [u8; 8] {
        // Two bit fields of four bits, of which the first is the low one on little-endian machines.
        let registers =
            if cfg!(target_endian = "little") { self.src << 4 | self.dst } else { self.dst << 4 | self.src };
        let (off, imm) = (self.off.to_ne_bytes(), self.imm.to_ne_bytes());
        [self.code, registers, off[0], off[1], imm[0], imm[1], imm[2], imm[3]]
    }
}

/// The program for these rules; none where they allow everything.
pub fn program(rules: &[DeviceRule]) -> Option<Vec<Instruction>> {
    // struct bpf_cgroup_dev_ctx: access and type in the halves of one word, major, minor.
    let mut program = vec![
        op(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        op(MOV_REG, ACCESS, TYPE, 0, 0),
        op(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        op(AND_IMM, TYPE, 0, 0, 0xffff),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    let start = rules.iter().rposition(DeviceRule::is_all);
    let base = start.and_then(|i| rules.get(i)).is_some_and(|rule| rule.allow);
    let rules = rules.get(start.map_or(0, |i| i.saturating_add(1))..).unwrap_or_default();
    if base && rules.iter().all(|rule| rule.allow) {
        return None;
    }
    rules.iter().rev().for_each(|rule| append(&mut program, rule));
    program.extend(answer(base));
    Some(program)
}

fn append(program: &mut Vec<Instruction>, rule: &DeviceRule) {
    let mut conditions = Vec::with_capacity(3);
    match rule.typ {
        DeviceType::All => {}
        DeviceType::Block => conditions.push((TYPE, BLOCK)),
        DeviceType::Char => conditions.push((TYPE, CHAR)),
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        match number.map(i32::try_from) {
            None => {}
            Some(Ok(number)) => conditions.push((register, number)),
            // The kernel's numbers are of 12 and 20 bits: no device has this one.
            Some(Err(_)) => return,
        }
    }
    let bits = i32::try_from(rule.access.bpf()).unwrap_or(0);
    let mut block = Vec::with_capacity(7);
    if rule.allow {
        block.push(op(AND_IMM, ACCESS, 0, 0, 7 & !bits));
        if rule.access != Access::ALL {
            block.push(op(JUMP_NE, ACCESS, 0, 2, 0));
        }
    } else {
        block.extend([op(JUMP_SET, ACCESS, 0, 1, bits), op(JUMP, 0, 0, 2, 0)]);
    }
    block.extend(answer(rule.allow));
    // Each condition leaves for the next rule, behind the conditions that follow it and the block.
    let length = conditions.len().saturating_add(block.len());
    for (i, (register, value)) in conditions.into_iter().enumerate() {
        let off = i16::try_from(length.saturating_sub(i).saturating_sub(1)).unwrap_or(0);
        program.push(op(JUMP_NE, register, 0, off, value));
    }
    program.extend(block);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cgroup::devices::rules;
    use crate::spec::{self, read::document};

    /// The kernel's part: runs a program on a device and an access.
    fn run(program: &[Instruction], typ: u32, major: u32, minor: u32, access: u32) -> bool {
        let context = [access << 16 | typ, major, minor];
        let mut registers = [0_u64; 6];
        let (mut at, mut left) = (0_usize, program.len() + 1);
        loop {
            let i = program[at];
            left = left.checked_sub(1).expect("jumps forward only, so it ends");
            let (dst, imm) = (usize::from(i.dst), i64::from(i.imm) as u64);
            let mut next = at + 1;
            let jump = next + usize::try_from(i.off).expect("forward");
            match i.code {
                LOAD_WORD => {
                    assert_eq!(i.src, CONTEXT);
                    registers[dst] = context[usize::try_from(i.off).unwrap() / 4].into();
                    next = at + 1;
                }
                MOV_IMM => registers[dst] = u64::from(i.imm as u32),
                MOV_REG => registers[dst] = registers[usize::from(i.src)] & 0xffff_ffff,
                AND_IMM => registers[dst] &= u64::from(i.imm as u32),
                SHIFT_RIGHT => registers[dst] = (registers[dst] & 0xffff_ffff) >> i.imm,
                JUMP => next = jump,
                JUMP_NE if registers[dst] != imm => next = jump,
                JUMP_SET if registers[dst] & imm != 0 => next = jump,
                JUMP_NE | JUMP_SET => {}
                EXIT => return registers[0] == 1,
                code => panic!("unknown code {code:#x}"),
            }
            at = next;
        }
    }

    /// What the rules mean: for each bit of the access, the last rule that speaks of it.
    fn model(rules: &[DeviceRule], typ: DeviceType, major: u32, minor: u32, access: u32) -> bool {
        let speaks = |rule: &&DeviceRule, bit: u32| {
            (rule.typ == DeviceType::All || rule.typ == typ)
                && rule.major.is_none_or(|n| n == major)
                && rule.minor.is_none_or(|n| n == minor)
                && rule.access.bpf() & bit != 0
        };
        [1, 2, 4]
            .into_iter()
            .filter(|bit| access & bit != 0)
            .all(|bit| rules.iter().rev().find(|rule| speaks(rule, bit)).is_some_and(|rule| rule.allow))
    }

    fn agrees(rules: &[DeviceRule], numbers: &[u32]) -> usize {
        let program = program(rules);
        let mut count = 0;
        for (typ, number) in [(DeviceType::Block, BLOCK), (DeviceType::Char, CHAR)] {
            for &major in numbers {
                for &minor in numbers {
                    for access in 1..8 {
                        let said =
                            program.as_ref().is_none_or(|p| run(p, number as u32, major, minor, access));
                        let want = model(rules, typ, major, minor, access);
                        assert_eq!(said, want, "{typ:?} {major}:{minor} {access:#b} under {rules:#?}");
                        count += 1;
                    }
                }
            }
        }
        count
    }

    fn parse(json: &str) -> Vec<DeviceRule> {
        let text = format!("{{\"devices\":{json}}}");
        let resources: spec::Resources = document(text.as_bytes()).expect("valid JSON");
        rules(&resources.devices).expect("accepted")
    }

    #[test]
    fn the_program_says_what_the_rules_say() {
        for json in [
            "[]",
            r#"[{"allow":true,"access":"rwm"}]"#,
            r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]"#,
            r#"[{"allow":true,"type":"b","access":"rw"},{"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#,
            r#"[{"allow":true,"type":"c","minor":9,"access":"rwm"}]"#,
            r#"[{"allow":true,"major":8,"access":"r"},{"allow":true,"major":8,"minor":1,"access":"w"}]"#,
            r#"[{"allow":true,"type":"c","major":4294967295,"minor":3,"access":"rwm"}]"#,
            r#"[{"allow":false,"type":"c","access":"m"},{"allow":false,"access":"rwm"}]"#,
        ] {
            let checked = agrees(&parse(json), &[0, 1, 3, 5, 8, 9, 136, 200, 0xfff, 0xf_ffff]);
            assert_eq!(checked, 1400, "{json}");
        }
    }

    #[test]
    fn any_rules_in_any_order_are_followed() {
        // A small linear congruential generator: the same rules in every run.
        let mut seed = 7_u64;
        let mut next = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        for _ in 0..2000 {
            let length = next(8);
            let list: Vec<String> = (0..length)
                .map(|_| {
                    let typ = ["a", "b", "c"][next(3) as usize];
                    let number = |n: u64| ["-1", "0", "1", "2"][n as usize];
                    let (major, minor) = (number(next(4)), number(next(4)));
                    let access = ["r", "w", "m", "rw", "rm", "wm", "rwm"][next(7) as usize];
                    let allow = next(2) == 0;
                    format!(
                        r#"{{"allow":{allow},"type":"{typ}","major":{major},"minor":{minor},"access":"{access}"}}"#
                    )
                })
                .collect();
            let mut rules = parse(&format!("[{}]", list.join(",")));
            agrees(&rules, &[0, 1, 2, 3]);
            // Without those that every container has, too: they hide what mknod is denied.
            rules.truncate(rules.len() - 11);
            agrees(&rules, &[0, 1, 2, 3]);
        }
    }

    #[test]
    fn a_privileged_container_needs_no_program() {
        assert_eq!(program(&parse(r#"[{"allow":true,"access":"rwm"}]"#)), None);
        assert!(program(&parse("[]")).is_some());
    }

    #[test]
    fn an_instruction_has_the_kernels_layout() {
        let want = if cfg!(target_endian = "little") {
            [0x61, 0x12, 4, 0, 0, 0, 0, 0]
        } else {
            [0x61, 0x21, 0, 4, 0, 0, 0, 0]
        };
        assert_eq!(op(LOAD_WORD, 2, 1, 4, 0).encode(), want);
    }
}

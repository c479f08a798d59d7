//! Runs a filter as the kernel would, to compare programs.

#![forbid(unsafe_code)]

use super::Insn;

/// What the filter looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Data {
    pub number: u32,
    pub arch: u32,
    pub args: [u64; 6],
    pub big_endian: bool,
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                if (offset % 8 == 4) == self.big_endian { arg as u32 } else { (arg >> 32) as u32 }
            }
            _ => panic!("load from {offset}"),
        }
    }
}

/// Checks a program as the kernel's seccomp_check_filter does, and that every jump stays inside.
pub(super) fn check(program: &[Insn]) {
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    for (at, insn) in program.iter().enumerate() {
        let reach = match insn.code {
            0x20 => {
                assert!(insn.k < 64 && insn.k % 4 == 0, "load from {}", insn.k);
                0
            }
            0x54 | 0x06 => 0,
            0x05 => insn.k as usize,
            0x15 | 0x25 | 0x35 => usize::from(insn.jt.max(insn.jf)),
            code => panic!("instruction {code:#x} at {at}"),
        };
        assert!(insn.code == 0x06 || at + 1 + reach < program.len(), "{at} leads out of the program");
    }
}

/// The action for one call, and how many instructions it took.
pub(super) fn run(program: &[Insn], data: &Data) -> (u32, usize) {
    let (mut at, mut acc, mut steps) = (0, 0, 0);
    loop {
        let insn = program[at];
        (at, steps) = (at + 1, steps + 1);
        let yes = match insn.code {
            0x06 => return (insn.k, steps),
            0x20 => {
                acc = data.word(insn.k);
                continue;
            }
            0x54 => {
                acc &= insn.k;
                continue;
            }
            0x05 => {
                at += insn.k as usize;
                continue;
            }
            0x15 => acc == insn.k,
            0x25 => acc > insn.k,
            0x35 => acc >= insn.k,
            code => panic!("instruction {code:#x}"),
        };
        at += usize::from(if yes { insn.jt } else { insn.jf });
    }
}

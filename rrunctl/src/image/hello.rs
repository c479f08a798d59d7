//! `rrunctl run hello`: an image that is in this program, for a machine without a network.

#![forbid(unsafe_code)]

use super::{Image, import};
use crate::error::{Context as _, Error, Kind, Result};
use crate::reference::Reference;
use crate::store::Store;

/// What it is called; Docker Hub has no `hello`.
pub const HELLO: &str = "hello";

const MESSAGE: &str = "
Hello from a container.

This program is process 1 of namespaces of its own. To get here,
 1. rrunctl unpacked an image that it carries with it, and put a layer to write to on top;
 2. it made a network namespace, and gave it an address on the bridge;
 3. rrunmon mounted the layers and called rrun, which made the other namespaces and the cgroup;
 4. rrun executed this program, and rrunmon handed its output to you.

Next, bring an image here and look around in it:
 $ rrunctl run -it busybox sh

";

/// Makes the image.
///
/// # Errors
/// A machine for which there are no instructions here; those of [`import`].
pub fn hello(store: &Store) -> Result<Image> {
    let mut archive = tar::Builder::new(Vec::new());
    let program = program(std::env::consts::ARCH, MESSAGE).ok_or_else(|| {
        Error::new(
            Kind::Unsupported,
            format!("the image {HELLO} is not there for {}", std::env::consts::ARCH),
        )
    })?;
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    archive.append_data(&mut header, HELLO, &program[..]).context(|| "pack the image hello")?;
    let archive = archive.into_inner().context(|| "pack the image hello")?;
    let name = Reference::parse(HELLO)?;
    import(store, &archive[..], "rrunctl", "", &[format!("CMD [\"/{HELLO}\"]")], None, Some(&name))
}

/// A static ELF file for `arch` that writes `message` and exits.
fn program(arch: &str, message: &str) -> Option<Vec<u8>> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: usize = 64 + 56;
    let length = u32::try_from(message.len()).ok()?;
    let (machine, code): (u16, Vec<u8>) = match arch {
        "x86_64" => {
            let mut code = vec![0xb8, 1, 0, 0, 0]; // mov eax, 1 (write)
            code.extend([0xbf, 1, 0, 0, 0]); // mov edi, 1
            code.extend([0x48, 0x8d, 0x35, 16, 0, 0, 0]); // lea rsi, [rip+16]: behind the last instruction
            code.push(0xba); // mov edx, length
            code.extend(length.to_le_bytes());
            code.extend([0x0f, 0x05]); // syscall
            code.extend([0xb8, 60, 0, 0, 0]); // mov eax, 60 (exit)
            code.extend([0x31, 0xff]); // xor edi, edi
            code.extend([0x0f, 0x05]); // syscall
            (62, code)
        }
        "aarch64" => {
            let movz = |register: u32, value: u32| 0xd280_0000 | (value << 5) | register;
            let words = [
                movz(8, 64), // write
                movz(0, 1),
                0x1000_0000 | (6 << 5) | 1, // adr x1, 24 bytes on: behind the last instruction
                movz(2, length),
                0xd400_0001, // svc 0
                movz(8, 93), // exit
                movz(0, 0),
                0xd400_0001,
            ];
            (183, words.into_iter().flat_map(u32::to_le_bytes).collect())
        }
        _ => return None,
    };
    let size = (HEADERS + code.len() + message.len()) as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(&2_u16.to_le_bytes()); // ET_EXEC
    put(&machine.to_le_bytes());
    put(&1_u32.to_le_bytes());
    put(&(BASE + HEADERS as u64).to_le_bytes()); // e_entry
    put(&64_u64.to_le_bytes()); // e_phoff
    put(&0_u64.to_le_bytes());
    put(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        put(&half.to_le_bytes());
    }
    put(&1_u32.to_le_bytes()); // PT_LOAD
    put(&5_u32.to_le_bytes()); // read, execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        put(&word.to_le_bytes());
    }
    put(&code);
    put(message.as_bytes());
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_program_says_its_message_and_exits() {
        let path = std::env::temp_dir().join(format!("rrunctl-hello-{}", std::process::id()));
        std::fs::write(&path, program(std::env::consts::ARCH, MESSAGE).expect("this machine"))
            .expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let output = std::process::Command::new(&path).output().expect("it executes");
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()),
            (Some(0), MESSAGE)
        );
    }

    #[test]
    fn the_other_machines_program_finds_its_message_behind_its_last_instruction() {
        let file = program("aarch64", "hi\n").expect("known");
        assert_eq!(file[18..20], 183_u16.to_le_bytes());
        // adr is the third of eight instructions behind 120 bytes of headers.
        let adr = u32::from_le_bytes(file[128..132].try_into().expect("four"));
        let distance = ((adr >> 5) & 0x7_ffff) as usize * 4 + ((adr >> 29) & 3) as usize;
        assert_eq!(&file[128 + distance..], b"hi\n");
        assert_eq!(program("m68k", ""), None);
    }
}

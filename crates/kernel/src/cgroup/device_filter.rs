//! Device rules on cgroup v2: an eBPF program attached to the cgroup.
//!
//! v2 has no device files; the kernel asks a program of type `CGROUP_DEVICE` at each open and mknod. The rules are compiled last
//! first, each a short chain of comparisons that ends in its verdict; what no rule matches is denied.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use super::DeviceRule;

/// One eBPF instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE_IMMEDIATE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_RIGHT_IMMEDIATE: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_REGISTER_NOT_EQUAL: u8 = 0x5d;
const EXIT: u8 = 0x95;

// r2: type, r3: access, r4: major, r5: minor (of `struct bpf_cgroup_dev_ctx` in r1).
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

/// The program for `rules`.
pub(super) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, TYPE, 1, 0, 0),
        instruction(AND_IMMEDIATE, TYPE, 0, 0, 0xffff),
        instruction(LOAD_WORD, ACCESS, 1, 0, 0),
        instruction(SHIFT_RIGHT_IMMEDIATE, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, 1, 4, 0),
        instruction(LOAD_WORD, MINOR, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(compile_rule(rule));
        if rule.is_everything() {
            return program;
        }
    }
    program.extend(verdict(false));
    program
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [instruction(MOVE_IMMEDIATE, 0, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

fn compile_rule(rule: &DeviceRule) -> Vec<Instruction> {
    // Each test jumps over the rest of its rule; the distances are known once the rule is complete.
    let mut tests = Vec::new();
    match rule.kind {
        'b' => tests.push(instruction(JUMP_NOT_EQUAL, TYPE, 0, 0, 1)),
        'c' => tests.push(instruction(JUMP_NOT_EQUAL, TYPE, 0, 0, 2)),
        _both => {}
    }
    let access = i32::from(rule.mknod) | i32::from(rule.read) << 1 | i32::from(rule.write) << 2;
    if access != 7 {
        tests.push(instruction(MOVE_REGISTER, 1, ACCESS, 0, 0));
        tests.push(instruction(AND_IMMEDIATE, 1, 0, 0, access));
        // An allowing rule must cover all that is asked; a denying one applies when it names any of it.
        match rule.allow {
            true => tests.push(instruction(JUMP_REGISTER_NOT_EQUAL, 1, ACCESS, 0, 0)),
            false => tests.push(instruction(0x15, 1, 0, 0, 0)),
        }
    }
    if let Some(major) = rule.major {
        tests.push(instruction(JUMP_NOT_EQUAL, MAJOR, 0, 0, major.cast_signed()));
    }
    if let Some(minor) = rule.minor {
        tests.push(instruction(JUMP_NOT_EQUAL, MINOR, 0, 0, minor.cast_signed()));
    }
    let length = tests.len() + 2;
    for (index, test) in tests.iter_mut().enumerate() {
        if test.code & 0x07 == 0x05 {
            test.offset = (length - index - 1) as i16;
        }
    }
    tests.extend(verdict(rule.allow));
    tests
}

/// Compiles, loads and attaches, in place of the program that was attached before.
pub(super) fn attach(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    let cgroup = File::open(dir)?;
    let old = attached(&cgroup)?;
    let program = load(&compile(rules))?;
    // The new one first: there is no moment without a filter.
    bpf_attach(&cgroup, &program)?;
    old.into_iter().try_for_each(|id| detach(&cgroup, id))
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const PROGRAM_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is one of the structures above, laid out as the command's part of `union bpf_attr`, of the size passed;
    // the pointers in it are to memory that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result >= 0 { Ok(result as i32) } else { Err(io::Error::last_os_error()) }
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        kind: PROGRAM_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Default::default()
    };
    crate::process::owned(bpf(BPF_PROG_LOAD, &mut attributes)?)
}

fn bpf_attach(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    let mut attributes = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &mut attributes).map(drop)
}

fn attached(cgroup: &File) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attributes = QueryAttributes {
        target: cgroup.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Default::default()
    };
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    Ok(ids[..(attributes.count as usize).min(ids.len())].to_vec())
}

fn detach(cgroup: &File, id: u32) -> io::Result<()> {
    let mut by_id = [id, 0, 0];
    let program = crate::process::owned(bpf(BPF_PROG_GET_FD_BY_ID, &mut by_id)?)?;
    let mut attributes = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    bpf(BPF_PROG_DETACH, &mut attributes).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default rules of a container, loaded by the kernel's verifier.
    #[test]
    fn the_kernel_accepts_the_program_of_dockers_default_rules() {
        let mut rules = vec![DeviceRule::all(false)];
        for (major, minor) in [(1, Some(3)), (1, Some(5)), (5, Some(2)), (136, None)] {
            rules.push(DeviceRule {
                allow: true,
                kind: 'c',
                major: Some(major),
                minor,
                read: true,
                write: true,
                mknod: true,
            });
        }
        rules.push(DeviceRule {
            allow: true,
            kind: 'b',
            major: None,
            minor: None,
            read: false,
            write: false,
            mknod: true,
        });
        rules.push(DeviceRule {
            allow: false,
            kind: 'c',
            major: Some(1),
            minor: Some(5),
            read: false,
            write: true,
            mknod: false,
        });
        load(&compile(&rules)).unwrap();
    }
}

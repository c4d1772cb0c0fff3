//! The emitted programs are run by a small interpreter of classic BPF and compared with what the rules say.

use oci::runtime_spec::{LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscallBuilder};

use super::*;

const ALLOW: u32 = 0x7fff_0000;

fn run(filter: &Filter, architecture: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(architecture.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let program = filter.program();
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { i.jump_true } else { i.jump_false });
        match i.code {
            LOAD => a = u32::from_le_bytes(data[i.k as usize..][..4].try_into().unwrap()),
            AND => a &= i.k,
            JUMP => at += i.k as usize,
            JUMP_EQUAL => jump(a == i.k),
            JUMP_GREATER => jump(a > i.k),
            JUMP_GREATER_EQUAL => jump(a >= i.k),
            RETURN => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn rule(names: &[&str], action: LinuxSeccompAction, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    LinuxSyscallBuilder::default().names(names).action(action).args(args).build().unwrap()
}

fn profile(rules: Vec<LinuxSyscall>, arches: Vec<Arch>) -> Filter {
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .architectures(arches)
        .syscalls(rules)
        .build()
        .unwrap();
    compile(&profile).unwrap()
}

#[test]
fn every_call_of_every_table_gets_its_verdict() {
    let names: Vec<&str> = numbers::TABLE.iter().map(|row| row.0).step_by(3).collect();
    let filter = profile(
        vec![rule(&names, LinuxSeccompAction::ScmpActAllow, vec![])],
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
    );
    for (index, row) in numbers::TABLE.iter().enumerate() {
        for (table, arch) in [(Table::X86_64, AUDIT_X86_64), (Table::I386, AUDIT_I386), (Table::X32, AUDIT_X86_64)] {
            let Some(n) = number(row.0, table) else {
                continue;
            };
            // Two names may share a number (a call and its older name).
            let same = numbers::TABLE.iter().enumerate().any(|(i, r)| i % 3 == 0 && number(r.0, table) == Some(n));
            let allowed = run(&filter, arch, n, [0; 6]) == ALLOW;
            assert_eq!(allowed, index % 3 == 0 || same, "{} on {table:?}", row.0);
        }
    }
}

#[test]
fn a_table_that_the_profile_does_not_name_kills() {
    let filter =
        profile(vec![rule(&["read", "write"], LinuxSeccompAction::ScmpActAllow, vec![])], vec![Arch::ScmpArchX86_64]);
    assert_eq!(run(&filter, AUDIT_X86_64, 0, [0; 6]), ALLOW);
    assert_eq!(run(&filter, AUDIT_I386, 3, [0; 6]), KILL_PROCESS);
    assert_eq!(run(&filter, AUDIT_X86_64, X32_BIT, [0; 6]), KILL_PROCESS);
    assert_eq!(run(&filter, 0xc000_00b7, 0, [0; 6]), KILL_PROCESS);
}

#[test]
fn a_call_newer_than_the_profile_is_unknown_rather_than_forbidden() {
    let filter =
        profile(vec![rule(&["read", "openat2"], LinuxSeccompAction::ScmpActAllow, vec![])], vec![Arch::ScmpArchX86_64]);
    assert_eq!(run(&filter, AUDIT_X86_64, 436, [0; 6]), ERRNO | EPERM);
    assert_eq!(run(&filter, AUDIT_X86_64, 460, [0; 6]), ERRNO | ENOSYS);
}

#[test]
fn conditions_compare_all_64_bits() {
    let values = [0u64, 1, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x2_0000_0000, u64::MAX];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(LinuxSeccompOperator, Holds); 6] = [
        (LinuxSeccompOperator::ScmpCmpEq, |a, b| a == b),
        (LinuxSeccompOperator::ScmpCmpNe, |a, b| a != b),
        (LinuxSeccompOperator::ScmpCmpLt, |a, b| a < b),
        (LinuxSeccompOperator::ScmpCmpLe, |a, b| a <= b),
        (LinuxSeccompOperator::ScmpCmpGt, |a, b| a > b),
        (LinuxSeccompOperator::ScmpCmpGe, |a, b| a >= b),
    ];
    for (operator, holds) in operators {
        for value in values {
            // A second condition after it, so that the jump over the rest is exercised.
            let args =
                [(1usize, operator, value), (2, LinuxSeccompOperator::ScmpCmpEq, 7)].map(|(index, op, value)| {
                    LinuxSeccompArgBuilder::default().index(index).op(op).value(value).build().unwrap()
                });
            let filter = profile(
                vec![rule(&["read"], LinuxSeccompAction::ScmpActAllow, args.to_vec())],
                vec![Arch::ScmpArchX86_64],
            );
            for argument in values {
                let allowed = run(&filter, AUDIT_X86_64, 0, [0, argument, 7, 0, 0, 0]) == ALLOW;
                assert_eq!(allowed, holds(argument, value), "{argument:#x} {operator:?} {value:#x}");
                assert_ne!(run(&filter, AUDIT_X86_64, 0, [0, argument, 8, 0, 0, 0]), ALLOW);
            }
        }
    }
}

#[test]
fn a_masked_condition_and_an_unconditional_refusal_after_it() {
    let mask = LinuxSeccompArgBuilder::default()
        .index(0usize)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .value(0x7e02_0000u64)
        .value_two(0u64)
        .build()
        .unwrap();
    let filter =
        profile(vec![rule(&["clone"], LinuxSeccompAction::ScmpActAllow, vec![mask])], vec![Arch::ScmpArchX86_64]);
    assert_eq!(run(&filter, AUDIT_X86_64, 56, [0x11, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&filter, AUDIT_X86_64, 56, [0x1000_0011, 0, 0, 0, 0, 0]), ERRNO | EPERM);
}

//! A seccomp profile (OCI's form) to a classic BPF program.
//!
//! For each call table (x86-64, i386, x32) the calls become ranges of numbers with one verdict each, found by binary search; rules on
//! arguments are short chains at the leaves. A table that the profile does not name kills, so no call goes around the profile through
//! another table. Calls newer than all that the profile names answer ENOSYS, as runc does: a C library then falls back.

mod numbers;

use std::collections::BTreeMap;

use kernel::seccomp::Instruction;
use oci::runtime_spec::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use serde::{Deserialize, Serialize};

use crate::Failure;

/// A program for [`kernel::seccomp::install`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Each instruction as one number: code, jumps, operand.
    program: Vec<u64>,
    pub flags: u32,
}

impl Filter {
    fn new(program: &[Instruction], flags: u32) -> Self {
        let pack = |i: &Instruction| {
            u64::from(i.code) << 48 | u64::from(i.jump_true) << 40 | u64::from(i.jump_false) << 32 | u64::from(i.k)
        };
        Filter { program: program.iter().map(pack).collect(), flags }
    }

    pub fn program(&self) -> Vec<Instruction> {
        let unpack = |word: &u64| Instruction {
            code: (word >> 48) as u16,
            jump_true: (word >> 40) as u8,
            jump_false: (word >> 32) as u8,
            k: *word as u32,
        };
        self.program.iter().map(unpack).collect()
    }
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
const X32_BIT: u32 = 0x4000_0000;

const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    X86_64,
    I386,
    X32,
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Always(u32),
    /// The first chain whose conditions all hold decides; else the last word.
    Depends(Vec<(Vec<Condition>, u32)>, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    argument: u32,
    operator: LinuxSeccompOperator,
    value: u64,
    second: u64,
}

pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Failure> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let named = profile.architectures().as_deref().unwrap_or(&[]);
    let has = |wanted: Arch| named.contains(&wanted);
    let body =
        |table| -> Result<Vec<Instruction>, Failure> { Ok(tree(&ranges(&verdicts(rules, table, default)?, default))) };

    let kill = vec![ret(KILL_PROCESS)];
    let x32 = if has(Arch::ScmpArchX32) { body(Table::X32)? } else { kill.clone() };
    let native = body(Table::X86_64)?;
    let i386 = if has(Arch::ScmpArchX86) { body(Table::I386)? } else { kill.clone() };

    let mut on_64 = vec![load(NUMBER)];
    on_64.extend(branch(JUMP_GREATER_EQUAL, X32_BIT, native, x32));
    let mut on_32 = vec![load(NUMBER)];
    on_32.extend(i386);
    let mut program = vec![load(ARCHITECTURE)];
    let not_64 = branch(JUMP_EQUAL, AUDIT_I386, kill, on_32);
    program.extend(branch(JUMP_EQUAL, AUDIT_X86_64, not_64, on_64));
    if program.len() > 4096 {
        return Err(Failure::invalid("seccomp: the profile is too long for the kernel"));
    }
    Ok(Filter::new(&program, flags(profile)?))
}

fn flags(profile: &LinuxSeccomp) -> Result<u32, Failure> {
    profile.flags().iter().flatten().try_fold(0, |bits, flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(bits | kernel::seccomp::FLAG_LOG),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(bits | kernel::seccomp::FLAG_SPEC_ALLOW),
        // One thread: there is nothing to synchronise.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(bits),
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
            Err(Failure::invalid("seccomp: notification is not supported"))
        }
    })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, Failure> {
    let data = errno.unwrap_or(EPERM) & 0xffff;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Ok(0),
        LinuxSeccompAction::ScmpActKillProcess => Ok(KILL_PROCESS),
        LinuxSeccompAction::ScmpActTrap => Ok(0x0003_0000),
        LinuxSeccompAction::ScmpActErrno => Ok(ERRNO | data),
        LinuxSeccompAction::ScmpActTrace => Ok(0x7ff0_0000 | data),
        LinuxSeccompAction::ScmpActLog => Ok(0x7ffc_0000),
        LinuxSeccompAction::ScmpActAllow => Ok(0x7fff_0000),
        LinuxSeccompAction::ScmpActNotify => Err(Failure::invalid("seccomp: SCMP_ACT_NOTIFY is not supported")),
    }
}

fn number(name: &str, table: Table) -> Option<u32> {
    let index = numbers::TABLE.binary_search_by(|row| row.0.cmp(name)).ok()?;
    let (_, x86_64, i386, x32) = numbers::TABLE[index];
    match table {
        Table::X86_64 => x86_64.map(u32::from),
        Table::I386 => i386.map(u32::from),
        Table::X32 => x32.map(|n| u32::from(n) | X32_BIT),
    }
}

/// Names that this machine has no number for are passed over, as libseccomp does.
fn verdicts(rules: &[LinuxSyscall], table: Table, default: u32) -> Result<BTreeMap<u32, Verdict>, Failure> {
    let mut calls: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in rules {
        let action = action(rule.action(), rule.errno_ret())?;
        let chains = chains(rule.args().as_deref().unwrap_or_default())?;
        for number in rule.names().iter().filter_map(|name| number(name, table)) {
            let verdict = calls.entry(number).or_insert_with(|| Verdict::Depends(Vec::new(), default));
            match (verdict, chains.is_empty()) {
                (Verdict::Always(_), _) => {}
                (Verdict::Depends(known, _), false) => {
                    known.extend(chains.iter().map(|chain| (chain.clone(), action)));
                }
                (open @ Verdict::Depends(..), true) => {
                    let Verdict::Depends(mut known, _) = std::mem::replace(open, Verdict::Always(action)) else {
                        continue;
                    };
                    known.retain(|(_, chained)| *chained != action);
                    if !known.is_empty() {
                        *open = Verdict::Depends(known, action);
                    }
                }
            }
        }
    }
    Ok(calls)
}

/// The alternatives of one rule. Conditions on different arguments must all hold; several on the same one are alternatives, as runc reads them.
fn chains(args: &[LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>, Failure> {
    let mut conditions = Vec::new();
    let mut repeated = false;
    for arg in args {
        if arg.index() > 5 {
            return Err(Failure::invalid(format!("seccomp: invalid argument index {}", arg.index())));
        }
        let condition = Condition {
            argument: arg.index() as u32,
            operator: arg.op(),
            value: arg.value(),
            second: arg.value_two().unwrap_or(0),
        };
        repeated |= conditions.iter().any(|known: &Condition| known.argument == condition.argument);
        conditions.push(condition);
    }
    Ok(match (conditions.is_empty(), repeated) {
        (true, _) => Vec::new(),
        (false, true) => conditions.into_iter().map(|condition| vec![condition]).collect(),
        (false, false) => vec![conditions],
    })
}

/// The whole number space as starts of ranges, each with its verdict.
fn ranges(calls: &BTreeMap<u32, Verdict>, default: u32) -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = vec![(0, Verdict::Always(default))];
    let mut push = |start: u32, verdict: Verdict| match ranges.last_mut() {
        Some(last) if last.0 == start => last.1 = verdict,
        Some(last) if last.1 == verdict => {}
        _ => ranges.push((start, verdict)),
    };
    let mut next = 0;
    for (number, verdict) in calls {
        if *number > next {
            push(next, Verdict::Always(default));
        }
        push(*number, verdict.clone());
        next = number + 1;
    }
    let unknown = if default & 0xffff_0000 == ERRNO { ERRNO | ENOSYS } else { default };
    push(next, Verdict::Always(unknown));
    ranges
}

fn tree(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![ret(KILL_PROCESS)],
        [(_, verdict)] => leaf(verdict),
        several => {
            let (left, right) = several.split_at(several.len() / 2);
            branch(JUMP_GREATER_EQUAL, right[0].0, tree(left), tree(right))
        }
    }
}

/// `if test(k) { yes } else { no }`; both sides end in a return.
fn branch(test: u16, k: u32, no: Vec<Instruction>, yes: Vec<Instruction>) -> Vec<Instruction> {
    let mut code = match u8::try_from(no.len()) {
        Ok(distance) => vec![Instruction { code: test, jump_true: distance, jump_false: 0, k }],
        // Conditional jumps reach 255 instructions; the plain one has 32 bits.
        Err(_) => vec![
            Instruction { code: test, jump_true: 0, jump_false: 1, k },
            Instruction { code: JUMP, jump_true: 0, jump_false: 0, k: no.len() as u32 },
        ],
    };
    code.extend(no);
    code.extend(yes);
    code
}

fn leaf(verdict: &Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Always(action) => vec![ret(*action)],
        Verdict::Depends(chains, otherwise) => {
            let mut code = Vec::new();
            for (conditions, action) in chains {
                code.extend(chain(conditions, *action));
            }
            code.push(ret(*otherwise));
            code
        }
    }
}

/// Built from its end, so that each condition knows how far it is to the next chain.
fn chain(conditions: &[Condition], action: u32) -> Vec<Instruction> {
    let mut code = vec![ret(action)];
    for condition in conditions.iter().rev() {
        let mut test = compare(condition, code.len() as u8);
        test.extend(code);
        code = test;
    }
    code
}

/// Falls through when the condition holds, else jumps over what follows it and `rest` more.
fn compare(condition: &Condition, rest: u8) -> Vec<Instruction> {
    let low = ARGUMENTS + 8 * condition.argument;
    let high = low + 4;
    let (value_high, value_low) = ((condition.value >> 32) as u32, condition.value as u32);
    let (second_high, second_low) = ((condition.second >> 32) as u32, condition.second as u32);
    let test = |code, k, jump_true, jump_false| Instruction { code, jump_true, jump_false, k };
    // The halves of a 64-bit comparison: the high one decides unless it is equal. After instruction 1 three are left, after 2 two.
    let ordered = |low_test: u16, greater_holds: bool| {
        let (if_greater, if_less) = if greater_holds { (3, rest + 2) } else { (rest + 3, 2) };
        let (low_true, low_false) = if greater_holds { (0, rest) } else { (rest, 0) };
        vec![
            load(high),
            test(JUMP_GREATER, value_high, if_greater, 0),
            test(JUMP_EQUAL, value_high, 0, if_less),
            load(low),
            test(low_test, value_low, low_true, low_false),
        ]
    };
    match condition.operator {
        LinuxSeccompOperator::ScmpCmpEq => {
            vec![load(high), test(JUMP_EQUAL, value_high, 0, rest + 2), load(low), test(JUMP_EQUAL, value_low, 0, rest)]
        }
        LinuxSeccompOperator::ScmpCmpNe => {
            vec![load(high), test(JUMP_EQUAL, value_high, 0, 2), load(low), test(JUMP_EQUAL, value_low, rest, 0)]
        }
        LinuxSeccompOperator::ScmpCmpMaskedEq => vec![
            load(high),
            Instruction { code: AND, jump_true: 0, jump_false: 0, k: value_high },
            test(JUMP_EQUAL, second_high, 0, rest + 3),
            load(low),
            Instruction { code: AND, jump_true: 0, jump_false: 0, k: value_low },
            test(JUMP_EQUAL, second_low, 0, rest),
        ],
        LinuxSeccompOperator::ScmpCmpGt => ordered(JUMP_GREATER, true),
        LinuxSeccompOperator::ScmpCmpGe => ordered(JUMP_GREATER_EQUAL, true),
        LinuxSeccompOperator::ScmpCmpLt => ordered(JUMP_GREATER_EQUAL, false),
        LinuxSeccompOperator::ScmpCmpLe => ordered(JUMP_GREATER, false),
    }
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, k: offset }
}

fn ret(action: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, k: action }
}

#[cfg(test)]
mod tests;

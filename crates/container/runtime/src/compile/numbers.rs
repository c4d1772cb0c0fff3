//! Names of the specification to the kernel's numbers: capabilities, limits, scheduling, execution domains.

use kernel::{caps::CapabilitySets, schedule::SchedulerAttributes};
use oci::runtime_spec as spec;

use crate::Failure;

pub(super) fn capability_sets(capabilities: &spec::LinuxCapabilities) -> CapabilitySets {
    let bits = |set: &Option<spec::Capabilities>| {
        set.iter().flatten().fold(0, |bits, capability| bits | 1 << capability_number(*capability))
    };
    CapabilitySets {
        bounding: bits(capabilities.bounding()),
        effective: bits(capabilities.effective()),
        permitted: bits(capabilities.permitted()),
        inheritable: bits(capabilities.inheritable()),
        ambient: bits(capabilities.ambient()),
    }
}

fn capability_number(capability: spec::Capability) -> u32 {
    use spec::Capability as C;
    match capability {
        C::Chown => 0,
        C::DacOverride => 1,
        C::DacReadSearch => 2,
        C::Fowner => 3,
        C::Fsetid => 4,
        C::Kill => 5,
        C::Setgid => 6,
        C::Setuid => 7,
        C::Setpcap => 8,
        C::LinuxImmutable => 9,
        C::NetBindService => 10,
        C::NetBroadcast => 11,
        C::NetAdmin => 12,
        C::NetRaw => 13,
        C::IpcLock => 14,
        C::IpcOwner => 15,
        C::SysModule => 16,
        C::SysRawio => 17,
        C::SysChroot => 18,
        C::SysPtrace => 19,
        C::SysPacct => 20,
        C::SysAdmin => 21,
        C::SysBoot => 22,
        C::SysNice => 23,
        C::SysResource => 24,
        C::SysTime => 25,
        C::SysTtyConfig => 26,
        C::Mknod => 27,
        C::Lease => 28,
        C::AuditWrite => 29,
        C::AuditControl => 30,
        C::Setfcap => 31,
        C::MacOverride => 32,
        C::MacAdmin => 33,
        C::Syslog => 34,
        C::WakeAlarm => 35,
        C::BlockSuspend => 36,
        C::AuditRead => 37,
        C::Perfmon => 38,
        C::Bpf => 39,
        C::CheckpointRestore => 40,
    }
}

pub(super) fn rlimit_number(kind: spec::PosixRlimitType) -> u32 {
    use spec::PosixRlimitType as R;
    match kind {
        R::RlimitCpu => 0,
        R::RlimitFsize => 1,
        R::RlimitData => 2,
        R::RlimitStack => 3,
        R::RlimitCore => 4,
        R::RlimitRss => 5,
        R::RlimitNproc => 6,
        R::RlimitNofile => 7,
        R::RlimitMemlock => 8,
        R::RlimitAs => 9,
        R::RlimitLocks => 10,
        R::RlimitSigpending => 11,
        R::RlimitMsgqueue => 12,
        R::RlimitNice => 13,
        R::RlimitRtprio => 14,
        R::RlimitRttime => 15,
    }
}

/// The class has one form only for `idle`: its level means nothing.
pub(super) fn io_priority(wanted: &spec::LinuxIOPriority) -> Result<(u8, u8), Failure> {
    let class = match wanted.class() {
        spec::IOPriorityClass::IoprioClassRt => 1,
        spec::IOPriorityClass::IoprioClassBe => 2,
        spec::IOPriorityClass::IoprioClassIdle => 3,
    };
    match u8::try_from(wanted.priority()) {
        Ok(level) if level < 8 => Ok((class, level)),
        Ok(_) | Err(_) => Err(Failure::invalid(format!("ioPriority {} is not in 0 to 7", wanted.priority()))),
    }
}

pub(super) fn scheduler(wanted: &spec::Scheduler) -> Result<SchedulerAttributes, Failure> {
    use spec::{LinuxSchedulerFlag as F, LinuxSchedulerPolicy as P};
    let policy = match wanted.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => return Err(Failure::invalid("scheduler policy SCHED_ISO is not known to Linux")),
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |bits, flag| {
        bits | match flag {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin => 0x20,
            F::SchedFlagUtilClampMax => 0x40,
        }
    });
    let priority = u32::try_from(wanted.priority().unwrap_or(0))
        .map_err(|_| Failure::invalid("the scheduler's priority is negative"))?;
    Ok(SchedulerAttributes {
        policy,
        flags,
        nice: wanted.nice().unwrap_or(0),
        priority,
        runtime_ns: wanted.runtime().unwrap_or(0),
        deadline_ns: wanted.deadline().unwrap_or(0),
        period_ns: wanted.period().unwrap_or(0),
    })
}

pub(super) fn personality(wanted: &spec::LinuxPersonality) -> Result<u64, Failure> {
    if let Some(flag) = wanted.flags().iter().flatten().next() {
        return Err(Failure::invalid(format!("personality flag {flag:?} is not supported")));
    }
    Ok(match wanted.domain() {
        spec::LinuxPersonalityDomain::PerLinux => 0,
        spec::LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

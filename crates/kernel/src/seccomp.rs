//! Loading a system call filter. What the filter says is compiled in `runtime`.

use std::io;

/// One classic BPF instruction, as `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub k: u32,
}

/// `SECCOMP_FILTER_FLAG_*`.
pub const FLAG_LOG: u32 = 2;
pub const FLAG_SPEC_ALLOW: u32 = 4;

/// Confines this thread, and all that it becomes and makes. Needs no_new_privs or CAP_SYS_ADMIN.
pub fn install(program: &[Instruction], flags: u32) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    // SAFETY: Instruction has sock_filter's layout (checked by the test below); the kernel only reads `length` of them.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_instruction_has_the_kernels_layout() {
        assert_eq!(size_of::<super::Instruction>(), size_of::<libc::sock_filter>());
        assert_eq!(std::mem::offset_of!(super::Instruction, k), std::mem::offset_of!(libc::sock_filter, k));
    }
}

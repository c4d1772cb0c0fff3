//! What a connected socket knows of its other end.
//!
//! Used by the Docker API, whose streams begin right behind the headers of an answer.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes that were written to a Unix socket and that its other end has not read yet (SIOCOUTQ, unix(7)).
pub fn unread_by_peer(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open; the kernel writes one int to `bytes`, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_the_other_end_has_not_read_is_known() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        assert_eq!(super::unread_by_peer(&one).unwrap(), 0);
        one.write_all(b"headers").unwrap();
        assert!(super::unread_by_peer(&one).unwrap() > 0);
        other.read_exact(&mut [0; 7]).unwrap();
        assert_eq!(super::unread_by_peer(&one).unwrap(), 0);
    }
}

//! File modes as Go writes them, which is how fsutil sends them (pure).

const DIR: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const PIPE: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHAR: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;

/// What kind of file a mode is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dir,
    File,
    Symlink,
    /// Devices, pipes, sockets.
    Special,
}

pub(crate) fn kind(mode: u32) -> Kind {
    if mode & DIR != 0 {
        Kind::Dir
    } else if mode & SYMLINK != 0 {
        Kind::Symlink
    } else if mode & (DEVICE | PIPE | SOCKET | CHAR) != 0 {
        Kind::Special
    } else {
        Kind::File
    }
}

/// The permission bits as the kernel has them.
pub(crate) fn permissions(mode: u32) -> u32 {
    let bit = |go: u32, unix: u32| if mode & go != 0 { unix } else { 0 };
    (mode & 0o777) | bit(SETUID, 0o4000) | bit(SETGID, 0o2000) | bit(STICKY, 0o1000)
}

/// Go's mode of a file whose `st_mode` this is.
pub(crate) fn from_unix(mode: u32) -> u32 {
    let bit = |unix: u32, go: u32| if mode & unix != 0 { go } else { 0 };
    let kind = match mode & 0o170_000 {
        0o040_000 => DIR,
        0o120_000 => SYMLINK,
        0o060_000 => DEVICE,
        0o020_000 => DEVICE | CHAR,
        0o010_000 => PIPE,
        0o140_000 => SOCKET,
        _ => 0,
    };
    kind | (mode & 0o777) | bit(0o4000, SETUID) | bit(0o2000, SETGID) | bit(0o1000, STICKY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_go_both_ways() {
        for (unix, wanted) in
            [(0o100_644, Kind::File), (0o040_755, Kind::Dir), (0o120_777, Kind::Symlink), (0o020_600, Kind::Special)]
        {
            let go = from_unix(unix);
            assert_eq!((kind(go), permissions(go)), (wanted, unix & 0o7777));
        }
        assert_eq!(permissions(from_unix(0o106_755)), 0o6755);
        assert_eq!(from_unix(0o101_644) & STICKY, STICKY);
    }
}

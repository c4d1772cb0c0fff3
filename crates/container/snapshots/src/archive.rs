//! Reading tar archives, entry by entry: ustar, GNU and PAX, with extended headers, extended attributes and sparse files.
//!
//! The header block's fields are decoded by the `tar` crate; the walk is our own, because extended headers are hostile
//! (their size is bounded here before anything is allocated) and sparse files need PAX 1.0. What an entry's path means
//! on disk is not decided here.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::error::{Error, Result};
use crate::limits::{Limits, read_error};

const BLOCK: usize = 512;

/// One entry, its extended headers applied. Its data is read from the [`Archive`] before the next entry.
#[derive(Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: EntryType,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    /// Bytes of data in the archive.
    pub stored_size: u64,
    /// Size of the file; larger than `stored_size` for a sparse one.
    pub size: u64,
    /// Where the data goes (offset, length), for a sparse file.
    pub sparse: Option<Vec<(u64, u64)>>,
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// A stream of entries.
pub struct Archive<R> {
    inner: R,
    limits: Limits,
    /// Data and padding of the present entry that have not been read.
    data_left: u64,
    padding_left: u64,
    entries: u64,
}

#[derive(Default)]
struct Extended {
    pax: Vec<(String, Vec<u8>)>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    bytes: u64,
}

impl<R: Read> Archive<R> {
    pub fn new(inner: R, limits: Limits) -> Self {
        Self { inner, limits, data_left: 0, padding_left: 0, entries: 0 }
    }

    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, or `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            self.skip()?;
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            let size = entry_size(&header)?;
            match header.entry_type() {
                EntryType::XHeader => extended.pax = parse_pax(&self.read_extended(size, &mut extended.bytes)?)?,
                EntryType::GNULongName => {
                    extended.long_name = Some(trim_nul(self.read_extended(size, &mut extended.bytes)?))
                }
                EntryType::GNULongLink => {
                    extended.long_link = Some(trim_nul(self.read_extended(size, &mut extended.bytes)?))
                }
                EntryType::XGlobalHeader => drop(self.read_extended(size, &mut extended.bytes)?),
                _ => return self.entry(&header, extended).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, extended: Extended) -> Result<Entry> {
        self.entries += 1;
        if self.entries > self.limits.max_entries {
            return Err(Error::Limit { what: "entries", limit: self.limits.max_entries });
        }
        let mut entry = plain_entry(header, &extended)?;
        let sparse_pax = apply_pax(&mut entry, &extended.pax)?;
        let has_data = matches!(entry.kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse);
        if !has_data {
            // Links and directories carry no data, whatever the size field says.
            (entry.size, entry.stored_size) = (0, if entry.kind.is_hard_link() { 0 } else { entry.stored_size });
        }
        let stored = entry.stored_size;
        if entry.kind == EntryType::GNUSparse {
            self.gnu_sparse(header, &mut entry)?;
        }
        self.data_left = stored;
        self.padding_left =
            stored.next_multiple_of(BLOCK as u64).checked_sub(stored).ok_or(Error::Archive("bad size field"))?;
        if sparse_pax.major == Some(1) {
            self.pax_sparse_map(&mut entry)?;
        }
        if let Some(size) = sparse_pax.real_size {
            entry.size = size;
        }
        self.check_sizes(&entry)?;
        Ok(entry)
    }

    fn check_sizes(&self, entry: &Entry) -> Result<()> {
        if entry.size > self.limits.max_bytes || entry.stored_size > self.limits.max_bytes {
            return Err(Error::Limit { what: "bytes in one file", limit: self.limits.max_bytes });
        }
        let Some(map) = &entry.sparse else {
            return Ok(());
        };
        let mut end = 0;
        let mut data = 0u64;
        for (offset, length) in map {
            let stop = offset.checked_add(*length).filter(|stop| *stop <= entry.size && *offset >= end);
            end = stop.ok_or(Error::Archive("sparse map out of order or out of range"))?;
            data += length;
        }
        if data > entry.stored_size { Err(Error::Archive("sparse map larger than its data")) } else { Ok(()) }
    }

    /// Copies up to `length` bytes of the entry's data; fewer is a truncated archive.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = buffer.len().min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..want]).map_err(read_error)?;
        if n == 0 {
            return Err(Error::Archive("unexpected end"));
        }
        self.data_left -= n as u64;
        Ok(n)
    }

    fn skip(&mut self) -> Result<()> {
        let (data, padding) = (self.data_left, self.padding_left);
        (self.data_left, self.padding_left) = (0, 0);
        let skipped = io::copy(&mut self.inner.by_ref().take(data + padding), &mut io::sink()).map_err(read_error)?;
        // An archive that ends where its last file's data ends lacks only zeros; umoci writes such, Docker takes them.
        if skipped < data { Err(Error::Archive("unexpected end")) } else { Ok(()) }
    }

    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            let n = self.inner.read(&mut block[filled..]).map_err(read_error)?;
            if n == 0 {
                return if filled == 0 { Ok(false) } else { Err(Error::Archive("unexpected end")) };
            }
            filled += n;
        }
        Ok(true)
    }

    /// A header block; `None` at the end mark, and at an end without one.
    fn read_header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.read_block(header.as_mut_bytes())? || header.as_bytes().iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
        let bytes = header.as_bytes();
        let expected = sum(&bytes[..148]) + sum(&bytes[156..]) + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(expected) {
            return Err(Error::Archive("bad header checksum"));
        }
        Ok(Some(header))
    }

    fn read_extended(&mut self, size: u64, total: &mut u64) -> Result<Vec<u8>> {
        *total = total.saturating_add(size);
        if *total > self.limits.max_header_bytes {
            return Err(Error::Limit { what: "bytes of extended headers", limit: self.limits.max_header_bytes });
        }
        self.data_left = size;
        self.padding_left = size.next_multiple_of(BLOCK as u64) - size;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read_data(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }

    /// The old GNU format: four segments in the header, more in blocks that follow it.
    fn gnu_sparse(&mut self, header: &Header, entry: &mut Entry) -> Result<()> {
        const BAD: Error = Error::Archive("bad sparse header");
        let gnu = header.as_gnu().ok_or(BAD)?;
        let segment =
            |s: &tar::GnuSparseHeader| Ok::<_, Error>((s.offset().map_err(|_| BAD)?, s.length().map_err(|_| BAD)?));
        let mut map = gnu.sparse.iter().filter(|s| !s.is_empty()).map(segment).collect::<Result<Vec<_>>>()?;
        let mut extended = gnu.is_extended();
        while extended {
            let mut block = tar::GnuExtSparseHeader::new();
            if !self.read_block(block.as_mut_bytes())? {
                return Err(Error::Archive("unexpected end"));
            }
            for s in block.sparse().iter().filter(|s| !s.is_empty()) {
                map.push(segment(s)?);
            }
            self.check_map_length(map.len())?;
            extended = block.is_extended();
        }
        entry.size = gnu.real_size().map_err(|_| BAD)?;
        entry.sparse = Some(map);
        Ok(())
    }

    fn check_map_length(&self, length: usize) -> Result<()> {
        let limit = self.limits.max_header_bytes / 16;
        if length as u64 > limit { Err(Error::Limit { what: "segments in a sparse file", limit }) } else { Ok(()) }
    }

    /// PAX 1.0: the map is decimal lines in the first blocks of the data.
    fn pax_sparse_map(&mut self, entry: &mut Entry) -> Result<()> {
        const BAD: Error = Error::Archive("bad sparse map");
        let before = self.data_left;
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = 1;
        let mut digits = String::new();
        while numbers.len() < wanted {
            let mut block = [0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.read_data(&mut block[filled..])? {
                    0 => return Err(BAD),
                    n => filled += n,
                }
            }
            for byte in block {
                match byte {
                    b'0'..=b'9' if digits.len() < 20 => digits.push(char::from(byte)),
                    b'\n' if numbers.len() < wanted => {
                        numbers.push(digits.parse().map_err(|_| BAD)?);
                        digits.clear();
                        if numbers.len() == 1 {
                            let count = usize::try_from(numbers[0]).map_err(|_| BAD)?;
                            self.check_map_length(count)?;
                            wanted = 1 + 2 * count;
                        }
                    }
                    _ if numbers.len() == wanted => break,
                    _ => return Err(BAD),
                }
            }
        }
        entry.stored_size = entry.stored_size.saturating_sub(before - self.data_left);
        entry.sparse = Some(numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
        Ok(())
    }
}

/// A number; a field that was left empty means zero, as other readers take it.
fn number(field: &[u8], value: io::Result<u64>, what: &'static str) -> Result<u64> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) { Ok(0) } else { value.map_err(|_| Error::Archive(what)) }
}

fn entry_size(header: &Header) -> Result<u64> {
    number(&header.as_old().size, header.entry_size(), "bad size field")
}

fn plain_entry(header: &Header, extended: &Extended) -> Result<Entry> {
    let old = header.as_old();
    let id = |n: u64| u32::try_from(n).map_err(|_| Error::Archive("user or group id out of range"));
    let size = entry_size(header)?;
    let mode = number(&old.mode, header.mode().map(u64::from), "bad mode field")? & 0o7777;
    Ok(Entry {
        path: extended.long_name.clone().unwrap_or_else(|| header.path_bytes().into_owned()),
        link: extended.long_link.clone().unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
        kind: header.entry_type(),
        mode: u32::try_from(mode).unwrap_or(0),
        uid: id(number(&old.uid, header.uid(), "bad uid field")?)?,
        gid: id(number(&old.gid, header.gid(), "bad gid field")?)?,
        mtime: (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0),
        device: (header.device_major().ok().flatten().unwrap_or(0), header.device_minor().ok().flatten().unwrap_or(0)),
        stored_size: size,
        size,
        sparse: None,
        xattrs: Vec::new(),
    })
}

#[derive(Default)]
struct SparsePax {
    major: Option<u64>,
    real_size: Option<u64>,
}

fn apply_pax(entry: &mut Entry, records: &[(String, Vec<u8>)]) -> Result<SparsePax> {
    let mut sparse = SparsePax::default();
    let mut name = None;
    for (key, value) in records {
        let number = || {
            std::str::from_utf8(value)
                .ok()
                .and_then(|t| t.parse::<u64>().ok())
                .ok_or(Error::Archive("bad number in PAX header"))
        };
        let id =
            || number().and_then(|n| u32::try_from(n).map_err(|_| Error::Archive("user or group id out of range")));
        match key.as_str() {
            "path" => entry.path.clone_from(value),
            "linkpath" => entry.link.clone_from(value),
            "size" => (entry.size, entry.stored_size) = (number()?, number()?),
            "uid" => entry.uid = id()?,
            "gid" => entry.gid = id()?,
            "mtime" => entry.mtime = parse_time(value).ok_or(Error::Archive("bad mtime in PAX header"))?,
            "GNU.sparse.name" => name = Some(value.clone()),
            "GNU.sparse.major" => sparse.major = Some(number()?),
            "GNU.sparse.realsize" | "GNU.sparse.size" => sparse.real_size = Some(number()?),
            "GNU.sparse.map" => entry.sparse = Some(parse_map(value)?),
            // Other keys (times of access, character sets, vendors' own) say nothing about the file on disk.
            _ => {
                if let Some(attribute) = key.strip_prefix("SCHILY.xattr.") {
                    entry.xattrs.push((attribute.to_owned(), value.clone()));
                }
            }
        }
    }
    if let Some(name) = name {
        entry.path = name;
    }
    Ok(sparse)
}

fn parse_map(value: &[u8]) -> Result<Vec<(u64, u64)>> {
    const BAD: Error = Error::Archive("bad sparse map");
    let text = std::str::from_utf8(value).map_err(|_| BAD)?;
    let numbers = text.split(',').map(|n| n.parse().map_err(|_| BAD)).collect::<Result<Vec<u64>>>()?;
    if numbers.len() % 2 == 1 { Err(BAD) } else { Ok(numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect()) }
}

/// `seconds[.fraction]`, perhaps negative.
fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let nanos: u32 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9.9}").parse().ok()? };
    // A negative time with a fraction lies before the whole second.
    if text.starts_with('-') && nanos > 0 {
        Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos))
    } else {
        Some((seconds, nanos))
    }
}

/// `LENGTH KEY=VALUE\n` records (POSIX pax interchange format).
fn parse_pax(mut bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    const BAD: Error = Error::Archive("bad PAX header");
    let mut records = Vec::new();
    while !bytes.is_empty() && bytes[0] != 0 {
        let space = bytes.iter().take(21).position(|b| *b == b' ').ok_or(BAD)?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok().and_then(|t| t.parse().ok()).ok_or(BAD)?;
        let record = bytes.get(space + 1..length).ok_or(BAD)?;
        let (newline, record) = record.split_last().ok_or(BAD)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or(BAD)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| BAD)?;
        if *newline != b'\n' || key.is_empty() {
            return Err(BAD);
        }
        records.push((key.to_owned(), record[equals + 1..].to_vec()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

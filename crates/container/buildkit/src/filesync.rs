//! fsutil's protocol, receiving: a directory of the client's, written into one of ours.
//!
//! The client lists its tree, parents first; we ask for the content of each file and it comes in pieces. What arrives is
//! hostile: a path must be plain, its parent a folder that was listed before, and a hard link must lead to a file that
//! was. Nothing is written outside the target, because no listed link is ever walked through.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use bollard_buildkit_proto::fsutil::types::{Packet, Stat, packet::PacketType};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_client::FileSyncClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::{Request, Status};

use crate::modes::{self, Kind};
use crate::session::Session;

const BUFFERED: usize = 64;
/// Entries of one directory tree; more is refused.
const MAX_ENTRIES: usize = 2_000_000;

/// Which files of which of the client's directories.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub dir_name: String,
    pub exclude: Vec<String>,
    /// Only these, and what their links lead to.
    pub follow: Vec<String>,
}

/// Receives a directory. Returns the bytes of its files.
pub(crate) async fn receive(session: &Session, wanted: &Wanted, target: &Path) -> Result<u64, Status> {
    if !session.offers("/moby.filesync.v1.FileSync/DiffCopy") {
        return Err(Status::failed_precondition("no local sources enabled"));
    }
    let (outgoing, answers) = mpsc::channel(BUFFERED);
    let mut request = Request::new(ReceiverStream::new(answers));
    for (key, values) in [
        ("dir-name", std::slice::from_ref(&wanted.dir_name)),
        ("exclude-patterns", &wanted.exclude),
        ("followpaths", &wanted.follow),
    ] {
        insert(request.metadata_mut(), key, values)?;
    }
    let mut client = FileSyncClient::new(session.channel.clone());
    let mut packets = client.diff_copy(request).await?.into_inner();
    let (forward, mut incoming) = mpsc::channel::<Packet>(BUFFERED);
    let target = target.to_owned();
    // Files are written away from the runtime's threads.
    let writing = tokio::task::spawn_blocking(move || {
        let mut receiver = Receiver::new(target, outgoing);
        while let Some(packet) = incoming.blocking_recv() {
            if receiver.packet(packet)? {
                return Ok(receiver.bytes);
            }
        }
        Err(Status::aborted("the client stopped sending its files"))
    });
    let reading = async {
        while let Some(packet) = packets.message().await? {
            if forward.send(packet).await.is_err() {
                break;
            }
        }
        drop(forward);
        Ok::<_, Status>(())
    };
    let (written, read) = tokio::join!(writing, reading);
    let bytes = written.map_err(|error| Status::internal(error.to_string()))?;
    match (bytes, read) {
        // What the client says is wrong explains why it stopped.
        (Err(_), Err(read)) => Err(read),
        (bytes, _) => bytes,
    }
}

/// Headers hold ASCII; other values are escaped, and a second header says so.
fn insert(metadata: &mut tonic::metadata::MetadataMap, key: &'static str, values: &[String]) -> Result<(), Status> {
    let escape = values.iter().any(|value| !value.is_ascii());
    for value in values {
        let text = if escape { escaped(value) } else { value.clone() };
        let value =
            MetadataValue::try_from(text).map_err(|_| Status::invalid_argument(format!("bad pattern {value:?}")))?;
        metadata.append(key, value);
    }
    if escape && let Ok(name) = MetadataKey::from_bytes(format!("{key}-encoded").as_bytes()) {
        metadata.insert(name, MetadataValue::from_static("1"));
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The receiving end, packet by packet.
struct Receiver {
    target: PathBuf,
    outgoing: mpsc::Sender<Packet>,
    dirs: HashSet<PathBuf>,
    files: HashSet<PathBuf>,
    /// Files whose content is on its way, by the number of their place in the list.
    open: HashMap<u32, (File, Stat)>,
    /// Folders get their modes and times at the end: writing into them would change both.
    folders: Vec<(PathBuf, Stat)>,
    next: u32,
    listed: bool,
    finished: bool,
    bytes: u64,
}

impl Receiver {
    fn new(target: PathBuf, outgoing: mpsc::Sender<Packet>) -> Self {
        let dirs = HashSet::from([PathBuf::new()]);
        Self {
            target,
            outgoing,
            dirs,
            files: HashSet::new(),
            open: HashMap::new(),
            folders: Vec::new(),
            next: 0,
            listed: false,
            finished: false,
            bytes: 0,
        }
    }

    /// Takes a packet; true when all is here.
    fn packet(&mut self, packet: Packet) -> Result<bool, Status> {
        match packet.r#type() {
            PacketType::PacketStat => match packet.stat {
                Some(stat) => self.entry(stat)?,
                None => self.listed = true,
            },
            PacketType::PacketData => self.data(packet.id, &packet.data)?,
            PacketType::PacketFin => return Ok(true),
            PacketType::PacketErr => return Err(Status::aborted(String::from_utf8_lossy(&packet.data).into_owned())),
            PacketType::PacketReq => return Err(Status::invalid_argument("a sender asks for nothing")),
        }
        if self.listed && self.open.is_empty() && !self.finished {
            self.finished = true;
            for (path, stat) in self.folders.iter().rev() {
                let dir = File::open(path).map_err(|error| failed(path, error))?;
                finish(&dir, path, stat)?;
            }
            self.send(PacketType::PacketFin, 0)?;
        }
        Ok(false)
    }

    fn send(&self, kind: PacketType, id: u32) -> Result<(), Status> {
        let packet = Packet { r#type: kind.into(), id, ..Packet::default() };
        self.outgoing.blocking_send(packet).map_err(|_| Status::aborted("the client is gone"))
    }

    fn entry(&mut self, stat: Stat) -> Result<(), Status> {
        let number = self.next;
        self.next += 1;
        if number as usize >= MAX_ENTRIES {
            return Err(Status::resource_exhausted(format!("more than {MAX_ENTRIES} files")));
        }
        let relative = self.place(&stat.path)?;
        let path = self.target.join(&relative);
        match modes::kind(stat.mode) {
            Kind::Dir => {
                std::fs::create_dir(&path).map_err(|error| failed(&path, error))?;
                self.dirs.insert(relative);
                self.folders.push((path, stat));
            }
            Kind::Symlink => {
                std::os::unix::fs::symlink(&stat.linkname, &path).map_err(|error| failed(&path, error))?;
            }
            Kind::File if !stat.linkname.is_empty() => {
                let linked = plain(&stat.linkname).filter(|linked| self.files.contains(linked));
                let linked = linked.ok_or_else(|| refused(&stat.path, "a link to a file that was not listed"))?;
                std::fs::hard_link(self.target.join(linked), &path).map_err(|error| failed(&path, error))?;
                self.files.insert(relative);
            }
            Kind::File => {
                let file = File::create_new(&path).map_err(|error| failed(&path, error))?;
                self.files.insert(relative);
                self.send(PacketType::PacketReq, number)?;
                self.open.insert(number, (file, stat));
            }
            // A context holds files, folders and links only.
            Kind::Special => {}
        }
        Ok(())
    }

    /// The relative path of an entry: plain, and below a folder that was listed.
    fn place(&self, path: &str) -> Result<PathBuf, Status> {
        let relative = plain(path).ok_or_else(|| refused(path, "not a plain path"))?;
        let parent = relative.parent().unwrap_or(Path::new(""));
        if self.dirs.contains(parent) { Ok(relative) } else { Err(refused(path, "its folder was not listed")) }
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), Status> {
        let Some((file, stat)) = self.open.get_mut(&id) else {
            return Err(Status::invalid_argument("content that was not asked for"));
        };
        let path = self.target.join(&stat.path);
        if !data.is_empty() {
            self.bytes += data.len() as u64;
            return file.write_all(data).map_err(|error| failed(&path, error));
        }
        finish(file, &path, stat)?;
        self.open.remove(&id);
        Ok(())
    }
}

/// A path of names alone: relative, no `.` and no `..`.
fn plain(path: &str) -> Option<PathBuf> {
    let relative = path.trim_start_matches('/');
    let clean = Path::new(relative).components().all(|part| matches!(part, Component::Normal(_)));
    (clean && !relative.is_empty() && !relative.contains('\0')).then(|| PathBuf::from(relative))
}

fn finish(file: &File, path: &Path, stat: &Stat) -> Result<(), Status> {
    let mode = std::fs::Permissions::from_mode(modes::permissions(stat.mode));
    file.set_permissions(mode).map_err(|error| failed(path, error))?;
    let (seconds, nanos) = (stat.mod_time.div_euclid(1_000_000_000), stat.mod_time.rem_euclid(1_000_000_000));
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::futimens(file, &times).map_err(|error| failed(path, error.into()))
}

fn failed(path: &Path, error: std::io::Error) -> Status {
    Status::internal(format!("cannot write {}: {error}", path.display()))
}

fn refused(path: &str, why: &str) -> Status {
    Status::invalid_argument(format!("{path:?} in the build context: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(path: &str, mode: u32, linkname: &str) -> Packet {
        let mode = modes::from_unix(mode);
        let stat = Stat { path: path.into(), mode, linkname: linkname.into(), ..Stat::default() };
        Packet { r#type: PacketType::PacketStat.into(), stat: Some(stat), ..Packet::default() }
    }

    fn data(id: u32, bytes: &[u8]) -> Packet {
        Packet { r#type: PacketType::PacketData.into(), id, data: bytes.to_vec(), ..Packet::default() }
    }

    #[test]
    fn a_listed_tree_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (outgoing, mut sent) = mpsc::channel(16);
        let mut receiver = Receiver::new(dir.path().to_owned(), outgoing);
        for packet in [
            stat("d", 0o040_700, ""),
            stat("d/f", 0o100_640, ""),
            stat("d/hard", 0o100_640, "d/f"),
            stat("link", 0o120_777, "d/f"),
            data(1, b"abc"),
            data(1, b""),
            Packet { r#type: PacketType::PacketStat.into(), ..Packet::default() },
        ] {
            assert!(!receiver.packet(packet).unwrap());
        }
        assert_eq!(sent.try_recv().unwrap().r#type(), PacketType::PacketReq);
        assert_eq!(sent.try_recv().unwrap().r#type(), PacketType::PacketFin);
        assert_eq!(std::fs::read(dir.path().join("link")).unwrap(), b"abc");
        assert_eq!(std::fs::metadata(dir.path().join("d")).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(receiver.packet(Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() }).unwrap());
    }

    #[test]
    fn hostile_lists_write_nothing_outside() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("t");
        let out = outside.path().to_str().unwrap();
        for packets in [
            vec![stat("../x", 0o100_644, "")],
            vec![stat("a/../../x", 0o100_644, "")],
            vec![stat("l", 0o120_777, out), stat("l/x", 0o100_644, "")],
            vec![stat("missing/x", 0o100_644, "")],
            vec![stat("h", 0o100_644, "../secret")],
            vec![stat("l", 0o120_777, "../secret"), stat("h", 0o100_644, "l")],
            vec![stat("l", 0o120_777, "../x"), stat("l", 0o100_644, "")],
            vec![data(7, b"x")],
        ] {
            std::fs::create_dir(&target).unwrap();
            std::fs::write(outside.path().join("secret"), "s").unwrap();
            let (outgoing, _sent) = mpsc::channel(16);
            let mut receiver = Receiver::new(target.clone(), outgoing);
            let verdict: Result<Vec<bool>, Status> =
                packets.into_iter().map(|packet| receiver.packet(packet)).collect();
            assert!(verdict.is_err());
            assert!(!outside.path().join("x").exists());
            std::fs::remove_dir_all(&target).unwrap();
        }
    }
}

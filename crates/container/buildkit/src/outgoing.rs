//! Results on their way to the client: a directory by fsutil's protocol, or one stream of bytes.

use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::{Packet, Stat, packet::PacketType};
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as DirClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::{Request, Status};

use crate::modes;
use crate::session::Session;

const BUFFERED: usize = 16;
const CHUNK: usize = 32 << 10;
const METHOD: &str = "/moby.filesync.v1.FileSend/DiffCopy";

fn request<T>(session: &Session, exporter: usize, body: T) -> Result<Request<T>, Status> {
    if !session.offers(METHOD) {
        return Err(Status::failed_precondition(format!("method {METHOD} not supported by the client")));
    }
    let mut request = Request::new(body);
    let id = MetadataValue::try_from(exporter.to_string()).map_err(|error| Status::internal(error.to_string()))?;
    request.metadata_mut().insert(MetadataKey::from_static("buildkit-attachable-exporter-id"), id);
    Ok(request)
}

/// Sends what a blocking writer writes, as one file. `exporter`: which of the client's outputs it is.
pub(crate) async fn file(
    session: &Session,
    exporter: usize,
    write: impl FnOnce(&mut dyn std::io::Write) -> Result<(), String> + Send + 'static,
) -> Result<(), Status> {
    let (sender, body) = mpsc::channel(BUFFERED);
    let request = request(session, exporter, ReceiverStream::new(body))?;
    let writing = tokio::task::spawn_blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(1 << 20, Chunks(sender));
        write(&mut out)?;
        std::io::Write::flush(&mut out).map_err(|error| error.to_string())
    });
    let mut client = FileSendClient::new(session.channel.clone());
    let sending = async {
        let mut answers = client.diff_copy(request).await?.into_inner();
        // The end of the answers: the client has all of it.
        while answers.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    let (written, sent) = tokio::join!(writing, sending);
    sent?;
    written.map_err(|error| Status::internal(error.to_string()))?.map_err(Status::internal)
}

struct Chunks(mpsc::Sender<BytesMessage>);

impl std::io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(1 << 20)];
        let gone = |_| std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the client is gone");
        self.0.blocking_send(BytesMessage { data: bytes.to_vec() }).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends a directory tree. `root` is nobody else's while this runs.
pub(crate) async fn directory(session: &Session, exporter: usize, root: PathBuf) -> Result<(), Status> {
    let (sender, body) = mpsc::channel(BUFFERED);
    let request = request(session, exporter, ReceiverStream::new(body))?;
    let root = Arc::new(root);
    let (listing, base) = (sender.clone(), root.clone());
    let listed = tokio::task::spawn_blocking(move || {
        let mut files = Vec::new();
        list(&base, Path::new(""), &listing, &mut files)?;
        listing.blocking_send(packet(PacketType::PacketStat, 0)).map_err(|_| gone())?;
        Ok::<_, Status>(files)
    });
    let mut client = DirClient::new(session.channel.clone());
    let mut asked = client.diff_copy(request).await?.into_inner();
    let mut early = Vec::new();
    // Requests may come while the list is still on its way.
    let files = {
        tokio::pin!(listed);
        loop {
            tokio::select! {
                files = &mut listed => break files.map_err(|error| Status::internal(error.to_string()))??,
                message = asked.message() => match message? {
                    Some(message) => early.push(message),
                    None => return Err(Status::aborted("the client stopped receiving")),
                },
            }
        }
    };
    let mut early = early.into_iter();
    loop {
        let message = match early.next() {
            Some(message) => message,
            None => match asked.message().await? {
                Some(message) => message,
                None => return Ok(()),
            },
        };
        match message.r#type() {
            PacketType::PacketReq => {
                let path = files.get(message.id as usize).cloned().flatten();
                let path = root.join(path.ok_or_else(|| Status::invalid_argument("no such file was listed"))?);
                let sender = sender.clone();
                let sent = tokio::task::spawn_blocking(move || content(&path, message.id, &sender));
                sent.await.map_err(|error| Status::internal(error.to_string()))??;
            }
            PacketType::PacketFin => {
                sender.send(packet(PacketType::PacketFin, 0)).await.map_err(|_| gone())?;
                drop(sender);
                while asked.message().await?.is_some() {}
                return Ok(());
            }
            PacketType::PacketErr => return Err(Status::aborted(String::from_utf8_lossy(&message.data).into_owned())),
            PacketType::PacketStat | PacketType::PacketData => {}
        }
    }
}

fn packet(kind: PacketType, id: u32) -> Packet {
    Packet { r#type: kind.into(), id, ..Packet::default() }
}

fn gone() -> Status {
    Status::aborted("the client is gone")
}

/// Lists a folder, parents first, names in order; notes each regular file at its number.
fn list(
    root: &Path,
    inside: &Path,
    out: &mpsc::Sender<Packet>,
    files: &mut Vec<Option<PathBuf>>,
) -> Result<(), Status> {
    let dir = root.join(inside);
    let failed = |error: std::io::Error| Status::internal(format!("cannot read {}: {error}", dir.display()));
    let mut names: Vec<_> = std::fs::read_dir(&dir)
        .map_err(failed)?
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    names.sort();
    for name in names {
        let path = inside.join(&name);
        let whole = root.join(&path);
        let meta = std::fs::symlink_metadata(&whole).map_err(failed)?;
        if meta.file_type().is_socket() {
            continue;
        }
        let linkname = if meta.is_symlink() {
            std::fs::read_link(&whole).map_err(failed)?.to_string_lossy().into_owned()
        } else {
            String::new()
        };
        let stat = Stat {
            path: path.to_string_lossy().into_owned(),
            mode: modes::from_unix(meta.mode()),
            uid: meta.uid(),
            gid: meta.gid(),
            size: if meta.is_file() { meta.len() as i64 } else { 0 },
            mod_time: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            linkname,
            devmajor: i64::from(rustix::fs::major(meta.rdev())),
            devminor: i64::from(rustix::fs::minor(meta.rdev())),
            ..Stat::default()
        };
        files.push(meta.is_file().then(|| path.clone()));
        let packet = Packet { r#type: PacketType::PacketStat.into(), stat: Some(stat), ..Packet::default() };
        out.blocking_send(packet).map_err(|_| gone())?;
        if meta.is_dir() {
            list(root, &path, out, files)?;
        }
    }
    Ok(())
}

fn content(path: &Path, id: u32, out: &mpsc::Sender<Packet>) -> Result<(), Status> {
    let failed = |error: std::io::Error| Status::internal(format!("cannot read {}: {error}", path.display()));
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = file.read(&mut buffer).map_err(failed)?;
        let data = Packet { data: buffer[..n].to_vec(), ..packet(PacketType::PacketData, id) };
        out.blocking_send(data).map_err(|_| gone())?;
        if n == 0 {
            return Ok(());
        }
    }
}

/// Writes a tree as a tar archive, without following links.
pub(crate) fn write_tar(root: &Path, out: &mut dyn std::io::Write) -> Result<(), String> {
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    archive.mode(tar::HeaderMode::Complete);
    append(&mut archive, root, Path::new("")).map_err(|error| format!("cannot write the archive: {error}"))?;
    archive.finish().map_err(|error| format!("cannot write the archive: {error}"))
}

fn append(archive: &mut tar::Builder<&mut dyn std::io::Write>, root: &Path, inside: &Path) -> std::io::Result<()> {
    let mut names: Vec<_> =
        std::fs::read_dir(root.join(inside))?.map(|entry| entry.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    names.sort();
    for name in names {
        let path = inside.join(&name);
        let whole = root.join(&path);
        let meta = std::fs::symlink_metadata(&whole)?;
        if meta.file_type().is_socket() {
            continue;
        }
        archive.append_path_with_name(&whole, &path)?;
        if meta.is_dir() {
            append(archive, root, &path)?;
        }
    }
    Ok(())
}

//! Layers on the real kernel: unpack, overlay mount, commit. Needs root; mounts stay below a temporary directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use oci::{ChainId, Descriptor, Digest, media_type};
use snapshots::{ChangeKind, Snapshots};
use tar::{Builder, EntryType, Header};

struct Fixture {
    root: tempfile::TempDir,
    content: content::Store,
    snapshots: Snapshots,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let content = content::Store::open(root.path()).unwrap();
        let snapshots = Snapshots::open(root.path(), content.clone()).unwrap();
        Self { root, content, snapshots }
    }

    fn layer(&self, archive: &[u8]) -> (Descriptor, Digest) {
        (self.content.put_bytes(media_type::OCI_LAYER, archive).unwrap(), Digest::of(archive))
    }

    fn unpack(&self, archives: &[Vec<u8>]) -> snapshots::Result<Option<ChainId>> {
        let _lease = self.content.lease("test");
        let (layers, diff_ids): (Vec<_>, Vec<_>) = archives.iter().map(|a| self.layer(a)).unzip();
        self.snapshots.ensure_layers(&layers, &diff_ids)
    }

    fn mounts(&self) -> usize {
        let root = self.root.path().to_str().unwrap();
        fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|l| l.contains(root)).count()
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(1_700_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// An archive from lines: `d path`, `f path content`, `l path target`, `h path target`.
fn archive(lines: &[&str]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (kind, path, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
        // Straight into the field: the builder's own checks would refuse hostile paths.
        let put = |mut header: Header, builder: &mut Builder<Vec<u8>>, data: &[u8]| {
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, data).unwrap();
        };
        match kind {
            "d" => put(header(EntryType::Directory, 0o755, 0), &mut builder, b""),
            "f" => put(header(EntryType::Regular, 0o644, rest.len()), &mut builder, rest.as_bytes()),
            _ => {
                let mut header = header(if kind == "l" { EntryType::Symlink } else { EntryType::Link }, 0o777, 0);
                header.as_old_mut().linkname[..rest.len()].copy_from_slice(rest.as_bytes());
                put(header, &mut builder, b"");
            }
        }
    }
    builder.into_inner().unwrap()
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_lies_below_on_a_real_mount() {
    let fixture = Fixture::new();
    let base = archive(&["d dir", "f dir/old 1", "f gone x", "f stays y", "d deep", "f deep/a a", "f deep/b b"]);
    let upper = archive(&["f .wh.gone ", "d dir", "f dir/.wh..wh..opq ", "f dir/new 2", "f deep/.wh.a "]);
    let chain = fixture.unpack(&[base, upper]).unwrap();
    let view = fixture.snapshots.view(chain.as_ref()).unwrap();
    assert_eq!(listing(view.path()), ["deep", "dir", "stays"]);
    assert_eq!(listing(&view.path().join("dir")), ["new"]);
    assert_eq!(listing(&view.path().join("deep")), ["b"]);
    drop(view);
    assert_eq!(fixture.mounts(), 0);
}

#[test]
fn a_committed_snapshot_is_the_same_layer_as_its_archive_unpacked_elsewhere() {
    let fixture = Fixture::new();
    let base = archive(&["d etc", "f etc/keep k", "f etc/drop d", "d var", "f var/x x"]);
    let parent = fixture.unpack(std::slice::from_ref(&base)).unwrap();
    fixture.snapshots.prepare("step", parent.as_ref()).unwrap();
    {
        let mounted = fixture.snapshots.mount("step").unwrap();
        let at = |p: &str| mounted.path().join(p);
        fs::write(at("etc/new"), "n").unwrap();
        fs::hard_link(at("etc/new"), at("etc/again")).unwrap();
        fs::remove_file(at("etc/drop")).unwrap();
        fs::remove_dir_all(at("var")).unwrap();
        fs::create_dir(at("var")).unwrap();
        fs::write(at("var/y"), "y").unwrap();
        fs::write(at(&"x".repeat(200)), "long").unwrap();
        std::os::unix::fs::symlink("/etc/new", at("link")).unwrap();
        fs::set_permissions(at("etc/keep"), fs::Permissions::from_mode(0o4755)).unwrap();
    }
    let changes = fixture.snapshots.changes("step").unwrap();
    let kind = |p: &str| changes.iter().find(|c| c.path == Path::new(p)).map(|c| c.kind);
    assert_eq!(kind("/etc"), Some(ChangeKind::Modified));
    assert_eq!(kind("/etc/new"), Some(ChangeKind::Added));
    assert_eq!(kind("/etc/drop"), Some(ChangeKind::Deleted));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    fixture.snapshots.diff("step", &mut first).unwrap();
    fixture.snapshots.diff("step", &mut second).unwrap();
    assert_eq!(first, second);
    let captured = fixture.snapshots.capture("step").unwrap();
    let committed = fixture.snapshots.commit("step").unwrap();
    assert_eq!((captured.diff_id, captured.chain_id), (committed.diff_id, committed.chain_id));
    assert_eq!(committed.diff_id, Digest::of(&first));

    let other = Fixture::new();
    let chain = other.unpack(&[base, first]).unwrap();
    assert_eq!(chain, Some(committed.chain_id));
    for snapshots in [&fixture.snapshots, &other.snapshots] {
        let view = snapshots.view(Some(&committed.chain_id)).unwrap();
        let at = |p: &str| view.path().join(p);
        assert_eq!(listing(&at("etc")), ["again", "keep", "new"]);
        assert_eq!(listing(&at("var")), ["y"]);
        assert_eq!(fs::metadata(at("etc/new")).unwrap().ino(), fs::metadata(at("etc/again")).unwrap().ino());
        assert_eq!(fs::metadata(at("etc/keep")).unwrap().mode() & 0o7777, 0o4755);
        assert_eq!(fs::read_to_string(at(&"x".repeat(200))).unwrap(), "long");
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("/etc/new"));
    }
    assert_eq!(fixture.mounts() + other.mounts(), 0);
}

/// Attacks 14 to 16 and 18: nothing outside the target changes, the error is clear, and the space comes back.
#[test]
fn hostile_archives_change_nothing_outside_and_leave_nothing_behind() {
    let fixture = Fixture::new();
    let canary = fixture.root.path().join("canary");
    fs::write(&canary, "safe").unwrap();
    let out = canary.to_str().unwrap();
    let long_pax = {
        let mut builder = Builder::new(Vec::new());
        let mut pax = header(EntryType::XHeader, 0, 8 << 20);
        pax.set_cksum();
        builder.append(&pax, vec![b'0'; 8 << 20].as_slice()).unwrap();
        builder.into_inner().unwrap()
    };
    let overlay_mark = {
        let mut builder = Builder::new(Vec::new());
        let mut device = header(EntryType::Char, 0, 0);
        device.set_device_major(0).unwrap();
        device.set_device_minor(0).unwrap();
        builder.append_data(&mut device, "x", std::io::empty()).unwrap();
        builder.into_inner().unwrap()
    };
    let refused: Vec<(Vec<u8>, &str)> = vec![
        (archive(&["f ../canary owned"]), "leaves the target"),
        (archive(&["f a/../../canary owned"]), "leaves the target"),
        (archive(&["h evil ../../canary"]), "leaves the target"),
        (archive(&[&format!("h evil {out}")]), "hard link target"),
        (archive(&["f .wh... "]), "leaves the target"),
        (archive(&["d a", "h b /"]), "hard link to the root"),
        (long_pax, "extended headers"),
        (overlay_mark, "raw overlayfs whiteout"),
        (vec![b'x'; 1024], "bad header checksum"),
        (archive(&["f whole 0123456789"])[..515].to_vec(), "unexpected end"),
    ];
    for (bytes, why) in refused {
        let error = fixture.unpack(&[bytes]).unwrap_err().to_string();
        assert!(error.contains(why), "{error} should say {why}");
        assert_eq!(fs::read_to_string(&canary).unwrap(), "safe");
        assert!(listing(&fixture.root.path().join("snapshots/a")).is_empty(), "{why}: something was left");
    }
    // A link out, then a write, an owner change or a directory through it: all of it lands inside.
    let parent = canary.parent().unwrap().to_str().unwrap();
    let inside = archive(&[
        &format!("l out {parent}"),
        "f out/canary owned",
        &format!("l file {out}"),
        "f file owned",
        "l dir /",
        "d dir",
        "f dir/canary owned",
    ]);
    let chain = fixture.unpack(&[inside]).unwrap();
    assert_eq!(fs::read_to_string(&canary).unwrap(), "safe");
    let view = fixture.snapshots.view(chain.as_ref()).unwrap();
    assert_eq!(fs::read_to_string(view.path().join("dir/canary")).unwrap(), "owned");
    assert!(fs::symlink_metadata(view.path().join("file")).unwrap().is_file());
}

#[test]
fn an_archive_cannot_set_the_attributes_that_overlayfs_reads() {
    let fixture = Fixture::new();
    let mut builder = Builder::new(Vec::new());
    let redirect = ("SCHILY.xattr.trusted.overlay.redirect", b"/etc".as_slice());
    builder.append_pax_extensions([redirect, ("SCHILY.xattr.user.fine", b"1".as_slice())]).unwrap();
    builder.append_data(&mut header(EntryType::Directory, 0o755, 0), "d", std::io::empty()).unwrap();
    fixture.unpack(&[builder.into_inner().unwrap()]).unwrap();
    let dir = fixture.root.path().join("snapshots/l/1/d");
    let mut names = vec![0; 4096];
    let n = rustix::fs::llistxattr(&dir, &mut names).unwrap();
    let names = String::from_utf8_lossy(&names[..n]).into_owned();
    assert!(names.contains("user.fine") && !names.contains("trusted"), "{names}");
}

#[test]
fn bombs_stop_at_their_limit_and_give_their_space_back() {
    let root = tempfile::tempdir().unwrap();
    let content = content::Store::open(root.path()).unwrap();
    let limits = snapshots::Limits { max_bytes: 4 << 20, max_entries: 50, ..snapshots::Limits::default() };
    let snapshots = Snapshots::with_limits(root.path(), content.clone(), limits).unwrap();
    let zeros = "0".repeat(1 << 20);
    let big: Vec<String> = (0..6).map(|i| format!("f big{i} {zeros}")).collect();
    let many: Vec<String> = (0..60).map(|i| format!("f small{i} x")).collect();
    for (lines, why) in [(big, "bytes after decompression"), (many, "limit of 50 entries")] {
        let plain = archive(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let layer = content.put_bytes(media_type::OCI_LAYER_GZIP, &gzip.finish().unwrap()).unwrap();
        let error = snapshots.ensure_layers(&[layer], &[Digest::of(&plain)]).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(listing(&root.path().join("snapshots/a")).is_empty());
    }
}

#[test]
fn content_that_is_not_what_the_image_says_never_becomes_a_layer() {
    let fixture = Fixture::new();
    let (layer, _) = fixture.layer(&archive(&["f a a"]));
    let error = fixture.snapshots.ensure_layers(&[layer], &[Digest::of(b"other")]).unwrap_err();
    assert!(error.to_string().contains("not sha256:"), "{error}");
    assert_eq!(listing(&fixture.root.path().join("snapshots/l")), ["0"]);
}

#[test]
fn gzip_zstd_and_plain_layers_give_one_chain() {
    let plain = archive(&["d d", "f d/f content"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let packed = [plain.clone(), gzip.finish().unwrap(), zstd::encode_all(plain.as_slice(), 1).unwrap()];
    for bytes in packed {
        let fixture = Fixture::new();
        let layer = fixture.content.put_bytes("", &bytes).unwrap();
        assert_eq!(
            fixture.snapshots.ensure_layers(&[layer], &[Digest::of(&plain)]).unwrap(),
            Some(ChainId(Digest::of(&plain)))
        );
    }
}

#[test]
fn opening_after_a_crash_sweeps_half_made_layers_and_stale_mounts_and_keeps_the_rest() {
    let fixture = Fixture::new();
    let chain = fixture.unpack(&[archive(&["f a a"])]).unwrap();
    fixture.snapshots.prepare("kept", chain.as_ref()).unwrap();
    let stale = fixture.snapshots.mount("kept").unwrap();
    fs::write(stale.path().join("written"), "w").unwrap();
    // As after a kill: the guard never ran.
    std::mem::forget(stale);
    let base = fixture.root.path().join("snapshots");
    fs::create_dir_all(base.join("a/77/half")).unwrap();
    fs::create_dir_all(base.join("l/78")).unwrap();
    fs::write(base.join("active/half.new"), "{").unwrap();
    let again = Snapshots::open(fixture.root.path(), fixture.content.clone()).unwrap();
    assert_eq!(fixture.mounts(), 0);
    assert_eq!((listing(&base.join("l")), listing(&base.join("a"))), (vec!["0".into(), "1".into()], vec!["2".into()]));
    assert!(again.get("kept").unwrap().upper.unwrap().join("written").exists());
    again.remove("kept").unwrap();
    assert_eq!(again.gc().unwrap(), chain.into_iter().collect::<Vec<_>>());
    assert_eq!(listing(&base.join("l")), ["0"]);
}

#[test]
fn a_layer_stays_while_a_snapshot_an_image_or_a_lease_needs_it() {
    let fixture = Fixture::new();
    let chain = {
        let lease = fixture.content.lease("test");
        let chain = fixture.unpack(&[archive(&["f a a"])]).unwrap();
        assert!(fixture.snapshots.gc().unwrap().is_empty(), "a lease holds it");
        drop(lease);
        chain
    };
    fixture.snapshots.prepare("c", chain.as_ref()).unwrap();
    assert!(fixture.snapshots.gc().unwrap().is_empty(), "a snapshot holds it");
    fixture.snapshots.remove("c").unwrap();
    assert_eq!(fixture.snapshots.gc().unwrap().len(), 1);
    assert!(fixture.snapshots.prepare("c", chain.as_ref()).unwrap_err().to_string().contains("not unpacked"));
}

#[test]
fn devices_fifos_owners_and_sparse_files_come_out_as_they_went_in() {
    let fixture = Fixture::new();
    let mut builder = Builder::new(Vec::new());
    let mut null = header(EntryType::Char, 0o666, 0);
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    builder.append_data(&mut null, "null", std::io::empty()).unwrap();
    builder.append_data(&mut header(EntryType::Fifo, 0o600, 0), "pipe", std::io::empty()).unwrap();
    let mut owned = header(EntryType::Regular, 0o640, 1);
    owned.set_uid(1234);
    owned.set_gid(4321);
    builder.append_data(&mut owned, "owned", b"x".as_slice()).unwrap();
    // PAX 1.0: one segment "end" at 1 MiB.
    let mut map = b"1\n1048576\n3\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"end");
    let pax = [
        ("GNU.sparse.major", b"1".as_slice()),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"holes"),
        ("GNU.sparse.realsize", b"1048579"),
    ];
    builder.append_pax_extensions(pax).unwrap();
    builder
        .append_data(&mut header(EntryType::Regular, 0o644, map.len()), "GNUSparseFile.0/holes", map.as_slice())
        .unwrap();
    let chain = fixture.unpack(&[builder.into_inner().unwrap()]).unwrap();
    fixture.snapshots.prepare("k", chain.as_ref()).unwrap();
    let dir = fixture.root.path().join("snapshots/l/1");
    let stat = |n: &str| fs::symlink_metadata(dir.join(n)).unwrap();
    assert!(stat("null").file_type().is_char_device() && stat("null").mode() & 0o777 == 0o666);
    assert!(stat("pipe").file_type().is_fifo());
    assert_eq!((stat("owned").uid(), stat("owned").gid(), stat("owned").mtime()), (1234, 4321, 1_700_000_000));
    let holes = fs::read(dir.join("holes")).unwrap();
    assert_eq!((holes.len(), &holes[1_048_576..]), (1_048_579, b"end".as_slice()));
    assert!(stat("holes").blocks() * 512 < 100_000, "holes stay holes");
}

/// The same numbers every time: a failure can be had again.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }
}

#[test]
fn damaged_archives_are_read_or_refused_and_nothing_leaves_the_target() {
    let fixture = Fixture::new();
    let canary = fixture.root.path().join("canary");
    fs::write(&canary, "safe").unwrap();
    let mut builder = Builder::new(archive(&["d a", "f a/b content", "l a/l ../../canary", "h h a/b", "f .wh.x "]));
    builder
        .append_pax_extensions([("path", b"a/long".as_slice()), ("mtime", b"1.5"), ("SCHILY.xattr.user.k", b"v")])
        .unwrap();
    builder.append_data(&mut header(EntryType::Regular, 0o644, 3), "short", b"abc".as_slice()).unwrap();
    let whole = builder.into_inner().unwrap();
    let mut seeded = Seeded(0x9e37_79b9_7f4a_7c15);
    let mut taken = 0;
    for round in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..=seeded.next(4) {
            let at = seeded.next(bytes.len());
            bytes[at] = [0, 0xff, b'7', b'/', b'.', 0x80][seeded.next(6)];
        }
        bytes.truncate(bytes.len() - seeded.next(3) * seeded.next(700));
        // Checksums are made right again, or hardly any change would come further than to them.
        for block in bytes.chunks_exact_mut(512) {
            if block.get(257..262) == Some(b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        taken += usize::from(fixture.unpack(&[bytes]).is_ok());
        assert_eq!(fs::read_to_string(&canary).unwrap(), "safe", "round {round}");
    }
    assert!(taken > 30, "most changes do no harm: {taken}");
    assert!(listing(&fixture.root.path().join("snapshots/a")).is_empty());
}

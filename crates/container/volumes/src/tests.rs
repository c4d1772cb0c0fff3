//! Volumes on a real directory: records, wording, crash leftovers and copy-up.

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::symlink},
};

use super::*;

fn spec(name: &str, opts: &[(&str, &str)]) -> VolumeSpec {
    let driver_opts = opts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    VolumeSpec { name: name.to_owned(), driver_opts, ..VolumeSpec::default() }
}

#[test]
fn a_created_volume_is_found_again_after_reopening() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    let (made, new) = volumes.create(&spec("data", &[])).unwrap();
    assert!(new);
    assert!(!volumes.create(&spec("data", &[])).unwrap().1, "a second create answers the first");
    drop(volumes);
    assert_eq!(Volumes::open(root.path()).unwrap().list(), vec![made]);
}

#[test]
fn a_volume_in_use_is_not_removed_and_says_by_whom() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    volumes.create(&spec("data", &[])).unwrap();
    let error = volumes.remove("data", &["abc".to_owned(), "def".to_owned()], false).unwrap_err();
    assert_eq!(error.to_string(), "remove data: volume is in use - [abc, def]");
    volumes.remove("data", &[], false).unwrap();
    assert_eq!(volumes.remove("data", &[], false).unwrap_err().to_string(), "get data: no such volume");
    volumes.remove("data", &[], true).unwrap();
    assert_eq!(fs::read_dir(root.path().join("volumes")).unwrap().count(), 0);
}

#[test]
fn names_that_could_leave_the_directory_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    for name in ["", "x", "../up", "a/b", ".hidden", "-x", "a b", &"n".repeat(256), "ü1"] {
        assert!(matches!(volumes.create(&spec(name, &[])), Err(Error::InvalidName(_))), "{name:?}");
    }
}

#[test]
fn driver_options_are_checked_at_create() {
    let name = VolumeName::parse("data").unwrap();
    let refused = [
        (vec![("type", "none")], "missing device in volume options"),
        (vec![("device", "/x")], "missing type in volume options"),
        (vec![("type", "none"), ("o", "bind"), ("device", "x")], "a bind needs an absolute path"),
        (vec![("type", "ext4"), ("device", "/dev/sda")], "only bind and tmpfs are"),
        (vec![("colour", "red")], "invalid option"),
    ];
    for (opts, reason) in refused {
        let error = source::validate(&name, &spec("data", &opts).driver_opts).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_bind_volume_hands_out_the_host_path() {
    let root = tempfile::tempdir().unwrap();
    let host = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    let opts = [("type", "none"), ("o", "bind,ro"), ("device", host.path().to_str().unwrap())];
    let (volume, _) = volumes.create(&spec("data", &opts)).unwrap();
    let source = volumes.source(&volume).unwrap();
    assert_eq!((source.path.as_path(), source.read_only), (host.path(), true));
}

#[test]
fn a_half_made_volume_is_swept_at_open() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("volumes/half/_data")).unwrap();
    assert!(Volumes::open(root.path()).unwrap().list().is_empty());
    assert!(!root.path().join("volumes/half").exists());
}

#[test]
fn copy_up_keeps_modes_and_symlinks_and_happens_only_once() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(image.path().join("sub")).unwrap();
    fs::write(image.path().join("sub/file"), "content").unwrap();
    fs::set_permissions(image.path().join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("/etc/passwd", image.path().join("link")).unwrap();
    let source = File::open(image.path()).unwrap();
    assert!(copy_up(source.as_fd(), volume.path(), false).unwrap());
    assert_eq!(fs::read_to_string(volume.path().join("sub/file")).unwrap(), "content");
    assert_eq!(fs::metadata(volume.path().join("sub/file")).unwrap().mode() & 0o7777, 0o4751);
    assert_eq!(fs::read_link(volume.path().join("link")).unwrap(), Path::new("/etc/passwd"));
    assert!(!copy_up(source.as_fd(), volume.path(), false).unwrap(), "a volume with content is left alone");
}

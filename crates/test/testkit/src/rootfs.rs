//! Directories to work in.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use tempfile::TempDir;

/// A root of the test's own, mode 0700, removed with the value.
pub fn own_root() -> TempDir {
    let root = tempfile::Builder::new().prefix("gantry-test-").tempdir().expect("a temporary directory");
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
    root
}

/// A small root file system in `dir`: busybox (Debian's static one) under the names that tests use, users root and nobody, /tmp.
pub fn busybox_rootfs(dir: &Path) {
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "run", "var"] {
        fs::create_dir_all(dir.join(name)).expect("mkdir");
    }
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    fs::copy("/bin/busybox", dir.join("bin/busybox")).expect("/bin/busybox (Debian: busybox-static)");
    const NAMES: &str = "sh cat echo ls id true false sleep test mount umount mknod stat hostname head tail seq wc tr kill ps grep dd \
                         readlink ln mkdir chroot unshare nc stty tty env pwd touch chmod yes cp rm od sync sysctl ip dirname date nproc httpd printf awk sort cut uname sed chrt ionice";
    for name in NAMES.split_whitespace() {
        symlink("busybox", dir.join("bin").join(name)).expect("symlink");
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
        .expect("passwd");
    fs::write(dir.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").expect("group");
}

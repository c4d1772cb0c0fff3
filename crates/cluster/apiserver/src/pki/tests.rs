use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn names(address: &str) -> ServingNames {
    ServingNames { host_name: "Node-A".to_owned(), addresses: vec![address.parse().expect("address")] }
}

#[test]
fn keys_are_private_and_stay_the_same_across_restarts() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("pki");
    let first = Pki::open(&path, &names("192.0.2.7")).expect("first start");
    let second = Pki::open(&path, &names("192.0.2.7")).expect("second start");
    assert_eq!(first.kubeconfig("https://127.0.0.1:6443"), second.kubeconfig("https://127.0.0.1:6443"));
    assert_eq!(first.serving.certificate_pem, second.serving.certificate_pem);
    for entry in std::fs::read_dir(&path).expect("pki directory") {
        let entry = entry.expect("entry");
        let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}

#[test]
fn serving_certificate_is_renewed_when_the_address_of_the_host_changes_but_the_ca_stays() {
    let directory = tempfile::tempdir().expect("tempdir");
    let first = Pki::open(directory.path(), &names("192.0.2.7")).expect("first start");
    let second = Pki::open(directory.path(), &names("192.0.2.8")).expect("second start");
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_ne!(first.serving.certificate_pem, second.serving.certificate_pem);
    assert_eq!(first.admin.certificate_pem, second.admin.certificate_pem);
}

#[test]
fn half_renewed_leaf_is_replaced() {
    let directory = tempfile::tempdir().expect("tempdir");
    let first = Pki::open(directory.path(), &names("192.0.2.7")).expect("first start");
    let stray = first.client_certificate("x", &[]).expect("another key");
    files::write_private(&directory.path().join("admin.key"), &stray.key_pem).expect("half a renewal");
    let second = Pki::open(directory.path(), &names("192.0.2.7")).expect("second start");
    assert_ne!(first.admin.certificate_pem, second.admin.certificate_pem);
    second.server_tls().expect("TLS set-up");
}

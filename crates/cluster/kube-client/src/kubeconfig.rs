//! Reads a kubeconfig: the current context's server and credentials.
//!
//! Used by `Client::from_kubeconfig`. It knows inline data and files, client certificates and tokens; it runs no
//! credential plugins.

use crate::ClientError;
use base64::Engine;
use serde::Deserialize;
use std::path::Path;

/// Where to connect and as whom. Certificates and keys are PEM.
pub(crate) struct Endpoint {
    pub(crate) server: String,
    pub(crate) authority: Option<Vec<u8>>,
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    current_context: String,
    clusters: Vec<Named<Cluster>>,
    contexts: Vec<Named<Context>>,
    #[serde(default)]
    users: Vec<Named<User>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "context", alias = "user")]
    value: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: Option<String>,
    certificate_authority: Option<String>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: Option<String>,
    client_certificate: Option<String>,
    client_key_data: Option<String>,
    client_key: Option<String>,
    token: Option<String>,
}

pub(crate) fn load(path: &Path) -> Result<Endpoint, ClientError> {
    let text = std::fs::read_to_string(path).map_err(|error| wrong(path, error))?;
    let config: Config = serde_yaml_ng::from_str(&text).map_err(|error| wrong(path, error))?;
    let context = find(path, "context", config.contexts, &config.current_context)?;
    let cluster = find(path, "cluster", config.clusters, &context.cluster)?;
    let user = match context.user.as_str() {
        "" => User::default(),
        name => find(path, "user", config.users, name)?,
    };
    Ok(Endpoint {
        server: cluster.server,
        authority: material(path, cluster.certificate_authority_data, cluster.certificate_authority)?,
        certificate: material(path, user.client_certificate_data, user.client_certificate)?,
        key: material(path, user.client_key_data, user.client_key)?,
        token: user.token,
    })
}

fn find<T>(path: &Path, what: &str, all: Vec<Named<T>>, name: &str) -> Result<T, ClientError> {
    let found = all.into_iter().find(|n| n.name == name).map(|n| n.value);
    found.ok_or_else(|| wrong(path, format!("there is no {what} named {name:?}")))
}

/// Inline data goes before a file; a file's name is relative to the kubeconfig.
fn material(path: &Path, data: Option<String>, file: Option<String>) -> Result<Option<Vec<u8>>, ClientError> {
    if let Some(data) = data {
        let bytes = base64::engine::general_purpose::STANDARD.decode(data.trim());
        return bytes.map(Some).map_err(|error| wrong(path, error));
    }
    let Some(file) = file else { return Ok(None) };
    let file = path.parent().unwrap_or(Path::new(".")).join(file);
    std::fs::read(&file).map(Some).map_err(|error| wrong(path, format!("{}: {error}", file.display())))
}

fn wrong(path: &Path, reason: impl std::fmt::Display) -> ClientError {
    ClientError::Kubeconfig { path: path.display().to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::load;

    const TEXT: &str = "
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:6443', certificate-authority: ca.pem}}]
contexts: [{name: here, context: {cluster: c, user: u}}]
users: [{name: u, user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}}]
";

    #[test]
    fn the_current_context_names_server_and_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, TEXT).unwrap();
        let error = load(&path).err().unwrap().to_string();
        assert!(error.contains("ca.pem"), "{error}");
        std::fs::write(dir.path().join("ca.pem"), "authority").unwrap();
        let endpoint = load(&path).unwrap();
        assert_eq!(endpoint.server, "https://127.0.0.1:6443");
        assert_eq!(endpoint.authority.unwrap(), b"authority");
        assert_eq!((endpoint.certificate.unwrap(), endpoint.key.unwrap()), (b"cert".to_vec(), b"key".to_vec()));
    }

    #[test]
    fn a_missing_context_is_said_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, TEXT.replace("current-context: here", "current-context: there")).unwrap();
        assert!(load(&path).err().unwrap().to_string().contains("there is no context named \"there\""));
    }
}

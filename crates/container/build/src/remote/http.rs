//! One file over HTTP: redirects, a limit, its name, its time.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sha2::{Digest as _, Sha256};

use crate::BuildError;

const MAX_REDIRECTS: usize = 10;
/// A file beyond this is refused.
const MAX_BYTES: u64 = 64 << 30;
/// A server that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// What was downloaded into the folder.
pub(super) struct Downloaded {
    pub name: String,
    /// `sha256:…`
    pub digest: String,
}

pub(super) async fn download(url: &str, dir: &Path) -> Result<Downloaded, BuildError> {
    let failed = |reason: String| BuildError::step(format!("failed to load {url}: {reason}"));
    let mut response = follow(url).await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(failed(format!("invalid response status {}", response.status().as_u16())));
    }
    let name = file_name(url, &response);
    let path = dir.join(&name);
    let mut file = std::fs::File::create(&path).map_err(BuildError::io("cannot write", &path))?;
    let (mut hash, mut size) = (Sha256::new(), 0u64);
    loop {
        let frame = tokio::time::timeout(SILENCE, response.body_mut().frame());
        let frame = frame.await.map_err(|_| failed(format!("nothing came for {} s", SILENCE.as_secs())))?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|error| failed(error.to_string()))?.into_data() else { continue };
        size += data.len() as u64;
        if size > MAX_BYTES {
            return Err(failed(format!("larger than {MAX_BYTES} bytes")));
        }
        hash.update(&data);
        file.write_all(&data).map_err(BuildError::io("cannot write", &path))?;
    }
    if let Some(modified) = modified(&response) {
        file.set_modified(modified).map_err(BuildError::io("cannot set the time of", &path))?;
    }
    Ok(Downloaded { name, digest: format!("sha256:{}", hex::encode(hash.finalize())) })
}

async fn follow(url: &str) -> Result<Response<Incoming>, String> {
    // One provider is compiled in; a second installation of it is refused, and that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_native_roots().map_err(|e| e.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build(connector.https_or_http().enable_http1().build());
    let mut url: Uri = url.parse().map_err(|error| format!("bad address: {error}"))?;
    for _ in 0..=MAX_REDIRECTS {
        let request = Request::get(&url)
            .header(header::USER_AGENT, concat!("gantry/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = tokio::time::timeout(SILENCE, client.request(request)).await;
        let response = response.map_err(|_| "no answer".to_owned())?.map_err(|error| chain(&error))?;
        let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        match location {
            Some(location) if response.status().is_redirection() => url = absolute(&url, location)?,
            _ => return Ok(response),
        }
    }
    Err(format!("more than {MAX_REDIRECTS} redirects"))
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn absolute(base: &Uri, location: &str) -> Result<Uri, String> {
    let text = if location.contains("://") {
        location.to_owned()
    } else {
        let origin =
            format!("{}://{}", base.scheme_str().unwrap_or("http"), base.authority().map_or("", |a| a.as_str()));
        if location.starts_with('/') { format!("{origin}{location}") } else { format!("{origin}/{location}") }
    };
    text.parse().map_err(|error| format!("bad redirect to {text}: {error}"))
}

/// The last part of the address, or what the server calls it; never a path.
fn file_name(url: &str, response: &Response<Incoming>) -> String {
    let disposition = response.headers().get(header::CONTENT_DISPOSITION).and_then(|value| value.to_str().ok());
    let told = disposition
        .and_then(|text| text.split(';').find_map(|part| part.trim().strip_prefix("filename=")))
        .map(|name| name.trim_matches('"').to_owned());
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let from_url = path.split("://").nth(1).and_then(|rest| rest.split_once('/')).map(|(_, path)| path);
    let name = told.unwrap_or_else(|| from_url.unwrap_or_default().to_owned());
    safe_name(&name)
}

fn safe_name(name: &str) -> String {
    let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if last.is_empty() || last == "." || last == ".." || last.contains('\0') || last.len() > 200 {
        "download".to_owned()
    } else {
        last.to_owned()
    }
}

fn modified(response: &Response<Incoming>) -> Option<std::time::SystemTime> {
    let text = response.headers().get(header::LAST_MODIFIED)?.to_str().ok()?;
    let time = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(time.timestamp().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_paths() {
        for (given, want) in
            [("a/b.txt", "b.txt"), ("../..", "download"), ("", "download"), ("x/", "x"), ("..", "download")]
        {
            assert_eq!(safe_name(given), want, "{given}");
        }
    }

    #[test]
    fn redirects_are_absolute_or_on_the_same_host() {
        let base: Uri = "http://h:1/a/b".parse().unwrap();
        assert_eq!(absolute(&base, "/c").unwrap().to_string(), "http://h:1/c");
        assert_eq!(absolute(&base, "https://o/c").unwrap().to_string(), "https://o/c");
    }
}

//! Which resource a path means. Pure: names are validated here, so that no handler sees a malformed one.

use oci::{Digest, Reference};

use super::reply::Failure;

/// The resources of the distribution specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Catalog,
    Search,
    Tags { repository: String },
    Referrers { repository: String, digest: Digest },
    Manifest { repository: String, reference: Target },
    Blob { repository: String, digest: Digest },
    Uploads { repository: String },
    Upload { repository: String, id: String },
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Tag(String),
    Digest(Digest),
}

impl Route {
    pub(super) fn parse(path: &str) -> Result<Self, Failure> {
        let not_found = || Failure::new(404, "UNSUPPORTED", "no such resource");
        if path == "/v1/search" {
            return Ok(Self::Search);
        }
        let rest = path.strip_prefix("/v2").ok_or_else(not_found)?;
        let parts: Vec<&str> = match rest {
            "" | "/" => return Ok(Self::Base),
            "/_catalog" => return Ok(Self::Catalog),
            _ => rest.strip_prefix('/').ok_or_else(not_found)?.split('/').collect(),
        };
        match parts.as_slice() {
            [name @ .., "tags", "list"] => Ok(Self::Tags { repository: repository(name)? }),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads { repository: repository(name)? })
            }
            [name @ .., "blobs", "uploads", id] => {
                Ok(Self::Upload { repository: repository(name)?, id: (*id).to_owned() })
            }
            [name @ .., "blobs", text] => Ok(Self::Blob { repository: repository(name)?, digest: digest(text)? }),
            [name @ .., "referrers", text] => {
                Ok(Self::Referrers { repository: repository(name)?, digest: digest(text)? })
            }
            [name @ .., "manifests", text] => {
                Ok(Self::Manifest { repository: repository(name)?, reference: target(text)? })
            }
            _ => Err(not_found()),
        }
    }

    pub(super) fn repository(&self) -> Option<&str> {
        match self {
            Self::Base | Self::Catalog | Self::Search => None,
            Self::Tags { repository }
            | Self::Referrers { repository, .. }
            | Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Uploads { repository }
            | Self::Upload { repository, .. } => Some(repository),
        }
    }
}

fn repository(parts: &[&str]) -> Result<String, Failure> {
    let name = parts.join("/");
    if Reference::is_repository_path(&name) {
        Ok(name)
    } else {
        Err(Failure::new(400, "NAME_INVALID", "invalid repository name"))
    }
}

fn digest(text: &str) -> Result<Digest, Failure> {
    percent_decode(text).parse().map_err(|error| Failure::new(400, "DIGEST_INVALID", format!("{error}")))
}

fn target(text: &str) -> Result<Target, Failure> {
    let text = percent_decode(text);
    if text.contains(':') {
        return digest(&text).map(Target::Digest);
    }
    if Reference::is_tag(&text) {
        Ok(Target::Tag(text))
    } else {
        Err(Failure::new(400, "TAG_INVALID", "manifest tag did not match URI"))
    }
}

/// Decodes `%3A` and the like; a broken escape stays as it is.
pub(super) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escaped = (bytes[i] == b'%').then(|| bytes.get(i + 1..i + 3)).flatten();
        match escaped.and_then(|pair| hex::decode(pair).ok()) {
            Some(byte) => {
                decoded.extend(byte);
                i += 3;
            }
            None => {
                decoded.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart_and_malformed_names_refused() {
        let d = Digest::of(b"");
        let repository = || "a/b".to_owned();
        for (path, expected) in [
            ("/v2/".to_owned(), Ok(Route::Base)),
            ("/v2/_catalog".to_owned(), Ok(Route::Catalog)),
            ("/v2/a/b/tags/list".to_owned(), Ok(Route::Tags { repository: repository() })),
            (
                "/v2/a/b/manifests/1.0".to_owned(),
                Ok(Route::Manifest { repository: repository(), reference: Target::Tag("1.0".into()) }),
            ),
            (format!("/v2/a/b/blobs/{d}"), Ok(Route::Blob { repository: repository(), digest: d })),
            (
                format!("/v2/a/b/blobs/{}", d.to_string().replace(':', "%3A")),
                Ok(Route::Blob { repository: repository(), digest: d }),
            ),
            ("/v2/a/b/blobs/uploads/".to_owned(), Ok(Route::Uploads { repository: repository() })),
            ("/v2/a/b/blobs/uploads/xyz".to_owned(), Ok(Route::Upload { repository: repository(), id: "xyz".into() })),
            ("/v2/a/b/blobs/sha256:x".to_owned(), Err("DIGEST_INVALID")),
            ("/v2/A/manifests/x".to_owned(), Err("NAME_INVALID")),
            ("/v2/a/../b/manifests/x".to_owned(), Err("NAME_INVALID")),
            ("/v2/manifests/x".to_owned(), Err("NAME_INVALID")),
            ("/v2/a/manifests/%2e%2e".to_owned(), Err("TAG_INVALID")),
            ("/v1/x".to_owned(), Err("UNSUPPORTED")),
        ] {
            assert_eq!(Route::parse(&path).map_err(|f| f.code), expected, "{path}");
        }
    }
}

//! The version prefix of a path.

use crate::error::ApiError;

/// The newest version that is served.
pub(crate) const NEWEST: Version = Version { major: 1, minor: 50 };
/// The oldest.
pub(crate) const OLDEST: Version = Version { major: 1, minor: 24 };
/// The Docker release whose behaviour is followed.
pub(crate) const DOCKER: &str = "28.2.2";

/// An API version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Splits `/v1.43/containers/json` into its version (the newest when there is none) and the rest.
pub(crate) fn split(path: &str) -> Result<(Version, &str), ApiError> {
    let Some((version, rest)) = parse(path) else { return Ok((NEWEST, path)) };
    if version > NEWEST {
        return Err(ApiError::bad_request(format!(
            "client version {version} is too new. Maximum supported API version is {NEWEST}"
        )));
    }
    if version < OLDEST {
        return Err(ApiError::bad_request(format!(
            "client version {version} is too old. Minimum supported API version is {OLDEST}, please upgrade your client to a newer version"
        )));
    }
    Ok((version, rest))
}

fn parse(path: &str) -> Option<(Version, &str)> {
    let after = path.strip_prefix("/v")?;
    let end = after.find('/')?;
    let (major, minor) = after[..end].split_once('.')?;
    let version = Version { major: major.parse().ok()?, minor: minor.parse().ok()? };
    Some((version, &after[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_taken_off_and_bounded() {
        assert_eq!(split("/v1.43/info").unwrap(), (Version { major: 1, minor: 43 }, "/info"));
        assert_eq!(split("/info").unwrap(), (NEWEST, "/info"));
        assert_eq!(split("/volumes/v1.2").unwrap().1, "/volumes/v1.2");
        let text = |path| split(path).unwrap_err().message;
        assert_eq!(text("/v1.51/info"), "client version 1.51 is too new. Maximum supported API version is 1.50");
        assert!(
            text("/v1.23/info").starts_with("client version 1.23 is too old. Minimum supported API version is 1.24")
        );
        assert_eq!(split("/v9/info").unwrap().1, "/v9/info");
    }
}

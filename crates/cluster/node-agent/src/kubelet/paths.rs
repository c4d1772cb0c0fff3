//! Queries of the kubelet's API. Pure.

use jiff::Timestamp;
use kube_client::node::LogOptions;

/// Keys and values of a query, decoded.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = escape.and_then(|two| std::str::from_utf8(two).ok()).and_then(|two| u8::from_str_radix(two, 16).ok());
        match (byte, bytes[at]) {
            (Some(byte), _) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (None, b'+') => out.push(b' '),
            (None, other) => out.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn flag(pairs: &[(String, String)], names: &[&str]) -> bool {
    pairs.iter().any(|(key, value)| names.contains(&key.as_str()) && !matches!(value.as_str(), "0" | "false" | ""))
}

pub(super) fn log_options(container: &str, query: &str) -> Result<LogOptions, String> {
    let pairs = pairs(query);
    let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let number = |name: &str| match value(name) {
        None | Some("") => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("{name}: Invalid value: {text:?}")),
    };
    let since = match (value("sinceTime"), number("sinceSeconds")?) {
        (Some(text), None) => Some(text.parse::<Timestamp>().map_err(|_| format!("sinceTime: Invalid value: {text:?}"))?),
        (Some(_), Some(_)) => return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned()),
        (None, Some(seconds)) => {
            let back = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX).min(1 << 32));
            Timestamp::now().saturating_sub(back).ok()
        }
        (None, None) => None,
    };
    Ok(LogOptions {
        container: container.to_owned(),
        follow: flag(&pairs, &["follow"]),
        previous: flag(&pairs, &["previous"]),
        timestamps: flag(&pairs, &["timestamps"]),
        since,
        tail_lines: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_queries_are_read_and_nonsense_is_refused() {
        let options = log_options("c", "follow=true&tailLines=3&timestamps=1&previous=false").unwrap();
        assert_eq!((options.follow, options.tail_lines, options.timestamps, options.previous), (true, Some(3), true, false));
        assert!(log_options("c", "tailLines=-1").is_err());
        assert!(log_options("c", "sinceTime=yesterday").is_err());
        assert!(log_options("c", "sinceTime=2026-01-01T00:00:00Z&sinceSeconds=3").is_err());
        assert!(log_options("c", "sinceSeconds=99999999999999999").is_ok());
        assert_eq!(decode("a%20b+c%zz%"), "a b c%zz%");
    }
}

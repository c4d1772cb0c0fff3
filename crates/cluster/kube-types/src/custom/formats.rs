//! String formats that a schema can ask for; an unknown format asks for nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether `text` has the format; true for formats that Kubernetes does not check.
pub fn holds(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "datetime" => crate::time::parse(text).is_some(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "byte" => base64_text(text),
        "mac" => mac(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => uuid(text),
        "email" => email(text),
        "uri" => uri(text),
        "hostname" => hostname(text),
        "hexcolor" => text.strip_prefix('#').is_some_and(|rest| matches!(rest.len(), 3 | 6) && all_hex(rest)),
        "duration" => go_duration(text).is_some(),
        _ => true,
    }
}

fn all_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let Ok(bits) = bits.parse::<u8>() else { return false };
    address.parse::<Ipv4Addr>().is_ok() && bits <= 32 || address.parse::<Ipv6Addr>().is_ok() && bits <= 128
}

fn base64_text(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn mac(text: &str) -> bool {
    [':', '-'].iter().any(|separator| {
        let parts: Vec<&str> = text.split(*separator).collect();
        matches!(parts.len(), 6 | 8) && parts.iter().all(|part| part.len() == 2 && all_hex(part))
    })
}

fn uuid(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let places = [8, 13, 18, 23];
    let dashed = text.len() == 36 && places.iter().all(|at| text.as_bytes()[*at] == b'-');
    plain.len() == 32 && all_hex(&plain) && (dashed || text.len() == 32)
}

fn email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && hostname(domain) && !local.contains(' '))
}

fn uri(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    let good = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    (text.starts_with('/') || scheme.is_some_and(good)) && !text.contains([' ', '<', '>', '"'])
}

fn hostname(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    !text.is_empty() && text.len() <= 255 && text.trim_end_matches('.').split('.').all(label)
}

/// `1h30m`, `250ms` in nanoseconds.
pub fn go_duration(text: &str) -> Option<i128> {
    const UNITS: [(&str, i128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("d", 86_400_000_000_000),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0i128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &rest[..end])?.1;
        total += (number * unit as f64) as i128;
        rest = &rest[end..];
    }
    (total.abs() <= i128::from(i64::MAX)).then_some(sign * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_judged_as_kubernetes_judges_them() {
        for (format, good, bad) in [
            ("date-time", "2020-01-02T03:04:05Z", "yesterday"),
            ("date", "2020-01-02", "2020-13-02"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "fe80::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/40"),
            ("byte", "aGVsbG8=", "a"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
            ("uri", "https://example.com/a", "not a uri"),
            ("hostname", "a.example.com", "-a"),
            ("duration", "1h30m", "90 minutes"),
            ("mac", "aa:bb:cc:dd:ee:ff", "aa:bb"),
        ] {
            assert!(holds(format, good) && !holds(format, bad), "{format}");
        }
        assert!(holds("made-up", "anything"));
    }
}

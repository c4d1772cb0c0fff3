//! Tables and human units as the docker client prints them.

use jiff::Timestamp;

/// Prints rows in columns, three blanks apart, as wide as their widest cell.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0))
        .collect();
    let print = |cells: Vec<&str>| {
        let line: String = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
        println!("{}", line.trim_end());
    };
    print(head.to_vec());
    for row in rows {
        print(row.iter().map(String::as_str).collect());
    }
}

/// `3 minutes ago`, as docker rounds.
pub(crate) fn ago(then: i64, now: Timestamp) -> String {
    format!("{} ago", span(now.as_second() - then))
}

fn span(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if days < 14 => format!("{days} days"),
        _ if days < 60 => format!("{} weeks", days / 7),
        _ if days < 730 => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    }
}

/// `338MB`: three significant digits, powers of ten.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_read_as_dockers_do() {
        assert_eq!([0, 999, 1000, 12_340_000, 338_000_000].map(size), ["0B", "999B", "1kB", "12.3MB", "338MB"]);
        assert_eq!(
            [0, 5, 61, 600, 3700, 172_800].map(span),
            ["Less than a second", "5 seconds", "About a minute", "10 minutes", "About an hour", "2 days"]
        );
    }
}

//! Resource quantities: exact decimal numbers with a suffix (`100m`, `1.5Gi`, `2e3`).
//!
//! Used by validation, scheduling and accounting. Invariant: parsing and printing give Kubernetes' canonical form, and
//! arithmetic is exact down to a billionth; what is finer is rounded away from zero, what is too large is cut to 2^63-1.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;

/// An exact number of nano-units with the form in which it was written.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `k`, `M`, `G`, and `m`, `u`, `n`
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`
    BinarySi,
    /// `e3`, `e6`
    DecimalExponent,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

/// Reads any of the three forms.
pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || whole.is_empty() && fraction.is_empty() {
        return Err(QuantityError);
    }
    let (format, ten, two) = scale(suffix)?;
    let nanos = magnitude(whole, fraction, ten, two).min(MAX);
    Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
}

/// Suffix → form, power of ten, power of two.
fn scale(suffix: &str) -> Result<(Format, i32, u32), QuantityError> {
    let decimal = |exponent| Ok((Format::DecimalSi, exponent, 0));
    let binary = |exponent| Ok((Format::BinarySi, 0, exponent));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        other => {
            let exponent = other.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
            Ok((Format::DecimalExponent, exponent.parse().map_err(|_| QuantityError)?, 0))
        }
    }
}

/// whole.fraction × 10^ten × 2^two in nano-units, at most a little over [`MAX`]. Digits alone count, so long input is harmless.
fn magnitude(whole: &str, fraction: &str, ten: i32, two: u32) -> i128 {
    const DIGITS: usize = 18;
    let shift = ten.saturating_add(9);
    let whole = scaled(digits(whole), shift, two);
    let (kept, dropped) = fraction.split_at(fraction.len().min(DIGITS));
    let sticky = i128::from(dropped.bytes().any(|b| b != b'0'));
    let part = scaled(digits(kept) + sticky, shift.saturating_sub(kept.len() as i32), two);
    whole.saturating_add(part)
}

fn digits(text: &str) -> i128 {
    text.bytes().fold(0, |sum: i128, b| sum.saturating_mul(10).saturating_add(i128::from(b - b'0'))).min(MAX)
}

/// n × 2^two × 10^shift, rounded up.
fn scaled(n: i128, shift: i32, two: u32) -> i128 {
    let n = n.saturating_mul(1 << two);
    match 10i128.checked_pow(shift.unsigned_abs()) {
        Some(factor) if shift >= 0 => n.saturating_mul(factor),
        Some(factor) => ceil_div(n, factor),
        None if n == 0 => 0,
        None if shift >= 0 => MAX,
        None => 1,
    }
}

/// Away from zero.
fn ceil_div(n: i128, by: i128) -> i128 {
    let quotient = n / by;
    if n % by == 0 { quotient } else { quotient + n.signum() }
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANO, format }
    }

    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Whole units, rounded away from zero.
    pub fn value(self) -> i64 {
        clamp(ceil_div(self.nanos, NANO))
    }

    /// Thousandths, rounded away from zero.
    pub fn milli_value(self) -> i64 {
        clamp(ceil_div(self.nanos, NANO / 1000))
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// No finer than a whole unit.
    pub fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }

    pub fn format(self) -> Format {
        self.format
    }

    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }
}

fn clamp(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        match self.format {
            // Below a kibibyte the binary form has no suffix to show.
            Format::BinarySi if self.nanos.abs() >= 1024 * NANO => binary_form(f, ceil_div(self.nanos, NANO)),
            Format::BinarySi | Format::DecimalSi => decimal_form(f, self.nanos, false),
            Format::DecimalExponent => decimal_form(f, self.nanos, true),
        }
    }
}

fn binary_form(f: &mut fmt::Formatter<'_>, mut units: i128) -> fmt::Result {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut at = 0;
    while units % 1024 == 0 && at + 1 < SUFFIXES.len() {
        units /= 1024;
        at += 1;
    }
    write!(f, "{units}{}", SUFFIXES[at])
}

fn decimal_form(f: &mut fmt::Formatter<'_>, mut n: i128, exponent_form: bool) -> fmt::Result {
    const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let mut at = 0;
    while n % 1000 == 0 && at + 1 < SUFFIXES.len() {
        n /= 1000;
        at += 1;
    }
    match at {
        3 => write!(f, "{n}"),
        _ if exponent_form => write!(f, "{n}e{}", (at as i32 - 3) * 3),
        _ => write!(f, "{n}{}", SUFFIXES[at]),
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// Keeps the left form, unless the left is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms_are_kubernetes_own() {
        for (input, expected) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("100000", "100k"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("1E3", "1e3"),
            ("12e0", "12"),
            ("0.0000000001", "1n"),
            ("-1.5", "-1500m"),
            ("+1", "1"),
            (".5", "500m"),
            ("5.", "5"),
            ("1023", "1023"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("100000000000000000000", "9223372036854775807"),
            ("1.0Ei", "1Ei"),
            ("0.25Ei", "256Pi"),
            ("123456789012345678n", "123456789012345678n"),
            ("1e-30", "1e-9"),
            ("9Ei", "9223372036854775807"),
        ] {
            assert_eq!(parse(input).map(|q| q.to_string()).as_deref(), Ok(expected), "{input}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for input in ["", "x", "1x", "1 Gi", "1.2.3", ".", "-", "1ki", "1KI", "e3", "1e", "1e99999999999", "१", "1Gi "]
        {
            assert_eq!(parse(input), Err(QuantityError), "{input}");
        }
        assert!(parse(&"9".repeat(100_000)).is_ok());
    }

    #[test]
    fn values_round_up() {
        assert_eq!(parse("1.1").unwrap().value(), 2);
        assert_eq!(parse("100m").unwrap().value(), 1);
        assert_eq!(parse("1n").unwrap().milli_value(), 1);
        assert_eq!(parse("2").unwrap().milli_value(), 2000);
        assert_eq!(parse("-1.1").unwrap().value(), -2);
    }

    proptest! {
        #[test]
        fn printing_and_reading_again_changes_nothing(n in -1_000_000_000_000i64..1_000_000_000_000, suffix in "(n|u|m||k|M|Ki|Mi|Gi|e3|e-3)") {
            let first = parse(&format!("{n}{suffix}")).unwrap();
            let again = parse(&first.to_string()).unwrap();
            prop_assert_eq!(first, again);
            prop_assert_eq!(first.to_string(), again.to_string());
        }

        #[test]
        fn sums_commute_and_subtraction_undoes(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
            let (a, b) = (Quantity::from_millis(a), Quantity::from_millis(b));
            prop_assert_eq!(a + b, b + a);
            prop_assert_eq!(a + b - b, a);
            prop_assert_eq!([a, b].into_iter().sum::<Quantity>(), a + b);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}

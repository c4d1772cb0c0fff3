//! Kubernetes quantities as exact numbers.
//!
//! Used for QoS classes here and for cgroup limits in the node agent. Invariant: no floating point, so
//! `100m` is 100 milli-units exactly; what does not parse is `None`, never a guess.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths of the unit, rounded up.
pub fn millis(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (multiplier, divisor) = scale(suffix)?;
    let (mantissa, decimals) = decimal(number)?;
    let numerator = mantissa.checked_mul(multiplier)?.checked_mul(1000)?;
    let denominator = divisor.checked_mul(10_i128.checked_pow(decimals)?)?;
    let down = numerator.div_euclid(denominator);
    Some(down + i128::from(numerator.rem_euclid(denominator) != 0))
}

/// Whole units, rounded up.
pub fn units(quantity: &Quantity) -> Option<i64> {
    let millis = millis(quantity)?;
    let up = millis.div_euclid(1000) + i128::from(millis.rem_euclid(1000) != 0);
    i64::try_from(up).ok()
}

fn decimal(number: &str) -> Option<(i128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains(['.', '+', '-']) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    Some((digits.parse().ok()?, u32::try_from(fraction.len()).ok()?))
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    const BINARY: i128 = 1024;
    Some(match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (BINARY, 1),
        "Mi" => (BINARY.pow(2), 1),
        "Gi" => (BINARY.pow(3), 1),
        "Ti" => (BINARY.pow(4), 1),
        "Pi" => (BINARY.pow(5), 1),
        "Ei" => (BINARY.pow(6), 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, factor) } else { (factor, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_every_suffix_become_exact_milli_units() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("100m", Some(100)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("128Mi", Some(134_217_728_000)),
            ("2k", Some(2_000_000)),
            ("1e3", Some(1_000_000)),
            ("1n", Some(1)),
            ("-1", Some(-1000)),
            ("", None),
            ("abc", None),
            ("1Zi", None),
            ("1.2.3", None),
            ("9999999999999999999999999999999999999999E", None),
        ] {
            assert_eq!(millis(&Quantity(text.to_owned())), expected, "{text}");
        }
    }
}

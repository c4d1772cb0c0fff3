//! Resource quantities: exact decimal numbers with a suffix.

/// An exact number of nano-units with the form in which it was written.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct QuantityError;

/// Reads `100m`, `1.5Gi`, `2e3`.
pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
    let _ = text;
    todo!()
}

impl Quantity {
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        format: Format::DecimalSi,
    };
    pub fn from_units(units: i64, format: Format) -> Self {
        Self {
            nanos: i128::from(units) * 1_000_000_000,
            format,
        }
    }
    pub fn from_millis(millis: i64) -> Self {
        Self {
            nanos: i128::from(millis) * 1_000_000,
            format: Format::DecimalSi,
        }
    }
    /// Whole units, rounded up.
    pub fn value(self) -> i64 {
        let _ = self.format;
        todo!()
    }
    /// Thousandths, rounded up.
    pub fn milli_value(self) -> i64 {
        let _ = self.nanos;
        todo!()
    }
}

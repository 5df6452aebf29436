//! Resource quantities: `100m`, `1.5Gi`, `2e3`.
//!
//! A quantity is a whole number of nano-units (upstream rounds up to that too) and the notation it prints in.
//! Bounds: |value| below about 1.7e29 units; larger texts are refused. Source: apimachinery `pkg/api/resource`.
//! Not here: which resources a pod asks for (scheduler).

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use crate::Value;

const NANOS: i128 = 1_000_000_000;
/// Digits kept of the numeric part; beyond it the value cannot matter to any resource.
const DIGITS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The notation that a quantity was written in, and prints in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    #[default]
    DecimalSi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub fn from_units(units: i64, format: Format) -> Quantity {
        Quantity { nanos: i128::from(units) * NANOS, format }
    }

    pub fn from_millis(millis: i64) -> Quantity {
        Quantity { nanos: i128::from(millis) * (NANOS / 1000), format: Format::DecimalSi }
    }

    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(QuantityError::Format),
        };
        let (whole, rest) = split_digits(unsigned);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        check_suffix_shape(suffix)?;
        let (base, exponent, mut format) = interpret_suffix(suffix).ok_or(QuantityError::Suffix)?;
        if unsigned.is_empty() || unsigned.starts_with(|c: char| !c.is_ascii_digit() && c != '.') {
            return Err(QuantityError::Numeric);
        }
        let (magnitude, exact_units) = scale(whole, fraction, base, exponent)?;
        let mut nanos = magnitude;
        if format == Format::BinarySi {
            nanos = nanos.min(i128::from(i64::MAX) * NANOS);
            if nanos > 0 && nanos < NANOS && !exact_units {
                format = Format::DecimalSi;
            }
        }
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// A quantity in JSON: a string, or a number as its text.
    pub fn from_value(value: &Value) -> Result<Quantity, QuantityError> {
        match value {
            Value::String(text) => Quantity::parse(text.trim()),
            Value::Number(number) => Quantity::parse(&number.to_string()),
            Value::Null => Ok(Quantity::ZERO),
            _ => Err(QuantityError::Format),
        }
    }

    /// Whole units, rounded up (away from zero), saturating. Upstream's `Value()`.
    pub fn to_units(self) -> i64 {
        self.rounded_up(NANOS)
    }

    /// Thousandths, rounded up, saturating. Upstream's `MilliValue()`.
    pub fn to_millis(self) -> i64 {
        self.rounded_up(NANOS / 1000)
    }

    /// For ratios and percentages only.
    #[allow(clippy::cast_precision_loss)] // an approximation is what the caller asks for
    pub fn to_f64(self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn format(self) -> Format {
        self.format
    }

    fn rounded_up(self, unit: i128) -> i64 {
        let (whole, rest) = (self.nanos / unit, self.nanos % unit);
        let rounded = whole + rest.signum();
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }
}

/// The text that the API server stores for `text`: shortest form in the same notation.
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    Quantity::parse(text).map(|quantity| quantity.to_string())
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn check_suffix_shape(suffix: &str) -> Result<(), QuantityError> {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    if rest.bytes().all(|c| c.is_ascii_digit()) { Ok(()) } else { Err(QuantityError::Format) }
}

/// Base (10 or 2), exponent and notation of a suffix.
fn interpret_suffix(suffix: &str) -> Option<(u8, i32, Format)> {
    let known = match suffix {
        "" => (10, 0, Format::DecimalSi),
        "n" => (10, -9, Format::DecimalSi),
        "u" => (10, -6, Format::DecimalSi),
        "m" => (10, -3, Format::DecimalSi),
        "k" => (10, 3, Format::DecimalSi),
        "M" => (10, 6, Format::DecimalSi),
        "G" => (10, 9, Format::DecimalSi),
        "T" => (10, 12, Format::DecimalSi),
        "P" => (10, 15, Format::DecimalSi),
        "E" => (10, 18, Format::DecimalSi),
        "Ki" => (2, 10, Format::BinarySi),
        "Mi" => (2, 20, Format::BinarySi),
        "Gi" => (2, 30, Format::BinarySi),
        "Ti" => (2, 40, Format::BinarySi),
        "Pi" => (2, 50, Format::BinarySi),
        "Ei" => (2, 60, Format::BinarySi),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (10, exponent, Format::DecimalExponent)
        }
    };
    Some(known)
}

/// `whole.fraction` × base^exponent in nano-units, rounded up, and whether it had at least one whole unit.
fn scale(whole: &str, fraction: &str, base: u8, exponent: i32) -> Result<(i128, bool), QuantityError> {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && fraction.trim_start_matches('0').is_empty() {
        return Ok((0, true));
    }
    if whole.len() + fraction.len() > DIGITS_MAX {
        return Err(QuantityError::Numeric);
    }
    let digits: String = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    // value = digits × 10^power × (2^binary), in nano-units
    let mut power = 9 - i32::try_from(fraction.len()).map_err(|_| QuantityError::Numeric)?;
    let mut binary = 0_u32;
    if base == 10 {
        power = power.saturating_add(exponent);
    } else {
        binary = u32::try_from(exponent).map_err(|_| QuantityError::Numeric)?;
    }
    if i64::from(power) + digits.len() as i64 <= 0 {
        return Ok((1, false)); // below one nano-unit: rounds up
    }
    let mut value: i128 = digits.parse().map_err(|_| QuantityError::Numeric)?;
    value = value.checked_mul(1_i128 << binary).ok_or(QuantityError::Numeric)?;
    if power >= 0 {
        let factor = 10_i128.checked_pow(power.unsigned_abs()).ok_or(QuantityError::Numeric)?;
        value = value.checked_mul(factor).ok_or(QuantityError::Numeric)?;
    } else {
        let divisor = 10_i128.checked_pow(power.unsigned_abs()).ok_or(QuantityError::Numeric)?;
        value = value / divisor + i128::from(value % divisor != 0);
    }
    Ok((value, value >= NANOS))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos > -1024 * NANOS && self.nanos < 1024 * NANOS;
        if self.format == Format::BinarySi && !small && self.nanos % NANOS == 0 {
            let (mut units, mut step) = (self.nanos / NANOS, 0);
            while units % 1024 == 0 && step < 6 {
                units /= 1024;
                step += 1;
            }
            return write!(f, "{units}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 && (exponent < 18 || self.format == Format::DecimalExponent) {
            mantissa /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        write!(f, "{mantissa}{suffix}")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The sum keeps the notation of the left side unless that is zero.
impl Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(quantities: I) -> Quantity {
        quantities.fold(Quantity::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_print_in_their_shortest_form() {
        let table = [
            ("0", "0"),
            ("0.0", "0"),
            ("00", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("-1", "-1"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            (".5", "500m"),
            ("0.5", "500m"),
            ("1000", "1k"),
            ("10000", "10k"),
            ("12000000", "12M"),
            ("1.2e6", "1200e3"),
            ("1e3", "1e3"),
            ("2E2", "200"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.5Mi", "512Ki"),
            ("0.0001Ki", "102400u"),
            ("64Ei", "9223372036854775807"),
            ("100E", "100E"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("0.0000000001", "1n"),
            ("1u", "1u"),
        ];
        for (text, canonical) in table {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Ok(canonical.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "x", "1x", "1 Ki", "1.1.1", "--1", "1KiB", "1mm", "1e", "Ki", "+", "1e99", "é"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let table =
            [("1", 1, 1000), ("100m", 1, 100), ("1n", 1, 1), ("-100m", -1, -100), ("1Ki", 1024, 1_024_000)];
        for (text, units, millis) in table {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!((quantity.to_units(), quantity.to_millis()), (units, millis), "{text}");
        }
        assert_eq!(Quantity::parse("100E").unwrap().to_units(), i64::MAX);
    }

    #[test]
    fn arithmetic_ignores_notation_and_keeps_the_left_one() {
        let sum = Quantity::parse("1Gi").unwrap() + Quantity::parse("1024").unwrap();
        assert_eq!(sum.to_string(), "1048577Ki");
        assert_eq!(Quantity::parse("1k").unwrap(), Quantity::parse("1000").unwrap());
        assert!(Quantity::parse("1Ki").unwrap() > Quantity::parse("1k").unwrap());
        assert_eq!((Quantity::ZERO - Quantity::parse("1Mi").unwrap()).to_string(), "-1Mi");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_parses_or_fails_and_canonical_is_stable(text in "[+-]?[0-9.]{0,20}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,4}") {
            if let Ok(quantity) = Quantity::parse(&text) {
                let again = Quantity::parse(&quantity.to_string()).unwrap();
                assert_eq!(again, quantity);
                assert_eq!(again.to_string(), quantity.to_string());
            }
        }
    }
}

//! Numbers, durations, sizes and quoted strings as Go prints and reads them.
//!
//! Not here: whole messages (json.rs, fields.rs, table.rs).

use std::time::Duration;

/// Go's strconv.ParseInt.
pub(crate) fn parse_i64(text: &str, radix: u32) -> Result<i64, String> {
    i64::from_str_radix(text, radix).map_err(|error| number_error("ParseInt", text, error.kind()))
}

/// Go's strconv.ParseUint.
pub(crate) fn parse_u64(text: &str, radix: u32) -> Result<u64, String> {
    if text.starts_with('+') {
        return Err(format!("strconv.ParseUint: parsing {}: invalid syntax", quote(text.as_bytes())));
    }
    u64::from_str_radix(text, radix).map_err(|error| number_error("ParseUint", text, error.kind()))
}

fn number_error(function: &str, text: &str, kind: &std::num::IntErrorKind) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let reason = match kind {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {}: {reason}", quote(text.as_bytes()))
}

/// Go's time.ParseDuration, without signs.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let quoted = quote(text.as_bytes());
    let invalid = || format!("time: invalid duration {quoted}");
    let mut rest = text;
    let mut seconds = 0.0;
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let digits = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let value: f64 = number.parse().map_err(|_| invalid())?;
        let (unit, tail) = tail.split_at(tail.find(is_number).unwrap_or(tail.len()));
        seconds += value
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" => return Err(format!("time: missing unit in duration {quoted}")),
                unit => return Err(format!("time: unknown unit {unit:?} in duration {quoted}")),
            };
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

/// Go's Duration.String for less than a minute; longer ones in seconds.
pub(crate) fn duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let (unit, digits) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds}ns"),
        1_000..1_000_000 => ("µs", 3),
        1_000_000..1_000_000_000 => ("ms", 6),
        _ => ("s", 9),
    };
    let scale = 10_u128.pow(digits);
    let fraction = format!("{:0width$}", nanoseconds % scale, width = digits as usize);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{}{dot}{fraction}{unit}", nanoseconds / scale)
}

/// dustin/go-humanize `Bytes`: powers of 1000, one digit after the point below ten.
pub(crate) fn size(size_bytes: u64) -> String {
    if size_bytes < 10 {
        return format!("{size_bytes} B");
    }
    let mut value = size_bytes as f64;
    let mut unit = 0;
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let value = (value * 10.0 + 0.5).floor() / 10.0;
    let unit = units.get(unit).copied().unwrap_or("EB");
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Go's `%q`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\u{7}' => quoted.push_str("\\a"),
                '\u{8}' => quoted.push_str("\\b"),
                '\u{b}' => quoted.push_str("\\v"),
                '\u{c}' => quoted.push_str("\\f"),
                other if (other as u32) < 0x20 || other as u32 == 0x7f => {
                    quoted.push_str(&format!("\\x{:02x}", other as u32));
                }
                other if other.is_control() => quoted.push_str(&format!("\\u{:04x}", other as u32)),
                other => quoted.push(other),
            }
        }
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

/// What `--hex` makes of a key or a value.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_in_go() {
        for (nanoseconds, text) in [
            (10_677_524, "10.677524ms"),
            (5_000_000_000, "5s"),
            (1_500, "1.5µs"),
            (999, "999ns"),
            (1_020_000_000, "1.02s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), text);
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        for (text, error) in [
            ("5", "time: missing unit in duration \"5\""),
            ("", "time: invalid duration \"\""),
            ("s", "time: invalid duration \"s\""),
            ("1x", "time: unknown unit \"x\" in duration \"1x\""),
        ] {
            assert_eq!(parse_duration(text).unwrap_err(), error);
        }
    }

    #[test]
    fn sizes_and_strings_print_as_in_go() {
        for (size_bytes, text) in
            [(5, "5 B"), (20_480, "20 kB"), (1_234_567, "1.2 MB"), (25_000_000_000, "25 GB")]
        {
            assert_eq!(size(size_bytes), text);
        }
        assert_eq!(quote(b"a\"\n\x00\xff\xc3\xa4"), "\"a\\\"\\n\\x00\\xff\u{e4}\"");
        assert_eq!(hex(b"a1"), "\\x61\\x31");
    }

    #[test]
    fn numbers_fail_with_gos_words() {
        assert_eq!(parse_i64("zz", 16).unwrap_err(), "strconv.ParseInt: parsing \"zz\": invalid syntax");
        assert_eq!(parse_u64("-1", 16).unwrap_err(), "strconv.ParseUint: parsing \"-1\": invalid syntax");
        assert_eq!(
            parse_i64("9223372036854775808", 10).unwrap_err(),
            "strconv.ParseInt: parsing \"9223372036854775808\": value out of range"
        );
    }
}

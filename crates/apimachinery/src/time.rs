//! Times as the API writes them, and durations as its tables print them.
//!
//! `Time` is RFC 3339 in UTC with seconds, `MicroTime` with six digits. Numbers are seconds or microseconds since the
//! Unix epoch. Not here: a clock (callers pass the current time).

use jiff::Timestamp;

/// `2024-01-02T03:04:05Z`; years 0001 to 9999, others are clamped.
pub fn format_s(unix_s: i64) -> String {
    timestamp(unix_s, 0).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2024-01-02T03:04:05.000006Z`.
pub fn format_us(unix_us: i64) -> String {
    let time = timestamp(unix_us.div_euclid(1_000_000), unix_us.rem_euclid(1_000_000));
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn timestamp(unix_s: i64, extra_us: i64) -> Timestamp {
    const YEAR_1_S: i64 = -62_135_596_800;
    const YEAR_9999_S: i64 = 253_402_207_200; // one day short of year 10000: jiff's limit leaves room for offsets
    let seconds = unix_s.clamp(YEAR_1_S, YEAR_9999_S);
    let nanoseconds = i32::try_from(extra_us * 1000).unwrap_or(0);
    Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Seconds of an RFC 3339 time; a fraction is dropped. `None` if Go's `time.RFC3339` would not parse it.
pub fn parse_s(text: &str) -> Option<i64> {
    parse_us(text).map(|us| us.div_euclid(1_000_000))
}

/// Microseconds of an RFC 3339 time with or without a fraction.
pub fn parse_us(text: &str) -> Option<i64> {
    if !is_rfc3339(text.as_bytes()) {
        return None;
    }
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// The shape `YYYY-MM-DDTHH:MM:SS[.d+](Z|+HH:MM)`; jiff alone accepts more spellings than Go.
fn is_rfc3339(text: &[u8]) -> bool {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let Some((head, mut rest)) = text.split_at_checked(SHAPE.len()) else { return false };
    let fits = |text: &[u8], shape: &[u8]| {
        text.len() == shape.len()
            && text.iter().zip(shape).all(|(c, s)| if *s == b'd' { c.is_ascii_digit() } else { c == s })
    };
    if !fits(head, SHAPE) || head.get(17..) == Some(b"60") {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
        if digits == 0 || digits > 18 {
            return false;
        }
        rest = fraction.get(digits..).unwrap_or_default();
    }
    rest == b"Z" || fits(rest, b"+dd:dd") || fits(rest, b"-dd:dd")
}

/// Age in a table: `5m`, `3d4h`, `2y10d`. Source: apimachinery `duration.HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 0 {
        return "0s".to_owned();
    }
    if seconds < 120 {
        return format!("{seconds}s");
    }
    let minutes = seconds / 60;
    if minutes < 10 {
        return two(minutes, "m", seconds % 60, "s");
    }
    if minutes < 180 {
        return format!("{minutes}m");
    }
    let hours = minutes / 60;
    match hours {
        0..8 => two(hours, "h", minutes % 60, "m"),
        8..48 => format!("{hours}h"),
        48..192 => two(hours / 24, "d", hours % 24, "h"),
        192..17_520 => format!("{}d", hours / 24),
        17_520..70_080 => two(hours / 24 / 365, "y", (hours / 24) % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

fn two(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

/// Age of a stored timestamp as tables print it: `<unknown>` when absent or unreadable.
pub fn age(timestamp: &str, now_s: i64) -> String {
    match parse_s(timestamp) {
        Some(then_s) => human_duration(now_s.saturating_sub(then_s)),
        None => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_upstream_prints_them() {
        let (m, h, d, y) = (60, 3600, 86_400, 365 * 86_400);
        let table = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * m, "2m"),
            (2 * m + 1, "2m1s"),
            (9 * m + 59, "9m59s"),
            (10 * m + 59, "10m"),
            (3 * h - 1, "179m"),
            (3 * h, "3h"),
            (3 * h + 5 * m, "3h5m"),
            (8 * h + 59 * m, "8h"),
            (47 * h, "47h"),
            (48 * h, "2d"),
            (3 * d + 4 * h, "3d4h"),
            (8 * d + 4 * h, "8d"),
            (2 * y - 1, "729d"),
            (2 * y, "2y"),
            (2 * y + 10 * d, "2y10d"),
            (8 * y + 10 * d, "8y"),
        ];
        for (seconds, text) in table {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn times_survive_a_round_trip() {
        for text in
            ["2024-01-02T03:04:05Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z"]
        {
            assert_eq!(format_s(parse_s(text).unwrap()), text);
        }
        assert_eq!(
            format_us(parse_us("2024-01-02T03:04:05.000006Z").unwrap()),
            "2024-01-02T03:04:05.000006Z"
        );
        assert_eq!(
            format_us(parse_us("2024-01-02T05:04:05.5+02:00").unwrap()),
            "2024-01-02T03:04:05.500000Z"
        );
        assert_eq!(format_us(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(format_s(i64::MAX).len(), 20);
    }

    #[test]
    fn only_gos_spelling_of_rfc3339_parses() {
        let table = [
            "",
            "now",
            "2024-01-02",
            "2024-01-02 03:04:05Z",
            "2024-01-02T03:04:05",
            "2024-01-02t03:04:05z",
            "2024-13-02T03:04:05Z",
            "2024-02-30T03:04:05Z",
            "2024-01-02T03:04:60Z",
            "2024-01-02T03:04:05.Z",
            "2024-01-02T03:04:05+0200",
            "+002024-01-02T03:04:05Z",
        ];
        for text in table {
            assert_eq!(parse_s(text), None, "{text}");
        }
    }

    #[test]
    fn ages_of_unreadable_times_are_unknown() {
        assert_eq!(age("", 0), "<unknown>");
        assert_eq!(age("1970-01-01T00:00:00Z", 300), "5m");
    }
}

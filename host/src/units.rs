//! Sizes and offsets as people write them, and as people read them.

use umbra_proto::rpc::kind;

/// Reads a number of bytes: decimal or `0x` hexadecimal, or decimal with one of the
/// binary suffixes `K`, `M`, `G`, `T` (a following `iB` or `B` is allowed).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is no size: write bytes, 0x.., or a number with K, M, G or T");
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).map_err(|_| bad());
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let shift = match suffix.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(bad()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' does not fit in 64 bits"))
}

/// Reads one byte: decimal, `0x` hexadecimal.
pub fn parse_byte(text: &str) -> Result<u8, String> {
    parse_bytes(text)?.try_into().map_err(|_| format!("'{text}' is no byte: 0 to 255"))
}

/// Reads bytes written as pairs of hexadecimal digits; spaces, colons and underscores
/// between pairs are skipped.
pub fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for c in text.chars() {
        match (c.to_digit(16), high) {
            (Some(digit), None) => high = Some(digit),
            (Some(digit), Some(first)) => {
                bytes.push((first * 16 + digit) as u8);
                high = None;
            }
            (None, None) if matches!(c, ' ' | ':' | '_') => {}
            (None, _) => return Err(format!("'{c}' is no hexadecimal digit of a pair")),
        }
    }
    match high {
        None => Ok(bytes),
        Some(_) => Err("an odd number of hexadecimal digits".into()),
    }
}

/// A size for people: three digits and a binary unit.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value.fract() == 0.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else if value < 10.0 {
        format!("{value:.2} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A time as `YYYY-MM-DD HH:MM:SS` in UTC, from nanoseconds since 1970.
pub fn show_time(ns: i64) -> String {
    let seconds = ns.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The proleptic Gregorian date of a day counted from 1970-01-01. Years start in March
/// here, so that the leap day is the last of a year; eras are 400 years.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Permission bits and kind as `ls -l` writes them.
pub fn show_mode(kind: u8, mode: u16) -> String {
    let mut text = String::from(match kind {
        kind::FILE => "-",
        kind::DIRECTORY => "d",
        kind::SYMLINK => "l",
        _ => "?",
    });
    for (bit, letter) in (0..9).rev().zip("rwxrwxrwx".chars()) {
        text.push(if mode & (1 << bit) != 0 { letter } else { '-' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_form() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("0x1000", 4096),
            ("64M", 64 << 20),
            ("1g", 1 << 30),
            ("1GiB", 1 << 30),
            ("2T", 2 << 40),
            ("10KB", 10 << 10),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "G", "1X", "-1", "1.5G", "0xg", "99999999999999999999", "18446744073709551615K"]
        {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hex_is_read_in_pairs() {
        assert_eq!(parse_hex("00ff A0:b1_7"), Err("an odd number of hexadecimal digits".into()));
        assert_eq!(parse_hex("00ff A0:b1"), Ok(vec![0, 255, 0xa0, 0xb1]));
        assert!(parse_hex("0 0").is_err());
        assert!(parse_hex("zz").is_err());
        assert_eq!(parse_hex(""), Ok(vec![]));
    }

    #[test]
    fn sizes_are_shown_for_people() {
        assert_eq!(show_bytes(0), "0 B");
        assert_eq!(show_bytes(1 << 30), "1 GiB");
        assert_eq!(show_bytes(1536), "1.50 KiB");
        assert_eq!(show_bytes(u64::MAX), "16777216 TiB");
    }

    #[test]
    fn times_and_modes_are_shown() {
        assert_eq!(show_time(0), "1970-01-01 00:00:00");
        assert_eq!(show_time(951_827_696_000_000_000), "2000-02-29 12:34:56");
        assert_eq!(show_time(-1), "1969-12-31 23:59:59");
        assert_eq!(show_mode(kind::DIRECTORY, 0o755), "drwxr-xr-x");
        assert_eq!(show_mode(kind::FILE, 0o640), "-rw-r-----");
        assert_eq!(show_mode(kind::SYMLINK, 0o777), "lrwxrwxrwx");
    }
}

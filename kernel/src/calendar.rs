//! The date that a real-time clock shows, as nanoseconds since 1970.
//!
//! The clock is taken to run in UTC, which is what QEMU's does unless told otherwise.
#![forbid(unsafe_code)]

use umbra_fs::Time;

/// The registers of a PC's real-time clock (MC146818), as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RtcRegisters {
    /// Seconds.
    pub(crate) second: u8,
    /// Minutes.
    pub(crate) minute: u8,
    /// Hours; bit 7 is "p.m." on a 12-hour clock.
    pub(crate) hour: u8,
    /// Day of the month, from 1.
    pub(crate) day: u8,
    /// Month, from 1.
    pub(crate) month: u8,
    /// Year of the century.
    pub(crate) year: u8,
    /// Century, where the platform has a register for it.
    pub(crate) century: Option<u8>,
    /// Status register B: bit 1 is "24 hours", bit 2 "binary, not BCD".
    pub(crate) status_b: u8,
}

impl RtcRegisters {
    /// The time, if the registers hold a date.
    pub(crate) fn time(self) -> Option<Time> {
        let binary = self.status_b & 4 != 0;
        let number = |value: u8| {
            if binary {
                Some(i64::from(value))
            } else {
                let (tens, ones) = (value >> 4, value & 15);
                (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
            }
        };
        let mut hour = number(self.hour & 0x7f)?;
        if self.status_b & 2 == 0 {
            if !(1..=12).contains(&hour) {
                return None;
            }
            hour = hour % 12 + if self.hour & 0x80 != 0 { 12 } else { 0 };
        }
        let century = self.century.and_then(number).filter(|c| (19..=99).contains(c)).unwrap_or(20);
        let year = century * 100 + number(self.year)?;
        let (month, day) = (number(self.month)?, number(self.day)?);
        let (minute, second) = (number(self.minute)?, number(self.second)?);
        let sound = (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second < 61
            && year >= 1970;
        if !sound {
            return None;
        }
        let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
        Some(Time(seconds.checked_mul(1_000_000_000)?))
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
///
/// Counts years from March, so that the leap day is the last day of a year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bcd(century: Option<u8>, date: [u8; 6]) -> RtcRegisters {
        let [year, month, day, hour, minute, second] = date;
        RtcRegisters { second, minute, hour, day, month, year, century, status_b: 2 }
    }

    #[test]
    fn dates() {
        let seconds = |r: RtcRegisters| r.time().map(|t| t.0 / 1_000_000_000);
        assert_eq!(seconds(bcd(Some(0x19), [0x70, 1, 1, 0, 0, 0])), Some(0));
        assert_eq!(seconds(bcd(Some(0x20), [0x00, 2, 0x29, 0x12, 0, 0])), Some(951_825_600));
        assert_eq!(seconds(bcd(None, [0x26, 0x11, 0x23, 0, 0, 0])), Some(1_795_392_000));
        let afternoon =
            RtcRegisters { status_b: 0, hour: 0x81, ..bcd(Some(0x19), [0x70, 1, 1, 0, 0, 0]) };
        assert_eq!(seconds(afternoon), Some(13 * 3600));
        let midnight = RtcRegisters { status_b: 4, hour: 12, ..bcd(Some(19), [70, 1, 2, 0, 0, 0]) };
        assert_eq!(seconds(midnight), Some(86_400));
    }

    #[test]
    fn what_is_no_date() {
        assert_eq!(bcd(None, [0x26, 0x13, 1, 0, 0, 0]).time(), None);
        assert_eq!(bcd(None, [0x26, 0, 1, 0, 0, 0]).time(), None);
        assert_eq!(bcd(None, [0xff; 6]).time(), None);
    }
}

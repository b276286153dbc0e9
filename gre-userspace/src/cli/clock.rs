//! When something was, in words.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc;

const DAY: i64 = 86_400;

/// The time, here.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Unix seconds.
    pub now: u64,
    /// Seconds east of UTC.
    pub offset: i64,
}

impl Clock {
    pub(super) fn local() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let seconds = now as libc::time_t;
        // SAFETY: `tm` is plain data, for which zero is a value; the call fills it and keeps nothing.
        let offset = unsafe {
            let mut tm: libc::tm = std::mem::zeroed();
            libc::localtime_r(&raw const seconds, &raw mut tm);
            tm.tm_gmtoff
        };
        Self { now, offset }
    }

    /// `10:32:05`, with the date before it unless that is today's.
    pub(super) fn time(self, at: u64) -> String {
        let here = |seconds: u64| seconds as i64 + self.offset;
        let (day, second) = (here(at).div_euclid(DAY), here(at).rem_euclid(DAY));
        let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
        if day == here(self.now).div_euclid(DAY) {
            return time;
        }
        let (year, month, day) = date(day);
        format!("{year}-{month:02}-{day:02} {time}")
    }

    /// `2 s ago`.
    pub(super) fn ago(self, at: u64) -> String {
        let seconds = self.now.saturating_sub(at);
        match seconds {
            0..60 => format!("{seconds} s ago"),
            60..3600 => format!("{} min ago", seconds / 60),
            3600..86_400 => format!("{} h ago", seconds / 3600),
            _ => format!("{} d ago", seconds / 86_400),
        }
    }
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    // Years begin with March here, so that leap days come last; 146,097 days are 400 years.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_here_and_with_its_date_unless_today() {
        // 2024-02-29 23:30:00 UTC, and the same two hours further east.
        let utc = Clock { now: 1_709_249_400, offset: 0 };
        let east = Clock { offset: 7200, ..utc };
        assert_eq!(utc.time(utc.now - 60), "23:29:00");
        assert_eq!(utc.time(utc.now - 86_400), "2024-02-28 23:30:00");
        assert_eq!(east.time(utc.now), "01:30:00");
        assert_eq!(east.time(utc.now - 7200), "2024-02-29 23:30:00");
    }

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        for (days, of_calendar) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (20_088, (2024, 12, 31)),
        ] {
            assert_eq!(date(days), of_calendar);
        }
    }

    #[test]
    fn how_long_ago_is_told_in_the_largest_unit() {
        let clock = Clock { now: 1_000_000, offset: 0 };
        let ago = [0, 59, 60, 3599, 3600, 86_399, 86_400].map(|s| clock.ago(clock.now - s));
        assert_eq!(
            ago,
            ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d"].map(|t| format!("{t} ago"))
        );
        assert_eq!(clock.ago(clock.now + 5), "0 s ago", "the daemon's clock was ahead");
    }
}

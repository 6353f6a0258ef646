//! `/ctime.so?timezone=e8`: the time eight hours east of Greenwich. `w5` is west, `e5:30` has minutes, and without a zone
//! it is UTC.

use abi::{Body, Environ, StartResponse};

mod clock;

abi::application!(application);

fn application(env: &Environ, start: StartResponse) -> Body {
    let headers = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")];
    let zone = env.query("timezone").unwrap_or_default();
    match minutes_east(&zone) {
        Some(minutes) => {
            let there = clock::now() + minutes * 60;
            start.respond("200 OK", &headers, format!("{}\n", clock::ctime(there)))
        }
        None => start.respond("400 Bad Request", &headers, format!("no such timezone: {zone:?}\n{USAGE}\n")),
    }
}

const USAGE: &str = "e or w, hours from 0 to 14, and minutes if need be: e8, w5, e5:30";

/// How far east of Greenwich a zone is; none if there is no such zone.
fn minutes_east(zone: &str) -> Option<i64> {
    if zone.is_empty() {
        return Some(0);
    }
    let (sign, distance) = match zone.split_at_checked(1)? {
        ("e" | "E", distance) => (1, distance),
        ("w" | "W", distance) => (-1, distance),
        _ => return None,
    };
    let (hours, minutes) = distance.split_once(':').unwrap_or((distance, "0"));
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= 14 * 60).then_some(sign * (hours * 60 + minutes))
}

/// One or two decimal digits.
fn number(digits: &str) -> Option<i64> {
    let well_formed = matches!(digits.len(), 1 | 2) && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| well_formed)
}

#[cfg(test)]
mod tests {
    use super::{clock::ctime, minutes_east};

    #[test]
    fn zones_are_hours_and_minutes_east_or_west() {
        for (zone, minutes) in [("", 0), ("e8", 480), ("E1", 60), ("w05", -300), ("e5:30", 330), ("W14", -840)] {
            assert_eq!(minutes_east(zone), Some(minutes), "{zone}");
        }
        for zone in ["8", "e", "e15", "e14:01", "e-1", "e+1", "e1:60", "e1:", "e:30", "e008", "x1", "é1", "e1 "] {
            assert_eq!(minutes_east(zone), None, "{zone}");
        }
    }

    /// The expected lines are what `LC_ALL=C date --utc --date=@SECONDS '+%a %b %e %T %Y'` says.
    #[test]
    fn the_calendar_has_leap_years() {
        for (seconds, line) in [
            (0, "Thu Jan  1 00:00:00 1970"),
            (-1, "Wed Dec 31 23:59:59 1969"),
            (951_782_400, "Tue Feb 29 00:00:00 2000"),
            (1_709_251_199, "Thu Feb 29 23:59:59 2024"),
            (1_735_689_599, "Tue Dec 31 23:59:59 2024"),
            (4_107_542_400, "Mon Mar  1 00:00:00 2100"),
        ] {
            assert_eq!(ctime(seconds), line);
        }
    }
}

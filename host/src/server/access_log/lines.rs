//! The lines of one loop, on their way to the writer.

use super::writer::AccessLog;
use crate::config::AccessLogFormat;
use crate::log;
use crate::sys::sink::LINE_BYTES_MAX;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Lines that the loop has made and not given away yet.
pub(in crate::server) struct Lines {
    log: Arc<AccessLog>,
    buffer: Vec<u8>,
    /// When the first of them was made, by the loop's clock.
    since_ms: u64,
    now_ms: u64,
    /// The time as lines have it.
    stamp: Vec<u8>,
    /// Of what second that is, and where in it the milliseconds stand.
    second: u64,
    /// Each line goes to the writer at once: this loop may end soon.
    is_leaving: bool,
}

impl Lines {
    pub(in crate::server) fn new(log: Arc<AccessLog>) -> Lines {
        Lines {
            log,
            buffer: Vec::new(),
            since_ms: 0,
            now_ms: 0,
            stamp: Vec::new(),
            second: u64::MAX,
            is_leaving: false,
        }
    }

    /// Sets the clock: of the loop, and of the world, since 1970.
    pub(in crate::server) fn tick(&mut self, now_ms: u64, now: Duration) {
        self.now_ms = now_ms;
        let is_json = self.log.format() == AccessLogFormat::Json;
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            self.stamp = stamp(Duration::from_secs(self.second), is_json);
        }
        if is_json {
            let ms = now.subsec_millis();
            let digits = [ms / 100, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8);
            let end = self.stamp.len() - END_OF_STAMP.len();
            self.stamp[end - digits.len()..end].copy_from_slice(&digits);
        }
    }

    /// The time of now, as lines have it: with its brackets or quotes.
    pub(super) fn stamp(&self) -> &[u8] {
        &self.stamp
    }

    /// How lines look.
    pub(super) fn format(&self) -> AccessLogFormat {
        self.log.format()
    }

    /// Adds a line, which `write` writes without its end.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.buffer.is_empty() {
            self.since_ms = self.now_ms;
            self.buffer.reserve(BATCH_BYTES + LINE_BYTES_MAX);
        }
        let start = self.buffer.len();
        write(&mut self.buffer);
        self.buffer.push(b'\n');
        debug_assert!(self.buffer.len() - start <= LINE_BYTES_MAX, "{}", self.buffer[start..].escape_ascii());
        if self.is_leaving || self.buffer.len() >= BATCH_BYTES {
            self.pass();
        }
    }

    /// Gives the lines to the writer if they are due; says in how many milliseconds they will be, if there are any.
    pub(in crate::server) fn due_in_ms(&mut self) -> Option<u64> {
        if self.buffer.is_empty() {
            return None;
        }
        let left = (self.since_ms + BATCH_MS).saturating_sub(self.now_ms);
        if left == 0 {
            self.pass();
            return None;
        }
        Some(left)
    }

    /// Gives the lines to the writer.
    pub(in crate::server) fn pass(&mut self) {
        if !self.buffer.is_empty() {
            self.log.give(std::mem::take(&mut self.buffer));
        }
    }

    /// This loop may end soon: no line waits for another from now on.
    pub(in crate::server) fn leave(&mut self) {
        self.is_leaving = true;
        self.pass();
    }
}

fn stamp(since_1970: Duration, is_json: bool) -> Vec<u8> {
    let time = SystemTime::UNIX_EPOCH + since_1970;
    if is_json {
        // RFC 3339, with milliseconds.
        return format!("\"{}\"", log::time(time)).into_bytes();
    }
    // `Sun, 06 Nov 1994 08:49:37 GMT` has what `[06/Nov/1994:08:49:37 +0000]` needs.
    let date = httpdate::fmt_http_date(time);
    format!("[{}/{}/{}:{} +0000]", &date[5..7], &date[8..11], &date[12..16], &date[17..25]).into_bytes()
}

/// What follows the milliseconds.
const END_OF_STAMP: &[u8] = b"Z\"";

/// Lines go to the writer when there are so many of them, or after that time. With the writer's own time, a line is in the
/// file within a second.
const BATCH_BYTES: usize = 32 * 1024;
const BATCH_MS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_apache_and_of_rfc_3339() {
        let time = Duration::from_millis(971_186_136_007);
        assert_eq!(stamp(time, false), b"[10/Oct/2000:13:55:36 +0000]");
        assert_eq!(stamp(time, true), b"\"2000-10-10T13:55:36.007Z\"");
    }
}

//! The log: one line of text or one JSON object for each event, on standard error, in one `write(2)`.
//!
//! Text is `2026-11-21T03:00:00.123Z info reloaded ctime generation 7 in 38 ms key=value`; events are made with
//! [`tracing`]'s macros, as `info!(module = "ctime", "reloaded")`. `HOST_LOG` sets the least important level shown.

use crate::config::LogFormat;
use anyhow::{Context, Result, bail};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The variable that sets the level.
pub const LEVEL_VARIABLE: &str = "HOST_LOG";

/// How this process logs, once it does.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Which process speaks. All but the supervisor sign their lines with their process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The process that was started by hand.
    Supervisor,
    /// A process that serves.
    Worker,
    /// A process that tries a build.
    Checker,
}

/// Starts logging in this process.
///
/// # Errors
/// `HOST_LOG` is no level, or logging has been started already.
pub fn start(format: LogFormat, role: Role) -> Result<()> {
    let level = level(std::env::var(LEVEL_VARIABLE).ok().as_deref())?;
    let signature = match role {
        Role::Supervisor => None,
        Role::Worker => Some(("worker", std::process::id())),
        Role::Checker => Some(("checker", std::process::id())),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        // A standard error that cannot be written to leaves nobody to tell.
        .log_internal_errors(false)
        .event_format(Lines { format, signature })
        .finish();
    tracing::subscriber::set_global_default(subscriber).context("logging has been started already")?;
    FORMAT.set(format).ok().context("logging has been started already")
}

/// The level that `HOST_LOG` asks for; `info` if it is not set.
///
/// # Errors
/// Text that is none of the four levels.
pub fn level(text: Option<&str>) -> Result<LevelFilter> {
    Ok(match text {
        Some("error") => LevelFilter::ERROR,
        Some("warn") => LevelFilter::WARN,
        None | Some("info" | "") => LevelFilter::INFO,
        Some("debug") => LevelFilter::DEBUG,
        Some(other) => bail!("{LEVEL_VARIABLE}: {other:?} is no level; say error, warn, info or debug"),
    })
}

/// Writes `text`, which is for people and no event (the start-up table, `--trace`), in one `write(2)`. In a log that is
/// for programs each of its lines is an event all the same.
pub fn say(text: &str) {
    if FORMAT.get() == Some(&LogFormat::Json) {
        return text.lines().for_each(|line| tracing::info!("{}", line.trim()));
    }
    // As above: nobody is left to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Writes one line of `--trace`: what passes on the wire, as it passes.
pub fn trace(line: fmt::Arguments<'_>) {
    say(&format!("{line}\n"));
}

struct Lines {
    format: LogFormat,
    signature: Option<(&'static str, u32)>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut values = Values::default();
        event.record(&mut values);
        if let Some((role, process)) = self.signature {
            values.fields.push((role, process.into()));
        }
        let now = milliseconds(SystemTime::now());
        let line = match self.format {
            LogFormat::Text => text_line(now, *event.metadata().level(), &values)?,
            LogFormat::Json => json_line(now, *event.metadata().level(), values),
        };
        // One call, so that the subscriber's one write has it all.
        out.write_str(&line)
    }
}

/// What an event says: its message, and its fields in order.
#[derive(Default)]
struct Values {
    message: String,
    fields: Vec<(&'static str, serde_json::Value)>,
}

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => self.fields.push((name, text.into())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.fields.push((name, value.into())),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), value.into()));
    }
}

fn text_line(now_ms: u128, level: Level, values: &Values) -> Result<String, fmt::Error> {
    let mut line = String::with_capacity(160);
    write!(line, "{} {} ", timestamp(now_ms), level_name(level))?;
    push_visible(&mut line, &values.message)?;
    for (name, value) in &values.fields {
        write!(line, " {name}=")?;
        match value.as_str() {
            Some(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                line.push('"');
                push_visible(&mut line, &text.replace('\\', "\\\\").replace('"', "\\\""))?;
                line.push('"');
            }
            Some(text) => push_visible(&mut line, text)?,
            None => write!(line, "{value}")?,
        }
    }
    line.push('\n');
    Ok(line)
}

fn json_line(now_ms: u128, level: Level, values: Values) -> String {
    let head = [
        ("time", timestamp(now_ms).into()),
        ("level", level_name(level).into()),
        ("message", serde_json::Value::from(values.message)),
    ];
    let object: serde_json::Map<_, _> =
        head.into_iter().chain(values.fields).map(|(name, value)| (name.to_owned(), value)).collect();
    format!("{}\n", serde_json::Value::Object(object))
}

/// SECURITY: what a client or a handler says must neither begin a line of its own nor steer the terminal.
fn push_visible(line: &mut String, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(line, "{}", c.escape_default())?;
        } else {
            line.push(c);
        }
    }
    Ok(())
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// A time as the log writes it: RFC 3339 in UTC with milliseconds.
pub fn time(time: SystemTime) -> String {
    timestamp(milliseconds(time))
}

/// Text of others for a terminal: without what would steer it, or begin another line.
pub fn visible(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    // Writing to a String cannot fail.
    _ = push_visible(&mut line, text);
    line
}

fn milliseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(ms: u128) -> String {
    let (days, ms) = (ms / 86_400_000, ms % 86_400_000);
    // Years that begin on 1 March put the leap day last, and 400 of them are always 146,097 days: from 1 March of
    // year 0, which is 719,468 days before 1970-01-01, all the rest is division.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    // From March the months' lengths repeat as 31, 30, 31, 30, 31: 153 days for five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        era * 400 + year,
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1_000 % 60,
        ms % 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_agree_with_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_795_230_000, "2026-11-21T03:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(seconds * 1000), text);
        }
        // Another implementation of the calendar agrees on every day of 130 years.
        for day in 0..47_500 {
            let time = UNIX_EPOCH + std::time::Duration::from_secs(day * 86_400 + 3_723);
            let http = httpdate::fmt_http_date(time);
            let ours = timestamp(u128::from(day * 86_400 + 3_723) * 1000);
            assert_eq!((&ours[..4], &ours[8..10], &ours[11..19]), (&http[12..16], &http[5..7], "01:02:03"));
        }
    }

    fn values() -> Values {
        Values {
            message: "reloaded ctime\nerror: forged \u{1b}[31m".to_owned(),
            fields: vec![("module", "ctime".into()), ("path", "a \"b\"".into()), ("generation", 7.into())],
        }
    }

    #[test]
    fn an_event_is_one_line_of_text() {
        assert_eq!(
            text_line(0, Level::INFO, &values()).unwrap(),
            "1970-01-01T00:00:00.000Z info reloaded ctime\\nerror: forged \\u{1b}[31m \
             module=ctime path=\"a \\\"b\\\"\" generation=7\n"
        );
    }

    #[test]
    fn an_event_is_one_json_object() {
        let line = json_line(0, Level::WARN, values());
        assert_eq!(line.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "warn");
        assert_eq!(object["message"], values().message);
        assert_eq!((&object["path"], &object["generation"]), (&"a \"b\"".into(), &7.into()));
    }

    #[test]
    fn levels() {
        assert_eq!(level(None).unwrap(), LevelFilter::INFO);
        assert_eq!(level(Some("debug")).unwrap(), LevelFilter::DEBUG);
        assert!(level(Some("loud")).unwrap_err().to_string().contains("say error, warn, info or debug"));
    }
}

//! How people write the values of the configuration: addresses, names, pairs, sizes and times, as text.
//!
//! Each is parsed here once, and each refusal says what to write instead.

use super::{ApplicationName, Bind, EnvPair, Mount};
use anyhow::{Context, Error, Result, bail, ensure};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The symbol of an application that was named without one.
pub const DEFAULT_SYMBOL: &str = "application";

/// A request head has at least this much room: a smaller bound refuses what browsers send.
const HEAD_BYTES_MIN: u64 = 1 << 10;
/// What a worker and a small module need to start, and a little more: less is a typing error.
const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// A request head is held in memory for each connection, so even the bound has a bound.
const HEAD_BYTES_CEILING: u64 = 16 << 20;
/// A day: time-outs beyond it are typing errors, and timers need not count further.
const TIMEOUT_CEILING: Duration = Duration::from_secs(24 * 60 * 60);

/// `8080` (on 127.0.0.1), `127.0.0.1:7788`, `[::1]:80`, `localhost:80`, `unix:PATH`, `fd:N`.
impl FromStr for Bind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            ensure!(!path.is_empty(), "unix: needs a path, such as unix:/run/host.sock");
            return Ok(Self::Unix(absolute(Path::new(path))?));
        }
        if let Some(number) = text.strip_prefix("fd:") {
            return match number.parse() {
                // 0, 1 and 2 are the standard streams.
                Ok(number @ 3..) => Ok(Self::Inherited(number)),
                _ => bail!("fd: needs the number of an inherited socket, from 3, such as fd:3"),
            };
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = text.parse().with_context(|| format!("{text:?} is no port; ports go from 0 to 65535"))?;
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        // RFC 6761 §6.3: localhost is always the loopback address. No other name is looked up: what a server
        // listens on must not depend on a name server.
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        match text.parse() {
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) => bail!(
                "not an address; say a port (8080), an IP address and a port (0.0.0.0:80, [::1]:80), unix:PATH or fd:N"
            ),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(out, "{address}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::Inherited(number) => write!(out, "fd:{number}"),
        }
    }
}

/// `MODULE[:SYMBOL]`.
impl FromStr for ApplicationName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (module, symbol) = text.split_once(':').unwrap_or((text, DEFAULT_SYMBOL));
        check_module_name(module)?;
        ensure!(
            is_c_identifier(symbol),
            "{symbol:?} is no function's name; say MODULE:FUNCTION with the name of an exported C function"
        );
        Ok(Self { module: module.to_owned(), symbol: symbol.to_owned() })
    }
}

impl fmt::Display for ApplicationName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.module, self.symbol)
    }
}

/// `/PREFIX=MODULE[:SYMBOL]`. Slashes at the prefix's end are dropped.
impl FromStr for Mount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // The last `=`: a prefix may hold one, a module's name never does.
        let (prefix, application) =
            text.rsplit_once('=').context("no = in it; say /PREFIX=MODULE[:FUNCTION], such as /api=api:app")?;
        ensure!(prefix.starts_with('/'), "the prefix {prefix:?} must start with a slash");
        let prefix = prefix.trim_end_matches('/');
        ensure!(
            !prefix.is_empty(),
            "/ is the root application's: name it as the argument MODULE[:APP], with --html none to give it everything"
        );
        for segment in prefix[1..].split('/') {
            ensure!(
                !matches!(segment, "" | "." | "..") && !segment.contains(char::is_control),
                "the prefix {prefix:?} has the segment {segment:?}, which no request's path can have"
            );
        }
        Ok(Self { prefix: prefix.to_owned(), application: application.parse()? })
    }
}

/// `--upload`: the decoded path of a folder of the site, which is given back without the slash at its end.
///
/// # Errors
/// A path that no folder of a site has.
pub fn upload_prefix(text: &str) -> Result<String> {
    ensure!(text.starts_with('/'), "the prefix {text:?} must start with a slash; say / for the whole site");
    let prefix = text.trim_end_matches('/');
    for segment in prefix.split('/').skip(1) {
        ensure!(
            !matches!(segment, "" | "." | "..") && !segment.contains(char::is_control),
            "the prefix {text:?} has the segment {segment:?}, which no request's path can have"
        );
        ensure!(
            !segment.starts_with('.') && !segment.ends_with(".so"),
            "the site does not show {segment:?}, so nothing can be uploaded there"
        );
    }
    Ok(prefix.to_owned())
}

/// `[MODULE:]KEY=VALUE`.
impl FromStr for EnvPair {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (left, value) =
            text.split_once('=').context("no = in it; say KEY=VALUE, or MODULE:KEY=VALUE for one module")?;
        let (module, key) = match left.split_once(':') {
            Some((module, key)) => {
                check_module_name(module)?;
                (Some(module.to_owned()), key)
            }
            None => (None, left),
        };
        ensure!(
            !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)),
            "{key:?} is no key; use letters, digits, '_', '.' and '-'"
        );
        ensure!(!comes_from_request(key), "{key} comes from the request or the server; choose another key");
        // Handlers written in C read values up to the NUL.
        ensure!(!value.contains('\0'), "the value of {key} has a NUL in it");
        Ok(Self { module, key: key.to_owned(), value: value.to_owned() })
    }
}

/// A module's name: segments of `[A-Za-z0-9_-]+`, joined by slashes.
///
/// # Errors
/// Says what is wrong, and which name was probably meant by a file's name.
pub fn check_module_name(name: &str) -> Result<()> {
    let is_segment = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    if name.split('/').all(is_segment) {
        return Ok(());
    }
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let stem = stem.strip_prefix("lib").unwrap_or(stem);
    if name.ends_with(".so") && is_segment(stem) {
        bail!("{name:?} is a file; name the module, such as {stem}, and its folder with --handlers");
    }
    bail!("{name:?} is no module's name; use letters, digits, '_', '-', and '/' between folders");
}

/// A number of bytes: `4096`, `32K`, `32KiB`, `16M`, `1G`; K, M and G are powers of 1024.
///
/// # Errors
/// Text that is none of these, or a number beyond 64 bits.
pub fn bytes(text: &str) -> Result<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => bail!("not a size; say bytes (4096), or 32K, 16M, 1G (powers of 1024)"),
    };
    let number: u64 = number.parse().context("not a size; say bytes (4096), or 32K, 16M, 1G (powers of 1024)")?;
    number.checked_mul(1 << shift).context("too large for 64 bits")
}

/// `--limit-head`: [`bytes`], between 1 KiB and 16 MiB.
///
/// # Errors
/// As [`bytes`], or out of that range.
pub fn head_bytes(text: &str) -> Result<usize> {
    let number = bytes(text)?;
    ensure!(
        (HEAD_BYTES_MIN..=HEAD_BYTES_CEILING).contains(&number),
        "out of range; a request's head may have from 1K to 16M"
    );
    Ok(usize::try_from(number)?)
}

/// `--limit-memory`: [`bytes`], from 16 MiB.
///
/// # Errors
/// As [`bytes`], or too little for a worker.
pub fn memory_bytes(text: &str) -> Result<u64> {
    let number = bytes(text)?;
    ensure!(number >= MEMORY_BYTES_MIN, "too little to start a worker; it may have 16M and more");
    Ok(number)
}

/// `number` bytes as people write them, such as `512M`: what [`bytes`] reads.
pub fn size(number: u64) -> String {
    let unit = [(30, "G"), (20, "M"), (10, "K")].into_iter().find(|(shift, _)| number.trailing_zeros() >= *shift);
    match unit.filter(|_| number > 0) {
        Some((shift, unit)) => format!("{}{unit}", number >> shift),
        None => format!("{number} bytes"),
    }
}

/// A count of at least one.
///
/// # Errors
/// Text that is no number, or 0.
pub fn count(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(0) => bail!("must be at least 1"),
        Ok(number) => Ok(number),
        Err(_) => bail!("not a number"),
    }
}

/// The most that `--workers` and `--threads` may ask for.
pub const SMALL_COUNT_MAX: usize = 1024;

/// `--workers` and `--threads`: a count of at most [`SMALL_COUNT_MAX`].
///
/// # Errors
/// As [`count`], or more than that.
pub fn small_count(text: &str) -> Result<usize> {
    let number = count(text)?;
    ensure!(number <= SMALL_COUNT_MAX, "at most {SMALL_COUNT_MAX}");
    Ok(number)
}

/// A time: seconds (`30`, `0.5`), or with a unit, `500ms`, `10s`, `5m`; at least 1 ms and at most a day.
///
/// # Errors
/// Text that is none of these, or out of that range.
pub fn duration(text: &str) -> Result<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit.trim_start() {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        _ => bail!("not a time; say seconds (30), or 500ms, 10s, 5m"),
    };
    let number: f64 = number.parse().ok().context("not a time; say seconds (30), or 500ms, 10s, 5m")?;
    let seconds = number * scale;
    ensure!(
        (0.001..=TIMEOUT_CEILING.as_secs_f64()).contains(&seconds),
        "out of range; every wait has an end, from 1ms to 1440m"
    );
    // Whole milliseconds: 0.1 × 3 is not 0.3.
    Ok(Duration::from_millis((seconds * 1000.0).round() as u64))
}

/// `--server-header`: one line of visible text (RFC 9110 §5.5), or nothing.
///
/// # Errors
/// A control character.
pub fn field_value(text: &str) -> Result<String> {
    ensure!(!text.contains(char::is_control), "a header field's value is one line without control characters");
    Ok(text.trim().to_owned())
}

/// `path` from the root, with `.` segments and doubled slashes gone. Symbolic links stay: what they point to may change.
///
/// # Errors
/// A path that is not UTF-8 (it could not be sent to a worker as JSON), or no current folder.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    ensure!(path.to_str().is_some(), "the path {path:?} is not UTF-8; rename it");
    let absolute = std::path::absolute(path).with_context(|| format!("no absolute path for {}", path.display()))?;
    Ok(absolute.components().collect())
}

fn is_c_identifier(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether the environ has `key` from elsewhere, so that a pair of that name would be lost or would lie
/// (RFC 3875 §4.1, PEP 3333 "environ Variables").
fn comes_from_request(key: &str) -> bool {
    const KEYS: [&str; 15] = [
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "DOCUMENT_ROOT",
        "GATEWAY_INTERFACE",
        "PATH_INFO",
        "QUERY_STRING",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "REQUEST_METHOD",
        "REQUEST_URI",
        "SCRIPT_NAME",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
    ];
    KEYS.contains(&key) || key.starts_with("HTTP_") || key.starts_with("wsgi.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: FromStr<Err = Error>>(text: &str) -> String {
        text.parse::<T>().err().unwrap_or_else(|| panic!("{text:?} was accepted")).to_string()
    }

    #[test]
    fn addresses() {
        let tcp = |text: &str| Bind::Tcp(text.parse().unwrap());
        for (text, bind) in [
            ("8080", tcp("127.0.0.1:8080")),
            ("0", tcp("127.0.0.1:0")),
            ("127.0.0.1:7788", tcp("127.0.0.1:7788")),
            ("[::1]:80", tcp("[::1]:80")),
            ("localhost:80", tcp("127.0.0.1:80")),
            ("unix:/run/a.sock", Bind::Unix("/run/a.sock".into())),
            ("fd:3", Bind::Inherited(3)),
        ] {
            assert_eq!(text.parse::<Bind>().unwrap(), bind);
        }
        for text in ["", "99999", "::1:80", "example.org:80", ":80", "*:80", "fd:2", "fd:x", "unix:", "1.2.3.4"] {
            refusal::<Bind>(text);
        }
        assert_eq!("unix:a.sock".parse::<Bind>().unwrap(), Bind::Unix(std::env::current_dir().unwrap().join("a.sock")));
    }

    #[test]
    fn applications() {
        let name: ApplicationName = "admin/c-time".parse().unwrap();
        assert_eq!(name.to_string(), "admin/c-time:application");
        assert_eq!("framework:app".parse::<ApplicationName>().unwrap().symbol, "app");
        for text in ["", ":app", "a:", "a:1", "a:b-c", "a:b:c", "/a", "a/", "a//b", "../a", "a b", "ä"] {
            refusal::<ApplicationName>(text);
        }
        assert!(refusal::<ApplicationName>("./handlers/libctime.so").contains("such as ctime,"));
    }

    #[test]
    fn mounts_are_normalised() {
        let mount: Mount = "/a=b/c//=api:app".parse().unwrap();
        assert_eq!((mount.prefix.as_str(), mount.application.symbol.as_str()), ("/a=b/c", "app"));
        for text in ["/api", "api=m", "/=m", "//a=m", "/a//b=m", "/a/../b=m", "/./a=m", "/a\n=m", "/a="] {
            refusal::<Mount>(text);
        }
    }

    #[test]
    fn environ_pairs() {
        let pair: EnvPair = "ctime:ZONE=a=b:c".parse().unwrap();
        assert_eq!((pair.module.as_deref(), pair.key.as_str(), pair.value.as_str()), (Some("ctime"), "ZONE", "a=b:c"));
        assert_eq!("KEY=".parse::<EnvPair>().unwrap(), EnvPair { module: None, key: "KEY".into(), value: "".into() });
        for text in ["KEY", "=v", "a:=v", "K Y=v", "REQUEST_METHOD=PUT", "HTTP_HOST=x", "wsgi.input=x", "K=a\0b"] {
            refusal::<EnvPair>(text);
        }
    }

    #[test]
    fn sizes() {
        for (text, number) in [("0", 0), ("4096", 4096), ("32K", 32 << 10), ("16MiB", 16 << 20), ("1 g", 1 << 30)] {
            assert_eq!(bytes(text).unwrap(), number);
        }
        for text in ["", "K", "-1", "1.5M", "1KB", "1T", "99999999999999999999", "18446744073709551615K"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
        assert!(head_bytes("1023").is_err() && head_bytes("1K").is_ok());
        assert!(memory_bytes("16383K").is_err() && memory_bytes("16M").is_ok());
        for (number, text) in
            [(0, "0 bytes"), (1000, "1000 bytes"), (1 << 20, "1M"), (3 << 29, "1536M"), (1 << 30, "1G")]
        {
            assert_eq!(size(number), text);
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [("30", 30_000), ("0.3", 300), ("500ms", 500), ("10s", 10_000), ("5m", 300_000)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis));
        }
        for text in ["", "0", "-1", "1h", "ms", "1..2", "0.1ms", "1441m", "inf", "NaN"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(count("3").unwrap(), 3);
        assert!(count("0").is_err() && count("").is_err() && count("-1").is_err());
        assert!(small_count("1024").is_ok() && small_count("1025").is_err());
    }

    #[test]
    fn paths_become_absolute_and_keep_parents() {
        assert_eq!(absolute(Path::new("/a/./b//c/")).unwrap(), Path::new("/a/b/c"));
        // `..` stays: it may follow a symbolic link.
        assert_eq!(absolute(Path::new("/a/../b")).unwrap(), Path::new("/a/../b"));
    }
}

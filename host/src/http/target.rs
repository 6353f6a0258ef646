//! The four forms of a request target (RFC 9112 §3.2), reduced to path, query and authority.

use super::Reject;

/// The parts of a request target, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The encoded path; `*` for the asterisk-form; empty only where the absolute-form has none, which means `/`.
    pub path: &'a [u8],
    /// What follows `?`.
    pub query: Option<&'a [u8]>,
    /// The absolute-form's host and port.
    pub authority: Option<&'a [u8]>,
}

/// Parses the target of a request with this method. All of its bytes are visible ASCII afterwards.
pub fn parse<'a>(method: &[u8], target: &'a [u8]) -> Result<Target<'a>, Reject> {
    let mut mark = None;
    for (at, &byte) in target.iter().enumerate() {
        if !PATH_BYTES[usize::from(byte)] {
            match byte {
                b'?' => mark = mark.or(Some(at)),
                b'!'..=b'~' if byte != b'#' => {}
                _ => return Err(Reject::bad_request(fault(byte))),
            }
        }
    }
    if method == b"CONNECT" {
        return Err(Reject::new(501, "CONNECT asks for a tunnel, and this server is no proxy"));
    }
    if target.first() == Some(&b'/') {
        let (path, query) = match mark {
            Some(mark) => (&target[..mark], Some(&target[mark + 1..])),
            None => (target, None),
        };
        return Ok(Target { path, query, authority: None });
    }
    if target == b"*" {
        // RFC 9112 §3.2.4: "The asterisk-form of request-target is only used for a server-wide OPTIONS request".
        return match method {
            b"OPTIONS" => Ok(Target { path: target, query: None, authority: None }),
            _ => Err(Reject::bad_request("the target * is for OPTIONS only")),
        };
    }
    let Some(rest) = strip_scheme(target, b"http://") else {
        // RFC 9110 §7.4: "a request for an "https" resource MUST be rejected unless it has been received over a connection that
        // has been secured". What secures connections for this server asks it in the origin-form.
        return Err(match strip_scheme(target, b"https://") {
            Some(_) => Reject::new(421, "this connection is not secured, and the target is https"),
            None => Reject::bad_request("the target must begin with a slash"),
        });
    };
    // RFC 9112 §3.2.2: "A server MUST accept the absolute-form in requests".
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if !is_authority(authority) {
        return Err(Reject::bad_request("the target's host is not valid"));
    }
    let (path, query) = split_query(rest);
    Ok(Target { path, query, authority: Some(authority) })
}

/// The bytes that most targets are made of.
const PATH_BYTES: [bool; 256] = super::alphanumeric_and(b"/.-_~%&=");

/// What is wrong with a target that has this byte.
fn fault(byte: u8) -> &'static str {
    match byte {
        b' ' => "a space in the target must be sent as %20",
        b'#' => "a fragment (#) must not be sent: it stays with the client",
        0x80.. => "the target must be ASCII: percent-encode other bytes",
        _ => "the target has a control character",
    }
}

/// Whether `bytes` are a host that is not empty, and maybe a port (RFC 3986 §3.2.2, §3.2.3).
///
/// User information is refused, as RFC 9110 §4.2.4 asks for URIs from strangers.
pub fn is_authority(bytes: &[u8]) -> bool {
    let (host_is_valid, port) = match bytes.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
            let is_valid = address.parse::<std::net::Ipv6Addr>().is_ok() || is_future_address(address);
            (is_valid, &rest[end + 1..])
        }
        None => {
            // Most hosts are made of these bytes alone, up to the port: that is no more than one look at each.
            let end = bytes.iter().position(|&byte| !is_plain(byte)).unwrap_or(bytes.len());
            match bytes.get(end) {
                None | Some(b':') => (end > 0, &bytes[end..]),
                _ => {
                    let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
                    (is_registered_name(&bytes[..end]), &bytes[end..])
                }
            }
        }
    };
    let port_is_valid = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => is_port(digits),
        _ => false,
    };
    host_is_valid && port_is_valid
}

/// Whether `digits` are a decimal number up to 65535.
fn is_port(digits: &[u8]) -> bool {
    let port = digits.iter().try_fold(0, |port: u32, digit| {
        let port = port * 10 + u32::from(digit.wrapping_sub(b'0'));
        (digit.is_ascii_digit() && port <= 65535).then_some(port)
    });
    port.is_some()
}

/// Whether `byte` stands for itself in a host: unreserved characters (RFC 3986 §2.3).
fn is_plain(byte: u8) -> bool {
    const TABLE: [bool; 256] = super::alphanumeric_and(b"-._~");
    TABLE[usize::from(byte)]
}

/// `IPvFuture` of RFC 3986 §3.2.2: there is none yet, but it is no invalid one.
fn is_future_address(address: &str) -> bool {
    let parts = address.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(version, address)| {
        let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_version
            && !address.is_empty()
            && address.bytes().all(|byte| byte == b':' || is_plain(byte) || is_sub_delim(byte))
    })
}

/// `sub-delims` of RFC 3986 §2.2.
fn is_sub_delim(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// `reg-name` of RFC 3986 §3.2.2, which covers IPv4 addresses, but not empty (RFC 9110 §4.2.1).
fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'%' => match after {
                [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
                _ => return false,
            },
            _ if is_plain(*byte) || is_sub_delim(*byte) => after,
            _ => return false,
        };
    }
    !name.is_empty()
}

/// What follows `scheme`; schemes are case-insensitive (RFC 3986 §3.1).
fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(mark) => (&target[..mark], Some(&target[mark + 1..])),
        None => (target, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, query and authority, or the status of the refusal.
    type Parts = Result<(String, Option<String>, Option<String>), u16>;

    fn parts(method: &str, target: &str) -> Parts {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let target = parse(method.as_bytes(), target.as_bytes()).map_err(|reject| reject.status)?;
        Ok((text(target.path), target.query.map(text), target.authority.map(text)))
    }

    fn ok(path: &str, query: Option<&str>, authority: Option<&str>) -> Parts {
        Ok((path.to_owned(), query.map(str::to_owned), authority.map(str::to_owned)))
    }

    #[test]
    fn each_form_is_reduced_to_its_parts() {
        assert_eq!(parts("GET", "/"), ok("/", None, None));
        assert_eq!(parts("GET", "/a/b?x=1&y=2"), ok("/a/b", Some("x=1&y=2"), None));
        assert_eq!(parts("GET", "/?"), ok("/", Some(""), None));
        assert_eq!(parts("GET", "/a?b?c"), ok("/a", Some("b?c"), None));
        assert_eq!(parts("GET", "//evil/x"), ok("//evil/x", None, None));
        assert_eq!(parts("OPTIONS", "*"), ok("*", None, None));
        assert_eq!(parts("GET", "http://a.example:80/p?q"), ok("/p", Some("q"), Some("a.example:80")));
        assert_eq!(parts("GET", "HTTP://a.example"), ok("", None, Some("a.example")));
        assert_eq!(parts("GET", "http://a.example?q"), ok("", Some("q"), Some("a.example")));
        assert_eq!(parts("GET", "http://[::1]:8080/"), ok("/", None, Some("[::1]:8080")));
    }

    #[test]
    fn what_cannot_be_looked_up_is_refused() {
        for (method, target, status) in [
            ("GET", "*", 400),
            ("GET", "index.html", 400),
            ("GET", "a.example:80", 400),
            ("GET", "ftp://a.example/", 400),
            ("GET", "http:///x", 400),
            ("GET", "http://u@a.example/", 400),
            ("GET", "http:/x", 400),
            ("GET", "https://a.example/", 421),
            ("GET", "HTTPS://a.example", 421),
            ("GET", "/a#b", 400),
            ("GET", "/é", 400),
            ("GET", "/a b", 400),
            ("GET", "/a\tb", 400),
            ("GET", "/a\x7fb", 400),
            ("GET", "", 400),
            ("CONNECT", "a.example:443", 501),
            ("CONNECT", "/", 501),
        ] {
            assert_eq!(parts(method, target), Err(status), "{method} {target}");
        }
    }

    #[test]
    fn authorities_are_hosts_with_maybe_a_port() {
        for good in [
            "a",
            "a.example",
            "127.0.0.1:7788",
            "[::1]",
            "[::ffff:1.2.3.4]:80",
            "a:",
            "my_host-1",
            "a%20b",
            "a:65535",
            "a:000080",
            "[v1.a:b]",
            "[VF0.~!]:80",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a:b",
            "a:1:2",
            "a:65536",
            "a:4294967297",
            "a:8x",
            "a:-1",
            "a/b",
            "u@a",
            "[::1",
            "::1",
            "[]",
            "[g::]",
            "[::1]x",
            "a%2",
            "é",
            "a,b:c",
            "[fe80::1%25eth0]",
            "[v.a]",
            "[vg.a]",
            "[v1.]",
            "[v1.a/b]",
            "a?b",
            "a\\b",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}

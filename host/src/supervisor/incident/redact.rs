//! Takes secrets out of a request that is kept: by the names of fields and parameters, since their values say nothing.

use percent_encoding::percent_decode;
use std::collections::BTreeSet;

/// What stands in the place of a value that was taken out.
pub(super) const REDACTED: &str = "redacted";

/// The names that were found.
pub(super) type Names = BTreeSet<String>;

/// Whether the value that goes by this name is for nobody else.
pub(super) fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    SECRET_NAMES.contains(&plain.as_str()) || SECRET_PARTS.iter().any(|part| plain.contains(part))
}

/// A request target, or another URL, with the secrets in its query taken out.
pub(super) fn target(target: &str, found: &mut Names) -> String {
    match target.split_once('?') {
        Some((path, query)) => format!("{path}?{}", pairs(query, found)),
        None => target.to_owned(),
    }
}

/// `name=value&name=value`, as in a query or in the content of a form.
pub(super) fn pairs(pairs: &str, found: &mut Names) -> String {
    let redact = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if !value.is_empty() && is_secret(&percent_decode(name.as_bytes()).decode_utf8_lossy()) => {
            found.insert(name.to_owned());
            format!("{name}={REDACTED}")
        }
        _ => pair.to_owned(),
    };
    pairs.split('&').map(redact).collect::<Vec<_>>().join("&")
}

/// In a name without case, dashes and underscores. `Authorization` and `Proxy-Authorization`, `Cookie` and `X-API-Key` are
/// among those that have one.
const SECRET_PARTS: [&str; 17] = [
    "accesskey",
    "apikey",
    "auth",
    "cookie",
    "credential",
    "csrf",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "session",
    "signature",
    "subscriptionkey",
    "token",
    "xsrf",
];

/// Whole names: in others these letters mean nothing.
const SECRET_NAMES: [&str; 7] = ["key", "otp", "pass", "pin", "pw", "pwd", "sig"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_however_they_are_written() {
        for name in [
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "Set-Cookie",
            "X-API-Key",
            "x_api_key",
            "X-Auth-User",
            "X-Amz-Security-Token",
            "csrf-token",
            "client_secret",
            "new-password",
            "PHPSESSION",
            "key",
            "pwd",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["Host", "Accept", "Content-Type", "User-Agent", "keyword", "pinned", "signed-by", "q", ""] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_query_keeps_all_but_the_secrets() {
        let mut found = Names::new();
        let redacted = |text: &str, found: &mut Names| target(text, found);
        assert_eq!(
            redacted("/a?q=1&api%5Fkey=abc&token=x=y&token=&flag&%74oken=z", &mut found),
            "/a?q=1&api%5Fkey=redacted&token=redacted&token=&flag&%74oken=redacted"
        );
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["%74oken", "api%5Fkey", "token"]);
        assert_eq!(redacted("/token=1/a", &mut found), "/token=1/a");
        assert_eq!(redacted("/a?", &mut found), "/a?");
    }
}

//! What holds for each response of an origin server, whatever was asked.

use super::expectation::{is_entity_tag, is_imf_fixdate};
use crate::Response;

/// Fields that must not come twice, because their values are no lists (RFC 9110 §5.3).
const SINGLE: [&str; 14] = [
    "Age",
    "Content-Length",
    "Content-Location",
    "Content-Range",
    "Content-Type",
    "Date",
    "ETag",
    "Expires",
    "Last-Modified",
    "Location",
    "Retry-After",
    "Server",
    "Transfer-Encoding",
    "X-Content-Type-Options",
];

/// The first rule that the response breaks.
pub fn breach(response: &Response) -> Option<&'static str> {
    let status = response.status;
    let has = |name: &str| response.field(name).is_some();
    let count = |name: &str| response.fields.iter().filter(|(its, _)| its.eq_ignore_ascii_case(name)).count();
    let breaks = |name: &str, is_right: fn(&str) -> bool| response.field(name).is_some_and(|value| !is_right(value));
    let is_multipart =
        || response.field("Content-Type").is_some_and(|value| value.starts_with("multipart/byteranges;"));
    // The order is that of the RFCs.
    let checks = [
        (response.minor != 1, "RFC 9110 §2.5: the highest version that the server conforms to"),
        (!response.fields.iter().all(|(name, _)| is_token(name)), "RFC 9110 §5.1: a field name is a token"),
        (SINGLE.iter().any(|name| count(name) > 1), "RFC 9110 §5.3: a field that is no list came twice"),
        (matches!(status, 200..=499) && !has("Date"), "RFC 9110 §6.6.1: 2xx, 3xx and 4xx have a Date"),
        (breaks("Date", is_imf_fixdate), "RFC 9110 §5.6.7: dates are sent as IMF-fixdate"),
        (breaks("Last-Modified", is_imf_fixdate), "RFC 9110 §5.6.7: dates are sent as IMF-fixdate"),
        (!response.body.is_empty() && !has("Content-Type"), "RFC 9110 §8.3: content has a Content-Type"),
        (matches!(status, 100..=199 | 204) && has("Content-Length"), "RFC 9110 §8.6: no Content-Length in 1xx and 204"),
        (breaks("ETag", is_entity_tag), "RFC 9110 §8.8.3: an entity tag"),
        (status == 401 && !has("WWW-Authenticate"), "RFC 9110 §15.5.2: 401 has a WWW-Authenticate"),
        (
            status == 206 && has("Content-Range") == is_multipart(),
            "RFC 9110 §15.3.7: 206 has a Content-Range, or its parts have",
        ),
        (
            matches!(status, 301 | 302 | 303 | 307 | 308) && !has("Location"),
            "RFC 9110 §15.4: a redirection has a Location",
        ),
        (status == 405 && !has("Allow"), "RFC 9110 §15.5.6: 405 has an Allow"),
        (status == 416 && !has("Content-Range"), "RFC 9110 §15.5.17: 416 has a Content-Range"),
        (matches!(status, 101 | 426) && !has("Upgrade"), "RFC 9110 §7.8: 101 and 426 have an Upgrade"),
        (!matches!(status, 100..=599), "RFC 9110 §15: statuses are 100 to 599"),
        (
            matches!(status, 100..=199 | 204) && has("Transfer-Encoding"),
            "RFC 9112 §6.1: no Transfer-Encoding in 1xx and 204",
        ),
    ];
    checks.iter().find(|(broken, _)| *broken).map(|(_, rule)| *rule)
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

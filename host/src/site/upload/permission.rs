//! Who may upload.
//!
//! Without a token, whoever reaches the server may. But a page of somebody else's, in a browser that reaches it, may not: it
//! could write to every server on its reader's own machine.

use super::reply::Refusal;
use crate::config::token::Token;
use crate::http::head::Head;
use crate::http::trim_whitespace;

/// What is known of a client's right to upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// It may.
    Given,
    /// It has not said the token, which may still come in the form.
    Open,
}

/// Refuses what a page of another site has sent.
///
/// Every browser says where a request that is no simple GET comes from: by `Origin` (Fetch standard, "append a request `Origin`
/// header"), and by `Sec-Fetch-Site` (Fetch Metadata). What is no browser says neither.
pub(super) fn refuse_other_sites(head: &Head) -> Result<(), Refusal> {
    let is_own = |origin: &[u8]| {
        // `null` is a page of nobody knows where. The scheme does not count: whoever ends TLS before this server changes it.
        let authority = memchr::memmem::find(origin, b"://").map(|at| &origin[at + 3..]);
        authority.zip(head.host()).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
    };
    let from_elsewhere = head.values("sec-fetch-site").any(|site| !matches!(site, b"same-origin" | b"none"));
    match from_elsewhere || !head.values("origin").all(is_own) {
        true => Err(Refusal::new(
            403,
            "uploads from pages of other sites are refused; a proxy before this server must pass Host on as it is",
        )),
        false => Ok(()),
    }
}

/// The client's right, as far as the head says it.
pub(super) fn right(head: &Head, token: Option<&Token>) -> Result<Right, Refusal> {
    let Some(token) = token else { return Ok(Right::Given) };
    let mut fields = head.values("authorization");
    let Some(said) = fields.next() else { return Ok(Right::Open) };
    // RFC 9110 §11.1: the scheme is compared without case. Authorization is one field (§11.6.2), not a list.
    let known = match said.split_at_checked(BEARER.len()) {
        Some((scheme, said)) => scheme.eq_ignore_ascii_case(BEARER) && token.is(trim_whitespace(said)),
        None => false,
    };
    if known && fields.next().is_none() { Ok(Right::Given) } else { Err(wrong_token()) }
}

/// Who said nothing.
pub(super) fn no_token() -> Refusal {
    // RFC 6750 §3.1: "If the request lacks any authentication information [...] the resource server SHOULD NOT include an error
    // code".
    Refusal::challenge(
        "uploads need the token: Authorization: Bearer TOKEN, or the field token before the files of a form",
        "Bearer realm=\"uploads\"",
    )
}

/// Who said something else than the token.
pub(super) fn wrong_token() -> Refusal {
    Refusal::challenge("this is not the token that uploads need", "Bearer realm=\"uploads\", error=\"invalid_token\"")
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadLimits;
    use std::os::unix::fs::PermissionsExt;

    fn head(fields: &str) -> Head {
        let mut head = Head::default();
        let text = format!("POST / HTTP/1.1\r\nHost: Example.org:8080\r\n{fields}\r\n");
        head.parse(text.as_bytes(), HeadLimits { head_bytes_max: 4096 }).unwrap().unwrap();
        head
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        for fields in [
            "",
            "Origin: http://example.org:8080\r\n",
            "Origin: https://EXAMPLE.org:8080\r\nSec-Fetch-Site: same-origin\r\n",
            "Sec-Fetch-Site: none\r\n",
        ] {
            assert!(refuse_other_sites(&head(fields)).is_ok(), "{fields}");
        }
        for fields in [
            "Origin: http://example.org\r\n",
            "Origin: http://example.org:80801\r\n",
            "Origin: http://evil.example\r\n",
            "Origin: null\r\n",
            "Origin:\r\n",
            "Origin: example.org:8080\r\n",
            "Origin: http://example.org:8080\r\nOrigin: http://evil.example\r\n",
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
            "Sec-Fetch-Site: cross-site\r\nOrigin: http://example.org:8080\r\n",
        ] {
            assert_eq!(refuse_other_sites(&head(fields)).map_err(|refusal| refusal.code), Err(403), "{fields}");
        }
    }

    #[test]
    fn a_token_is_asked_for_if_there_is_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        let token = Token::read(file.path()).unwrap();
        let right = |fields: &str, token| right(&head(fields), token).map_err(|refusal| refusal.code);
        assert_eq!(right("", None), Ok(Right::Given));
        assert_eq!(right("Authorization: Bearer x\r\n", None), Ok(Right::Given));
        assert_eq!(right("", Some(&token)), Ok(Right::Open));
        for said in ["Bearer s3cret", "bearer  s3cret"] {
            assert_eq!(right(&format!("Authorization: {said}\r\n"), Some(&token)), Ok(Right::Given), "{said}");
        }
        for said in ["Bearer s3cre", "Bearer", "Bearer ", "s3cret", "Basic s3cret", "Bearers3cret", "Bearer s3cret x"] {
            assert_eq!(right(&format!("Authorization: {said}\r\n"), Some(&token)), Err(401), "{said}");
        }
        let twice = "Authorization: Bearer s3cret\r\n".repeat(2);
        assert_eq!(right(&twice, Some(&token)), Err(401));
    }
}

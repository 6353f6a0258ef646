//! The look of all pages that the server makes itself: listings, and what became of an upload.
//!
//! A page is one response that needs no other: its style, its script and its icon stand in it. Nothing but these is allowed
//! by its policy, which names them by their hashes: a name in it that were taken for markup could do nothing.

use crate::response::{Body, Fields, Response, Status};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use std::borrow::Cow;
use std::fmt::Write;

/// What a page has besides text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Plain,
    /// The form for uploads, with its script.
    Form,
}

/// A page with this heading, which is also its title, and this content below it. `path` is the folder that it is about: its
/// trail leads there.
pub(super) fn response(code: u16, path: &[u8], heading: &str, content: &Markup) -> Response {
    let mut page = opening(path, heading);
    page.push_str(&content.0);
    page.push_str(CLOSING);
    Response { status: Status::new(code), fields: fields(Kind::Plain), body: Body::Bytes(page.into_bytes().into()) }
}

/// The fields of a page.
pub(super) fn fields(kind: Kind) -> Fields {
    let mut fields = Fields::default();
    fields.append(b"Content-Type", b"text/html; charset=utf-8");
    let policy: Cow<'_, str> = match kind {
        Kind::Plain => POLICY.into(),
        Kind::Form => format!("{POLICY}; {SCRIPT_POLICY}").into(),
    };
    fields.append(b"Content-Security-Policy", policy.as_bytes());
    fields.append(b"X-Content-Type-Options", b"nosniff");
    // Where a link leads to learns nothing of the folder. It is not `no-referrer`, for which the form of a page would be sent
    // with `Origin: null`, as from nobody knows where (Fetch standard, "append a request `Origin` header").
    fields.append(b"Referrer-Policy", b"same-origin");
    fields.append(FRESHNESS.0, FRESHNESS.1);
    fields
}

/// A page up to its content, which is followed by [`CLOSING`].
pub(super) fn opening(path: &[u8], heading: &str) -> String {
    let mut page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (heading) }
                link rel="icon" href=(ICON);
                style { (PreEscaped(STYLE)) }
            }
            body {
                (trail(path))
                main { h1 { bdi { (heading) } } }
            }
        }
    };
    // A template is closed at its end; this one goes on.
    page.0.truncate(page.0.len() - CLOSING.len());
    page.0
}

/// A page is true when it is made. RFC 9111 §5.2.2.4: it may be kept, but not shown without asking.
pub(super) const FRESHNESS: (&[u8], &[u8]) = (b"Cache-Control", b"no-cache");

/// What ends a page.
pub(super) const CLOSING: &str = "</main></body></html>";

/// The folders above the one at `path`, which begins and ends with a slash, and it itself, as links.
fn trail(path: &[u8]) -> Markup {
    let mut address = String::from("/");
    let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
    let mut folders = vec![(address.clone(), "Home".to_owned())];
    for name in names {
        // Writing to a String cannot fail.
        _ = write!(address, "{}/", percent_encode(name, ENCODED));
        folders.push((address.clone(), visible(name)));
    }
    let last = folders.len() - 1;
    html! {
        nav aria-label="Folders" {
            ol.trail {
                @for (index, (address, name)) in folders.iter().enumerate() {
                    li { a href=(address) aria-current=[(index == last).then_some("page")] { bdi { (name) } } }
                }
            }
        }
    }
}

/// The form by which files are uploaded to the folder whose page it stands in, and the place for what becomes of them.
pub(super) fn form(asks_token: bool) -> Markup {
    html! {
        form.upload method="post" enctype="multipart/form-data" action="" {
            // First, so that a server can refuse what comes after it.
            @if asks_token {
                label { "Token" input type="password" name="token" required autocomplete="current-password"; }
            }
            label { "Files" input type="file" name="file" multiple required; }
            button { "Upload" }
            p hidden { "Or drop files anywhere on this page." }
        }
        ul.transfers aria-label="Uploads" hidden {}
        p role="status" {}
        script { (PreEscaped(SCRIPT)) }
    }
}

/// A reference from a page about a folder to what has this name in the folder (RFC 3986 §4.2): one segment, which no name can
/// make a scheme, a query or a way up.
pub(super) fn reference(name: &[u8]) -> String {
    percent_encode(name, ENCODED).to_string()
}

/// A name for people to read. What is not UTF-8, does not show, or would change how the text around it shows, is replaced.
pub(super) fn visible(name: &[u8]) -> String {
    String::from_utf8_lossy(name)
        .chars()
        .map(|char| if is_visible(char) { char } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

fn is_visible(char: char) -> bool {
    // Controls; then what Unicode's bidirectional algorithm takes for an order (UAX #9 §2), so that no name can show another end
    // than it has; and what ends a line.
    !char.is_control()
        && !matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        && !matches!(char, '\u{2028}' | '\u{2029}')
}

/// All that is not unreserved (RFC 3986 §2.3), so that a name of any bytes is one segment and nothing else.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The style of all pages.
const STYLE: &str = include_str!("page/style.css");

/// The script of a form for uploads.
const SCRIPT: &str = include_str!("page/upload.js");

/// The server's mark, so that a browser does not ask for another.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect \
    width='32' height='32' rx='8' fill='%230f766e'/%3E%3Cpath fill='%23fff' d='M10 5.5a1.5 1.5 0 0 1 3 0V11h6V5.5a1.5 1.5 0 \
    0 1 3 0V11h1.5a1.5 1.5 0 0 1 1.5 1.5V15a9 9 0 0 1-7.5 8.875V26.5a1.5 1.5 0 0 1-3 0v-2.625A9 9 0 0 1 7 15v-2.5A1.5 1.5 0 \
    0 1 8.500 11H10z'/%3E%3C/svg%3E";

/// What a page may load and where its forms may go (Content Security Policy Level 3).
const POLICY: &str = "default-src 'none'; style-src 'sha256-UnMj5WpDrksRlPj+5ttb2o3dP+MhyhGqPgaGFBoCeHA='; img-src data:; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// What the script of a form may do: be run, and speak to this server.
const SCRIPT_POLICY: &str = "script-src 'sha256-c2zCPvFKqyuQMKp/YKQQ3TpdlS+HJMRkEknu3mmFuWI='; connect-src 'self'";

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// A source expression that allows exactly this text (CSP Level 3 §6.7.2.3).
    fn hash(text: &str) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut base64 = String::new();
        for bytes in Sha256::digest(text).chunks(3) {
            let group = bytes.iter().chain(&[0, 0]).take(3).fold(0, |group, &byte| group << 8 | usize::from(byte));
            let digit = |at: usize| char::from(DIGITS[group >> (18 - 6 * at) & 63]);
            base64.extend((0..4).map(|at| if at > bytes.len() { '=' } else { digit(at) }));
        }
        format!("'sha256-{base64}'")
    }

    #[test]
    fn the_policy_allows_the_style_and_the_script_that_pages_have() {
        assert_eq!(hash(""), "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='", "the empty text's is well known");
        let style = format!("style-src {};", hash(STYLE));
        let script = format!("script-src {};", hash(SCRIPT));
        assert!(
            POLICY.contains(&style) && SCRIPT_POLICY.contains(&script),
            "what has changed is what the policies must say: {style} {script}"
        );
        // They stand in the page as they are.
        assert!(opening(b"/", "x").contains(&format!("<style>{STYLE}</style>")));
        assert!(form(false).0.contains(&format!("<script>{SCRIPT}</script>")));
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</"), "and end where they should");
    }

    #[test]
    fn only_a_page_with_a_form_may_run_its_script() {
        let policy = |kind| String::from_utf8(fields(kind).lines().to_vec()).unwrap();
        assert!(!policy(Kind::Plain).contains("script-src"));
        assert!(policy(Kind::Form).contains("frame-ancestors 'none'; script-src 'sha256-"));
        assert_eq!(form(true).0.matches("name=\"token\"").count(), 1);
        assert!(!form(false).0.contains("token\""));
    }

    #[test]
    fn a_page_is_closed_where_it_goes_on() {
        let page = opening(b"/a/", "<b>");
        assert!(page.ends_with("<main><h1><bdi>&lt;b&gt;</bdi></h1>"), "{page}");
        assert!(page.contains("<title>&lt;b&gt;</title>"), "{page}");
        let whole = response(201, b"/a/", "b", &html! { p { "c" } });
        assert_eq!(whole.status.code, 201);
        let Body::Bytes(bytes) = whole.body else { panic!("{whole:?}") };
        assert!(bytes.ends_with(b"<h1><bdi>b</bdi></h1><p>c</p></main></body></html>"));
    }

    #[test]
    fn the_trail_leads_to_each_folder_above() {
        assert_eq!(
            trail(b"/a b/\xff\"/").0,
            "<nav aria-label=\"Folders\"><ol class=\"trail\"><li><a href=\"/\"><bdi>Home</bdi></a></li>\
             <li><a href=\"/a%20b/\"><bdi>a b</bdi></a></li>\
             <li><a href=\"/a%20b/%FF%22/\" aria-current=\"page\"><bdi>\u{fffd}&quot;</bdi></a></li></ol></nav>"
        );
    }

    #[test]
    fn a_reference_is_one_segment_whatever_the_name() {
        for (name, expected) in [
            (&b"a-b_c.d~1"[..], "a-b_c.d~1"),
            (b"javascript:alert(1)", "javascript%3Aalert%281%29"),
            (b"a/b", "a%2Fb"),
            (b" #?%\"'<>\\\n", "%20%23%3F%25%22%27%3C%3E%5C%0A"),
            ("\u{202e}é".as_bytes(), "%E2%80%AE%C3%A9"),
            (b"\xff", "%FF"),
        ] {
            assert_eq!(reference(name), expected);
        }
    }

    #[test]
    fn names_show_what_they_are_and_do_nothing() {
        assert_eq!(visible("a\u{202e}gpj.exe".as_bytes()), "a\u{fffd}gpj.exe");
        assert_eq!(visible(b" a\n\t\x1b[31mb\xff\x7f"), " a\u{fffd}\u{fffd}\u{fffd}[31mb\u{fffd}\u{fffd}");
        assert_eq!(visible("päper עברית 日本 🦀".as_bytes()), "päper עברית 日本 🦀");
    }
}

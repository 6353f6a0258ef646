//! What a client can take: content codings (RFC 9110 §12.5.3) and pages (§12.5.1).

use super::head::Head;
use super::trim_whitespace;

/// The content codings that a representation may have (§8.4.1 and RFC 7932, RFC 8878).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `br`
    Brotli = 1,
    /// `zstd`
    Zstandard = 2,
    /// `gzip`
    Gzip = 3,
}

impl Coding {
    /// All of them, in the order in which a server prefers what a client likes as much: what compresses best comes first.
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstandard, Coding::Gzip];

    /// Its name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstandard => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    fn is_named(self, name: &[u8]) -> bool {
        // §8.4.1: "All content codings are case-insensitive". §8.4.1.3: "A recipient SHOULD consider "x-gzip" to be
        // equivalent to "gzip"."
        name.eq_ignore_ascii_case(self.name().as_bytes())
            || (self == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}

/// Some content codings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codings(u8);

impl Codings {
    /// These and that one.
    #[must_use]
    pub fn with(self, coding: Coding) -> Codings {
        Codings(self.0 | 1 << coding as u8)
    }

    /// Whether that one is among these.
    pub fn has(self, coding: Coding) -> bool {
        self.0 & 1 << coding as u8 != 0
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The coding in which to send a representation that is there without one and in each of these. `None`: without.
///
/// The one with the highest weight is taken, and of equal ones the first of [`Coding::ALL`]. Without the field any coding may be sent;
/// but who does not ask may not be able to decode, so none is. A client that takes nothing of what there is gets it without a coding all the same: §12.4.1
/// lets a server "disregard the [...] header field", which is worth more to people than a 406.
pub fn coding(head: &Head, available: Codings) -> Option<Coding> {
    let mut weights = Weights::default();
    head.values("accept-encoding").for_each(|list| weights.add(list));
    // "If the representation has no content coding, then it is acceptable by default unless specifically excluded".
    let identity = weights.identity.or(weights.any).unwrap_or(0);
    let best = Coding::ALL.into_iter().filter(|coding| available.has(*coding)).fold(None, |best, coding| {
        // "*" matches any available content coding not explicitly listed in the field.
        let weight = weights.codings[coding as usize - 1].or(weights.any).unwrap_or(0);
        match best {
            Some((_, better)) if better >= weight => best,
            _ if weight == 0 || weight < identity => best,
            _ => Some((coding, weight)),
        }
    });
    best.map(|(coding, _)| coding)
}

/// Whether the client says in so many words that it takes HTML, as browsers do where a page is to be shown. `*/*` alone is what
/// programs say.
pub fn takes_html(head: &Head) -> bool {
    let is_html = |member: &[u8]| {
        let (name, weight) = member_of(member)?;
        (name.eq_ignore_ascii_case(b"text/html") && weight > 0).then_some(())
    };
    head.values("accept").any(|list| list.split(|byte| *byte == b',').any(|member| is_html(member).is_some()))
}

/// The weights of an `Accept-Encoding` field, in thousandths; `None` is not listed.
#[derive(Default)]
struct Weights {
    codings: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    any: Option<u16>,
}

impl Weights {
    /// Adds a list, of which malformed members are ignored.
    fn add(&mut self, list: &[u8]) {
        for (name, weight) in list.split(|byte| *byte == b',').filter_map(member_of) {
            if name.eq_ignore_ascii_case(b"identity") {
                self.identity = Some(weight);
            } else if name == b"*" {
                self.any = Some(weight);
            } else if let Some(coding) = Coding::ALL.into_iter().find(|coding| coding.is_named(name)) {
                self.codings[coding as usize - 1] = Some(weight);
            }
        }
    }
}

/// The name and the weight of a member of a list, whose other parameters mean nothing here.
fn member_of(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.split(|byte| *byte == b';').map(trim_whitespace);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let mut weight = 1000;
    for parameter in parts {
        if let [b'q' | b'Q', b'=', value @ ..] = parameter {
            weight = parse_weight(value)?;
        }
    }
    Some((name, weight))
}

/// A weight in thousandths. §12.4.2: `( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`
fn parse_weight(text: &[u8]) -> Option<u16> {
    let (whole, digits) = match text {
        [whole @ (b'0' | b'1')] => (whole, &b""[..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let mut weight = u16::from(whole - b'0') * 1000;
    for (digit, place) in digits.iter().zip([100, 10, 1]) {
        weight += u16::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?) * place;
    }
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::super::HeadLimits;
    use super::Coding::{Brotli, Gzip, Zstandard};
    use super::*;

    fn head(fields: &str) -> Head {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = Head::default();
        head.parse(text.as_bytes(), HeadLimits { head_bytes_max: 8192 }).unwrap().unwrap();
        head
    }

    #[test]
    fn the_heaviest_coding_is_taken_and_of_equal_ones_the_smallest() {
        let all = Coding::ALL.into_iter().fold(Codings::default(), Codings::with);
        let gzip = Codings::default().with(Gzip);
        for (accepted, of_all, of_gzip) in [
            ("gzip", Some(Gzip), Some(Gzip)),
            ("GZIP", Some(Gzip), Some(Gzip)),
            ("x-gzip", Some(Gzip), Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Brotli), Some(Gzip)),
            ("gzip, deflate", Some(Gzip), Some(Gzip)),
            ("zstd, gzip", Some(Zstandard), Some(Gzip)),
            ("deflate", None, None),
            ("", None, None),
            ("identity", None, None),
            ("br;q=0.5, gzip;q=0.8", Some(Gzip), Some(Gzip)),
            ("br;q=0.5,gzip;q=0.50", Some(Brotli), Some(Gzip)),
            ("br;q=0, gzip;q=0.001", Some(Gzip), Some(Gzip)),
            ("br ; q=1 , gzip ;\tQ=0.9", Some(Brotli), Some(Gzip)),
            ("gzip;q=0", None, None),
            ("*", Some(Brotli), Some(Gzip)),
            ("*;q=0", None, None),
            ("gzip, *;q=0", Some(Gzip), Some(Gzip)),
            ("br;q=0, *", Some(Zstandard), Some(Gzip)),
            ("gzip;q=0, *", Some(Brotli), None),
            // Who would rather have it as it is, gets it so.
            ("gzip;q=0.5, identity", None, None),
            ("gzip;q=0.5, identity;q=0.5", Some(Gzip), Some(Gzip)),
            ("gzip;q=0.5, br, identity;q=0.7", Some(Brotli), None),
            ("gzip;q=0.5, *;q=0.6", Some(Brotli), None),
            // And who cannot take it so does not, if there is anything else.
            ("identity;q=0", None, None),
            ("identity;q=0, gzip;q=0.1", Some(Gzip), Some(Gzip)),
            ("identity;q=0, *;q=0.1", Some(Brotli), Some(Gzip)),
            ("*;q=0, identity;q=0.5", None, None),
            // What is malformed is not there.
            ("gzip;q=1.1", None, None),
            ("gzip;q=", None, None),
            ("gzip;q=0.1234", None, None),
            ("gzip;q=.5", None, None),
            ("gzip;q=0,5", None, None),
            ("gzip;q=-1, br;q=0.1", Some(Brotli), None),
            ("gzip;q=1.", Some(Gzip), Some(Gzip)),
            ("gzip;level=9", Some(Gzip), Some(Gzip)),
            (",,gzip,", Some(Gzip), Some(Gzip)),
            ("gzip br", None, None),
        ] {
            let head = head(&format!("Accept-Encoding: {accepted}\r\n"));
            assert_eq!(coding(&head, all), of_all, "{accepted:?}");
            assert_eq!(coding(&head, gzip), of_gzip, "{accepted:?}");
            assert_eq!(coding(&head, Codings::default()), None, "{accepted:?}");
        }
        assert_eq!(coding(&head(""), all), None, "who does not ask gets none");
        let two = head("Accept-Encoding: gzip;q=0.1\r\naccept-encoding: br;q=0.2\r\n");
        assert_eq!(coding(&two, all), Some(Brotli));
    }

    #[test]
    fn pages_are_for_who_asks_for_html() {
        for (accept, takes) in [
            ("text/html", true),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("Text/HTML;charset=utf-8;q=0.1", true),
            ("application/json, text/html;q=0.5", true),
            ("text/html;q=0", false),
            ("text/html;q=x", false),
            ("*/*", false),
            ("text/*", false),
            ("application/json", false),
            ("image/avif,image/webp,*/*;q=0.8", false),
            ("text/htmlx", false),
            ("", false),
        ] {
            assert_eq!(takes_html(&head(&format!("Accept: {accept}\r\n"))), takes, "{accept}");
        }
        assert!(!takes_html(&head("")));
    }
}

//! The parser against a model that has all of the content at once, with the content split everywhere.

use super::super::random::Random;
use super::*;

/// What a form has come to: its parts, with their content.
type Form = Vec<(Part, Vec<u8>)>;

fn parser(boundary: &str) -> Parser {
    Parser::new(format!("multipart/form-data; boundary={boundary}").as_bytes()).unwrap()
}

/// Parses content that comes in these pieces.
fn parse<'a>(boundary: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Form, Reject> {
    let mut parser = parser(boundary);
    let mut form = Form::new();
    let mut open = false;
    for mut piece in pieces {
        loop {
            let (taken, event) = parser.parse(piece)?;
            piece = &piece[taken..];
            match event {
                Event::Part(part) => {
                    assert!(!std::mem::replace(&mut open, true), "a part begins after the end of another");
                    form.push((part, Vec::new()));
                }
                Event::Content(run) => {
                    assert!(open && !run.is_empty());
                    form.last_mut().unwrap().1.extend_from_slice(run);
                }
                Event::PartEnd => assert!(std::mem::replace(&mut open, false)),
                Event::Nothing => {
                    assert!(piece.is_empty(), "all of it is taken");
                    break;
                }
            }
        }
    }
    parser.end().map(|()| form)
}

/// The same by a model: all of the content at once, cut at each delimiter.
fn model(boundary: &str, content: &[u8]) -> Option<Form> {
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    let whole = [b"\r\n", content].concat();
    let mut rest = &whole[memchr::memmem::find(&whole, &delimiter)? + delimiter.len()..];
    let mut form = Form::new();
    loop {
        if rest.starts_with(b"--") {
            return Some(form);
        }
        let line = memchr::memmem::find(rest, b"\r\n")?;
        if !rest[..line].iter().all(|byte| b" \t".contains(byte)) {
            return None;
        }
        rest = &rest[line + 2..];
        let head = if rest.starts_with(b"\r\n") { 0 } else { memchr::memmem::find(rest, b"\r\n\r\n")? + 2 };
        let part = Part::parse(&rest[..head]).ok()?;
        rest = &rest[head + 2..];
        let end = memchr::memmem::find(rest, &delimiter)?;
        form.push((part, rest[..end].to_vec()));
        rest = &rest[end + delimiter.len()..];
    }
}

const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nsecret\r\n--b\r\n\
                    Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\n\
                    \r\r\n\r\n-\r\n--\r\n--a\r\n\r\n--b--\r\n";

fn texts(form: Form) -> Vec<(String, Option<String>, String)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    form.into_iter().map(|(part, content)| (text(part.name), part.file_name.map(text), text(content))).collect()
}

#[test]
fn a_form_has_its_parts_wherever_it_is_split() {
    let form = parse("b", [FORM.as_bytes()]).unwrap();
    assert_eq!(
        texts(form.clone()),
        [
            ("token".to_owned(), None, "secret".to_owned()),
            ("file".to_owned(), Some("a.txt".to_owned()), "\r\r\n\r\n-\r\n--\r\n--a\r\n".to_owned()),
        ]
    );
    assert_eq!(model("b", FORM.as_bytes()).as_ref(), Some(&form));
    assert_eq!(parse("b", FORM.as_bytes().chunks(1)).as_ref(), Ok(&form));
    for first in 0..=FORM.len() {
        for second in first..=FORM.len() {
            let bytes = FORM.as_bytes();
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(parse("b", pieces).as_ref(), Ok(&form), "{first} {second}");
        }
    }
}

#[test]
fn every_beginning_of_a_form_is_no_form() {
    let last = FORM.len() - "\r\n".len();
    for end in 0..last {
        let reject = parse("b", [&FORM.as_bytes()[..end]]).unwrap_err();
        assert_eq!(reject.status, 400, "{end}");
    }
    assert!(parse("b", [&FORM.as_bytes()[..last]]).is_ok(), "the last CRLF is not needed");
}

#[test]
fn what_stands_around_the_parts_is_dropped() {
    let part = "Content-Disposition: form-data; name=a\r\n\r\nx";
    for content in [
        format!("preamble\r\n--b\r\n{part}\r\n--b--\r\nepilogue\r\n--b\r\n"),
        format!("\r\n--b \t\r\n{part}\r\n--b--"),
        format!("--bx--b\r\n--b\r\n{part}\r\n--b--").replace("--bx--b", "--x--b"),
    ] {
        let form = parse("b", content.as_bytes().chunks(1)).unwrap();
        assert_eq!(texts(form), [("a".to_owned(), None, "x".to_owned())], "{content}");
    }
    assert_eq!(parse("b", [&b"--b--"[..]]), Ok(vec![]), "a form without parts");
}

#[test]
fn what_is_malformed_is_refused() {
    let head = "Content-Disposition: form-data; name=a\r\n\r\n";
    for content in [
        String::new(),
        "hello".to_owned(),
        format!("--bb\r\n{head}x\r\n--bb--"),
        format!("--b\n{head}x\r\n--b--"),
        format!("--b\r{head}x\r\n--b--"),
        format!("--b x\r\n{head}x\r\n--b--"),
        format!("--b-\r\n{head}x\r\n--b--"),
        format!("--b\r\n{head}x\n--b--"),
        "--b\r\n\r\nx\r\n--b--".to_owned(),
        "--b\r\nContent-Disposition: form-data; name=a\n\nx\r\n--b--".to_owned(),
        "--b\r\nContent-Disposition: form-data; name=a\r\n--b--".to_owned(),
    ] {
        let refused = parse("b", [content.as_bytes()]).unwrap_err();
        assert_eq!(refused.status, 400, "{content:?}");
        assert_eq!(parse("b", content.as_bytes().chunks(1)), Err(refused), "{content:?}");
    }
}

#[test]
fn boundaries_are_those_of_rfc_2046() {
    let longest = "x".repeat(BOUNDARY_BYTES_MAX);
    for (content_type, delimiter) in [
        ("multipart/form-data; boundary=----WebKitFormBoundaryAbC0", "\r\n------WebKitFormBoundaryAbC0"),
        ("Multipart/Form-Data;BOUNDARY=\"a b'()+_,-./:=?c\"", "\r\n--a b'()+_,-./:=?c"),
        ("multipart/form-data; charset=utf-8; boundary=x;", "\r\n--x"),
        (&format!("multipart/form-data; boundary={longest}"), &format!("\r\n--{longest}")),
    ] {
        assert!(Parser::takes(content_type.as_bytes()));
        assert_eq!(&*Parser::new(content_type.as_bytes()).unwrap().delimiter, delimiter.as_bytes(), "{content_type}");
    }
    for content_type in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=\"a \"",
        "multipart/form-data; boundary=\"a",
        "multipart/form-data; boundary=a b",
        "multipart/form-data; boundary=\"a\\\"b\"",
        "multipart/form-data; boundary=\"ü\"",
        "multipart/form-data; boundary=a; boundary=a",
        &format!("multipart/form-data; boundary={longest}x"),
    ] {
        assert_eq!(Parser::new(content_type.as_bytes()).unwrap_err().status, 400, "{content_type}");
    }
    assert!(!Parser::takes(b"multipart/mixed; boundary=a") && !Parser::takes(b"text/plain") && !Parser::takes(b""));
}

#[test]
fn heads_parts_and_what_is_dropped_have_bounds() {
    let status = |content: &str| {
        let whole = parse("b", [content.as_bytes()]).map(|form| form.len()).map_err(|reject| reject.reason);
        let split = parse("b", content.as_bytes().chunks(1)).map(|form| form.len()).map_err(|reject| reject.reason);
        assert_eq!(whole, split);
        whole.is_ok()
    };
    let head = "Content-Disposition: form-data; name=a\r\n";
    let with_head_of = |bytes: usize| {
        let filler = "x".repeat(bytes - head.len() - "X: \r\n\r\n".len());
        format!("--b\r\n{head}X: {filler}\r\n\r\n\r\n--b--")
    };
    assert!(status(&with_head_of(HEAD_BYTES_MAX - 1)) && !status(&with_head_of(HEAD_BYTES_MAX + 1)));
    let with_parts = |count: u32| format!("{}--b--", format!("--b\r\n{head}\r\nx\r\n").repeat(count as usize));
    assert!(status(&with_parts(PARTS_MAX)) && !status(&with_parts(PARTS_MAX + 1)));
    let dropped = "x".repeat(DROPPED_BYTES_MAX as usize);
    for around in
        [format!("{dropped}x\r\n--b--"), format!("--b--{dropped}x"), format!("--b{}\r\n", dropped.replace('x', " "))]
    {
        assert!(!status(&around));
    }
    assert!(status(&format!("--b--{dropped}")));
}

#[test]
fn a_parser_travels_between_two_bytes() {
    let whole = parse("b", [FORM.as_bytes()]).unwrap();
    for end in 0..=FORM.len() {
        let mut first = parser("b");
        let mut form = Form::new();
        let mut run = |parser: &mut Parser, mut piece: &[u8]| {
            loop {
                let (taken, event) = parser.parse(piece).unwrap();
                piece = &piece[taken..];
                match event {
                    Event::Part(part) => form.push((part, Vec::new())),
                    Event::Content(run) => form.last_mut().unwrap().1.extend_from_slice(run),
                    Event::PartEnd => {}
                    Event::Nothing => return,
                }
            }
        };
        run(&mut first, &FORM.as_bytes()[..end]);
        let mut second: Parser = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
        run(&mut second, &FORM.as_bytes()[end..]);
        second.end().unwrap();
        assert_eq!(form, whole, "{end}");
    }
}

#[test]
fn random_content_is_what_the_model_says_however_it_is_split() {
    const PIECES: &[&str] = &[
        "\r\n--ab\r\n",
        "\r\n--ab--",
        "\r\n--ab",
        "\r\n--a",
        "\r\n-",
        "\r",
        "\n",
        "-",
        "ab",
        "x",
        " ",
        "\r\n",
        "\r\n--ab\r\nContent-Disposition: form-data; name=n\r\n\r\n",
        "\r\n--ab \r\nContent-Disposition: form-data; name=n; filename=\"f\"\r\nX: y\r\n\r\n",
        "\r\n\r\n",
        ":",
    ];
    let mut random = Random(5);
    let mut forms = 0;
    for _ in 0..30_000 {
        let mut content =
            if random.below(4) > 0 { "--ab\r\nContent-Disposition: form-data; name=n\r\n\r\n" } else { "" }.to_owned();
        (0..random.below(10)).for_each(|_| content += PIECES[random.below(PIECES.len())]);
        if random.below(2) > 0 {
            content += "\r\n--ab--";
        }
        let expected = model("ab", content.as_bytes());
        let whole = parse("ab", [content.as_bytes()]);
        assert_eq!(whole.as_ref().ok(), expected.as_ref(), "{content:?}");
        let mut rest = content.as_bytes();
        let pieces = std::iter::from_fn(|| {
            let (piece, after) = rest.split_at_checked(1 + random.below(7)).or(Some((rest, &[])))?;
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        assert_eq!(parse("ab", pieces.collect::<Vec<_>>()), whole, "{content:?}");
        forms += usize::from(whole.is_ok());
    }
    assert!(forms > 3_000, "only {forms} were forms");
}

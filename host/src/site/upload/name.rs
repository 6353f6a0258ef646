//! The names of uploaded files: what of a client's name is kept, and what a file is called whose name is taken.

use super::reply::Refusal;
use std::borrow::Cow;

/// The name for a file that a client calls so: the last part, whichever way its system writes folders.
///
/// Nothing is repaired. A file that is kept under another name than the one that was meant is one that nobody finds; numbers
/// are the exception, and the answer tells of them.
pub(super) fn of_file(said: &[u8]) -> Result<String, Refusal> {
    let last = said.rsplit(|byte| matches!(byte, b'/' | b'\\')).next().unwrap_or_default();
    check(last)
}

/// The name, if a file of the site can have it.
pub(super) fn check(name: &[u8]) -> Result<String, Refusal> {
    // RFC 7578 §5.1: the default for forms is UTF-8. A name of other bytes could not be told in an answer.
    let Ok(name) = std::str::from_utf8(name) else { return refuse("a file's name must be UTF-8") };
    if name.is_empty() {
        return refuse("a file has no name");
    }
    // SECURITY: those of C1 (U+0080 to U+009F) too, which steer some terminals.
    if name.chars().any(char::is_control) {
        return refuse("a file's name must not have control characters");
    }
    if matches!(name, "." | "..") {
        return refuse("a file cannot be called . or .., which are folders");
    }
    if name.starts_with('.') {
        return refuse("a file's name must not begin with a dot: the site shows no such files");
    }
    if name.ends_with(".so") {
        return refuse("a file's name must not end in .so: the site shows no such files");
    }
    if name.len() > NAME_BYTES_MAX {
        return refuse("a file's name must not be longer than 255 bytes");
    }
    Ok(name.to_owned())
}

fn refuse(reason: &'static str) -> Result<String, Refusal> {
    Err(Refusal::new(400, reason))
}

/// The name with a number before its ending: `a_1.txt` for `a.txt`; 0 is the name itself. What is too long then is cut before the
/// number.
pub(super) fn numbered(name: &str, number: u32) -> Cow<'_, str> {
    if number == 0 {
        return name.into();
    }
    let number = format!("_{number}");
    let dot = name.rfind('.').filter(|&dot| dot > 0 && name.len() - dot <= ENDING_BYTES_MAX).unwrap_or(name.len());
    let (stem, ending) = name.split_at(dot);
    let mut length = stem.len().min(NAME_BYTES_MAX - number.len() - ending.len());
    while !stem.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}{number}{ending}", &stem[..length]).into()
}

/// `NAME_MAX` of Linux.
const NAME_BYTES_MAX: usize = 255;

/// What comes after the last dot is no ending if it is longer.
const ENDING_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_of_a_name_is_kept_as_it_is() {
        for (said, name) in [
            ("a.txt", "a.txt"),
            ("/etc/passwd", "passwd"),
            ("../../a b", "a b"),
            ("C:\\Users\\me\\ü.txt", "ü.txt"),
            ("a\\b/c", "c"),
            ("x..", "x.."),
            ("a.SO", "a.SO"),
            ("a.so.txt", "a.so.txt"),
            ("<script>\"'&%", "<script>\"'&%"),
            (" ", " "),
        ] {
            assert_eq!(of_file(said.as_bytes()).ok().as_deref(), Some(name), "{said}");
        }
        assert!(of_file("x".repeat(255).as_bytes()).is_ok());
    }

    #[test]
    fn what_no_file_of_a_site_can_be_called_is_refused() {
        for (said, reason) in [
            (&b""[..], "no name"),
            (b"a/", "no name"),
            (b"a\\", "no name"),
            (b".", "folders"),
            (b"a/..", "folders"),
            (b".htaccess", "begin with a dot"),
            (b"x/.git", "begin with a dot"),
            (b"ctime.so", "end in .so"),
            (b".so", "begin with a dot"),
            (b"a\nb", "control"),
            (b"a\0b", "control"),
            (b"a\x7f", "control"),
            ("a\u{9b}b".as_bytes(), "control"),
            (b"\xff", "UTF-8"),
            (b"\xc0\xae", "UTF-8"),
            (&[b'x'; 256], "255 bytes"),
        ] {
            let refusal = of_file(said).expect_err("a refusal");
            assert!(refusal.code == 400 && refusal.reason.contains(reason), "{said:?}: {}", refusal.reason);
        }
    }

    #[test]
    fn numbers_come_before_the_ending() {
        for (name, number, expected) in [
            ("a.txt", 0, "a.txt"),
            ("a.txt", 1, "a_1.txt"),
            ("a.txt", 12, "a_12.txt"),
            ("a.tar.gz", 1, "a.tar_1.gz"),
            ("README", 2, "README_2"),
            ("a.", 1, "a_1."),
        ] {
            assert_eq!(numbered(name, number), expected);
        }
        let long = format!("{}.txt", "x".repeat(251));
        assert_eq!(numbered(&long, 7), format!("{}_7.txt", "x".repeat(249)));
        let wide = "ü".repeat(127);
        assert_eq!(numbered(&wide, 1), format!("{}_1", "ü".repeat(126)));
        let dotted = format!("a.{}", "x".repeat(253));
        assert_eq!(numbered(&dotted, 1), format!("a.{}_1", "x".repeat(251)));
        for number in [1, 99, 9_999] {
            assert!(check(numbered(&long, number).as_bytes()).is_ok());
        }
    }
}

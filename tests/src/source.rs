//! The repository's files as text, for rules about them: which there are, and which of their bytes are code.

use crate::repository;
use std::process::Command;

/// One file of the repository.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path from the repository's root, with slashes.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A whole word in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// The word: letters, digits and underscores.
    pub text: &'a str,
    /// Its line, from 1.
    pub line: usize,
    /// What follows it on and after the line.
    pub rest: &'a str,
}

/// All text files that git knows or would take, in order.
///
/// # Panics
/// git is not installed, or this is no clone.
pub fn files() -> Vec<Source> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .expect("git is installed (tests/run installs it)");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    names
        .split_terminator('\0')
        .filter_map(|path| {
            // A file that is deleted but not yet committed so, or a picture, has no text.
            let text = String::from_utf8(std::fs::read(repository().join(path)).ok()?).ok()?;
            Some(Source { path: path.to_owned(), text })
        })
        .collect()
}

impl Source {
    /// The file's Rust code: its text with what is in comments, strings and characters blanked, line for line.
    pub fn code(&self) -> String {
        code(&self.text)
    }
}

/// The words of `text`, in order.
pub fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut at, mut line) = (0, 1);
    std::iter::from_fn(move || {
        let start = at + text[at..].find(is_word)?;
        let end = text[start..].find(|c| !is_word(c)).map_or(text.len(), |length| start + length);
        line += text[at..start].matches('\n').count();
        at = end;
        Some(Word { text: &text[start..end], line, rest: &text[end..] })
    })
}

fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest)
        } else if !after_word && let Some(length) = raw_string(rest) {
            length
        } else if first == '\''
            && let Some(length) = character(rest)
        {
            length
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        out.extend(rest[..skipped].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[skipped..];
    }
    out
}

/// The length of the block comment that `text` begins with; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string that `text` begins with.
fn string(text: &str) -> usize {
    let mut escaped = true;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string that `text` begins with, if it does: `r"…"`, `br#"…"#`.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or(text.strip_prefix("cr")).or(text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let content = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = content.find(&end).map_or(content.len(), |at| at + end.len());
    Some(text.len() - content.len() + length)
}

/// The length of the character that `text` begins with; none for a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    match chars.next()?.1 {
        // The escaped character may itself be a quote.
        '\\' => text.char_indices().skip(3).find(|(_, c)| *c == '\'').map(|(at, _)| at + 1),
        _ => chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        for (text, left) in [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("un\"safe", b)"#, "f(          , b)"),
            (r##"f(r#"a"b"#, br"\", c)"##, "f(        ,      , c)"),
            (r"f('a', '\'', '\\', '\u{1b}', 'b)", "f(   ,     ,     ,         , 'b)"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("for r in x {}", "for r in x {}"),
            ("\"a\nb\" c", "  \n   c"),
        ] {
            assert_eq!(code(text), left, "{text:?}");
        }
    }

    #[test]
    fn words_know_their_line_and_what_follows() {
        let found: Vec<_> = words("a_1 +\n\n b::c").map(|word| (word.text, word.line, word.rest)).collect();
        assert_eq!(found, [("a_1", 1, " +\n\n b::c"), ("b", 3, "::c"), ("c", 3, "")]);
    }
}

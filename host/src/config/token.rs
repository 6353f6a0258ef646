//! The secret that uploads may be asked for: read from a file that others cannot read, compared in a time that tells nothing.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A secret of people, as `Authorization: Bearer` can carry it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(Box<str>);

impl Token {
    /// The most bytes that a token may have.
    pub const BYTES_MAX: usize = 1024;

    /// Reads the token that is all of a file, but for the space around it.
    ///
    /// # Errors
    /// Others may read the file, or what is in it is no token; with what to do.
    pub fn read(path: &Path) -> Result<Token> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("cannot read the token in {shown}"))?;
        // Of the open file: the name may mean another one a moment later.
        let metadata = file.metadata().with_context(|| format!("cannot look at {shown}"))?;
        ensure!(metadata.is_file(), "{shown} is no file; name one that has the token in it");
        // SECURITY: who can read it may upload; who can write it decides who may.
        ensure!(
            metadata.mode() & 0o006 == 0,
            "{shown} has the token for uploads, and others may read or write it; chmod o-rw {shown}"
        );
        let mut text = String::new();
        file.take(2 * Token::BYTES_MAX as u64)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read the token in {shown}"))?;
        let text = text.trim();
        ensure!(!text.is_empty(), "{shown} is empty; put a token into it, such as: openssl rand -hex 32 > {shown}");
        ensure!(
            text.len() <= Token::BYTES_MAX && is_token68(text.as_bytes()),
            "what {shown} has in it is no token; use one word of letters, digits and - . _ ~ + / of at most {} bytes, \
             such as: openssl rand -hex 32 > {shown}",
            Token::BYTES_MAX
        );
        Ok(Token(text.into()))
    }

    /// Whether somebody who says this knows it. How long it takes tells nothing but whether the length is the same.
    pub fn is(&self, said: &[u8]) -> bool {
        let own = self.0.as_bytes();
        if own.len() != said.len() {
            return false;
        }
        let differences = own.iter().zip(said).fold(0, |so_far, (own, said)| black_box(so_far | (own ^ said)));
        differences == 0
    }
}

/// It is a secret: it must not get into a log by way of a derived text.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// RFC 6750 §2.1: `b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn is_token68(text: &[u8]) -> bool {
    let end = text.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    end > 0 && text[..end].iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn read(content: &str, mode: u32) -> Result<Token, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Token::read(&path).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_token_is_one_word_in_a_file_of_ones_own() {
        let token = read("s3cret+/-._~==\n", 0o600).unwrap();
        assert!(token.is(b"s3cret+/-._~=="));
        for other in ["", "s3cret", "s3cret+/-._~=", "s3cret+/-._~===", "S3cret+/-._~=="] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert!(read("x", 0o640).is_ok(), "a group may be meant to");
        assert_eq!(format!("{token:?}"), "Token(..)");
        let sent: Token = serde_json::from_str(&serde_json::to_string(&token).unwrap()).unwrap();
        assert!(sent == token);
    }

    #[test]
    fn what_is_no_token_or_no_secret_is_refused_with_what_to_do() {
        for (content, mode, expected) in [
            ("x", 0o604, "chmod o-rw"),
            ("x", 0o602, "chmod o-rw"),
            (" \n", 0o600, "is empty"),
            ("two words", 0o600, "one word"),
            ("two\nlines", 0o600, "one word"),
            ("=", 0o600, "one word"),
            ("a=b", 0o600, "one word"),
            ("sécret", 0o600, "one word"),
            (&"x".repeat(Token::BYTES_MAX + 1), 0o600, "one word"),
        ] {
            let refusal = read(content, mode).unwrap_err();
            assert!(refusal.contains(expected), "{content:?}: {refusal}");
        }
        assert!(Token::read(Path::new("/nonexistent")).unwrap_err().to_string().contains("cannot read the token"));
        assert!(Token::read(Path::new("/")).unwrap_err().to_string().contains("is no file"));
    }
}

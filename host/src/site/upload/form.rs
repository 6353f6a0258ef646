//! A form whose files are stored as it comes (POST, RFC 7578).

use super::permission::{self, Right};
use super::reply::Refusal;
use super::{Files, name};
use crate::config::token::Token;
use crate::http::multipart::{Event, Parser};
use serde::{Deserialize, Serialize};

/// A form that is under way. It can travel to another process between two pieces.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Form {
    parser: Parser,
    within: Within,
    /// The client may upload.
    is_permitted: bool,
    /// What it has said for the token so far.
    said: Vec<u8>,
}

/// The part that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Within {
    /// None, or one that means nothing here.
    Other,
    /// A file that is stored.
    File,
    /// A browser's field for files, in which none was chosen.
    NoFile,
    /// The field `token`.
    Token,
}

impl Form {
    pub(super) fn new(parser: Parser, right: Right) -> Form {
        Form { parser, within: Within::Other, is_permitted: right == Right::Given, said: Vec::new() }
    }

    /// Takes the next piece of the content.
    pub(super) fn take(&mut self, content: &[u8], files: &mut Files, token: Option<&Token>) -> Result<(), Refusal> {
        let mut rest = content;
        loop {
            let (taken, event) = self.parser.parse(rest)?;
            rest = &rest[taken..];
            match (event, self.within) {
                (Event::Nothing, _) => return Ok(()),
                (Event::Part(part), _) => {
                    self.within = match part.file_name {
                        None if part.name == TOKEN_FIELD && !self.is_permitted => Within::Token,
                        None => Within::Other,
                        // HTML, "constructing the entry list": a field without a chosen file is sent as one without name and
                        // content.
                        Some(name) if name.is_empty() => Within::NoFile,
                        Some(_) if !self.is_permitted => return Err(permission::no_token()),
                        Some(said) => {
                            files.begin(name::of_file(&said)?)?;
                            Within::File
                        }
                    };
                }
                (Event::Content(run), Within::File) => files.write(run)?,
                (Event::Content(_), Within::NoFile) => return Err(Refusal::new(400, "a file has no name")),
                (Event::Content(run), Within::Token) => {
                    if self.said.len() + run.len() > Token::BYTES_MAX {
                        return Err(permission::wrong_token());
                    }
                    self.said.extend_from_slice(run);
                }
                (Event::PartEnd, Within::Token) => {
                    let said = std::mem::take(&mut self.said);
                    // Nothing in the field is like no field.
                    if !said.is_empty() && !token.is_some_and(|token| token.is(said.trim_ascii())) {
                        return Err(permission::wrong_token());
                    }
                    self.is_permitted = !said.is_empty();
                }
                (Event::Content(_), Within::Other) | (Event::PartEnd, _) => {}
            }
        }
    }

    /// There is no more content.
    pub(super) fn end(&self, files: &Files) -> Result<(), Refusal> {
        self.parser.end()?;
        if !self.is_permitted {
            return Err(permission::no_token());
        }
        match files.is_empty() {
            true => Err(Refusal::new(400, "no file was chosen")),
            false => Ok(()),
        }
    }
}

/// The field of a form that has the token.
const TOKEN_FIELD: &[u8] = b"token";

use crate::http::conditional::Validators;
use crate::http::head::Head;
#[derive(PartialEq)]
pub enum Class {
    Reads,
    Changes,
}
pub enum Outcome {
    Proceed,
    NotModified,
    Failed,
}
pub fn evaluate(head: &Head, _class: Class, current: Option<Validators<'_>>) -> Outcome {
    let etag = current.and_then(|c| c.etag);
    let has = |name: &str| {
        head.field(name).map(|v| {
            v == b"*" && etag.is_some() || etag.is_some_and(|e| memchr::memmem::find(v, e.as_bytes()).is_some())
        })
    };
    if has("if-match") == Some(false) || has("if-none-match") == Some(true) {
        Outcome::Failed
    } else {
        Outcome::Proceed
    }
}

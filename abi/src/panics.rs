//! Where panics end: no code of a handler runs on behalf of the host outside of [`catch`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `function`; if it panics, gives what it panicked with, as text.
///
/// Unwind safety is asserted: what `function` borrowed must not be used again after a panic, except to be dropped.
pub(crate) fn catch<T>(function: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(function)).map_err(|payload| {
        let message = message(&*payload);
        discard(payload);
        message
    })
}

/// What a panic says: the text of `panic!`, of which the panic hook has told the place on standard error.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    match text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)) {
        Some(text) => format!("panicked: {text}"),
        None => "panicked with a value that is no text".to_owned(),
    }
}

/// Drops what a panic carried. Dropping it may panic too, with a payload of the same kind: that one is leaked.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        Box::leak(second);
    }
}

#[cfg(test)]
mod tests {
    use super::catch;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(catch(|| 1), Ok(1));
        assert_eq!(catch(|| panic!("plain")), Err::<(), _>("panicked: plain".to_owned()));
        assert_eq!(catch(|| panic!("{}", 7)), Err::<(), _>("panicked: 7".to_owned()));
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_does_not_unwind() {
        struct Bomb(u32);
        impl Drop for Bomb {
            fn drop(&mut self) {
                if self.0 > 0 {
                    std::panic::panic_any(Bomb(self.0 - 1));
                }
            }
        }
        let caught = catch(|| std::panic::panic_any(Bomb(2)));
        assert_eq!(caught, Err::<(), _>("panicked with a value that is no text".to_owned()));
    }
}

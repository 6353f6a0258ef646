//! What the tests share: starting `host`, speaking HTTP to it, compiling handlers.

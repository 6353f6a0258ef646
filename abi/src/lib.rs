//! The Rust SDK for handlers of `host`, over the C ABI of `include/host.h`.

pub mod ffi;

//! `host`, a web server for native plugins.
#[cfg(not(target_os = "linux"))]
compile_error!("host runs on Linux only: it is built on epoll, inotify, file leases and SCM_RIGHTS");

pub mod config;
pub mod handler;
pub mod response;
pub mod supervisor;
pub mod sys;

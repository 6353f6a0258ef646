//! `host`, a web server for native plugins.
#[cfg(not(target_os = "linux"))]
compile_error!("host runs on Linux only: it is built on epoll, inotify, file leases and SCM_RIGHTS");

pub mod cli;
pub mod config;
pub mod control;
pub mod exit;
pub mod handler;
pub mod http;
pub mod log;
pub mod pace;
pub mod request;
pub mod response;
pub mod route;
pub mod serial;
pub mod server;
pub mod site;
pub mod supervisor;
pub mod sys;
pub mod worker;

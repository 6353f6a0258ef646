//! host: one worker with one event loop, and hello from a handler in C and one in Rust.

use super::{HELLO, Invocation, Offer, Page, Recipe, SLOW, Setting, compile, file, invocation, offer};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The repository's hello.
pub const HELLO_IN_C: &str = include_str!("../../../handlers/hello.c");

/// One build of host, asked for one of its hellos.
#[derive(Clone, Debug)]
pub struct Host {
    /// The name of its rows; what makes them differ is added.
    pub label: String,
    /// Its executable.
    pub binary: PathBuf,
    /// The name of its row.
    name: String,
    hello: Hello,
    /// The Rust SDK's hello.
    rust_hello: PathBuf,
    /// The folder of handlers, once they are built.
    handlers: PathBuf,
}

/// What the handler of the hello is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// With the Rust SDK.
    Rust,
    /// With `host.h`.
    C,
}

impl Host {
    /// The build `binary`; `rust_hello` is `bench/examples/hello.rs`, built.
    pub fn new(label: &str, binary: PathBuf, hello: Hello, rust_hello: PathBuf) -> Host {
        let name = match hello {
            Hello::Rust => label.to_owned(),
            Hello::C => format!("{label}-c"),
        };
        Host { label: label.to_owned(), binary, name, hello, rust_hello, handlers: PathBuf::new() }
    }
}

impl Recipe for Host {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> &str {
        &self.label
    }

    fn build(&mut self, folder: &Path) -> Result<(), String> {
        let handlers = folder.join("handlers");
        make_folder(&handlers, 0o755).map_err(|error| error.to_string())?;
        compile(HELLO_IN_C, &handlers.join("hello_c.so"), &[])?;
        compile(&slow(), &handlers.join("slow.so"), &[])?;
        let rust = handlers.join("hello.so");
        fs::copy(&self.rust_hello, rust).map_err(|error| format!("{}: {error}", self.rust_hello.display()))?;
        self.handlers = handlers;
        match self.binary.is_file() {
            true => Ok(()),
            false => Err(format!("there is no {}", self.binary.display())),
        }
    }

    fn offer(&self, page: Page) -> Result<Offer, &'static str> {
        match (page, self.hello) {
            (Page::Hello, Hello::Rust) => Ok(offer("/hello.so")),
            (Page::Hello, Hello::C) => Ok(offer("/hello_c.so")),
            (Page::Slow, _) => Ok(offer("/slow.so")),
            _ => file(page),
        }
    }

    fn host_binary(&self) -> Option<&Path> {
        Some(&self.binary)
    }

    fn prepare(&self, setting: Setting<'_>) -> io::Result<Invocation> {
        let runtime = setting.folder.join("runtime");
        make_folder(&runtime, 0o700)?;
        let address = setting.address.to_string();
        let mut invocation = invocation(
            &self.binary,
            ["--bind", &address, "--threads", "1", "--limit-connections", "20000", "--timeout-idle", "300s"],
        );
        for (option, folder) in [("--html", setting.site), ("--handlers", &self.handlers), ("--runtime", &runtime)] {
            invocation.arguments.extend([option.into(), folder.into()]);
        }
        Ok(invocation)
    }
}

/// A handler that blocks, and does not say so.
fn slow() -> String {
    format!(
        r#"#include <host.h>
#include <time.h>

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {{
    struct timespec time = {{0, {ns}}};
    nanosleep(&time, NULL);
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    return env->bytes(env, HOST_STR({HELLO:?}));
}}
"#,
        ns = SLOW.as_nanos()
    )
}

/// Makes a folder of this mode whatever the umask is: host refuses folders that others may write to.
fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
}

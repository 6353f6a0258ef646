//! uWSGI: one process that calls C by its symcall plugin.
//!
//! It has no event loop in this mode: a worker serves one kept-alive connection until that ends (`http11-socket`, by far
//! the cheapest per request), or one request after another, each with a connection of its own (`http-socket`).

use super::{HELLO, Invocation, Offer, Page, Recipe, SLOW, Setting, compile, invocation, need, version};
use std::io;
use std::path::{Path, PathBuf};

/// Debian's uwsgi-core.
#[derive(Debug, Default)]
pub struct Uwsgi {
    module: PathBuf,
}

/// Where Debian has its plugins.
const PLUGINS: &str = "/usr/lib/uwsgi/plugins";
/// The number of the symcall plugin.
const SYMCALL: &str = "18";

impl Recipe for Uwsgi {
    fn name(&self) -> &str {
        "uwsgi"
    }

    fn version(&self) -> Option<String> {
        version("uwsgi", "--version")
    }

    fn build(&mut self, folder: &Path) -> Result<(), String> {
        need("uwsgi")?;
        if !Path::new(PLUGINS).join("symcall_plugin.so").is_file() {
            return Err(format!("there is no symcall plugin in {PLUGINS}"));
        }
        self.module = folder.join("uwsgi.so");
        compile(&source(), &self.module, &[])
    }

    fn offer(&self, page: Page) -> Result<Offer, &'static str> {
        match page {
            Page::Hello => {
                Ok(Offer { path: "/hello", remark: Some("serves one connection, all others wait for its end") })
            }
            Page::Slow => Ok(Offer { path: "/slow", remark: Some("is asked with a connection for each request") }),
            _ => Err("has no files in this comparison"),
        }
    }

    fn holds_to_one(&self) -> bool {
        true
    }

    fn prepare(&self, setting: Setting<'_>) -> io::Result<Invocation> {
        let address = setting.address.to_string();
        let program = need("uwsgi").map_err(io::Error::other)?;
        let (socket, function) = match setting.close {
            true => ["--http-socket", "either"],
            false => ["--http11-socket", "hello"],
        }
        .into();
        let arguments = ["--plugins-dir", PLUGINS, "--plugin", "symcall", "--symcall", function, socket, &address];
        let mut invocation = invocation(program, arguments);
        invocation.arguments.extend(["--dlopen".into(), self.module.as_os_str().into()]);
        let rest = ["--http-socket-modifier1", SYMCALL, "--disable-logging", "--die-on-term", "--listen", "1024"];
        invocation.arguments.extend(rest.map(Into::into));
        Ok(invocation)
    }
}

/// The functions as `uwsgi --dot-h` declares them, which is in no package that is needed otherwise.
fn source() -> String {
    let (length, ns) = (HELLO.len(), SLOW.as_nanos());
    format!(
        r#"#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

struct wsgi_request;
int uwsgi_parse_vars(struct wsgi_request *);
char *uwsgi_get_var(struct wsgi_request *, char *, uint16_t, uint16_t *);
int uwsgi_response_prepare_headers(struct wsgi_request *, char *, uint16_t);
int uwsgi_response_add_header(struct wsgi_request *, char *, uint16_t, char *, uint16_t);
int uwsgi_response_add_content_length(struct wsgi_request *, uint64_t);
int uwsgi_response_write_body_do(struct wsgi_request *, char *, size_t);

int hello(struct wsgi_request *request) {{
    uwsgi_response_prepare_headers(request, "200 OK", 6);
    uwsgi_response_add_header(request, "Content-Type", 12, "text/plain", 10);
    uwsgi_response_add_content_length(request, {length});
    uwsgi_response_write_body_do(request, {HELLO:?}, {length});
    return 0;
}}

int either(struct wsgi_request *request) {{
    uint16_t length = 0;
    uwsgi_parse_vars(request);
    const char *path = uwsgi_get_var(request, "PATH_INFO", 9, &length);
    if (length == 5 && memcmp(path, "/slow", 5) == 0) {{
        struct timespec time = {{0, {ns}}};
        nanosleep(&time, NULL);
    }}
    return hello(request);
}}
"#
    )
}

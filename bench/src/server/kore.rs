//! Kore: one worker, pages by handlers in C, files by its file maps.

use super::{HELLO, Invocation, Offer, Page, Recipe, SLOW, Setting, compile, file, invocation, need, offer, version};
use std::io;
use std::path::{Path, PathBuf};

/// Debian's Kore.
#[derive(Debug, Default)]
pub struct Kore {
    module: PathBuf,
}

impl Recipe for Kore {
    fn name(&self) -> &str {
        "kore"
    }

    fn version(&self) -> Option<String> {
        version("kore", "-v")
    }

    fn build(&mut self, folder: &Path) -> Result<(), String> {
        need("kore")?;
        self.module = folder.join("kore.so");
        compile(&source(), &self.module, &[])
    }

    fn offer(&self, page: Page) -> Result<Offer, &'static str> {
        match page {
            Page::Hello => Ok(offer("/hello")),
            Page::Slow => Ok(offer("/slow")),
            _ => file(page),
        }
    }

    fn prepare(&self, setting: Setting<'_>) -> io::Result<Invocation> {
        let configuration = format!(
            r#"server bench {{
    bind {ip} {port}
    tls no
}}
load {module}
workers 1
worker_max_connections 12000
worker_rlimit_nofiles 16000
worker_set_affinity 0
http_request_limit 12000
http_keepalive_time 300
socket_backlog 4096
pidfile {folder}/pid
domain * {{
    attach bench
    route /hello hello
    route /slow slow
    filemap / {site}
}}
"#,
            ip = setting.address.ip(),
            port = setting.address.port(),
            folder = setting.folder.display(),
            module = self.module.display(),
            site = setting.site.display(),
        );
        let path = setting.folder.join("kore.conf");
        std::fs::write(&path, configuration)?;
        let program = need("kore").map_err(io::Error::other)?;
        // In the foreground, without changing root or user.
        Ok(invocation(program, ["-f".as_ref(), "-n".as_ref(), "-r".as_ref(), "-c".as_ref(), path.as_os_str()]))
    }
}

fn source() -> String {
    let (length, ns) = (HELLO.len(), SLOW.as_nanos());
    format!(
        r#"#include <kore/kore.h>
#include <kore/http.h>
#include <kore/seccomp.h>
#include <time.h>

/* Newer C libraries make stat(2) of this, which its sandbox does not know. */
KORE_SECCOMP_FILTER("bench", KORE_SYSCALL_ALLOW(newfstatat));

int hello(struct http_request *request);
int slow(struct http_request *request);

int hello(struct http_request *request) {{
    http_response_header(request, "content-type", "text/plain");
    http_response(request, 200, {HELLO:?}, {length});
    return KORE_RESULT_OK;
}}

int slow(struct http_request *request) {{
    struct timespec time = {{0, {ns}}};
    nanosleep(&time, NULL);
    return hello(request);
}}
"#
    )
}

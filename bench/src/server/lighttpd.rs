//! lighttpd: one process, files by sendfile.

use super::{Invocation, Offer, Page, Recipe, Setting, file, invocation, need, version};
use std::io;
use std::path::Path;

/// Debian's lighttpd.
#[derive(Debug)]
pub struct Lighttpd;

impl Recipe for Lighttpd {
    fn name(&self) -> &str {
        "lighttpd"
    }

    fn version(&self) -> Option<String> {
        version("lighttpd", "-v")
    }

    fn build(&mut self, _: &Path) -> Result<(), String> {
        need("lighttpd").map(drop)
    }

    fn offer(&self, page: Page) -> Result<Offer, &'static str> {
        file(page)
    }

    fn prepare(&self, setting: Setting<'_>) -> io::Result<Invocation> {
        let configuration = format!(
            r#"server.bind = "{ip}"
server.port = {port}
server.document-root = "{site}"
server.errorlog = "{folder}/error.log"
server.pid-file = "{folder}/pid"
server.upload-dirs = ("{folder}")
server.event-handler = "linux-sysepoll"
server.network-backend = "sendfile"
server.max-fds = 32768
server.max-connections = 16384
server.listen-backlog = 4096
server.max-keep-alive-requests = 1000000000
server.max-keep-alive-idle = 300
mimetype.assign = (".txt" => "text/plain", ".bin" => "application/octet-stream")
"#,
            ip = setting.address.ip(),
            port = setting.address.port(),
            folder = setting.folder.display(),
            site = setting.site.display(),
        );
        let path = setting.folder.join("lighttpd.conf");
        std::fs::write(&path, configuration)?;
        let program = need("lighttpd").map_err(io::Error::other)?;
        Ok(invocation(program, ["-D".as_ref(), "-f".as_ref(), path.as_os_str()]))
    }
}

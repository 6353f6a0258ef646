//! h2o: one thread, files by its file handler.

use super::{Invocation, Offer, Page, Recipe, Setting, file, invocation, need, version};
use std::io;
use std::path::Path;

/// Debian's h2o.
#[derive(Debug)]
pub struct H2o;

impl Recipe for H2o {
    fn name(&self) -> &str {
        "h2o"
    }

    fn version(&self) -> Option<String> {
        version("h2o", "--version")
    }

    fn build(&mut self, _: &Path) -> Result<(), String> {
        need("h2o").map(drop)
    }

    fn offer(&self, page: Page) -> Result<Offer, &'static str> {
        file(page)
    }

    fn prepare(&self, setting: Setting<'_>) -> io::Result<Invocation> {
        let user = if rustix::process::geteuid().is_root() { "user: root\n" } else { "" };
        let configuration = format!(
            "{user}listen:\n  host: {ip}\n  port: {port}\nnum-threads: 1\nmax-connections: 20480\n\
             http1-request-timeout: 300\nfile.send-compressed: OFF\nerror-log: {folder}/error.log\n\
             hosts:\n  default:\n    paths:\n      /:\n        file.dir: {site}\n",
            ip = setting.address.ip(),
            port = setting.address.port(),
            folder = setting.folder.display(),
            site = setting.site.display(),
        );
        let path = setting.folder.join("h2o.conf");
        std::fs::write(&path, configuration)?;
        let program = need("h2o").map_err(io::Error::other)?;
        Ok(invocation(program, ["-m".as_ref(), "worker".as_ref(), "-c".as_ref(), path.as_os_str()]))
    }
}

//! nginx: one worker, a constant by `return`, files by sendfile with the open-file cache.

use super::{Invocation, Offer, Page, Recipe, Setting, file, invocation, need, offer, version};
use std::io;
use std::path::Path;

/// Debian's nginx.
#[derive(Debug)]
pub struct Nginx;

impl Recipe for Nginx {
    fn name(&self) -> &str {
        "nginx"
    }

    fn version(&self) -> Option<String> {
        version("nginx", "-v")
    }

    fn build(&mut self, _: &Path) -> Result<(), String> {
        need("nginx").map(drop)
    }

    fn offer(&self, page: Page) -> Result<Offer, &'static str> {
        match page {
            Page::Hello => Ok(offer("/hello")),
            _ => file(page),
        }
    }

    fn prepare(&self, setting: Setting<'_>) -> io::Result<Invocation> {
        let (folder, site) = (setting.folder.display(), setting.site.display());
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let configuration = format!(
            r#"{user}
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 20480; }}
http {{
    types {{ text/plain txt; application/octet-stream bin; }}
    access_log off;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=1000;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address} backlog=4096;
        root {site};
        location = /hello {{ default_type text/plain; return 200 "Hello, World!\n"; }}
    }}
}}
"#,
            address = setting.address,
        );
        let path = setting.folder.join("nginx.conf");
        std::fs::write(&path, configuration)?;
        let program = need("nginx").map_err(io::Error::other)?;
        Ok(invocation(program, ["-p".as_ref(), setting.folder.as_os_str(), "-c".as_ref(), path.as_os_str()]))
    }
}

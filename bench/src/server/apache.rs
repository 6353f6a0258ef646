//! Apache's httpd: one process of the event MPM, with 128 threads, files by sendfile.

use super::{Invocation, Offer, Page, Recipe, Setting, file, invocation, need, version};
use std::io;
use std::path::Path;

/// Debian's apache2.
#[derive(Debug)]
pub struct Apache;

/// Where Debian has its modules.
const MODULES: &str = "/usr/lib/apache2/modules";

impl Recipe for Apache {
    fn name(&self) -> &str {
        "apache2"
    }

    fn version(&self) -> Option<String> {
        version("apache2", "-v")
    }

    fn build(&mut self, _: &Path) -> Result<(), String> {
        need("apache2").map(drop)
    }

    fn offer(&self, page: Page) -> Result<Offer, &'static str> {
        file(page)
    }

    fn prepare(&self, setting: Setting<'_>) -> io::Result<Invocation> {
        let (folder, site) = (setting.folder.display(), setting.site.display());
        // With fewer threads than connections that ask, it closes kept-alive ones.
        let configuration = format!(
            r#"ServerRoot {folder}
ServerName localhost
Listen {address}
ListenBacklog 4096
PidFile {folder}/pid
ErrorLog {folder}/error.log
LoadModule mpm_event_module {MODULES}/mod_mpm_event.so
LoadModule authz_core_module {MODULES}/mod_authz_core.so
LoadModule mime_module {MODULES}/mod_mime.so
TypesConfig /dev/null
AddType text/plain txt
AddType application/octet-stream bin
DocumentRoot {site}
Mutex file:{folder}
EnableSendfile On
KeepAlive On
KeepAliveTimeout 300
MaxKeepAliveRequests 0
StartServers 1
ServerLimit 1
ThreadLimit 128
ThreadsPerChild 128
MaxRequestWorkers 128
MinSpareThreads 1
MaxSpareThreads 128
AsyncRequestWorkerFactor 400
<Directory {site}>
    Require all granted
    AllowOverride None
</Directory>
"#,
            address = setting.address,
        );
        let path = setting.folder.join("apache2.conf");
        std::fs::write(&path, configuration)?;
        let program = need("apache2").map_err(io::Error::other)?;
        Ok(invocation(program, ["-D".as_ref(), "FOREGROUND".as_ref(), "-f".as_ref(), path.as_os_str()]))
    }
}

//! A framework of a page, and an application made with it: `host framework:app`.
//!
//! The application is the table `ROUTES`; the framework is `app`, which looks a path up there. It is the root
//! application, so that `/sayhello` comes here, with `PATH_INFO=/sayhello`; it works under `/framework.so/` as well.

use abi::{Body, Environ, StartResponse};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

// The file of the ctime handler next door; it is not a crate because the two are all that use it.
#[path = "../../ctime/src/clock.rs"]
mod clock;

#[cfg(test)]
mod tests;

abi::application!(app);
abi::application!(app as application);

/// What answers a path.
type Page = fn() -> String;

const ROUTES: &[(&str, Page)] = &[
    ("/", time),
    ("/ctime", time),
    ("/sayhello", || "hello world".to_owned()),
    ("/sayhaha", || "haha".to_owned()),
    // Add yours here, build, and ask again.
];

fn time() -> String {
    clock::ctime(clock::now()) + "\n"
}

fn app(env: &Environ, start: StartResponse) -> Body {
    let path = match env.path_info() {
        b"" => b"/",
        path => path,
    };
    if let Some((_, page)) = ROUTES.iter().find(|(route, _)| route.as_bytes() == path) {
        return start.respond("200 OK", &[("Content-Type", "text/plain"), ("Cache-Control", "no-store")], page());
    }
    if let Some(name) = path.strip_prefix(b"/static/")
        && let Some(root) = env.get("DOCUMENT_ROOT")
        && let Some((media_type, file)) = site_file(root, name)
    {
        return start.respond("200 OK", &[("Content-Type", media_type)], Body::file(file));
    }
    start.respond("404 Not Found", &[("Content-Type", "text/plain")], "not found")
}

/// A file of the site and its media type. SECURITY: it must not lead out of the site, neither by its name nor by a
/// symbolic link, nor show a file whose name begins with a dot.
fn site_file(root: &[u8], name: &[u8]) -> Option<(&'static str, File)> {
    let root = fs::canonicalize(OsStr::from_bytes(root)).ok()?;
    let name = Path::new(OsStr::from_bytes(name));
    let path = fs::canonicalize(root.join(name)).ok()?;
    let inside = path.strip_prefix(&root).ok()?;
    // Only a regular file: to open a pipe would wait for its writer.
    if !is_visible(name) || !is_visible(inside) || !path.is_file() {
        return None;
    }
    let media_type = match path.extension().and_then(OsStr::to_str) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("txt") => "text/plain; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    Some((media_type, File::open(path).ok()?))
}

/// Whether a path goes down only, through names that do not begin with a dot.
fn is_visible(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(name) if !name.as_bytes().starts_with(b".")))
}

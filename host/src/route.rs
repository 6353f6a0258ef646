//! Which of the site, the handlers and the server itself answers a request, and the answer.
//!
//! First match wins: 1 a mount, 2 a segment that ends in `.so`, 3 a file of the site, or an upload to it, 4 the root
//! application, 5 a folder of the site that is listed, 6 nothing.

use crate::config::Config;
use crate::config::values::DEFAULT_SYMBOL;
use crate::handler::{NoTicket, Registry};
use crate::http::head::Head;
use crate::http::path::Path;
use crate::request::Request;
use crate::response::{Body, Fields, Response, Status};
use crate::site::{Begun, Site, Target};
use std::sync::Arc;

pub use crate::handler::{Answer, Place, Reservation, Ticket, answer, excerpt};
pub use crate::site::{Broom, PackedUpload, Upload};

/// Decides routes.
pub struct Router {
    site: Option<Site>,
    registry: Arc<Registry>,
    mounts: Vec<Mount>,
    root: Option<(String, Box<str>)>,
}

struct Mount {
    prefix: Box<[u8]>,
    module: String,
    symbol: Box<str>,
}

/// Who answers.
pub enum Route {
    /// The server itself, and with this.
    Answer(Response),
    /// The site.
    Site(Target),
    /// The server itself, to who would upload. Its content, which may be larger than other content, need not come.
    NoUpload(Response),
    /// The site, when it has stored the content.
    Upload(Box<Upload>),
    /// A handler.
    Handler(Ticket),
    /// A handler, when the content has arrived.
    Reserved(Reservation),
}

impl Route {
    /// The same for a request whose content is still to come: a new build may take over until then.
    pub fn reserved(self) -> Route {
        match self {
            Route::Handler(ticket) => Route::Reserved(ticket.reservation()),
            other => other,
        }
    }
}

impl Router {
    /// The router of a checked configuration.
    pub fn new(config: &Config, site: Option<Site>, registry: Arc<Registry>) -> Router {
        let mounts = config.mounts.iter().map(|mount| Mount {
            prefix: mount.prefix.trim_end_matches('/').as_bytes().into(),
            module: mount.application.module.clone(),
            symbol: mount.application.symbol.as_str().into(),
        });
        Router {
            site,
            registry,
            mounts: mounts.collect(),
            root: config.root.as_ref().map(|root| (root.module.clone(), root.symbol.as_str().into())),
        }
    }

    /// What `OPTIONS *` is answered: it asks about the server as a whole (RFC 9110 §9.3.7).
    fn server_options(&self) -> Route {
        let body = Body::Empty;
        let mut response = Response { status: Status::new(204), fields: Fields::default(), body };
        // The name and the value are well-formed, so this cannot fail.
        _ = response.fields.push(b"Allow", b"GET, HEAD, OPTIONS");
        Route::Answer(response)
    }

    /// Who answers this request. In `place`: where a request with the same head has led to, if that is known; and
    /// afterwards where this one leads, if its path alone decides that.
    pub fn route(&self, head: &Head, path: &Path, place: &mut Option<Place>) -> Route {
        if let Some(ticket) = place.and_then(|known| self.registry.ticket_at(known)) {
            return Route::Handler(ticket);
        }
        if head.path() == "*" {
            return self.server_options();
        }
        let bytes = path.as_bytes();
        for mount in &self.mounts {
            if bytes.strip_prefix(&*mount.prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'/') {
                return self.handler(mount.module.as_bytes(), &mount.symbol, mount.prefix.len(), place);
            }
        }
        if let Some((module, script_name_bytes)) = shared_object(bytes) {
            return match module {
                Some(module) => self.handler(module, DEFAULT_SYMBOL, script_name_bytes, place),
                None => not_found(),
            };
        }
        let reads = matches!(head.method(), "GET" | "HEAD");
        let find = || self.site.as_ref().and_then(|site| site.find(path));
        if reads && let Some(target) = find() {
            return Route::Site(target);
        }
        if !reads && let Some(begun) = self.site.as_ref().and_then(|site| site.upload(head, path)) {
            return match begun {
                Begun::Upload(upload) => Route::Upload(upload),
                Begun::Answered(response) => Route::NoUpload(response),
            };
        }
        if let Some((module, symbol)) = &self.root {
            // A file may appear in its stead at any time.
            return self.handler(module.as_bytes(), symbol, 0, &mut None);
        }
        if let Some(refused) = self.site.as_ref().and_then(|site| site.no_upload(head, path)) {
            return Route::NoUpload(refused);
        }
        let list = || self.site.as_ref().and_then(|site| site.find_folder(path));
        if reads && let Some(target) = list() {
            return Route::Site(target);
        }
        if !reads && find().or_else(list).is_some() {
            let mut refused = Response::error(405, "this is a file or a folder; it can be read with GET or HEAD");
            // The name and the value are well-formed, so this cannot fail.
            _ = refused.fields.push(b"Allow", b"GET, HEAD");
            return Route::Answer(refused);
        }
        not_found()
    }

    fn handler(&self, module: &[u8], symbol: &str, script_name_bytes: usize, place: &mut Option<Place>) -> Route {
        match self.registry.ticket(module, symbol, script_name_bytes) {
            Ok((ticket, found)) => {
                *place = Some(found);
                Route::Handler(ticket)
            }
            Err(NoTicket::NoModule | NoTicket::NoApplication) => not_found(),
            Err(NoTicket::NoBuild) => Route::Answer(no_sound_build(&String::from_utf8_lossy(module))),
        }
    }

    /// The application of the module's build of this moment, for a request that has waited since it was routed.
    pub fn renew(&self, reservation: Reservation) -> Result<Ticket, Response> {
        reservation.ticket(&self.registry).map_err(|error| match error {
            NoTicket::NoModule | NoTicket::NoBuild => no_sound_build(reservation.module()),
            NoTicket::NoApplication => Response::error(404, "not found"),
        })
    }

    /// The response as a page, if it is an error of the server's own and the site has a page for it.
    pub fn with_page(&self, response: Response) -> Response {
        match &self.site {
            Some(site) => site.with_page(response),
            None => response,
        }
    }

    /// The site's response; only its own routes have a target.
    pub fn reply(&self, target: Target, request: &mut Request) -> Response {
        match &self.site {
            Some(site) => site.reply(target, request),
            None => Response::error(404, "there is no site"),
        }
    }
}

/// The response for a module that has no sound build.
fn no_sound_build(module: &str) -> Response {
    Response::unavailable(&format!("{module} has no sound build; the server's log says why"))
}

/// The module and the length of the path that leads to it, if a segment ends in `.so`; without a module if that cannot
/// be one's name.
fn shared_object(path: &[u8]) -> Option<(Option<&[u8]>, usize)> {
    let mut end = 1;
    loop {
        let rest = path.get(end..)?;
        end += rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        if let Some(module) = path[..end].strip_suffix(SUFFIX) {
            let module = &module[1..];
            let sound = module.split(|&byte| byte == b'/').all(is_module_segment);
            return Some((sound.then_some(module), end));
        }
        end += 1;
    }
}

fn is_module_segment(segment: &[u8]) -> bool {
    !segment.is_empty() && segment.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn not_found() -> Route {
    Route::Answer(Response::error(404, "not found"))
}

const SUFFIX: &[u8] = b".so";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segment_that_ends_in_so_is_the_handler() {
        for (path, expected) in [
            ("/ctime.so", Some((Some(&b"ctime"[..]), 9))),
            ("/admin/ctime.so/extra/x.so", Some((Some(b"admin/ctime"), 15))),
            ("/ctime.SO", None),
            ("/ctime.so.txt", None),
            ("/.so", Some((None, 4))),
            ("/a b/x.so", Some((None, 9))),
            ("//x.so", Some((None, 6))),
            ("/", None),
        ] {
            assert_eq!(shared_object(path.as_bytes()), expected, "{path}");
        }
    }
}

//! Receiving: heads, and the content behind them.

use super::{Connection, Mode, READ_BYTES, Situation, Stage, Step, Traits};
use crate::http::content::Decoder;
use crate::http::{Framing, HeadLimits, Reject, encode};
use crate::log;
use crate::request::Request;
use crate::route::Route;
use crate::server::patience::Wait;
use crate::sys::socket::{self, Moved};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::sync::Arc;

impl Connection {
    pub(super) fn read_head(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        if situation.mode == Mode::Draining {
            return self.flush(situation).or(Some(Step::HandOver));
        }
        let space = &mut *self.space;
        if space.taken < space.input.len() {
            let limits = HeadLimits { head_bytes_max: situation.settings.config.limits.head_bytes_max };
            let (peer, local) = (&self.line.peer, &self.line.local);
            let request = space.request.get_or_insert_with(|| Box::new(Request::new(peer.clone(), Arc::clone(local))));
            space.traits = Traits::default();
            match request.head.parse(&space.input[space.taken..], limits) {
                Ok(Some(length)) => {
                    // The request may have been used for another connection before.
                    request.between(peer, local);
                    space.taken += length;
                    return self.begin_request(situation);
                }
                Ok(None) => {}
                Err(reject) => return self.reject(reject, situation),
            }
        }
        // The answers so far go before the wait for the next request.
        if self.space.output.pending() {
            return self.flush(situation);
        }
        if !*situation.readable {
            let partial = self.space.taken < self.space.input.len();
            return Some(match situation.mode {
                Mode::Stopping if !partial => Step::Close,
                _ if partial => Step::Wait(Wait::Head),
                _ => Step::Rest,
            });
        }
        self.receive(situation)
    }

    fn begin_request(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        let space = &mut *self.space;
        let Some(request) = &mut space.request else { return Some(Step::Close) };
        let head = &request.head;
        space.traits = Traits::of(head);
        if situation.settings.config.trace {
            log::trace(format_args!("< {} {} HTTP/1.{}", head.method(), head.target(), head.minor()));
        }
        if !head.is_repeated() {
            space.place = None;
            if head.path() != "*"
                && let Err(reject) = request.path.parse_into(head.path())
            {
                // Else a repetition of this head would be taken for one whose path is known.
                request.head.clear();
                return self.reject(reject, situation);
            }
        }
        let framing = head.framing();
        let route = situation.settings.router.route(head, &request.path, &mut space.place);
        let limits = &situation.settings.config.limits;
        let bytes_max = if let Route::Upload(_) = route { limits.upload_bytes_max } else { limits.body_bytes_max };
        let decoder = match Decoder::new(framing, bytes_max) {
            Ok(decoder) => decoder,
            Err(reject) => return self.refuse(route, reject, situation),
        };
        let is_done = decoder.is_done();
        let expects_continue = head.expects_continue() && head.minor() > 0 && !matches!(framing, Framing::None);
        space.continue_due = expects_continue && space.taken == space.input.len();
        space.decoder = Some(decoder);
        if is_done {
            request.input.complete = true;
            return self.answer_with(route, situation);
        }
        match route {
            Route::Answer(response) | Route::NoUpload(response) if space.continue_due => {
                // RFC 9110 §10.1.1: a final status instead of 100; whether the content comes all the same is unknown.
                space.traits.keep_alive = false;
                self.respond(response, situation);
                None
            }
            Route::Handler(ticket) if ticket.streams_input() => self.enter(ticket, situation),
            Route::Upload(upload) => self.begin_upload(upload, situation),
            route => {
                if space.continue_due {
                    space.output.interim(encode::continue_100);
                    space.continue_due = false;
                }
                space.stage = Stage::Content(route.reserved());
                None
            }
        }
    }

    pub(super) fn receive_content(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        if situation.mode == Mode::Draining {
            return self.flush(situation).or(Some(Step::HandOver));
        }
        let space = &mut *self.space;
        let (Some(request), Some(decoder)) = (&mut space.request, &mut space.decoder) else { return Some(Step::Close) };
        let keep = matches!(space.stage, Stage::Content(Route::Reserved(_)));
        while !decoder.is_done() {
            let rest = &space.input[space.taken..];
            let (consumed, content) = match decoder.decode(rest) {
                Ok(decoded) => decoded,
                Err(reject) => {
                    let Stage::Content(route) = std::mem::take(&mut space.stage) else { return Some(Step::Close) };
                    return self.refuse(route, reject, situation);
                }
            };
            if consumed == 0 {
                if space.output.pending() {
                    return self.flush(situation);
                }
                if !*situation.readable {
                    return Some(Step::Wait(Wait::Content));
                }
                // Patience is measured from one piece of content to the next.
                self.line.patience.renew();
                return self.receive(situation);
            }
            if keep && let Err(error) = request.input.push(&rest[content], &situation.settings.spool) {
                tracing::error!(
                    "cannot keep the content of a request in {}: {error}",
                    situation.settings.spool.display()
                );
                let reason = "the server cannot keep the request's content now";
                // What lacks may be a descriptor and no room: in a moment there may be one.
                let is_short = matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM));
                return self.reject(Reject { status: if is_short { 503 } else { 507 }, reason }, situation);
            }
            space.taken += consumed;
        }
        request.input.complete = true;
        let Stage::Content(route) = std::mem::replace(&mut space.stage, Stage::Called) else {
            return Some(Step::Close);
        };
        self.answer_with(route, situation)
    }

    /// Has a request answered that is complete.
    fn answer_with(&mut self, route: Route, situation: &mut Situation<'_>) -> Option<Step> {
        let response = match route {
            Route::Handler(ticket) => return self.enter(ticket, situation),
            Route::Upload(upload) => return self.begin_upload(upload, situation),
            // While the content came, a new build may have taken over.
            Route::Reserved(reservation) => match situation.settings.router.renew(reservation) {
                Ok(ticket) => return self.enter(ticket, situation),
                Err(response) => response,
            },
            Route::Answer(response) | Route::NoUpload(response) => response,
            Route::Site(target) => match &mut self.space.request {
                Some(request) => situation.settings.router.reply(target, request),
                None => return Some(Step::Close),
            },
        };
        self.respond(response, situation);
        None
    }

    /// Answers a request whose content is refused. Who may not upload is told so, and not that it is too much for who does not.
    fn refuse(&mut self, route: Route, reject: Reject, situation: &Situation<'_>) -> Option<Step> {
        match route {
            Route::NoUpload(response) if reject.status == 413 => {
                self.space.traits.keep_alive = false;
                self.space.rejected = true;
                self.respond(response, situation);
                None
            }
            _ => self.reject(reject, situation),
        }
    }

    /// Receives more.
    pub(super) fn receive(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        match self.receive_more() {
            Moved::Bytes(count) => {
                // A short read has emptied the socket: the next byte is a new edge. The end is not, if its edge came
                // with these bytes.
                *situation.readable = count == READ_BYTES || situation.ended;
                None
            }
            Moved::Blocked => {
                *situation.readable = false;
                None
            }
            Moved::End => Some(Step::Close),
        }
    }

    /// Receives more, behind what has not been understood yet.
    pub(in crate::server) fn receive_more(&mut self) -> Moved {
        debug_assert!(self.space.run.is_empty(), "what has been decoded is read first");
        let space = &mut *self.space;
        space.input.drain(..space.taken);
        space.taken = 0;
        socket::receive(self.line.socket.as_fd(), &mut space.input, READ_BYTES)
    }

    /// Reads content as it arrives, for a handler that streams it; 0 at the end, `None` when more has to arrive first.
    pub(in crate::server) fn read_stream(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Reject> {
        let space = &mut *self.space;
        let Some(decoder) = &mut space.decoder else { return Ok(Some(0)) };
        while space.run.is_empty() {
            if decoder.is_done() {
                return Ok(Some(0));
            }
            let (consumed, content) = decoder.decode(&space.input[space.taken..])?;
            if consumed == 0 {
                return Ok(None);
            }
            space.run = space.taken + content.start..space.taken + content.end;
            space.taken += consumed;
        }
        let count = space.run.len().min(buffer.len());
        buffer[..count].copy_from_slice(&space.input[space.run.start..space.run.start + count]);
        space.run.start += count;
        Ok(Some(count))
    }

    /// Whether `100 Continue` is to be sent before the content is read; asks once.
    pub(in crate::server) fn take_continue(&mut self) -> bool {
        std::mem::take(&mut self.space.continue_due)
    }

    /// Whether the request has been understood to its end.
    pub(in crate::server) fn is_received(&self) -> bool {
        self.space.decoder.as_ref().is_none_or(Decoder::is_done) && !self.space.rejected
    }
}

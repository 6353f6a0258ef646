//! Sending: responses, and how they end.

use super::{Connection, Mode, Situation, Stage, Step};
use crate::http::{Reject, accept};
use crate::log;
use crate::response::{Body, Response};
use crate::server::call::Work;
use crate::server::output::Flow;
use crate::server::patience::Wait;
use crate::sys::socket;
use std::os::fd::AsFd;

impl Connection {
    /// Begins the response.
    pub(super) fn respond(&mut self, response: Response, situation: &Situation<'_>) {
        let response = match response.body {
            Body::Reason(_) if self.takes_pages() => situation.settings.router.with_page(response),
            _ => response,
        };
        if situation.settings.config.trace {
            log::trace(format_args!("> HTTP/1.1 {} {}", response.status.code, response.status.reason));
        }
        let space = &mut *self.space;
        let incomplete = space.decoder.as_ref().is_some_and(|decoder| !decoder.is_done());
        // What has arrived behind this request is answered too.
        let is_last = situation.mode == Mode::Stopping && space.taken == space.input.len();
        space.traits.keep_alive &= !incomplete && !is_last;
        let context = space.traits.context(situation.signature);
        let spare = space.request.as_mut().map(|request| &mut request.spare);
        space.output.respond(response, &context, spare);
        space.stage = Stage::Responding;
    }

    /// Whether an error is better shown to the client as a page.
    fn takes_pages(&self) -> bool {
        self.space.request.as_ref().map_or(self.space.traits.takes_pages, |request| accept::takes_html(&request.head))
    }

    /// Answers a request that cannot be answered otherwise, and closes.
    pub(super) fn reject(&mut self, reject: Reject, situation: &Situation<'_>) -> Option<Step> {
        self.space.traits.keep_alive = false;
        self.space.rejected = true;
        self.respond(reject.into(), situation);
        None
    }

    pub(super) fn send(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        let space = &*self.space;
        if space.output.failed {
            return Some(self.abort(situation));
        }
        let more_to_make = space.output.stream.is_some();
        let pipelined = self.goes_on() && space.taken < space.input.len() && !space.output.is_large();
        if more_to_make || !pipelined {
            let waiting = self.flush(situation);
            if waiting.is_some() {
                return waiting;
            }
        }
        if more_to_make {
            let work = if self.space.output.is_complete() { Work::Close } else { Work::Next };
            return Some(self.call_stream(work, situation));
        }
        self.finish_response()
    }

    fn finish_response(&mut self) -> Option<Step> {
        let (goes_on, received) = (self.goes_on(), self.is_received());
        let space = &mut *self.space;
        space.decoder = None;
        if let Some(request) = &mut space.request {
            // Content that lies in a file takes room on the disk until it is dropped.
            request.input.clear();
        }
        space.run = 0..0;
        if !goes_on {
            if received && space.traits.last && space.taken == space.input.len() {
                return Some(Step::Close);
            }
            // A close while the client still sends would make the kernel reset the connection, and the client might
            // lose the response (RFC 9112 §9.6).
            socket::finish_sending(self.line.socket.as_fd());
            space.taken = 0;
            space.stage = Stage::Lingering;
            return None;
        }
        space.output.next_response();
        self.line.patience.rest();
        space.stage = Stage::Head;
        None
    }

    /// Whether another request may follow this response.
    fn goes_on(&self) -> bool {
        self.space.output.keep_alive && self.is_received()
    }

    /// Ends in a way that the client can tell from a complete response. A stream is closed first, by its module.
    pub(super) fn abort(&mut self, situation: &Situation<'_>) -> Step {
        self.space.output.give_up();
        if self.space.output.stream.is_some() {
            self.space.stage = Stage::Responding;
            return self.call_stream(Work::Close, situation);
        }
        socket::reset_on_close(self.line.socket.as_fd());
        Step::Close
    }

    /// Sends what is there; `None` when all of it is sent.
    pub(super) fn flush(&mut self, situation: &Situation<'_>) -> Option<Step> {
        match self.space.output.flush(self.line.socket.as_fd()) {
            Flow::Done => None,
            Flow::Blocked => Some(Step::Wait(Wait::Write)),
            Flow::Yield => Some(Step::Yield),
            Flow::Broken => Some(self.abort(situation)),
        }
    }
}

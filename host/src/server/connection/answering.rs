//! Having a request answered: the doors before a call, and the call that is to be made.

use super::{Connection, Mode, Situation, Stage, Step};
use crate::http::{Head, HeadLimits, accept};
use crate::pace::Way;
use crate::request::Excerpt;
use crate::response::Response;
use crate::route::Ticket;
use crate::serial::{Permit, Serial};
use crate::server::call::{Call, Permits, Work};
use crate::server::output::Flow;
use crate::server::patience::Wait;
use crate::sys::crash::Kind;
use std::os::fd::AsFd;
use std::sync::Arc;

impl Connection {
    /// Comes to the doors before the application.
    pub(super) fn enter(&mut self, ticket: Ticket, situation: &mut Situation<'_>) -> Option<Step> {
        if ticket.suspect().has_crashed() {
            return self.wait_for_another_worker(ticket, situation);
        }
        if let Some(gate) = ticket.gate() {
            let permit = self.permit_for(&Arc::clone(gate), situation);
            self.space.stage = Stage::Queued(ticket);
            // The gate has been opened meanwhile, or the build replaced: the next look tells.
            self.space.doors.arrived = permit;
            // Earlier answers do not wait with it.
            return self.flush(situation).or_else(|| {
                Some(if self.space.doors.arrived.is_some() { Step::Yield } else { Step::Wait(Wait::Turn) })
            });
        }
        let way = match ticket.paces().call.way() {
            // Its `read` waits for the client.
            Way::Inline if !self.is_received() => Way::Waits,
            way => way,
        };
        if way != Way::Inline && self.space.output.pending() {
            // Earlier answers do not wait for this one, unless the client takes nothing.
            if let Flow::Broken = self.space.output.flush(self.line.socket.as_fd()) {
                return Some(self.abort(situation));
            }
        }
        match self.permits_for(ticket.serial(), way, situation) {
            Some(permits) => {
                self.space.stage = Stage::Called;
                Some(Step::Call(Call { work: Work::Application(ticket), way, permits }))
            }
            None => {
                self.space.stage = Stage::Queued(ticket);
                Some(Step::Wait(Wait::Turn))
            }
        }
    }

    pub(super) fn take_turn(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        if situation.mode == Mode::Draining {
            return self.flush(situation).or(Some(Step::HandOver));
        }
        if situation.hangup {
            return Some(Step::Close);
        }
        let Stage::Queued(ticket) = &self.space.stage else { return None };
        if ticket.suspect().has_crashed() {
            let ticket = ticket.clone();
            return self.wait_for_another_worker(ticket, situation);
        }
        let renewed = match situation.settings.router.renew(ticket.reservation()) {
            Ok(renewed) => renewed,
            Err(response) => {
                self.space.doors = Default::default();
                self.respond(response, situation);
                return None;
            }
        };
        let same = renewed.is_same(ticket);
        let doors = &mut self.space.doors;
        if same && doors.arrived.is_none() {
            return Some(Step::Wait(Wait::Turn));
        }
        if !same || doors.arrived.as_ref().is_some_and(|permit| ticket.has_waited(permit)) {
            // What it holds are the old build's permits, or what it has waited for at a gate has come: the next may look.
            (doors.held, doors.arrived) = (None, None);
        }
        self.enter(renewed, situation)
    }

    /// The module has crashed in this process: nobody calls it here any more. Another worker is on the way, to whom the
    /// request goes with its connection; unless this one stops.
    fn wait_for_another_worker(&mut self, ticket: Ticket, situation: &mut Situation<'_>) -> Option<Step> {
        self.space.doors = Default::default();
        if situation.mode == Mode::Stopping {
            self.respond(Response::unavailable("the handler has crashed, and the server stops"), situation);
            return None;
        }
        self.space.stage = Stage::Queued(ticket);
        // Earlier answers do not wait with it.
        self.flush(situation).or(Some(Step::Wait(Wait::Turn)))
    }

    /// Its call cannot be made here now: it is at the doors again, where it waits to be handed over.
    pub(in crate::server) fn wait_at_the_door(&mut self, ticket: Ticket) {
        self.space.stage = Stage::Queued(ticket);
    }

    /// The call has ended its thread. The client gets an answer if nothing has been sent to it, and an end else. This is known
    /// of the request, if it is.
    pub(in crate::server) fn crashed(&mut self, kind: Kind, excerpt: Option<&Excerpt>) {
        if self.space.output.begun {
            self.space.output.failed = true;
            self.space.stage = Stage::Responding;
            return;
        }
        let traits = &mut self.space.traits;
        traits.keep_alive = false;
        traits.takes_pages = excerpt.is_some_and(|excerpt| {
            let mut head = Head::default();
            let is_whole = matches!(head.parse(&excerpt.head, HeadLimits { head_bytes_max: usize::MAX }), Ok(Some(_)));
            is_whole && accept::takes_html(&head)
        });
        self.answer_with_this(match kind {
            Kind::Overdue(_) => Response::error(504, "the handler took too long; the server's log says where"),
            _ => Response::error(500, "the handler crashed; the server's log says where"),
        });
    }

    /// Calls the stream's `next`, or only its `close`, when its module lets it.
    pub(super) fn call_stream(&mut self, work: Work, situation: &Situation<'_>) -> Step {
        let Some(stream) = &self.space.output.stream else { return Step::Yield };
        let (serial, way) = (stream.serial().cloned(), stream.pace().way());
        match self.permits_for(serial.as_ref(), way, situation) {
            Some(permits) => Step::Call(Call { work, way, permits }),
            None => Step::Wait(Wait::Turn),
        }
    }

    /// What the call has come to, or what is answered in its stead.
    pub(in crate::server) fn answer_with_this(&mut self, response: Response) {
        self.space.answer = Some(response);
    }

    /// Takes a permit that it has waited for; one that it does not wait for any more is dropped, for the next one.
    pub(in crate::server) fn admit(&mut self, permit: Permit) {
        let doors = &mut self.space.doors;
        if doors.noted.take_if(|noted| permit.is_for(noted)).is_some() {
            doors.arrived = Some(permit);
        }
    }

    /// All permits that the call needs; with `None` it stands at one of the doors.
    fn permits_for(&mut self, serial: Option<&Arc<Serial>>, way: Way, situation: &Situation<'_>) -> Option<Permits> {
        // In this order always, so that nobody who is in waits for somebody who is not.
        let module = match serial {
            None => None,
            Some(serial) => Some(self.permit_for(serial, situation)?),
        };
        if way != Way::Computes {
            return Some([module, None]);
        }
        match self.permit_for(situation.processors, situation) {
            Some(permit) => Some([module, Some(permit)]),
            None => {
                self.space.doors.held = module;
                None
            }
        }
    }

    fn permit_for(&mut self, serial: &Arc<Serial>, situation: &Situation<'_>) -> Option<Permit> {
        let doors = &mut self.space.doors;
        if let Some(permit) = doors.held.take_if(|permit| permit.is_for(serial)) {
            return Some(permit);
        }
        if let Some(permit) = doors.arrived.take_if(|permit| permit.is_for(serial)) {
            return Some(permit);
        }
        // It may be asked again before its turn: one note is enough, and a second would be a turn that nobody uses.
        if doors.noted.as_ref().is_some_and(|noted| Arc::ptr_eq(noted, serial)) {
            return None;
        }
        let permit = serial.enter(situation.waiter);
        doors.noted = permit.is_none().then(|| Arc::clone(serial));
        permit
    }
}

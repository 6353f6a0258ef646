//! Carrying out a plan: connect all, begin, ask until the time is over, wait for what is due.

use super::connection::{Connection, Received};
use super::{Group, Plan, Report, Tally};
use crate::histogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Carries out a plan.
///
/// # Errors
/// The client itself cannot go on: no descriptors, or a server that does not take connections at all. What a server
/// does wrong is in the report.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let mut load = Load::new(plan)?;
    load.connect_all()?;
    load.serve()?;
    Ok(load.report())
}

/// Makes a plan's connections, each of which asks once, and keeps them until `until` returns.
///
/// # Errors
/// As [`run`].
pub fn hold(plan: &Plan, until: impl FnOnce()) -> io::Result<Report> {
    let mut load = Load::new(plan)?;
    load.connect_all()?;
    until();
    // What has happened meanwhile, such as the end of a connection.
    while load.turn(Duration::ZERO)? > 0 {}
    Ok(load.report())
}

/// How many connections are begun before the first of them is answered: fewer than any server's queue holds, since
/// what a queue does not hold is tried again after a second.
const BEGUN_MAX: usize = 64;
/// How long is waited for a connection that neither is answered nor fails, when there are [`BEGUN_MAX`] of them.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked for what is frozen, and failed connections are made again.
const LOOK_AFTER: Duration = Duration::from_millis(50);
/// What says that the server sends nothing more.
const GONE: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);
const EVENTS: usize = 256;
const BUFFER_BYTES: usize = 256 << 10;

struct Load<'a> {
    plan: &'a Plan,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    groups: Vec<GroupState<'a>>,
    buffer: Vec<u8>,
    /// Connections that begin later, the earliest last.
    later: Vec<(Instant, usize)>,
    /// Whether connections ask once, as soon as they are established.
    introducing: bool,
    /// Whether answered connections ask again.
    asking: bool,
    measure: Option<(Instant, Instant)>,
    next_look: Instant,
}

struct GroupState<'a> {
    group: &'a Group,
    /// The request, as often as it may be under way.
    requests: Vec<u8>,
    request_length: usize,
    known_head: Vec<u8>,
    latencies: Histogram,
    tally: Tally,
}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan) -> io::Result<Load<'a>> {
        let now = Instant::now();
        let groups = plan.groups.iter().map(|group| {
            let close = if group.close { "Connection: close\r\n" } else { "" };
            let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n{close}\r\n", group.path, plan.address);
            GroupState {
                group,
                requests: request.repeat(group.depth).into_bytes(),
                request_length: request.len(),
                known_head: Vec::new(),
                latencies: Histogram::new(),
                tally: Tally::default(),
            }
        });
        let members = plan.groups.iter().enumerate();
        Ok(Load {
            plan,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: members
                .flat_map(|(number, group)| (0..group.connections).map(move |_| Connection::new(number, now)))
                .collect(),
            groups: groups.collect(),
            buffer: vec![0; BUFFER_BYTES],
            later: Vec::new(),
            introducing: false,
            asking: false,
            measure: None,
            next_look: now,
        })
    }

    /// Makes the connections, each of which asks once: some servers do not take a connection that says nothing. Those
    /// that begin in turn keep silent, and those that are made for each request come later.
    fn connect_all(&mut self) -> io::Result<()> {
        self.introducing = true;
        let mut begun: Vec<usize> = Vec::new();
        let keeps = |connection: &Connection| !self.groups[connection.group].group.close;
        let all: Vec<usize> = (0..self.connections.len()).filter(|index| keeps(&self.connections[*index])).collect();
        for (place, &index) in all.iter().enumerate() {
            self.connect(index)?;
            begun.push(index);
            let last = place + 1 == all.len();
            let since = Instant::now();
            while begun.len() >= BEGUN_MAX || (last && !begun.is_empty()) {
                self.turn(LOOK_AFTER)?;
                begun.retain(|index| {
                    let connection = &self.connections[*index];
                    connection.socket.is_some() && (!connection.established || !connection.under_way.is_empty())
                });
                if since.elapsed() > CONNECT_PATIENCE {
                    // The load shows what becomes of them.
                    begun.clear();
                }
            }
        }
        self.introducing = false;
        Ok(())
    }

    /// Begins, asks, and waits at the end for what is due.
    fn serve(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        let end = begin + self.plan.warm_up + self.plan.duration;
        self.measure = Some((begin + self.plan.warm_up, end));
        self.asking = true;
        let mut place_in_group = vec![0; self.groups.len()];
        for (index, connection) in self.connections.iter().enumerate() {
            let group = self.groups[connection.group].group;
            let place = &mut place_in_group[connection.group];
            self.later.push((begin + group.stagger * *place / group.connections as u32, index));
            *place += 1;
        }
        self.later.sort_by_key(|(when, _)| std::cmp::Reverse(*when));
        loop {
            let now = Instant::now();
            while let Some(&(when, index)) = self.later.last()
                && when <= now
            {
                self.later.pop();
                self.begin(index, now)?;
            }
            if now >= end && self.later.is_empty() {
                break;
            }
            // It does not sleep: a server would have to wake it, which between two processors of a virtual machine costs as
            // much as a request, and the slower the server, the more often. Over a network nobody would be woken.
            self.turn(Duration::ZERO)?;
        }
        self.asking = false;
        let patience = Instant::now() + self.plan.frozen_after;
        while self.connections.iter().any(|connection| !connection.under_way.is_empty()) && Instant::now() < patience {
            self.turn(LOOK_AFTER)?;
        }
        Ok(())
    }

    /// Waits for events, at most so long, and deals with them. Says how many there were.
    fn turn(&mut self, timeout: Duration) -> io::Result<usize> {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let count = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            let (flags, data) = (event.flags, event.data);
            let (index, made) = (data.u64() as u32 as usize, (data.u64() >> 32) as u32);
            if self.connections[index].made == made {
                self.event(index, flags)?;
            }
        }
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK_AFTER;
            self.look(now)?;
        }
        Ok(count)
    }

    fn event(&mut self, index: usize, flags: EventFlags) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if flags.contains(EventFlags::OUT) {
            let state = &self.groups[connection.group];
            let introduces_itself = self.introducing && !connection.established && state.group.stagger.is_zero();
            connection.established = true;
            if let Err(error) = connection.send(&state.requests) {
                return self.fail(index, &error.to_string());
            }
            if introduces_itself && !flags.intersects(GONE) {
                self.ask(index, 1, Instant::now())?;
            }
        }
        let ended = flags.intersects(GONE);
        while flags.contains(EventFlags::IN) || ended {
            let connection = &mut self.connections[index];
            match connection.receive(&mut self.buffer) {
                Received::Bytes { count, kept, all } => {
                    let made = connection.made;
                    self.received(index, count, kept)?;
                    // The socket may be another by now.
                    if (all && !ended) || self.connections[index].made != made {
                        break;
                    }
                }
                Received::Nothing => break,
                Received::End => return self.ended(index),
                Received::Failed(error) => return self.fail(index, &error.to_string()),
            }
        }
        Ok(())
    }

    /// Deals with so many bytes, which are in the buffer or were content.
    fn received(&mut self, index: usize, count: usize, kept: bool) -> io::Result<()> {
        let now = Instant::now();
        let connection = &mut self.connections[index];
        let state = &mut self.groups[connection.group];
        let taken = match kept {
            true => connection.answers.take(&self.buffer[..count], &mut state.known_head, state.group.expected),
            false => Ok(connection.answers.skip(count as u64)),
        };
        let complete = match taken {
            Ok(complete) if complete <= connection.under_way.len() as u64 => complete as usize,
            Ok(_) => return self.fail(index, "more answers than requests"),
            Err(wrong) => return self.fail(index, &wrong.0),
        };
        if connection.waiting(now).is_some_and(|waiting| waiting > self.plan.frozen_after) {
            connection.frozen = true;
        }
        connection.progress = now;
        if complete > 0 && state.group.close {
            // It counts when the connection has ended.
            connection.complete = true;
        } else if complete > 0 {
            self.answered(index, complete, now);
            if self.has_time(now) {
                return self.ask(index, complete, now);
            }
        }
        Ok(())
    }

    /// Counts the oldest `complete` requests of the connection as answered.
    fn answered(&mut self, index: usize, complete: usize, now: Instant) {
        let connection = &mut self.connections[index];
        let state = &mut self.groups[connection.group];
        let measured = self.measure.is_some_and(|(begin, end)| begin <= now && now < end);
        state.tally.answered += complete as u64;
        for sent in connection.under_way.drain(..complete) {
            if measured {
                state.tally.measured += 1;
                state.latencies.record(now.saturating_duration_since(sent));
            }
        }
    }

    /// Whether what has been answered asks again.
    fn has_time(&self, now: Instant) -> bool {
        self.asking && self.measure.is_some_and(|(_, end)| now < end)
    }

    /// Begins a connection's part of the load; one that is not there is made.
    fn begin(&mut self, index: usize, now: Instant) -> io::Result<()> {
        if self.connections[index].socket.is_none() {
            self.connect(index)?;
        }
        let wanted = self.groups[self.connections[index].group].group.depth;
        // It may still wait for its first answer.
        let due = self.connections[index].under_way.len();
        self.ask(index, wanted - due, now)
    }

    fn ask(&mut self, index: usize, count: usize, now: Instant) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let state = &self.groups[connection.group];
        // One that has failed is made again when next it is looked after.
        if connection.socket.is_some()
            && let Err(error) = connection.ask(&state.requests, state.request_length, count, now)
        {
            return self.fail(index, &error.to_string());
        }
        Ok(())
    }

    /// The server has closed the connection.
    fn ended(&mut self, index: usize) -> io::Result<()> {
        let connection = &self.connections[index];
        let state = &mut self.groups[connection.group];
        if connection.complete {
            let now = Instant::now();
            self.answered(index, 1, now);
        } else if connection.under_way.is_empty() && !state.group.close {
            state.tally.closed += 1;
        } else {
            return self.fail(index, "closed by the server while an answer was due");
        }
        self.drop_socket(index);
        self.begin_again(index)
    }

    /// Counts a connection as failed; it is made again when next it is looked after.
    fn fail(&mut self, index: usize, what: &str) -> io::Result<()> {
        let tally = &mut self.groups[self.connections[index].group].tally;
        tally.failed += 1;
        tally.first_failure.get_or_insert_with(|| what.to_owned());
        self.drop_socket(index);
        self.connections[index].under_way.clear();
        Ok(())
    }

    fn drop_socket(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.socket = None;
        // Events that are already in the batch are not of the next one.
        connection.made = connection.made.wrapping_add(1);
    }

    fn connect(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let now = Instant::now();
        match connection.connect(self.plan.address, now) {
            Ok(()) => {}
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Err(error.into()),
            Err(error) => return self.fail(index, &format!("connect: {error}")),
        }
        let Some(socket) = &connection.socket else { return Ok(()) };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let key = index as u64 | u64::from(connection.made) << 32;
        epoll::add(&self.epoll, socket, EventData::new_u64(key), flags)?;
        Ok(())
    }

    /// Makes a connection again, and goes on with it if there is time.
    fn begin_again(&mut self, index: usize) -> io::Result<()> {
        let now = Instant::now();
        if self.has_time(now) { self.begin(index, now) } else { Ok(()) }
    }

    /// Looks for frozen connections, and for failed ones, which get another chance.
    fn look(&mut self, now: Instant) -> io::Result<()> {
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            if connection.waiting(now).is_some_and(|waiting| waiting > self.plan.frozen_after) {
                connection.frozen = true;
            }
            let begun = !self.later.iter().any(|(_, later)| *later == index);
            if self.connections[index].socket.is_none() && begun {
                self.begin_again(index)?;
            }
        }
        Ok(())
    }

    fn report(self) -> Report {
        let now = Instant::now();
        let mut tallies: Vec<Tally> = self.groups.iter().map(|state| state.tally.clone()).collect();
        for connection in &self.connections {
            let tally = &mut tallies[connection.group];
            let frozen = connection.waiting(now).is_some_and(|waiting| waiting > self.plan.frozen_after);
            tally.frozen += u64::from(connection.frozen || frozen);
            tally.unanswered += connection.under_way.len() as u64;
        }
        for (state, tally) in self.groups.iter().zip(&mut tallies) {
            let us = |latency: Duration| latency.as_secs_f64() * 1e6;
            tally.seconds = self.plan.duration.as_secs_f64();
            [tally.p50_us, tally.p99_us, tally.p999_us] = [0.5, 0.99, 0.999].map(|q| us(state.latencies.quantile(q)));
            tally.max_us = us(state.latencies.greatest());
        }
        Report { groups: tallies }
    }
}

//! What a server does when the system gives it no more memory, descriptors, threads or processes, and that afterwards it is
//! as it was before.

mod classic;
mod descriptors;
mod half_open;
mod memory;
mod signals;
mod slow_readers;
mod threads;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::process::{descriptors, find};
use tests::{Load, PATIENCE, Server, Site, cc, children, eventually, repository, server};

/// A server with a module that takes whatever there is, and one that takes nothing.
struct Fixture {
    site: Site,
    server: Server,
}

/// What a server has open when nobody asks it anything.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    of_supervisor: usize,
    of_worker: usize,
}

impl Fixture {
    /// Starts a server, through a command that takes another one's line as its last arguments, such as prlimit(1).
    fn start(wrapper: &[&str], arguments: &[&str]) -> Fixture {
        Fixture::start_in(site(), wrapper, arguments)
    }

    fn start_in(site: Site, wrapper: &[&str], arguments: &[&str]) -> Fixture {
        let gate = format!("greedy:GATE={}", site.path("gate").display());
        let host = site.command(&["--bind", "127.0.0.1:0", "--runtime", "runtime", "--env", &gate]);
        let mut command = host;
        if let Some((program, before)) = wrapper.split_first() {
            let inner = command;
            command = Command::new(program);
            command.args(before).arg(inner.get_program()).args(inner.get_args()).current_dir(site.path(""));
            for (name, value) in inner.get_envs() {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
        }
        command.args(arguments).env("HOST_LOG", "debug");
        Fixture { server: Server::start(command), site }
    }

    /// Lets go what the module holds.
    fn open_gate(&self) {
        self.site.write("gate", "");
    }

    /// The only worker, once there is only one.
    fn worker(&self) -> u32 {
        eventually("there is one worker", PATIENCE, || match &self.workers()[..] {
            [worker] => Some(*worker),
            _ => None,
        })
    }

    fn workers(&self) -> Vec<u32> {
        let workers = children(self.server.id()).into_iter().filter(|child| child.command == "host: worker");
        workers.map(|worker| worker.id).collect()
    }

    fn footprint(&self) -> Footprint {
        // Whatever a first request opens for good is open.
        assert_eq!(self.server.get("/modest.so").status, 200);
        let count = |process| descriptors(process).expect("it runs");
        // The connection of that request closes when it has been answered.
        let mut last = None;
        eventually("the number of descriptors stays the same", PATIENCE, || {
            let now = (count(self.server.id()), count(self.worker()));
            let settled = last.replace(now) == Some(now);
            settled.then_some(Footprint { of_supervisor: now.0, of_worker: now.1 })
        })
    }

    /// Waits until no more is open than `before`, and nothing dead is left.
    fn assert_as_before(&self, before: Footprint) {
        eventually("there are no more descriptors than before, and no zombie", PATIENCE, || {
            let worker = self.worker();
            let fits =
                descriptors(self.server.id())? <= before.of_supervisor && descriptors(worker)? <= before.of_worker;
            let zombie = |of| children(of).into_iter().any(|child| child.state == 'Z');
            (fits && !zombie(self.server.id()) && !zombie(worker)).then_some(())
        });
        for _ in 0..20 {
            assert_eq!(self.server.get("/modest.so").text(), "Hello, World!\n");
        }
    }

    /// Does `work` while it is looked out for zombies: between its end and the moment that it is waited for, each process is
    /// one, and must not stay it.
    fn without_zombies<R>(&self, work: impl FnOnce() -> R) -> R {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for zombie in children(self.server.id()).into_iter().filter(|child| child.state == 'Z') {
                        eventually("a zombie is waited for", PATIENCE, || find(zombie.id).is_none().then_some(()));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let result = work();
            done.store(true, Ordering::Relaxed);
            watch.join().expect("no zombie stays");
            result
        })
    }

    /// A load of the module that takes nothing, and of a page.
    fn innocents(&self, connections: usize) -> Load {
        Load::start(self.server.address(), connections, &["/modest.so", "/page.txt"], |path, response| {
            match (response.status, response.text()) {
                (200, "Hello, World!\n" | "a page\n") => Ok(()),
                _ => Err(format!("{path}: {} {}", response.status, response.text())),
            }
        })
    }
}

/// A site with both modules and a page.
fn site() -> Site {
    let site = Site::new();
    let source = site.write("sources/greedy.c", include_str!("handler.c"));
    cc(&source, &site.path("handlers/greedy.so"), &["-O1", "-pthread"]);
    cc(&repository().join("handlers/hello.c"), &site.path("handlers/modest.so"), &[]);
    site.write("html/page.txt", "a page\n");
    site
}

fn kill(process: u32, signal: Signal) {
    // One that has just ended cannot be signalled, and need not be.
    _ = kill_process(Pid::from_raw(process.cast_signed()).expect("a process id"), signal);
}

/// The processor time that a process has used.
fn processor_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // The name stands in parentheses; behind it, from the state on, come the fields from the third.
    let fields: Vec<&str> = stat[stat.rfind(')').expect("proc(5)") + 2..].split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("proc(5)")).sum();
    // USER_HZ, which is 100 wherever Linux runs.
    Duration::from_millis(ticks * 10)
}

/// Lets this process have as many descriptors as it may; says how many.
fn raise_own_descriptor_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    maximum.unwrap_or(u64::MAX)
}

/// The binary under test, where users who are nobody can execute it.
fn public_binary(site: &Site) -> String {
    let path = site.path("host");
    fs::copy(server::binary(), &path).expect("there is room");
    path.display().to_string()
}

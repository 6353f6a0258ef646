//! What a process and its descendants have used, as /proc tells (proc(5)): processor time, memory, cores.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::io;
use std::time::Duration;

/// The processes that descend from `root`, itself first. A process that ends meanwhile is missing.
pub fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(::tests::children(parent).iter().map(|process| process.id));
        next += 1;
    }
    found
}

/// The processes of the group that `leader` leads or has led.
pub fn group(leader: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let all = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    all.filter(|process| stat_field(&format!("/proc/{process}/stat"), 5) == Some(u64::from(leader))).collect()
}

/// What threads have had of their core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// They ran.
    pub ran: Duration,
    /// They could have run, but somebody else did; 0 where the kernel does not tell.
    pub waited: Duration,
}

/// What all threads of these processes have had, to the nanosecond.
///
/// These are the first two numbers of `schedstat`, which the kernel counts for each thread while it runs; a thread's share
/// is lost when the thread ends, so this is for servers that keep theirs. Where there is no `schedstat`, it is the user
/// and system time of `stat`, in hundredths of a second.
pub fn times(processes: &[u32]) -> Times {
    let mut sum = Times::default();
    for times in processes.iter().flat_map(|process| threads(*process)).map(thread_times) {
        sum = Times { ran: sum.ran + times.ran, waited: sum.waited + times.waited };
    }
    sum
}

/// User and system time of a whole process, ended threads included, in ticks: also that of a zombie.
pub fn ticks(process: u32) -> Option<Duration> {
    ticks_of(&format!("/proc/{process}/stat"))
}

/// The memory of these processes in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident pages; those that processes share are counted in each.
    pub resident_kib: u64,
    /// Resident pages, shared ones divided by the number of their users; as `resident_kib` if it may not be read.
    pub proportional_kib: u64,
}

/// What these processes have in memory.
pub fn memory(processes: &[u32]) -> Memory {
    let mut memory = Memory::default();
    for process in processes {
        let resident = field_kib(&format!("/proc/{process}/status"), "VmRSS:").unwrap_or(0);
        let proportional = field_kib(&format!("/proc/{process}/smaps_rollup"), "Pss:");
        memory.resident_kib += resident;
        memory.proportional_kib += proportional.unwrap_or(resident);
    }
    memory
}

/// The cores that this process may use, in order.
///
/// # Errors
/// Those of sched_getaffinity(2).
pub fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Binds a thread, or the calling one, to a core.
///
/// # Errors
/// Those of sched_setaffinity(2).
pub fn pin(thread: Option<u32>, core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    let thread = thread.and_then(|thread| Pid::from_raw(i32::try_from(thread).ok()?));
    Ok(sched_setaffinity(thread, &set)?)
}

/// Binds every thread of these processes to a core, and says how many had other ideas: some servers choose cores for
/// themselves.
///
/// # Errors
/// Those of sched_setaffinity(2), unless the thread has ended.
pub fn hold_to(core: usize, processes: &[u32]) -> io::Result<usize> {
    let mut strayed = 0;
    for (process, thread) in processes.iter().flat_map(|process| threads(*process)) {
        let status = fs::read_to_string(format!("/proc/{process}/task/{thread}/status")).unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        if allowed.is_some_and(|allowed| allowed.trim() != core.to_string()) {
            strayed += 1;
            match pin(Some(thread), core) {
                Err(error) if error.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                    return Err(error);
                }
                _ => {}
            }
        }
    }
    Ok(strayed)
}

/// When a process was started, in ticks since the machine was: together with its number, its identity.
pub fn started(process: u32) -> Option<u64> {
    stat_field(&format!("/proc/{process}/stat"), 22)
}

fn threads(process: u32) -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    entries.filter_map(|entry| Some((process, entry.ok()?.file_name().to_str()?.parse().ok()?))).collect()
}

fn thread_times((process, thread): (u32, u32)) -> Times {
    let folder = format!("/proc/{process}/task/{thread}");
    let schedstat = fs::read_to_string(format!("{folder}/schedstat")).unwrap_or_default();
    let mut ns = schedstat.split(' ').map_while(|number| number.parse().ok()).map(Duration::from_nanos);
    match (ns.next(), ns.next()) {
        (Some(ran), Some(waited)) => Times { ran, waited },
        _ => Times { ran: ticks_of(&format!("{folder}/stat")).unwrap_or_default(), ..Times::default() },
    }
}

fn ticks_of(stat: &str) -> Option<Duration> {
    let ticks = stat_field(stat, 14)? + stat_field(stat, 15)?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// A number of a `stat` file by its place there, from 1; at least the fourth.
fn stat_field(path: &str, place: usize) -> Option<u64> {
    let stat = fs::read_to_string(path).ok()?;
    // The name stands in parentheses and may itself have some, so the last one ends it; the state is the third.
    stat[stat.rfind(')')? + 2..].split(' ').nth(place - 3)?.parse().ok()
}

fn field_kib(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Running;

    #[test]
    fn work_shows_as_processor_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo begun; read line; while :; do :; done"]);
        let mut running = Running::start(command, folder.path().join("log"), true).unwrap();
        crate::process::wait_readable(running.child().stdout.as_ref().unwrap(), ::tests::PATIENCE).unwrap();
        let process = running.child().id();
        // It waits for a line, so it is at rest, or about to be.
        let before = times(&[process]).ran;
        assert!(before < Duration::from_secs(1), "{before:?}");
        // The kernel brings a running thread's time up to date at its tick.
        drop(running.child().stdin.take());
        ::tests::eventually("the time passes", ::tests::PATIENCE, || {
            let more = times(&[process]).ran.checked_sub(before).expect("time does not go backwards");
            (more > Duration::from_millis(50) && ticks(process)? > Duration::from_millis(50)).then_some(())
        });
    }

    #[test]
    fn memory_is_that_of_the_tree() {
        let own = tree(std::process::id());
        assert_eq!(own[0], std::process::id());
        let memory = memory(&own);
        assert!(memory.resident_kib > 500 && memory.proportional_kib > 0, "{memory:?}");
        assert!(started(own[0]) > started(1));
    }
}

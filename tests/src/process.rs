//! Processes as /proc shows them (proc(5)).

use std::fs;
use std::path::{Path, PathBuf};

/// A process that existed when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub id: u32,
    /// Its command line, with spaces between the arguments: `host: worker`. Empty for a zombie.
    pub command: String,
    /// The letter for its state: `R`, `S`, `Z` for a zombie.
    pub state: char,
}

/// The direct children of process `parent`, zombies included, oldest number first.
///
/// # Panics
/// /proc is not there.
pub fn children(parent: u32) -> Vec<Process> {
    let mut found: Vec<Process> = fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id| look(id).filter(|(_, its_parent)| *its_parent == parent))
        .map(|(process, _)| process)
        .collect();
    found.sort_by_key(|process| process.id);
    found
}

/// All processes, zombies included.
///
/// # Panics
/// /proc is not there.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(find).collect()
}

/// The process of that number, if there is one.
pub fn find(id: u32) -> Option<Process> {
    look(id).map(|(process, _)| process)
}

/// The processes whose current folder this is, or was before it was removed; none of them is a zombie.
///
/// # Panics
/// /proc is not there.
pub fn in_folder(folder: &Path) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("/proc is mounted");
    let ids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let removed = PathBuf::from(format!("{} (deleted)", folder.display()));
    let is_there = |cwd: PathBuf| cwd == folder || cwd == removed;
    ids.filter(|id: &u32| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(is_there)).collect()
}

/// How many descriptors process `id` has open; none if it is gone.
pub fn descriptors(id: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{id}/fd")).ok()?.count())
}

/// What the threads of a process and of its children do, and what they have open: for who wonders why it does not end.
pub fn describe(id: u32) -> String {
    let mut text = String::new();
    for process in find(id).into_iter().chain(children(id)) {
        text += &format!("{} {} {}\n", process.id, process.state, process.command);
        let threads = fs::read_dir(format!("/proc/{}/task", process.id)).into_iter().flatten().flatten();
        for thread in threads.map(|thread| thread.path()) {
            let read = |name: &str| fs::read_to_string(thread.join(name)).unwrap_or_default();
            text += &format!("  {}: {} {}\n", read("comm").trim(), read("wchan"), read("syscall").trim());
        }
        let files = fs::read_dir(format!("/proc/{}/fd", process.id)).into_iter().flatten().flatten();
        let files = files.filter_map(|file| fs::read_link(file.path()).ok());
        text += &format!("  open: {}\n", files.map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "));
    }
    text
}

fn look(id: u32) -> Option<(Process, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name stands in parentheses and may itself have some, so the last one ends it.
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let command = fs::read(format!("/proc/{id}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    Some((Process { id, command, state }, parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn children_are_found_with_their_command_until_they_are_reaped() {
        let mut child = Command::new("cat").arg("-").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let id = child.id();
        let mine = || children(std::process::id()).into_iter().find(|process| process.id == id);
        crate::eventually("cat runs", crate::PATIENCE, || mine().filter(|process| process.command == "cat -"));
        drop(child.stdin.take());
        crate::eventually("cat is a zombie", crate::PATIENCE, || mine().filter(|process| process.state == 'Z'));
        child.wait().unwrap();
        assert_eq!(mine(), None);
    }
}

//! Where server and client meet: the loopback interface, or two network namespaces joined by a veth(4).
//!
//! The loopback interface takes the machine's congestion control. BBR paces large answers, even there, so that they
//! measure its clock and not the server. In namespaces of our own it is reno, whatever the machine has.

use rustix::thread::LinkNameSpaceType;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

/// One side's view: where the server can be found, and the namespace if it is not our own.
#[derive(Clone, Debug)]
pub struct Network {
    namespace: Option<String>,
    server: IpAddr,
}

/// Two joined namespaces, one for the server and one for the client. They are removed when this is dropped.
#[derive(Debug)]
pub struct Joined {
    names: [String; 2],
}

/// What namespaces made here are called: this, the process that made them, and the side.
const PREFIX: &str = "host-bench-";
const SIDES: [&str; 2] = ["server", "client"];
/// Addresses for documentation (RFC 5737), which nobody else has.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// Where ip-netns(8) keeps namespaces.
const NAMESPACES: &str = "/run/netns";
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

impl Network {
    /// The loopback interface of the namespace we are in.
    pub fn loopback() -> Network {
        Network { namespace: None, server: Ipv4Addr::LOCALHOST.into() }
    }

    /// The namespace's name; none if it is our own.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Runs `action` in this network, on a thread of its own.
    ///
    /// # Errors
    /// The namespace cannot be entered; those of `action`.
    ///
    /// # Panics
    /// As `action`.
    pub fn inside<T: Send>(&self, action: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let Some(namespace) = &self.namespace else { return action() };
        let inside = move || {
            enter(namespace)?;
            action()
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// An address of the server's side at which nobody listens.
    ///
    /// # Errors
    /// Those of bind(2).
    pub fn free_address(&self) -> io::Result<SocketAddr> {
        let server = self.server;
        self.inside(|| TcpListener::bind((server, 0))?.local_addr())
    }

    /// The congestion control of new connections.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn congestion_control(&self) -> io::Result<String> {
        self.inside(|| Ok(fs::read_to_string(CONGESTION_CONTROL)?.trim().to_owned()))
    }
}

impl Joined {
    /// Makes and joins two namespaces.
    ///
    /// # Errors
    /// Why it cannot be done, in words: who is not root may not, and `ip` may be missing.
    pub fn new() -> Result<Joined, String> {
        remove_left_over();
        let names = SIDES.map(|side| format!("{PREFIX}{}-{side}", std::process::id()));
        for name in &names {
            ip(&["netns", "add", name])?;
        }
        // From here on there is somebody to remove them.
        let joined = Joined { names };
        let [server, client] = &joined.names;
        ip(&["link", "add", "veth0", "netns", server, "type", "veth", "peer", "name", "veth0", "netns", client])?;
        for (name, address) in joined.names.iter().zip(ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "veth0"])?;
            ip(&["-n", name, "link", "set", "veth0", "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            let network = Network { namespace: Some(name.clone()), server: address.into() };
            network
                .inside(|| fs::write(CONGESTION_CONTROL, "reno"))
                .map_err(|error| format!("{CONGESTION_CONTROL}: {error}"))?;
        }
        Ok(joined)
    }

    /// The network as the server and the client see it.
    pub fn sides(&self) -> [Network; 2] {
        let side = |name: &String| Network { namespace: Some(name.clone()), server: ADDRESSES[0].into() };
        [side(&self.names[0]), side(&self.names[1])]
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = ip(&["netns", "delete", name]) {
                eprintln!("{error}");
            }
        }
    }
}

/// Moves the calling thread into a network namespace.
///
/// # Errors
/// There is none of that name, or we may not.
pub fn enter(namespace: &str) -> io::Result<()> {
    let file = fs::File::open(Path::new(NAMESPACES).join(namespace))?;
    Ok(rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Removes namespaces of measurements that were killed.
fn remove_left_over() {
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists())
            && let Err(error) = ip(&["netns", "delete", &name])
        {
            eprintln!("{error}");
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let words = format!("ip {}", arguments.join(" "));
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("{words}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn joined_namespaces_meet_and_are_removed() {
        let joined = match Joined::new() {
            Ok(joined) => joined,
            // Who may not make them is told so by the tool.
            Err(why) => return assert!(why.starts_with("ip "), "{why}"),
        };
        let [server, client] = joined.sides();
        let files = joined.names.clone().map(|name| Path::new(NAMESPACES).join(name));
        assert!(files.iter().all(|file| file.exists()));
        assert_eq!([&server, &client].map(|side| side.congestion_control().unwrap()), ["reno", "reno"]);
        let listener = server.inside(|| TcpListener::bind((server.server, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        client.inside(|| TcpStream::connect(address)).unwrap();
        assert!(TcpListener::bind(address).is_err(), "the address is not ours");
        drop(joined);
        assert!(!files.iter().any(|file| file.exists()));
    }
}

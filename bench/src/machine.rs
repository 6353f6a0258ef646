//! The machine, as far as figures depend on it.

use crate::network::Network;
use serde::Serialize;
use std::fs;

/// What stands above the tables.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// The kernel's release.
    pub kernel: String,
    /// The server's core and the client's.
    pub cores: [usize; 2],
    /// The congestion control of the loopback interface.
    pub congestion_control: String,
    /// Processes that wanted to run in the last minute before the start, on average.
    pub load_average: String,
}

impl Machine {
    /// This one.
    pub fn look(cores: [usize; 2]) -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let processor = read("/proc/cpuinfo");
        let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Machine {
            processor: processor.map_or("an unknown processor", |(_, name)| name.trim()).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease"),
            cores,
            congestion_control: Network::loopback().congestion_control().unwrap_or_default(),
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// In words.
    pub fn lines(&self) -> Vec<String> {
        let [server, client] = self.cores;
        let mut lines = vec![
            format!("{}, Linux {}", self.processor, self.kernel),
            format!("servers on core {server}, clients on core {client}; load average before {}", self.load_average),
            format!("congestion control of the loopback interface: {}", self.congestion_control),
        ];
        if server == client {
            lines.push("there is one core only: servers and clients share it, and all rates are too low".to_owned());
        }
        lines
    }
}

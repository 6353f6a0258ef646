//! The channel between supervisor and worker: a pair of `SOCK_SEQPACKET` sockets that carry one message a packet, and
//! descriptors with it (`SCM_RIGHTS`, unix(7)). A message too large for a packet travels in a memfd.

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net;
use std::io::{self, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends, close-on-exec.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) =
            net::socketpair(net::AddressFamily::UNIX, net::SocketType::SEQPACKET, net::SocketFlags::CLOEXEC, None)?;
        Ok((Channel(one), Channel(other)))
    }

    /// The end whose descriptor this is.
    pub fn from_fd(fd: OwnedFd) -> Channel {
        Channel(fd)
    }

    /// Gives the descriptor away.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// A second handle of the same end, so that one thread receives while another sends.
    pub fn try_clone(&self) -> io::Result<Channel> {
        Ok(Channel(self.0.try_clone()?))
    }

    /// Ends receiving after what is in the queue, and sending at once, for all handles of this end.
    pub fn shut_down(&self) {
        // It fails only when the other end is gone, which has the same effect.
        _ = net::shutdown(&self.0, net::Shutdown::Both);
    }

    /// Sends one message with at most [`DESCRIPTORS_MAX`] descriptors; waits while the channel is full.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        assert!(descriptors.len() <= DESCRIPTORS_MAX, "a message carries at most {DESCRIPTORS_MAX} descriptors");
        if message.len() < PACKET_BYTES_MAX {
            return self.send_packet(&[INLINE], message, descriptors);
        }
        let large = memory_file(message)?;
        let with_large: Vec<_> = [large.as_fd()].into_iter().chain(descriptors.iter().copied()).collect();
        self.send_packet(&[IN_MEMFD], &[], &with_large)
    }

    fn send_packet(&self, kind: &[u8; 1], message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX + 1))];
        let mut ancillary = net::SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(net::SendAncillaryMessage::ScmRights(descriptors));
        }
        loop {
            let parts = [IoSlice::new(kind), IoSlice::new(message)];
            match net::sendmsg(&self.0, &parts, &mut ancillary, net::SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                // Too many descriptors are under way (unix(7)): the other end takes them as it goes on.
                Err(Errno::TOOMANYREFS | Errno::NOBUFS) => std::thread::sleep(RETRY_AFTER),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives the next message; `None` when the other end is gone.
    pub fn receive(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; PACKET_BYTES_MAX + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX + 1))];
        let mut ancillary = net::RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match net::recvmsg(&self.0, &mut parts, &mut ancillary, net::RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let net::RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        // A packet has at least its kind byte, so an empty one is the end.
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(net::ReturnFlags::TRUNC | net::ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a control message was cut: out of descriptors?"));
        }
        bytes.truncate(received.bytes);
        match bytes.remove(0) {
            INLINE => Ok(Some((bytes, descriptors))),
            IN_MEMFD if !descriptors.is_empty() => {
                let large = descriptors.remove(0);
                Ok(Some((read_memory_file(large)?, descriptors)))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a control message of an unknown kind")),
        }
    }
}

/// An anonymous file with these bytes, sealed (memfd_create(2)).
pub fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("host", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

/// All bytes of a [`memory_file`].
pub fn read_memory_file(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::from(fd);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Descriptors that one message can carry: far below the kernel's `SCM_MAX_FD` of 253.
pub const DESCRIPTORS_MAX: usize = 64;

/// Below the default socket buffer (212,992 bytes), so that a packet always fits once the channel is empty.
const PACKET_BYTES_MAX: usize = 64 * 1024;

const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(1);

const INLINE: u8 = b'i';
const IN_MEMFD: u8 = b'm';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_in_order_whatever_their_size() {
        let (one, other) = Channel::pair().unwrap();
        let large = vec![7; 3 * PACKET_BYTES_MAX];
        let file = memory_file(b"inside").unwrap();
        one.send(b"small", &[]).unwrap();
        one.send(&large, &[file.as_fd()]).unwrap();
        drop(one);
        let (message, descriptors) = other.receive().unwrap().unwrap();
        assert_eq!((message.as_slice(), descriptors.len()), (b"small".as_slice(), 0));
        let (message, mut descriptors) = other.receive().unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (large, 1));
        assert_eq!(read_memory_file(descriptors.remove(0)).unwrap(), b"inside");
        assert!(other.receive().unwrap().is_none());
    }
}

//! Passing a connection to the worker that replaces this one: the socket, what has been received and not been answered,
//! and how far the content of its request has been understood.

use super::storing::Uploading;
use crate::http::HeadLimits;
use crate::http::content::Decoder;
use crate::request::Request;
use crate::route::PackedUpload;
use crate::sys::channel::{memory_file, read_memory_file};
use crate::sys::socket::Address;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A connection under way between two workers.
#[derive(Debug)]
pub struct Handover {
    /// What is known of it.
    pub state: State,
    /// The socket; then, if the state has bytes, a memfd with them; then, if it says so, the content's temporary file, or the
    /// files of an upload.
    pub descriptors: Vec<OwnedFd>,
}

/// What is known of a connection under way.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    peer: Address,
    /// The address of the listener that it came by.
    pub local: Address,
    /// How many bytes that were received and not answered travel in a memfd.
    bytes: usize,
    content: Option<Content>,
}

/// A request whose head has been understood.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    /// The bytes begin with so many of the head,
    head_bytes: usize,
    /// and so many of the content, if no temporary file has them; of an upload those that have not been stored.
    memory_bytes: usize,
    in_file: bool,
    decoder: Decoder,
    upload: Option<PackedUpload>,
    continue_due: bool,
}

/// What [`unpack`] gives.
pub(super) struct Unpacked {
    pub(super) socket: OwnedFd,
    pub(super) peer: Address,
    pub(super) content: Option<(Box<Request>, Decoder)>,
    pub(super) upload: Option<UploadUnderWay>,
    pub(super) continue_due: bool,
    /// Received after that.
    pub(super) rest: Vec<u8>,
}

/// An upload that another worker has begun.
pub(super) struct UploadUnderWay {
    pub(super) packed: PackedUpload,
    pub(super) files: Vec<OwnedFd>,
    /// What is still to be stored.
    pub(super) gathered: Vec<u8>,
}

impl Handover {
    /// A connection of which nothing has been received.
    pub fn fresh(socket: OwnedFd, peer: Address, local: Address) -> Handover {
        Handover { state: State { peer, local, bytes: 0, content: None }, descriptors: vec![socket] }
    }
}

/// Makes a connection ready for the way.
pub(super) fn pack(
    socket: OwnedFd,
    peer: Address,
    local: &Address,
    content: Option<(&Request, Decoder)>,
    upload: Option<Uploading>,
    continue_due: bool,
    rest: &[u8],
) -> io::Result<Handover> {
    let mut bytes = Vec::new();
    let mut descriptors = vec![socket];
    let mut files = Vec::new();
    let content = match content {
        None => None,
        Some((request, decoder)) => {
            let head = request.head.raw();
            bytes.extend_from_slice(head);
            let memory = upload.as_ref().map_or(request.input.memory(), Uploading::gathered);
            bytes.extend_from_slice(memory);
            let (head_bytes, memory_bytes) = (head.len(), memory.len());
            files.extend(request.input.spool().map(|file| file.try_clone_to_owned()).transpose()?);
            let in_file = !files.is_empty();
            let upload = match upload.and_then(|mut uploading| uploading.take()) {
                None => None,
                Some(upload) => {
                    let (packed, stored) = upload.pack()?;
                    files.extend(stored);
                    Some(packed)
                }
            };
            Some(Content { head_bytes, memory_bytes, in_file, decoder, upload, continue_due })
        }
    };
    bytes.extend_from_slice(rest);
    if !bytes.is_empty() {
        descriptors.push(memory_file(&bytes)?);
    }
    descriptors.extend(files);
    Ok(Handover { state: State { peer, local: local.clone(), bytes: bytes.len(), content }, descriptors })
}

/// Opens it again; `None` if it makes no sense, which only a bug could bring about.
pub(super) fn unpack(handover: Handover, local: Arc<Address>) -> Option<Unpacked> {
    let Handover { state, descriptors } = handover;
    let mut descriptors = descriptors.into_iter();
    let socket = descriptors.next()?;
    let bytes = if state.bytes > 0 { read_memory_file(descriptors.next()?).ok()? } else { Vec::new() };
    let Some(content) = state.content else {
        return Some(Unpacked {
            socket,
            peer: state.peer,
            content: None,
            upload: None,
            continue_due: false,
            rest: bytes,
        });
    };
    let (head, after_head) = bytes.split_at_checked(content.head_bytes)?;
    let (memory, rest) = after_head.split_at_checked(content.memory_bytes)?;
    let mut request = Box::new(Request::new(state.peer.clone(), local));
    // The other worker has applied the limits already.
    request.head.parse(head, HeadLimits { head_bytes_max: usize::MAX }).ok()??;
    // `OPTIONS *` asks about the server as a whole, which is no path.
    if request.head.path() != "*" {
        request.path.parse_into(request.head.path()).ok()?;
    }
    let spool = if content.in_file { Some(descriptors.next()?) } else { None };
    let upload = match content.upload {
        Some(packed) => Some(UploadUnderWay { packed, files: descriptors.collect(), gathered: memory.to_vec() }),
        None => {
            request.input.restore(memory, spool).ok()?;
            None
        }
    };
    let continue_due = content.continue_due;
    let content = Some((request, content.decoder));
    Some(Unpacked { socket, peer: state.peer, content, upload, continue_due, rest: rest.to_vec() })
}

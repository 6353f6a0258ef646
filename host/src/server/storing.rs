//! The threads that store uploads. While one does, it owns the upload's connection, and waits for the disk as long as that
//! takes; the loop goes on with others. Nothing is read from the connection meanwhile, so that a client sends no faster than
//! the disk takes it, and memory stays what it is.

use super::Shared;
use super::call::Origin;
use super::connection::Connection;
use super::slots::SlotId;
use crate::request::Request;
use crate::response::Response;
use crate::route::{Broom, Upload};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

/// The threads, as the loops see them. Without uploads there are none.
pub(super) struct Storage {
    clerks: Vec<Clerk>,
    /// Uploads under way.
    uploads: Arc<AtomicUsize>,
}

/// One of the threads.
struct Clerk {
    jobs: Sender<Job>,
    /// How many jobs it has or will have.
    jobs_left: Arc<AtomicUsize>,
}

/// What a thread does.
enum Job {
    /// Store what the connection of that loop has gathered, and send it back.
    Store(usize, SlotId, Box<Connection>),
    /// Forget an upload that has come to nothing: freeing a large file takes the disk its time.
    Forget(Box<Upload>),
}

/// What a thread takes its jobs from.
pub(super) struct Desk {
    jobs: Receiver<Job>,
    jobs_left: Arc<AtomicUsize>,
}

/// The upload of one connection.
pub(super) struct Uploading {
    /// None when it is over.
    upload: Option<Box<Upload>>,
    /// Content that is still to be stored.
    gathered: Vec<u8>,
    /// Who forgets it.
    clerk: Sender<Job>,
    uploads: Arc<AtomicUsize>,
}

impl Storage {
    /// For a server that takes uploads, or does not; with a desk for each thread that has to be started.
    pub(super) fn new(takes_uploads: bool) -> (Storage, Vec<Desk>) {
        let place = |_| {
            let (sender, jobs) = mpsc::channel();
            let jobs_left = Arc::new(AtomicUsize::new(0));
            (Clerk { jobs: sender, jobs_left: Arc::clone(&jobs_left) }, Desk { jobs, jobs_left })
        };
        let (clerks, desks) = (0..if takes_uploads { CLERKS } else { 0 }).map(place).unzip();
        (Storage { clerks, uploads: Arc::default() }, desks)
    }

    /// Begins to receive an upload, if not too many are under way. `begun`: it had been begun elsewhere, and must not be lost.
    pub(super) fn begin(&self, upload: Box<Upload>, begun: bool) -> Option<Uploading> {
        let clerk = self.clerks.first()?.jobs.clone();
        let before = self.uploads.fetch_add(1, Ordering::Relaxed);
        let uploading =
            Uploading { upload: Some(upload), gathered: Vec::new(), clerk, uploads: Arc::clone(&self.uploads) };
        (begun || before < UPLOADS_MAX).then_some(uploading)
    }

    /// Has a thread store what a connection has gathered; it comes back by letter.
    pub(super) fn store(&self, loop_index: usize, id: SlotId, connection: Connection) {
        let least = self.clerks.iter().min_by_key(|clerk| clerk.jobs_left.load(Ordering::Relaxed));
        // A connection that gathers an upload has got it from one of them.
        let Some(clerk) = least else { return };
        clerk.jobs_left.fetch_add(1, Ordering::Relaxed);
        // A thread ends only with the process.
        _ = clerk.jobs.send(Job::Store(loop_index, id, Box::new(connection)));
    }
}

impl Desk {
    /// Starts the thread that works here.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn open(self, shared: Arc<Shared>) -> io::Result<()> {
        let work = move || {
            let mut broom = Broom::default();
            for job in &self.jobs {
                match job {
                    Job::Store(loop_index, id, mut connection) => {
                        connection.store(&mut broom);
                        self.jobs_left.fetch_sub(1, Ordering::Relaxed);
                        Origin { shared: &shared, loop_index, id }.give_back(*connection);
                    }
                    Job::Forget(upload) => drop(upload),
                }
            }
        };
        thread::Builder::new().name("store".to_owned()).spawn(work).map(|_| ())
    }
}

impl Uploading {
    /// Adds content, for which there is room if it is not [full](Self::is_full).
    pub(super) fn gather(&mut self, content: &[u8]) {
        self.gathered.extend_from_slice(content);
    }

    /// How much more it takes before it has to be stored.
    pub(super) fn room(&self) -> usize {
        GATHERED_BYTES_MAX.saturating_sub(self.gathered.len())
    }

    /// What has been gathered.
    pub(super) fn gathered(&self) -> &[u8] {
        &self.gathered
    }

    /// Stores what has been gathered, of which `is_last` says that nothing comes after it. The response, if it is over.
    pub(super) fn store(&mut self, is_last: bool, request: &Request, broom: &mut Broom) -> Option<Response> {
        let response = self.upload.as_mut()?.store(&self.gathered, is_last, request, broom);
        self.gathered.clear();
        response
    }

    /// Gives the upload away.
    pub(super) fn take(&mut self) -> Option<Box<Upload>> {
        self.upload.take()
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.uploads.fetch_sub(1, Ordering::Relaxed);
        if let Some(upload) = self.upload.take() {
            // If it fails, the process ends.
            _ = self.clerk.send(Job::Forget(upload));
        }
    }
}

/// Threads that store. Disks take few requests at a time, but one folder may lie on a slow one.
const CLERKS: usize = 4;

/// Uploads of one worker at a time; one more is answered 503. Each may hold [`GATHERED_BYTES_MAX`].
const UPLOADS_MAX: usize = 128;

/// Content that is gathered before it is stored: enough that changing threads costs little, and the disk gets long writes.
const GATHERED_BYTES_MAX: usize = 256 * 1024;

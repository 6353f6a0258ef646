//! Receiving an upload: content is gathered, and the connection goes with it to a thread that stores it, again and again.

use super::{Connection, Mode, Situation, Stage, Step};
use crate::http::encode;
use crate::response::Response;
use crate::route::{Broom, Route, Upload};
use crate::server::handover::UploadUnderWay;
use crate::server::patience::Wait;
use crate::server::storing::Storage;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Connection {
    /// Begins to receive an upload whose head has been understood.
    pub(super) fn begin_upload(&mut self, upload: Box<Upload>, situation: &Situation<'_>) -> Option<Step> {
        let Some(uploading) = situation.storage.begin(upload, false) else {
            self.respond(Response::unavailable("too many uploads are under way"), situation);
            return None;
        };
        let space = &mut *self.space;
        if std::mem::take(&mut space.continue_due) {
            space.output.interim(encode::continue_100);
        }
        space.stage = Stage::Uploading(uploading);
        None
    }

    /// Receives content until there is enough of it to be stored, or all.
    pub(super) fn receive_upload(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        if situation.mode == Mode::Draining {
            return self.flush(situation).or(Some(Step::HandOver));
        }
        loop {
            let space = &mut *self.space;
            let (Stage::Uploading(uploading), Some(decoder)) = (&mut space.stage, &mut space.decoder) else {
                return Some(Step::Close);
            };
            let room = uploading.room();
            if room == 0 || decoder.is_done() {
                // Earlier answers do not wait for the disk.
                return self.flush(situation).or(Some(Step::Store));
            }
            let rest = &space.input[space.taken..];
            let (consumed, content) = match decoder.decode(&rest[..rest.len().min(room)]) {
                Ok(decoded) => decoded,
                Err(reject) => return self.reject(reject, situation),
            };
            if consumed > 0 {
                uploading.gather(&rest[content]);
                space.taken += consumed;
                continue;
            }
            if space.output.pending() {
                return self.flush(situation);
            }
            if !*situation.readable {
                return Some(Step::Wait(Wait::Content));
            }
            // Patience is measured from one piece of content to the next.
            self.line.patience.renew();
            return self.receive(situation);
        }
    }

    /// Stores what has been gathered. It waits for the disk.
    pub(in crate::server) fn store(&mut self, broom: &mut Broom) {
        let space = &mut *self.space;
        let (Stage::Uploading(uploading), Some(request)) = (&mut space.stage, &space.request) else { return };
        let is_last = space.decoder.as_ref().is_none_or(|decoder| decoder.is_done());
        // A thread that ended here would take its connection along, and those that wait for it.
        let stored = catch_unwind(AssertUnwindSafe(|| uploading.store(is_last, request, broom)));
        let response = stored.unwrap_or_else(|_| {
            tracing::error!("storing an upload panicked; this is a bug of the server");
            Some(Response::error(500, "the upload could not be stored; the server's log says why"))
        });
        if let Some(response) = response {
            // Here, where the disk may take its time.
            drop(uploading.take());
            space.stage = Stage::Called;
            space.answer = Some(response);
        }
    }
}

/// Where the content of a request goes on that another worker has begun to receive.
pub(super) fn resume(route: Route, under_way: Option<UploadUnderWay>, storage: &Storage) -> Stage {
    match (route, under_way) {
        (Route::Upload(mut upload), Some(under_way)) => {
            if !upload.unpack(under_way.packed, under_way.files) {
                let changed = "the folder has been replaced by another while the upload was under way";
                return Stage::Content(Route::NoUpload(Response::error(409, changed)));
            }
            match storage.begin(upload, true) {
                Some(mut uploading) => {
                    uploading.gather(&under_way.gathered);
                    Stage::Uploading(uploading)
                }
                None => Stage::Content(Route::NoUpload(Response::unavailable("uploads are off"))),
            }
        }
        // Its content has been received as if it were none, and in part.
        (Route::Upload(_), None) => {
            Stage::Content(Route::NoUpload(Response::unavailable("the configuration has changed meanwhile")))
        }
        // An upload that this configuration does not take any more, or takes from others.
        (route, _) => Stage::Content(route.reserved()),
    }
}

//! Where in a connection's output a response lies: so it is known, whatever becomes of the connection, how much of which response
//! has been sent. Places are counted in bytes since the output was empty; sent is what the kernel has taken.

/// The extent of a response, as far as it has been made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    /// Its status code; 0 if it has not begun.
    pub(super) status: u16,
    head_start: u64,
    head_end: u64,
    /// Bytes of content before the piece that was made last. Only of chunked content, where framing stands between pieces, and
    /// where a piece is sent before the next one is made.
    before: u64,
    piece_start: u64,
    piece_end: u64,
}

impl Extent {
    /// Of a response whose head is from `start` to `end`. Unless it is chunked, everything that follows is content.
    pub(super) fn new(status: u16, start: u64, end: u64, is_chunked: bool) -> Extent {
        let piece_end = if is_chunked { end } else { u64::MAX };
        Extent { status, head_start: start, head_end: end, before: 0, piece_start: end, piece_end }
    }

    /// Another piece of chunked content follows, from `start` on.
    pub(super) fn piece(&mut self, start: u64, length: u64) {
        self.before += self.piece_end - self.piece_start;
        (self.piece_start, self.piece_end) = (start, start + length);
    }

    /// The same, of a response that is complete, and ends there.
    pub(super) fn until(self, end: u64) -> Extent {
        Extent { piece_end: self.piece_end.min(end), ..self }
    }

    /// How many bytes of its head are among the first `sent` of the output.
    pub(super) fn head_sent(&self, sent: u64) -> u64 {
        sent.clamp(self.head_start, self.head_end) - self.head_start
    }

    /// How many bytes of its content, without framing.
    pub(super) fn content_sent(&self, sent: u64) -> u64 {
        self.before + (sent.clamp(self.piece_start, self.piece_end) - self.piece_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_of_a_response_is_told_from_what_is_sent_of_others() {
        // 50 bytes of others, a head of 20, content of 10, and others again.
        let extent = Extent::new(200, 50, 70, false).until(80);
        for (sent, head, content) in [(0, 0, 0), (50, 0, 0), (60, 10, 0), (70, 20, 0), (75, 20, 5), (99, 20, 10)] {
            assert_eq!((extent.head_sent(sent), extent.content_sent(sent)), (head, content), "{sent}");
        }
        assert_eq!(Extent::default().content_sent(100), 0);
    }

    #[test]
    fn framing_is_no_content() {
        // 20 bytes of head; `3 CRLF abc CRLF`; `5 CRLF defgh CRLF`; `0 CRLF CRLF`.
        let mut extent = Extent::new(200, 0, 20, true);
        assert_eq!(extent.content_sent(20), 0);
        extent.piece(23, 3);
        assert_eq!([22, 24, 26, 28].map(|sent| extent.content_sent(sent)), [0, 1, 3, 3]);
        extent.piece(31, 5);
        assert_eq!([28, 33, 36, 38].map(|sent| extent.content_sent(sent)), [3, 5, 8, 8]);
        assert_eq!(extent.until(43).content_sent(43), 8);
    }
}

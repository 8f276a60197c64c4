//! The body of an answer on its way to whoever asked: in small pieces, so that it shows whether they are taken.
//!
//! Owns that watch over one body. Never ends anything: its connection does.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use crate::clock;

/// Bytes that are handed on at once. What HTTP/2 has it keeps until the reader's window opens, and asks for more then; an
/// answer of megabytes in one piece would be all its, and nobody would see that it stays.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// Since when a piece waits for its reader, in milliseconds of the process clock; 0: none does.
#[derive(Debug, Default)]
pub struct Waiting(AtomicU64);

impl Waiting {
    /// Whether a piece has waited for so many milliseconds.
    pub fn is_for(&self, ms: u64, now_ms: u64) -> bool {
        let since = self.0.load(Ordering::Relaxed);
        since != 0 && now_ms.saturating_sub(since) >= ms
    }

    fn begin(&self) {
        self.0.store(clock::now_ms().max(1), Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A body that notes in [`Waiting`] whether more of it is asked for.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    /// Of the body, and not handed on yet.
    rest: Bytes,
    waiting: Arc<Waiting>,
}

impl Answer {
    /// From now on it waits.
    pub fn new(body: Body, waiting: Arc<Waiting>) -> Answer {
        waiting.begin();
        Answer { body, rest: Bytes::new(), waiting }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        self.waiting.begin();
        Frame::data(self.rest.split_to(self.rest.len().min(PIECE_BYTES_MAX)))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let answer = self.get_mut();
        answer.waiting.end();
        if !answer.rest.is_empty() {
            return Poll::Ready(Some(Ok(answer.piece())));
        }
        let frame = Pin::new(&mut answer.body).poll_frame(cx);
        frame.map(|frame| {
            frame.map(|frame| {
                frame.map(|frame| match frame.into_data() {
                    Ok(data) => {
                        answer.rest = data;
                        answer.piece()
                    }
                    Err(trailers) => trailers,
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.waiting.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(answer: &mut Answer) -> Option<Bytes> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match Pin::new(answer).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }

    #[test]
    fn it_comes_whole_in_small_pieces_and_waits_between_them() {
        let bytes: Bytes = (0..100_000u32).map(|n| n as u8).collect();
        let waiting = Arc::new(Waiting::default());
        let now_ms = clock::now_ms();
        assert!(!waiting.is_for(0, now_ms));
        let mut answer = Answer::new(Body::from(bytes.clone()), waiting.clone());
        let mut taken = Vec::new();
        while !answer.is_end_stream() {
            assert_eq!(answer.size_hint().exact(), Some((bytes.len() - taken.len()) as u64));
            assert!(waiting.is_for(30_000, now_ms + 60_000), "nobody has asked for the next piece");
            let piece = next(&mut answer).unwrap();
            assert!((1..=PIECE_BYTES_MAX).contains(&piece.len()));
            taken.extend(piece);
        }
        assert_eq!(taken, bytes);
        assert!(waiting.is_for(30_000, now_ms + 60_000), "the last piece is on its way");
        drop(answer);
        assert!(!waiting.is_for(0, now_ms + 60_000));
    }

    #[test]
    fn whoever_waits_for_us_takes_what_there_is() {
        let waiting = Arc::new(Waiting::default());
        let never = tokio_stream::pending::<Result<Bytes, std::convert::Infallible>>();
        let mut answer = Answer::new(Body::from_stream(never), waiting.clone());
        assert_eq!(next(&mut answer), None);
        assert!(!waiting.is_for(0, clock::now_ms() + 60_000));
    }
}

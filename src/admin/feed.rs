//! The figures of everything, made once a second for all who listen to them, over REST or gRPC.
//!
//! Owns when they are made and who has them. Never decides what is in them, and never waits for a listener: who is slow
//! misses some.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{StreamExt, adapters::FilterMap};

use super::grpc::v1::WatchStatsResponse;
use super::{figures, grpc};
use crate::control::board::Board;

/// Both forms of the figures.
#[derive(Debug, Default)]
pub struct Feeds {
    events: Feed<Bytes>,
    messages: Feed<Arc<WatchStatsResponse>>,
}

impl Feeds {
    /// Tells whoever listens how things are now; to be called about once a second.
    pub fn tell(&self, board: &Board) {
        self.events.tell(|| figures::event(board));
        self.messages.tell(|| grpc::figures(board));
    }

    /// Events for `GET /api/v1/stats/stream`, ready to be sent.
    pub fn events(&self, board: &Board) -> Listener<Bytes> {
        self.events.listen(|| figures::event(board))
    }

    /// Messages for `WatchStats`.
    pub fn messages(&self, board: &Board) -> Listener<Arc<WatchStatsResponse>> {
        self.messages.listen(|| grpc::figures(board))
    }
}

/// What is told, from now until this is dropped.
pub type Listener<T> = FilterMap<WatchStream<Option<T>>, fn(Option<T>) -> Option<T>>;

/// One form.
#[derive(Debug)]
struct Feed<T> {
    /// `None` while nobody listens: figures of ten thousand backends are kept for nobody.
    last: watch::Sender<Option<T>>,
}

impl<T> Default for Feed<T> {
    fn default() -> Self {
        Feed { last: watch::Sender::new(None) }
    }
}

impl<T: Clone + Send + Sync + 'static> Feed<T> {
    fn tell(&self, make: impl FnOnce() -> T) {
        let is_heard = self.last.receiver_count() > 0;
        self.last.send_replace(is_heard.then(make));
    }

    /// What was told last, at once, and then whatever is told, until the stream is dropped.
    fn listen(&self, make: impl FnOnce() -> T) -> Listener<T> {
        let is_first = self.last.receiver_count() == 0;
        let listener = self.last.subscribe();
        // It doesn't wait for the next second, and what was made for those before may be older than what it knows.
        if is_first {
            self.last.send_replace(Some(make()));
        }
        WatchStream::new(listener).filter_map(|told| told)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn figures_are_made_once_for_all_and_for_nobody_never() {
        let made = Cell::new(0);
        let make = || {
            made.set(made.get() + 1);
            Arc::new(made.get())
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let feed = Feed::default();
            feed.tell(make);
            assert_eq!(made.get(), 0, "nobody listens");
            let (mut one, mut other) = (feed.listen(make), feed.listen(make));
            let first = [one.next().await.unwrap(), other.next().await.unwrap()];
            assert!(*first[0] == 1 && Arc::ptr_eq(&first[0], &first[1]));
            feed.tell(make);
            assert_eq!(*one.next().await.unwrap(), 2);
            feed.tell(make);
            // The slow one has missed the second.
            assert_eq!([*one.next().await.unwrap(), *other.next().await.unwrap()], [3, 3]);
            assert_eq!(made.get(), 3);
            drop((one, other));
            feed.tell(make);
            assert!(feed.last.borrow().is_none(), "what was made is kept for nobody");
            assert_eq!(*feed.listen(make).next().await.unwrap(), 4, "nothing old is told");
        });
    }
}

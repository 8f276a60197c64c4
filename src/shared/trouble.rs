//! The last answers that the proxy made because something was wrong, for whoever wants to know why.
//!
//! Owns a bounded ring for each worker. Written by its worker only when something is wrong, so the lock is nobody's
//! way; should somebody read at that moment, the entry is left out rather than waited for.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::SystemTime;

use crate::error::Reason;

/// Entries that each worker keeps, and that are told in all.
pub const TROUBLES_COUNT_MAX: usize = 1000;

/// One such answer.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// When it was complete.
    pub at: SystemTime,
    /// As in the answer and in the access log.
    pub request_id: String,
    /// Why.
    pub reason: Reason,
    /// What exactly was wrong.
    pub detail: &'static str,
    /// Of the answer.
    pub status: u16,
    /// Name of the rule that matched, if one did. Names, here and below: an entry outlives the plan that it is about.
    pub route: Option<String>,
    /// Whether the rule has a response timeout of its own.
    pub has_own_timeout: bool,
    /// Name of its upstream.
    pub upstream: Option<String>,
    /// Id of the backend that was tried last.
    pub backend: Option<String>,
    /// From whom.
    pub client: Option<IpAddr>,
    /// Empty unless an access log is written: without one nobody notes it.
    pub method: String,
    /// As `method`.
    pub host: String,
    /// As `method`; without the query.
    pub path: String,
    /// Tries after the first.
    pub retries: u32,
}

impl Trouble {
    /// The key of the deadline that passed, where one did, with the name of what it is of.
    pub fn timer(&self) -> Option<String> {
        let timer = self.reason.timer()?;
        if let (Reason::ResponseTimeout, true, Some(route)) = (self.reason, self.has_own_timeout, &self.route) {
            return Some(format!("routing.{route}.response_timeout"));
        }
        Some(timer.replace("NAME", self.upstream.as_deref().unwrap_or("NAME")))
    }
}

/// The ring of one worker.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<VecDeque<Trouble>>);

impl Troubles {
    /// Notes one more; the oldest goes.
    pub fn push(&self, trouble: Trouble) {
        let mut ring = match self.0.try_lock() {
            Ok(ring) => ring,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if ring.len() >= TROUBLES_COUNT_MAX {
            ring.pop_front();
        }
        ring.push_back(trouble);
    }

    /// The last ones of all workers, newest first.
    pub fn last<'a>(rings: impl IntoIterator<Item = &'a Troubles>) -> Vec<Trouble> {
        let mut all = Vec::new();
        for ring in rings {
            all.extend(ring.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        }
        all.sort_by_key(|trouble| std::cmp::Reverse(trouble.at));
        all.truncate(TROUBLES_COUNT_MAX);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn trouble(second: u64) -> Trouble {
        Trouble {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            request_id: second.to_string(),
            reason: Reason::QueueTimeout,
            detail: "",
            status: 503,
            route: None,
            has_own_timeout: false,
            upstream: None,
            backend: None,
            client: None,
            method: String::new(),
            host: String::new(),
            path: String::new(),
            retries: 0,
        }
    }

    #[test]
    fn the_last_of_all_workers_come_newest_first() {
        let rings = [Troubles::default(), Troubles::default()];
        (0..3000).for_each(|second| rings[second as usize % 2].push(trouble(second)));
        let last = Troubles::last(&rings);
        assert_eq!(last.len(), TROUBLES_COUNT_MAX);
        assert!(last.iter().zip((0..3000).rev()).all(|(trouble, second)| trouble.request_id == second.to_string()));
        assert_eq!(last[0].timer().as_deref(), Some("upstreams.NAME.queue.timeout"));
    }
}

//! What lets clients take up an earlier session: tickets and kept sessions, for all workers.
//!
//! Owns how long either is good for and how large it may be. Never decides who is let in: a session that is taken up again
//! is held against the rules of then by [`super::Acceptor::admits`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

use crate::limits::{TLS_SESSION_BYTES_MAX, TLS_SESSIONS_COUNT_MAX, TLS_TICKET_BYTES_MAX};

/// As long as a ticket: its key is in use for six hours, and tells old tickets for six more.
const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Tickets and kept sessions. They live on through a change of certificates, and end with the policy about clients: rustls
/// resumes a session without asking again for what its first handshake asked for.
#[derive(Clone, Debug)]
pub(super) struct Resumption {
    pub tickets: Arc<dyn ProducesTickets>,
    pub sessions: Arc<dyn StoresServerSessions>,
}

impl Resumption {
    /// With keys of its own, which replace themselves every six hours.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Self, rustls::Error> {
        let tickets = Arc::new(Tickets(aws_lc_rs::Ticketer::new()?));
        Ok(Resumption { tickets, sessions: Arc::new(Sessions::new()) })
    }
}

/// Tickets, none of them too large: a ticket has in it the chain that the client showed, and comes back in a hello, which
/// has a bound.
#[derive(Debug)]
struct Tickets(Arc<dyn ProducesTickets>);

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() <= TLS_TICKET_BYTES_MAX { self.0.encrypt(plain) } else { None }
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

/// Sessions of clients that have no tickets (TLS 1.2): a bounded number, each bounded, and forgotten when it is too old.
/// Each is kept behind the second that it came in.
#[derive(Debug)]
struct Sessions {
    kept: Arc<ServerSessionMemoryCache>,
    began: Instant,
}

impl Sessions {
    fn new() -> Self {
        Sessions { kept: ServerSessionMemoryCache::new(TLS_SESSIONS_COUNT_MAX), began: Instant::now() }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    fn put_at(&self, now: u64, id: Vec<u8>, session: &[u8]) -> bool {
        let fits = session.len() <= TLS_SESSION_BYTES_MAX;
        fits && self.kept.put(id, [&now.to_be_bytes(), session].concat())
    }

    fn get_at(&self, now: u64, id: &[u8]) -> Option<Vec<u8>> {
        let session = unless_old(now, self.kept.get(id)?);
        if session.is_none() {
            self.kept.take(id);
        }
        session
    }
}

fn unless_old(now: u64, kept: Vec<u8>) -> Option<Vec<u8>> {
    let (since, session) = kept.split_first_chunk()?;
    let age = now.saturating_sub(u64::from_be_bytes(*since));
    (age <= SESSION_LIFETIME.as_secs()).then(|| session.to_vec())
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        self.put_at(self.now(), id, &session)
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.get_at(self.now(), id)
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        unless_old(self.now(), self.kept.take(id)?)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_kept_for_twelve_hours_and_a_large_one_not_at_all() {
        let sessions = Sessions::new();
        let lifetime = SESSION_LIFETIME.as_secs();
        assert!(sessions.put_at(5, vec![1], b"session"));
        assert_eq!(sessions.get_at(5 + lifetime, &[1]).as_deref(), Some(&b"session"[..]));
        assert_eq!(sessions.get_at(6 + lifetime, &[1]), None);
        assert_eq!(sessions.kept.get(&[1]), None, "its room is free");
        assert!(sessions.put_at(5, vec![2], &[0; TLS_SESSION_BYTES_MAX]));
        assert!(!sessions.put_at(5, vec![3], &[0; TLS_SESSION_BYTES_MAX + 1]));
        assert_eq!((sessions.get_at(5, &[3]), sessions.take(&[2]).map(|two| two.len())), (None, Some(4096)));
    }

    #[test]
    fn a_ticket_has_a_bound() {
        let tickets = Resumption::new().unwrap().tickets;
        let ticket = tickets.encrypt(&[7; TLS_TICKET_BYTES_MAX]).unwrap();
        assert_eq!(tickets.decrypt(&ticket).map(|plain| plain.len()), Some(TLS_TICKET_BYTES_MAX));
        assert_eq!(tickets.encrypt(&[7; TLS_TICKET_BYTES_MAX + 1]), None);
    }
}

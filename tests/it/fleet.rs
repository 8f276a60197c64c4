//! Several origins as the backends of one upstream, each of which says who it is.
//!
//! Owns their names and their part of the configuration. Never starts a proxy.

use std::io;

use crate::client::Client;
use crate::origin::{self, Exchange, Next, Origin};
use crate::proxy::Proxy;
use crate::wait;

/// Origins by id; every one answers its id to whatever [`origin::by_path`] has no answer of its own for.
pub struct Fleet {
    members: Vec<(String, Origin)>,
}

impl Fleet {
    /// One origin for each id.
    pub fn of(ids: &[&str]) -> Fleet {
        Fleet::scripted(ids, says_its_name)
    }

    /// As [`Fleet::of`], with a script that is told which one it is.
    pub fn scripted(
        ids: &[&str],
        script: impl Fn(&str, &mut Exchange) -> io::Result<Next> + Clone + Send + Sync + 'static,
    ) -> Fleet {
        let member = |id: &&str| {
            let (id, own, script) = ((*id).to_owned(), (*id).to_owned(), script.clone());
            (id, Origin::start(move |exchange| script(&own, exchange)))
        };
        Fleet { members: ids.iter().map(member).collect() }
    }

    /// The origin of that id.
    pub fn origin(&self, id: &str) -> &Origin {
        let found = self.members.iter().find(|(own, _)| own == id);
        found.map(|(_, origin)| origin).unwrap_or_else(|| panic!("no member {id}"))
    }

    /// Section `backends` with one upstream `default`; `keys` gives further keys of each.
    pub fn backends<'a>(&self, keys: impl Fn(&str) -> &'a str) -> String {
        let entry = |(id, origin): &(String, Origin)| {
            format!("{{id: {id}, host: 127.0.0.1, port: {}, {}}}", origin.port(), keys(id))
        };
        let entries: Vec<String> = self.members.iter().map(entry).collect();
        format!("backends: {{default: [{}]}}\n", entries.join(", "))
    }

    /// All sections: `keys` of each backend, of the upstream, and of the one route.
    pub fn sections<'a>(&self, keys: impl Fn(&str) -> &'a str, upstream: &str, route: &str) -> String {
        let backends = self.backends(keys);
        format!(
            "{backends}upstreams: {{default: {{{upstream}}}}}\nrouting: {{default: {{upstream: default, {route}}}}}\n"
        )
    }

    /// Requests that came to each, in the order of the ids.
    pub fn requests(&self) -> Vec<usize> {
        self.members.iter().map(|(_, origin)| origin.requests().len()).collect()
    }

    /// Requests that came to all.
    pub fn requests_in_all(&self) -> usize {
        self.requests().iter().sum()
    }
}

/// Answers `id`, but for the paths that mean something to [`origin::by_path`].
pub fn says_its_name(id: &str, exchange: &mut Exchange) -> io::Result<Next> {
    match exchange.path() {
        "/" | "/who" => exchange.answer(200, id.as_bytes()),
        _ => origin::by_path(exchange),
    }
}

/// Who answers a request over a connection of its own.
pub fn who(proxy: &Proxy) -> String {
    proxy.client().get("/who").text()
}

/// Who answers each of `n` requests over one connection.
pub fn who_all(client: &mut Client, n: usize) -> Vec<String> {
    (0..n).map(|_| client.get("/who").text()).collect()
}

/// How often `id` is among `answers`.
pub fn count(answers: &[String], id: &str) -> usize {
    answers.iter().filter(|answer| *answer == id).count()
}

/// Waits until a request gets 200: for an upstream whose only slot is given back a moment after the answer's end.
#[track_caller]
pub fn wait_for_a_slot(proxy: &Proxy) {
    wait::until("a free slot", || proxy.client().get("/who").status == 200);
}

//! The attacks there are: their names, and what each does.
//!
//! Owns the list. Never sends anything.

/// One attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Requests that are reset, at once and when they are at the backend.
    RapidReset,
    /// Requests that the server has to reset: their window overflows.
    WindowOverflow,
    /// Requests that the server has to reset: DATA after their end.
    DataAfterEnd,
    /// Requests that the server may have to reset: they depend on themselves.
    SelfPriority,
    /// One block that never ends, in CONTINUATION frames.
    Continuation,
    /// References of one byte to a large field of the dynamic table.
    HpackBomb,
    /// References of one byte to a crumb of a cookie.
    CookieCrumbs,
    /// Large answers to streams without a window, which grows by a byte at a time.
    ZeroWindow,
    /// PING without end, the answers unread.
    Ping,
    /// SETTINGS without end, the acknowledgements unread.
    Settings,
    /// Empty DATA frames on an open request.
    EmptyData,
    /// Streams with an empty block.
    EmptyHeaders,
    /// WINDOW_UPDATE by one byte, without end.
    WindowUpdate,
    /// TLS handshakes whose first flight comes a byte at a time.
    SlowHandshake,
    /// Full TLS handshakes, one after the other, and nothing after them.
    HandshakeFlood,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 15] = [
        Kind::RapidReset,
        Kind::WindowOverflow,
        Kind::DataAfterEnd,
        Kind::SelfPriority,
        Kind::Continuation,
        Kind::HpackBomb,
        Kind::CookieCrumbs,
        Kind::ZeroWindow,
        Kind::Ping,
        Kind::Settings,
        Kind::EmptyData,
        Kind::EmptyHeaders,
        Kind::WindowUpdate,
        Kind::SlowHandshake,
        Kind::HandshakeFlood,
    ];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::RapidReset => "rapid-reset",
            Kind::WindowOverflow => "window-overflow",
            Kind::DataAfterEnd => "data-after-end",
            Kind::SelfPriority => "self-priority",
            Kind::Continuation => "continuation",
            Kind::HpackBomb => "hpack-bomb",
            Kind::CookieCrumbs => "cookie-crumbs",
            Kind::ZeroWindow => "zero-window",
            Kind::Ping => "ping",
            Kind::Settings => "settings",
            Kind::EmptyData => "empty-data",
            Kind::EmptyHeaders => "empty-headers",
            Kind::WindowUpdate => "window-update",
            Kind::SlowHandshake => "slow-handshake",
            Kind::HandshakeFlood => "handshake-flood",
        }
    }

    /// What it does, in a line.
    pub fn purpose(self) -> &'static str {
        match self {
            Kind::RapidReset => "requests that are reset, at once and when they are at the backend",
            Kind::WindowOverflow => "requests that the server has to reset: their window overflows",
            Kind::DataAfterEnd => "requests that the server has to reset: DATA after their end",
            Kind::SelfPriority => "requests that the server may have to reset: they depend on themselves",
            Kind::Continuation => "one block that never ends, in CONTINUATION frames",
            Kind::HpackBomb => "references of one byte to a large field of the dynamic table",
            Kind::CookieCrumbs => "references of one byte to a crumb of a cookie",
            Kind::ZeroWindow => "large answers to streams without a window, which grows by a byte at a time",
            Kind::Ping => "PING without end, the answers unread",
            Kind::Settings => "SETTINGS without end, the acknowledgements unread",
            Kind::EmptyData => "empty DATA frames on an open request",
            Kind::EmptyHeaders => "streams with an empty block",
            Kind::WindowUpdate => "WINDOW_UPDATE by one byte, without end",
            Kind::SlowHandshake => "TLS handshakes whose first flight comes a byte at a time",
            Kind::HandshakeFlood => "full TLS handshakes, one after the other, and nothing after them",
        }
    }

    /// Whether it attacks TLS itself, and so needs it.
    pub fn is_of_tls(self) -> bool {
        matches!(self, Kind::SlowHandshake | Kind::HandshakeFlood)
    }

    /// Whether what comes back stays unread.
    pub fn is_deaf(self) -> bool {
        matches!(self, Kind::Ping | Kind::Settings)
    }

    /// Connections at once, unless their number is given.
    pub fn connections(self) -> usize {
        match self {
            Kind::SlowHandshake => 500,
            Kind::HandshakeFlood => 8,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn names_are_those_of_the_command_line() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
        }
        assert_eq!(Kind::value_variants().len(), Kind::ALL.len());
    }
}

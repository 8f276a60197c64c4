//! Which kinds of fields end at a hop, and which nobody may edit: the one place that says so.
//!
//! Owns these sets. Never looks at a message; what depends on one is added by its writer.

use crate::http::head::FieldKind;

/// A set of field kinds; whether a kind is in it is a matter of one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds(u64);

impl Kinds {
    pub const NONE: Kinds = Kinds(0);

    pub const fn of(kinds: &[FieldKind]) -> Kinds {
        let mut set = Kinds::NONE;
        let mut i = 0;
        while i < kinds.len() {
            set = set.with_if(true, kinds[i]);
            i += 1;
        }
        set
    }

    /// Those of both sets.
    pub const fn and(self, others: Kinds) -> Kinds {
        Kinds(self.0 | others.0)
    }

    /// With `kind` too when that `applies`.
    pub const fn with_if(self, applies: bool, kind: FieldKind) -> Kinds {
        Kinds(self.0 | (applies as u64) << kind as u32)
    }

    pub const fn has(self, kind: FieldKind) -> bool {
        self.0 >> kind as u32 & 1 == 1
    }
}

/// Fields about one connection (RFC 9110, section 7.6.1); the proxy makes those of its own.
const CONNECTION: Kinds = Kinds::of(&[
    FieldKind::Connection,
    FieldKind::Http2Settings,
    FieldKind::KeepAlive,
    FieldKind::ProxyConnection,
    FieldKind::Te,
    FieldKind::TransferEncoding,
    FieldKind::Upgrade,
]);

/// Fields that end here whichever way a message goes: those of the connection, those between a client and its next proxy
/// (RFC 9110, section 11.7), and look-alikes.
pub(super) const HOP_BY_HOP: Kinds = CONNECTION.and(Kinds::of(&[
    FieldKind::ProxyAuthenticate,
    FieldKind::ProxyAuthenticationInfo,
    FieldKind::ProxyAuthorization,
    FieldKind::LookAlike,
]));

/// Fields that the proxy has to get right for a message to be one: routes can't edit them.
const OWN: Kinds = CONNECTION.and(Kinds::of(&[FieldKind::ContentLength, FieldKind::Expect, FieldKind::Trailer]));

/// What edits are never appended for: `Host` has its own place.
pub(super) const RESERVED: Kinds = OWN.with_if(true, FieldKind::Host);

/// Fields that tell the way of a message; a `Connection` option can't take them off.
pub(super) const PROVENANCE: Kinds = Kinds::of(&[
    FieldKind::ClientCert,
    FieldKind::Date,
    FieldKind::Forwarded,
    FieldKind::Via,
    FieldKind::XForwardedHost,
    FieldKind::XForwardedOther,
    FieldKind::XForwardedProto,
    FieldKind::XRealIp,
]);

/// Whether a field of that name, or with underscores for its dashes, frames a message or belongs to one connection, so
/// that the proxy makes it itself and routes can't edit it. `Host` is none of them: a rule may set it.
pub fn is_own_field(name: &str) -> bool {
    OWN.has(FieldKind::of(name.replace('_', "-").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_connection_and_the_framing_are_the_proxys_own() {
        let own = "Connection content-length Expect HTTP2-Settings keep-alive Proxy-Connection TE trailer \
                   TRANSFER-ENCODING Upgrade Content_Length transfer_encoding";
        assert!(own.split_whitespace().all(is_own_field));
        let others = "Host Via Date Cookie X-Forwarded-For Proxy-Authorization Content-Type X-Own content";
        assert!(!others.split_whitespace().any(is_own_field));
    }
}

//! The sticky cookie: which backend it names, and that nobody but this proxy said so.
//!
//! Owns the cookie's value: `hex(backend hash) "." hex(truncated HMAC-SHA-256)`. Never decides whether the backend is still
//! eligible, and tells nobody the backend's id or address.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::plan::Sticky;

const TAG_BYTES: usize = 12;
const VALUE_BYTES: usize = 16 + 1 + TAG_BYTES * 2;

/// Signs and reads the cookie of one upstream.
#[derive(Debug)]
pub struct Signer {
    key: [u8; 32],
    upstream: String,
    conf: Sticky,
}

impl Signer {
    /// The key comes from the configured secret, else from the machine's id, so that cookies outlive restarts.
    pub fn new(upstream: &str, conf: &Sticky) -> Signer {
        let secret = conf.secret.as_ref().map_or_else(machine_secret, |s| s.reveal().as_bytes().to_vec());
        let mut key = [0u8; 32];
        key.copy_from_slice(&tag(&secret, &[b"speedmimi sticky cookie"]));
        Signer { key, upstream: upstream.to_owned(), conf: conf.clone() }
    }

    /// The name of the cookie.
    pub fn cookie(&self) -> &str {
        &self.conf.cookie
    }

    /// The hash of the backend that a cookie's value names, if this proxy signed it for this upstream.
    pub fn read(&self, value: &[u8]) -> Option<u64> {
        if value.len() != VALUE_BYTES || value[16] != b'.' {
            return None;
        }
        let hash = u64::from_str_radix(std::str::from_utf8(&value[..16]).ok()?, 16).ok()?;
        let expected = self.value(hash);
        // Every byte is looked at whatever comes before it, so that timing tells nothing.
        let differing = expected.bytes().zip(value).fold(0, |all, (a, &b)| all | (a ^ b));
        (differing == 0).then_some(hash)
    }

    /// The `Set-Cookie` value that binds a client to the backend of that hash.
    pub fn set_cookie(&self, hash: u64, secure: bool) -> String {
        let mut line = format!("{}={}; Path=/; HttpOnly; SameSite=Lax", self.conf.cookie, self.value(hash));
        if !self.conf.ttl.is_zero() {
            line.push_str(&format!("; Max-Age={}", self.conf.ttl.as_secs()));
        }
        if secure {
            line.push_str("; Secure");
        }
        line
    }

    fn value(&self, hash: u64) -> String {
        let tag = tag(&self.key, &[self.upstream.as_bytes(), &[0], &hash.to_be_bytes()]);
        let mut value = format!("{hash:016x}.");
        for byte in &tag[..TAG_BYTES] {
            value.push_str(&format!("{byte:02x}"));
        }
        value
    }
}

fn tag(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length; the error type of the constructor can't occur.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Finds the machine's secret now: workers open no files.
pub fn prepare() {
    machine_secret();
}

/// Something that stays over restarts and that clients can't guess: systemd's machine id, else luck once per process.
fn machine_secret() -> Vec<u8> {
    static SECRET: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    SECRET
        .get_or_init(|| match std::fs::read("/etc/machine-id") {
            Ok(id) if id.len() >= 32 => id,
            _ => (0..4).flat_map(|_| fastrand::u64(..).to_be_bytes()).collect(),
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::Secret;

    fn signer(upstream: &str) -> Signer {
        let conf =
            Sticky { cookie: "b".into(), ttl: std::time::Duration::from_secs(60), secret: Some(Secret::new("s")) };
        Signer::new(upstream, &conf)
    }

    #[test]
    fn a_signed_value_reads_back_and_a_changed_one_does_not() {
        let value = signer("api").value(0x1234_5678_9abc_def0);
        assert_eq!(signer("api").read(value.as_bytes()), Some(0x1234_5678_9abc_def0));
        assert_eq!(signer("web").read(value.as_bytes()), None, "another upstream");
        for i in 0..value.len() {
            let mut forged = value.clone().into_bytes();
            forged[i] = if forged[i] == b'0' { b'1' } else { b'0' };
            assert_eq!(signer("api").read(&forged), None, "byte {i}");
        }
        assert_eq!(signer("api").read(b""), None);
    }

    #[test]
    fn the_cookie_tells_its_lifetime_and_no_name() {
        let line = signer("api").set_cookie(1, true);
        assert!(
            line.starts_with("b=0000000000000001.") && line.contains("Max-Age=60") && line.ends_with("Secure"),
            "{line}"
        );
    }
}

//! The address that is loaded: a URL on this machine only.
//!
//! Owns the refusal of anything else: a load generator must not be a weapon by a slip of the keyboard.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// A checked `http://` URL on a loopback address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to connect to.
    pub address: SocketAddr,
    /// For the `Host` field.
    pub host: String,
    /// Begins with `/`; `None` when the URL has no path.
    pub path: Option<String>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Target, String> {
        let rest = url.strip_prefix("http://").ok_or(format!("`{url}` does not begin with http://"))?;
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(rest[at..].to_owned())),
            None => (rest, None),
        };
        if path.as_ref().is_some_and(|p| !p.bytes().all(|b| b.is_ascii_graphic() && b != b'#')) {
            return Err(format!("`{url}` has a path that can't be sent"));
        }
        let address = address(host).ok_or(format!("`{host}` is no ADDRESS or ADDRESS:PORT"))?;
        if !address.ip().is_loopback() {
            return Err(format!("{} is not on this machine; only loopback addresses are loaded", address.ip()));
        }
        Ok(Target { address, host: host.to_owned(), path })
    }
}

fn address(host: &str) -> Option<SocketAddr> {
    if let Some(port) = host.strip_prefix("localhost:") {
        return Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.parse().ok()?));
    }
    host.parse().ok().or_else(|| Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, 80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_taken() {
        let target: Target = "http://127.0.0.2:81/a?b".parse().unwrap();
        assert_eq!((target.address.to_string().as_str(), target.path.as_deref()), ("127.0.0.2:81", Some("/a?b")));
        assert!("http://localhost:8080".parse::<Target>().is_ok());
        assert!("http://[::1]:8080/".parse::<Target>().is_ok());
    }

    #[test]
    fn everything_else_is_refused() {
        for url in [
            "http://10.0.0.1:80/",
            "http://0.0.0.0:80/",
            "http://[::ffff:10.0.0.1]:80/",
            "http://example.com/",
            "http://localhost.example.com:80/",
            "https://127.0.0.1/",
            "127.0.0.1:80",
            "http://127.0.0.1:80/a b",
        ] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }
}

//! The address that is loaded: a URL on this machine only.
//!
//! Owns the refusal of anything else: a load generator must not be a weapon by a slip of the keyboard.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// A checked `http://` or `https://` URL on a loopback address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether it is `https://`.
    pub tls: bool,
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
        let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(format!("`{url}` does not begin with http:// or https://")),
        };
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(rest[at..].to_owned())),
            None => (rest, None),
        };
        if path.as_ref().is_some_and(|p| !p.bytes().all(|b| b.is_ascii_graphic() && b != b'#')) {
            return Err(format!("`{url}` has a path that can't be sent"));
        }
        let address =
            address(host, if tls { 443 } else { 80 }).ok_or(format!("`{host}` is no ADDRESS or ADDRESS:PORT"))?;
        if !address.ip().is_loopback() {
            return Err(format!("{} is not on this machine; only loopback addresses are loaded", address.ip()));
        }
        Ok(Target { tls, address, host: host.to_owned(), path })
    }
}

impl Target {
    /// Plain HTTP on this machine.
    pub fn local(port: u16) -> Target {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Target { tls: false, address, host: address.to_string(), path: None }
    }

    /// The scheme's name.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The host without its port: what a certificate has to be for.
    pub fn name(&self) -> String {
        match self.host.strip_prefix("localhost:") {
            Some(_) => "localhost".to_owned(),
            None => self.address.ip().to_string(),
        }
    }
}

fn address(host: &str, port: u16) -> Option<SocketAddr> {
    if let Some(port) = host.strip_prefix("localhost:") {
        return Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.parse().ok()?));
    }
    host.parse().ok().or_else(|| Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_taken() {
        let target: Target = "http://127.0.0.2:81/a?b".parse().unwrap();
        assert_eq!((target.address.to_string().as_str(), target.path.as_deref()), ("127.0.0.2:81", Some("/a?b")));
        assert!("http://localhost:8080".parse::<Target>().is_ok());
        let target: Target = "https://localhost:8443/".parse().unwrap();
        assert!(target.tls && target.name() == "localhost");
        assert_eq!("https://127.0.0.1".parse::<Target>().unwrap().address.port(), 443);
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
            "https://10.0.0.1/",
            "ftp://127.0.0.1/",
            "127.0.0.1:80",
            "http://127.0.0.1:80/a b",
        ] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }
}

//! The address that is loaded: a URL on this machine, unless the user says that he owns another one.
//!
//! Owns the refusal of anything else: a load generator must not be a weapon by a slip of the keyboard.

use crate::error::{Error, Result, Trying};
use crate::namespace;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// An `http://` or `https://` URL as it was typed: well-formed, and not checked for where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    place: Place,
    host: String,
    path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    At(SocketAddr),
    Named(String, u16),
}

/// A URL that may be loaded.
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

impl FromStr for Url {
    type Err = String;

    fn from_str(url: &str) -> std::result::Result<Url, String> {
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
        let place = place(host, if tls { 443 } else { 80 })
            .ok_or_else(|| format!("`{host}` is no ADDRESS, NAME, ADDRESS:PORT or NAME:PORT"))?;
        Ok(Url { tls, place, host: host.to_owned(), path })
    }
}

impl Url {
    /// What it names, when that may be loaded: a loopback address; an address of this machine's own in a network
    /// namespace that is not the machine's; anything, a name included, when the user says that it is his.
    ///
    /// # Errors
    /// When it may not be loaded, or its name can't be resolved.
    pub fn target(&self, owned: bool) -> Result<Target> {
        let address = match &self.place {
            Place::At(address) => *address,
            Place::Named(name, port) if owned => {
                let mut found = (name.as_str(), *port).to_socket_addrs().trying(|| format!("resolving {name}"))?;
                found.next().ok_or_else(|| Error::Failed(format!("{name} has no address")))?
            }
            Place::Named(name, _) => {
                return Err(Error::Usage(format!(
                    "`{name}` is a name: only loopback addresses and `localhost` are loaded, unless you say with \
                     --i-own-this-target that the target is yours"
                )));
            }
        };
        if !owned && !address.ip().is_loopback() && !namespace::is_private_address(address.ip()) {
            return Err(Error::Usage(format!(
                "{} is not on this machine: only loopback addresses are loaded, and addresses of this machine in a \
                 network namespace of a test, unless you say with --i-own-this-target that the target is yours",
                address.ip()
            )));
        }
        Ok(Target { tls: self.tls, address, host: self.host.clone(), path: self.path.clone() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.host, self.path.as_deref().unwrap_or_default())
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> std::result::Result<Target, String> {
        url.parse::<Url>()?.target(false).map_err(|error| error.to_string())
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
        if self.host.starts_with('[') || self.host.parse::<IpAddr>().is_ok() {
            return self.address.ip().to_string();
        }
        self.host.split_once(':').map_or(self.host.as_str(), |(name, _)| name).to_owned()
    }

    /// Whether further loopback addresses can be connected from.
    pub fn has_sources(&self) -> bool {
        self.address.is_ipv4() && self.address.ip().is_loopback()
    }
}

fn place(host: &str, port: u16) -> Option<Place> {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return Some(Place::At(address));
    }
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(Place::At(SocketAddr::new(ip, port)));
    }
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (host, port),
    };
    if name.eq_ignore_ascii_case("localhost") {
        return Some(Place::At(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
    }
    let is_name =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    is_name.then(|| Place::Named(name.to_owned(), port))
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
        assert_eq!("https://[::1]/".parse::<Target>().unwrap().name(), "::1");
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

    #[test]
    fn who_owns_it_may_load_it() {
        let target = "http://192.0.2.1:80/x".parse::<Url>().unwrap().target(true).unwrap();
        assert_eq!((target.address.to_string().as_str(), target.has_sources()), ("192.0.2.1:80", false));
        assert!("http://".parse::<Url>().is_err() && "http://a b:80/".parse::<Url>().is_err());
        let refused = "http://example.com/".parse::<Url>().unwrap().target(false).unwrap_err();
        assert!(refused.to_string().contains("--i-own-this-target"), "{refused}");
    }
}

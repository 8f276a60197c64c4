//! Whom to ask: the address of management and the token, from the command line, the environment or a configuration.
//!
//! Owns their reading. Never shows a token.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use hyper::Uri;
use hyper::header::HeaderValue;

use crate::config::plan::{Management, Secret};

/// Management as it is reached from here.
#[derive(Clone, Debug)]
pub struct Target {
    host: String,
    port: u16,
    authorization: Option<HeaderValue>,
}

impl Target {
    /// By its URL: `http://HOST:PORT`, with or without a slash at the end.
    ///
    /// # Errors
    /// What is wrong with it and what is allowed.
    pub fn from_url(url: &str) -> Result<Target, String> {
        let fault = |wrong: &str| format!("--url: {wrong} (allowed: http://HOST:PORT, as http://127.0.0.1:9091)");
        let uri: Uri = url.parse().map_err(|_| fault("this is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(fault("management has no TLS; tunnel to its address and name that")),
            _ => return Err(fault("this is no URL of HTTP")),
        }
        let authority = uri.authority().ok_or_else(|| fault("there is no host"))?;
        // `user:password@host` would be shown and is not what is asked for.
        if authority.as_str().contains('@') {
            return Err(fault("a user has no place there"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(fault("there is a path"));
        }
        let port = authority.port_u16().filter(|&port| port > 0).ok_or_else(|| fault("there is no port"))?;
        Ok(Target { host: authority.host().to_owned(), port, authorization: None })
    }

    /// Where a configuration says that it is.
    ///
    /// # Errors
    /// When the address is not known before the proxy runs.
    pub fn from_configuration(conf: &Management) -> Result<Target, String> {
        if conf.addr.port() == 0 {
            return Err("grpc.port: 0 means one that is free; its log tells which: name that with --url".to_owned());
        }
        let addr = SocketAddr::new(reachable(conf.addr.ip()), conf.addr.port());
        let host = addr.to_string();
        let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
        Ok(Target { host: host.to_owned(), port: addr.port(), authorization: None })
    }

    /// With that token.
    ///
    /// # Errors
    /// When it can't be sent.
    pub fn with_token(mut self, token: &Secret) -> Result<Target, String> {
        let value = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
        let mut value = value.map_err(|_| "the token: allowed are visible ASCII characters".to_owned())?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// What is sent to be let in.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// The host as a resolver takes it.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// `HOST:PORT`, as in the `Host` field.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An address that leads to whoever listens at `ip` of this machine.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// The token that a configuration has for whoever looks: the one that may only look, where there is one.
///
/// # Errors
/// When its file can't be used.
pub fn token_of(conf: &Management) -> Result<Option<Secret>, String> {
    match (&conf.read_token, &conf.token, &conf.token_file) {
        (Some(token), _, _) | (None, Some(token), _) => Ok(Some(token.clone())),
        (None, None, Some(path)) => read_token(path, "grpc.token_file").map(Some),
        (None, None, None) => Ok(None),
    }
}

/// The first line of a file.
///
/// # Errors
/// When it can't be used, by the name of what named it.
pub fn read_token(path: &Path, named_by: &str) -> Result<Secret, String> {
    crate::control::entrance::read_token(path).map_err(|error| format!("{named_by}: {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_a_port_and_nothing_else() {
        for (url, host, shown) in [
            ("http://127.0.0.1:9091", "127.0.0.1", "127.0.0.1:9091"),
            ("http://localhost:80/", "localhost", "localhost:80"),
            ("http://[::1]:9091", "::1", "[::1]:9091"),
        ] {
            let target = Target::from_url(url).unwrap();
            assert_eq!((target.host(), target.to_string().as_str()), (host, shown));
        }
        for url in [
            "",
            "127.0.0.1:9091",
            "http://",
            "http://127.0.0.1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "http://h:1/path",
            "http://h:1/?q",
            "http://user@h:1",
            "https://h:1",
            "ftp://h:1",
            "http://h :1",
        ] {
            let fault = Target::from_url(url).unwrap_err();
            assert!(fault.starts_with("--url: ") && fault.contains("http://HOST:PORT"), "{url}: {fault}");
        }
    }

    #[test]
    fn a_configuration_leads_to_its_own_management() {
        let conf = |addr: &str| Management {
            addr: addr.parse().unwrap(),
            token: Some(Secret::new("everything")),
            token_file: None,
            report_token: None,
            read_token: None,
            allowed_hosts: Vec::new(),
            persist: true,
        };
        for (addr, reached) in
            [("0.0.0.0:9091", "127.0.0.1:9091"), ("[::]:1", "[::1]:1"), ("192.0.2.1:2", "192.0.2.1:2")]
        {
            let target = Target::from_configuration(&conf(addr)).unwrap();
            assert_eq!(target.to_string(), reached);
        }
        assert!(Target::from_configuration(&conf("127.0.0.1:0")).is_err());
        let weaker = Management { read_token: Some(Secret::new("only looks")), ..conf("127.0.0.1:1") };
        assert_eq!(token_of(&weaker).unwrap(), Some(Secret::new("only looks")));
        assert_eq!(token_of(&conf("127.0.0.1:1")).unwrap(), Some(Secret::new("everything")));
    }

    #[test]
    fn a_token_is_never_shown() {
        let target = Target::from_url("http://h:1").unwrap().with_token(&Secret::new("hush-hush")).unwrap();
        assert!(!format!("{target:?} {target}").contains("hush"));
        assert!(target.with_token(&Secret::new("two\nlines")).is_err());
    }
}

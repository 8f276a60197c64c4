//! Where management is served and who may come in: what control hands to the server of management.
//!
//! Owns the binding of the port and the reading of the token's file. Never serves a request.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::plan::{Management, Secret};
use crate::listen::{self, BindError};

/// Bytes of a token at least; as for the keys of the configuration.
const TOKEN_BYTES_MIN: usize = 8;
/// Bytes of a token's file at most.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Management from now on: its section of the plan with the token found.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrance {
    /// The section.
    pub conf: Arc<Management>,
    /// Who sends it may do everything; `None`: anybody from this machine may.
    pub token: Option<Secret>,
    /// Where it listens: the real port where port 0 was asked for.
    pub addr: SocketAddr,
}

impl Entrance {
    /// Whether the same tokens allow the same.
    pub fn has_tokens_of(&self, other: &Entrance) -> bool {
        let tokens = |entrance: &Entrance| {
            (entrance.token.clone(), entrance.conf.read_token.clone(), entrance.conf.report_token.clone())
        };
        tokens(self) == tokens(other)
    }
}

/// Management as it is served now.
#[derive(Debug)]
pub struct Standing {
    /// How.
    pub entrance: Entrance,
    /// Where: a second descriptor, through which room is made for another address of the same port.
    pub listener: Option<TcpListener>,
}

impl Standing {
    /// Takes back that room was made.
    ///
    /// # Errors
    /// That somebody else has the address now.
    pub fn listen_again(&self) -> io::Result<()> {
        self.listener.as_ref().map_or(Ok(()), |listener| listen::listen_again(listener, self.entrance.addr))
    }
}

/// Management as it is going to be.
#[derive(Debug)]
pub struct Prepared {
    /// For its server.
    pub opening: Opening,
    /// What is wrong and held up nothing.
    pub warning: Option<String>,
}

/// What the server of management is told.
#[derive(Debug)]
pub enum Opening {
    /// Serve there, and nowhere else.
    At(Entrance, TcpListener),
    /// Go on where you are, by these tokens.
    Same(Entrance),
    /// Serve no more.
    Closed,
}

/// Why management can't be served.
#[derive(Debug)]
pub enum EntranceError {
    /// The address can't be had.
    Bind(BindError),
    /// The token's file can't be used.
    Token(PathBuf, io::Error),
}

impl fmt::Display for EntranceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntranceError::Bind(error) => {
                write!(f, "management: {error}; its keys are grpc.host and grpc.port, grpc.enabled: false goes without")
            }
            EntranceError::Token(path, error) => write!(f, "grpc.token_file: {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for EntranceError {}

/// What has to change for management to be as `conf` says; `now` is how it is. The token in use stays where its file
/// can't be read any more: no change that has nothing to do with it waits for its cure.
///
/// # Errors
/// When the address, or the token of another file than before, can't be had; management stays as it is then.
pub fn prepare(conf: Option<&Arc<Management>>, now: Option<&Standing>) -> Result<Prepared, EntranceError> {
    let Some(conf) = conf else { return Ok(Prepared { opening: Opening::Closed, warning: None }) };
    let entrance = now.map(|now| &now.entrance);
    let (token, warning) = match (&conf.token_file, entrance.filter(|now| now.conf.token_file == conf.token_file)) {
        (None, _) => (conf.token.clone(), None),
        (Some(path), before) => match (read_token(path), before) {
            (Ok(token), _) => (Some(token), None),
            (Err(error), Some(before)) => {
                let error = EntranceError::Token(path.clone(), error);
                (before.token.clone(), Some(format!("{error} (the token in use stays)")))
            }
            (Err(error), None) => return Err(EntranceError::Token(path.clone(), error)),
        },
    };
    if let Some(now) = entrance.filter(|now| now.conf.addr == conf.addr) {
        let opening = Opening::Same(Entrance { conf: conf.clone(), token, addr: now.addr });
        return Ok(Prepared { opening, warning });
    }
    let before = now.and_then(|now| now.listener.as_ref());
    let listener = listen::open_management(conf.addr, before).map_err(EntranceError::Bind)?;
    let addr = listener.local_addr().unwrap_or(conf.addr);
    Ok(Prepared { opening: Opening::At(Entrance { conf: conf.clone(), token, addr }, listener), warning })
}

/// The token in a file: its first line.
///
/// # Errors
/// When it can't be read, is longer than 4096 bytes, or its first line is shorter than 8.
pub fn read_token(path: &Path) -> io::Result<Secret> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        // A pipe would be waited for, a device might never end.
        return Err(invalid("is no regular file; allowed: a file whose first line is the token"));
    }
    if meta.len() > TOKEN_BYTES_MAX {
        return Err(invalid("is longer than 4096 bytes; allowed: one line with the token"));
    }
    let text = std::fs::read_to_string(path)?;
    let token = text.lines().next().unwrap_or("").trim();
    if token.len() < TOKEN_BYTES_MIN {
        return Err(invalid("its first line has fewer than 8 bytes (openssl rand -hex 32 makes a good one)"));
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn management(addr: &str, token_file: Option<PathBuf>) -> Arc<Management> {
        Arc::new(Management {
            addr: addr.parse().unwrap(),
            token: None,
            token_file,
            report_token: None,
            read_token: None,
            allowed_hosts: Vec::new(),
            persist: true,
        })
    }

    #[test]
    fn the_port_is_bound_anew_only_when_it_moves() {
        let conf = management("127.0.0.1:0", None);
        let (standing, _listener) = standing(&conf);
        let addr = standing.entrance.addr;
        let again = prepare(Some(&conf), Some(&standing)).unwrap().opening;
        assert!(matches!(again, Opening::Same(same) if same.addr == addr));
        // Nobody else's port is taken over.
        let taken = management(&addr.to_string(), None);
        let error = prepare(Some(&taken), None).unwrap_err().to_string();
        assert!(error.contains("grpc.port"), "{error}");
        assert!(matches!(prepare(None, Some(&standing)).unwrap().opening, Opening::Closed));
    }

    fn standing(conf: &Arc<Management>) -> (Standing, TcpListener) {
        let Ok(Prepared { opening: Opening::At(entrance, listener), warning: None }) = prepare(Some(conf), None) else {
            panic!()
        };
        assert_eq!(entrance.addr, listener.local_addr().unwrap());
        (Standing { entrance, listener: listener.try_clone().ok() }, listener)
    }

    #[test]
    fn another_address_of_the_same_port_is_had_and_given_back() {
        let (local, listener) = standing(&management("127.0.0.1:0", None));
        let (here, port) = (local.entrance.addr, local.entrance.addr.port());
        let wide = management(&format!("0.0.0.0:{port}"), None);
        let comes_in = |addr: SocketAddr| std::net::TcpStream::connect(addr).is_ok();
        let Opening::At(entrance, wide_listener) = prepare(Some(&wide), Some(&local)).unwrap().opening else {
            panic!()
        };
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], port));
        assert!(entrance.addr == wide.addr && comes_in(elsewhere) && comes_in(here));
        // Given up.
        drop(wide_listener);
        assert!(!comes_in(here));
        local.listen_again().unwrap();
        assert!(comes_in(here) && !comes_in(elsewhere));
        // Somebody else on the port is still in the way, and nothing has changed.
        let _other = TcpListener::bind(elsewhere).unwrap();
        assert!(prepare(Some(&wide), Some(&local)).is_err());
        assert!(comes_in(here));
        drop(listener);
    }

    #[test]
    fn a_token_whose_file_is_gone_stays_and_another_file_has_to_be_there() {
        let path = std::env::temp_dir().join(format!("speedmimi-token-gone-{}", std::process::id()));
        std::fs::write(&path, "0123456789\n").unwrap();
        let conf = management("127.0.0.1:0", Some(path.clone()));
        let (standing, _listener) = standing(&conf);
        std::fs::remove_file(&path).unwrap();
        let Prepared { opening: Opening::Same(same), warning } = prepare(Some(&conf), Some(&standing)).unwrap() else {
            panic!()
        };
        assert_eq!(same.token, Some(Secret::new("0123456789")));
        assert!(warning.is_some_and(|warning| warning.contains("grpc.token_file") && warning.contains("stays")));
        let elsewhere = management("127.0.0.1:0", Some(path.with_extension("other")));
        assert!(matches!(prepare(Some(&elsewhere), Some(&standing)), Err(EntranceError::Token(..))));
    }

    #[test]
    fn a_token_is_the_first_line_of_its_file() {
        let path = std::env::temp_dir().join(format!("speedmimi-token-{}", std::process::id()));
        let try_with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            prepare(Some(&management("127.0.0.1:0", Some(path.clone()))), None)
        };
        assert!(
            matches!(try_with("0123456789\n\n").unwrap().opening, Opening::At(e, _) if e.token == Some(Secret::new("0123456789")))
        );
        assert!(try_with("short\n").unwrap_err().to_string().contains("fewer than 8 bytes"));
        assert!(try_with(&"x".repeat(5000)).is_err());
        let device = management("127.0.0.1:0", Some("/dev/zero".into()));
        assert!(prepare(Some(&device), None).unwrap_err().to_string().contains("no regular file"));
        std::fs::remove_file(&path).unwrap();
        assert!(prepare(Some(&management("127.0.0.1:0", Some(path))), None).is_err());
    }
}

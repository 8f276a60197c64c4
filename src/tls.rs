//! TLS: certificates from their files, what clients are offered, and how backends are spoken to.
//!
//! Owns rustls' configurations and when one takes another's place. Never touches a socket: the handshake and the bytes of
//! a connection are `stream`'s.

mod acceptor;
mod certificate;
mod connector;
mod files;
mod loaded;
mod names;
mod resumption;
#[cfg(test)]
mod tests;
mod trust;

pub use acceptor::{Acceptor, Hello, take_hello};
pub use certificate::{Certificate, Standing, Validity};
pub use connector::Connector;
pub use files::FileFault;
pub use loaded::{Loaded, Reading};

//! HTTP/2 as a strict outsider speaks it: frames, header compression, and what both ends of a connection do alike.
//!
//! Owns wire to values and back, without sockets or clock. Never shares a codec with the proxy that is measured: one that
//! does would not see its faults.

pub mod client;
pub mod fields;
pub mod frame;
pub mod hpack;
pub mod huffman;
pub mod link;
pub mod server;

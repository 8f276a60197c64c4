//! A request's life, from the bytes of its head to the line in the log.

pub mod answer;
pub mod client;
pub mod dial;
pub mod exchange;
pub mod http2;
pub mod intake;
pub mod lease;
pub mod local;
pub mod log;
pub mod outflow;
pub mod relay;
pub mod reply;
pub mod secure;
pub mod select;
pub mod shared;
pub mod tunnel;
pub mod turns;
pub mod upload;

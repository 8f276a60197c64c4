//! Measures HTTP proxies from the outside: a load generator, a backend, a bare relay, and a comparison of them side by
//! side. Never depends on the proxy that it measures and shares no code with it.
//!
//! From the ground up: [`error`], [`amount`], [`body`], [`http`] and [`h2`] are pure; `sys` holds the unsafe code; [`net`],
//! [`slab`], [`proc`], [`target`], [`cert`] and [`tls`] are tools; [`conns`] (HTTP/1.1) and [`streams`] (HTTP/2), as
//! [`clients`], ask for [`load`] and [`idle`];
//! [`origin`] and [`relay`] serve; [`compare`] runs all of them as child processes, [`calibrate`] makes constants of it;
//! [`attack`] is the client that nobody wants.

#![deny(unsafe_code)]

pub mod amount;
pub mod attack;
pub mod body;
pub mod calibrate;
pub mod cert;
pub mod clients;
pub mod compare;
pub mod conns;
pub mod error;
pub mod h2;
pub mod http;
pub mod idle;
pub mod load;
pub mod net;
pub mod origin;
pub mod pin;
pub mod proc;
pub mod relay;
pub mod slab;
pub mod stats;
pub mod streams;
mod sys;
pub mod target;
pub mod tls;
pub mod websocket;

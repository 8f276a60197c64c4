//! Measures HTTP proxies from the outside: a load generator, a backend, a bare relay, and a comparison of them side by
//! side. Never depends on the proxy that it measures and shares no code with it.
//!
//! From the ground up: [`error`], [`amount`], [`body`] and [`http`] are pure; `sys` holds the unsafe code; [`net`],
//! [`slab`], [`proc`] and [`target`] are tools; [`conns`] drives client connections for [`load`] and [`idle`];
//! [`origin`] and [`relay`] serve; [`compare`] runs all of them as child processes.

#![deny(unsafe_code)]

pub mod amount;
pub mod body;
pub mod compare;
pub mod conns;
pub mod error;
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
mod sys;
pub mod target;
pub mod websocket;

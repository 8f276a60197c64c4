//! Measures HTTP proxies from the outside: a load generator, a backend, a bare relay, and a comparison of them side by
//! side. Never depends on the proxy that it measures and shares no code with it.
//!
//! From the ground up: [`error`], [`amount`], [`body`], [`http`] and [`h2`] are pure; `sys` holds the unsafe code; [`net`],
//! [`slab`], [`proc`], [`kernel`], [`target`], [`cert`] and [`tls`] are tools; [`conns`] (HTTP/1.1), [`streams`] (HTTP/2) and
//! [`events`], as [`clients`], ask for [`load`], [`idle`] and [`hold`] what [`traffic`] says;
//! [`stages`] loads more and more, and makes a [`report`] of it with what [`machine`] it was on;
//! [`origin`] and [`relay`] serve; [`compare`] and [`million`] run all of them as child processes, the latter in a [`network`]
//! of its own; [`calibrate`] makes constants of it; [`attack`] is the client that nobody wants.

#![deny(unsafe_code)]

pub mod amount;
pub mod attack;
pub mod body;
pub mod calibrate;
pub mod cert;
mod children;
pub mod clients;
pub mod compare;
pub mod conns;
mod dir;
pub mod error;
pub mod events;
pub mod h2;
pub mod hold;
pub mod http;
pub mod idle;
pub mod interrupt;
pub mod kernel;
pub mod load;
pub mod machine;
pub mod million;
mod namespace;
pub mod net;
pub mod network;
pub mod origin;
pub mod pin;
pub mod proc;
pub mod relay;
pub mod report;
pub mod slab;
pub mod stages;
pub mod stats;
pub mod streams;
mod sys;
pub mod target;
pub mod tls;
pub mod traffic;
pub mod websocket;

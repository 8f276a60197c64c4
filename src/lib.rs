//! SpeedMimi: an HTTP reverse proxy and load balancer for very many concurrent connections.
//!
//! The modules stand in floors, lowest first; each may use those before it and none after it (`tests/tidy.rs` holds
//! this). `ARCHITECTURE.md` tells the way of a request through them.

pub mod admin;
pub mod balance;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod error;
pub mod handover;
pub mod health;
pub mod http;
pub mod limits;
pub mod listen;
pub mod logging;
pub mod park;
pub mod proxy;
pub mod route;
pub mod server;
pub mod service;
pub mod shared;
pub mod stamp;
pub mod stream;
pub mod sys;
pub mod tls;
pub mod upstream;
pub mod wheel;
pub mod worker;

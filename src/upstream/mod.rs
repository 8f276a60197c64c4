//! Connections to backends: opening them and keeping them for the next exchange.

pub mod connect;
pub mod pool;
pub mod sticky;
pub mod trunks;
pub mod view;

//! Integration tests over real sockets: one binary, a module a topic.
//!
//! `client` and `origin` are the two ends between which the proxy is put; `harness` tests them against each other.
//! Never sleeps to wait for something and never uses a fixed port.

#[allow(dead_code)]
mod api;
#[allow(dead_code)]
mod client;
#[allow(dead_code)]
mod dir;
#[allow(dead_code)]
mod frames;
#[allow(dead_code)]
mod h2_origin;
#[allow(dead_code)]
mod origin;
#[allow(dead_code)]
mod peer2;
#[allow(dead_code)]
mod pki;
#[allow(dead_code)]
mod proxy;
#[allow(dead_code)]
mod wait;
#[allow(dead_code)]
mod websocket;
#[allow(dead_code)]
mod wire;

mod access_log;
mod address;
mod admin;
mod balance;
mod bodies;
mod cancel;
mod certificates;
mod conformance;
mod drain;
mod faults;
mod figures;
mod fleet;
mod grpc;
mod grpc_calls;
mod h1;
mod h2_backend;
mod harness;
mod health;
mod http2;
mod http2_attacks;
mod http2_faults;
mod limits;
mod monitoring;
mod openapi;
mod park;
mod persist;
mod reload;
mod retry;
mod review;
mod rotation;
mod routing;
mod seats;
mod spread;
mod stream;
mod strict;
mod tls;
mod translated;
mod truth;
mod tunnel;
mod tunnel_ends;

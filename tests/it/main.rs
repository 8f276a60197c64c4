//! Integration tests over real sockets: one binary, a module a topic.
//!
//! `client` and `origin` are the two ends between which the proxy is put; `harness` tests them against each other.
//! Never sleeps to wait for something and never uses a fixed port.

// The ends offer more than the tests of any one day use.
#[allow(dead_code)]
mod client;
#[allow(dead_code)]
mod origin;
#[allow(dead_code)]
mod proxy;
#[allow(dead_code)]
mod until;
#[allow(dead_code)]
mod websocket;
#[allow(dead_code)]
mod wire;

mod balance;
mod bodies;
mod change;
mod conformance;
mod failure;
mod h1;
mod harness;
mod limits;
mod peer;
mod reasons;
mod stream;
mod tunnel;
mod tunnel_ends;

//! `speedmimi-bench`: measures HTTP proxies from the outside. Shares no code with the proxy.

fn main() {}

//! The `speedmimi` program: hands the command line to [`speedmimi`] and returns its exit status.

fn main() {}

//! A connection that is handed over to a worker whose descriptor table is full.
//!
//! Owns its process (one test, its own binary): what other threads have open would be missed in the table of the test's
//! own, in which nobody else can run out.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::{iter, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use speedmimi::handover::{Doors, Handed, Inside};
use speedmimi::sys;
use tokio::runtime::Builder;

#[test]
fn a_connection_waits_where_there_is_no_descriptor_for_it() {
    // A limit of a billion, as some containers have, is not to be filled.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(maximum.map_or(256, |most| most.min(256))), maximum }).unwrap();
    let full_table = || {
        sys::take_own_table(&[0, 1, 2], &[]).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (doors, mut insides) = Doors::new(&[Arc::default(), Arc::default()]).unwrap();
            let inside = Inside::new(insides.remove(1)).unwrap();
            let (mut near, far) = UnixStream::pair().unwrap();
            let peer = "192.0.2.7:4711".parse().unwrap();
            doors.hand(1, Handed { fd: far.into(), peer, listener: 3 }).unwrap();
            let filling: Vec<_> = iter::repeat_with(|| near.try_clone()).map_while(Result::ok).collect();
            assert!(std::future::poll_fn(|cx| inside.poll_take(cx)).await.is_err());
            drop(filling);
            let handed = std::future::poll_fn(|cx| inside.poll_take(cx)).await.unwrap();
            drop(handed);
            assert_eq!(near.read(&mut [0]).unwrap(), 0, "no other copy of it is left open");
            let mut cx = Context::from_waker(Waker::noop());
            assert!(inside.poll_take(&mut cx).is_pending(), "it is taken once");
        });
    };
    thread::spawn(full_table).join().unwrap();
}

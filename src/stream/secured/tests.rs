//! Two ends of a session against each other, over sockets whose buffers are small.
//!
//! Owns what holds for the bytes of a session, however they come. Never looks into HTTP.

use super::*;
use std::future::poll_fn;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, ServerName};

struct Pair {
    server: Secured,
    client: Secured,
}

fn configs() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder().with_no_client_auth();
    let server = server.with_single_cert(vec![cert.der().clone()], key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Two ends of a socket whose buffers are small, so that both sides have to wait.
fn sockets() -> (Socket, Socket) {
    let (near, far) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let small = |socket: socket2::Socket| {
        socket.set_nonblocking(true).unwrap();
        socket.set_send_buffer_size(8 * 1024).unwrap();
        Socket::new(socket.into()).unwrap()
    };
    (small(near), small(far))
}

async fn shaken() -> Pair {
    let (server_config, client_config) = configs();
    let (near, far) = sockets();
    let name = ServerName::try_from("localhost").unwrap();
    let client = Secured::connect(near, client_config, name, &Rc::default()).unwrap();
    let server = Secured::accept(far, server_config, false, &Rc::default(), Vec::new()).unwrap();
    let (at_client, at_server) = tokio::join!(
        poll_fn(|cx| client.poll_handshake(cx, |_| Poll::Ready(()))),
        poll_fn(|cx| server.poll_handshake(cx, |_| Poll::Ready(()))),
    );
    at_client.unwrap();
    at_server.unwrap();
    Pair { server, client }
}

fn on_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

async fn send_all(to: &Secured, parts: &[&[u8]]) {
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let total: usize = parts.iter().map(|part| part.len()).sum();
    assert_eq!(poll_fn(|cx| to.poll_send(cx, &slices)).await.unwrap(), total, "all or nothing");
    poll_fn(|cx| to.poll_flush(cx)).await.unwrap();
    assert_eq!(to.unsent(), 0);
}

async fn receive(from: &Secured, wanted: usize) -> Vec<u8> {
    let (mut got, mut room) = (Vec::new(), vec![0; SCRATCH_BYTES]);
    while got.len() < wanted {
        let n = poll_fn(|cx| from.poll_recv(cx, &mut room)).await.unwrap();
        assert!(n > 0, "ended after {}", got.len());
        got.extend_from_slice(&room[..n]);
    }
    got
}

#[test]
fn what_is_sent_in_parts_of_any_size_arrives_whole_both_ways() {
    on_runtime(async {
        let Pair { server, client } = shaken().await;
        let bytes: Vec<u8> = (0..300_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
        let sizes = [1, 0, 16_383, 16_384, 16_385, 100, 65_536, 40_000, 131_000];
        for (from, to) in [(&server, &client), (&client, &server)] {
            let (mut parts, mut rest): (Vec<&[u8]>, _) = (Vec::new(), &bytes[..]);
            for size in sizes {
                let (part, behind) = rest.split_at(size);
                parts.push(part);
                rest = behind;
            }
            let total = bytes.len() - rest.len();
            let ((), got) = tokio::join!(send_all(from, &parts), receive(to, total));
            assert!(got == bytes[..total]);
        }
    });
}

#[test]
fn what_the_socket_does_not_take_waits_and_nothing_is_taken_before_it_went() {
    on_runtime(async {
        let Pair { server, client } = shaken().await;
        let big = vec![7; 400_000];
        assert_eq!(server.send(&[IoSlice::new(&big)]).unwrap(), big.len());
        assert!(server.unsent() > 300_000);
        assert_eq!(server.send(&[IoSlice::new(b"next")]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let flushed = async {
            poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
            send_all(&server, &[b"next"]).await;
        };
        let ((), got) = tokio::join!(flushed, receive(&client, big.len() + 4));
        assert!(got[..big.len()] == big && got.ends_with(b"next"));
    });
}

#[test]
fn an_orderly_end_is_told_from_a_cut() {
    on_runtime(async {
        let Pair { server, client } = shaken().await;
        let mut room = vec![0; SCRATCH_BYTES];
        send_all(&server, &[b"last"]).await;
        server.shutdown_write();
        assert_eq!(receive(&client, 4).await, b"last");
        assert!(!client.is_quiet(), "the end waits");
        assert_eq!(poll_fn(|cx| client.poll_recv(cx, &mut room)).await.unwrap(), 0);
        // The other way still works.
        send_all(&client, &[b"answer"]).await;
        assert_eq!(receive(&server, 6).await, b"answer");
        drop(client);
        let cut = poll_fn(|cx| server.poll_recv(cx, &mut room)).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_parked_session_goes_on_and_tickets_are_no_bytes() {
    on_runtime(async {
        let Pair { server, client } = shaken().await;
        // Session tickets came behind the handshake: a connection that has nothing else to read is quiet.
        assert!(client.is_quiet() && server.is_quiet());
        let room = server.inner.borrow().room.clone();
        let (fd, idle) = server.into_parts();
        assert_eq!(room.sessions(), 1);
        assert!(room.bytes() > size_of::<Inner>(), "a session is counted: {}", room.bytes());
        {
            let held = idle.0.borrow();
            assert_eq!((held.partial.capacity(), held.unsent.capacity(), held.opened.capacity()), (0, 0, 0));
        }
        let server = Secured::resume(Socket::new(fd).unwrap(), idle);
        send_all(&client, &[b"again"]).await;
        let mut buf = vec![0; SCRATCH_BYTES];
        poll_fn(|cx| server.poll_readable(cx)).await.unwrap();
        assert_eq!(server.recv(&mut buf).unwrap(), 5);
        assert_eq!(server.recv(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(server);
        assert_eq!(room.sessions(), 0);
    });
}

#[test]
fn who_is_no_tls_peer_is_told_by_an_alert() {
    on_runtime(async {
        let (server_config, _) = configs();
        let (near, far) = sockets();
        let server =
            Secured::accept(far, server_config, false, &Rc::default(), b"GET / HTTP/1.1\r\n\r\n".to_vec()).unwrap();
        let error = poll_fn(|cx| server.poll_handshake(cx, |_| Poll::Ready(()))).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut alert = [0; 16];
        let n = near.recv(&mut alert).unwrap();
        assert_eq!((n, alert[0]), (7, 21), "an alert record");
    });
}

#[test]
fn bytes_that_drip_in_are_put_together() {
    on_runtime(async {
        let Pair { server, client } = shaken().await;
        // Sealed by the client, dripped by hand.
        let (raw_client, far) = sockets();
        let (fd, idle) = client.into_parts();
        drop(fd);
        let client = Secured::resume(raw_client, idle);
        client.send(&[IoSlice::new(b"slowly")]).unwrap();
        let mut sealed = [0; 256];
        let n = far.recv(&mut sealed).unwrap();
        let (near, wire) = sockets();
        let (fd, idle) = server.into_parts();
        drop(fd);
        let server = Secured::resume(near, idle);
        let mut room = vec![0; SCRATCH_BYTES];
        for byte in &sealed[..n - 1] {
            wire.send(&[IoSlice::new(std::slice::from_ref(byte))]).unwrap();
            poll_fn(|cx| server.poll_readable(cx)).await.unwrap();
            let read = poll_fn(|cx| Poll::Ready(server.poll_recv(cx, &mut room))).await;
            assert!(read.is_pending());
        }
        wire.send(&[IoSlice::new(&sealed[n - 1..n])]).unwrap();
        assert_eq!(poll_fn(|cx| server.poll_recv(cx, &mut room)).await.unwrap(), 6);
        assert_eq!(&room[..6], b"slowly");
    });
}

#[test]
fn a_parked_half_record_is_kept_to_the_byte() {
    on_runtime(async {
        let Pair { server, client } = shaken().await;
        let (raw_client, far) = sockets();
        let (fd, idle) = client.into_parts();
        drop(fd);
        let client = Secured::resume(raw_client, idle);
        client.send(&[IoSlice::new(&[7; 3000])]).unwrap();
        let mut sealed = [0; 4096];
        let n = far.recv(&mut sealed).unwrap();
        let (near, wire) = sockets();
        let (fd, idle) = server.into_parts();
        drop(fd);
        let mut server = Secured::resume(near, idle);
        let mut room = vec![0; SCRATCH_BYTES];
        let mut came = 0;
        for piece in sealed[..n - 1].chunks(1001) {
            wire.send(&[IoSlice::new(piece)]).unwrap();
            poll_fn(|cx| server.poll_readable(cx)).await.unwrap();
            assert!(poll_fn(|cx| Poll::Ready(server.poll_recv(cx, &mut room))).await.is_pending());
            came += piece.len();
            let (fd, idle) = server.into_parts();
            assert_eq!(idle.0.borrow().partial.capacity(), came);
            server = Secured::resume(Socket::new(fd).unwrap(), idle);
        }
        wire.send(&[IoSlice::new(&sealed[n - 1..n])]).unwrap();
        assert_eq!(poll_fn(|cx| server.poll_recv(cx, &mut room)).await.unwrap(), 3000);
    });
}

/// A hello of so many bytes, in records of `RECORD_BYTES_MAX`; nothing of it is looked at before it is whole.
fn endless_hello(bytes: usize) -> Vec<u8> {
    let message = [&[1, 0, 0xff, 0xff], &vec![3; bytes][..]].concat();
    let record = |piece: &[u8]| [&[22, 3, 1][..], &(piece.len() as u16).to_be_bytes(), piece].concat();
    message.chunks(RECORD_BYTES_MAX).flat_map(record).collect()
}

#[test]
fn what_an_unknown_client_may_leave_with_us_is_bounded_and_counted() {
    on_runtime(async {
        let (server_config, _) = configs();
        let room = Rc::<Room>::default();
        let (near, far) = sockets();
        // As to whoever asks for certificates: not before the hello is whole.
        let server = Secured::accept(far, server_config, true, &room, Vec::new()).unwrap();
        let hello = endless_hello(HELLO_BYTES_MAX);
        let (mut sent, mut failed) = (0, None);
        while failed.is_none() && sent < hello.len() {
            let n = near.send(&[IoSlice::new(&hello[sent..(sent + 1000).min(hello.len())])]).unwrap();
            sent += n;
            poll_fn(|cx| server.poll_readable(cx)).await.unwrap();
            match poll_fn(|cx| Poll::Ready(server.poll_handshake(cx, |_| Poll::Ready(())))).await {
                Poll::Ready(done) => failed = done.err(),
                Poll::Pending => assert_eq!(room.held.get(), sent, "exactly"),
            }
        }
        assert!(failed.is_some() && sent > HELLO_BYTES_MAX, "{sent}: {failed:?}");
        assert!(room.held.get() < CONTROL_BYTES, "{}", room.held.get());
        drop(server);
        assert_eq!(room.held.get(), 0);
    });
}

#[test]
fn who_wants_little_has_few_records_opened() {
    on_runtime(async {
        let Pair { server, client } = shaken().await;
        // Sockets that hold many records, so that one read could bring them all.
        let (near, far) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        let [server, client] = [(server, near), (client, far)].map(|(end, socket)| {
            socket.set_nonblocking(true).unwrap();
            Secured::resume(Socket::new(socket.into()).unwrap(), end.into_parts().1)
        });
        let bytes = vec![7; 200_000];
        let mut got = 0;
        let taken = async {
            let mut room = [0; 1000];
            while got < bytes.len() {
                got += poll_fn(|cx| server.poll_recv(cx, &mut room)).await.unwrap();
                assert!(server.inner.borrow().opened.len() < 2 * RECORD_BYTES_MAX);
            }
        };
        let parts: [&[u8]; 1] = [&bytes];
        tokio::join!(send_all(&client, &parts), taken);
    });
}

#[test]
fn what_a_session_holds_is_counted_and_half_a_record_is_not_quiet() {
    on_runtime(async {
        let Pair { server, client } = shaken().await;
        assert!(client.is_quiet());
        let room = client.inner.borrow().room.clone();
        assert_eq!(room.held.get(), 0);
        client.send(&[IoSlice::new(&vec![7; 400_000])]).unwrap();
        assert!(room.held.get() > 300_000 && room.bytes() > room.held.get());
        // As much of the first record as the socket took.
        let mut buf = [0; 64];
        poll_fn(|cx| server.poll_readable(cx)).await.unwrap();
        assert!(poll_fn(|cx| Poll::Ready(server.poll_recv(cx, &mut buf))).await.is_pending());
        let at_server = server.inner.borrow().room.held.get();
        assert!(at_server > 0 && at_server == server.inner.borrow().partial.len(), "{at_server}");
        // A record of which the end is still to come.
        let (fd, idle) = server.into_parts();
        rustix::net::send(&fd, &[23, 3, 3, 1, 0, 7], SendFlags::NOSIGNAL).unwrap();
        assert!(!client.is_quiet(), "it has just come");
        assert!(!client.is_quiet(), "it came before");
        drop((client, idle));
        assert_eq!(room.held.get(), 0);
    });
}

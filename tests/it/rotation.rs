//! Certificates replaced while clients shake hands: none is refused, each gets the newest, and nothing is left of the old.
//!
//! Owns handshakes without a pause, and what each was shown. When files are read, and what of bad ones, is `certificates`'.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use speedmimi::tls::{Acceptor, Certificate};

use crate::api::Api;
use crate::dir::Dir;
use crate::origin::WATCHDOG;
use crate::pki::Pki;
use crate::proxy::Proxy;
use crate::wait;
use crate::wire::lock;

const THREADS: usize = 2;

/// A handshake that came off, with its request answered.
struct Shaken {
    began: Instant,
    shown: CertificateDer<'static>,
}

/// Clients that shake hands in full, each time on a new connection.
struct Storm {
    ends: Arc<AtomicBool>,
    shaken: Arc<Mutex<Vec<Shaken>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Storm {
    /// Asks for these names in turn, and trusts these authorities alone.
    fn begin(addr: SocketAddr, roots: Arc<RootCertStore>, names: &[String]) -> Storm {
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        let (ends, shaken) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let thread = |_| {
            let (config, ends, shaken, names) = (config.clone(), ends.clone(), shaken.clone(), names.to_vec());
            thread::spawn(move || {
                let asked = names.iter().cycle().take_while(|_| !ends.load(Ordering::Relaxed));
                for name in asked {
                    let began = Instant::now();
                    let shown = shake(addr, &config, name).unwrap_or_else(|e| panic!("a handshake for {name}: {e}"));
                    lock(&shaken).push(Shaken { began, shown });
                }
            })
        };
        Storm { threads: (0..THREADS).map(thread).collect(), ends, shaken }
    }

    /// Waits for so many handshakes more.
    fn wait_for(&self, more: usize) {
        let until = lock(&self.shaken).len() + more;
        self.wait_until("handshakes", |shaken| shaken.len() >= until);
    }

    fn wait_until(&self, what: &str, done: impl Fn(&[Shaken]) -> bool) {
        wait::until(what, || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a handshake failed; see above");
            done(&lock(&self.shaken))
        });
    }

    fn end(self) -> Vec<Shaken> {
        self.ends.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("handshakes that come off"));
        std::mem::take(&mut lock(&self.shaken))
    }
}

/// One handshake, and an answer to show that the other side was content, too.
fn shake(addr: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> io::Result<CertificateDer<'static>> {
    let bare = TcpStream::connect(addr)?;
    bare.set_nodelay(true)?;
    bare.set_read_timeout(Some(WATCHDOG))?;
    let name_asked = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let session = ClientConnection::new(config.clone(), name_asked).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, bare);
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
    }
    let shown = stream.conn.peer_certificates().and_then(|chain| chain.first());
    shown.map(|own| own.clone().into_owned()).ok_or_else(|| io::Error::other("no certificate"))
}

/// A proxy with management that shows these pairs; the first is the default one.
fn start(dir: &Path, names: &[String]) -> (Proxy, Api) {
    let pair = |name: &String| {
        let path = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
        format!("cert_file: {}, key_file: {}", path("crt"), path("key"))
    };
    let more: Vec<String> = names[1..].iter().map(|name| format!("{{{}}}", pair(name))).collect();
    let sections = format!(
        "ssl: {{enabled: true, {}, certificates: [{}]}}\ngrpc: {{port: 0}}\nrouting: {{r: {{respond: {{}}}}}}\n",
        pair(&names[0]),
        more.join(", ")
    );
    let proxy = Proxy::start(&[("workers", "2")], &sections);
    let api = Api::of(&proxy);
    (proxy, api)
}

/// Once it comes back, every worker has what the files say. A fast machine asks more often than management answers.
#[track_caller]
fn reload(api: &Api) {
    wait::until("a reload", || {
        let (status, done) = api.ask("POST", "/api/v1/config/reload-ssl");
        assert!(status == 200 || status == 429, "{status} {done}");
        status == 200
    });
}

#[test]
fn no_handshake_fails_while_certificates_are_replaced() {
    const REPLACED: usize = 30;
    const SHAKEN_EACH: usize = 100;
    let pki = Pki::new("rotation");
    let names = ["a.test".to_owned()];
    let issue = || pki.issue(&["a.test"]).chain[0].clone();
    let mut issued = vec![issue()];
    let (proxy, api) = start(&pki.dir.path(""), &names);
    let storm = Storm::begin(proxy.addr(), pki.roots(), &names);
    // From when on no handshake may begin with an older one.
    let mut in_use = vec![Instant::now()];
    for _ in 0..REPLACED {
        storm.wait_for(SHAKEN_EACH);
        issued.push(issue());
        reload(&api);
        in_use.push(Instant::now());
    }
    // The last one without a word. The first worker to have it is seen; the call comes back when the others have.
    issued.push(issue());
    storm.wait_until("the look at the files", |shaken| {
        shaken.last().is_some_and(|last| last.shown == issued[REPLACED + 1])
    });
    reload(&api);
    in_use.push(Instant::now());
    storm.wait_for(SHAKEN_EACH);
    let shaken = storm.end();
    let mut shown = vec![0; issued.len()];
    for one in &shaken {
        let which = issued.iter().position(|issued| *issued == one.shown).expect("one of ours");
        let at_least = in_use.iter().rposition(|since| *since <= one.began).unwrap_or(0);
        assert!(which >= at_least, "number {which}, when number {at_least} was in use");
        shown[which] += 1;
    }
    assert!(shown.iter().all(|times| *times > 0), "each was shown: {shown:?}");
    let stats = proxy.stats();
    assert_eq!((stats.handshakes_full, stats.handshakes_failed), (shaken.len() as u64, 0));
}

/// What was in use once, and must not be held by anybody any more.
#[derive(Default)]
struct Old {
    acceptors: Vec<Weak<Acceptor>>,
    configs: Vec<Weak<ServerConfig>>,
    certificates: Vec<Weak<Certificate>>,
}

impl Old {
    fn add(&mut self, proxy: &Proxy) {
        let published = proxy.board().shown().published.clone();
        let acceptor = published.tls.as_ref().expect("TLS");
        self.acceptors.push(Arc::downgrade(acceptor));
        self.configs.push(Arc::downgrade(acceptor.config()));
        self.certificates.extend(acceptor.certificates().iter().map(Arc::downgrade));
    }

    /// How many of each are held still.
    fn held(&self) -> (usize, usize, usize) {
        fn held<T>(all: &[Weak<T>]) -> usize {
            all.iter().filter(|one| one.strong_count() > 0).count()
        }
        (held(&self.acceptors), held(&self.configs), held(&self.certificates))
    }
}

#[test]
fn nothing_is_left_of_certificates_that_were_replaced() {
    const REPLACED: usize = 200;
    const CERTIFICATES: usize = 100;
    let names: Vec<String> = (0..CERTIFICATES).map(|at| format!("n{at}.test")).collect();
    let pkis = [Pki::new("rotation-even"), Pki::new("rotation-odd")];
    pkis.iter().for_each(|pki| names.iter().for_each(|name| drop(pki.issue(&[name]))));
    let mut roots = (*pkis[0].roots()).clone();
    roots.extend(pkis[1].roots().roots.iter().cloned());
    let dir = Dir::new("rotation-link");
    let turn = |at: usize| {
        symlink(pkis[at % 2].dir.path(""), dir.path("new")).expect("a link");
        fs::rename(dir.path("new"), dir.path("data")).expect("a rename");
    };
    turn(0);
    let (proxy, api) = start(&dir.path("data"), &names);
    let storm = Storm::begin(proxy.addr(), Arc::new(roots), &names);
    let mut old = Old::default();
    for at in 1..=REPLACED {
        storm.wait_for(THREADS);
        old.add(&proxy);
        turn(at);
        reload(&api);
    }
    storm.wait_for(CERTIFICATES);
    storm.end();
    proxy.wait_for_open(0);
    wait::until("the last of the old", || old.held() == (0, 0, 0));
    assert_eq!((old.acceptors.len(), old.certificates.len()), (REPLACED, REPLACED * CERTIFICATES));
    assert_eq!(proxy.stats().handshakes_failed, 0);
}

//! `speedmimi top`: its pictures from a recorded stream, and the built program with and without a terminal.
//!
//! Owns pseudoterminals and the processes on them. `SPEEDMIMI_BLESS=1 cargo test --test top` draws the manual's picture
//! anew. The recording, `top/stream.txt.gz`, is a minute of `GET /api/v1/stats/stream`.

#[path = "it/dir.rs"]
mod dir;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use rustix::process::{Pid, Signal, kill_process};
use speedmimi::cli::top::events::EventParser;
use speedmimi::cli::top::feed::{self, News, Trouble};
use speedmimi::cli::top::figures::{Expiry, Figures, Tls};
use speedmimi::cli::top::picture::{self, Ink};
use speedmimi::cli::top::terminal::Screen;
use speedmimi::cli::top::view::View;

use dir::Dir;

/// Nothing here takes longer, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

#[track_caller]
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

mod pictures {
    use super::*;

    const PLAIN: Ink = Ink { is_coloured: false };

    fn recorded() -> Vec<u8> {
        let mut text = Vec::new();
        let packed: &[u8] = include_bytes!("top/stream.txt.gz");
        GzDecoder::new(packed).read_to_end(&mut text).expect("the recording");
        text
    }

    fn all_figures() -> Vec<Figures> {
        let (mut parser, mut all) = (EventParser::default(), Vec::new());
        for piece in recorded().chunks(1000) {
            parser.push(piece, |event| all.push(*feed::figures(&event).expect("figures"))).expect("events");
        }
        assert!(all.len() > 60, "{} events", all.len());
        all
    }

    fn view(now: Instant) -> View {
        let mut view = View::new("127.0.0.1:9091");
        all_figures().into_iter().for_each(|figures| view.take(News::Figures(Box::new(figures)), now));
        view
    }

    fn drawn(view: &mut View, ink: Ink, now: Instant, width: u16, height: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal of memory");
        let mut page = None;
        let draw = |frame: &mut ratatui::Frame<'_>| {
            page = Some(picture::draw(view, ink, now, frame.area(), frame.buffer_mut()));
        };
        terminal.draw(draw).expect("a picture");
        view.settle(page.expect("a page"));
        terminal.backend().buffer().clone()
    }

    fn seen(view: &mut View, now: Instant, width: u16, height: u16) -> String {
        picture::lines(&drawn(view, PLAIN, now, width, height))
    }

    fn press(view: &mut View, code: KeyCode) {
        view.press(KeyEvent::new(code, KeyModifiers::NONE));
    }

    #[test]
    fn the_manual_shows_what_is_drawn() {
        let now = Instant::now();
        let drawn = seen(&mut view(now), now, 80, 24);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
        let page = fs::read_to_string(&path).expect("the manual");
        let fence = "```\n";
        let (before, rest) = page.split_once("<!-- picture of top -->\n```text\n").expect("the picture's place");
        let (_, after) = rest.split_once(fence).expect("the picture's end");
        let fresh = format!("{before}<!-- picture of top -->\n```text\n{drawn}{fence}{after}");
        if std::env::var_os("SPEEDMIMI_BLESS").is_some() {
            fs::write(&path, &fresh).expect("the manual");
        } else {
            assert!(
                page == fresh,
                "docs/operations.md: run SPEEDMIMI_BLESS=1 cargo test --test top; drawn is\n{drawn}"
            );
        }
    }

    #[test]
    fn a_small_terminal_has_all_that_matters() {
        let now = Instant::now();
        let text = seen(&mut view(now), now, 80, 24);
        for word in ["1,", "p99.9", "5xx", "parked", "event streams", "CPU", "Memory", "denied", "ejected"] {
            assert!(text.contains(word), "{word} is missing in\n{text}");
        }
        for id in ["shop-1", "shop-2", "shop-3", "shop-old", "search-a", "search-b"] {
            assert!(text.lines().any(|line| line.trim_start().starts_with(id)), "{id} is missing in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_large_one_has_workers_and_reasons_beside_the_table() {
        let now = Instant::now();
        let text = seen(&mut view(now), now, 120, 40);
        for word in ["WORKER", "OWN ANSWERS", "longest ms"] {
            assert!(text.contains(word), "{word} is missing in\n{text}");
        }
        assert!(!text.contains("ADDRESS"), "no room for it:\n{text}");
        assert!(seen(&mut view(now), now, 170, 40).contains("ADDRESS"));
    }

    #[test]
    fn no_size_is_too_small() {
        let now = Instant::now();
        let mut views = [View::new("nobody:1"), view(now), view(now), view(now)];
        press(&mut views[2], KeyCode::Char('?'));
        views[3].take(News::Lost(Trouble::Ended), now);
        for view in &mut views {
            let text = seen(view, now, 20, 5);
            assert_eq!(text.lines().count(), 5);
            for (width, height) in (0..=24).flat_map(|n| [(n, 5), (20, n), (n, n), (131, n), (n * 6, 31)]) {
                seen(view, now, width, height);
            }
        }
        assert!(seen(&mut views[1], now, 20, 5).starts_with("SpeedMimi"));
    }

    #[test]
    fn keys_scroll_order_hold_and_explain() {
        let now = Instant::now();
        let mut view = view(now);
        assert!(seen(&mut view, now, 80, 20).contains("1-5 of 8"), "{}", seen(&mut view, now, 80, 20));
        press(&mut view, KeyCode::End);
        let text = seen(&mut view, now, 80, 20);
        assert!(text.contains("4-8 of 8") && text.contains("shop-old"), "{text}");
        press(&mut view, KeyCode::Char('s'));
        let text = seen(&mut view, now, 80, 24);
        assert!(text.contains("order: state"), "{text}");
        let table = text.split("UPSTREAM/BACKEND").nth(1).and_then(|table| table.lines().nth(1)).unwrap_or("");
        assert!(table.starts_with("search/search-b"), "what fails comes first:\n{text}");
        press(&mut view, KeyCode::Char('p'));
        assert!(seen(&mut view, now, 80, 24).contains("HELD STILL"));
        press(&mut view, KeyCode::Char('?'));
        let text = seen(&mut view, now, 80, 24);
        assert!(text.contains("It only looks") && text.contains("the order is: state"), "{text}");
        assert!(text.contains("Own answers by reason"), "the help fits:\n{text}");
    }

    #[test]
    fn lost_figures_are_said_to_be_old() {
        let now = Instant::now();
        let mut view = view(now);
        view.take(News::Lost(Trouble::Unreachable("refused".to_owned())), now);
        let text = seen(&mut view, now + Duration::from_secs(75), 100, 24);
        let said = "NO FIGURES FOR 1 min 15 s from 127.0.0.1:9091: refused; trying again";
        assert!(text.contains(said) && text.contains("shop-1"), "{text}");
        let mut nothing = View::new("127.0.0.1:9091");
        assert!(seen(&mut nothing, now, 80, 24).starts_with("Waiting for figures from 127.0.0.1:9091"));
    }

    #[test]
    fn colour_is_left_out_where_it_is_not_wanted_and_never_says_anything_alone() {
        let now = Instant::now();
        let (mut view, coloured) = (view(now), Ink { is_coloured: true });
        let (plain, vivid) = (drawn(&mut view, PLAIN, now, 120, 40), drawn(&mut view, coloured, now, 120, 40));
        let has_colour = |buf: &Buffer| buf.content.iter().any(|c| c.fg != Color::Reset || c.bg != Color::Reset);
        assert_eq!((has_colour(&plain), has_colour(&vivid)), (false, true));
        assert_eq!(picture::lines(&plain), picture::lines(&vivid));
    }

    #[test]
    fn a_configuration_that_is_not_in_use_is_said() {
        let now = Instant::now();
        let mut figures = all_figures().swap_remove(0);
        figures.restart_required = vec!["server.workers".to_owned()];
        figures.file_refused = Some("\u{1b}]0;x\u{7}".to_owned());
        let mut view = View::new("127.0.0.1:9091");
        view.take(News::Figures(Box::new(figures)), now);
        let text = seen(&mut view, now, 100, 24);
        let title = text.lines().next().unwrap_or_default();
        assert!(title.contains("RESTART NEEDED") && title.contains("FILE REFUSED"), "{title}");
    }

    #[test]
    fn tls_has_a_line_and_a_certificate_that_ends_is_said() {
        let now = Instant::now();
        let mut figures = all_figures().swap_remove(0);
        let mut drawn = |state: &str, days_left| {
            let first = Expiry { cert_file: "/etc/ssl/a.pem".to_owned(), state: state.to_owned(), days_left };
            figures.server.proxy.tls =
                Tls { sessions: 7, full: 30, resumed: 10, failed: 2, expires_first: Some(first) };
            let mut view = View::new("127.0.0.1:9091");
            view.take(News::Figures(Box::new(figures.clone())), now);
            (seen(&mut view, now, 80, 24), picture::text(&view, 120))
        };
        let (small, whole) = drawn("valid", 60);
        let line = "TLS          sessions 7  certificate 60 days left  failed 2  handshakes 40";
        assert!(small.contains(line) && !small.contains("CERTIFICATE"), "{small}");
        assert!(whole.contains("resumed 25.0 %  first to end /etc/ssl/a.pem"), "{whole}");
        assert!(whole.trim_end().lines().last().is_some_and(|line| line.contains("shop-old")), "still whole:\n{whole}");
        assert!(drawn("expires_soon", 1).0.contains("ready  CERTIFICATE EXPIRES"));
        let (over, _) = drawn("expired", -1);
        assert!(over.contains("ready  CERTIFICATE EXPIRED") && over.contains("certificate expired"), "{over}");
    }

    #[test]
    fn what_a_server_sends_never_reaches_the_terminal_as_a_command() {
        let now = Instant::now();
        let mut figures = all_figures().swap_remove(0);
        let hostile = "\u{1b}]0;x\u{7}\u{9b}2J\r\n\u{202e}名前";
        figures.server.proxy.version = hostile.to_owned();
        figures.server.proxy.reasons.insert(hostile.to_owned(), 1);
        figures.backends[0].upstream = hostile.to_owned();
        figures.backends[1].backend_id = hostile.to_owned();
        figures.backends[2].state = hostile.to_owned();
        let mut view = View::new("x");
        view.take(News::Figures(Box::new(figures)), now);
        for text in [seen(&mut view, now, 80, 24), picture::text(&view, 80), seen(&mut view, now, 150, 40)] {
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
            assert!(text.contains("名前"), "{text}");
        }
    }

    #[test]
    fn a_backend_that_comes_back_shows_what_of_its_weight_counts() {
        let now = Instant::now();
        let mut figures = all_figures().swap_remove(0);
        for (backend, state) in figures.backends.iter_mut().zip(["active", "ejected", "down"]) {
            (backend.weight, backend.ramp, backend.state) = (350, Some(0.2), state.to_owned());
        }
        let mut view = View::new("x");
        view.take(News::Figures(Box::new(figures)), now);
        assert_eq!(seen(&mut view, now, 80, 24).matches("70/350").count(), 1);
    }

    #[test]
    fn as_text_it_is_whole_however_long() {
        let now = Instant::now();
        let mut figures = all_figures().swap_remove(0);
        let one = figures.backends[0].clone();
        figures.backends.extend((0..300).map(|n| {
            let mut more = one.clone();
            more.backend_id = format!("more-{n}");
            more
        }));
        let mut view = View::new("x");
        view.take(News::Figures(Box::new(figures)), now);
        let text = picture::text(&view, 80);
        assert!(text.contains("more-299") && !text.ends_with("\n\n"), "{text}");
    }
}

mod program {
    use super::*;

    pub const BINARY: &str = env!("CARGO_BIN_EXE_speedmimi");

    /// A proxy that is killed with its test.
    pub struct Proxy {
        child: Child,
        pub url: String,
    }

    impl Proxy {
        pub fn demo() -> Proxy {
            let mut command = Command::new(BINARY);
            command.args(["demo", "--port", "0", "--management", "0"]);
            let mut child =
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it");
            let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
            let url = find(lines, "dashboard ");
            Proxy { child, url }
        }

        pub fn run(file: &str) -> Proxy {
            let mut command = Command::new(BINARY);
            command.args(["run", "--config", file]).env_remove("SPEEDMIMI_TOKEN");
            let mut child =
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it");
            let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
            let url = find(lines, "management=\"");
            Proxy { child, url }
        }

        pub fn kill(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    impl Drop for Proxy {
        fn drop(&mut self) {
            self.kill();
        }
    }

    /// What comes after `mark`; the rest is read on, so that nobody stops for a full pipe.
    fn find(mut lines: impl Iterator<Item = std::io::Result<String>> + Send + 'static, mark: &str) -> String {
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains(mark))).expect("the address");
        thread::spawn(move || lines.for_each(drop));
        let (_, after) = line.split_once(mark).expect("the mark");
        after.split('"').next().unwrap_or_default().trim().to_owned()
    }

    /// `speedmimi top` with nothing of this process's environment that matters to it.
    pub fn top(arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("top").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("SPEEDMIMI_TOKEN").env_remove("NO_COLOR").env("TERM", "xterm-256color");
        command
    }

    /// Runs it to its end: status, standard output, standard error.
    pub fn end_of(mut command: Command) -> (Option<i32>, String, String) {
        let done = command.output().expect("the program");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (done.status.code(), text(done.stdout), text(done.stderr))
    }
}

mod without_a_terminal {
    use super::program::{Proxy, end_of, top};
    use super::*;

    #[test]
    fn once_prints_the_figures_as_text_or_json() {
        let proxy = Proxy::demo();
        let (status, told, said) = end_of(top(&["--once", "--url", &proxy.url]));
        assert_eq!((status, said.as_str()), (Some(0), ""));
        assert!(told.starts_with("SpeedMimi ") && told.contains("\ndemo ") && told.contains("\n  steady "), "{told}");
        assert!(!told.contains('\u{1b}'), "{told:?}");
        let (status, told, _) = end_of(top(&["--once", "--json", "--url", &proxy.url]));
        assert_eq!(status, Some(0));
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(told["backends"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn without_once_it_says_what_to_do() {
        let (status, told, said) = end_of(top(&[]));
        assert_eq!((status, told.as_str()), (Some(2), ""));
        assert!(said.contains("--once"), "{said}");
        for usage in [&["--json"][..], &["--url", "nonsense"], &["--token", "a", "--token-file", "b"]] {
            assert_eq!(end_of(top(usage)).0, Some(2), "{usage:?}");
        }
    }

    #[test]
    fn nobody_there_is_a_failure() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        // A listener that answers with something else.
        let stranger = thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a client");
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\ndata: {}\r\n\r\n");
        });
        let (status, told, said) = end_of(top(&["--once", "--url", &url]));
        stranger.join().expect("the stranger");
        assert_eq!((status, told.as_str()), (Some(1), ""));
        assert!(said.contains("not the management of SpeedMimi"), "{said}");
        let (status, _, said) = end_of(top(&["--once", "--url", &url]));
        assert_eq!(status, Some(1));
        assert!(said.contains("refused"), "{said}");
    }

    #[test]
    fn a_token_lets_it_in_however_it_is_given_and_is_never_told() {
        let dir = Dir::new("top-token");
        let file = dir.write(
            "f.yaml",
            "grpc: {port: 0, token: everything-goes, read_token: only-looking}\n\
             server: {host: 127.0.0.1, port: 0, workers: 1}\nrouting: {a: {respond: {status: 204}}}\n",
        );
        let proxy = Proxy::run(&file);
        let with = |arguments: &[&str]| top(&[&["--once", "--url", &proxy.url], arguments].concat());
        let (status, told, said) = end_of(with(&[]));
        assert_eq!((status, told.as_str()), (Some(1), ""));
        assert!(said.contains("401") && said.contains("--token-file") && said.contains("SPEEDMIMI_TOKEN"), "{said}");
        let (status, _, said) = end_of(with(&["--token", "not-the-right-one"]));
        assert_eq!(status, Some(1));
        assert!(!said.contains("not-the-right-one"), "{said}");
        assert_eq!(end_of(with(&["--token", "only-looking"])).0, Some(0));
        let token = dir.write("token", "everything-goes\n");
        assert_eq!(end_of(with(&["--token-file", &token])).0, Some(0));
        let mut by_environment = with(&[]);
        by_environment.env("SPEEDMIMI_TOKEN", "everything-goes");
        let (status, told, _) = end_of(by_environment);
        assert_eq!(status, Some(0));
        assert!(told.contains("no backends"), "{told}");
        let (status, _, said) = end_of(with(&["--token-file", &dir.path("none").display().to_string()]));
        assert_eq!(status, Some(2), "{said}");
        // Which port the file leads to is not known.
        let (status, _, said) = end_of(top(&["--once", "--config", &file]));
        assert_eq!(status, Some(1));
        assert!(said.contains("grpc.port") && !said.contains("everything-goes"), "{said}");
        let bad = dir.write("bad.yaml", "grpc: {prot: 1}\n");
        assert_eq!(end_of(top(&["--once", "--config", &bad])).0, Some(78));
    }
}

mod following {
    use std::net::TcpListener;

    use speedmimi::cli::top::target::Target;
    use tokio::sync::mpsc;

    use super::*;

    /// Answers one request after the other with these bytes, and closes each connection after.
    fn answer(listener: TcpListener, answers: Vec<&'static [u8]>) {
        for bytes in answers {
            let (mut socket, _) = listener.accept().expect("a client");
            let n = socket.read(&mut [0; 4096]).expect("a request");
            assert!(n > 0, "a request");
            socket.write_all(bytes).expect("a client that listens");
        }
    }

    #[test]
    fn what_was_lost_is_taken_up_again_until_nothing_can_help() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = Target::from_url(&format!("http://{}", listener.local_addr().expect("an address")));
        let figures = b"HTTP/1.1 200 OK\r\n\r\n: hello\n\ndata: {\"server\": {}, \"ready\": true}\n\ndata: {";
        let answers: Vec<&[u8]> = vec![b"", figures, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"];
        let server = thread::spawn(move || answer(listener, answers));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let told = runtime.block_on(async {
            let (sender, mut news) = mpsc::channel(8);
            tokio::spawn(feed::follow(target.expect("a target"), sender));
            let mut told = Vec::new();
            while let Some(one) = news.recv().await {
                told.push(one);
            }
            told
        });
        server.join().expect("the server");
        let [News::Lost(first), News::Figures(figures), News::Lost(second), News::Lost(last)] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!((first, second, last), (&Trouble::Ended, &Trouble::Ended, &Trouble::Token));
        assert!(figures.ready);
    }
}

mod on_a_terminal {
    use std::fs::File;
    use std::os::unix::ffi::OsStrExt;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

    use super::program::{Proxy, top};
    use super::*;

    /// A pseudoterminal, and all that was ever written to it.
    struct Pty {
        keyboard: File,
        terminal: File,
        written: Arc<Mutex<Vec<u8>>>,
        before: Termios,
    }

    /// Both ends: the one with keyboard and screen, and the one that programs see.
    fn pseudoterminal() -> (File, File) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudoterminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        (File::from(master), File::options().read(true).write(true).open(path).expect("its other end"))
    }

    impl Pty {
        fn new(columns: u16, rows: u16) -> Pty {
            let (keyboard, terminal) = pseudoterminal();
            let mut screen = keyboard.try_clone().expect("a copy");
            let all: Arc<Mutex<Vec<u8>>> = Arc::default();
            let written = all.clone();
            thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(n @ 1..) = screen.read(&mut piece) {
                    all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..n]);
                }
            });
            let before = tcgetattr(&terminal).expect("its attributes");
            let pty = Pty { keyboard, terminal, written, before };
            pty.resize(columns, rows);
            pty
        }

        fn resize(&self, columns: u16, rows: u16) {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&self.keyboard, size).expect("a size");
        }

        fn start(&self, mut command: Command) -> Child {
            let end = || Stdio::from(self.terminal.try_clone().expect("a copy"));
            command.stdin(end()).stdout(end()).stderr(Stdio::piped()).spawn().expect("the program")
        }

        fn press(&mut self, keys: &str) {
            self.keyboard.write_all(keys.as_bytes()).expect("a keyboard");
        }

        fn written(&self) -> String {
            String::from_utf8_lossy(&self.written.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
        }

        #[track_caller]
        fn wait_for(&self, text: &str) {
            wait_for(&format!("{text:?}"), || self.written().contains(text));
        }

        /// The screen of before, a cursor, and the modes that a shell needs.
        #[track_caller]
        fn assert_restored(&self) {
            wait_for("the screen of before", || self.written().contains("\u{1b}[?1049l"));
            let written = self.written();
            let end = written.rsplit("\u{1b}[?1049h").next().unwrap_or_default();
            assert!(end.contains("\u{1b}[?1049l"), "{end:?}");
            let (hidden, shown) = (written.rfind("\u{1b}[?25l"), written.rfind("\u{1b}[?25h"));
            assert!(shown.is_some() && shown > hidden, "the cursor is hidden: {end:?}");
            let after = tcgetattr(&self.terminal).expect("its attributes");
            let modes = |t: &Termios| (t.local_modes, t.input_modes, t.output_modes, t.control_modes);
            assert_eq!(modes(&after), modes(&self.before));
        }
    }

    #[track_caller]
    fn end(child: &mut Child) -> ExitStatus {
        let mut status = None;
        wait_for("the end of the program", || {
            status = child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("a status")
    }

    fn said(child: &mut Child) -> String {
        let mut text = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn it_shows_follows_the_size_helps_and_quits_with_the_terminal_as_it_was() {
        let (mut pty, proxy) = (Pty::new(80, 24), Proxy::demo());
        let mut child = pty.start(top(&["--url", &proxy.url]));
        pty.wait_for("\u{1b}[?1049h");
        pty.wait_for("UPSTREAM/BACKEND");
        pty.wait_for("steady");
        pty.resize(130, 40);
        kill_process(Pid::from_child(&child), Signal::WINCH).expect("a process that runs");
        pty.wait_for("WORKER");
        pty.press("?");
        pty.wait_for("It only looks");
        pty.press("s\u{1b}[Bq");
        assert_eq!(end(&mut child).code(), Some(0));
        pty.assert_restored();
        assert_eq!(said(&mut child), "");
    }

    #[test]
    fn control_c_and_signals_end_it_in_order() {
        let proxy = Proxy::demo();
        for signal in [None, Some(Signal::TERM), Some(Signal::HUP), Some(Signal::INT)] {
            let mut pty = Pty::new(80, 24);
            let mut child = pty.start(top(&["--url", &proxy.url]));
            pty.wait_for("steady");
            match signal {
                None => pty.press("\u{3}"),
                Some(signal) => kill_process(Pid::from_child(&child), signal).expect("a process that runs"),
            }
            assert_eq!(end(&mut child).code(), Some(0), "{signal:?}");
            pty.assert_restored();
        }
    }

    #[test]
    fn a_lost_proxy_is_said() {
        let (mut pty, mut proxy) = (Pty::new(100, 24), Proxy::demo());
        let mut child = pty.start(top(&["--url", &proxy.url]));
        pty.wait_for("steady");
        proxy.kill();
        pty.wait_for("NO FIGURES FOR");
        assert!(child.try_wait().expect("a child").is_none(), "it goes on");
        pty.press("q");
        assert_eq!(end(&mut child).code(), Some(0));
        pty.assert_restored();
    }

    #[test]
    fn turned_away_it_says_why_below_the_screen_of_before() {
        let dir = Dir::new("top-away");
        let file = dir.write(
            "f.yaml",
            "grpc: {port: 0, token: everything-goes}\nserver: {host: 127.0.0.1, port: 0, workers: 1}\n\
             routing: {a: {respond: {status: 204}}}\n",
        );
        let (pty, proxy) = (Pty::new(80, 24), Proxy::run(&file));
        let mut child = pty.start(top(&["--url", &proxy.url]));
        assert_eq!(end(&mut child).code(), Some(1));
        pty.assert_restored();
        assert!(said(&mut child).contains("401"), "what to do is told");
    }

    #[test]
    fn a_terminal_that_goes_away_ends_it() {
        let proxy = Proxy::demo();
        let (mut screen, terminal) = pseudoterminal();
        tcsetwinsize(&screen, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
        let end_of_it = || Stdio::from(terminal.try_clone().expect("a copy"));
        let mut command = top(&["--url", &proxy.url]);
        let mut child = command.stdin(end_of_it()).stdout(end_of_it()).spawn().expect("the program");
        drop((command, terminal));
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&seen).contains("steady") {
            let mut ready = [PollFd::new(&screen, PollFlags::IN)];
            let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            assert_eq!(poll(&mut ready, Some(&patience)), Ok(1), "no picture but {seen:?}");
            let n = screen.read(&mut piece).expect("a picture");
            seen.extend_from_slice(&piece[..n]);
        }
        // No signal says so: the program is no leader of a session.
        drop(screen);
        assert_eq!(end(&mut child).code(), Some(1));
    }

    /// Not a test of its own: what [`a_panic_gives_the_terminal_back_first`] runs on a terminal.
    #[test]
    #[ignore = "run by another test"]
    fn panics_on_the_screen() {
        let screen = Screen::open().expect("a terminal");
        // As in a release build, where a panic aborts: nothing is dropped.
        std::mem::forget(screen);
        panic!("on purpose");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_first() {
        let pty = Pty::new(80, 24);
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "on_a_terminal::panics_on_the_screen", "--ignored", "--nocapture"]);
        let mut child = pty.start(command);
        assert!(!end(&mut child).success());
        pty.wait_for("\u{1b}[?1049h");
        pty.assert_restored();
        let said = said(&mut child);
        assert!(said.contains("on purpose"), "{said}");
    }
}

//! The connection to management: the event stream of figures, taken up again when it is lost.
//!
//! Owns the client's side of HTTP. Never decides what is shown, and never changes anything: it sends one `GET`.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use super::events::EventParser;
use super::figures::Figures;
use super::target::Target;

/// To connect, and again to the head of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a byte, where an event a second is promised.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// Before another try; doubled from one to the next.
const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
/// And no longer than this: somebody sits and waits.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(8);

/// Why there are no figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody answers there.
    Unreachable(String),
    /// No answer, or nothing more of it, for too long.
    Silent,
    /// It ended.
    Ended,
    /// Too many ask.
    Busy(StatusCode),
    /// A token is needed, or another one.
    Token,
    /// The token may not look, or the name in the URL is not allowed.
    Forbidden,
    /// Somebody else answers there.
    Stranger(String),
}

impl Trouble {
    /// Whether trying again could help.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Trouble::Token | Trouble::Forbidden | Trouble::Stranger(_))
    }

    fn of(status: StatusCode) -> Trouble {
        match status {
            StatusCode::UNAUTHORIZED => Trouble::Token,
            StatusCode::FORBIDDEN => Trouble::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => Trouble::Busy(status),
            _ if status.is_server_error() => Trouble::Busy(status),
            _ => Trouble::Stranger(format!("it answers with {}", status.as_u16())),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unreachable(why) => f.write_str(why),
            Trouble::Silent => f.write_str("no answer in time"),
            Trouble::Ended => f.write_str("the connection ended"),
            Trouble::Busy(status) => write!(f, "it answers with {}", status.as_u16()),
            Trouble::Token => f.write_str(
                "401: a valid token is needed: put grpc.token (or grpc.read_token) of the proxy into a file for \
                 --token-file, or into the environment variable SPEEDMIMI_TOKEN",
            ),
            Trouble::Forbidden => f.write_str(
                "403: this token may not look (take grpc.token or grpc.read_token), or the name in --url is not \
                 allowed (take the address, or add the name to grpc.allowed_hosts)",
            ),
            Trouble::Stranger(why) => write!(f, "this is not the management of SpeedMimi: {why}"),
        }
    }
}

/// What happens with the figures.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    Figures(Box<Figures>),
    /// They come no more; another try follows if [`Trouble::may_pass`].
    Lost(Trouble),
}

/// Tells the figures as they come, and tries again when they don't, until nobody listens or no try can help.
pub async fn follow(target: Target, news: Sender<News>) {
    let mut delay = RETRY_DELAY_MIN;
    loop {
        let trouble = match Stream::open(&target).await {
            Ok(mut stream) => loop {
                match stream.next().await.and_then(|event| figures(&event)) {
                    Ok(figures) => {
                        delay = RETRY_DELAY_MIN;
                        if news.send(News::Figures(figures)).await.is_err() {
                            return;
                        }
                    }
                    Err(trouble) => break trouble,
                }
            },
            Err(trouble) => trouble,
        };
        let may_pass = trouble.may_pass();
        if news.send(News::Lost(trouble)).await.is_err() || !may_pass {
            return;
        }
        sleep(delay).await;
        delay = (delay * 2).min(RETRY_DELAY_MAX);
    }
}

/// The first event, as it came.
///
/// # Errors
/// Why there is none.
pub async fn first(target: &Target) -> Result<Vec<u8>, Trouble> {
    Stream::open(target).await?.next().await
}

/// What an event says.
///
/// # Errors
/// When it is no event of figures.
pub fn figures(event: &[u8]) -> Result<Box<Figures>, Trouble> {
    // The error of the JSON reader tells places of a text that nobody sees.
    serde_json::from_slice(event).map_err(|_| Trouble::Stranger("its events are no figures".to_owned()))
}

struct Stream {
    body: Incoming,
    parser: EventParser,
    events: VecDeque<Vec<u8>>,
}

impl Stream {
    async fn open(target: &Target) -> Result<Stream, Trouble> {
        let unreachable = |error: std::io::Error| Trouble::Unreachable(error.to_string());
        let connect = timeout(ANSWER_TIMEOUT, TcpStream::connect((target.host(), target.port())));
        let socket = connect.await.map_err(|_| Trouble::Silent)?.map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(Trouble::from)?;
        // It ends with the body; what it has to tell the body tells too.
        tokio::spawn(connection);
        let mut request = Request::get("/api/v1/stats/stream").header(HOST, target.to_string());
        if let Some(authorization) = target.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.header(ACCEPT, "text/event-stream").body(String::new());
        let request = request.map_err(|error| Trouble::Unreachable(error.to_string()))?;
        let answer = timeout(ANSWER_TIMEOUT, sender.send_request(request)).await.map_err(|_| Trouble::Silent)?;
        let answer = answer.map_err(Trouble::from)?;
        if answer.status() != StatusCode::OK {
            return Err(Trouble::of(answer.status()));
        }
        Ok(Stream { body: answer.into_body(), parser: EventParser::default(), events: VecDeque::new() })
    }

    /// The data of the next event.
    async fn next(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let frame = poll_fn(|task| Pin::new(&mut self.body).poll_frame(task));
            let frame = timeout(SILENCE_TIMEOUT, frame).await.map_err(|_| Trouble::Silent)?;
            let frame = frame.ok_or(Trouble::Ended)?.map_err(Trouble::from)?;
            let Some(piece) = frame.data_ref() else { continue };
            let pushed = self.parser.push(piece, |event| self.events.push_back(event));
            pushed.map_err(|_| Trouble::Stranger("an event has no end".to_owned()))?;
        }
    }
}

impl From<hyper::Error> for Trouble {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() {
            return Trouble::Stranger("what it sends is no HTTP".to_owned());
        }
        Trouble::Ended
    }
}

//! How long `GET /api/v1/stats/server` takes, asked at a fixed pace on one connection while something else loads the
//! proxy: `stats_latency 127.0.0.1:9091 [COUNT] [PER_SECOND]`.
//!
//! Owns the asking and the percentiles. A request counts from when it was due, not from when it could be sent: a slow
//! answer makes those behind it late, as it would for whoever waits for them. Never makes the load:
//! `bench/stats-under-load.sh` does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let addr = words.next().ok_or_else(|| invalid("usage: stats_latency ADDRESS:PORT [COUNT] [PER_SECOND]"))?;
    let count = number(words.next(), 1000)?;
    let per_second = number(words.next(), 50)?;
    let mut client = BufReader::new(TcpStream::connect(&addr)?);
    client.get_ref().set_nodelay(true)?;
    client.get_ref().set_read_timeout(Some(Duration::from_secs(10)))?;
    let token = std::env::var("SPEEDMIMI_TOKEN").map(|token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!("GET /api/v1/stats/server HTTP/1.1\r\nHost: {addr}\r\n{}\r\n", token.unwrap_or_default());
    let pause = Duration::from_secs(1) / per_second;
    let begun = Instant::now();
    let mut took = Vec::with_capacity(count as usize);
    for n in 0..count {
        let due = begun + pause * n;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        client.get_mut().write_all(request.as_bytes())?;
        read_answer(&mut client)?;
        took.push(due.elapsed());
    }
    took.sort_unstable();
    let at =
        |part: f64| took[((took.len() as f64 * part).ceil() as usize).clamp(1, took.len()) - 1].as_secs_f64() * 1e3;
    println!(
        "GET /api/v1/stats/server: {count} at {per_second} a second; ms: p50 {:.2}, p90 {:.2}, p99 {:.2}, max {:.2}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

fn number(word: Option<String>, default: u32) -> io::Result<u32> {
    let Some(word) = word else { return Ok(default) };
    word.parse().ok().filter(|&n| n > 0).ok_or_else(|| invalid(&format!("{word}: allowed: a number from 1")))
}

/// Reads one answer, which has to be a 200 with a length.
fn read_answer(client: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut line = String::new();
    client.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(invalid(&format!("answered with {line:?}")));
    }
    let mut length = None;
    while !matches!(line.as_str(), "\r\n" | "") {
        line.clear();
        client.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>().ok();
        }
    }
    let length = length.ok_or_else(|| invalid("an answer without a length"))?;
    let read = io::copy(&mut client.by_ref().take(length), &mut io::sink())?;
    if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_owned())
}

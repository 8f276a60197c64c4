//! The small grammars of single values: durations, sizes, addresses, names, paths. Text to checked value, or what is
//! wrong with the text.
//!
//! Owns the words about a value; never knows which key it belongs to or where it stands.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::fault::{Wrong, shown};
use super::plan::{AccessLog, HashOn, ListenAddr};

/// Where a backend is, without its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendHost {
    Ip(IpAddr),
    /// Lower case.
    Name(String),
    Unix(PathBuf),
}

/// Longest path of a Unix socket, in bytes (`sun_path` less its NUL).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// `true`, `on`, `yes` and their opposites.
pub fn boolean(text: &str) -> Result<bool, Wrong> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" => Ok(true),
        "false" | "off" | "no" => Ok(false),
        _ => Err(Wrong::new(format!("{} is neither yes nor no", shown(text)))
            .allowed("true or false (also on, off, yes, no)")),
    }
}

/// A whole number within bounds, both included; `_` may part its digits.
pub fn integer(text: &str, min: i64, max: i64) -> Result<i64, Wrong> {
    let allowed = format!("{min}..={max}");
    let not_a_number = || Wrong::new(format!("{} is not a whole number", shown(text))).allowed(allowed.clone());
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let digits = plain_digits(digits).ok_or_else(not_a_number)?;
    let outside = || Wrong::new(format!("{} is outside {allowed}", shown(text))).allowed(allowed.clone());
    let value: i64 = format!("{sign}{digits}").parse().map_err(|_| outside())?;
    if (min..=max).contains(&value) { Ok(value) } else { Err(outside()) }
}

/// The digits of `1_000`, without the underscores; nothing but digits, and each underscore between two of them.
fn plain_digits(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('_').collect();
    let sound = parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    sound.then(|| parts.concat())
}

/// `250ms`, `30s`, `5m`, `1h`, `1h30m`: numbers with units, largest unit first, each unit once. A lone `0` needs none.
pub fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, Wrong> {
    let allowed = format!("{}..={}", show_duration(min), show_duration(max));
    let value = parse_duration(text)
        .map_err(|wrong| wrong.allowed(format!("{allowed}, written like 250ms, 30s, 5m or 1h30m")))?;
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(Wrong::new(format!("{} is outside {allowed}", shown(text))).allowed(allowed))
    }
}

/// Unit, milliseconds in it; largest first.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

fn parse_duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || Wrong::new(format!("{} is not a duration", shown(text)));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong().cure(format!("a unit is missing: {text}s or {text}ms?")));
    }
    let (mut rest, mut units, mut total) = (text, &TIME_UNITS[..], 0_u64);
    while !rest.is_empty() {
        let number = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[number..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = &rest[number..number + letters];
        let place = units.iter().position(|(name, _)| *name == unit).ok_or_else(|| wrong_unit(wrong(), unit))?;
        let count: u64 = rest[..number].parse().map_err(|_| wrong())?;
        total = count.checked_mul(units[place].1).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
        (rest, units) = (&rest[number + letters..], &units[place + 1..]);
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(total)) }
}

fn wrong_unit(wrong: Wrong, unit: &str) -> Wrong {
    match unit {
        "d" | "w" => wrong.cure("the largest unit is h: a day is 24h"),
        "us" | "ns" => wrong.cure("the smallest unit is ms"),
        _ => wrong,
    }
}

/// As [`duration`] reads it.
pub fn show_duration(value: Duration) -> String {
    let mut ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in TIME_UNITS {
        if ms >= size {
            text.push_str(&format!("{}{unit}", ms / size));
            ms %= size;
        }
    }
    text
}

/// Unit, bytes in it.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// `64KiB`, `10MiB`, `10MB` (a million each) or plain bytes.
pub fn size(text: &str, min: u64, max: u64) -> Result<u64, Wrong> {
    let allowed = show_sizes(min, max);
    let end = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'_').count();
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let wrong = || {
        let wrong = Wrong::new(format!("{} is not a size", shown(text)));
        let wrong = wrong.allowed(format!("{allowed}, written like 64KiB, 10MiB or plain bytes"));
        if ["k", "K", "m", "M", "g", "G", "kb", "mb"].contains(&unit) && !number.is_empty() {
            let unit = unit[..1].to_ascii_uppercase();
            return wrong.cure(format!("{number}{unit}iB is in steps of 1024, {number}{unit}B in steps of 1000"));
        }
        wrong
    };
    let number: u64 = plain_digits(number).and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    match number.checked_mul(*bytes) {
        Some(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(Wrong::new(format!("{} is outside {allowed}", shown(text))).allowed(allowed)),
    }
}

/// A range of sizes.
pub fn show_sizes(min: u64, max: u64) -> String {
    match max {
        u64::MAX => format!("{} or more", show_size(min)),
        max => format!("{}..={}", show_size(min), show_size(max)),
    }
}

/// As [`size`] reads it.
pub fn show_size(value: u64) -> String {
    let exact = SIZE_UNITS[2..6].iter().rev().find(|(_, bytes)| value > 0 && value.is_multiple_of(*bytes));
    exact.map_or_else(|| value.to_string(), |(unit, bytes)| format!("{}{unit}", value / bytes))
}

/// An IPv4 or IPv6 address, the latter also in brackets; an IPv4 address mapped into IPv6 is taken as IPv4.
pub fn ip(text: &str) -> Result<IpAddr, Wrong> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parsed = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        None => text.parse().ok(),
    };
    parsed.map(|ip: IpAddr| ip.to_canonical()).ok_or_else(|| {
        let wrong =
            Wrong::new(format!("{} is not an IP address", shown(text))).allowed("an address such as 127.0.0.1 or ::1");
        match text {
            "localhost" => wrong.cure("write 127.0.0.1 or ::1"),
            "*" => wrong.cure("write 0.0.0.0 for all IPv4 addresses or [::] for all of IPv6"),
            _ => wrong,
        }
    })
}

/// A network such as `10.0.0.0/8`; a plain address is a network of one.
pub fn net(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(ip) = ip(text) {
        return Ok(IpNet::from(ip));
    }
    let net: IpNet = text.parse().map_err(|_| {
        Wrong::new(format!("{} is not a network", shown(text)))
            .allowed("an address or a CIDR such as 10.0.0.0/8 or fd00::/8")
    })?;
    if net.trunc() == net {
        return Ok(net);
    }
    let problem = format!("{} has bits set behind its prefix", shown(text));
    Err(Wrong::new(problem).cure(format!(
        "write {} for the network or {} for the one address",
        net.trunc(),
        net.addr()
    )))
}

/// `[::]:8080`, `127.0.0.1:8090`, `unix:/run/speedmimi.sock`.
pub fn listen(text: &str) -> Result<ListenAddr, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(ListenAddr::Unix);
    }
    text.parse::<SocketAddr>().map(ListenAddr::Tcp).map_err(|_| {
        let wrong = Wrong::new(format!("{} is not an address to listen on", shown(text)));
        let wrong = wrong.allowed("\"127.0.0.1:8090\", \"[::]:8080\" or \"unix:/path\"");
        let port = text.strip_prefix('*').unwrap_or(text);
        let port = port.strip_prefix(':').unwrap_or(port);
        if port.parse::<u16>().is_ok() {
            return wrong.cure(format!("write 0.0.0.0:{port} for all IPv4 addresses, [::]:{port} for all of IPv6"));
        }
        if text.starts_with("localhost:") {
            wrong.cure("write 127.0.0.1 or [::1] in place of localhost")
        } else {
            wrong
        }
    })
}

fn unix_path(path: &str) -> Result<PathBuf, Wrong> {
    let allowed = format!("unix: and an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes");
    if path.starts_with('/') && path.len() <= UNIX_PATH_BYTES_MAX && !path.contains('\0') {
        return Ok(PathBuf::from(path));
    }
    Err(Wrong::new(format!("{} is not a socket", shown(&format!("unix:{path}")))).allowed(allowed))
}

/// An address, a name to resolve, or `unix:/path`.
pub fn backend_host(text: &str) -> Result<BackendHost, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(BackendHost::Unix);
    }
    if let Ok(ip) = ip(text) {
        return Ok(BackendHost::Ip(ip));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if is_dns_name(name) && !looks_like_ipv4(name) {
        return Ok(BackendHost::Name(name.to_ascii_lowercase()));
    }
    let wrong = Wrong::new(format!("{} is not a host", shown(text)));
    let wrong = wrong.allowed("an address, a name that can be resolved, or unix:/path");
    Err(match text.split_once(':') {
        Some(("http" | "https" | "h2c", rest)) if rest.starts_with("//") => {
            wrong.cure("only the host goes here; there are the keys port and scheme")
        }
        Some((_, port)) if port.parse::<u16>().is_ok() => {
            wrong.cure(format!("the port goes into its own key: port: {port}"))
        }
        _ => wrong,
    })
}

/// A host that requests ask for: a name, an address, or `*.` and a name. In lower case, without a port.
pub fn host_pattern(text: &str) -> Result<String, Wrong> {
    let wrong = || {
        let wrong = Wrong::new(format!("{} is not a host", shown(text)));
        wrong.allowed("a name such as example.com, a wildcard such as *.example.com, or an address")
    };
    if text == "*" {
        return Err(wrong().cure("leave hosts empty to match any host"));
    }
    if let Ok(ip) = ip(text) {
        return Ok(if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() });
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    let name = lower.strip_prefix("*.").unwrap_or(lower);
    if is_dns_name(name) && !looks_like_ipv4(name) {
        return Ok(lower.to_owned());
    }
    if !text.is_ascii() {
        return Err(wrong().cure("write the name as browsers send it, in Punycode (xn--…)"));
    }
    match name.rsplit_once(':') {
        // What is repeated as the cure is a host itself, never something with a line break or worse in it.
        Some((host, port)) if port.parse::<u16>().is_ok() && is_dns_name(host) => {
            Err(wrong().cure(format!("ports don't take part in matching: write {host}")))
        }
        _ => Err(wrong()),
    }
}

/// A host, maybe with a port, as in a `Host` field.
pub fn authority(text: &str) -> Result<String, Wrong> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if ip(text).is_err() => (host, Some(port)),
        _ => (text, None),
    };
    let wrong =
        || Wrong::new(format!("{} is not a host", shown(text))).allowed("a name or an address, maybe with :PORT");
    let host = host_pattern(host).ok().filter(|host| !host.starts_with('*')).ok_or_else(wrong)?;
    match port.map(str::parse::<u16>) {
        None => Ok(host),
        Some(Ok(port)) => Ok(format!("{host}:{port}")),
        Some(Err(_)) => Err(wrong()),
    }
}

/// A host as a certificate has it: a name or an address.
pub fn server_name(text: &str) -> Result<String, Wrong> {
    let wrong = || {
        let wrong = Wrong::new(format!("{} is not a name that a certificate could be for", shown(text)));
        wrong.allowed("a name or an address, without a port")
    };
    if let Ok(ip) = ip(text) {
        return Ok(ip.to_string());
    }
    host_pattern(text).ok().filter(|host| !host.starts_with('*')).ok_or_else(wrong)
}

/// Labels of letters, digits, `-` and `_` (container names have it), 63 bytes each, 253 in all.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

/// A name whose last label is a number is a mistyped address (`10.0.0`, `1.2.3.400`).
fn looks_like_ipv4(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()))
}

/// The name of a header field (RFC 9110, section 5.1), as written.
pub fn field_name(text: &str) -> Result<String, Wrong> {
    token(text, "a field name", "letters, digits and !#$%&'*+-.^_`|~")
}

/// The name of a cookie (RFC 6265, section 4.1.1), as written.
pub fn cookie_name(text: &str) -> Result<String, Wrong> {
    token(text, "a cookie name", "letters, digits and !#$%&'*+-.^_`|~")
}

fn token(text: &str, what: &str, allowed: &str) -> Result<String, Wrong> {
    let sound = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=256).contains(&text.len()) && text.bytes().all(sound) {
        return Ok(text.to_owned());
    }
    let wrong = Wrong::new(format!("{} is not {what}", shown(text))).allowed(allowed);
    Err(if text.ends_with(':') { wrong.cure("leave the colon out") } else { wrong })
}

/// The value of a header field: no control characters, no space at its ends (RFC 9110, section 5.5).
pub fn field_value(text: &str) -> Result<String, Wrong> {
    plain_text(text)?;
    if text.trim_matches([' ', '\t']).len() == text.len() {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} begins or ends with a space", shown(text))).cure("remove it; receivers would drop it"))
}

/// Text of one line, without control characters.
pub fn plain_text(text: &str) -> Result<String, Wrong> {
    if text.chars().all(|c| !c.is_control() || c == '\t') {
        return Ok(text.to_owned());
    }
    let problem = format!("{} has a line break or another control character", shown(text));
    Err(Wrong::new(problem)
        .cure("write it on one line; a block written with | ends in a line break, with |- it does not"))
}

/// A name that people give to an upstream, a backend or a route.
pub fn name(text: &str) -> Result<String, Wrong> {
    if (1..=128).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Ok(text.to_owned());
    }
    let problem = format!("{} is not a name", shown(text));
    Err(Wrong::new(problem).allowed("1 to 128 bytes without spaces and control characters"))
}

/// A path on this machine.
pub fn file_path(text: &str) -> Result<PathBuf, Wrong> {
    plain_text(text).map(PathBuf::from)
}

/// `client_ip`, `header:NAME`, `cookie:NAME`, `uri`.
pub fn hash_on(text: &str) -> Result<HashOn, Wrong> {
    match text.split_once(':') {
        None if text == "client_ip" => Ok(HashOn::ClientIp),
        None if text == "uri" => Ok(HashOn::Uri),
        Some(("header", name)) => field_name(name).map(|name| HashOn::Header(name.to_ascii_lowercase())),
        Some(("cookie", name)) => cookie_name(name).map(HashOn::Cookie),
        _ => Err(Wrong::new(format!("{} is nothing to hash", shown(text)))
            .allowed("client_ip, header:NAME, cookie:NAME or uri")),
    }
}

/// `off`, `stdout` or a file. A bare word is more likely a mistake than a file.
pub fn access_log(text: &str) -> Result<AccessLog, Wrong> {
    match text {
        "off" | "false" | "no" => Ok(AccessLog::Off),
        "stdout" => Ok(AccessLog::Stdout),
        file if file.contains(['/', '.']) => file_path(file).map(AccessLog::File),
        word => {
            let wrong = Wrong::new(format!("{} is not known here", shown(word))).allowed("off, stdout or a file");
            Err(if word.is_empty() {
                wrong
            } else {
                wrong.cure(format!("for a file, write ./{}", word.escape_debug()))
            })
        }
    }
}

/// `200-399` or `200`.
pub fn status_range(text: &str) -> Result<(u16, u16), Wrong> {
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (status(low), status(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        _ => Err(Wrong::new(format!("{} is not a range of statuses", shown(text)))
            .allowed("such as 200 or 200-399, within 100-599")),
    }
}

/// The name of a congestion control algorithm, as the system spells it.
pub fn congestion_control(text: &str) -> Result<String, Wrong> {
    let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if (1..=15).contains(&text.len()) && text.bytes().all(sound) {
        return Ok(text.to_owned());
    }
    let problem = format!("{} is not the name of a congestion control algorithm", shown(text));
    Err(Wrong::new(problem).allowed("a name from /proc/sys/net/ipv4/tcp_available_congestion_control"))
}

/// The path of a route: begins with `/`, canonical; a slash at the end is dropped, since whole segments match.
pub fn route_path(text: &str) -> Result<String, Wrong> {
    let text = request_path(text)?;
    if let Some(at) = text.find(['?', '#']) {
        return Err(Wrong::new(format!("{} is more than a path", shown(&text))).cure(format!("write {}", &text[..at])));
    }
    let canonical = canonical_path(&text);
    if canonical != text {
        let problem = format!("{} is never what a request's canonical path looks like", shown(&text));
        return Err(Wrong::new(problem).cure(format!("write {canonical}")));
    }
    match text.strip_suffix('/') {
        Some("") | None => Ok(text),
        Some(rest) if rest.ends_with('/') => Err(Wrong::new(format!("{} ends in an empty segment", shown(&text)))
            .cure(format!("write {}", rest.trim_end_matches('/')))),
        Some(rest) => Ok(rest.to_owned()),
    }
}

/// A path as a request line can carry it, maybe with a query: begins with `/`, visible ASCII, sound percent-escapes.
pub fn request_path(text: &str) -> Result<String, Wrong> {
    let wrong = || Wrong::new(format!("{} is not a path", shown(text)));
    if !text.starts_with('/') {
        return Err(wrong().allowed("a path that begins with /").cure(format!("write /{}", text.escape_debug())));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        let mut bytes = [0; 4];
        let escaped: String = c.encode_utf8(&mut bytes).bytes().map(|b| format!("%{b:02X}")).collect();
        return Err(wrong().allowed("visible ASCII characters").cure(format!("write {c:?} as {escaped}")));
    }
    if text.split('%').skip(1).any(|rest| escaped_byte(rest).is_none()) {
        return Err(wrong().allowed("% only in front of two hexadecimal digits").cure("write a percent sign as %25"));
    }
    Ok(text.to_owned())
}

/// The byte that the two digits behind a percent sign stand for.
fn escaped_byte(digits: &str) -> Option<u8> {
    let digits = digits.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// Dot segments resolved, percent-escapes of unreserved characters decoded (RFC 3986, section 6.2.2).
fn canonical_path(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut parts = path.split('%');
    decoded.push_str(parts.next().unwrap_or_default());
    for rest in parts {
        match escaped_byte(rest) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                decoded.push(char::from(byte));
                decoded.push_str(&rest[2..]);
            }
            _ => {
                decoded.push('%');
                decoded.push_str(rest);
            }
        }
    }
    let mut segments: Vec<&str> = Vec::new();
    let all: Vec<&str> = decoded[1..].split('/').collect();
    for (i, segment) in all.iter().enumerate() {
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    segments.pop();
                }
                if i + 1 == all.len() {
                    segments.push("");
                }
            }
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn durations() {
        let any = |text: &str| duration(text, Duration::ZERO, Duration::from_secs(1 << 32));
        for (text, value) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(any(text), Ok(ms(value)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "1m1h",
            "1s1s",
            "1 s",
            "1d",
            "1h30",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(any(text).is_err(), "{text}");
        }
        assert_eq!(any("1d").unwrap_err().cure, "the largest unit is h: a day is 24h");
        assert_eq!(any("30").unwrap_err().cure, "a unit is missing: 30s or 30ms?");
        assert_eq!(duration("2s", ms(1), ms(1000)).unwrap_err().problem, "2s is outside 1ms..=1s");
        for value in [1, 250, 61_001, 5_400_000, 90_000_000] {
            assert_eq!(any(&show_duration(ms(value))), Ok(ms(value)));
        }
    }

    #[test]
    fn sizes() {
        for (text, value) in [
            ("0", 0),
            ("65536", 65536),
            ("64KiB", 65536),
            ("10MiB", 10 << 20),
            ("10MB", 10_000_000),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(size(text, 0, u64::MAX), Ok(value), "{text}");
        }
        for text in ["", "KiB", "1.5MiB", "-1", "10k", "10 mib", "99999999999TiB", "1__0"] {
            assert!(size(text, 0, u64::MAX).is_err(), "{text}");
        }
        assert_eq!(size("16k", 0, 1 << 20).unwrap_err().cure, "16KiB is in steps of 1024, 16KB in steps of 1000");
        assert_eq!(size("2MiB", 0, 1 << 20).unwrap_err().problem, "2MiB is outside 0..=1MiB");
    }

    #[test]
    fn integers() {
        assert_eq!(integer("10_000_000", 1, i64::MAX), Ok(10_000_000));
        assert_eq!(integer("-3", -5, 5), Ok(-3));
        for text in ["", "-", "+1", "1.0", "0x10", "_1", "1_", "1__0", "99999999999999999999"] {
            assert!(integer(text, i64::MIN, i64::MAX).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_and_addresses() {
        assert_eq!(net("10.0.0.1").map(|net| net.to_string()), Ok("10.0.0.1/32".to_owned()));
        assert_eq!(net("::1").map(|net| net.to_string()), Ok("::1/128".to_owned()));
        assert_eq!(net("10.0.0.0/8").map(|net| net.to_string()), Ok("10.0.0.0/8".to_owned()));
        assert_eq!(
            net("10.1.2.3/8").unwrap_err().cure,
            "write 10.0.0.0/8 for the network or 10.1.2.3 for the one address"
        );
        assert!(net("10.0.0.0/33").is_err());
        assert_eq!(ip("[::1]").map(|ip| ip.to_string()), Ok("::1".to_owned()));
        assert_eq!(ip("::ffff:1.2.3.4").map(|ip| ip.to_string()), Ok("1.2.3.4".to_owned()));
        assert!(ip("[127.0.0.1]").is_err());
    }

    #[test]
    fn listening_addresses() {
        assert_eq!(listen("unix:/run/a.sock"), Ok(ListenAddr::Unix("/run/a.sock".into())));
        assert!(matches!(listen("[::]:8080"), Ok(ListenAddr::Tcp(addr)) if addr.port() == 8080 && addr.is_ipv6()));
        assert_eq!(listen(":80").unwrap_err().cure, "write 0.0.0.0:80 for all IPv4 addresses, [::]:80 for all of IPv6");
        for text in ["", "unix:", "unix:run/a", "localhost:80", "1.2.3.4", "[::]", "1.2.3.4:70000"] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn backend_hosts() {
        assert_eq!(backend_host("App_1.internal."), Ok(BackendHost::Name("app_1.internal".to_owned())));
        assert_eq!(backend_host("127.0.0.1"), Ok(BackendHost::Ip([127, 0, 0, 1].into())));
        assert_eq!(backend_host("unix:/a"), Ok(BackendHost::Unix("/a".into())));
        assert_eq!(backend_host("app:8081").unwrap_err().cure, "the port goes into its own key: port: 8081");
        assert_eq!(
            backend_host("http://app").unwrap_err().cure,
            "only the host goes here; there are the keys port and scheme"
        );
        for text in ["", "a b", "-a", "10.0.0", "1.2.3.400", "a..b", "unix:a"] {
            assert!(backend_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn host_patterns() {
        for (text, value) in [
            ("Example.COM", "example.com"),
            ("*.Example.com", "*.example.com"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
        ] {
            assert_eq!(host_pattern(text), Ok(value.to_owned()));
        }
        assert_eq!(host_pattern("a.com:80").unwrap_err().cure, "ports don't take part in matching: write a.com");
        assert_eq!(host_pattern("a\nb:80").unwrap_err().cure, "", "found by fuzzing: a line break was repeated");
        for text in ["", "*", "*.", "*com", "a.*.com", "http://a", "münchen.de"] {
            assert!(host_pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn authorities() {
        for (text, value) in [
            ("A.com", "a.com"),
            ("a.com:80", "a.com:80"),
            ("::1", "[::1]"),
            ("[::1]:80", "[::1]:80"),
            ("127.0.0.1:1", "127.0.0.1:1"),
        ] {
            assert_eq!(authority(text), Ok(value.to_owned()), "{text}");
        }
        for text in ["", "*.a.com", "a.com:", "a.com:x", "a b", ":80"] {
            assert!(authority(text).is_err(), "{text}");
        }
    }

    #[test]
    fn route_paths() {
        for (text, value) in [
            ("/", "/"),
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a//b", "/a//b"),
            ("/...", "/..."),
        ] {
            assert_eq!(route_path(text), Ok(value.to_owned()), "{text}");
        }
        for (text, cure) in [
            ("api", "write /api"),
            ("/a/../b", "write /b"),
            ("/a/%2e%2E/b", "write /b"),
            ("/a/..", "write /"),
            ("/a/.", "write /a/"),
            ("/%61", "write /a"),
            ("/../..", "write /"),
            ("/a?b", "write /a"),
            ("/a b", "write ' ' as %20"),
            ("/é", "write 'é' as %C3%A9"),
            ("/a%zz", "write a percent sign as %25"),
            ("/a//", "write /a"),
        ] {
            assert_eq!(route_path(text).unwrap_err().cure, cure, "{text}");
        }
    }

    #[test]
    fn access_logs() {
        assert_eq!(access_log("no"), Ok(AccessLog::Off));
        assert_eq!(access_log("access.log"), Ok(AccessLog::File("access.log".into())));
        for text in ["", "on", "stderr", "true", "/a\n"] {
            assert!(access_log(text).is_err(), "{text}");
        }
    }

    #[test]
    fn statuses_and_hashes() {
        assert_eq!(status_range("200-399"), Ok((200, 399)));
        assert_eq!(status_range("204"), Ok((204, 204)));
        for text in ["", "399-200", "20", "200-", "99-200", "200-600", "200,204"] {
            assert!(status_range(text).is_err(), "{text}");
        }
        assert_eq!(hash_on("header:X-User"), Ok(HashOn::Header("x-user".to_owned())));
        assert_eq!(hash_on("cookie:Sid"), Ok(HashOn::Cookie("Sid".to_owned())));
        for text in ["", "header:", "header:a b", "ip", "uri:"] {
            assert!(hash_on(text).is_err(), "{text}");
        }
    }
}

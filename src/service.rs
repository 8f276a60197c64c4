//! What a service manager (systemd, and who does as it does) hands to the program and wants to hear from it.
//!
//! Owns the variables of the environment: `sd_notify(3)`, `sd_watchdog_enabled(3)`, `sd_listen_fds(3)`. Never decides when
//! there is something to tell: that is the command line's.

pub mod life;
pub mod notify;

use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::listen::given::{Given, GivenFault};
use crate::sys;
use notify::Notifier;

/// Variables that are meant for this process alone; whoever it starts must not take them for its own.
const VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// What the service manager has handed down.
#[derive(Debug, Default)]
pub struct Service {
    /// Where it listens, if it does.
    pub notifier: Option<Notifier>,
    /// How long it waits for a sign of life, if it wants any.
    pub watchdog: Option<Duration>,
    /// The listening sockets that it gave.
    pub given: Sockets,
    /// What makes no sense and was left out of account.
    pub notices: Vec<String>,
}

/// Listening sockets as they were handed down.
#[derive(Debug, Default)]
pub struct Sockets {
    descriptors: Vec<OwnedFd>,
    names: String,
}

impl Sockets {
    /// What they are.
    ///
    /// # Errors
    /// One that is of no use.
    pub fn look(self) -> Result<Given, GivenFault> {
        Given::new(self.descriptors, &self.names)
    }
}

impl Service {
    /// Takes all of it, and the variables out of the environment. To be called once, before any thread is started or
    /// anything is opened.
    pub fn take() -> Service {
        let variable = |name: &str| std::env::var(name).ok();
        let count = sockets_count(variable, std::process::id());
        let sockets = count.and_then(|count| {
            let told = |error| format!("LISTEN_FDS: {count}, and not all of them are open ({error}); none is used");
            sys::take_inherited(count).map_err(told)
        });
        let mut service = Service::read(variable, std::process::id());
        match sockets {
            Ok(descriptors) => {
                let names = variable("LISTEN_FDNAMES").unwrap_or_default();
                service.given = Sockets { descriptors, names };
            }
            Err(notice) => service.notices.push(notice),
        }
        sys::forget_variables(&VARIABLES);
        service
    }

    fn read(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Service {
        let mut service = Service::default();
        match variable("NOTIFY_SOCKET").map(|name| Notifier::new(&name)) {
            Some(Ok(notifier)) => service.notifier = Some(notifier),
            Some(Err(error)) => service.notices.push(format!("NOTIFY_SOCKET: {error}; nobody is told of anything")),
            None => {}
        }
        match watchdog(&variable, pid) {
            Ok(watchdog) => service.watchdog = watchdog,
            Err(notice) => service.notices.push(notice),
        }
        service
    }
}

/// How many sockets were given, where it is this process that they are for.
fn sockets_count(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Result<u16, String> {
    let (Some(count), Some(of)) = (variable("LISTEN_FDS"), variable("LISTEN_PID")) else { return Ok(0) };
    if of.parse() != Ok(pid) {
        return Ok(0);
    }
    count.parse().map_err(|_| format!("LISTEN_FDS: {count:?} is no number; no socket is taken"))
}

/// The time between two signs of life at most, where it is of this process that they are wanted.
fn watchdog(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Result<Option<Duration>, String> {
    let Some(usec) = variable("WATCHDOG_USEC") else { return Ok(None) };
    let fault = |name: &str, text: &str| format!("{name}: {text:?} is no number above 0; there is no watchdog");
    if let Some(text) = variable("WATCHDOG_PID") {
        match text.parse::<u32>() {
            Ok(of) if of == pid => {}
            Ok(_) => return Ok(None),
            Err(_) => return Err(fault("WATCHDOG_PID", &text)),
        }
    }
    match usec.parse() {
        Ok(usec) if usec > 0 => Ok(Some(Duration::from_micros(usec))),
        _ => Err(fault("WATCHDOG_USEC", &usec)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_for_this_process_or_none() {
        let of = |count: &'static str, pid: Option<&'static str>| {
            let variable = move |name: &str| match name {
                "LISTEN_FDS" => Some(count.to_owned()),
                "LISTEN_PID" => pid.map(str::to_owned),
                _ => None,
            };
            sockets_count(variable, 7)
        };
        assert_eq!(of("3", Some("7")), Ok(3));
        for (count, pid) in [("3", None), ("3", Some("8")), ("3", Some("me")), ("many", Some("8"))] {
            assert_eq!(of(count, pid), Ok(0), "{count} {pid:?}");
        }
        assert!(of("many", Some("7")).is_err() && of("-1", Some("7")).is_err() && of("70000", Some("7")).is_err());
        assert_eq!(sockets_count(|_| None, 7), Ok(0));
    }

    #[test]
    fn the_watchdog_is_that_of_this_process_or_none() {
        let of = |usec: &'static str, pid: Option<&'static str>| {
            let variable = move |name: &str| match name {
                "WATCHDOG_USEC" => Some(usec.to_owned()),
                "WATCHDOG_PID" => pid.map(str::to_owned),
                _ => None,
            };
            Service::read(variable, 7)
        };
        assert_eq!(of("30000000", None).watchdog, Some(Duration::from_secs(30)));
        assert_eq!(of("1", Some("7")).watchdog, Some(Duration::from_micros(1)));
        let another = of("1", Some("8"));
        assert!(another.watchdog.is_none() && another.notices.is_empty());
        for (usec, pid) in [("0", None), ("-1", None), ("soon", None), ("1", Some("me"))] {
            let service = of(usec, pid);
            assert!(service.watchdog.is_none() && service.notices.len() == 1, "{usec} {pid:?}: {service:?}");
        }
        let none = Service::read(|_| None, 7);
        assert!(none.notifier.is_none() && none.watchdog.is_none() && none.notices.is_empty());
    }
}

//! The machine that something was measured on: what somebody who repeats it has to know.
//!
//! Owns the reading of `/proc` and `/sys` for that. Never changes a setting.

use crate::pin;
use crate::proc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Settings of the kernel that decide about many connections, by the names that sysctl(8) knows.
const SETTINGS: [&str; 11] = [
    "fs.file-max",
    "fs.nr_open",
    "net.core.default_qdisc",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
];

/// The machine, as far as it shows in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of its CPUs.
    pub cpu: String,
    /// CPUs that this process may run on.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The kernel's name and version.
    pub kernel: String,
    /// What is set, by name; what the kernel doesn't have is left out.
    pub settings: BTreeMap<String, String>,
}

impl Machine {
    /// This one, as it is now.
    pub fn now() -> Machine {
        let name = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let mut settings: BTreeMap<String, String> =
            SETTINGS.iter().filter_map(|name| Some(((*name).to_owned(), sysctl(name)?))).collect();
        let further = [
            ("RLIMIT_NOFILE", Some(crate::net::descriptors_max().to_string())),
            ("cpufreq governor", line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            ("clock source", line("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
            ("transparent huge pages", line("/sys/kernel/mm/transparent_hugepage/enabled")),
        ];
        settings.extend(further.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Machine {
            cpu: proc::cpu_model(),
            cpus: pin::allowed_cpus().map_or(1, |cpus| cpus.len().max(1)),
            memory_bytes: proc::memory_bytes("MemTotal:"),
            kernel: format!("{} {} {}", text(name.sysname()), text(name.release()), text(name.machine())),
            settings,
        }
    }
}

/// A setting of the kernel, its blanks made single; `None` when it has no such.
pub fn sysctl(name: &str) -> Option<String> {
    line(&format!("/proc/sys/{}", name.replace('.', "/")))
}

/// The numbers of a setting.
pub fn sysctl_numbers(name: &str) -> Vec<u64> {
    sysctl(name).unwrap_or_default().split(' ').filter_map(|number| number.parse().ok()).collect()
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The time now, as RFC 3339 writes it, in UTC and whole seconds.
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    rfc3339(seconds)
}

fn rfc3339(since_1970: u64) -> String {
    let (days, second) = (since_1970 / 86_400, since_1970 % 86_400);
    // Years that begin in March, so that the leap day is a year's last; 146,097 days are 400 years.
    let from_march_0000 = days + 719_468;
    let (era, day_of_era) = (from_march_0000 / 146_097, from_march_0000 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }

    #[test]
    fn this_machine_has_a_kernel_and_cpus() {
        let machine = Machine::now();
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && machine.kernel.starts_with("Linux "), "{machine:?}");
        assert!(machine.settings.contains_key("net.core.somaxconn"));
    }
}

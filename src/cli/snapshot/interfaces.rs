//! Network interfaces with hardware behind them: their queues, and which CPUs serve them.
//!
//! Owns the reading of `/sys/class/net` and `/proc/irq`, and CPU masks as the kernel writes them.

use super::files::Files;
use crate::control::machine::parse;

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// The NUMA node that its hardware is attached to.
    pub node: Option<usize>,
    /// CPUs that packets of each receiving queue are passed on to (RPS); empty: they stay where they came in.
    pub receive: Vec<Vec<usize>>,
    /// CPUs that send over each queue (XPS); `None` where the kernel has no choice to offer.
    pub send: Vec<Option<Vec<usize>>>,
    /// Interrupts of its queues.
    pub interrupts: Vec<Interrupt>,
}

/// An interrupt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupt {
    pub number: u32,
    /// CPUs that it goes to; where the kernel doesn't tell those, CPUs that it may go to.
    pub cpus: Vec<usize>,
}

/// What an interrupt is named that is no queue's.
const NOT_OF_QUEUES: &[&str] = &["config", "async", "cmd", "misc", "mgmnt", "admin", "event", "ctrl", "fault"];

/// All that are not down.
pub fn read(files: &Files) -> Vec<Interface> {
    let listed = files.text("proc/interrupts");
    let all = files.names("sys/class/net").into_iter().filter(|name| {
        let dir = format!("sys/class/net/{name}");
        files.path(&format!("{dir}/device")).exists() && files.text(&format!("{dir}/operstate")).trim() != "down"
    });
    all.map(|name| interface(files, name, &listed)).collect()
}

fn interface(files: &Files, name: String, listed: &str) -> Interface {
    let dir = format!("sys/class/net/{name}");
    let queues = files.names(&format!("{dir}/queues"));
    let of = |kind: &'static str, file: &'static str| {
        let queues = queues.iter().filter(move |queue| queue.starts_with(kind));
        let dir = &dir;
        queues.map(move |queue| files.text(&format!("{dir}/queues/{queue}/{file}")))
    };
    // A device of virtio hangs below the one that has the interrupts.
    let places = [format!("{dir}/device/msi_irqs"), format!("{dir}/device/../msi_irqs")];
    let numbers = places.iter().map(|place| files.names(place)).find(|names| !names.is_empty()).unwrap_or_default();
    Interface {
        node: files.text(&format!("{dir}/device/numa_node")).trim().parse().ok(),
        receive: of("rx-", "rps_cpus").map(|mask| cpus_of_mask(&mask)).collect(),
        send: of("tx-", "xps_cpus").map(|mask| (!mask.is_empty()).then(|| cpus_of_mask(&mask))).collect(),
        interrupts: numbers.iter().filter_map(|number| interrupt(files, number, listed)).collect(),
        name,
    }
}

fn interrupt(files: &Files, number: &str, listed: &str) -> Option<Interrupt> {
    let named = listed.lines().find_map(|line| line.trim_start().strip_prefix(number)?.strip_prefix(':'))?;
    let name = named.split_ascii_whitespace().last()?;
    let is_of_queue = !NOT_OF_QUEUES.iter().any(|other| name.contains(other));
    let list = |file: &str| parse::cpu_list(files.text(&format!("proc/irq/{number}/{file}")).trim());
    let (goes_to, may_go_to) = (list("effective_affinity_list"), list("smp_affinity_list"));
    let cpus = if goes_to.is_empty() { may_go_to } else { goes_to };
    is_of_queue.then_some(Interrupt { number: number.parse().ok()?, cpus })
}

/// The CPUs of a mask such as `00000000,0000000f`.
pub fn cpus_of_mask(mask: &str) -> Vec<usize> {
    let digits = mask.bytes().rev().filter_map(|digit| (digit as char).to_digit(16));
    let cpus = digits
        .enumerate()
        .flat_map(|(at, digit)| (0..4).filter_map(move |bit| (digit & 1 << bit != 0).then_some(4 * at + bit)));
    cpus.collect()
}

/// The mask of these CPUs, in groups of 32 as the kernel takes it.
pub fn mask_of_cpus(cpus: &[usize]) -> String {
    let groups = cpus.iter().max().map_or(1, |last| last / 32 + 1);
    let mut words = vec![0_u32; groups];
    for &cpu in cpus {
        words[groups - 1 - cpu / 32] |= 1 << (cpu % 32);
    }
    let mut text = format!("{:x}", words[0]);
    words[1..].iter().for_each(|word| text.push_str(&format!(",{word:08x}")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_and_written() {
        assert_eq!(cpus_of_mask("00000000,0000000b\n"), [0, 1, 3]);
        assert_eq!(cpus_of_mask("1,00000000"), [32]);
        assert!(cpus_of_mask("").is_empty());
        assert_eq!(mask_of_cpus(&[]), "0");
        assert_eq!(mask_of_cpus(&[0, 1, 3]), "b");
        assert_eq!(mask_of_cpus(&[0, 63]), "80000000,00000001");
        for cpus in [vec![5], (0..130).collect::<Vec<_>>()] {
            assert_eq!(cpus_of_mask(&mask_of_cpus(&cpus)), cpus);
        }
    }
}

//! Samples of containers and machines, made up as trees of files, and text that makes no sense.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A made-up file system that goes with the test.
struct Tree(PathBuf);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Tree {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("speedmimi-machine-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let tree = Tree(std::env::temp_dir().join(name));
        tree.write(files);
        tree
    }

    /// A machine of four CPUs and 8 GiB, of which the process may use CPUs 0 to 2.
    fn machine() -> Tree {
        Tree::new(&[
            (
                "proc/stat",
                "cpu  9 9 9 9\ncpu0 100 0 0 900 0 0 0 0 0 0\ncpu1 0 0 0 1000 0 0 0 0\ncpu2 0 0 0 1000\ncpu3 7 0 0 0\nintr 1\n",
            ),
            ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\nMemAvailable:    6291456 kB\n"),
            ("proc/loadavg", "0.50 1.25 2.00 1/234 5678\n"),
            ("proc/net/dev", NET),
            (
                "proc/self/status",
                "Name:\tx\nVmRSS:\t  2048 kB\nRssAnon:\t  1024 kB\nRssShmem:\t  4 kB\nThreads:\t5\nCpus_allowed_list:\t0-2\n",
            ),
        ])
    }

    fn write(&self, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().expect("below the tree")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
    }

    fn sampler(&self) -> Sampler {
        Sampler::new(&self.0, &self.0, Tables::Shared, 1_000_000)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const NET: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 999999 1    0    0    0     0          0         0   999999 1    0    0    0     0       0          0
  eth0:  10240 10    0    0    0     0          0         0    2048 10    0    0    0     0       0          0
 veth1:   1024 10    0    0    0     0          0         0    1024 10    0    0    0     0       0          0
";

#[test]
fn without_limits_the_machine_counts() {
    let tree = Tree::machine();
    let mut sampler = tree.sampler();
    // Of CPUs 0 to 2 300 ticks went by, 75 of them busy: 60 user, 5 system, 10 stolen; CPU 3 is not this process's.
    let stat = "cpu0 160 0 5 920 5 0 0 10\ncpu1 0 0 0 1100 0 0 0 0\ncpu2 0 0 0 1100\ncpu3 999 0 0 0\n";
    tree.write(&[("proc/stat", stat)]);
    let machine = sampler.sample(2_000_000);
    assert_eq!((machine.container, machine.cpus), (Container::None, 3.0));
    assert!((machine.cpu_usage - 25.0).abs() < 1e-9, "{machine:?}");
    assert_eq!((machine.memory_used_bytes, machine.memory_limit_bytes), (2 << 30, 8 << 30));
    assert_eq!(machine.memory_usage(), 25.0);
    assert_eq!(machine.load_avg, [0.5, 1.25, 2.0]);
    let process = machine.process;
    assert_eq!((process.rss_bytes, process.rss_anon_bytes, process.rss_shmem_bytes), (2 << 20, 1 << 20, 4 << 10));
    assert_eq!(process.threads, 5);
    assert!((0.0..=100.0).contains(&machine.disk_usage));
}

#[test]
fn traffic_is_of_the_network_alone() {
    let tree = Tree::machine();
    let mut sampler = tree.sampler();
    let moved = NET.replace("10240", "30720").replace("2048", "12288").replace("999999", "9999999");
    tree.write(&[("proc/net/dev", &moved)]);
    let machine = sampler.sample(3_000_000);
    assert_eq!((machine.network_in, machine.network_out), (10.0, 5.0), "20 and 10 KB in two seconds");
    // With a card behind it, eth0 alone counts: what goes over veth1 goes over it too.
    tree.write(&[("sys/class/net/eth0/device/vendor", "0x8086")]);
    let mut sampler = tree.sampler();
    tree.write(&[("proc/net/dev", &moved.replace(" 1024", " 9024").replace("30720", "40960"))]);
    assert_eq!(sampler.sample(2_000_000).network_in, 10.0);
}

#[test]
fn limits_of_a_container_count_in_version_2() {
    let tree = Tree::machine();
    tree.write(&[
        ("proc/self/cgroup", "0::/pod/app\n"),
        ("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"),
        // The tighter limits are one level up; the top has none.
        ("sys/fs/cgroup/pod/app/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/pod/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/pod/cpu.stat", "usage_usec 1000000\nuser_usec 1\n"),
        ("sys/fs/cgroup/pod/app/memory.max", "max\n"),
        ("sys/fs/cgroup/pod/memory.max", "1073741824\n"),
        ("sys/fs/cgroup/pod/memory.current", "805306368\n"),
        ("sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 268435456\nactive_file 7\n"),
    ]);
    let mut sampler = tree.sampler();
    tree.write(&[("sys/fs/cgroup/pod/cpu.stat", "usage_usec 1750000\n")]);
    let machine = sampler.sample(2_000_000);
    assert_eq!((machine.container, machine.cpus), (Container::Cgroup2, 1.5));
    assert_eq!((machine.cpu_usage, machine.memory_usage()), (50.0, 50.0));
    // A quota that comes and goes while running: that second has nothing to compare with, the next has.
    tree.write(&[("sys/fs/cgroup/pod/cpu.max", "max 100000\n")]);
    let machine = sampler.sample(3_000_000);
    assert_eq!(
        (machine.container, machine.cpus, machine.cpu_usage),
        (Container::Cgroup2, 3.0, 0.0),
        "memory still counts"
    );
    // A quota of more than there is limits nothing.
    tree.write(&[("sys/fs/cgroup/pod/cpu.max", "800000 100000\n"), ("sys/fs/cgroup/pod/memory.max", "99999999999\n")]);
    let machine = sampler.sample(4_000_000);
    assert_eq!((machine.container, machine.cpus, machine.memory_limit_bytes), (Container::None, 3.0, 8 << 30));
}

#[test]
fn limits_of_a_container_count_in_version_1() {
    let tree = Tree::machine();
    // Docker without namespaces for groups: the path is the host's, and so is the root of what is mounted.
    tree.write(&[
        ("proc/self/cgroup", "6:memory:/docker/f00\n5:cpu,cpuacct:/docker/f00\n1:name=systemd:/docker/f00\n0::/x\n"),
        (
            "proc/self/mountinfo",
            "40 30 0:30 /docker/f00 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
             41 30 0:31 /docker/f00 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
        ),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpuacct.usage", "1000000000\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "52428800\n"),
        ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 26214400\n"),
    ]);
    let mut sampler = tree.sampler();
    tree.write(&[("sys/fs/cgroup/cpu,cpuacct/cpuacct.usage", "1250000000\n")]);
    let machine = sampler.sample(2_000_000);
    assert_eq!((machine.container, machine.cpus), (Container::Cgroup1, 0.5));
    assert_eq!((machine.cpu_usage, machine.memory_usage()), (50.0, 25.0));
    // Nothing is limited: -1, and a number near 2^63.
    tree.write(&[
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
    ]);
    let machine = sampler.sample(3_000_000);
    assert_eq!((machine.container, machine.memory_limit_bytes), (Container::None, 8 << 30));
}

#[test]
fn nothing_and_garbage_are_no_figures() {
    let garbage = "cpu.max \u{0} -1 18446744073709551616 nan inf : :: - /../.. \\040\ncpu0 9 x\n0::/../../etc\n- - -\n";
    let files = ["stat", "meminfo", "loadavg", "net/dev", "self/status", "self/cgroup", "self/mountinfo"];
    let files: Vec<String> = files.iter().map(|file| format!("proc/{file}")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|file| (file.as_str(), garbage)).collect();
    for tree in [Tree::new(&[("empty", "")]), Tree::new(&files)] {
        let mut sampler = tree.sampler();
        for now_us in [1_000_000, 1_000_000, 0, u64::MAX] {
            let machine = sampler.sample(now_us);
            assert_eq!((machine.container, machine.memory_limit_bytes), (Container::None, 0));
            assert_eq!((machine.load_avg, machine.network_in, machine.cpu_usage), ([0.0; 3], 0.0, 0.0));
            assert!(machine.memory_usage() == 0.0 && machine.process.cpu_usage.is_finite());
        }
    }
}

#[test]
fn this_process_is_seen_as_it_is() {
    let mut sampler = Sampler::new(Path::new("/"), Path::new("/"), Tables::Shared, 0);
    // Tests beside this one open and close some, too, and one of them a thousand at once.
    let mut looks = 0;
    let process = loop {
        let before = sampler.sample(1).process;
        let held: Vec<fs::File> = (0..50).map(|_| fs::File::open("/dev/null").expect("a descriptor")).collect();
        let process = sampler.sample(2).process;
        if process.open_descriptors + 20 > before.open_descriptors + held.len() as u64 {
            break process;
        }
        looks += 1;
        assert!(looks < 20, "{before:?} {process:?}");
    };
    assert!(process.rss_bytes > 0 && process.threads > 0 && process.cpu_seconds > 0.0, "{process:?}");
}

#[test]
fn groups_are_found_below_their_mount() {
    let mounts = "1 2 0:3 /host\\040side /mnt/a\\134b rw - cgroup2 none rw\n";
    let levels = |own: &str| parse::group_levels(own, mounts, None, Path::new("/r"));
    let top = PathBuf::from("/r/mnt/a\\b");
    assert_eq!(levels("0::/host side/x/y\n"), [top.join("x/y"), top.join("x"), top.join("")]);
    assert_eq!(levels("0::/host side2\n"), [top.join("")], "another group's name that begins alike");
    assert_eq!(levels("0::/../other\n"), [top.join("")]);
    assert_eq!(levels("0::/host side/../../etc\n"), [top.join("")]);
    assert!(levels("1:cpu:/x\n").is_empty());
}

#[test]
fn lists_of_cpus_are_read() {
    assert_eq!(parse::cpu_list("0-2,5"), [0, 1, 2, 5]);
    assert_eq!(parse::cpu_list("3-1, x,-,7"), [7]);
    assert!(parse::cpu_list("0-18446744073709551615").len() < 100_000);
}

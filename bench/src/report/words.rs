//! What reports say, in each language, and how they write figures.
//!
//! Owns every word of a rendered report. Never decides what is said.

use super::{End, Grade};

/// The language of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

/// The words of one language.
pub struct Words {
    pub code: &'static str,
    pub title: &'static str,
    pub results: &'static str,
    pub details: &'static str,
    pub failures: &'static str,
    pub environment: &'static str,
    pub repeat: &'static str,
    pub notes: &'static str,
    pub concurrency: &'static str,
    pub success: &'static str,
    pub mean: &'static str,
    pub max: &'static str,
    pub grade: &'static str,
    pub verdict: &'static str,
    pub cpu: &'static str,
    pub cpu_each: &'static str,
    pub memory: &'static str,
    pub load_cpu: &'static str,
    pub answered_connections: &'static str,
    pub requests: &'static str,
    pub failed: &'static str,
    pub kinds: [&'static str; 7],
    pub rate: &'static str,
    pub reached: &'static str,
    pub due: &'static str,
    pub late: &'static str,
    pub unsent: &'static str,
    pub open_loop: &'static str,
    pub began: &'static str,
    pub took: &'static str,
    pub target: &'static str,
    pub process: &'static str,
    pub load: &'static str,
    pub machine: &'static str,
    pub cpus: &'static str,
    pub kernel: &'static str,
    pub tool: &'static str,
    pub setting: &'static str,
    pub value: &'static str,
    pub partial: &'static str,
    pub interrupted: &'static str,
    pub stopped: &'static str,
    pub failed_end: &'static str,
    pub success_plot: &'static str,
    pub rps_plot: &'static str,
    pub latency_plot: &'static str,
    pub memory_plot: &'static str,
    pub time_plot: &'static str,
    pub connections_axis: &'static str,
    pub seconds_axis: &'static str,
    pub versus_title: &'static str,
    pub measure: &'static str,
    pub ratio: &'static str,
    pub noise: &'static str,
    pub better: &'static str,
    pub worse: &'static str,
    pub same: &'static str,
    pub only_in: &'static str,
    pub differs: &'static str,
}

const EN: Words = Words {
    code: "en",
    title: "Load test in stages",
    results: "Results",
    details: "Latency and cost",
    failures: "What failed",
    environment: "Environment",
    repeat: "To repeat it",
    notes: "Notes",
    concurrency: "Connections",
    success: "Success rate",
    mean: "Mean latency",
    max: "max",
    grade: "Grade",
    verdict: "Verdict",
    cpu: "CPUs of the target",
    cpu_each: "CPU time an answer",
    memory: "Memory of the target",
    load_cpu: "CPUs of the load",
    answered_connections: "Connections answered",
    requests: "Requests",
    failed: "Failed",
    kinds: ["connect", "closed", "timeout", "status", "body", "malformed", "refused"],
    rate: "Asked for, a second",
    reached: "Answered, a second",
    due: "Due",
    late: "Waited for a connection",
    unsent: "Never sent",
    open_loop: "Open loop",
    began: "Began",
    took: "Took",
    target: "Target",
    process: "Process",
    load: "Load",
    machine: "Machine",
    cpus: "CPUs",
    kernel: "Kernel",
    tool: "Measured by",
    setting: "Setting",
    value: "Value",
    partial: "in part",
    interrupted: "Interrupted: the last stage is measured in part, those after it are missing.",
    stopped: "Stopped: less than 80 % was answered in the last stage.",
    failed_end: "Ended early: the next stage could not be measured; the notes say why.",
    success_plot: "Success rate in %",
    rps_plot: "Answers per second",
    latency_plot: "Latency",
    memory_plot: "Memory of the target",
    time_plot: "Latency over time",
    connections_axis: "connections",
    seconds_axis: "s",
    versus_title: "Two load tests compared",
    measure: "Measure",
    ratio: "B / A",
    noise: "Noise",
    better: "better",
    worse: "worse",
    same: "no difference",
    only_in: "Only in",
    differs: "They differ in",
};

const ZH: Words = Words {
    code: "zh-CN",
    title: "并发测试分析报告",
    results: "测试结果总结",
    details: "延迟与资源",
    failures: "失败分类",
    environment: "测试环境",
    repeat: "复现方法",
    notes: "说明",
    concurrency: "并发数",
    success: "成功率",
    mean: "平均延迟",
    max: "最大",
    grade: "性能等级",
    verdict: "结论",
    cpu: "目标 CPU（核）",
    cpu_each: "每次应答的 CPU 时间",
    memory: "目标内存",
    load_cpu: "压测端 CPU（核）",
    answered_connections: "获得应答的连接",
    requests: "请求数",
    failed: "失败",
    kinds: ["连接失败", "提前关闭", "超时", "状态码不符", "内容不符", "格式错误", "被拒绝"],
    rate: "目标 RPS",
    reached: "实际 RPS",
    due: "应发",
    late: "等待空闲连接",
    unsent: "未能发出",
    open_loop: "开环",
    began: "开始时间",
    took: "用时",
    target: "目标",
    process: "进程",
    load: "负载",
    machine: "机器",
    cpus: "CPU 数",
    kernel: "内核",
    tool: "测试工具",
    setting: "设置",
    value: "值",
    partial: "未完成",
    interrupted: "测试被中断：最后一个阶段只测了一部分，其后的阶段没有测。",
    stopped: "测试提前停止：最后一个阶段的成功率低于 80 %。",
    failed_end: "测试提前结束：下一个阶段无法测量，原因见“说明”。",
    success_plot: "成功率（%）",
    rps_plot: "RPS（每秒成功应答数）",
    latency_plot: "延迟",
    memory_plot: "目标内存",
    time_plot: "延迟随时间的变化",
    connections_axis: "并发数",
    seconds_axis: "秒",
    versus_title: "两次测试的比较",
    measure: "指标",
    ratio: "B / A",
    noise: "波动",
    better: "更好",
    worse: "更差",
    same: "无差别",
    only_in: "仅出现在",
    differs: "不同之处",
};

impl Lang {
    /// Its words.
    pub fn words(self) -> &'static Words {
        match self {
            Lang::En => &EN,
            Lang::Zh => &ZH,
        }
    }

    /// A grade with its mark.
    pub fn grade(self, grade: Grade) -> &'static str {
        match (self, grade) {
            (Lang::En, Grade::Excellent) => "🟢 excellent",
            (Lang::En, Grade::Good) => "🟡 good",
            (Lang::En, Grade::Fair) => "🟠 fair",
            (Lang::En, Grade::Poor) => "🔴 poor",
            (Lang::Zh, Grade::Excellent) => "🟢 优秀",
            (Lang::Zh, Grade::Good) => "🟡 良好",
            (Lang::Zh, Grade::Fair) => "🟠 一般",
            (Lang::Zh, Grade::Poor) => "🔴 需要优化",
        }
    }

    /// What a grade means for whoever wants so many connections.
    pub fn verdict(self, grade: Grade) -> &'static str {
        match (self, grade) {
            (Lang::En, Grade::Excellent) => "carries it with ease",
            (Lang::En, Grade::Good) => "carries it",
            (Lang::En, Grade::Fair) => "barely acceptable",
            (Lang::En, Grade::Poor) => "the system's limit",
            (Lang::Zh, Grade::Excellent) => "轻松胜任",
            (Lang::Zh, Grade::Good) => "可以胜任",
            (Lang::Zh, Grade::Fair) => "勉强接受",
            (Lang::Zh, Grade::Poor) => "系统极限",
        }
    }

    /// A number of connections, as a row is called.
    pub fn connections(self, count: u64) -> String {
        match (self, count) {
            (Lang::Zh, 10_000..) if count.is_multiple_of(1_000) => format!("{}万并发", round(count as f64 / 1e4)),
            (Lang::Zh, 1_000..) if count.is_multiple_of(100) => format!("{}千并发", round(count as f64 / 1e3)),
            (Lang::Zh, _) => format!("{count}并发"),
            (Lang::En, _) => grouped(count),
        }
    }

    /// Why a test ended, when it is not whole.
    pub fn end(self, end: End) -> Option<&'static str> {
        match end {
            End::Whole => None,
            End::TooManyFailed => Some(self.words().stopped),
            End::Interrupted => Some(self.words().interrupted),
            End::Failed => Some(self.words().failed_end),
        }
    }
}

/// With commas: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// At most three digits, or a whole number: `12.3`, `0.85`, `1234`.
pub fn round(number: f64) -> String {
    let places = match number.abs() {
        x if x >= 99.95 => 0,
        x if x >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{number:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A latency given in µs: `340µs`, `866ms`, `12.5s`.
pub fn latency(us: f64) -> String {
    match us {
        us if us < 999.5 => format!("{}µs", round(us)),
        us if us < 999_500.0 => format!("{}ms", round(us / 1e3)),
        us => format!("{}s", round(us / 1e6)),
    }
}

/// A size: `512 B`, `12.5 MiB`.
pub fn size(bytes: f64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, unit)| bytes >= *unit as f64);
    unit.map_or_else(|| format!("{} B", round(bytes)), |(name, unit)| format!("{} {name}", round(bytes / unit as f64)))
}

/// A share in percent with as many digits as tell 99.99 from 100.
pub fn percent(share: f64) -> String {
    // Rounding must not hide the one that failed.
    let floored = if share < 100.0 { share.min(99.99) } else { share };
    format!("{floored:.2}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_shortly() {
        assert_eq!([0.854, 9.999, 12.34, 866.2, 12_345.0].map(round), ["0.85", "10", "12.3", "866", "12345"]);
        assert_eq!([340.0, 866_000.0, 12_500_000.0, 999_600.0].map(latency), ["340µs", "866ms", "12.5s", "1s"]);
        assert_eq!([512.0, 13_107_200.0].map(size), ["512 B", "12.5 MiB"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([100.0, 99.9999, 97.35].map(percent), ["100.00%", "99.99%", "97.35%"]);
    }

    #[test]
    fn rows_are_called_as_in_each_language() {
        let counts = [500, 1_000, 5_000, 10_000, 25_000, 100_000];
        assert_eq!(
            counts.map(|count| Lang::Zh.connections(count)),
            ["500并发", "1千并发", "5千并发", "1万并发", "2.5万并发", "10万并发"]
        );
        assert_eq!(Lang::En.connections(100_000), "100,000");
    }
}

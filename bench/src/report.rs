//! Sums over rounds, and how a run is shown: the table, the verdict on the first bar, JSON.
//!
//! Invariants: a percentile is of all requests of all rounds, never a mean of percentiles; a point that failed is shown
//! as failed, with its reason, and has no figures. Not here: measuring.

use std::time::Duration;

use serde_json::{Value, json};

use crate::histogram::Histogram;
use crate::load::{Load, Measured};
use crate::machine::Machine;
use crate::table::Table;

/// The first bar: this many times etcd's puts per second, at three members and 64 clients.
const BAR_RATIO: f64 = 2.0;
const BAR_MEMBERS: usize = 3;
const BAR_CLIENTS: u64 = 64;

pub(crate) struct Point {
    pub(crate) members: usize,
    pub(crate) load: Load,
    pub(crate) clients: u64,
    /// One per system, ours first.
    pub(crate) results: Vec<Rounds>,
}

/// A system at a point: what each round gave, or why it failed.
#[derive(Default)]
pub(crate) struct Rounds(pub(crate) Vec<Result<Measured, String>>);

struct Sum {
    latencies: Histogram,
    window: Duration,
    server_cpu: Duration,
    generator_cpu: Duration,
    memory_peak_bytes: u64,
    errors: u64,
}

impl Rounds {
    /// Of the rounds that succeeded; `None` if none did.
    fn sum(&self) -> Option<Sum> {
        let mut sum = Sum {
            latencies: Histogram::new(),
            window: Duration::ZERO,
            server_cpu: Duration::ZERO,
            generator_cpu: Duration::ZERO,
            memory_peak_bytes: 0,
            errors: 0,
        };
        for measured in self.0.iter().flatten() {
            sum.latencies.merge(&measured.latencies);
            sum.window += measured.window;
            sum.server_cpu += measured.server_cpu;
            sum.generator_cpu += measured.generator_cpu;
            sum.memory_peak_bytes = sum.memory_peak_bytes.max(measured.memory_peak_bytes);
            sum.errors += measured.errors;
        }
        (sum.latencies.total() > 0).then_some(sum)
    }

    fn failures(&self) -> impl Iterator<Item = &String> {
        self.0.iter().filter_map(|round| round.as_ref().err())
    }
}

impl Sum {
    fn per_s(&self) -> f64 {
        per_s(self.latencies.total(), self.window)
    }

    fn cpu_us(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.latencies.total() as f64
    }
}

fn per_s(operations: u64, window: Duration) -> f64 {
    operations as f64 / window.as_secs_f64()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Point {
    /// Ours over the peer's, operations per second.
    fn ratio(&self) -> Option<f64> {
        let (ours, peer) = (self.results.first()?.sum()?, self.results.get(1)?.sum()?);
        Some(ours.per_s() / peer.per_s())
    }

    /// The smallest and the largest ratio of a round; a round in which one of the two failed has none.
    fn ratio_span(&self) -> Option<(f64, f64)> {
        let (ours, peer) = (self.results.first()?, self.results.get(1)?);
        let ratios = ours.0.iter().zip(&peer.0).filter_map(|pair| match pair {
            (Ok(ours), Ok(peer)) => {
                Some(per_s(ours.latencies.total(), ours.window) / per_s(peer.latencies.total(), peer.window))
            }
            _ => None,
        });
        ratios.fold(None, |span, ratio| {
            let (low, high) = span.unwrap_or((ratio, ratio));
            Some((ratio.min(low), ratio.max(high)))
        })
    }

    pub(crate) fn failures(&self) -> impl Iterator<Item = String> + '_ {
        self.results.iter().flat_map(Rounds::failures).map(|reason| {
            format!("{} members, {}, {} clients: {reason}", self.members, self.load.name(), self.clients)
        })
    }
}

pub(crate) fn table(systems: &[&str], points: &[Point]) -> String {
    let mut heading: Vec<String> = ["members", "load", "clients"].map(str::to_owned).to_vec();
    for system in systems {
        heading.extend(
            ["ops/s", "p50 ms", "p99 ms", "CPU us/op", "RSS MiB", "errors"]
                .map(|name| format!("{system} {name}")),
        );
    }
    if systems.len() > 1 {
        heading.push("ratio".to_owned());
        heading.push("by round".to_owned());
    }
    let mut table = Table::new(&heading.iter().map(String::as_str).collect::<Vec<_>>());
    for point in points {
        let mut cells =
            vec![point.members.to_string(), point.load.name().to_owned(), point.clients.to_string()];
        for rounds in &point.results {
            cells.extend(system_cells(rounds));
        }
        if systems.len() > 1 {
            cells.push(point.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
            let span = point.ratio_span().map(|(low, high)| format!("{low:.2}-{high:.2}"));
            cells.push(span.unwrap_or_else(|| "-".to_owned()));
        }
        table.row(cells);
    }
    table.render()
}

fn system_cells(rounds: &Rounds) -> [String; 6] {
    let Some(sum) = rounds.sum() else {
        return ["failed", "-", "-", "-", "-", "-"].map(str::to_owned);
    };
    [
        format!("{:.0}", sum.per_s()),
        format!("{:.2}", milliseconds(sum.latencies.quantile(500))),
        format!("{:.2}", milliseconds(sum.latencies.quantile(990))),
        format!("{:.1}", sum.cpu_us(sum.server_cpu)),
        (sum.memory_peak_bytes >> 20).to_string(),
        sum.errors.to_string(),
    ]
}

/// The first bar in words, if its point was measured for both systems.
pub(crate) fn bar(points: &[Point]) -> Option<String> {
    let point = points.iter().find(|point| {
        point.members == BAR_MEMBERS && point.clients == BAR_CLIENTS && point.load == Load::Put
    })?;
    let ratio = point.ratio()?;
    let verdict = if ratio >= BAR_RATIO { "met" } else { "not met" };
    Some(format!(
        "first bar ({BAR_MEMBERS} members, {BAR_CLIENTS} clients, put, at least {BAR_RATIO} times etcd): {ratio:.2}, {verdict}"
    ))
}

pub(crate) fn machine_lines(machine: &Machine) -> String {
    format!(
        "machine: {} x {}, {} MiB, kernel {}, {} below the data, load average before {}\ncommit: {}\n",
        machine.processors,
        machine.processor,
        machine.memory_mib,
        machine.kernel,
        machine.filesystem,
        machine.load_average,
        machine.commit
    )
}

pub(crate) fn machine_json(machine: &Machine) -> Value {
    json!({
        "processor": machine.processor,
        "processors": machine.processors,
        "memory_mib": machine.memory_mib,
        "kernel": machine.kernel,
        "filesystem": machine.filesystem,
        "load_average_before": machine.load_average,
    })
}

pub(crate) fn points_json(systems: &[&str], points: &[Point]) -> Value {
    points
        .iter()
        .map(|point| {
            let mut object = json!({
                "members": point.members,
                "load": point.load.name(),
                "clients": point.clients,
                "ratio": point.ratio(),
            });
            for (system, rounds) in systems.iter().zip(&point.results) {
                object[*system] = rounds_json(rounds);
            }
            object
        })
        .collect()
}

fn rounds_json(rounds: &Rounds) -> Value {
    let each: Vec<Value> = rounds
        .0
        .iter()
        .map(|round| match round {
            Ok(measured) => json!({
                "operations": measured.latencies.total(),
                "window_s": measured.window.as_secs_f64(),
                "ops_per_s": per_s(measured.latencies.total(), measured.window),
                "p50_ms": milliseconds(measured.latencies.quantile(500)),
                "p99_ms": milliseconds(measured.latencies.quantile(990)),
                "memory_peak_bytes": measured.memory_peak_bytes,
                "errors": measured.errors,
                "first_error": measured.first_error,
            }),
            Err(reason) => json!({ "failed": reason }),
        })
        .collect();
    let Some(sum) = rounds.sum() else {
        return json!({ "rounds": each });
    };
    json!({
        "ops_per_s": sum.per_s(),
        "p50_ms": milliseconds(sum.latencies.quantile(500)),
        "p99_ms": milliseconds(sum.latencies.quantile(990)),
        "max_ms": milliseconds(sum.latencies.max()),
        "server_cpu_us_per_operation": sum.cpu_us(sum.server_cpu),
        "generator_cpu_us_per_operation": sum.cpu_us(sum.generator_cpu),
        "memory_peak_bytes": sum.memory_peak_bytes,
        "errors": sum.errors,
        "rounds": each,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of `operations` in a second, each of which took `latency_ms` and 20 us of the servers' CPU.
    fn round(operations: u64, latency_ms: u64) -> Result<Measured, String> {
        let mut latencies = Histogram::new();
        for _ in 0..operations {
            latencies.record(Duration::from_millis(latency_ms));
        }
        Ok(Measured {
            latencies,
            window: Duration::from_secs(1),
            server_cpu: Duration::from_micros(20 * operations),
            generator_cpu: Duration::from_micros(9 * operations),
            memory_peak_bytes: operations << 20,
            errors: 0,
            first_error: None,
        })
    }

    fn point(ours: Vec<Result<Measured, String>>, etcd: Vec<Result<Measured, String>>) -> Point {
        Point { members: 3, load: Load::Put, clients: 64, results: vec![Rounds(ours), Rounds(etcd)] }
    }

    #[test]
    fn rounds_are_summed_before_the_ratio_is_taken() {
        let point = point(vec![round(300, 1), round(100, 9)], vec![round(100, 4), round(100, 4)]);
        let table = table(&["ours", "etcd"], std::slice::from_ref(&point));
        let cells: Vec<&str> = table.lines().last().unwrap().split('|').map(str::trim).collect();
        assert_eq!(
            cells,
            [
                "",
                "3",
                "put",
                "64",
                "200",
                "1.01",
                "9.00",
                "20.0",
                "300",
                "0",
                "100",
                "4.00",
                "4.00",
                "20.0",
                "100",
                "0",
                "2.00",
                "1.00-3.00",
                ""
            ]
        );
        assert!(bar(&[point]).unwrap().ends_with("2.00, met"));
    }

    #[test]
    fn a_failed_point_has_no_figures_and_no_verdict() {
        let point = point(vec![Err("no leader".to_owned())], vec![round(100, 4)]);
        let table = table(&["ours", "etcd"], std::slice::from_ref(&point));
        let row: String = table.lines().last().unwrap().split_whitespace().collect();
        assert!(row.starts_with("|3|put|64|failed|-|-|-|-|-|100|") && row.ends_with("|-|-|"), "{table}");
        assert_eq!(point.failures().collect::<Vec<_>>(), ["3 members, put, 64 clients: no leader"]);
        assert_eq!(bar(&[point]), None);
    }

    #[test]
    fn below_twice_the_bar_is_not_met() {
        let point = point(vec![round(199, 1)], vec![round(100, 4)]);
        assert!(bar(&[point]).unwrap().ends_with("1.99, not met"));
    }

    #[test]
    fn json_holds_each_round_under_its_system() {
        let point =
            point(vec![round(300, 1), Err("no leader".to_owned())], vec![round(100, 4), round(50, 4)]);
        let json = points_json(&["ours", "etcd"], &[point]);
        assert_eq!(json[0]["ours"]["ops_per_s"], 300.0);
        assert_eq!(json[0]["ours"]["rounds"][1]["failed"], "no leader");
        assert_eq!(json[0]["etcd"]["ops_per_s"], 75.0);
        assert_eq!(json[0]["ratio"], 4.0);
    }
}

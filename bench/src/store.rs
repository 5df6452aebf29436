//! `bench store`: ours and an etcd in one run, interleaved point by point.
//!
//! Invariants: at every point each system starts with fresh members and empty directories, one system runs at a time,
//! and the order changes from round to round, so that a slow minute of the machine or of its disk hits both.
//! A point that fails does not end the run; the run then fails at its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;

use crate::cluster::{Cluster, System};
use crate::load::{self, Load, Measured, Plan};
use crate::machine::{self, Machine};
use crate::report::{self, Point, Rounds};

const MEMBERS_MAX: usize = 7;
const CLIENTS_MAX: u64 = 10_000;

#[derive(Args)]
pub(crate) struct Options {
    /// An etcd to compare with: the program itself, not a script that starts it
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,

    /// The binnacle to measure [default: beside this program]
    #[arg(long, value_name = "PATH")]
    binnacle: Option<PathBuf>,

    /// Measured seconds per point and round, after one second of warm-up
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// How often each point is measured
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,

    /// Sizes of the clusters
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    members: Vec<usize>,

    /// Numbers of clients
    #[arg(long, value_delimiter = ',', default_value = "1,64,1000")]
    clients: Vec<u64>,

    /// Keys written before reads are measured
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=load::KEYS))]
    preload: u64,

    /// Requests after which a point ends early
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    requests: u64,

    /// Where members keep their data while they run; it must be on a real disk [default: beside this program]
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,

    /// Writes all figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    check(&options)?;
    let systems = systems(&options)?;
    let data = match &options.data {
        Some(data) => data.canonicalize().with_context(|| format!("--data {}", data.display()))?,
        None => beside_this_program("")?,
    };
    let machine = Machine::read(&data);
    if matches!(machine.filesystem.as_str(), "tmpfs" | "ramfs") {
        eprintln!("bench: warning: {} is in memory, so writes are not durable; use --data", data.display());
    }
    let points = measure_all(&options, &systems, &data).await;
    let names: Vec<&str> = systems.iter().map(|system| system.name).collect();
    show(&options, &systems, &machine, &names, &points);
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&json!({
            "machine": report::machine_json(&machine),
            "commit": machine.commit,
            "versions": systems.iter().map(|system| system.version.as_str()).collect::<Vec<_>>(),
            "seconds": options.seconds,
            "connections": load::CONNECTIONS,
            "value_size_bytes": load::VALUE_SIZE_BYTES,
            "preloaded_keys": options.preload,
            "points": report::points_json(&names, &points),
        }))?;
        std::fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    let failures: Vec<String> = points.iter().flat_map(Point::failures).collect();
    if let Some(first) = failures.first() {
        bail!("{} measurements failed, the first: {first}", failures.len());
    }
    Ok(())
}

fn check(options: &Options) -> anyhow::Result<()> {
    for members in &options.members {
        ensure!((1..=MEMBERS_MAX).contains(members), "--members {members}: from 1 to {MEMBERS_MAX}");
    }
    for clients in &options.clients {
        ensure!((1..=CLIENTS_MAX).contains(clients), "--clients {clients}: from 1 to {CLIENTS_MAX}");
    }
    Ok(())
}

/// Ours first.
fn systems(options: &Options) -> anyhow::Result<Vec<System>> {
    let program = match &options.binnacle {
        Some(program) => program.clone(),
        None => beside_this_program("binnacle")?,
    };
    ensure!(
        program.is_file(),
        "there is no {}: build it with `cargo build --release -p binnacle`, or give --binnacle PATH",
        program.display()
    );
    let mut systems = vec![System::find("ours", &program, &["store"])?];
    if let Some(etcd) = &options.etcd {
        systems.push(System::find("etcd", etcd, &[])?);
    }
    Ok(systems)
}

/// The file of that name, or the directory if the name is empty.
fn beside_this_program(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where this program is")?;
    let directory = program.parent().context("this program is in no directory")?;
    Ok(if name.is_empty() { directory.to_owned() } else { directory.join(name) })
}

async fn measure_all(options: &Options, systems: &[System], data: &Path) -> Vec<Point> {
    let mut points = Vec::new();
    for members in &options.members {
        for load in Load::ALL {
            for clients in &options.clients {
                let results = systems.iter().map(|_| Rounds::default()).collect();
                points.push(Point { members: *members, load, clients: *clients, results });
            }
        }
    }
    for round in 0..options.rounds {
        for point in &mut points {
            let plan = Plan {
                load: point.load,
                clients: point.clients,
                window: Duration::from_secs(options.seconds),
                requests_max: options.requests,
                preloaded: options.preload,
                seed: round,
            };
            let mut order: Vec<usize> = (0..systems.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let system = &systems[index];
                let measured = measure(system, point.members, plan, data).await;
                let outcome = match &measured {
                    Ok(measured) => {
                        format!(
                            "{:.0} ops/s",
                            measured.latencies.total() as f64 / measured.window.as_secs_f64()
                        )
                    }
                    Err(error) => format!("failed: {error:#}"),
                };
                eprintln!(
                    "round {} of {}: {} members, {}, {} clients, {}: {outcome}",
                    round + 1,
                    options.rounds,
                    point.members,
                    point.load.name(),
                    point.clients,
                    system.name
                );
                point.results[index].0.push(measured.map_err(|error| format!("{}: {error:#}", system.name)));
            }
        }
    }
    points
}

async fn measure(system: &System, members: usize, plan: Plan, data: &Path) -> anyhow::Result<Measured> {
    let mut cluster = Cluster::start(system, members, data).await?;
    if plan.load.reads() {
        load::preload(&mut cluster, plan.preloaded).await.context("writing the keys to read")?;
    }
    load::run(&mut cluster, plan).await
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn show(options: &Options, systems: &[System], machine: &Machine, names: &[&str], points: &[Point]) {
    print!("\n{}", report::machine_lines(machine));
    println!("load average after: {}", machine::load_average());
    for system in systems {
        println!("{}: {}", system.name, system.version);
    }
    println!(
        "{} s x {} rounds, {} connections, values of {} bytes\n",
        options.seconds,
        options.rounds,
        load::CONNECTIONS,
        load::VALUE_SIZE_BYTES
    );
    print!("{}", report::table(names, points));
    if let Some(bar) = report::bar(points) {
        println!("\n{bar}");
    }
}

//! `binnacle up`: a whole control plane in this process, on an empty folder or on one that it filled before.
//!
//! Invariants: one line says that it is ready and how long that took; the lines after it can be typed as they stand.

use std::time::Instant;

use anyhow::Result;
use tracing::Level;

use crate::cli::Up;
use crate::logging::{self, Format};
use crate::member::{self, Plan, Running};
use crate::pki::Pki;
use crate::signals;

/// Runs until a signal arrives or a part fails.
pub(crate) async fn run(options: Up) -> Result<()> {
    let started = Instant::now();
    logging::install(Format::Text, Level::WARN);
    let mut stop = signals::Stop::install()?;
    let pki = Pki::open_or_create(&options.dir.join("pki"))?;
    let admin = member::issue_admin(&pki)?;
    let kubeconfig = options.dir.join("admin.kubeconfig");
    let server = format!("https://{}", options.api);
    member::write_kubeconfig(&kubeconfig, &[("binnacle", server)], &pki, &admin)?;
    let plan = Plan {
        name: "m1".to_owned(),
        data_dir: options.dir.join("data"),
        api: options.api,
        store: options.store,
        peer: options.peer,
        initial_cluster: vec![("m1".to_owned(), format!("http://{}", options.peer))],
        simulated_nodes: options.nodes,
    };
    let member = Running::start(plan, &pki, &options.dir, stop.token()).await?;
    print_next_steps(&options, &kubeconfig.display().to_string(), started.elapsed().as_millis());
    tokio::select! {
        () = stop.wait() => {}
        () = member.ended.cancelled() => {}
    }
    member.stop().await
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn print_next_steps(options: &Up, kubeconfig: &str, elapsed_ms: u128) {
    println!(
        "binnacle is ready after {elapsed_ms} ms: API https://{}, store http://{}",
        options.api, options.store
    );
    println!("  kubectl --kubeconfig {kubeconfig} get nodes,pods -A");
    println!("  kubectl --kubeconfig {kubeconfig} run app --image=registry.example/app");
    println!("  binnacle explain pod app --kubeconfig {kubeconfig}");
    println!("  etcdctl --endpoints {} get /registry --prefix --keys-only", options.store);
}

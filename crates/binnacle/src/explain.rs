//! `binnacle explain pod NAME`: the scheduler's last decision about a pod as a table.
//!
//! Invariants: prints only what the Decision object says, so that each total can be recomputed from the row: the sum of
//! `normalized × weight` over the plugins. Not here: deciding (scheduler).

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail};
use kubeclient::{Client, KubeConfig, Transport};
use serde_json::Value;

use crate::cli::Explain;

/// The resource that the scheduler writes its decisions to.
const GROUP: &str = "scheduling.binnacle.dev";
const VERSION: &str = "v1alpha1";

/// Fetches and prints the decision.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub(crate) async fn run(options: Explain) -> Result<()> {
    let path = options.kubeconfig.clone().unwrap_or_else(default_kubeconfig);
    let config = KubeConfig::load(&path)?;
    let transport = Transport::connect(config.endpoint(options.context.as_deref())?)?;
    let decisions = Client::new(transport, "binnacle-explain").api(GROUP, VERSION, "decisions");
    let decision = decisions.namespace(&options.namespace).get(&options.name).await;
    let decision = match decision {
        Ok(decision) => decision,
        Err(error) if error.is_not_found() => bail!(
            "no decision about pod {}/{}: the scheduler has not seen it, or the pod does not exist",
            options.namespace,
            options.name
        ),
        Err(error) => return Err(error.into()),
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&decision)?);
    } else {
        print!("{}", render(&decision));
    }
    Ok(())
}

fn default_kubeconfig() -> PathBuf {
    let here = PathBuf::from("binnacle-data/admin.kubeconfig");
    if here.exists() {
        return here;
    }
    std::env::home_dir().unwrap_or_default().join(".kube/config")
}

/// The decision as text: the verdict, then a line per node.
fn render(decision: &Value) -> String {
    let status = &decision["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = String::new();
    let pod = format!("{}/{}", text(&decision["metadata"]["namespace"]), text(&decision["metadata"]["name"]));
    let verdict = match (text(&status["result"]).as_str(), text(&status["node"])) {
        ("Scheduled", node) => format!("{pod} was placed on {node}"),
        (result, _) => format!("{pod}: {result}: {}", text(&status["message"])),
    };
    let _infallible = writeln!(out, "{verdict}");
    let _infallible = writeln!(
        out,
        "decided at {} on the state of resourceVersion {}; {} of {} nodes feasible\n",
        text(&status["time"]),
        text(&status["resourceVersion"]),
        status["feasibleNodes"],
        status["evaluatedNodes"]
    );
    let empty = Vec::new();
    let nodes = status["nodes"].as_array().unwrap_or(&empty);
    let width = nodes.iter().map(|node| text(&node["name"]).len()).max().unwrap_or(0).max(4);
    let _infallible = writeln!(out, "{:width$}  {:>5}  why", "NODE", "TOTAL");
    for node in nodes {
        let (total, why) = if node["feasible"] == Value::Bool(true) {
            (node["total"].to_string(), scores(&node["scores"]))
        } else {
            (
                "-".to_owned(),
                format!("rejected by {}: {}", text(&node["rejectedBy"]), reasons(&node["reasons"])),
            )
        };
        let _infallible = writeln!(out, "{:width$}  {total:>5}  {why}", text(&node["name"]));
    }
    if status["truncated"] == Value::Bool(true) {
        let _infallible = writeln!(out, "(more nodes were evaluated than are listed)");
    }
    out
}

/// `NodeResourcesFit 93×1 + TaintToleration 100×3`.
fn scores(scores: &Value) -> String {
    let line = |score: &Value| {
        format!(
            "{} {}×{}",
            score["plugin"].as_str().unwrap_or_default(),
            score["normalized"],
            score["weight"]
        )
    };
    match scores.as_array().map(Vec::as_slice) {
        None | Some([]) => "the only feasible node, not scored".to_owned(),
        Some(scores) => scores.iter().map(line).collect::<Vec<_>>().join(" + "),
    }
}

fn reasons(reasons: &Value) -> String {
    let texts = reasons.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::render;

    #[test]
    fn a_table_shows_the_sum_of_each_feasible_node_and_who_rejected_the_others() {
        let decision = json!({"metadata": {"namespace": "default", "name": "app"}, "status": {
            "result": "Scheduled", "node": "n1", "time": "2026-01-02T03:04:05Z", "resourceVersion": "7",
            "evaluatedNodes": 2, "feasibleNodes": 1, "nodes": [
                {"name": "n1", "feasible": true, "total": 393, "scores": [
                    {"plugin": "NodeResourcesFit", "normalized": 93, "weight": 1},
                    {"plugin": "TaintToleration", "normalized": 100, "weight": 3}]},
                {"name": "n2", "feasible": false, "rejectedBy": "TaintToleration",
                 "reasons": ["node(s) had untolerated taint(s)"]}]}});
        assert_eq!(
            render(&decision),
            "default/app was placed on n1\n\
             decided at 2026-01-02T03:04:05Z on the state of resourceVersion 7; 1 of 2 nodes feasible\n\n\
             NODE  TOTAL  why\n\
             n1      393  NodeResourcesFit 93×1 + TaintToleration 100×3\n\
             n2        -  rejected by TaintToleration: node(s) had untolerated taint(s)\n"
        );
    }
}

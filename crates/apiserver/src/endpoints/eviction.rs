//! `pods/{name}/eviction`: a delete that respects disruption budgets.
//!
//! Rules and texts are upstream's (`pkg/registry/core/pod/storage/eviction.go`). The budget is counted down under a
//! compare of its revision before the pod goes, so concurrent evictions cannot spend it twice.
//! Not here: who computes what a budget allows (the disruption controller).

use std::sync::Arc;

use apimachinery::kinds::{self, Resource};
use apimachinery::selector::LabelSelector;
use apimachinery::status::{Cause, GroupResource, Status};
use apimachinery::{Value, meta, time};
use http::{Response, StatusCode};
use serde_json::{Map, json};

use super::Call;
use super::body::{self, Expected};
use crate::object::Object;
use crate::options::{DeleteOptions, FieldValidation, Freshness, WriteOptions};
use crate::registry::{Part, Source, Updated, Write};
use crate::render::now_s;
use crate::{Body, negotiate};

const BUDGETS: GroupResource<'static> = GroupResource::new("policy", "poddisruptionbudgets");
/// Source: upstream eviction.go, for a budget that its controller has not processed yet.
const RETRY_AFTER_S: u32 = 10;
/// Pods that a budget may be waiting for. Source: upstream eviction.go `MaxDisruptedPodSize`.
const DISRUPTED_PODS_MAX: usize = 2_000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub(super) async fn evict(mut call: Call<'_>) -> Result<Response<Body>, Status> {
    let mut options = WriteOptions::parse(call.query(), "CreateOptions")?;
    let bytes = call.request.read_body().await?;
    let expected = Expected::named("policy/v1", "Eviction", "policy.v1.Eviction");
    let mut ignored = Vec::new();
    let eviction =
        body::read(&expected, &call.content_type(), &bytes, FieldValidation::Ignore, &mut ignored)?;
    let named = meta::of(&eviction).name();
    if !named.is_empty() && named != call.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let delete = DeleteOptions::parse("", eviction.get("deleteOptions").or(Some(&Value::Null)))?;
    options.dry_run |= delete.dry_run;
    let registry = call.server.registry();
    let freshness = Freshness::Consistent;
    let pod = registry.get(call.resource, &call.namespace, &call.name, freshness, call.deadline()).await?;
    if !may_go_freely(pod.value()) {
        spend_budget(&call, &options, pod.value()).await?;
    }
    let write = call.write(options);
    registry.delete(&write, &call.name, &delete).await?;
    let done =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    negotiate::encode_object("meta.v1.Status", &call.request.parts().headers, StatusCode::CREATED, &done)
}

/// Pods that serve nobody: not started, finished, or on their way out.
fn may_go_freely(pod: &Value) -> bool {
    matches!(text(pod, "status", "phase"), "Pending" | "Succeeded" | "Failed")
        || meta::of(pod).deletion_timestamp().is_some()
}

async fn spend_budget(call: &Call<'_>, options: &WriteOptions, pod: &Value) -> Result<(), Status> {
    let Some(budgets) = kinds::find("policy", "v1", "poddisruptionbudgets") else { return Ok(()) };
    let matching = matching_budgets(call, budgets, pod).await?;
    let budget = match matching.as_slice() {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    if !is_ready(pod) && leaves_unready_pods(budget.value()) {
        return Ok(());
    }
    let name = meta::of(budget.value()).name().to_owned();
    let mut edit = |current: &Value| spend(current, &call.name);
    let write = Write { resource: budgets, subresource: "status", ..call.write(options.clone()) };
    match call.server.registry().update(&write, &name, Part::Status, Source::Patch, &mut edit).await? {
        Updated::Object(_) => Ok(()),
        // Without its budget the pod is free.
        Updated::Missing => Ok(()),
    }
}

async fn matching_budgets(
    call: &Call<'_>,
    budgets: &'static Resource,
    pod: &Value,
) -> Result<Vec<Arc<Object>>, Status> {
    let snapshot = call.server.registry().consistent(budgets, call.deadline()).await?;
    let all = snapshot.scan(&call.namespace, None);
    let matching = all.filter(|(_, budget)| {
        let selector = budget.value().get("spec").and_then(|spec| spec.get("selector"));
        LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches_object(pod))
    });
    Ok(matching.map(|(_, budget)| budget.clone()).collect())
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.get("status").and_then(|status| status.get("conditions")).and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type") == Some(&json!("Ready")) && condition.get("status") == Some(&json!("True"))
    })
}

/// A pod that is not ready costs a healthy application nothing.
fn leaves_unready_pods(budget: &Value) -> bool {
    let always = text(budget, "spec", "unhealthyPodEvictionPolicy") == "AlwaysAllow";
    let (current, desired) = (number(budget, "currentHealthy"), number(budget, "desiredHealthy"));
    always || (desired > 0 && current >= desired)
}

/// The budget with one disruption less, or why there is none.
fn spend(budget: &Value, pod: &str) -> Result<Value, Status> {
    let name = meta::of(budget).name();
    let refuse = |why: String| {
        let cause = Cause { reason: "DisruptionBudget".to_owned(), message: why, field: String::new() };
        Status::too_many_requests(REFUSED, 0).with_cause(cause)
    };
    if number(budget, "observedGeneration") < meta::of(budget).generation() {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refuse(why).retry_after_s(RETRY_AFTER_S));
    }
    let allowed = number(budget, "disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(BUDGETS, name, "pdb disruptions allowed is negative"));
    }
    let status = budget.get("status").and_then(Value::as_object);
    let disrupted = status.and_then(|status| status.get("disruptedPods")).and_then(Value::as_object);
    let mut disrupted = disrupted.cloned().unwrap_or_default();
    if disrupted.len() > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(BUDGETS, name, why));
    }
    if allowed == 0 {
        let (desired, current) = (number(budget, "desiredHealthy"), number(budget, "currentHealthy"));
        return Err(refuse(format!(
            "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        )));
    }
    disrupted.insert(pod.to_owned(), json!(time::format_s(now_s())));
    let mut status: Map<String, Value> = status.cloned().unwrap_or_default();
    status.insert("disruptionsAllowed".to_owned(), json!(allowed - 1));
    status.insert("disruptedPods".to_owned(), Value::Object(disrupted));
    let mut spent = budget.clone();
    spent["status"] = Value::Object(status);
    Ok(spent)
}

fn text<'a>(value: &'a Value, part: &str, field: &str) -> &'a str {
    value.get(part).and_then(|part| part.get(field)).and_then(Value::as_str).unwrap_or_default()
}

fn number(budget: &Value, field: &str) -> i64 {
    budget.get("status").and_then(|status| status.get(field)).and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_one_by_one_and_then_refuses() {
        let budget = |allowed: i64| {
            json!({
                "metadata": {"name": "b", "generation": 1},
                "status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2},
            })
        };
        let spent = spend(&budget(1), "p").unwrap();
        assert_eq!(spent["status"]["disruptionsAllowed"], 0);
        assert!(spent["status"]["disruptedPods"]["p"].is_string());
        let refused = spend(&spent, "q").unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (429, REFUSED));
        assert!(refused.has_cause("DisruptionBudget"));
        let mut fresh = budget(1);
        fresh["metadata"]["generation"] = json!(2);
        assert_eq!(spend(&fresh, "p").unwrap_err().details.unwrap().retry_after_s, RETRY_AFTER_S);
    }
}

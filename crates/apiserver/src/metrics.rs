//! What `/metrics` says, under the names that dashboards for kube-apiserver use.
//!
//! Invariant: labels come from closed sets (table resources, known verbs), never from what a client wrote, so the
//! number of series is bounded. Not here: the store's metrics.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::RequestInfo;
use crate::request_info::query_value;

/// Source: apiserver endpoints/metrics `apiserver_request_duration_seconds`, thinned.
const DURATION_BUCKETS_S: &[f64] =
    &[0.001, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0];

#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    inflight: IntGaugeVec,
    long_running: IntGaugeVec,
    panics: IntCounter,
    authentications: IntCounterVec,
    authorizations: IntCounterVec,
    audit_events: IntCounter,
    audit_errors: IntCounterVec,
}

/// The labels of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

/// Counts a request as in flight until dropped.
pub(crate) struct Inflight(prometheus::IntGauge);

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Scope {
    pub(crate) fn of(info: &RequestInfo, parts: &Parts) -> Scope {
        let known = apimachinery::kinds::find(&info.api_group, &info.api_version, &info.resource);
        let dry_run =
            query_value(parts.uri.query().unwrap_or(""), "dryRun").is_some_and(|value| value == "All");
        let text = |value: &str| if known.is_some() { value.to_string() } else { String::new() };
        let subresource = known.map_or("", |resource| {
            let mut rows = resource.subresource_rows().into_iter();
            rows.find(|row| row.name == info.subresource).map_or("", |row| row.name)
        });
        Scope {
            verb: verb(info),
            dry_run: if dry_run { "All" } else { "" },
            group: text(&info.api_group),
            version: text(&info.api_version),
            resource: text(&info.resource),
            subresource: subresource.to_string(),
            scope: match (known.is_some(), info.name.is_empty(), info.namespace.is_empty()) {
                (false, _, _) => "",
                (true, false, _) => "resource",
                (true, true, false) => "namespace",
                (true, true, true) => "cluster",
            },
        }
    }

    fn labels(&self) -> [&str; 7] {
        [self.verb, self.dry_run, &self.group, &self.version, &self.resource, &self.subresource, self.scope]
    }
}

/// Verbs as upstream spells them in this metric.
fn verb(info: &RequestInfo) -> &'static str {
    match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "head" => "HEAD",
        "options" => "OPTIONS",
        "proxy" => "PROXY",
        _ => "other",
    }
}

impl Metrics {
    /// # Panics
    /// Only if two metrics below had the same name.
    pub(crate) fn new() -> Metrics {
        let scope = ["verb", "dry_run", "group", "version", "resource", "subresource", "scope"];
        let with_code: Vec<&str> = scope.iter().copied().chain(["code"]).collect();
        let vector = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("the name and labels are valid")
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels).expect("the name and labels are valid")
        };
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect("the name is valid");
        let durations =
            HistogramOpts::new("apiserver_request_duration_seconds", "Response latency in seconds.")
                .buckets(DURATION_BUCKETS_S.to_vec());
        let inner = Inner {
            registry: Registry::new(),
            requests: vector("apiserver_request_total", "Requests by verb, resource and code.", &with_code),
            durations: HistogramVec::new(durations, &scope).expect("the name and labels are valid"),
            inflight: gauge(
                "apiserver_current_inflight_requests",
                "Requests being served.",
                &["request_kind"],
            ),
            long_running: gauge(
                "apiserver_longrunning_requests",
                "Watches and streams being opened.",
                &["verb"],
            ),
            panics: counter("apiserver_panics_total", "Requests whose handler panicked."),
            authentications: vector(
                "authentication_attempts",
                "Authenticated and refused requests.",
                &["result"],
            ),
            authorizations: vector(
                "apiserver_authorization_decisions_total",
                "Authorization decisions.",
                &["decision"],
            ),
            audit_events: counter("apiserver_audit_event_total", "Audit events written."),
            audit_errors: vector("apiserver_audit_error_total", "Audit events lost, by cause.", &["cause"]),
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 9] = [
            Box::new(inner.requests.clone()),
            Box::new(inner.durations.clone()),
            Box::new(inner.inflight.clone()),
            Box::new(inner.long_running.clone()),
            Box::new(inner.panics.clone()),
            Box::new(inner.authentications.clone()),
            Box::new(inner.authorizations.clone()),
            Box::new(inner.audit_events.clone()),
            Box::new(inner.audit_errors.clone()),
        ];
        for collector in collectors {
            inner.registry.register(collector).expect("every name is used once");
        }
        Metrics(Arc::new(inner))
    }

    pub(crate) fn request_started(&self, scope: &Scope, long_running: bool) -> Inflight {
        let gauge = match (long_running, scope.verb) {
            (true, verb) => self.0.long_running.with_label_values(&[verb]),
            (false, "GET" | "LIST" | "HEAD" | "OPTIONS") => self.0.inflight.with_label_values(&["readOnly"]),
            (false, _) => self.0.inflight.with_label_values(&["mutating"]),
        };
        gauge.inc();
        Inflight(gauge)
    }

    pub(crate) fn request_finished(&self, scope: &Scope, code: StatusCode, took: Duration) {
        let [verb, dry_run, group, version, resource, subresource, kind] = scope.labels();
        let code = code.as_str();
        self.0
            .requests
            .with_label_values(&[verb, dry_run, group, version, resource, subresource, kind, code])
            .inc();
        self.0.durations.with_label_values(&scope.labels()).observe(took.as_secs_f64());
    }

    pub(crate) fn panicked(&self) {
        self.0.panics.inc();
    }

    pub(crate) fn authentication_failed(&self) {
        self.0.authentications.with_label_values(&["failure"]).inc();
    }

    pub(crate) fn authorized(&self, decision: &'static str) {
        self.0.authorizations.with_label_values(&[decision]).inc();
    }

    pub(crate) fn audit_written(&self) {
        self.0.audit_events.inc();
    }

    /// An event that never reached the writer.
    pub(crate) fn audit_lost(&self) {
        self.0.audit_errors.with_label_values(&["queue_full"]).inc();
    }

    /// A batch that the disk refused.
    pub(crate) fn audit_failed(&self) {
        self.0.audit_errors.with_label_values(&["write"]).inc();
    }

    /// All series in the text format, and the format's media type.
    pub(crate) fn render(&self) -> (Vec<u8>, String) {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        // Writing to memory fails only for a metric without series, which the encoder then leaves out.
        if let Err(error) = encoder.encode(&self.0.registry.gather(), &mut text) {
            tracing::warn!(%error, "a metric could not be written");
        }
        (text, encoder.format_type().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_info;

    fn scope(method: &str, uri: &str) -> Scope {
        let parts = http::Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0;
        let info =
            request_info::parse(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or("")).unwrap();
        Scope::of(&info, &parts)
    }

    #[test]
    fn a_request_is_counted_under_its_resource_and_code() {
        let metrics = Metrics::new();
        let scope = scope("GET", "/api/v1/namespaces/default/pods/app");
        drop(metrics.request_started(&scope, false));
        metrics.request_finished(&scope, StatusCode::OK, Duration::from_millis(3));
        let text = String::from_utf8(metrics.render().0).unwrap();
        let line = text.lines().find(|line| line.starts_with("apiserver_request_total{")).unwrap();
        for label in ["verb=\"GET\"", "resource=\"pods\"", "code=\"200\"", "scope=\"resource\""] {
            assert!(line.contains(label), "{line}");
        }
        assert!(line.ends_with(" 1"));
        assert!(text.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 0"));
    }

    #[test]
    fn what_a_client_made_up_does_not_become_a_series() {
        for uri in ["/apis/evil.example/v1/things/x", "/whatever/else", "/api/v1/namespaces/x/nonsense"] {
            let scope = scope("BREW", uri);
            assert_eq!(
                (scope.verb, scope.resource.as_str(), scope.group.as_str()),
                ("other", "", ""),
                "{uri}"
            );
        }
        assert_eq!(scope("GET", "/api/v1/namespaces/a/pods/b/made-up").subresource, "");
    }
}

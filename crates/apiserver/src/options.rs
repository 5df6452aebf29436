//! The options of a request: query parameters, and the DeleteOptions body.
//!
//! Parsed once, before anything else reads them; rules and texts are upstream's
//! (apimachinery `pkg/apis/meta/internalversion/validation`, `pkg/apis/meta/v1/validation`).
//! Not here: selectors' meaning (apimachinery), what the options lead to (endpoints).

use apimachinery::Value;
use apimachinery::status::{FieldError, GroupKind, Path, Status};

use crate::request_info::query_pairs;

/// Longest `fieldManager`. Source: upstream metav1 validation `FieldManagerMaxLength`.
const FIELD_MANAGER_LENGTH_MAX: usize = 128;

/// Longest watch that a client can ask for: a month. Longer ones end then, as any watch may.
const WATCH_S_MAX: u64 = 30 * 86_400;

/// What to do about unknown and duplicate fields of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    pub(crate) field_manager: String,
    pub(crate) force: bool,
}

/// Which state a read must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// As of now: nothing written before the request may be missing.
    Consistent,
    /// Whatever is at hand.
    Any,
    NotOlderThan(i64),
    Exact(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListOptions {
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) freshness: Freshness,
    /// 0 = no limit.
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WatchOptions {
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    /// `Exact` never occurs; `NotOlderThan(n)` means "strictly after n" unless `initial_events` is set.
    pub(crate) freshness: Freshness,
    pub(crate) initial_events: bool,
    pub(crate) bookmarks: bool,
    pub(crate) timeout_s: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_period_s: Option<i64>,
    pub(crate) precondition_uid: Option<String>,
    pub(crate) precondition_resource_version: Option<String>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// The raw parameters that lists and watches share.
#[derive(Default)]
struct Raw {
    label_selector: String,
    field_selector: String,
    resource_version: String,
    matching: String,
    continue_token: String,
    limit: i64,
    timeout_s: Option<u64>,
    bookmarks: bool,
    initial_events: Option<bool>,
}

impl WriteOptions {
    /// `kind` is the options' own kind, for the text of an error.
    pub(crate) fn parse(query: &str, kind: &str) -> Result<WriteOptions, Status> {
        let mut options = WriteOptions::default();
        let mut errors = Vec::new();
        for (name, value) in query_pairs(query) {
            match name.as_str() {
                "dryRun" => match dry_run(&value) {
                    Ok(dry_run) => options.dry_run |= dry_run,
                    Err(error) => errors.push(*error),
                },
                "fieldManager" => options.field_manager = value,
                "force" => options.force = boolean(&value)?,
                "fieldValidation" => match value.as_str() {
                    "" => {}
                    "Ignore" => options.field_validation = FieldValidation::Ignore,
                    "Warn" => options.field_validation = FieldValidation::Warn,
                    "Strict" => options.field_validation = FieldValidation::Strict,
                    _ => errors.push(FieldError::not_supported(
                        &Path::new("fieldValidation"),
                        value,
                        &["", "Ignore", "Strict", "Warn"],
                    )),
                },
                _ => {}
            }
        }
        let manager = Path::new("fieldManager");
        if options.field_manager.len() > FIELD_MANAGER_LENGTH_MAX {
            errors.push(FieldError::too_long(&manager, FIELD_MANAGER_LENGTH_MAX));
        } else if options.field_manager.chars().any(char::is_control) {
            errors.push(FieldError::invalid(
                &manager,
                options.field_manager.clone(),
                "should only contain printable characters",
            ));
        }
        match errors.is_empty() {
            true => Ok(options),
            false => Err(Status::invalid(GroupKind::new("meta.k8s.io", kind), "", &errors)),
        }
    }
}

impl ListOptions {
    pub(crate) fn parse(query: &str) -> Result<ListOptions, Status> {
        let raw = Raw::parse(query)?;
        let mut errors = Vec::new();
        let matching = Path::new("resourceVersionMatch");
        if !raw.matching.is_empty() {
            if raw.resource_version.is_empty() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(FieldError::forbidden(&matching, why));
            }
            if !raw.continue_token.is_empty() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(FieldError::forbidden(&matching, why));
            }
            if !matches!(raw.matching.as_str(), "Exact" | "NotOlderThan") {
                let supported = &["Exact", "NotOlderThan", ""];
                errors.push(FieldError::not_supported(&matching, raw.matching.as_str(), supported));
            }
            if raw.matching == "Exact" && raw.resource_version == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(FieldError::forbidden(&matching, why));
            }
        }
        if raw.initial_events.is_some() {
            let path = Path::new("sendInitialEvents");
            errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
        }
        refuse(&errors)?;
        let revision = revision(&raw.resource_version)?;
        if !raw.continue_token.is_empty() && revision.is_some_and(|revision| revision != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let limit = usize::try_from(raw.limit).unwrap_or(0);
        let freshness = match revision {
            None => Freshness::Consistent,
            Some(0) => Freshness::Any,
            Some(revision) if raw.matching == "Exact" => Freshness::Exact(revision),
            // Before resourceVersionMatch existed, a limit made the revision exact; it still does.
            Some(revision) if raw.matching.is_empty() && limit > 0 => Freshness::Exact(revision),
            Some(revision) => Freshness::NotOlderThan(revision),
        };
        Ok(ListOptions {
            label_selector: raw.label_selector,
            field_selector: raw.field_selector,
            freshness,
            // A cached list of any state is cheaper than its pages.
            limit: if freshness == Freshness::Any { 0 } else { limit },
            continue_token: raw.continue_token,
        })
    }
}

impl WatchOptions {
    pub(crate) fn parse(query: &str) -> Result<WatchOptions, Status> {
        let raw = Raw::parse(query)?;
        let mut errors = Vec::new();
        let matching = Path::new("resourceVersionMatch");
        if raw.initial_events.is_some() && raw.matching != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(&matching, why));
        }
        if !raw.matching.is_empty() {
            if raw.initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(FieldError::forbidden(&matching, why));
            }
            if raw.matching != "NotOlderThan" {
                errors.push(FieldError::not_supported(&matching, raw.matching.as_str(), &["NotOlderThan"]));
            }
            if !raw.continue_token.is_empty() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(FieldError::forbidden(&matching, why));
            }
        }
        refuse(&errors)?;
        let freshness = match revision(&raw.resource_version)? {
            None => Freshness::Consistent,
            Some(0) => Freshness::Any,
            Some(revision) => Freshness::NotOlderThan(revision),
        };
        Ok(WatchOptions {
            label_selector: raw.label_selector,
            field_selector: raw.field_selector,
            freshness,
            // Without the parameter, "" and "0" begin with the state, and N begins after N.
            initial_events: raw
                .initial_events
                .unwrap_or(matches!(freshness, Freshness::Consistent | Freshness::Any)),
            bookmarks: raw.bookmarks,
            timeout_s: raw.timeout_s,
        })
    }

    /// Whether the client asked for the bookmark that ends the initial events.
    pub(crate) fn marks_end_of_initial_events(query: &str) -> bool {
        query_pairs(query).any(|(name, value)| name == "sendInitialEvents" && boolean(&value) == Ok(true))
    }
}

impl DeleteOptions {
    /// Body (if any) and query say the same things; a body wins.
    pub(crate) fn parse(query: &str, body: Option<&Value>) -> Result<DeleteOptions, Status> {
        let options = match body {
            Some(body) => DeleteOptions::from_body(body)?,
            None => DeleteOptions::from_query(query)?,
        };
        if options.orphan_dependents.is_some() && options.propagation.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            let error = FieldError::invalid(&Path::new("propagationPolicy"), Value::Null, why);
            return Err(invalid_delete(&[error]));
        }
        Ok(options)
    }

    fn from_query(query: &str) -> Result<DeleteOptions, Status> {
        let mut options = DeleteOptions::default();
        for (name, value) in query_pairs(query) {
            match name.as_str() {
                "gracePeriodSeconds" if !value.is_empty() => {
                    options.grace_period_s = Some(integer(&value)?);
                }
                "orphanDependents" => options.orphan_dependents = Some(boolean(&value)?),
                "propagationPolicy" if !value.is_empty() => options.propagation = Some(propagation(&value)?),
                "dryRun" => options.dry_run |= dry_run(&value).map_err(|error| invalid_delete(&[*error]))?,
                _ => {}
            }
        }
        Ok(options)
    }

    fn from_body(body: &Value) -> Result<DeleteOptions, Status> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let preconditions = body.get("preconditions");
        let mut options = DeleteOptions {
            grace_period_s: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            precondition_uid: text(preconditions.and_then(|pre| pre.get("uid"))),
            precondition_resource_version: text(preconditions.and_then(|pre| pre.get("resourceVersion"))),
            orphan_dependents: body.get("orphanDependents").and_then(Value::as_bool),
            ..DeleteOptions::default()
        };
        if let Some(policy) =
            body.get("propagationPolicy").and_then(Value::as_str).filter(|policy| !policy.is_empty())
        {
            options.propagation = Some(propagation(policy)?);
        }
        for value in body.get("dryRun").and_then(Value::as_array).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            options.dry_run |= dry_run(value).map_err(|error| invalid_delete(&[*error]))?;
        }
        Ok(options)
    }
}

impl Raw {
    fn parse(query: &str) -> Result<Raw, Status> {
        let mut raw = Raw::default();
        for (name, value) in query_pairs(query) {
            match name.as_str() {
                "labelSelector" => raw.label_selector = value,
                "fieldSelector" => raw.field_selector = value,
                "resourceVersion" => raw.resource_version = value,
                "resourceVersionMatch" => raw.matching = value,
                "continue" => raw.continue_token = value,
                "limit" if !value.is_empty() => raw.limit = integer(&value)?,
                "timeoutSeconds" if !value.is_empty() => {
                    raw.timeout_s = u64::try_from(integer(&value)?).ok().filter(|timeout_s| *timeout_s > 0);
                    raw.timeout_s = raw.timeout_s.map(|timeout_s| timeout_s.min(WATCH_S_MAX));
                }
                "allowWatchBookmarks" => raw.bookmarks = boolean(&value)?,
                "sendInitialEvents" => raw.initial_events = Some(boolean(&value)?),
                _ => {}
            }
        }
        Ok(raw)
    }
}

/// A resource version is opaque to clients and a decimal revision to us; "" is None.
pub(crate) fn revision(text: &str) -> Result<Option<i64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse::<u64>().ok().and_then(|revision| i64::try_from(revision).ok());
    parsed.map(Some).ok_or_else(|| {
        let why = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
        let error = FieldError::invalid(&Path::new("resourceVersion"), text, why);
        Status::invalid(GroupKind::new("meta.k8s.io", "ListOptions"), "", &[error])
    })
}

fn refuse(errors: &[FieldError]) -> Result<(), Status> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(GroupKind::new("meta.k8s.io", "ListOptions"), "", errors)),
    }
}

fn invalid_delete(errors: &[FieldError]) -> Status {
    Status::invalid(GroupKind::new("meta.k8s.io", "DeleteOptions"), "", errors)
}

fn dry_run(value: &str) -> Result<bool, Box<FieldError>> {
    match value {
        "All" => Ok(true),
        _ => Err(Box::new(FieldError::not_supported(&Path::new("dryRun"), value, &["All"]))),
    }
}

fn propagation(value: &str) -> Result<Propagation, Status> {
    match value {
        "Orphan" => Ok(Propagation::Orphan),
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        _ => {
            let supported = &["Background", "Foreground", "Orphan"];
            Err(invalid_delete(&[FieldError::not_supported(
                &Path::new("propagationPolicy"),
                value,
                supported,
            )]))
        }
    }
}

/// Like upstream, a parameter that is present and empty is true.
fn boolean(value: &str) -> Result<bool, Status> {
    Ok(!matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
}

fn integer(value: &str) -> Result<i64, Status> {
    value
        .parse()
        .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing \"{value}\": invalid syntax")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_versions_of_a_list_mean_what_upstream_says() {
        for (query, freshness, limit) in [
            ("", Freshness::Consistent, 0),
            ("limit=5", Freshness::Consistent, 5),
            ("resourceVersion=0&limit=5", Freshness::Any, 0),
            ("resourceVersion=7", Freshness::NotOlderThan(7), 0),
            ("resourceVersion=7&limit=5", Freshness::Exact(7), 5),
            ("resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan", Freshness::NotOlderThan(7), 5),
            ("resourceVersion=7&resourceVersionMatch=Exact", Freshness::Exact(7), 0),
        ] {
            let options = ListOptions::parse(query).unwrap();
            assert_eq!((options.freshness, options.limit), (freshness, limit), "{query}");
        }
    }

    #[test]
    fn combinations_that_make_no_sense_are_refused_with_upstreams_text() {
        for (query, message) in [
            (
                "resourceVersionMatch=Exact",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "resourceVersion=1&resourceVersionMatch=Foo",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: \"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (
                "sendInitialEvents=true",
                "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
        ] {
            let status = ListOptions::parse(query).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (422, message), "{query}");
        }
        assert_eq!(ListOptions::parse("continue=x&resourceVersion=5").unwrap_err().code, 400);
        assert_eq!(ListOptions::parse("resourceVersion=five").unwrap_err().code, 422);
        assert_eq!(ListOptions::parse("limit=five").unwrap_err().code, 400);
    }

    #[test]
    fn a_watch_begins_with_the_state_unless_it_names_a_revision() {
        for (query, initial) in [
            ("watch=1", true),
            ("resourceVersion=0", true),
            ("resourceVersion=5", false),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=5", true),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan", false),
        ] {
            assert_eq!(WatchOptions::parse(query).unwrap().initial_events, initial, "{query}");
        }
        assert_eq!(WatchOptions::parse("sendInitialEvents=true").unwrap_err().code, 422);
        assert_eq!(WatchOptions::parse("resourceVersionMatch=NotOlderThan").unwrap_err().code, 422);
    }

    #[test]
    fn delete_options_come_from_the_body_or_the_query() {
        let body = serde_json::json!({"gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "preconditions": {"uid": "u"}});
        let options = DeleteOptions::parse("gracePeriodSeconds=9", Some(&body)).unwrap();
        assert_eq!(options.grace_period_s, Some(0));
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        assert_eq!(options.precondition_uid.as_deref(), Some("u"));
        assert_eq!(
            DeleteOptions::parse("gracePeriodSeconds=9&dryRun=All", None).unwrap().grace_period_s,
            Some(9)
        );
        assert_eq!(DeleteOptions::parse("propagationPolicy=Sometimes", None).unwrap_err().code, 422);
    }
}

//! What a request asks for, read from its method and path alone, as upstream's `RequestInfoFactory` does.
//!
//! Authorization and dispatch both read this one value, so they cannot disagree about what a path means.
//! An absent part is the empty string. Not here: whether the resource exists.

use http::Method;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    pub(crate) is_resource: bool,
    /// Percent-decoded.
    pub(crate) path: String,
    /// For resources `get list watch create update patch delete deletecollection`, else the method in lower case.
    pub(crate) verb: String,
    pub(crate) api_prefix: String,
    pub(crate) api_group: String,
    pub(crate) api_version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    /// For list and watch: the name that `fieldSelector=metadata.name=` pins, if any.
    pub(crate) name: String,
    /// The path from the resource on.
    pub(crate) parts: Vec<String>,
    pub(crate) field_selector: String,
    pub(crate) label_selector: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PathError {
    #[error("invalid URL escape in the request path")]
    Escape,
    #[error("unable to determine kind and namespace from url, {0}")]
    Incomplete(String),
}

/// Reads method, path and query. `query` is still percent-encoded.
pub(crate) fn parse(method: &Method, path: &str, query: &str) -> Result<RequestInfo, PathError> {
    let path = decode_path(path)?;
    let mut info = RequestInfo {
        verb: method.as_str().to_ascii_lowercase(),
        path: path.clone(),
        ..RequestInfo::default()
    };
    let trimmed = path.trim_matches('/');
    let parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
    let mut rest = parts.as_slice();
    match rest {
        ["api", version, tail @ ..] if !tail.is_empty() => {
            info.api_prefix = "api".to_string();
            info.api_version = (*version).to_string();
            rest = tail;
        }
        ["apis", group, version, tail @ ..] if !tail.is_empty() && !group.is_empty() => {
            info.api_prefix = "apis".to_string();
            info.api_group = (*group).to_string();
            info.api_version = (*version).to_string();
            rest = tail;
        }
        _ => return Ok(info),
    }
    info.is_resource = true;
    info.verb = verb(method).to_string();
    let mut has_subresources = true;
    if let [special @ ("watch" | "proxy"), tail @ ..] = rest {
        if tail.is_empty() {
            return Err(PathError::Incomplete(path));
        }
        info.verb = (*special).to_string();
        has_subresources = *special != "proxy";
        rest = tail;
    }
    if let ["namespaces", namespace, tail @ ..] = rest {
        info.namespace = (*namespace).to_string();
        if let [resource, ..] = tail
            && !matches!(*resource, "status" | "finalize")
        {
            rest = tail;
        }
    }
    info.parts = rest.iter().map(|part| (*part).to_string()).collect();
    if let [resource, ..] = rest {
        info.resource = (*resource).to_string();
    }
    if let [_, name, ..] = rest {
        info.name = (*name).to_string();
    }
    if let [_, _, subresource, ..] = rest
        && has_subresources
    {
        info.subresource = (*subresource).to_string();
    }
    read_selectors(&mut info, query);
    Ok(info)
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// Turns a nameless get into list or watch, and a nameless delete into deletecollection.
fn read_selectors(info: &mut RequestInfo, query: &str) {
    let nameless = info.name.is_empty();
    if nameless && info.verb == "delete" {
        info.verb = "deletecollection".to_string();
    }
    if nameless && info.verb == "get" {
        info.verb = if wants_watch(query) { "watch" } else { "list" }.to_string();
    }
    if !matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
        return;
    }
    info.field_selector = query_value(query, "fieldSelector").unwrap_or_default();
    info.label_selector = query_value(query, "labelSelector").unwrap_or_default();
    if nameless
        && info.verb != "deletecollection"
        && let Some(name) = pinned_name(&info.field_selector)
    {
        info.name = name;
    }
}

/// A watch unless the parameter is absent or says no; upstream reads any other text as yes.
fn wants_watch(query: &str) -> bool {
    query_value(query, "watch")
        .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
}

/// The name that every match of the selector must have; only a valid path segment counts.
///
/// A selector with an escape (`\,`) pins nothing: what looks like a term could be part of another term's value,
/// and a rule for one name must never open a list of all.
fn pinned_name(field_selector: &str) -> Option<String> {
    if field_selector.contains('\\') {
        return None;
    }
    let name = field_selector.split(',').find_map(|term| {
        let value = term.strip_prefix("metadata.name")?;
        value.strip_prefix("==").or_else(|| value.strip_prefix('='))
    })?;
    let is_segment = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%', '\\']);
    is_segment.then(|| name.to_string())
}

/// The first value of a query parameter, decoded.
pub(crate) fn query_value(query: &str, name: &str) -> Option<String> {
    query_pairs(query).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// All parameters in order, decoded; a pair that is not valid UTF-8 after decoding is left out.
pub(crate) fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode_query(key)?, decode_query(value)?))
    })
}

fn decode_query(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " "))
}

/// Decodes percent escapes. A NUL byte or text that is not UTF-8 is refused.
fn decode_path(path: &str) -> Result<String, PathError> {
    let decoded = percent_decode(path).ok_or(PathError::Escape)?;
    if decoded.contains('\0') { Err(PathError::Escape) } else { Ok(decoded) }
}

pub(crate) fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_string());
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line per request: method, URL, then the expected
    /// `verb prefix group version namespace resource subresource name parts` (`-` is absent).
    const TABLE: &str = "
        GET  /api/v1/namespaces                              list   api - v1 - namespaces - - namespaces
        GET  /api/v1/namespaces/other                        get    api - v1 other namespaces - other namespaces,other
        GET  /api/v1/namespaces/other/pods                   list   api - v1 other pods - - pods
        GET  /api/v1/namespaces/other/pods/foo               get    api - v1 other pods - foo pods,foo
        HEAD /api/v1/namespaces/other/pods/foo               get    api - v1 other pods - foo pods,foo
        GET  /api/v1/pods                                    list   api - v1 - pods - - pods
        HEAD /api/v1/pods                                    list   api - v1 - pods - - pods
        GET  /api/v1/pods/                                   list   api - v1 - pods - - pods
        GET  /api/v1/pods?watch=true                         watch  api - v1 - pods - - pods
        GET  /api/v1/pods?watch=1                            watch  api - v1 - pods - - pods
        GET  /api/v1/pods?watch=false                        list   api - v1 - pods - - pods
        GET  /api/v1/pods?watch=0                            list   api - v1 - pods - - pods
        GET  /api/v1/pods?watch=gibberish                    watch  api - v1 - pods - - pods
        GET  /api/v1/watch/pods                              watch  api - v1 - pods - - pods
        GET  /api/v1/watch/namespaces/other/pods             watch  api - v1 other pods - - pods
        GET  /api/v1/watch/namespaces/other/pods/foo         watch  api - v1 other pods - foo pods,foo
        GET  /api/v1/proxy/namespaces/other/pods/foo/x/y     proxy  api - v1 other pods - foo pods,foo,x,y
        GET  /api/v1/namespaces/other/pods/foo/proxy/x       get    api - v1 other pods proxy foo pods,foo,proxy,x
        GET  /api/v1/namespaces/other/pods/foo/log           get    api - v1 other pods log foo pods,foo,log
        PUT  /api/v1/namespaces/other/finalize               update api - v1 other namespaces finalize other namespaces,other,finalize
        PATCH /api/v1/namespaces/other/status                patch  api - v1 other namespaces status other namespaces,other,status
        POST /api/v1/namespaces/other/pods                   create api - v1 other pods - - pods
        POST /api/v1/namespaces/other/pods/foo/binding       create api - v1 other pods binding foo pods,foo,binding
        PUT  /api/v1/namespaces/other/pods/foo               update api - v1 other pods - foo pods,foo
        DELETE /api/v1/namespaces/other/pods/foo             delete api - v1 other pods - foo pods,foo
        DELETE /api/v1/namespaces/other/pods                 deletecollection api - v1 other pods - - pods
        GET  /apis/batch/v1/namespaces/other/jobs            list   apis batch v1 other jobs - - jobs
        GET  /apis/apps/v1/deployments?watch=1&fieldSelector=metadata.name%3Dfoo watch apis apps v1 - deployments - foo deployments
        GET  /api/v1/pods?fieldSelector=metadata.name==foo,status.phase!=Failed  list api - v1 - pods - foo pods
        GET  /api/v1/pods?fieldSelector=metadata.name!=foo   list   api - v1 - pods - - pods
        GET  /api/v1/pods?fieldSelector=metadata.name%3Dbad%2Fname  list api - v1 - pods - - pods
        GET  /api/v1/pods?fieldSelector=metadata.names%3Dfoo list   api - v1 - pods - - pods
        GET  /api/v1/pods?fieldSelector=status.phase!=x\\,metadata.name=foo list api - v1 - pods - - pods
        OPTIONS /api/v1/pods                                 -      api - v1 - pods - - pods
        GET  /api/v1/namespaces/a%20b/pods                   list   api - v1 a+b pods - - pods
    ";

    #[test]
    fn resource_paths_are_read_as_upstream_reads_them() {
        for line in TABLE.lines().filter(|line| !line.trim().is_empty()) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [method, url, verb, prefix, group, version, namespace, resource, subresource, name, parts] =
                columns[..]
            else {
                panic!("bad line {line}")
            };
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let info = parse(&method.parse().unwrap(), path, query).unwrap();
            let text = |value: &str| if value == "-" { String::new() } else { value.replace('+', " ") };
            assert!(info.is_resource, "{line}");
            let found = [
                &info.verb,
                &info.api_prefix,
                &info.api_group,
                &info.api_version,
                &info.namespace,
                &info.resource,
                &info.subresource,
                &info.name,
                &info.parts.join(","),
            ];
            let expected =
                [verb, prefix, group, version, namespace, resource, subresource, name, parts].map(text);
            assert_eq!(found.map(String::clone), expected, "{line}");
        }
    }

    #[test]
    fn other_paths_are_not_resources_and_keep_the_method_as_verb() {
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/healthz/ping",
            "/openapi/v3/api/v1",
            "/apix/v1/pods/x",
            "/apis//v1/secrets",
        ] {
            let info = parse(&Method::GET, path, "").unwrap();
            assert!(!info.is_resource, "{path}");
            assert_eq!((info.verb.as_str(), info.path.as_str()), ("get", path));
        }
    }

    #[test]
    fn paths_that_cannot_be_read_are_refused() {
        for path in ["/api/v1/pods/%zz", "/api/v1/pods/%", "/api/v1/pods/%ff", "/api/v1/pods/a%00b"] {
            assert_eq!(parse(&Method::GET, path, ""), Err(PathError::Escape), "{path}");
        }
        assert!(matches!(parse(&Method::GET, "/api/v1/watch", ""), Err(PathError::Incomplete(_))));
    }

    #[test]
    fn an_encoded_slash_reads_as_a_slash_for_every_later_step() {
        let info = parse(&Method::GET, "/api/v1/namespaces/a%2Fsecrets", "").unwrap();
        assert_eq!(
            (info.namespace.as_str(), info.resource.as_str(), info.verb.as_str()),
            ("a", "secrets", "list")
        );
    }
}

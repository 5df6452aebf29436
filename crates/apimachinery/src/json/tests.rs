//! Input -> output tables.

use super::*;
use crate::schema::Schema;

/// What a server holds after reading `text` as a `type_name`, and what it complains about; or the error.
fn read(type_name: &str, text: &str) -> String {
    let (mut value, mut complaints) = match decode(text.as_bytes()) {
        Ok(read) => read,
        Err(error) => return format!("error: {error}"),
    };
    match prune(Schema::builtin(), type_name, &mut value) {
        Ok(unknown) => complaints.extend(unknown),
        Err(error) => return format!("error: {error}"),
    }
    if complaints.is_empty() { value.to_string() } else { format!("{value} {}", strict(&complaints)) }
}

fn check(type_name: &str, cases: &[(&str, &str)]) {
    for (input, expected) in cases {
        assert_eq!(read(type_name, input), *expected, "{input}");
    }
}

#[test]
fn repeated_members_are_named_with_their_path() {
    for (input, expected) in [
        (r#"{"a":1,"a":2}"#, r#"duplicate field "a""#),
        (r#"{"spec":{"x":[{"y":1},{"y":1,"y":2}]}}"#, r#"duplicate field "spec.x[1].y""#),
        (r#"{"s":{"b":1,"b":2},"s":{"c":1}}"#, r#"duplicate field "s.b" duplicate field "s""#),
        (r#"[[{"a":1,"a":1}]]"#, r#"duplicate field "[0][0].a""#),
        (r#"{"a":{"b":1},"c":{"b":1}}"#, ""),
    ] {
        assert_eq!(decode(input.as_bytes()).unwrap().1.join(" "), expected, "{input}");
    }
    assert_eq!(decode(br#"{"a":1,"a":2}"#).unwrap().0.to_string(), r#"{"a":2}"#);
}

#[test]
fn deep_and_broken_documents_are_errors() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(decode(nested(DEPTH_MAX).as_bytes()).is_ok());
    assert!(matches!(decode(nested(DEPTH_MAX + 1).as_bytes()), Err(DecodeError::TooDeep)));
    assert!(matches!(decode("[".repeat(1_000_000).as_bytes()), Err(DecodeError::TooDeep)));
    for broken in ["", "{", r#"{"a":}"#, "{} {}", "nul", "\u{0}", r#"{"a":"\x"}"#] {
        let error = decode(broken.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("couldn't get version/kind; json parse error: "), "{error}");
    }
}

#[test]
fn unknown_members_go_and_are_reported() {
    check(
        "core.v1.ConfigMap",
        &[
            (
                r#"{"metadata":{"name":"a"},"dta":{}}"#,
                r#"{"metadata":{"name":"a"}} strict decoding error: unknown field "dta""#,
            ),
            (
                r#"{"Data":{"a":"b"},"metadata":{}}"#,
                r#"{"metadata":{}} strict decoding error: unknown field "Data""#,
            ),
            (
                r#"{"metadata":{"labels":{"any":"b"},"nme":1}}"#,
                r#"{"metadata":{"labels":{"any":"b"}}} strict decoding error: unknown field "metadata.nme""#,
            ),
        ],
    );
    check(
        "core.v1.PodSpec",
        &[(
            r#"{"containers":[{"name":"a"},{"name":"b","ports":[{"containerPort":1,"x":2}],"y":1}]}"#,
            r#"{"containers":[{"name":"a","resources":{}},{"name":"b","ports":[{"containerPort":1}],"resources":{}}]} strict decoding error: unknown field "containers[1].ports[0].x", unknown field "containers[1].y""#,
        )],
    );
}

#[test]
fn empty_values_stay_only_where_go_writes_them() {
    check(
        "core.v1.PodSpec",
        &[
            (
                r#"{"containers":[],"hostNetwork":false,"nodeName":"","nodeSelector":{},"tolerations":[]}"#,
                r#"{"containers":[]}"#,
            ),
            (
                r#"{"containers":[],"automountServiceAccountToken":false,"terminationGracePeriodSeconds":0}"#,
                r#"{"containers":[],"automountServiceAccountToken":false,"terminationGracePeriodSeconds":0}"#,
            ),
            (
                r#"{"containers":[],"volumes":[{"name":"a","emptyDir":{}}]}"#,
                r#"{"containers":[],"volumes":[{"name":"a","emptyDir":{}}]}"#,
            ),
            (r#"{"containers":null,"affinity":null}"#, "{}"),
            (r#"{"containers":[null]}"#, r#"{"containers":[{"name":"","resources":{}}]}"#),
        ],
    );
    check(
        "core.v1.ConfigMap",
        &[(
            r#"{"data":{"a":""},"metadata":{"creationTimestamp":null}}"#,
            r#"{"data":{"a":""},"metadata":{}}"#,
        )],
    );
    check(
        "apps.v1.ReplicaSetStatus",
        &[(r#"{"replicas":0,"readyReplicas":0}"#, r#"{"replicas":0}"#), ("{}", r#"{"replicas":0}"#)],
    );
    check(
        "core.v1.ServiceSpec",
        &[(r#"{"ports":[{"port":80}]}"#, r#"{"ports":[{"port":80,"targetPort":0}]}"#)],
    );
}

#[test]
fn quantities_and_times_become_canonical() {
    check(
        "core.v1.ResourceRequirements",
        &[
            (r#"{"limits":{"cpu":"1000m","memory":"1024Mi"}}"#, r#"{"limits":{"cpu":"1","memory":"1Gi"}}"#),
            (r#"{"limits":{"cpu":0.5,"memory":64}}"#, r#"{"limits":{"cpu":"500m","memory":"64"}}"#),
            (
                r#"{"limits":{"cpu":"lots"}}"#,
                "error: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        ],
    );
    check(
        "coordination.v1.LeaseSpec",
        &[
            (r#"{"renewTime":"2026-01-02T03:04:05.1Z"}"#, r#"{"renewTime":"2026-01-02T03:04:05.100000Z"}"#),
            (
                r#"{"renewTime":"2026-01-02T05:04:05.1+02:00"}"#,
                r#"{"renewTime":"2026-01-02T03:04:05.100000Z"}"#,
            ),
            (
                r#"{"renewTime":"soon"}"#,
                r#"error: parsing time "soon" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "soon" as "2006""#,
            ),
        ],
    );
}

#[test]
fn wrong_types_give_gos_texts() {
    check(
        "apps.v1.Deployment",
        &[
            (
                r#"{"spec":{"replicas":"3"}}"#,
                "error: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                r#"{"spec":{"replicas":3.5}}"#,
                "error: json: cannot unmarshal number 3.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                r#"{"spec":{"replicas":3000000000}}"#,
                "error: json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":[{"name":5}]}}}}"#,
                "error: json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.name of type string",
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
                "error: json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                r#"{"metadata":{"labels":{"a":true}}}"#,
                "error: json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                r#"{"metadata":[]}"#,
                "error: json: cannot unmarshal array into Go struct field Deployment.metadata of type v1.ObjectMeta",
            ),
            (r#"[]"#, "error: json: cannot unmarshal array into Go value of type v1.Deployment"),
        ],
    );
    check(
        "core.v1.Secret",
        &[
            (r#"{"data":{"a":"!"}}"#, "error: illegal base64 data at input byte 0"),
            (r#"{"data":{"a":"aGk="},"metadata":{}}"#, r#"{"data":{"a":"aGk="},"metadata":{}}"#),
        ],
    );
}

#[test]
fn schemas_of_custom_resources_keep_their_mixed_forms() {
    check(
        "apiextensions.v1.JSONSchemaProps",
        &[
            (
                r#"{"items":{"type":"string"},"additionalProperties":false}"#,
                r#"{"items":{"type":"string"},"additionalProperties":false}"#,
            ),
            (
                r#"{"items":[{"type":"string","x":1}]}"#,
                r#"{"items":[{"type":"string"}]} strict decoding error: unknown field "items[0].x""#,
            ),
            (
                r#"{"dependencies":{"a":["b"],"c":{"type":"object"}},"default":{"any":[1]},"enum":["a",null]}"#,
                r#"{"dependencies":{"a":["b"],"c":{"type":"object"}},"default":{"any":[1]},"enum":["a",null]}"#,
            ),
        ],
    );
}

#[test]
fn complaints_are_bounded() {
    let members: Vec<String> = (0..5000).map(|number| format!("\"x{number}\":1")).collect();
    let (mut value, _) = decode(format!("{{{}}}", members.join(",")).as_bytes()).unwrap();
    assert_eq!(prune(Schema::builtin(), "core.v1.Pod", &mut value).unwrap().len(), COMPLAINTS_MAX);
}

#[test]
fn small_documents_cannot_become_huge_objects() {
    let containers = vec!["{}"; 300_000].join(",");
    let error = read("core.v1.PodSpec", &format!("{{\"containers\":[{containers}]}}"));
    assert_eq!(error, "error: more than 200000 values are missing");
}

proptest::proptest! {
    /// Pruning twice is pruning once, and no input makes it panic.
    #[test]
    fn pruning_is_stable(text in r#"\{("(spec|metadata|data|status|name|containers|labels)":(\{\}|\[\]|\[\{\}\]|null|1|"x"|\{"name":"a"\}),?){0,4}\}"#) {
        for type_name in ["core.v1.Pod", "core.v1.ConfigMap", "apps.v1.Deployment"] {
            if let Ok((mut value, _)) = decode(text.as_bytes())
                && prune(Schema::builtin(), type_name, &mut value).is_ok()
            {
                let once = value.clone();
                proptest::prop_assert_eq!(prune(Schema::builtin(), type_name, &mut value).unwrap(), Vec::<String>::new());
                proptest::prop_assert_eq!(once, value);
            }
        }
    }
}

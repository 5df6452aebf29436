//! What the table says, in the table's own words.

use super::*;

fn describe(field: &Field) -> String {
    let mut words = vec![format!("{:?}", field.kind), field.tag.to_string()];
    for (set, word) in [
        (field.required, "required"),
        (field.pointer, "pointer"),
        (field.keep_empty, "kept"),
        (field.patch_merge, "merges"),
        (field.patch_retain_keys, "retains"),
        (field.atomic, "atomic"),
    ] {
        if set {
            words.push(word.to_owned());
        }
    }
    words.extend(field.list_type.map(|list_type| format!("{list_type:?}")));
    words.extend(field.list_map_keys.iter().map(|key| format!("key:{key}")));
    words.extend(field.merge_key.map(|key| format!("by:{key}")));
    words.extend(field.inside.iter().map(|tag| format!("in:{tag}")));
    words.join(" ")
}

#[test]
fn a_field_carries_every_fact_of_its_row() {
    for (path, expected) in [
        ("core.v1.Pod apiVersion", "String 0"),
        ("core.v1.Pod spec", "Ref(\"core.v1.PodSpec\") 2"),
        (
            "core.v1.PodSpec containers",
            "Array(Ref(\"core.v1.Container\")) 2 required kept merges Map key:name by:name",
        ),
        ("core.v1.PodSpec nodeSelector", "Map(String) 7 atomic"),
        ("core.v1.PodSpec volumes", "Array(Ref(\"core.v1.Volume\")) 1 merges retains Map key:name by:name"),
        (
            "core.v1.Container ports",
            "Array(Ref(\"core.v1.ContainerPort\")) 6 merges Map key:containerPort key:protocol by:containerPort",
        ),
        ("core.v1.Volume emptyDir", "Ref(\"core.v1.EmptyDirVolumeSource\") 2 pointer in:2"),
        ("core.v1.Probe httpGet", "Ref(\"core.v1.HTTPGetAction\") 2 pointer in:1"),
        ("core.v1.ConfigMap binaryData", "Map(Bytes) 3"),
        ("core.v1.ResourceRequirements limits", "Map(Quantity) 1"),
        ("meta.v1.ObjectMeta finalizers", "Array(String) 14 merges Set"),
        ("meta.v1.ObjectMeta deletionTimestamp", "Time 9 pointer"),
        ("coordination.v1.LeaseSpec renewTime", "MicroTime 4 pointer"),
        ("admissionregistration.v1.NamedRuleWithOperations apiGroups", "Array(String) 1 Atomic in:2 in:2"),
        ("apiextensions.v1.JSONSchemaProps $ref", "String 3 pointer"),
        ("apiextensions.v1.JSONSchemaProps items", "SchemaOrArray 24 pointer"),
        (
            "binnacle.v1alpha1.DecisionStatus nodes",
            "Array(Ref(\"binnacle.v1alpha1.NodeVerdict\")) 9 Map key:name",
        ),
    ] {
        let (type_name, field) = path.split_once(' ').unwrap();
        let type_ = Schema::builtin().type_(type_name).unwrap_or_else(|| panic!("{type_name}"));
        assert_eq!(describe(type_.field(field).unwrap_or_else(|| panic!("{path}"))), expected, "{path}");
    }
}

#[test]
fn every_type_parses_and_every_number_is_used_once() {
    let schema = Schema::builtin();
    let (mut types, mut fields) = (0, 0);
    for name in schema.type_names() {
        let type_ = schema.type_(name).unwrap_or_else(|| panic!("{name} does not parse"));
        let mut seen = std::collections::BTreeSet::new();
        for field in type_.fields.iter().filter(|field| field.tag != 0) {
            assert!(seen.insert((field.inside.clone(), field.tag)), "{name}.{}", field.name);
        }
        types += 1;
        fields += type_.fields.len();
    }
    assert!(types > 500 && fields > 2400, "{types} types, {fields} fields");
}

#[test]
fn an_unknown_type_or_field_is_none() {
    assert!(Schema::builtin().type_("core.v1.Nothing").is_none());
    assert!(Schema::builtin().type_("core.v1.Pod").unwrap().field("Spec").is_none());
}

/// The generated table is changed by the generator only: `cargo run -p xtask -- schema`.
#[test]
fn the_generated_table_is_the_one_that_was_reviewed() {
    let text = include_str!("../../schema/kubernetes-1.35.tbl");
    // FNV-1a, 64 bits: enough to notice an edit.
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    assert_eq!(format!("{hash:016x}"), "57e96c14169375c1");
}

#[test]
fn openapi_names_are_upstreams() {
    for (short, full) in [
        ("core.v1.Pod", "io.k8s.api.core.v1.Pod"),
        ("meta.v1.ObjectMeta", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"),
        (
            "apiextensions.v1.CustomResourceDefinition",
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        ),
        ("apiregistration.v1.APIService", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService"),
    ] {
        assert_eq!(Schema::builtin().type_(short).unwrap().openapi_name(), full);
    }
}

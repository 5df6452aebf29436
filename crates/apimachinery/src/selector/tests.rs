//! Selectors as tables: what parses, how it prints, what it matches.

use serde_json::json;

use super::*;

#[test]
fn selectors_print_in_canonical_order() {
    let table = [
        ("", ""),
        ("a", "a"),
        ("!a", "!a"),
        ("x=a,y=b,z=c", "x=a,y=b,z=c"),
        (" z = c , a == b ", "a==b,z=c"),
        ("x!=a,y=b", "x!=a,y=b"),
        ("x=", "x="),
        ("x=,z= ", "x=,z="),
        ("x in (b,a,a)", "x in (a,b)"),
        ("x in ()", "x in ()"),
        ("x in (,a)", "x in (,a)"),
        ("x notin (a),y", "x notin (a),y"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("x>1,y<7", "x>1,y<7"),
        ("example.com/a=b", "example.com/a=b"),
        ("x,", "error: found '', expected: identifier after ','"),
        (
            "x=a||y=b",
            "error: unable to parse requirement: values[0][x]: Invalid value: \"a||y\": a valid label must",
        ),
        ("x==a==b", "error: found '==', expected: ',' or 'end of string'"),
        (",x", "error: found ',', expected: !, identifier, or 'end of string'"),
        ("!x=a", "error: found '=', expected: ',' or 'end of string'"),
        ("x in a", "error: unable to parse requirement: found 'a' expected: '('"),
        ("x in (a", "error: unable to parse requirement: found '', expected: ',' or ')'"),
        ("x y", "error: unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"),
        ("-x", "error: unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist of"),
        (
            "x>a",
            "error: unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ];
    for (text, expected) in table {
        let printed = match LabelSelector::parse(text) {
            Ok(selector) => selector.to_string(),
            Err(error) => format!("error: {error}"),
        };
        let fits = printed == expected || (expected.starts_with("error:") && printed.starts_with(expected));
        assert!(fits, "{text:?}: {printed}");
    }
}

#[test]
fn selectors_match_labels() {
    let object = json!({"metadata": {"labels": {"x": "a", "n": "5", "empty": ""}}});
    let table = [
        ("", true),
        ("x", true),
        ("!x", false),
        ("y", false),
        ("!y", true),
        ("x=a", true),
        ("x=b", false),
        ("y=a", false),
        ("y!=a", true),
        ("x!=a", false),
        ("empty=", true),
        ("y=", false),
        ("x in (a,b)", true),
        ("x notin (a,b)", false),
        ("y notin (a,b)", true),
        ("n>4", true),
        ("n>5", false),
        ("n<6", true),
        ("x>1", false),
        ("y<1", false),
        ("x=a,!y", true),
    ];
    for (text, matches) in table {
        assert_eq!(LabelSelector::parse(text).unwrap().matches_object(&object), matches, "{text}");
    }
}

#[test]
fn selector_objects_follow_the_nothing_and_everything_rules() {
    let object = json!({"metadata": {"labels": {"x": "a"}}});
    let table = [
        (None, "<none>", false),
        (Some(json!(null)), "<none>", false),
        (Some(json!({})), "<none>", true),
        (Some(json!({"matchLabels": {"x": "a"}})), "x=a", true),
        (
            Some(
                json!({"matchLabels": {"x": "a"}, "matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["d", "c"]}]}),
            ),
            "b notin (c,d),x=a",
            true,
        ),
        (Some(json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]})), "!x", false),
    ];
    for (selector, text, matches) in table {
        assert_eq!(format(selector.as_ref()), text);
        assert_eq!(
            LabelSelector::from_value(selector.as_ref()).unwrap().matches_object(&object),
            matches,
            "{text}"
        );
    }
    let bad = json!({"matchExpressions": [{"key": "x", "operator": "Near"}]});
    let error = LabelSelector::from_value(Some(&bad)).unwrap_err();
    assert_eq!(error.to_string(), "\"Near\" is not a valid label selector operator");
    assert_eq!(format(Some(&bad)), "<error>");
}

#[test]
fn field_selectors_parse_match_and_print() {
    let table = [
        ("", "", true),
        ("a=1", "a=1", true),
        ("a==1", "a=1", true),
        ("a!=1", "a!=1", false),
        ("missing=", "missing=", true),
        ("c=x,a=1", "a=1,c=x", false),
        (r"e=a\,b\=c\\", r"e=a\,b\=c\\", true),
        (r"e=a\b", r"error: invalid field selector: invalid escape sequence: \b", false),
        ("a=b=c", "error: invalid field selector: unescaped character in value: 61", false),
        ("a", "error: invalid selector: 'a'; can't understand 'a'", false),
    ];
    let lookup = |field: &str| match field {
        "a" => "1",
        "e" => r"a,b=c\",
        _ => "",
    };
    for (text, printed, matches) in table {
        match FieldSelector::parse(text) {
            Ok(selector) => {
                assert_eq!(selector.to_string(), printed);
                assert_eq!(selector.matches(lookup), matches, "{text}");
            }
            Err(error) => assert_eq!(format!("error: {error}"), printed),
        }
    }
    assert_eq!(FieldSelector::parse("metadata.name=x,b!=y").unwrap().exact("metadata.name"), Some("x"));
}

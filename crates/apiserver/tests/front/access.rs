//! Who may do what: on every member, at once, and never more than the granter has.

use std::time::{Duration, Instant};

use apiserver::User;
use http::Request;
use serde_json::json;

use crate::fake_etcd::FakeEtcd;
use crate::fixture::{Member, PODS, binding, body, jiang, root};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

#[tokio::test]
async fn a_binding_made_through_one_member_counts_at_once_on_the_other() {
    let etcd = FakeEtcd::new();
    let (first, second) = (Member::start(&etcd).await, Member::start(&etcd).await);
    first.role("pod-reader", "", "pods", &["list"]).await;
    for round in 0..20 {
        let (here, there) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        assert_eq!(here.bind(&root(), "pod-reader", "jiang").await.code, 201);
        let answer = there.get(&jiang(), PODS).await;
        assert_eq!(answer.code, 200, "round {round}: {}", answer.body);
        here.unbind("pod-reader").await;
        // Taking away is as fast as the watch; giving is what nobody may have to wait for.
        let gone = Instant::now();
        while there.get(&jiang(), PODS).await.code != 403 {
            assert!(gone.elapsed() < Duration::from_secs(5));
        }
    }
}

#[tokio::test]
async fn a_denial_says_what_upstream_says_and_why_it_was_allowed_is_recorded() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    let denied = member.get(&jiang(), PODS).await;
    let text = "pods is forbidden: User \"jiang\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!((denied.code, denied.message()), (403, text));
    let event = member.audited(|event| event["responseStatus"]["code"] == 403).await;
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    member.role("pod-reader", "", "pods", &["list"]).await;
    assert_eq!(member.bind(&root(), "pod-reader", "jiang").await.code, 201);
    assert_eq!(member.get(&jiang(), PODS).await.code, 200);
    let event = member
        .audited(|event| event["user"]["username"] == "jiang" && event["responseStatus"]["code"] == 200)
        .await;
    assert_eq!(
        event["annotations"]["authorization.k8s.io/reason"],
        "RBAC: allowed by RoleBinding \"pod-reader/default\" of Role \"pod-reader\" to User \"jiang\""
    );
}

#[tokio::test]
async fn a_denial_does_not_wait_for_ever_when_the_feed_stands_still() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    etcd.with_faults(|faults| faults.cut_watches = true);
    etcd.put("/registry/configmaps/default/behind", "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\"}");
    let asked = Instant::now();
    assert_eq!(member.get(&jiang(), PODS).await.code, 403);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert_eq!(member.get(&root(), "/version").await.code, 200, "what is allowed does not wait");
}

#[tokio::test]
async fn nobody_grants_what_he_does_not_have() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    member.role("granter", "rbac.authorization.k8s.io", "*", &["create", "update", "patch", "get"]).await;
    assert_eq!(member.bind(&root(), "granter", "jiang").await.code, 201);
    member.role("secrets", "", "secrets", &["get"]).await;
    let wanted = json!({"metadata": {"name": "mine"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]});
    let refused = member.post(&jiang(), &format!("{RBAC}/roles"), &wanted).await;
    assert_eq!(refused.code, 403);
    let text = "roles.rbac.authorization.k8s.io \"mine\" is forbidden: user \"jiang\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}";
    assert_eq!(refused.message(), text);
    assert_eq!(member.bind(&jiang(), "secrets", "jiang").await.code, 403);
    let patch = Request::patch(format!("{RBAC}/roles/granter"))
        .header("content-type", "application/merge-patch+json")
        .body(body(r#"{"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}"#))
        .unwrap();
    assert_eq!(member.send(&jiang(), patch).await.code, 403);
    // What he has he may pass on, and what others gave him counts at once.
    assert_eq!(member.bind(&root(), "secrets", "jiang").await.code, 201);
    assert_eq!(member.post(&jiang(), &format!("{RBAC}/roles"), &wanted).await.code, 201);
}

#[tokio::test]
async fn a_bound_role_that_is_missing_is_named() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    assert_eq!(member.bind(&root(), "gone", "jiang").await.code, 201);
    let answer = member.get(&jiang(), PODS).await;
    assert!(
        answer.message().ends_with(": RBAC: role.rbac.authorization.k8s.io \"gone\" not found"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn a_rule_for_one_name_opens_no_list_of_others() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    let rule = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"]});
    let role = json!({"metadata": {"name": "one"}, "rules": [rule]});
    assert_eq!(member.post(&root(), &format!("{RBAC}/roles"), &role).await.code, 201);
    assert_eq!(
        member.post(&root(), &format!("{RBAC}/rolebindings"), &binding("one", "jiang")).await.code,
        201
    );
    let secrets = "/api/v1/namespaces/default/secrets";
    for (query, code) in [
        ("?fieldSelector=metadata.name%3Dmine", 200),
        ("", 403),
        ("?fieldSelector=metadata.name%3Dother", 403),
        ("?fieldSelector=metadata.name!%3Dmine", 403),
        ("?fieldSelector=type%21%3Dx%5C%2Cmetadata.name%3Dmine", 403),
        ("?fieldSelector=metadata.name%3Dother&fieldSelector=metadata.name%3Dmine", 403),
    ] {
        assert_eq!(member.get(&jiang(), &format!("{secrets}{query}")).await.code, code, "{query}");
    }
}

#[tokio::test]
async fn reviews_answer_for_the_caller_and_for_others() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    let ask =
        json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    let own = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(member.post(&jiang(), own, &ask).await.body["status"]["allowed"], false);
    member.role("pod-reader", "", "pods", &["list"]).await;
    member.bind(&root(), "pod-reader", "jiang").await;
    let answer = member.post(&jiang(), own, &ask).await;
    assert_eq!((answer.code, &answer.body["status"]["allowed"]), (201, &json!(true)));
    assert_eq!(answer.body["kind"], "SelfSubjectAccessReview");
    let other = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let mut about = ask.clone();
    about["spec"]["user"] = json!("jiang");
    assert_eq!(member.post(&root(), other, &about).await.body["status"]["allowed"], true);
    assert_eq!(member.post(&jiang(), other, &about).await.code, 403, "asking about others needs a right");
    assert_eq!(member.post(&root(), other, &ask).await.code, 422, "a subject is needed");
    let who = member.post(&jiang(), "/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await;
    assert_eq!(who.body["status"]["userInfo"]["username"], "jiang");
    let rules = json!({"spec": {"namespace": "default"}});
    let rules = member.post(&jiang(), "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &rules).await;
    assert!(
        rules.body["status"]["resourceRules"]
            .as_array()
            .unwrap()
            .iter()
            .any(|rule| rule["resources"][0] == "pods")
    );
    assert_eq!(member.get(&root(), own).await.code, 405);
    let anonymous = User::new("system:anonymous", &["system:unauthenticated"]);
    assert_eq!(member.post(&anonymous, own, &ask).await.code, 403);
}

#[tokio::test]
async fn acting_as_somebody_needs_the_right_for_each_part_and_is_recorded() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    let request = |headers: &[(&str, &str)]| {
        let request =
            headers.iter().fold(Request::get(PODS), |request, (name, value)| request.header(*name, *value));
        request.body(body("")).unwrap()
    };
    let denied = member.send(&jiang(), request(&[("impersonate-user", "ann")])).await;
    assert_eq!(
        denied.message(),
        "users \"ann\" is forbidden: User \"jiang\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    let rule = json!({"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["ann"]});
    let role = json!({"metadata": {"name": "as-ann"}, "rules": [rule]});
    let cluster = "/apis/rbac.authorization.k8s.io/v1";
    assert_eq!(member.post(&root(), &format!("{cluster}/clusterroles"), &role).await.code, 201);
    let mut grant = binding("as-ann", "jiang");
    grant["roleRef"]["kind"] = json!("ClusterRole");
    assert_eq!(member.post(&root(), &format!("{cluster}/clusterrolebindings"), &grant).await.code, 201);
    let as_ann = member.send(&jiang(), request(&[("impersonate-user", "ann")])).await;
    assert!(as_ann.message().contains("User \"ann\" cannot list"), "{}", as_ann.body);
    let event = member.audited(|event| event["impersonatedUser"]["username"] == "ann").await;
    assert_eq!(event["user"]["username"], "jiang");
    let too_much = [("impersonate-user", "ann"), ("impersonate-group", "system:masters")];
    assert!(
        member
            .send(&jiang(), request(&too_much))
            .await
            .message()
            .contains("groups \"system:masters\" is forbidden")
    );
    assert_eq!(member.send(&root(), request(&too_much)).await.code, 200);
}

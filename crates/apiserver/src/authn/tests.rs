//! The order of proofs, and that a failed proof is never anonymous.

use http::Request;
use tokio_util::sync::CancellationToken;

use super::*;

fn authenticator(anonymous: bool) -> (Authenticator, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.csv");
    std::fs::write(&path, "s3cret,ann,1,dev\n").unwrap();
    let config = Config { token_auth_file: Some(path), anonymous_auth: anonymous, ..Config::default() };
    (Authenticator::new(&config).unwrap(), directory)
}

fn request(authorization: Option<&str>) -> Parts {
    let mut request = Request::builder().uri("/api");
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value);
    }
    request.body(()).unwrap().into_parts().0
}

fn network() -> Origin {
    Origin::network("127.0.0.1:1".parse().unwrap(), Vec::new(), CancellationToken::new())
}

#[test]
fn a_good_token_is_its_user_in_the_authenticated_group() {
    let (authenticator, _directory) = authenticator(true);
    for header in ["Bearer s3cret", "bearer s3cret", "Bearer s3cret trailing"] {
        let user = authenticator.authenticate(&network(), &request(Some(header))).unwrap();
        assert_eq!((user.name.as_str(), user.groups.len()), ("ann", 2), "{header}");
        assert!(user.is_in(GROUP_AUTHENTICATED));
    }
}

#[test]
fn a_bad_token_is_refused_even_where_anonymous_is_allowed() {
    let (authenticator, _directory) = authenticator(true);
    let refusal = authenticator.authenticate(&network(), &request(Some("Bearer wrong"))).unwrap_err();
    assert_eq!(refusal.attempted, ["bearer"]);
    assert!(!refusal.to_string().contains("wrong"), "the token must not leak");
}

#[test]
fn without_credentials_a_caller_is_anonymous_or_refused_as_configured() {
    let (open, _directory) = authenticator(true);
    assert_eq!(open.authenticate(&network(), &request(None)), Ok(User::anonymous()));
    assert_eq!(open.authenticate(&network(), &request(Some("Bearer"))), Ok(User::anonymous()));
    let (closed, _directory) = authenticator(false);
    assert!(closed.authenticate(&network(), &request(None)).is_err());
}

#[test]
fn a_part_of_the_process_is_who_it_says_whatever_headers_it_sends() {
    let (authenticator, _directory) = authenticator(false);
    let origin = Origin::InProcess(User::new("system:kube-scheduler", &[]));
    let user = authenticator.authenticate(&origin, &request(Some("Bearer wrong"))).unwrap();
    assert_eq!(user.name, "system:kube-scheduler");
}

//! What `/version` and `kubectl version` say.
//!
//! The minor is that of the Kubernetes API whose table of kinds we serve. Not here: the release of this program.

use serde_json::json;

pub(crate) const MAJOR: &str = "1";
pub(crate) const MINOR: &str = "35";
pub(crate) const GIT_VERSION: &str = "v1.35.0";

/// The `version.Info` object.
pub(crate) fn info() -> serde_json::Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "34",
        "gitVersion": format!("{GIT_VERSION}+binnacle-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "archive",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    })
}

/// Go's name of the processor architecture.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_git_version_parses_as_semver_with_build_metadata() {
        let info = super::info();
        let text = info["gitVersion"].as_str().unwrap();
        let (release, build) = text.strip_prefix('v').unwrap().split_once('+').unwrap();
        assert_eq!(release.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3);
        assert!(build.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)));
    }
}

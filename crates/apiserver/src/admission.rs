//! Policy between validation and the store: an ordered list of plugins, each a closed variant.
//!
//! Invariants: the order is upstream's (`pkg/kubeapiserver/options/plugins.go`). Plugins that change objects run before
//! those that only judge. A plugin reads cached state, and asks the store when the cache could be behind.
//! Webhooks will be one more variant at the end of each list. Not here: validation, authorization.

mod namespace_lifecycle;
mod pods;

use apimachinery::Value;
use apimachinery::status::Status;

use crate::Config;
use crate::registry::{Registry, Write};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// What a plugin may know about a request.
pub(crate) struct Attributes<'a> {
    pub(crate) write: &'a Write<'a>,
    pub(crate) operation: Operation,
    pub(crate) name: &'a str,
    /// The stored object that an update or delete is about.
    pub(crate) old: Option<&'a Value>,
}

impl Attributes<'_> {
    fn is_main(&self, group: &str, plural: &str) -> bool {
        let resource = self.write.resource;
        resource.group == group && resource.plural == plural && self.write.subresource.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugin {
    NamespaceLifecycle,
    ServiceAccount,
    TaintNodesByCondition,
    Priority,
    DefaultTolerationSeconds,
}

/// All plugins in order, with whether they run unless disabled.
///
/// Two that upstream runs by default wait for the controllers that they rely on: ServiceAccount needs the account
/// `default` in every namespace, TaintNodesByCondition needs a node lifecycle controller to lift its taint.
const PLUGINS: &[(Plugin, &str, bool)] = &[
    (Plugin::NamespaceLifecycle, "NamespaceLifecycle", true),
    (Plugin::ServiceAccount, "ServiceAccount", false),
    (Plugin::TaintNodesByCondition, "TaintNodesByCondition", false),
    (Plugin::Priority, "Priority", true),
    (Plugin::DefaultTolerationSeconds, "DefaultTolerationSeconds", true),
];

pub(crate) struct Admission {
    plugins: Vec<Plugin>,
}

impl Admission {
    /// Plugins of upstream that are not built are named in a warning: their policy does not apply.
    pub(crate) fn new(config: &Config) -> Result<Admission, String> {
        for name in &config.enable_admission_plugins {
            if !PLUGINS.iter().any(|(_, known, _)| known == name) {
                tracing::warn!(plugin = name, "admission plugin is not built, its policy does not apply");
            }
            if config.disable_admission_plugins.contains(name) {
                return Err(format!(
                    "[{name}] in enable-admission-plugins and disable-admission-plugins overlapped"
                ));
            }
        }
        let runs = |name: &str, by_default: bool| {
            let listed = |list: &[String]| list.iter().any(|listed| listed == name);
            (by_default || listed(&config.enable_admission_plugins))
                && !listed(&config.disable_admission_plugins)
        };
        let plugins = PLUGINS.iter().filter(|(_, name, by_default)| runs(name, *by_default));
        Ok(Admission { plugins: plugins.map(|(plugin, _, _)| *plugin).collect() })
    }

    /// Lets plugins refuse or change an object that is about to be written, in the client's version.
    pub(crate) async fn mutate(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        value: &mut Value,
    ) -> Result<(), Status> {
        for plugin in &self.plugins {
            match plugin {
                Plugin::NamespaceLifecycle => namespace_lifecycle::check(registry, attributes).await?,
                Plugin::ServiceAccount => pods::default_service_account(attributes, value),
                Plugin::TaintNodesByCondition => pods::taint_new_node(attributes, value),
                Plugin::Priority => pods::resolve_priority(registry, attributes, value)?,
                Plugin::DefaultTolerationSeconds => pods::tolerate_for_a_while(attributes, value),
            }
        }
        Ok(())
    }

    /// Lets plugins refuse what is about to be written or deleted, in its stored form.
    pub(crate) async fn validate(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        _value: &Value,
    ) -> Result<(), Status> {
        for plugin in &self.plugins {
            match plugin {
                // Creates and updates were judged before they were changed.
                Plugin::NamespaceLifecycle if attributes.operation == Operation::Delete => {
                    namespace_lifecycle::check(registry, attributes).await?;
                }
                Plugin::NamespaceLifecycle
                | Plugin::ServiceAccount
                | Plugin::TaintNodesByCondition
                | Plugin::Priority
                | Plugin::DefaultTolerationSeconds => {}
            }
        }
        Ok(())
    }
}

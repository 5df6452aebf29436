//! kubeconfig files: read, written, and turned into an endpoint.
//!
//! Certificates and keys may be embedded (base64) or named as files relative to the kubeconfig. Not supported, and
//! refused with a clear error when used: `exec` and `auth-provider` plugins, `insecure-skip-tls-verify`, proxies.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::Endpoint;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct KubeConfig {
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    pub kind: String,
    pub clusters: Vec<Named<Cluster>>,
    pub contexts: Vec<Named<Context>>,
    pub current_context: String,
    pub users: Vec<Named<Credentials>>,
    /// Where file names start from.
    #[serde(skip)]
    base_dir: PathBuf,
}

/// An entry of one of the three lists; each list has its own name for the content.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Named<T> {
    pub name: String,
    #[serde(alias = "cluster", alias = "context", alias = "user")]
    pub content: T,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    pub server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    /// Base64 of PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_tls_verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", default)]
pub struct Context {
    pub cluster: String,
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// How a user proves who it is. `Debug` shows no secret.
#[derive(Clone, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "kebab-case", default)]
pub struct Credentials {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(rename = "tokenFile", skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_provider: Option<serde_json::Value>,
}

#[derive(Debug, thiserror::Error)]
pub enum KubeConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("kubeconfig is not valid: {0}")]
    Syntax(String),
    #[error("kubeconfig has no current context; name one of: {known}")]
    NoContext { known: String },
    #[error("kubeconfig has no {what} named {name:?}")]
    Missing { what: &'static str, name: String },
    #[error("{field} of {name:?} is not base64")]
    Base64 { field: &'static str, name: String },
    #[error("kubeconfig uses {0}, which is not supported")]
    Unsupported(&'static str),
}

impl Default for KubeConfig {
    fn default() -> KubeConfig {
        KubeConfig {
            api_version: "v1".to_owned(),
            kind: "Config".to_owned(),
            clusters: Vec::new(),
            contexts: Vec::new(),
            current_context: String::new(),
            users: Vec::new(),
            base_dir: PathBuf::new(),
        }
    }
}

impl Cluster {
    pub fn embedded(server: &str, ca_pem: &[u8]) -> Cluster {
        let certificate_authority_data = Some(STANDARD.encode(ca_pem));
        Cluster { server: server.to_owned(), certificate_authority_data, ..Cluster::default() }
    }
}

impl Credentials {
    pub fn certificate(chain_pem: &[u8], key_pem: &[u8]) -> Credentials {
        Credentials {
            client_certificate_data: Some(STANDARD.encode(chain_pem)),
            client_key_data: Some(STANDARD.encode(key_pem)),
            ..Credentials::default()
        }
    }

    pub fn bearer(token: &str) -> Credentials {
        Credentials { token: Some(token.to_owned()), ..Credentials::default() }
    }
}

impl KubeConfig {
    pub fn load(path: &Path) -> Result<KubeConfig, KubeConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| KubeConfigError::Read { path: path.to_owned(), source })?;
        KubeConfig::parse(&text, path.parent().unwrap_or(Path::new("")))
    }

    /// YAML or JSON; `base_dir` is where relative file names start.
    pub fn parse(text: &str, base_dir: &Path) -> Result<KubeConfig, KubeConfigError> {
        let mut config: KubeConfig =
            serde_saphyr::from_str(text).map_err(|error| KubeConfigError::Syntax(error.to_string()))?;
        if config.kind != "Config" {
            return Err(KubeConfigError::Syntax(format!("kind is {:?}, expected \"Config\"", config.kind)));
        }
        config.base_dir = base_dir.to_owned();
        Ok(config)
    }

    /// Adds or replaces a context and the cluster and user of the same name; the first becomes current.
    pub fn add_context(&mut self, name: &str, cluster: Cluster, user: Credentials) {
        self.add_context_for(name, cluster, name, user);
    }

    /// As `add_context`, with a user that several contexts share.
    pub fn add_context_for(&mut self, name: &str, cluster: Cluster, user_name: &str, user: Credentials) {
        put(&mut self.clusters, name, cluster);
        put(&mut self.users, user_name, user);
        let context = Context { cluster: name.to_owned(), user: user_name.to_owned(), namespace: None };
        put(&mut self.contexts, name, context);
        if self.current_context.is_empty() {
            name.clone_into(&mut self.current_context);
        }
    }

    pub fn to_yaml(&self) -> String {
        let mut out = format!("apiVersion: {}\nkind: {}\n", self.api_version, self.kind);
        section(&mut out, "clusters", "cluster", &self.clusters);
        section(&mut out, "contexts", "context", &self.contexts);
        out.push_str(&format!("current-context: {}\n", scalar(&self.current_context)));
        section(&mut out, "users", "user", &self.users);
        out
    }

    /// Writes atomically, readable by the owner only.
    pub fn save(&self, path: &Path) -> Result<(), KubeConfigError> {
        let failed = |source| KubeConfigError::Write { path: path.to_owned(), source };
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        write_private(&temporary, self.to_yaml().as_bytes()).map_err(failed)?;
        fs::rename(&temporary, path).map_err(failed)
    }

    pub fn context(&self, name: Option<&str>) -> Result<&Context, KubeConfigError> {
        let name = name.unwrap_or(&self.current_context);
        if name.is_empty() {
            let known: Vec<&str> = self.contexts.iter().map(|context| context.name.as_str()).collect();
            return Err(KubeConfigError::NoContext { known: known.join(", ") });
        }
        find(&self.contexts, "context", name)
    }

    /// The cluster and user of a context; `None` is the current one.
    pub fn endpoint(&self, context: Option<&str>) -> Result<Endpoint, KubeConfigError> {
        let context = self.context(context)?;
        let cluster = find(&self.clusters, "cluster", &context.cluster)?;
        let empty = Credentials::default();
        let user = if context.user.is_empty() { &empty } else { find(&self.users, "user", &context.user)? };
        if cluster.insecure_skip_tls_verify {
            return Err(KubeConfigError::Unsupported("insecure-skip-tls-verify"));
        }
        if cluster.proxy_url.is_some() {
            return Err(KubeConfigError::Unsupported("proxy-url"));
        }
        if user.exec.is_some() {
            return Err(KubeConfigError::Unsupported("an exec credential plugin"));
        }
        if user.auth_provider.is_some() {
            return Err(KubeConfigError::Unsupported("an auth-provider plugin"));
        }
        let ca_pem = self.pem(
            "certificate-authority-data",
            &context.cluster,
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?;
        let chain = self.pem(
            "client-certificate-data",
            &context.user,
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
        )?;
        let key = self.pem(
            "client-key-data",
            &context.user,
            user.client_key_data.as_deref(),
            user.client_key.as_deref(),
        )?;
        let token = match (&user.token, &user.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(file)) => Some(String::from_utf8_lossy(&self.read(file)?).trim().to_owned()),
            (None, None) => None,
        };
        Ok(Endpoint {
            servers: vec![cluster.server.clone()],
            ca_pem,
            client_identity_pem: chain.zip(key),
            bearer_token: token,
            basic: user.username.clone().zip(user.password.clone()),
            tls_server_name: cluster.tls_server_name.clone(),
        })
    }

    /// The current context, and as further servers those of every context with the same user: members of one cluster.
    pub fn endpoint_all(&self) -> Result<Endpoint, KubeConfigError> {
        let mut endpoint = self.endpoint(None)?;
        let user = &self.context(None)?.user;
        for other in self.contexts.iter().filter(|other| other.content.user == *user) {
            let other = self.endpoint(Some(&other.name))?;
            if other.ca_pem == endpoint.ca_pem {
                endpoint.servers.extend(other.servers);
            }
        }
        let mut known = std::collections::BTreeSet::new();
        endpoint.servers.retain(|server| known.insert(server.clone()));
        Ok(endpoint)
    }

    /// Embedded data wins over a file, as in client-go.
    fn pem(
        &self,
        field: &'static str,
        name: &str,
        data: Option<&str>,
        file: Option<&str>,
    ) -> Result<Option<Vec<u8>>, KubeConfigError> {
        match (data, file) {
            (Some(data), _) if !data.is_empty() => {
                let compact: String = data.split_ascii_whitespace().collect();
                let decoded = STANDARD.decode(compact);
                decoded.map(Some).map_err(|_| KubeConfigError::Base64 { field, name: name.to_owned() })
            }
            (_, Some(file)) if !file.is_empty() => self.read(file).map(Some),
            _ => Ok(None),
        }
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, KubeConfigError> {
        let path = self.base_dir.join(file);
        fs::read(&path).map_err(|source| KubeConfigError::Read { path, source })
    }
}

fn find<'a, T>(list: &'a [Named<T>], what: &'static str, name: &str) -> Result<&'a T, KubeConfigError> {
    let found = list.iter().find(|entry| entry.name == name);
    found.map(|entry| &entry.content).ok_or_else(|| KubeConfigError::Missing { what, name: name.to_owned() })
}

fn put<T>(list: &mut Vec<Named<T>>, name: &str, content: T) {
    match list.iter_mut().find(|entry| entry.name == name) {
        Some(entry) => entry.content = content,
        None => list.push(Named { name: name.to_owned(), content }),
    }
}

/// One of the three lists. Contents are flat, so that writing them needs no general YAML writer.
fn section<T: Serialize>(out: &mut String, list: &str, key: &str, entries: &[Named<T>]) {
    out.push_str(list);
    out.push_str(if entries.is_empty() { ": []\n" } else { ":\n" });
    for entry in entries {
        out.push_str(&format!("- name: {}\n  {key}:", scalar(&entry.name)));
        let content = serde_json::to_value(&entry.content).unwrap_or_default();
        let fields = content.as_object().filter(|fields| !fields.is_empty());
        out.push_str(if fields.is_some() { "\n" } else { " {}\n" });
        for (field, value) in fields.into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), scalar);
            out.push_str(&format!("    {field}: {value}\n"));
        }
    }
}

/// Plain where that is surely a string, quoted as JSON (which is YAML) otherwise.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@+=".contains(c))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
        );
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(unix)]
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(not(unix))]
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::write(path, content)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! Static bearer tokens from `--token-auth-file`: `token,user,uid[,"group1,group2"]` per line.
//!
//! Invariants: tokens are kept and compared as SHA-256 digests, so neither memory dumps of the table nor timing tell a
//! token. The file is read once, at start, as upstream does. Not here: where the token of a request stands.

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest, Sha256};
use tracing::warn;

use super::{CredentialsError, csv};
use crate::User;

pub(super) struct TokenFile {
    users: HashMap<[u8; 32], User>,
}

impl TokenFile {
    pub(super) fn read(path: &Path) -> Result<TokenFile, CredentialsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| CredentialsError::TokenFile { path: path.to_path_buf(), source })?;
        TokenFile::parse(&text).map_err(|(line, why)| CredentialsError::TokenLine {
            path: path.to_path_buf(),
            line,
            why,
        })
    }

    /// The error is the line's number and what is wrong with it.
    fn parse(text: &str) -> Result<TokenFile, (usize, String)> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let fields = csv::fields(line).map_err(|why| (number, why.to_string()))?;
            let (token, user) = match fields.as_slice() {
                [token, name, uid, rest @ ..] => (token, static_user(name, uid, rest.first())),
                _ => {
                    let found = fields.len();
                    let why =
                        format!("must have at least 3 columns (token, user name, user uid), found {found}");
                    return Err((number, why));
                }
            };
            if token.is_empty() || user.name.is_empty() {
                return Err((number, "token and user name must not be empty".to_string()));
            }
            if users.insert(digest(token), user).is_some() {
                warn!(line = number, "a token stands more than once in the token file, the last line counts");
            }
        }
        Ok(TokenFile { users })
    }

    pub(super) fn user(&self, token: &str) -> Option<User> {
        self.users.get(&digest(token)).cloned()
    }
}

fn static_user(name: &str, uid: &str, groups: Option<&String>) -> User {
    let groups = groups.map(String::as_str).unwrap_or("");
    User {
        name: name.to_string(),
        uid: uid.to_string(),
        groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_string).collect(),
        ..User::default()
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_its_user_with_uid_and_groups() {
        let file = TokenFile::parse("# comment\n\ns3cret,jiang,42,\"dev,ops\"\nother,ann,7\n").unwrap();
        let jiang = file.user("s3cret").unwrap();
        assert_eq!((jiang.name.as_str(), jiang.uid.as_str()), ("jiang", "42"));
        assert_eq!(jiang.groups, ["dev", "ops"]);
        assert!(file.user("other").unwrap().groups.is_empty());
        assert_eq!(file.user("s3cre"), None);
        assert_eq!(file.user(""), None);
    }

    #[test]
    fn a_bad_line_is_named_without_its_content() {
        for text in ["a,b,c\nsecret,only-two", "a,b,c\n,nobody,1", "a,b,c\n\"open"] {
            let (line, why) = TokenFile::parse(text).err().unwrap();
            assert_eq!(line, 2);
            assert!(!why.contains("secret"));
        }
    }
}

//! The Auth service: users, roles and tokens. What is changed goes through the log; passwords are hashed here, once.
//!
//! Not here: who may do what (mvcc's `authorize`), the form of tokens (tokens.rs).

pub(crate) mod jwt;
pub(crate) mod passwords;
pub(crate) mod tokens;

use std::sync::Arc;

use bytes::Bytes;
use mvcc::{Access, AuthCommand, AuthError, Caller, Command, KeyRange, Permission};
use tonic::{Request, Response, Status};
use wire::{
    authpb,
    etcdserverpb::{self as pb, auth_server::Auth},
};

use crate::{
    context::{Asker, Context, Learner},
    gate::{self, AuthStatus, Login, RoleGet, RoleList, UserGet, UserList},
    status::{self, Refusal},
};
use tokens::Token;

/// A login begins anew when users or roles change while the password is compared, but not for ever.
const LOGIN_ATTEMPTS_MAX: usize = 5;
/// bcrypt looks at no more; Go's refuses what is longer, with this text.
const PASSWORD_SIZE_BYTES_MAX: usize = 72;

#[derive(Clone)]
pub(crate) struct AuthService {
    pub context: Arc<Context>,
}

impl AuthService {
    fn admit<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        self.context.admit(request, Learner::Refuses)
    }

    fn receive<T>(&self, request: &Request<T>) -> Result<Asker, Status> {
        self.context.receive(request, Learner::Refuses)
    }

    /// Changes users or roles; gives the header of the answer.
    async fn change(
        &self,
        caller: Caller,
        command: AuthCommand,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let (revision, _) = self.context.propose(caller, Command::Auth(command)).await?;
        Ok(Some(self.context.header(revision)))
    }

    /// Compares the password with what the user's is now, and gives a token.
    async fn log_in(&self, name: &str, password: &str) -> Result<String, Status> {
        for _ in 0..LOGIN_ATTEMPTS_MAX {
            // Read before the password is compared: a change in between makes the comparison worthless.
            let auth_revision = self.context.gate.identify(|users| users.auth_revision());
            let login = self.context.gate.authorize(&Caller::Anonymous, Login { name: name.to_owned() })?;
            let (enabled, user) = login.user();
            if !enabled {
                return Err(Refusal::AuthNotEnabled.into());
            }
            let user = user.ok_or(Refusal::AuthFailed)?;
            if user.no_password {
                return Err(Status::unknown(
                    "auth: authentication failed, password was given for no password user",
                ));
            }
            let hash = String::from_utf8(user.password_hash.to_vec()).map_err(|_| Refusal::AuthFailed)?;
            let password = password.to_owned();
            if !self.context.passwords.verify(password, hash).await? {
                return Err(Refusal::AuthFailed.into());
            }
            if let Some(jwt) = &self.context.tokens.jwt {
                let token = jwt.issue(&user.name, auth_revision);
                return token.map_err(|error| Status::unknown(error.to_string()));
            }
            let token = Token::draw().map_err(|error| Status::unknown(error.to_string()))?;
            match login.remember(token.digest(), auth_revision).await? {
                Ok(index) => return Ok(token.text(index)),
                Err(AuthError::OldRevision) => {}
                Err(AuthError::UserNotFound) => return Err(Refusal::AuthFailed.into()),
                Err(error) => return Err(status::auth(error)),
            }
        }
        Err(status::auth(AuthError::OldRevision))
    }

    async fn hash(&self, password: String) -> Result<Bytes, Status> {
        if password.len() > PASSWORD_SIZE_BYTES_MAX {
            return Err(Status::unknown(format!(
                "bcrypt: password length exceeds {PASSWORD_SIZE_BYTES_MAX} bytes"
            )));
        }
        let cost = self.context.config.bcrypt_cost;
        let hash = self.context.passwords.hash(password, cost).await?;
        hash.map(Bytes::from).map_err(|error| Status::unknown(format!("password cannot be hashed: {error}")))
    }

    /// A client may send a new hash itself, in base64; a password goes before it. Without both nobody logs in any more.
    async fn hash_or_given(&self, password: String, hashed: String) -> Result<Bytes, Status> {
        use base64::Engine as _;
        if !password.is_empty() {
            return self.hash(password).await;
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(hashed);
        bytes
            .map(Bytes::from)
            .map_err(|error| Status::unknown(format!("illegal base64 data in the hash: {error}")))
    }
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let caller = self.admit(&request)?;
        let header = self.change(caller, AuthCommand::Enable).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let caller = self.admit(&request)?;
        let header = self.change(caller, AuthCommand::Disable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let caller = self.admit(&request)?;
        let (enabled, auth_revision) = self.context.gate.authorize(&caller, AuthStatus)?.status();
        let header = Some(self.context.header_now());
        Ok(Response::new(pb::AuthStatusResponse { header, enabled, auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        // Nobody is identified: an old token must not hinder getting a new one.
        let _whoever = self.receive(&request)?;
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        self.context.barrier().await?;
        let token = self.log_in(&name, &password).await?;
        Ok(Response::new(pb::AuthenticateResponse { header: Some(self.context.header_now()), token }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let caller = self.admit(&request)?;
        // A hash that comes with a new user is ignored, as in etcd.
        let pb::AuthUserAddRequest { name, password, options, hashed_password: _ } = request.into_inner();
        if name.is_empty() {
            return Err(Refusal::UserEmpty.into());
        }
        let no_password = options.is_some_and(|options| options.no_password);
        let password_hash = match no_password {
            true => Bytes::new(),
            false => self.hash(password).await?,
        };
        let header = self.change(caller, AuthCommand::UserAdd { name, password_hash, no_password }).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let asker = self.receive(&request)?;
        let name = request.into_inner().name;
        let caller = self.context.admit_fresh(asker).await?;
        let user = self.context.gate.authorize(&caller, UserGet { name })?.user();
        let user = user.ok_or_else(|| status::auth(AuthError::UserNotFound))?;
        Ok(Response::new(pb::AuthUserGetResponse {
            header: Some(self.context.header_now()),
            roles: user.roles,
        }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let asker = self.receive(&request)?;
        let caller = self.context.admit_fresh(asker).await?;
        let users = self.context.gate.authorize(&caller, UserList)?.users();
        Ok(Response::new(pb::AuthUserListResponse { header: Some(self.context.header_now()), users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let caller = self.admit(&request)?;
        let header = self.change(caller, AuthCommand::UserDelete { name: request.into_inner().name }).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let caller = self.admit(&request)?;
        let pb::AuthUserChangePasswordRequest { name, password, hashed_password } = request.into_inner();
        let password_hash = self.hash_or_given(password, hashed_password).await?;
        let header = self.change(caller, AuthCommand::UserChangePassword { name, password_hash }).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let caller = self.admit(&request)?;
        let pb::AuthUserGrantRoleRequest { user, role } = request.into_inner();
        let header = self.change(caller, AuthCommand::UserGrantRole { user, role }).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let caller = self.admit(&request)?;
        let pb::AuthUserRevokeRoleRequest { name, role } = request.into_inner();
        let header = self.change(caller, AuthCommand::UserRevokeRole { user: name, role }).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let caller = self.admit(&request)?;
        let name = request.into_inner().name;
        if name.is_empty() {
            return Err(Refusal::RoleEmpty.into());
        }
        let header = self.change(caller, AuthCommand::RoleAdd { name }).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let asker = self.receive(&request)?;
        let name = request.into_inner().role;
        let caller = self.context.admit_fresh(asker).await?;
        let role = self.context.gate.authorize(&caller, RoleGet { name })?.role();
        let role = role.ok_or_else(|| status::auth(AuthError::RoleNotFound))?;
        // What is granted to root besides says nothing: it may do everything anyhow.
        let perm = match role.name.as_str() {
            "root" => vec![authpb::Permission {
                perm_type: authpb::permission::Type::Readwrite.into(),
                key: Bytes::new(),
                range_end: Bytes::from_static(&[0]),
            }],
            _ => role.permissions.into_iter().map(permission_to_wire).collect(),
        };
        Ok(Response::new(pb::AuthRoleGetResponse { header: Some(self.context.header_now()), perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let asker = self.receive(&request)?;
        let caller = self.context.admit_fresh(asker).await?;
        let roles = self.context.gate.authorize(&caller, RoleList)?.roles();
        Ok(Response::new(pb::AuthRoleListResponse { header: Some(self.context.header_now()), roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let caller = self.admit(&request)?;
        let header = self.change(caller, AuthCommand::RoleDelete { name: request.into_inner().role }).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let caller = self.admit(&request)?;
        let pb::AuthRoleGrantPermissionRequest { name, perm } = request.into_inner();
        let given = perm.ok_or_else(|| Refusal::PermissionNotGiven.into()).and_then(permission_from_wire);
        if given.is_err() {
            // Whoever may not is told only that.
            self.context.gate.authorize(&caller, gate::Maintenance)?;
        }
        let command = AuthCommand::RoleGrantPermission { role: name, permission: given? };
        let header = self.change(caller, command).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let caller = self.admit(&request)?;
        let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request.into_inner();
        let range = KeyRange::from_wire(key, range_end);
        let header = self.change(caller, AuthCommand::RoleRevokePermission { role, range }).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}

fn permission_from_wire(permission: authpb::Permission) -> Result<Permission, Status> {
    use authpb::permission::Type;
    let access = match Type::try_from(permission.perm_type) {
        Ok(Type::Read) => Access::Read,
        Ok(Type::Write) => Access::Write,
        Ok(Type::Readwrite) => Access::ReadWrite,
        Err(_) => return Err(Refusal::PermissionNotGiven.into()),
    };
    Ok(Permission { access, range: KeyRange::from_wire(permission.key, permission.range_end) })
}

fn permission_to_wire(permission: Permission) -> authpb::Permission {
    use authpb::permission::Type;
    let kind = match permission.access {
        Access::Read => Type::Read,
        Access::Write => Type::Write,
        Access::ReadWrite => Type::Readwrite,
    };
    let (key, range_end) = permission.range.to_wire();
    authpb::Permission { perm_type: kind.into(), key, range_end }
}

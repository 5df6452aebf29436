//! A lease that a command renews while it runs, as etcd's client does: for as long as the lease can still live.
//!
//! It is renewed three times in each of its lives, over lost connections too. Not here: what hangs on it (lock.rs).

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use wire::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
};

use crate::{failure::Failure, login, session::Session};

/// Between attempts to renew when the first did not work.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) struct Held {
    pub(crate) id: i64,
    /// Ends when the lease is lost.
    renewing: JoinHandle<()>,
}

impl Held {
    pub(crate) async fn new(session: &Session, ttl_s: i64) -> Result<Held, Failure> {
        let mut client = session.client.lease.clone();
        let asked = client.lease_grant(session.ask(LeaseGrantRequest { ttl: ttl_s, id: 0 }));
        let granted = session.call(asked).await?;
        let (session, id) = (session.clone(), granted.id);
        let renewing = tokio::spawn(async move {
            let mut life = Life::new(granted.ttl);
            tokio::time::sleep(life.ttl / 3).await;
            // Whether it ran out or is renewed by nobody any more: it is lost.
            while let Ok(Some(_)) = life.renew(&session, id).await {
                tokio::time::sleep(life.ttl / 3).await;
            }
        });
        Ok(Held { id, renewing })
    }

    /// Waits until the lease has run out or was revoked.
    pub(crate) async fn lost(&mut self) {
        let _ = (&mut self.renewing).await;
    }

    /// Gives it back; what hangs on it goes. If nobody answers, it runs out by itself.
    pub(crate) async fn release(self, session: &Session) {
        self.renewing.abort();
        let mut client = session.client.lease.clone();
        let _ = session.call(client.lease_revoke(session.ask(LeaseRevokeRequest { id: self.id }))).await;
    }
}

/// How long a lease lives at least, as far as is known here.
pub(crate) struct Life {
    pub(crate) ttl: Duration,
    ends: Instant,
}

impl Life {
    pub(crate) fn new(ttl_s: i64) -> Life {
        let ttl = ttl(ttl_s);
        Life { ttl, ends: Instant::now() + ttl }
    }

    /// Asks until a member has renewed the lease or it must be taken for over; then there is no answer.
    pub(crate) async fn renew(
        &mut self,
        session: &Session,
        id: i64,
    ) -> Result<Option<LeaseKeepAliveResponse>, Status> {
        loop {
            let (sent, left) = (Instant::now(), self.ends.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            match tokio::time::timeout(left.min(self.ttl), ask(session, id)).await {
                Ok(Ok(Some(answer))) if answer.ttl > 0 => {
                    self.ttl = ttl(answer.ttl);
                    self.ends = sent + self.ttl;
                    return Ok(Some(answer));
                }
                Ok(Ok(Some(_))) => return Ok(None),
                Ok(Err(status)) if status.code() == Code::NotFound => return Ok(None),
                // Asking again is no use.
                Ok(Err(status)) if is_end(&status) => return Err(status),
                Ok(Ok(None) | Err(_)) | Err(_) => {
                    tokio::time::sleep(RETRY_INTERVAL.min(self.ttl / 3)).await;
                }
            }
        }
    }
}

fn ttl(ttl_s: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl_s).unwrap_or(0).max(1))
}

/// Logs in again when the stream says that the token is no longer good, as `Login` does for what is no stream.
pub(crate) async fn ask(session: &Session, id: i64) -> Result<Option<LeaseKeepAliveResponse>, Status> {
    for _ in 0..login::ATTEMPTS_MAX {
        match ask_once(session, id).await {
            Err(status) if login::is_stale(&status) => {
                if !session.log_in_again().await? {
                    return Err(status);
                }
            }
            answer => return answer,
        }
    }
    ask_once(session, id).await
}

/// One request a stream: nothing has to be remembered when a connection breaks.
async fn ask_once(session: &Session, id: i64) -> Result<Option<LeaseKeepAliveResponse>, Status> {
    let mut client = session.client.lease.clone();
    let request = tokio_stream::once(LeaseKeepAliveRequest { id });
    let answers = client.lease_keep_alive(session.ask(request)).await?;
    answers.into_inner().next().await.transpose()
}

fn is_end(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::Unimplemented
    )
}

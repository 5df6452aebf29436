//! A lease that a command holds while it runs, as a session of etcd's client does.
//!
//! It is renewed three times in each of its lives, over lost connections too. Not here: what hangs on it (lock.rs).

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::Code;
use wire::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest};

use crate::{failure::Failure, session::Session};

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
        Ok(Held { id: granted.id, renewing: tokio::spawn(renew(session.clone(), granted.id, granted.ttl)) })
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

async fn renew(session: Session, id: i64, ttl_s: i64) {
    let life = Duration::from_secs(u64::try_from(ttl_s).unwrap_or(0).max(1));
    let mut renewed = Instant::now();
    while renewed.elapsed() < life {
        tokio::time::sleep(life / 3).await;
        // One request a stream: nothing has to be remembered when a connection breaks.
        let asked = async {
            let mut client = session.client.lease.clone();
            let request = tokio_stream::once(LeaseKeepAliveRequest { id });
            let answers = client.lease_keep_alive(session.ask(request)).await?;
            answers.into_inner().next().await.transpose()
        };
        let sent = Instant::now();
        match tokio::time::timeout(life / 3, asked).await {
            Ok(Ok(Some(answer))) if answer.ttl > 0 => renewed = sent,
            Ok(Ok(Some(_))) => return,
            Ok(Err(status)) if matches!(status.code(), Code::NotFound | Code::PermissionDenied) => return,
            Ok(Ok(None) | Err(_)) | Err(_) => {} // asked again in time, or the lease is taken for lost
        }
    }
}

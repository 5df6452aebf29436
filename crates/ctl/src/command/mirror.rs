//! `make-mirror`: copies the keys of one cluster to another, and from then on every change.
//!
//! Changes of one revision reach the destination in one transaction, unless they are more than `--max-txn-ops`. A lost
//! connection on either side is made again and the mirror goes on where it was: a change may be written twice, none is
//! left out. Leases are not mirrored. Ends only with an error, such as history that was compacted meanwhile.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tonic::{Code, Response, Status};
use wire::{
    etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
        request_op::Request,
    },
    mvccpb::{Event, event::EventType},
    prefix_end,
};

use crate::{
    catalog::{Command, Run},
    failure::Failure,
    flags::{Line, number, switch, text},
    output,
    progress::Progress,
    session::{Reach, Session},
    watching::Watches,
};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "make-mirror",
    takes: "[options] <destination>",
    about: "Makes a mirror at the destination cluster",
    detail: "Prints how many keys were written, every 30 seconds. Runs until it is stopped.",
    example: "make-mirror --prefix /app/ --dest-prefix /copy/ mirror.example.com:2379",
    flags: &[
        text("dest-cacert", "", "Verify certificates of TLS enabled secure servers using this CA bundle"),
        text(
            "dest-cert",
            "",
            "Identify secure client using this TLS certificate file for the destination cluster",
        ),
        switch("dest-insecure-transport", "Disable transport security for client connections").on(),
        text("dest-key", "", "Identify secure client using this TLS key file"),
        text(
            "dest-password",
            "",
            "Destination password for authentication (then --dest-user must not include one)",
        ),
        text(
            "dest-prefix",
            "",
            "destination prefix to mirror a prefix to a different prefix in the destination cluster",
        ),
        text(
            "dest-user",
            "",
            "Destination username[:password] for authentication (prompt if password is not supplied)",
        ),
        number(
            "max-txn-ops",
            "128",
            "Maximum number of operations permitted in a transaction during syncing updates",
        ),
        switch("no-dest-prefix", "mirror key-values to the root of the destination cluster"),
        text("prefix", "", "Key-value prefix to mirror"),
        number("rev", "0", "Specify the kv revision to start to mirror"),
    ],
    run: Run::Online(|session, line| Box::pin(run(session, line))),
}];

/// Keys that are read at once, as etcdctl does.
const BATCH_KEYS: i64 = 1000;
const REPORT_INTERVAL: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

async fn run(source: &Session, line: &Line) -> Result<(), Failure> {
    let [destination] = line.words_of("make-mirror takes one destination argument")?;
    if line.has("no-dest-prefix") && !line.text("dest-prefix").is_empty() {
        return Err(Failure::arguments(
            "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
        ));
    }
    let mut options = source.options.clone();
    options.reach(
        destination,
        &Reach {
            ca: line.text("dest-cacert"),
            cert: line.text("dest-cert"),
            key: line.text("dest-key"),
            skip_verify: false,
            insecure_transport: line.has("dest-insecure-transport"),
            user: line.text("dest-user"),
            password: line.text("dest-password"),
            token: "",
            prompt: "Destination Password: ",
        },
    )?;
    let mirror = Mirror {
        source,
        destination: Session::open(options).await?,
        prefix: line.text("prefix").to_owned(),
        destination_prefix: match line.text("dest-prefix") {
            "" if !line.has("no-dest-prefix") => line.text("prefix"),
            given => given,
        }
        .to_owned(),
        operations_max: usize::try_from(line.number("max-txn-ops")).unwrap_or(0).max(1),
        written: AtomicU64::new(0),
        progress: Progress::endless("Keys mirrored:"),
    };
    let report = async {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            let written = mirror.written.load(Ordering::Relaxed);
            mirror.progress.beside(|| output::line(written.to_string()));
        }
    };
    let work = async {
        let from = line.number("rev");
        let from = if from > 1 { from } else { mirror.copy().await? + 1 };
        mirror.follow(from).await
    };
    tokio::select! {
        result = work => result,
        () = report => Ok(()),
    }
}

struct Mirror<'a> {
    source: &'a Session,
    destination: Session,
    prefix: String,
    destination_prefix: String,
    operations_max: usize,
    written: AtomicU64,
    progress: Progress,
}

/// Asks until a member answers. For requests that may be sent twice.
async fn insist<T>(
    session: &Session,
    ask: impl AsyncFn() -> Result<Response<T>, Status>,
) -> Result<T, Failure> {
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Err(status) => return Err(session.failed(&status)),
        }
    }
}

impl Mirror<'_> {
    /// All keys as they are at one revision, which it answers.
    async fn copy(&self) -> Result<i64, Failure> {
        let mut revision = 0;
        let mut key =
            if self.prefix.is_empty() { Bytes::from_static(&[0]) } else { Bytes::from(self.prefix.clone()) };
        let range_end = prefix_end(self.prefix.as_bytes());
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: BATCH_KEYS,
                revision,
                ..RangeRequest::default()
            };
            let ask = async || self.source.client.kv.clone().range(self.source.ask(request.clone())).await;
            // The first answer, from whoever may be reached at all, is not insisted on.
            let batch =
                if revision == 0 { self.source.call(ask()).await? } else { insist(self.source, ask).await? };
            if revision == 0 {
                revision = batch.header.map_or(0, |header| header.revision);
            }
            for pair in &batch.kvs {
                let put = PutRequest {
                    key: self.renamed(&pair.key),
                    value: pair.value.clone(),
                    ..PutRequest::default()
                };
                let to = &self.destination;
                insist(to, async || to.client.kv.clone().put(to.ask(put.clone())).await).await?;
                self.count(1);
            }
            match batch.kvs.last() {
                Some(last) if batch.more => key = [&last.key[..], &[0]].concat().into(),
                _ => return Ok(revision),
            }
        }
    }

    /// Every change from a revision on.
    async fn follow(&self, revision: i64) -> Result<(), Failure> {
        let mut watches = Watches::new(self.source);
        let everything = self.prefix.is_empty();
        watches
            .add(WatchCreateRequest {
                key: if everything { Bytes::from_static(&[0]) } else { Bytes::from(self.prefix.clone()) },
                range_end: prefix_end(self.prefix.as_bytes()),
                start_revision: revision,
                ..WatchCreateRequest::default()
            })
            .await;
        loop {
            let (_, answer) = watches.next().await?;
            if answer.compact_revision != 0 {
                return Err(Failure::error("etcdserver: mvcc: required revision has been compacted"));
            }
            if answer.canceled {
                return Err(Failure::error(answer.cancel_reason));
            }
            for operations in transactions(&answer.events, self.operations_max) {
                self.write(operations).await?;
            }
        }
    }

    async fn write(&self, events: &[Event]) -> Result<(), Failure> {
        let operations = events.iter().map(|event| {
            let pair = event.kv.clone().unwrap_or_default();
            let key = self.renamed(&pair.key);
            RequestOp {
                request: Some(match event.r#type() {
                    EventType::Put => {
                        Request::RequestPut(PutRequest { key, value: pair.value, ..PutRequest::default() })
                    }
                    EventType::Delete => Request::RequestDeleteRange(DeleteRangeRequest {
                        key,
                        ..DeleteRangeRequest::default()
                    }),
                }),
            }
        });
        let request = TxnRequest { success: operations.collect(), ..TxnRequest::default() };
        let to = &self.destination;
        insist(to, async || to.client.kv.clone().txn(to.ask(request.clone())).await).await?;
        self.count(events.len() as u64);
        Ok(())
    }

    fn count(&self, keys: u64) {
        self.written.fetch_add(keys, Ordering::Relaxed);
        self.progress.add(keys);
    }

    fn renamed(&self, key: &Bytes) -> Bytes {
        match key.strip_prefix(self.prefix.as_bytes()) {
            Some(_) if self.prefix == self.destination_prefix => key.clone(),
            Some(rest) => [self.destination_prefix.as_bytes(), rest].concat().into(),
            None => key.clone(),
        }
    }
}

/// Events in the pieces that are written at once: of one revision, and not too many.
fn transactions(events: &[Event], operations_max: usize) -> impl Iterator<Item = &[Event]> {
    let revision = |event: &Event| event.kv.as_ref().map_or(0, |pair| pair.mod_revision);
    events
        .chunk_by(move |one, other| revision(one) == revision(other))
        .flat_map(move |same| same.chunks(operations_max))
}

#[cfg(test)]
mod tests {
    use super::{Event, transactions};
    use wire::mvccpb::KeyValue;

    #[test]
    fn a_revision_is_written_at_once_but_not_too_much_of_it() {
        let event = |mod_revision| Event {
            kv: Some(KeyValue { mod_revision, ..KeyValue::default() }),
            ..Event::default()
        };
        let events: Vec<Event> = [2, 3, 3, 3, 3, 4, 4].into_iter().map(event).collect();
        let sizes: Vec<usize> = transactions(&events, 3).map(<[Event]>::len).collect();
        assert_eq!(sizes, [1, 3, 1, 2]);
    }
}

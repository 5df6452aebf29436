//! All gRPC services of a member, and the way from a path to one of them.
//!
//! Nothing is wrapped around a request: no interceptor, no layer; a put costs one string comparison more than the
//! service itself. Not here: sockets (serve.rs).

use std::{
    convert::Infallible,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use replica::Surroundings;
use tonic::{Code, Status, body::Body, server::NamedService, service::Routes};
use tower::Service as _;
use wire::{
    etcdserverpb::{
        auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
        lease_server::LeaseServer, maintenance_server::MaintenanceServer, watch_server::WatchServer,
    },
    healthpb::health_server::HealthServer,
    v3electionpb::election_server::ElectionServer,
    v3lockpb::lock_server::LockServer,
};

use crate::{
    auth::AuthService,
    cluster::ClusterService,
    config::MESSAGE_OVERHEAD_BYTES,
    context::Context,
    election::ElectionService,
    health::HealthService,
    kv::KvService,
    lease::LeaseService,
    lock::LockService,
    long,
    maintenance::MaintenanceService,
    metrics::{Method, MethodCounters},
    watch::WatchService,
};

/// Beginning of the text with which the codec refuses a message that is too long.
const TOO_LONG: &str = "Error, decoded message length too large: found ";

/// The services; cheap to clone.
#[derive(Clone)]
pub(crate) struct Services {
    context: Arc<Context>,
    kv: KvServer<KvService>,
    watch: WatchServer<WatchService>,
    lease: LeaseServer<LeaseService>,
    cluster: ClusterServer<ClusterService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    auth: AuthServer<AuthService>,
    lock: LockServer<LockService>,
    election: ElectionServer<ElectionService>,
    health: HealthServer<HealthService>,
}

macro_rules! sized {
    ($server:ident, $service:ident, $context:expr, $limit:expr) => {
        $server::new($service { context: $context.clone() })
            .max_decoding_message_size($limit)
            .max_encoding_message_size(i32::MAX as usize)
    };
}

impl Services {
    pub(crate) fn new(context: Arc<Context>) -> Services {
        let limit = context.config.request_size_bytes_max + MESSAGE_OVERHEAD_BYTES;
        Services {
            kv: sized!(KvServer, KvService, context, limit),
            watch: sized!(WatchServer, WatchService, context, limit),
            lease: sized!(LeaseServer, LeaseService, context, limit),
            cluster: sized!(ClusterServer, ClusterService, context, limit),
            maintenance: sized!(MaintenanceServer, MaintenanceService, context, limit),
            auth: sized!(AuthServer, AuthService, context, limit),
            lock: sized!(LockServer, LockService, context, limit),
            election: sized!(ElectionServer, ElectionService, context, limit),
            health: sized!(HealthServer, HealthService, context, limit),
            context,
        }
    }

    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.context.config.surroundings
    }

    /// The same services for calls inside the process, which are counted like all others.
    pub(crate) fn routes(&self) -> Routes {
        let mut builder = Routes::builder();
        builder
            .add_service(self.local(&self.kv))
            .add_service(self.local(&self.watch))
            .add_service(self.local(&self.lease))
            .add_service(self.local(&self.cluster))
            .add_service(self.local(&self.maintenance))
            .add_service(self.local(&self.auth))
            .add_service(self.local(&self.lock))
            .add_service(self.local(&self.election))
            .add_service(self.local(&self.health));
        builder.routes()
    }

    fn local<S>(&self, _named: &S) -> Local<S> {
        Local { services: self.clone(), named: PhantomData }
    }

    /// Answers one gRPC request, and counts it.
    pub(crate) async fn call<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let (begin, begin_time) = (Instant::now(), SystemTime::now());
        let counters = self.context.metrics.started(request.uri().path()).cloned();
        if let Some(counters) = &counters {
            let is_stream = counters.method.client_stream || counters.method.server_stream;
            self.context.metrics.clients.count(request.headers(), is_stream);
        }
        self.context.hear_of(request.headers()).await;
        let mut response = self.dispatch(request).await;
        let refused = Status::from_header_map(response.headers());
        if let Some(text) = refused.as_ref().and_then(too_long) {
            response = Status::resource_exhausted(text).into_http();
        }
        let Some(counters) = counters else { return response };
        self.warn_if_slow(&counters.method, begin, begin_time);
        if let Some(status) = refused {
            counters.finished(status.code(), begin);
        } else if counters.method.server_stream {
            return response.map(|body| Body::new(Counted { body, counters: Some(counters), begin }));
        } else {
            counters.finished(Code::Ok, begin);
        }
        response
    }

    /// etcd's line about a slow request. What was asked is in nobody's hands any more; the path tells its kind.
    fn warn_if_slow(&self, method: &Method, begin: Instant, begin_time: SystemTime) {
        let spent = begin.elapsed();
        let is_slow = spent > self.context.config.operations.warning_unary_request_duration;
        if is_slow && !method.client_stream && !method.server_stream {
            let start_s = begin_time.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
            tracing::warn!(
                "start time" = start_s,
                "time spent" = ?spent,
                "response type" = format!("/{}/{}", method.service, method.name),
                "request stats"
            );
        }
    }

    async fn dispatch<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let service =
            request.uri().path().get(1..).and_then(|path| path.split_once('/')).map(|(service, _)| service);
        let answer = match service {
            Some("etcdserverpb.KV") => self.kv.clone().call(request).await,
            Some("etcdserverpb.Watch") => self.watch.clone().call(request).await,
            Some("etcdserverpb.Lease") => self.lease.clone().call(request).await,
            Some("etcdserverpb.Cluster") => self.cluster.clone().call(request).await,
            Some("etcdserverpb.Maintenance") => self.maintenance.clone().call(request).await,
            Some("etcdserverpb.Auth") => self.auth.clone().call(request).await,
            Some("v3lockpb.Lock") => self.lock.clone().call(request).await,
            Some("v3electionpb.Election") => self.election.clone().call(request).await,
            Some("grpc.health.v1.Health") => self.health.clone().call(request).await,
            Some(other) => Ok(Status::unimplemented(format!("unknown service {other}")).into_http()),
            None => Ok(Status::unimplemented("malformed method name").into_http()),
        };
        long::take_place(answer.unwrap_or_else(|never: Infallible| match never {}))
    }
}

/// All services under the name of one of them.
struct Local<S> {
    services: Services,
    named: PhantomData<fn() -> S>,
}

impl<S> Clone for Local<S> {
    fn clone(&self) -> Local<S> {
        Local { services: self.services.clone(), named: PhantomData }
    }
}

impl<S: NamedService> NamedService for Local<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> tower::Service<Request<Body>> for Local<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let services = self.services.clone();
        Box::pin(async move { Ok(services.call(request).await) })
    }
}

/// Why a stream of requests could not be read further, as Go says it.
pub(crate) fn refused_message(status: Status) -> Status {
    too_long(&status).map_or(status, Status::resource_exhausted)
}

/// Go's text for the codec's "found F bytes, the limit is: L bytes".
fn too_long(status: &Status) -> Option<String> {
    if status.code() != Code::OutOfRange {
        return None;
    }
    let (found, rest) = status.message().strip_prefix(TOO_LONG)?.split_once(" bytes, the limit is: ")?;
    let (limit, _) = rest.split_once(' ')?;
    Some(format!("grpc: received message larger than max ({found} vs. {limit})"))
}

/// A stream of answers whose end is counted with its code.
struct Counted {
    body: Body,
    counters: Option<Arc<MethodCounters>>,
    begin: Instant,
}

impl Counted {
    fn finish(&mut self, code: Code) {
        if let Some(counters) = self.counters.take() {
            counters.finished(code, self.begin);
        }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            let code = trailers
                .get("grpc-status")
                .map_or(Code::Ok, |code: &HeaderValue| Code::from_bytes(code.as_bytes()));
            self.finish(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Drop for Counted {
    /// The client went away.
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::{Status, too_long};

    #[test]
    fn a_message_that_is_too_long_is_refused_with_gos_text() {
        let text =
            "Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 bytes";
        assert_eq!(
            too_long(&Status::out_of_range(text)).as_deref(),
            Some("grpc: received message larger than max (3000000 vs. 2097152)")
        );
        let other = Status::out_of_range("etcdserver: mvcc: required revision has been compacted");
        assert_eq!(too_long(&other), None);
    }
}

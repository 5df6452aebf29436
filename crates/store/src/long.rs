//! Long answers: made and encoded on another thread, because heartbeats run on the thread of the services.
//!
//! Invariants: what a client gets is byte for byte what the codec of a service would have sent; an answer that is longer
//! than a message may be is refused. Not here: how an answer is read, which takes pieces (kv.rs).

use bytes::{BufMut, Bytes};
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use replica::Surroundings;
use tonic::{Response, Status, body::Body};

/// Encoding more than this takes about a millisecond.
const ENCODED_HERE_BYTES_MAX: usize = 1024 * 1024;
/// Before each message of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// As in etcd. Source: server/etcdserver/api/v3rpc/grpc.go `maxSendBytes`.
pub(crate) const MESSAGE_SIZE_BYTES_MAX: usize = i32::MAX as usize;

/// The whole body of an answer, in the place of the message that its service gave.
#[derive(Clone)]
struct Encoded(Bytes);

/// The answer of about `size_bytes` that `make` makes. A long one travels beside an empty message, until `take_place`.
pub(crate) async fn respond<M>(
    surroundings: &Surroundings,
    size_bytes: usize,
    make: impl FnOnce() -> M + Send + 'static,
) -> Result<Response<M>, Status>
where
    M: Message + Default + 'static,
{
    if size_bytes <= ENCODED_HERE_BYTES_MAX {
        return Ok(Response::new(make()));
    }
    let encoding = surroundings.blocking(move || encode(&make()));
    let encoded = encoding.await.map_err(|error| Status::internal(error.to_string()))??;
    let mut response = Response::new(M::default());
    response.extensions_mut().insert(encoded);
    Ok(response)
}

fn encode(message: &impl Message) -> Result<Encoded, Status> {
    let length = message.encoded_len();
    if length > MESSAGE_SIZE_BYTES_MAX {
        return Err(too_long(length));
    }
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    // It was just compared.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    Ok(Encoded(bytes.into()))
}

pub(crate) fn too_long(size_bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "trying to send message larger than max ({size_bytes} vs. {MESSAGE_SIZE_BYTES_MAX})"
    ))
}

/// Puts what was encoded into the response that it belongs to.
pub(crate) fn take_place(mut response: http::Response<Body>) -> http::Response<Body> {
    let Some(Encoded(bytes)) = response.extensions_mut().remove() else { return response };
    let mut trailers = http::HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [Ok::<_, Status>(Frame::data(bytes)), Ok(Frame::trailers(trailers))];
    response.map(|_empty| Body::new(StreamBody::new(stream::iter(frames))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use wire::etcdserverpb as pb;

    fn answer(values: usize) -> pb::RangeResponse {
        let kv = wire::mvccpb::KeyValue { value: vec![7; 1000].into(), ..Default::default() };
        pb::RangeResponse { kvs: vec![kv; values], count: 3, ..Default::default() }
    }

    async fn sent(values: usize) -> (Response<pb::RangeResponse>, Option<Bytes>) {
        let made = move || answer(values);
        let response = respond(&Surroundings::system(), values * 1000, made).await.unwrap();
        let mut sent = http::Response::new(Body::empty());
        *sent.extensions_mut() = response.extensions().clone();
        let body = take_place(sent).into_body().collect().await.unwrap();
        let status = body.trailers().map(|trailers| trailers["grpc-status"].clone());
        (response, status.map(|status| assert_eq!(status, "0")).map(|()| body.to_bytes()))
    }

    #[tokio::test]
    async fn a_long_answer_is_encoded_elsewhere_and_is_the_same() {
        let (response, body) = sent(5000).await;
        assert_eq!(response.get_ref(), &pb::RangeResponse::default());
        let body = body.unwrap();
        assert_eq!(body[..PREFIX_BYTES], [&[0][..], &(body.len() as u32 - 5).to_be_bytes()].concat());
        assert_eq!(pb::RangeResponse::decode(&body[PREFIX_BYTES..]).unwrap(), answer(5000));
    }

    #[tokio::test]
    async fn a_short_answer_is_left_to_the_service() {
        let (response, body) = sent(1).await;
        assert_eq!((response.get_ref(), body), (&answer(1), None));
    }
}

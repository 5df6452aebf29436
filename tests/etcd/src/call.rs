//! gRPC calls by the name of a method: messages are made and read by their descriptors.

use anyhow::{Context as _, Result};
use bytes::{Buf as _, BufMut as _};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status, Streaming, client::Grpc};
use wire::Transport;

/// Every message and service that `wire` knows.
pub fn pool() -> Result<DescriptorPool> {
    DescriptorPool::decode(wire::DESCRIPTORS).context("the descriptors cannot be read")
}

/// `KV/Put` or, for services outside etcd's own package, `v3lockpb.Lock/Lock`.
pub fn method(pool: &DescriptorPool, name: &str) -> Result<MethodDescriptor> {
    let (service, method) = name.split_once('/').with_context(|| format!("{name:?} is no method"))?;
    let full = if service.contains('.') { service.to_owned() } else { format!("etcdserverpb.{service}") };
    let service = pool.get_service_by_name(&full).with_context(|| format!("no service {full}"))?;
    service.methods().find(|found| found.name() == method).with_context(|| format!("no method {name}"))
}

/// A call that is open: requests go in, answers come out.
pub struct Call {
    requests: Requests,
    pub answers: Streaming<DynamicMessage>,
}

impl Call {
    /// Begins a call with these requests. One whose method takes a stream stays open for more.
    pub async fn begin(
        transport: &Transport,
        method: &MethodDescriptor,
        first: Vec<DynamicMessage>,
        metadata: &[(&'static str, String)],
    ) -> Result<Call, Status> {
        let mut grpc = Grpc::new(transport.clone()).max_decoding_message_size(i32::MAX as usize);
        grpc.ready().await?;
        let (sender, receiver) = mpsc::channel(64);
        for message in first {
            sender.try_send(message).map_err(|_| Status::internal("too many requests at once"))?;
        }
        let mut request = Request::new(ReceiverStream::new(receiver));
        for (name, value) in metadata {
            let value = value.parse().map_err(|_| Status::internal("metadata is not ASCII"))?;
            request.metadata_mut().insert(*name, value);
        }
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path = path.parse().map_err(|_| Status::internal("method has no path"))?;
        let requests = Requests { requests: method.is_client_streaming().then_some(sender) };
        let codec = DynamicCodec { answer: method.output() };
        let answers = grpc.streaming(request, path, codec).await?.into_inner();
        Ok(Call { requests, answers })
    }

    pub async fn send(&self, message: DynamicMessage) -> Result<()> {
        self.requests.send(message).await
    }

    /// For two tasks: one sends, one reads.
    pub fn split(self) -> (Requests, Streaming<DynamicMessage>) {
        (self.requests, self.answers)
    }
}

/// What is sent on an open call, apart from its answers.
pub struct Requests {
    /// Held while more may come.
    requests: Option<mpsc::Sender<DynamicMessage>>,
}

impl Requests {
    pub async fn send(&self, message: DynamicMessage) -> Result<()> {
        let requests = self.requests.as_ref().context("this call takes no more requests")?;
        requests.send(message).await.context("the call has ended")
    }
}

/// The answer of a plain call, or the first of a stream.
pub async fn one(
    transport: &Transport,
    method: &MethodDescriptor,
    request: DynamicMessage,
    metadata: &[(&'static str, String)],
) -> Result<DynamicMessage, Status> {
    let mut call = Call::begin(transport, method, vec![request], metadata).await?;
    call.answers.message().await?.ok_or_else(|| Status::internal("the call ended without an answer"))
}

struct DynamicCodec {
    answer: MessageDescriptor,
}

struct DynamicEncoder;

struct DynamicDecoder {
    answer: MessageDescriptor,
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder { answer: self.answer.clone() }
    }
}

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message.encode_to_vec());
        Ok(())
    }
}

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let message = DynamicMessage::decode(self.answer.clone(), bytes);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

//! This crate's decoders under names that fuzz targets can call. For tests/fuzz and nobody else.
//!
//! A decoder answers with the bytes that its result encodes to, or with `None` if it refused the input. `false` stands
//! for a refusal where there is nothing to encode.

use std::ffi::OsString;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use mvcc::Command;
use prost::Message as _;
use wire::etcdserverpb as pb;

use crate::{
    Config, Flags, Jwt, Url, auth::tokens, config::parse_duration, convert, http::gateway, metrics::POOL, tls,
};

/// A JSON body for a gRPC method, as the gateway reads it: the message as JSON again.
pub fn gateway(method: &str, body: &[u8]) -> Option<Vec<u8>> {
    let (service, name) = method.split_once('/')?;
    let method =
        POOL.as_ref()?.get_service_by_name(service)?.methods().find(|method| method.name() == name)?;
    let mut frames = BytesMut::from(&gateway::messages(&method, body).ok()?[..]);
    let message = gateway::unframe(&mut frames)?;
    Some(gateway::to_json(method.input(), message).ok()?.into_bytes())
}

/// A gRPC stream of answers as the gateway takes it apart: how many messages there were.
pub fn frames(bytes: &[u8]) -> usize {
    let mut buffer = BytesMut::from(bytes);
    std::iter::from_fn(|| gateway::unframe(&mut buffer)).count()
}

/// A `TxnRequest` as it comes from the socket: what would be proposed.
pub fn txn(bytes: &[u8]) -> Option<Vec<u8>> {
    let request = pb::TxnRequest::decode(Bytes::copy_from_slice(bytes)).ok()?;
    Some(encoded(Command::Txn(convert::txn(request, 128).ok()?.txn)))
}

pub fn put(bytes: &[u8]) -> Option<Vec<u8>> {
    let request = pb::PutRequest::decode(Bytes::copy_from_slice(bytes)).ok()?;
    Some(encoded(Command::Put(convert::put(request).ok()?)))
}

pub fn delete_range(bytes: &[u8]) -> Option<Vec<u8>> {
    let request = pb::DeleteRangeRequest::decode(Bytes::copy_from_slice(bytes)).ok()?;
    Some(encoded(Command::DeleteRange(convert::delete_range(request).ok()?)))
}

pub fn range(bytes: &[u8]) -> bool {
    let request = pb::RangeRequest::decode(Bytes::copy_from_slice(bytes));
    request.is_ok_and(|request| convert::range(request).is_ok())
}

fn encoded(command: Command) -> Vec<u8> {
    let mut out = Vec::new();
    command.encode(&mut out);
    out
}

/// Arguments, one a line, and what they would make of the server.
pub fn flags(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let arguments = text.lines().filter(|line| !line.contains("-file")).map(OsString::from);
    Flags::parse(arguments, []).is_ok_and(|flags| Config::from_flags(&flags).is_ok())
}

/// A configuration file that lies at this path.
pub fn config_file(path: &Path) -> bool {
    let mut argument = OsString::from("--config-file=");
    argument.push(path);
    Flags::parse([argument], []).is_ok_and(|flags| Config::from_flags(&flags).is_ok())
}

/// A list of URLs.
pub fn urls(bytes: &[u8]) -> Option<Vec<u8>> {
    let urls = Url::parse_list(std::str::from_utf8(bytes).ok()?).ok()?;
    Some(urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",").into_bytes())
}

pub fn duration(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| parse_duration(text).is_some())
}

/// A revocation list that lies at this path.
pub fn revocation_list(path: &Path) -> bool {
    tls::guard::revoked(path).is_ok()
}

/// A certificate, of which the user's name is wanted.
pub fn certificate(bytes: &[u8]) -> bool {
    tls::common_name(&bytes.to_vec().into()).is_some()
}

/// The options of `--auth-token jwt,...`; whoever has them can check tokens.
pub fn jwt(options: &str) -> Option<Jwt> {
    Jwt::from_options(options).ok()
}

pub fn new_token(jwt: &Jwt) -> Option<String> {
    jwt.issue("ana", 7).ok()
}

pub fn token(jwt: &Jwt, bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|token| jwt.verify(token).is_some())
}

/// A simple token.
pub fn simple_token(bytes: &[u8]) -> Option<Vec<u8>> {
    let (letters, index) = tokens::parse(std::str::from_utf8(bytes).ok()?)?;
    Some(format!("{letters}.{index}").into_bytes())
}

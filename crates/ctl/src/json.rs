//! Answers as Go's encoding/json writes etcd's generated structs.
//!
//! Names are the proto names, numbers stay numbers, bytes are base64, enums are numbers, defaults are left out, a
//! oneof is wrapped in its Go name. One walk over descriptors does it for every message.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, Value};

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(wire::DESCRIPTORS).ok());

/// The JSON text of a message of this full name, for example `etcdserverpb.PutResponse`.
pub(crate) fn message(name: &str, message: &impl prost::Message) -> String {
    render(name, message).unwrap_or_else(|| "{}".to_owned())
}

fn render(name: &str, message: &impl prost::Message) -> Option<String> {
    let descriptor = POOL.as_ref()?.get_message_by_name(name)?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()?;
    Some(object(&message))
}

fn object(message: &DynamicMessage) -> String {
    let mut members = Vec::new();
    for field in message.descriptor().fields() {
        if !message.has_field(&field) {
            continue;
        }
        let text = value(&message.get_field(&field));
        match field.containing_oneof() {
            Some(oneof) => members.push(format!(
                "{}:{{{}:{text}}}",
                string(&capital(oneof.name())),
                string(field.name())
            )),
            None => members.push(format!("{}:{text}", string(field.name()))),
        }
    }
    format!("{{{}}}", members.join(","))
}

fn value(value_: &Value) -> String {
    match value_ {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) | Value::EnumNumber(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::F32(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::String(text) => string(text),
        Value::Bytes(bytes) => string(&base64(bytes)),
        Value::Message(message) => object(message),
        Value::List(items) => format!("[{}]", items.iter().map(value).collect::<Vec<_>>().join(",")),
        Value::Map(_) => "{}".to_owned(), // no message of etcd has one
    }
}

/// A JSON string; like Go, `<`, `>` and `&` are escaped.
pub(crate) fn string(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn capital(name: &str) -> String {
    name.split('_')
        .map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
                .collect::<String>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use wire::etcdserverpb::{PutResponse, ResponseHeader, ResponseOp, TxnResponse, response_op::Response};

    #[test]
    fn a_transaction_prints_as_etcdctl_prints_it() {
        let header = Some(ResponseHeader { revision: 19, ..Default::default() });
        let put = ResponseOp { response: Some(Response::ResponsePut(PutResponse { header, prev_kv: None })) };
        let answer = TxnResponse { header, succeeded: true, responses: vec![put] };
        assert_eq!(
            super::message("etcdserverpb.TxnResponse", &answer),
            r#"{"header":{"revision":19},"succeeded":true,"responses":[{"Response":{"response_put":{"header":{"revision":19}}}}]}"#
        );
    }

    #[test]
    fn strings_are_escaped_as_in_go() {
        assert_eq!(super::string("a<b>&\""), r#""a\u003cb\u003e\u0026\"""#);
    }
}

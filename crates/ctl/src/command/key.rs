//! `put`, `get`, `del` and `compaction`; txn.rs reads its operations with the same parsers.
//!
//! Not here: ranges of a watch (watch.rs).

use std::io::Read;

use bytes::Bytes;
use wire::{
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse,
        range_request::{SortOrder, SortTarget},
    },
    mvccpb::KeyValue,
    prefix_end,
};

use crate::{
    failure::Failure,
    flags::Line,
    output,
    session::{Format, Session},
    text,
};

const PREFIX_AND_FROM_KEY: &str = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
const RANGE_AND_FLAG: &str =
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";

pub(crate) async fn put(session: &Session, line: &Line) -> Result<(), Failure> {
    let request = parse_put(line, true)?;
    let mut client = session.client.kv.clone();
    let answer = session.call(client.put(session.ask(request))).await?;
    let hex = session.options.hex;
    session.show("PutResponse", &answer, |fields, answer| fields.put(answer), |answer| print_put(answer, hex))
}

pub(crate) async fn get(session: &Session, line: &Line) -> Result<(), Failure> {
    let request = parse_get(line)?;
    let values_only = line.has("print-value-only");
    if request.count_only && session.options.format != Format::Fields {
        return Err(Failure::arguments("--count-only is only for `--write-out=fields`"));
    }
    if values_only && session.options.format != Format::Simple {
        return Err(Failure::arguments("print-value-only is only for `--write-out=simple`"));
    }
    let mut client = session.client.kv.clone();
    let answer = session.call(client.range(session.ask(request))).await?;
    let hex = session.options.hex;
    session.show(
        "RangeResponse",
        &answer,
        |fields, answer| fields.range(answer),
        |answer| print_range(answer, hex, values_only),
    )
}

pub(crate) async fn delete(session: &Session, line: &Line) -> Result<(), Failure> {
    let request = parse_delete(line)?;
    let mut client = session.client.kv.clone();
    let answer = session.call(client.delete_range(session.ask(request))).await?;
    let hex = session.options.hex;
    session.show(
        "DeleteRangeResponse",
        &answer,
        |fields, answer| fields.delete(answer),
        |answer| print_delete(answer, hex),
    )
}

pub(crate) async fn compact(session: &Session, line: &Line) -> Result<(), Failure> {
    let [revision] = line.words.as_slice() else {
        return Err(Failure::arguments("compaction command needs 1 argument"));
    };
    let revision = text::parse_i64(revision, 10).map_err(Failure::error)?;
    let mut client = session.client.kv.clone();
    let request = CompactionRequest { revision, physical: line.has("physical") };
    session.call(client.compact(session.ask(request))).await?;
    output::line(format!("compacted revision {revision}"));
    Ok(())
}

/// `stdin`: whether a missing value is read from standard input (not inside a transaction).
pub(crate) fn parse_put(line: &Line, stdin: bool) -> Result<PutRequest, Failure> {
    let wanted = || Failure::arguments("put command needs 1 argument and input from stdin or 2 arguments");
    let (ignore_value, ignore_lease) = (line.has("ignore-value"), line.has("ignore-lease"));
    let lease = match line.text("lease") {
        None => 0,
        Some(id) => text::parse_i64(id, 16)
            .map_err(|reason| Failure::arguments(format!("bad lease ID ({reason}), expecting ID in Hex")))?,
    };
    let key = line.words.first().ok_or_else(wanted)?;
    if key.is_empty() {
        return Err(Failure::arguments("put command needs 1 argument and input from stdin or 2 arguments"));
    }
    let value = match line.words.get(1) {
        Some(_) if ignore_value => {
            return Err(Failure::arguments("put command needs only 1 argument when 'ignore-value' is set"));
        }
        Some(value) => Bytes::from(value.clone()),
        None if ignore_value => Bytes::new(),
        None if !stdin => return Err(wanted()),
        None => {
            let mut value = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut value);
            read.map_err(|_| wanted())?;
            if value.is_empty() {
                return Err(wanted());
            }
            Bytes::from(value)
        }
    };
    Ok(PutRequest {
        key: Bytes::from(key.clone()),
        value,
        lease,
        prev_kv: line.has("prev-kv"),
        ignore_value,
        ignore_lease,
    })
}

/// Key and range end of a command that takes `--prefix` and `--from-key`.
fn parse_range(line: &Line, command: &str) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (line.has("prefix"), line.has("from-key"));
    if prefix && from_key {
        return Err(Failure::arguments(PREFIX_AND_FROM_KEY));
    }
    let (key, end) = match line.words.as_slice() {
        [key] => (key, None),
        [_, _] if prefix || from_key => return Err(Failure::arguments(RANGE_AND_FLAG)),
        [key, end] => (key, Some(end)),
        _ => {
            return Err(Failure::arguments(format!(
                "{command} command needs one argument as key and an optional argument as range_end"
            )));
        }
    };
    let first = || if key.is_empty() { Bytes::from_static(&[0]) } else { Bytes::from(key.clone()) };
    Ok(match end {
        Some(end) => (Bytes::from(key.clone()), Bytes::from(end.clone())),
        None if prefix && key.is_empty() => (first(), Bytes::from_static(&[0])),
        None if prefix => (first(), prefix_end(key.as_bytes())),
        None if from_key => (first(), Bytes::from_static(&[0])),
        None => (Bytes::from(key.clone()), Bytes::new()),
    })
}

pub(crate) fn parse_get(line: &Line) -> Result<RangeRequest, Failure> {
    let (key, range_end) = parse_range(line, "get")?;
    let (keys_only, count_only) = (line.has("keys-only"), line.has("count-only"));
    if keys_only && count_only {
        return Err(Failure::arguments(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
        ));
    }
    let serializable = match line.text("consistency") {
        None | Some("l") => false,
        Some("s") => true,
        Some(other) => return Err(Failure::feature(format!("unknown consistency flag {other:?}"))),
    };
    let sort_target = match line.text("sort-by").map(str::to_uppercase).as_deref() {
        None | Some("" | "KEY") => SortTarget::Key,
        Some("CREATE") => SortTarget::Create,
        Some("MODIFY") => SortTarget::Mod,
        Some("VALUE") => SortTarget::Value,
        Some("VERSION") => SortTarget::Version,
        Some(_) => {
            return Err(Failure::feature(format!(
                "bad sort target {}",
                line.text("sort-by").unwrap_or_default()
            )));
        }
    };
    let sort_order = match line.text("order").map(str::to_uppercase).as_deref() {
        None | Some("") if sort_target == SortTarget::Key => SortOrder::None,
        None | Some("" | "ASCEND") => SortOrder::Ascend,
        Some("DESCEND") => SortOrder::Descend,
        Some(_) => {
            return Err(Failure::feature(format!(
                "bad sort order {}",
                line.text("order").unwrap_or_default()
            )));
        }
    };
    // Keys come in order anyway; the server's cheap path is the one without sorting.
    let ascending_keys = sort_target == SortTarget::Key && sort_order == SortOrder::Ascend;
    let sort_order = if ascending_keys { SortOrder::None } else { sort_order };
    Ok(RangeRequest {
        key,
        range_end,
        limit: line.number("limit")?,
        revision: line.number("rev")?,
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable,
        keys_only,
        count_only,
        ..Default::default()
    })
}

pub(crate) fn parse_delete(line: &Line) -> Result<DeleteRangeRequest, Failure> {
    let (key, range_end) = parse_range(line, "del")?;
    Ok(DeleteRangeRequest { key, range_end, prev_kv: line.has("prev-kv") })
}

pub(crate) fn print_put(answer: &PutResponse, hex: bool) {
    output::line("OK");
    if let Some(kv) = &answer.prev_kv {
        print_key_value(kv, hex, false);
    }
}

pub(crate) fn print_range(answer: &RangeResponse, hex: bool, values_only: bool) {
    for kv in &answer.kvs {
        print_key_value(kv, hex, values_only);
    }
}

pub(crate) fn print_delete(answer: &DeleteRangeResponse, hex: bool) {
    output::line(answer.deleted.to_string());
    for kv in &answer.prev_kvs {
        print_key_value(kv, hex, false);
    }
}

pub(crate) fn print_key_value(kv: &KeyValue, hex: bool, value_only: bool) {
    let shown = |bytes: &Bytes| if hex { Bytes::from(text::hex(bytes)) } else { bytes.clone() };
    if !value_only {
        output::line(shown(&kv.key));
    }
    output::line(shown(&kv.value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        let words: Vec<String> = text.split_whitespace().map(|word| word.replace("''", "")).collect();
        Line::parse(&words).unwrap()
    }

    #[test]
    fn ranges_are_asked_as_etcdctl_asks_them() {
        for (text, key, end) in [
            ("a", &b"a"[..], &b""[..]),
            ("a b", b"a", b"b"),
            ("a --prefix", b"a", b"b"),
            ("'' --prefix", b"\0", b"\0"),
            ("'' --from-key", b"\0", b"\0"),
            ("a --from-key", b"a", b"\0"),
        ] {
            let request = parse_get(&line(text)).unwrap();
            assert_eq!((&request.key[..], &request.range_end[..]), (key, end), "{text}");
        }
    }

    #[test]
    fn wrong_arguments_fail_with_etcdctls_words() {
        for (text, code, error) in [
            ("a --prefix --from-key", 128, PREFIX_AND_FROM_KEY),
            ("a b --prefix", 128, RANGE_AND_FLAG),
            ("a --order=foo", 4, "bad sort order foo"),
            ("a --sort-by=bad", 4, "bad sort target bad"),
            ("a --consistency=x", 4, "unknown consistency flag \"x\""),
        ] {
            let failure = parse_get(&line(text)).unwrap_err();
            assert_eq!((failure.code, failure.text.as_str()), (code, error), "{text}");
        }
        let failure = parse_put(&line("a 1 --lease=zz"), false).unwrap_err();
        assert_eq!(
            failure.text,
            "bad lease ID (strconv.ParseInt: parsing \"zz\": invalid syntax), expecting ID in Hex"
        );
    }
}

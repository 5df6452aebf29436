//! `put`, `get`, `del` and `compaction`; txn.rs reads its operations with the same parsers.
//!
//! Not here: ranges of a watch (watch.rs).

use std::{
    io::{IsTerminal, Read},
    time::Duration,
};

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
    catalog::{Command, Run},
    failure::Failure,
    flags::{Flag, Line, number, switch, text as text_flag},
    output,
    session::{Format, Session},
    text,
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "put",
        takes: "[options] <key> <value> (<value> can also be given from stdin)",
        about: "Puts the given key into the store",
        detail: "A <value> that begins with '-' would be read as a flag; put '--' before it:\n\n\
                 put <key> -- <value>\n\n\
                 Without a <value> and without --ignore-value, the value is read from standard input, whatever its\n\
                 bytes: put <key> <file",
        example: "put --lease=694d81417acd4755 foo bar\nput --prev-kv foo bar2",
        flags: PUT_FLAGS,
        run: Run::Online(|session, line| Box::pin(put(session, line))),
    },
    Command {
        name: "get",
        takes: "[options] <key> [range_end]",
        about: "Gets the key or a range of keys",
        detail: "",
        example: "get foo\nget --prefix /registry/ --keys-only --limit=10\nget foo --rev=4 -w json",
        flags: GET_FLAGS,
        run: Run::Online(|session, line| Box::pin(get(session, line))),
    },
    Command {
        name: "del",
        takes: "[options] <key> [range_end]",
        about: "Removes the specified key or range of keys [key, range_end)",
        detail: "",
        example: "del foo --prev-kv\ndel --range foo fop\ndel --prefix /old/",
        flags: DELETE_FLAGS,
        run: Run::Online(|session, line| Box::pin(delete(session, line))),
    },
    Command {
        name: "compaction",
        takes: "[options] <revision>",
        about: "Compacts the event history",
        detail: "",
        example: "compaction 1234 --physical",
        flags: &[switch("physical", "wait until all old revisions are physically removed")],
        run: Run::Online(|session, line| Box::pin(compact(session, line))),
    },
];

pub(crate) const PUT_FLAGS: &[Flag] = &[
    switch("ignore-lease", "updates the key using its current lease"),
    switch("ignore-value", "updates the key using its current value"),
    text_flag("lease", "0", "lease ID (in hexadecimal) to attach to the key"),
    switch("prev-kv", "return the previous key-value pair before modification"),
];

pub(crate) const GET_FLAGS: &[Flag] = &[
    text_flag("consistency", "l", "Linearizable(l) or Serializable(s)").values(&["l", "s"]),
    switch("count-only", "Get only the count"),
    switch("from-key", "Get keys that are greater than or equal to the given key using byte compare"),
    switch("keys-only", "Get only the keys"),
    number("limit", "0", "Maximum number of results"),
    number("max-create-rev", "0", "Maximum create revision"),
    number("max-mod-rev", "0", "Maximum modification revision"),
    number("min-create-rev", "0", "Minimum create revision"),
    number("min-mod-rev", "0", "Minimum modification revision"),
    text_flag("order", "", "Order of results; ASCEND or DESCEND (ASCEND by default)")
        .values(&["ASCEND", "DESCEND"]),
    switch("prefix", "Get keys with matching prefix"),
    switch("print-value-only", "Only write values when using the \"simple\" output format"),
    number("rev", "0", "Specify the kv revision"),
    text_flag("sort-by", "", "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION")
        .values(&["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"]),
];

pub(crate) const DELETE_FLAGS: &[Flag] = &[
    switch("from-key", "delete keys that are greater than or equal to the given key using byte compare"),
    switch("prefix", "delete keys with matching prefix"),
    switch("prev-kv", "return deleted key-value pairs"),
    switch("range", "delete a range of keys without the pause that a terminal gets before"),
];

const PREFIX_AND_FROM_KEY: &str = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
const RANGE_AND_FLAG: &str =
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";

async fn put(session: &Session, line: &Line) -> Result<(), Failure> {
    let request = parse_put(line, true)?;
    let mut client = session.client.kv.clone();
    let answer = session.call(client.put(session.ask(request))).await?;
    let hex = session.options.hex;
    session.show("PutResponse", &answer, |fields, answer| fields.put(answer), |answer| print_put(answer, hex))
}

async fn get(session: &Session, line: &Line) -> Result<(), Failure> {
    let request = parse_get(line)?;
    let values_only = line.has("print-value-only");
    if request.count_only && !matches!(session.options.format, Format::Fields) {
        return Err(Failure::arguments("--count-only is only for `--write-out=fields`"));
    }
    if values_only && session.options.format != Format::Simple {
        return Err(Failure::arguments("print-value-only is only for `--write-out=simple`"));
    }
    let mut client = session.client.kv.clone();
    show_range(session, &session.call(client.range(session.ask(request))).await?, values_only)
}

pub(crate) fn show_range(
    session: &Session,
    answer: &RangeResponse,
    values_only: bool,
) -> Result<(), Failure> {
    let hex = session.options.hex;
    let simple = |answer: &RangeResponse| print_range(answer, hex, values_only);
    session.show("RangeResponse", answer, |fields, answer| fields.range(answer), simple)
}

async fn delete(session: &Session, line: &Line) -> Result<(), Failure> {
    let request = parse_delete(line)?;
    // As etcdctl 3.6, but scripts are not held up.
    if let ([key, end], false) = (line.words.as_slice(), line.has("range"))
        && std::io::stderr().is_terminal()
    {
        output::error(&format!(
            "Warning: Keys between {key:?} and {end:?} will be deleted. Please interrupt the command within next \
             2 seconds to cancel. You can provide `--range` flag to avoid the delay."
        ));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
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

async fn compact(session: &Session, line: &Line) -> Result<(), Failure> {
    let [revision] = line.words_of("compaction command needs 1 argument")?;
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
    let lease = text::parse_i64(line.text("lease"), 16)
        .map_err(|reason| Failure::arguments(format!("bad lease ID ({reason}), expecting ID in Hex")))?;
    let key = line.words.first().filter(|key| !key.is_empty()).ok_or_else(wanted)?;
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
        "l" => false,
        "s" => true,
        other => return Err(Failure::feature(format!("unknown consistency flag {other:?}"))),
    };
    let (sort_by, order) = (line.text("sort-by"), line.text("order"));
    let sort_target = match sort_by.to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(Failure::feature(format!("bad sort target {sort_by}"))),
    };
    let sort_order = match order.to_uppercase().as_str() {
        "" if sort_target == SortTarget::Key => SortOrder::None,
        "" | "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(Failure::feature(format!("bad sort order {order}"))),
    };
    // Keys come in order anyway; the server's cheap path is the one without sorting.
    let ascending_keys = sort_target == SortTarget::Key && sort_order == SortOrder::Ascend;
    let sort_order = if ascending_keys { SortOrder::None } else { sort_order };
    let bound = |name: &str| line.number(name).max(0);
    for (kind, least, most) in
        [("Create", "min-create-rev", "max-create-rev"), ("Mod", "min-mod-rev", "max-mod-rev")]
    {
        let (least, most) = (bound(least), bound(most));
        if most > 0 && least > most {
            return Err(Failure::feature(format!("getMin{kind}Rev(={least}) > getMax{kind}Rev(={most})")));
        }
    }
    Ok(RangeRequest {
        key,
        range_end,
        limit: line.number("limit"),
        revision: line.number("rev"),
        min_create_revision: bound("min-create-rev"),
        max_create_revision: bound("max-create-rev"),
        min_mod_revision: bound("min-mod-rev"),
        max_mod_revision: bound("max-mod-rev"),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable,
        keys_only,
        count_only,
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
        Line::parse(&words, &[GET_FLAGS]).unwrap()
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
            ("a --min-mod-rev=3 --max-mod-rev=2", 4, "getMinModRev(=3) > getMaxModRev(=2)"),
        ] {
            let failure = parse_get(&line(text)).unwrap_err();
            assert_eq!((failure.code, failure.text.as_str()), (code, error), "{text}");
        }
        let put = Line::parse(&["a", "1", "--lease=zz"].map(str::to_owned), &[PUT_FLAGS]).unwrap();
        let failure = parse_put(&put, false).unwrap_err();
        assert_eq!(
            failure.text,
            "bad lease ID (strconv.ParseInt: parsing \"zz\": invalid syntax), expecting ID in Hex"
        );
    }
}

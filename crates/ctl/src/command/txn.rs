//! `txn`: compares, then requests for success, then for failure, one a line, each block ended by an empty line.
//!
//! Not here: the flags of `get`, `put` and `del` (key.rs).

use bytes::Bytes;
use wire::etcdserverpb::{
    Compare, RequestOp, TxnRequest, TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    response_op::Response,
};

use super::key;
use crate::{
    catalog::{Command, Run},
    failure::Failure,
    flags::{Line, switch},
    output, prompt,
    session::Session,
    text,
};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "txn",
    takes: "[options]",
    about: "Txn processes all the requests in one transaction",
    detail: "Reads from standard input: comparisons, requests if all of them hold, requests if not. One is on a line, and\n\
             an empty line ends each of the three parts. If the input ends before that, nothing is done.\n\n\
             compares:        <target>(\"<key>\") <operator> \"<value>\"\n\
             target:          c|create, m|mod, val|value, ver|version or lease\n\
             operator:        <, =, != or >\n\
             requests:        get, put and del with their flags",
    example: "txn <<<'mod(\"key1\") > \"0\"\n\nput key1 \"overwrote-key1\"\n\nput key1 \"created-key1\"\n'",
    flags: &[switch("interactive", "Input transaction in interactive mode").short('i')],
    run: Run::Online(|session, line| Box::pin(run(session, line))),
}];

async fn run(session: &Session, line: &Line) -> Result<(), Failure> {
    if !line.words.is_empty() {
        return Err(Failure::arguments("txn command does not accept argument"));
    }
    let prompt = |text: &str| {
        if line.has("interactive") {
            output::line(text);
        }
    };
    prompt("compares:");
    let mut compare = Vec::new();
    while let Some(text) = block_line()? {
        compare.push(parse_compare(&text)?);
    }
    prompt("success requests (get, put, del):");
    let success = read_requests()?;
    prompt("failure requests (get, put, del):");
    let failure = read_requests()?;
    let mut client = session.client.kv.clone();
    let answer = session.call(client.txn(session.ask(TxnRequest { compare, success, failure }))).await?;
    let hex = session.options.hex;
    session.show("TxnResponse", &answer, |fields, answer| fields.txn(answer), |answer| print(answer, hex))
}

/// The next line of a block; `None` ends it. Input that ends before all blocks have commits nothing.
fn block_line() -> Result<Option<String>, Failure> {
    let text = prompt::whole_line()?;
    let text = text.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn read_requests() -> Result<Vec<RequestOp>, Failure> {
    let mut requests = Vec::new();
    while let Some(text) = block_line()? {
        requests.push(parse_request(&text)?);
    }
    Ok(requests)
}

fn print(answer: &TxnResponse, hex: bool) {
    output::line(if answer.succeeded { "SUCCESS" } else { "FAILURE" });
    for operation in &answer.responses {
        output::line("");
        match &operation.response {
            Some(Response::ResponseRange(answer)) => key::print_range(answer, hex, false),
            Some(Response::ResponsePut(answer)) => key::print_put(answer, hex),
            Some(Response::ResponseDeleteRange(answer)) => key::print_delete(answer, hex),
            Some(Response::ResponseTxn(answer)) => print(answer, hex),
            None => {}
        }
    }
}

fn parse_request(text: &str) -> Result<RequestOp, Failure> {
    let words = split_words(text);
    let wrong = |reason: &str| Failure::input(format!("invalid txn request: {text}{reason}"));
    let (name, rest) = words.split_first().ok_or_else(|| wrong(""))?;
    let line = |flags| Line::parse(rest, &[flags]).map_err(|failure| wrong(&format!(" ({})", failure.text)));
    let request = match name.as_str() {
        "put" => Request::RequestPut(key::parse_put(&line(key::PUT_FLAGS)?, false)?),
        "get" => Request::RequestRange(key::parse_get(&line(key::GET_FLAGS)?)?),
        "del" => Request::RequestDeleteRange(key::parse_delete(&line(key::DELETE_FLAGS)?)?),
        _ => return Err(wrong("")),
    };
    Ok(RequestOp { request: Some(request) })
}

/// `target("key") <|=|!=|> "value"`.
fn parse_compare(text: &str) -> Result<Compare, Failure> {
    let malformed = || Failure::input(format!("malformed comparison: {text}"));
    let (target, rest) = text.split_once('(').ok_or_else(malformed)?;
    let (key, rest) = match quoted(rest) {
        Some((key, rest)) => (key, rest.strip_prefix(')').ok_or_else(malformed)?),
        None => {
            let (key, rest) = rest.split_once(')').ok_or_else(malformed)?;
            (key.as_bytes().to_vec(), rest)
        }
    };
    let mut words = rest.trim().splitn(2, char::is_whitespace);
    let (operator, value) = (words.next().unwrap_or_default(), words.next().ok_or_else(malformed)?.trim());
    let result = match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        "<" => CompareResult::Less,
        ">" => CompareResult::Greater,
        _ => return Err(malformed()),
    };
    let value = quoted(value).map_or_else(|| value.as_bytes().to_vec(), |(value, _)| value);
    let value_text = String::from_utf8_lossy(&value).into_owned();
    let number = |radix| {
        text::parse_i64(&value_text, radix)
            .map_err(|_| Failure::input(format!("invalid txn compare request: {text}")))
    };
    let (target, target_union) = match target.trim() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(Bytes::from(value.clone()))),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        other => {
            return Err(Failure::input(format!("malformed comparison: {text} (unknown target {other})")));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: Bytes::from(key),
        range_end: Bytes::new(),
        target_union: Some(target_union),
    })
}

/// The content of a double-quoted text at the start, with Go's escapes, and what follows it.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let body = text.strip_prefix('"')?;
    let mut content = Vec::new();
    let mut characters = body.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Some((content, body.get(position + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => content.push(b'\n'),
                't' => content.push(b'\t'),
                'r' => content.push(b'\r'),
                'x' => {
                    let digits = [characters.next()?.1, characters.next()?.1];
                    content.push(u8::from_str_radix(&digits.iter().collect::<String>(), 16).ok()?);
                }
                other => content.extend_from_slice(other.to_string().as_bytes()),
            },
            other => content.extend_from_slice(other.to_string().as_bytes()),
        }
    }
    None
}

/// Words as a shell splits them: blanks separate, single and double quotes hold together.
pub(crate) fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let mut word = Vec::new();
        if let Some((content, after)) = quoted(rest) {
            word = content;
            rest = after;
        } else if let Some((content, after)) = rest.strip_prefix('\'').and_then(|body| body.split_once('\''))
        {
            word.extend_from_slice(content.as_bytes());
            rest = after;
        } else {
            let end = rest.get(first.len_utf8()..).and_then(|tail| tail.find(char::is_whitespace));
            let end = end.map_or(rest.len(), |end| end + first.len_utf8());
            word.extend_from_slice(rest.get(..end).unwrap_or_default().as_bytes());
            rest = rest.get(end..).unwrap_or_default();
        }
        words.push(String::from_utf8_lossy(&word).into_owned());
        rest = rest.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_are_read_as_etcdctl_reads_them() {
        let compare = parse_compare("mod(\"a b\") > \"12\"").unwrap();
        assert_eq!((&compare.key[..], compare.result()), (&b"a b"[..], CompareResult::Greater));
        assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(12)));
        assert_eq!(parse_compare("lease(k) = \"1f\"").unwrap().target_union, Some(TargetUnion::Lease(31)));
        for (text, error) in [
            ("bogus", "malformed comparison: bogus"),
            ("bogus(\"a\") = \"0\"", "malformed comparison: bogus(\"a\") = \"0\" (unknown target bogus)"),
            ("mod(\"a\") > \"x\"", "invalid txn compare request: mod(\"a\") > \"x\""),
        ] {
            assert_eq!(parse_compare(text).unwrap_err().text, error);
        }
    }

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(split_words("put k \"v 1\\n\" 'x y' z"), ["put", "k", "v 1\n", "x y", "z"]);
        assert_eq!(parse_request("foo a").unwrap_err().text, "invalid txn request: foo a");
    }
}

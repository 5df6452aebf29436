//! gzip of large answers, for clients that take it.
//!
//! As upstream: level 1, and only bodies above 128 KiB that are complete in memory; streams are left alone.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::FutureExt;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, VARY};
use http::{Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::{Body, response};

/// Source: apiserver endpoints/handlers/responsewriters `defaultGzipThresholdBytes`.
const SIZE_BYTES_MIN: u64 = 128 * 1024;

pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            name.trim().eq_ignore_ascii_case("gzip")
                && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
        })
}

/// The answer, compressed when that is worth it.
pub(crate) fn gzip(answer: Response<Body>, accepted: bool) -> Response<Body> {
    let size_bytes = answer.body().size_hint().exact().unwrap_or(0);
    let plain = answer.status() == StatusCode::OK && !answer.headers().contains_key(CONTENT_ENCODING);
    if !accepted || !plain || size_bytes < SIZE_BYTES_MIN {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    // An exact size means that the body is in memory, so collecting it never waits.
    let Some(Ok(collected)) = body.collect().now_or_never() else {
        return response::status(&apimachinery::status::Status::internal("an answer could not be read back"));
    };
    let plain = collected.to_bytes();
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::new(1));
    let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
    match packed {
        Ok(packed) => {
            parts.headers.remove(CONTENT_LENGTH);
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
            Response::from_parts(parts, response::full(packed))
        }
        Err(_) => Response::from_parts(parts, response::full(plain)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, accept.parse().unwrap())])
    }

    #[test]
    fn gzip_is_used_when_the_client_names_it_and_does_not_refuse_it() {
        for (accept, expected) in
            [("gzip", true), ("br, gzip;q=0.5", true), ("gzip;q=0", false), ("identity", false), ("", false)]
        {
            assert_eq!(accepts_gzip(&headers(accept)), expected, "{accept}");
        }
    }

    #[tokio::test]
    async fn a_large_answer_shrinks_and_unpacks_to_the_same_bytes() {
        let text = "binnacle ".repeat(40_000);
        let answer = gzip(response::text(StatusCode::OK, text.clone()), true);
        assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
        let packed = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(packed.len() < text.len() / 10);
        let unpacked = std::io::read_to_string(flate2::read::GzDecoder::new(&packed[..])).unwrap();
        assert!(unpacked == text);
    }

    #[test]
    fn small_answers_and_unwilling_clients_get_plain_bytes() {
        for (text, accepted) in [("small".to_string(), true), ("large".repeat(100_000), false)] {
            let answer = gzip(response::text(StatusCode::OK, text), accepted);
            assert!(!answer.headers().contains_key(CONTENT_ENCODING));
        }
    }
}

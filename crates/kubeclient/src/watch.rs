//! A watch as a stream of events.
//!
//! An `ERROR` event ends the stream as an error. The stream ends with `None` when the server closes it in good order.

use apimachinery::meta;
use apimachinery::status::Status;
use http::Method;
use http_body_util::BodyExt;

use crate::framing::Framing;
use crate::{Body, Error, Value};

#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    Added(Value),
    Modified(Value),
    /// The last state, with the resource version of the deletion.
    Deleted(Value),
    /// Everything up to this resource version has been sent.
    Bookmark {
        resource_version: String,
        initial_events_end: bool,
    },
}

pub struct WatchStream {
    body: Body,
    path: String,
    framing: Framing,
    ended: bool,
}

impl WatchStream {
    pub(crate) fn new(body: Body, path: String) -> WatchStream {
        WatchStream { body, path, framing: Framing::default(), ended: false }
    }

    /// Cancel safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        while !self.ended {
            match self.framing.next() {
                Ok(Some(frame)) => {
                    let event = self.parse(&frame);
                    self.ended = event.is_err();
                    return Some(event);
                }
                Ok(None) => {}
                Err(error) => {
                    self.ended = true;
                    return Some(Err(self.unreadable(error.to_string())));
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.framing.push(data);
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(Error::broken(&Method::GET, &self.path, error)));
                }
                None => {
                    self.ended = true;
                    if !self.framing.is_empty() {
                        let source = "the stream ended inside an event".into();
                        return Some(Err(Error::broken(&Method::GET, &self.path, source)));
                    }
                }
            }
        }
        None
    }

    fn unreadable(&self, detail: String) -> Error {
        Error::Answer { method: "GET".to_owned(), path: self.path.clone(), detail }
    }

    fn parse(&self, frame: &[u8]) -> Result<WatchEvent, Error> {
        let mut event: Value =
            serde_json::from_slice(frame).map_err(|error| self.unreadable(error.to_string()))?;
        let object = event.get_mut("object").map(Value::take).unwrap_or_default();
        match event.get("type").and_then(Value::as_str).unwrap_or_default() {
            "ADDED" => Ok(WatchEvent::Added(object)),
            "MODIFIED" => Ok(WatchEvent::Modified(object)),
            "DELETED" => Ok(WatchEvent::Deleted(object)),
            "BOOKMARK" => {
                let meta = meta::of(&object);
                Ok(WatchEvent::Bookmark {
                    resource_version: meta.resource_version().to_owned(),
                    initial_events_end: meta.annotation("k8s.io/initial-events-end") == Some("true"),
                })
            }
            "ERROR" => Err(match Status::from_value(&object) {
                Some(status) => Error::Status(status),
                None => self.unreadable(format!("error event without a Status: {object}")),
            }),
            other => Err(self.unreadable(format!("unknown event type {other:?}"))),
        }
    }
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchStream")
            .field("path", &self.path)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

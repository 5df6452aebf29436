//! Clients that do harm, by accident or on purpose, against a real process of ours.
//!
//! After each the member still runs, has not panicked, has served somebody else all the time, and its peak of memory has
//! grown by less than a bound that is far below what unbounded queues would have taken. Nothing here measures time.

#![expect(clippy::unwrap_used, reason = "a client that cannot even begin has failed the test")]

mod floods;
mod garbage;
mod overload;
mod paths;
mod rig;
mod secrets;
mod slow;
mod vanish;

//! The story that must always work, end to end; see `tests/journey/main.rs`.

//! The rules of the tree that no compiler checks; see `tests/tidy.rs`.

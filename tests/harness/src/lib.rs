//! Starts real processes for the suites in tests/.

//! Level C: power cuts at every point where they could hit, on a simulated disk. The tests are in `tests/`.
//!
//! Always holds: a run prints its seed and its figures as one line of JSON; the same seed tries the same states.
//! Not here: whole clusters in simulated time, real processes and real disks.

//! Chores of this repository that are too long for a shell script, run as `cargo run -p xtask -- <chore>`.
//!
//! A chore takes every path as an argument, or says which it takes without, and writes only there. Nothing here is part of the product.

mod figures;
mod schema;
mod soak;
mod zoo;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Chores of this repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Writes the tables of figures in the READMEs from what runs left.
    Figures(figures::Arguments),
    /// Writes the table of built-in types from the published definitions, protobuf sources and Go's presence facts.
    Schema(schema::Arguments),
    /// Runs fault tests for hours, until the first violation.
    Soak(soak::Arguments),
    /// Plants bugs, one to a process: the simulation and the crash suites must find each.
    Zoo(zoo::Arguments),
}

/// The one that runs this, or that built it.
fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into())
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Figures(arguments) => figures::run(&arguments),
        Chore::Schema(arguments) => schema::run(&arguments),
        Chore::Soak(arguments) => soak::run(&arguments),
        Chore::Zoo(arguments) => zoo::run(&arguments),
    }
}

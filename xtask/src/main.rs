//! Chores of this repository that are too long for a shell script, run as `cargo run -p xtask -- <chore>`.
//!
//! A chore takes every path as an argument and writes only where it is told to. Nothing here is part of the product.

mod schema;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Chores of this repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Writes the table of built-in types from the published definitions, protobuf sources and Go's presence facts.
    Schema(schema::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Schema(arguments) => schema::run(&arguments),
    }
}

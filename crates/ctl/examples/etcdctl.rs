//! The client command line as a program of its own, to compare with other implementations.

fn main() -> std::process::ExitCode {
    ctl::command::main(std::env::args_os().skip(1).collect(), |_| {
        Err("restore is in the binary of the whole, which knows the store".to_owned())
    })
}

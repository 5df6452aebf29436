//! The client alone, without the server that the whole binary brings.

fn main() -> std::process::ExitCode {
    let offline = ctl::Offline {
        restore: |_, _| Err("restore is in the binary of the whole, which knows the store".to_owned()),
        defragment: |_, _| Err("defrag is in the binary of the whole, which knows the store".to_owned()),
    };
    ctl::main(ctl::Program::Etcdctl, std::env::args_os().skip(1).collect(), offline)
}

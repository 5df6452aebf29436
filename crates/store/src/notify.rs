//! Tells systemd that the service is ready, when it asked to be told (`Type=notify`, as etcd's units have it).

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Sends `READY=1` to whom `NOTIFY_SOCKET` names. Nobody asked: nothing happens.
pub(crate) fn ready() {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&name) {
        tracing::error!(%error, "failed to notify systemd for readiness");
    }
}

/// A name that begins with `@` is no file.
fn send(name: &OsStr) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_by_file_and_by_name() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("notify");
        let name = format!("binnacle-test-{}", std::process::id());
        let sockets = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}").into(),
            ),
        ];
        for (socket, name) in sockets {
            send(&name).unwrap();
            let mut text = [0; 16];
            let size = socket.recv(&mut text).unwrap();
            assert_eq!(&text[..size], b"READY=1");
        }
        assert!(send(OsStr::new("/nonexistent/notify")).is_err());
    }
}

//! Connections, injectable.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use futures_util::future::BoxFuture;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixStream};

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any [`Stream`].
pub type BoxStream = Box<dyn Stream>;

/// An open connection.
pub struct Dialed {
    /// Its bytes.
    pub stream: BoxStream,
    /// The address that it comes from, where it has one.
    pub local: Option<IpAddr>,
}

/// Opens connections.
pub trait Dialer: Send + Sync {
    /// Connects to `to`, from the local address `from` where one is given.
    /// Has no time limit of its own: the caller owns the deadline.
    fn dial(&self, to: SocketAddr, from: Option<IpAddr>) -> BoxFuture<'_, io::Result<Dialed>>;

    /// Connects to a socket in the file system. Not every dialer can.
    fn dial_path<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Dialed>> {
        let _ = path;
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

/// Dials over TCP, without Nagle's delay, and sockets in the file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
    fn dial(&self, to: SocketAddr, from: Option<IpAddr>) -> BoxFuture<'_, io::Result<Dialed>> {
        Box::pin(async move {
            let socket = match to {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.set_nodelay(true)?;
            if let Some(from) = from {
                socket.bind(SocketAddr::new(from, 0))?;
            }
            let stream = socket.connect(to).await?;
            let local = stream.local_addr().ok().map(|local| local.ip());
            Ok(Dialed { stream: Box::new(stream), local })
        })
    }

    fn dial_path<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Dialed>> {
        Box::pin(async move {
            let stream: BoxStream = Box::new(UnixStream::connect(path).await?);
            Ok(Dialed { stream, local: None })
        })
    }
}

/// Listens on `addr`. An IPv6 address takes IPv6 only, so that `0.0.0.0` and
/// `[::]` can both be listened on; the port is taken again at once after a
/// restart. `backlog` bounds the connections that wait to be accepted.
///
/// Must be called inside a tokio runtime.
pub fn bind_tcp(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn dials_from_the_given_address() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let to = listener.local_addr().unwrap();
        let from = "127.0.0.1".parse().unwrap();
        let (dialed, accepted) = tokio::join!(TcpDialer.dial(to, Some(from)), listener.accept());
        let (Dialed { stream: mut client, local }, (mut server, peer)) = (dialed.unwrap(), accepted.unwrap());
        assert_eq!((peer.ip(), local), (from, Some(from)));
        client.write_all(b"220 hi").await.unwrap();
        let mut buffer = [0; 6];
        server.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"220 hi");
    }

    #[tokio::test]
    async fn says_which_address_the_system_chose() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let dialed = TcpDialer.dial(listener.local_addr().unwrap(), None).await.unwrap();
        assert_eq!(dialed.local, Some("127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn dials_sockets_in_the_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        assert!(TcpDialer.dial_path(&path).await.is_err());
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (dialed, accepted) = tokio::join!(TcpDialer.dial_path(&path), listener.accept());
        let (mut client, mut server) = (dialed.unwrap().stream, accepted.unwrap().0);
        server.write_all(b"220").await.unwrap();
        let mut buffer = [0; 3];
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"220");
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let first = bind_tcp("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let again = bind_tcp(first.local_addr().unwrap(), 16);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let to = listener.local_addr().unwrap();
        drop(listener);
        let error = TcpDialer.dial(to, None).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

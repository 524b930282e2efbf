//! Connections, injectable.

use std::io;
use std::net::{IpAddr, SocketAddr};

use futures_util::future::BoxFuture;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any [`Stream`].
pub type BoxStream = Box<dyn Stream>;

/// Opens connections.
pub trait Dialer: Send + Sync {
    /// Connects to `to`, from the local address `from` where one is given.
    /// Has no time limit of its own: the caller owns the deadline.
    fn dial(&self, to: SocketAddr, from: Option<IpAddr>) -> BoxFuture<'_, io::Result<BoxStream>>;
}

/// Dials over TCP, without Nagle's delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
    fn dial(&self, to: SocketAddr, from: Option<IpAddr>) -> BoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async move {
            let socket = match to {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.set_nodelay(true)?;
            if let Some(from) = from {
                socket.bind(SocketAddr::new(from, 0))?;
            }
            let stream: BoxStream = Box::new(socket.connect(to).await?);
            Ok(stream)
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
        let (mut client, (mut server, peer)) = (dialed.unwrap(), accepted.unwrap());
        assert_eq!(peer.ip(), from);
        client.write_all(b"220 hi").await.unwrap();
        let mut buffer = [0; 6];
        server.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"220 hi");
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

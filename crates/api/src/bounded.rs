//! A listener that takes a bounded number of connections and gives up on
//! silent ones.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 64;
/// How long a connection may send nothing.
const SILENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

impl Bounded {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let free = self.free.clone().acquire_owned().await;
        let place = free.expect("the semaphore is never closed");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let connection = Connection { stream, silence: Box::pin(sleep(SILENCE)), _place: place };
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            self.silence = Box::pin(sleep(SILENCE));
            return Poll::Ready(result);
        }
        let silent = self.silence.as_mut().poll(cx);
        silent.map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_base::bind_tcp;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn takes_no_more_than_the_bound() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), 128).unwrap();
        let address = listener.local_addr().unwrap();
        let mut bounded = Bounded::new(listener);
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let (client, accepted) = tokio::join!(TcpStream::connect(address), bounded.accept());
            open.push((client.unwrap(), accepted.0));
        }
        let _waiting = TcpStream::connect(address).await.unwrap();
        tokio::time::pause();
        let full = tokio::time::timeout(Duration::from_secs(1), bounded.accept()).await;
        assert!(full.is_err());
        open.pop();
        tokio::time::resume();
        bounded.accept().await;
    }

    #[tokio::test]
    async fn gives_up_on_the_silent() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), 128).unwrap();
        let address = listener.local_addr().unwrap();
        let mut bounded = Bounded::new(listener);
        let (client, accepted) = tokio::join!(TcpStream::connect(address), bounded.accept());
        let (_client, mut connection) = (client.unwrap(), accepted.0);
        tokio::time::pause();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

//! A network in memory, for tests and simulation.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::duplex;
use tokio::sync::mpsc;

use crate::net::{BoxStream, Dialed, Dialer};

/// Bytes in flight in one direction of a simulated connection.
const WINDOW: usize = 64 * 1024;
/// Connections that wait to be accepted; further dials wait.
const BACKLOG: usize = 128;

/// Connects dialers and listeners in memory. A cheap handle; clones are the
/// same network. Addresses that nobody listens on refuse.
#[derive(Clone, Default)]
pub struct SimNet(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    listeners: HashMap<SocketAddr, mpsc::Sender<Incoming>>,
    paths: HashMap<PathBuf, mpsc::Sender<Incoming>>,
    silent: HashSet<SocketAddr>,
    unreachable: HashSet<SocketAddr>,
    dials: u64,
    next_port: u16,
}

type Incoming = (BoxStream, SocketAddr);

impl SimNet {
    /// A network with nobody on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes connections to `addr` from now on; an earlier listener there
    /// gets no more.
    pub fn listen(&self, addr: SocketAddr) -> SimListener {
        let (sender, incoming) = mpsc::channel(BACKLOG);
        let mut state = self.0.lock();
        state.silent.remove(&addr);
        state.unreachable.remove(&addr);
        state.listeners.insert(addr, sender);
        SimListener { addr, incoming }
    }

    /// Takes connections to a socket in the file system, which need not be
    /// there. They come from no address.
    pub fn listen_path(&self, path: impl Into<PathBuf>) -> SimListener {
        let (sender, incoming) = mpsc::channel(BACKLOG);
        self.0.lock().paths.insert(path.into(), sender);
        SimListener { addr: NOWHERE, incoming }
    }

    /// Makes `addr` swallow dials: they neither succeed nor fail.
    pub fn silence(&self, addr: SocketAddr) {
        self.0.lock().silent.insert(addr);
    }

    /// Makes `addr` one that no network leads to: dials fail at once.
    pub fn cut_off(&self, addr: SocketAddr) {
        self.0.lock().unreachable.insert(addr);
    }

    /// Dials so far, successful or not.
    pub fn dials(&self) -> u64 {
        self.0.lock().dials
    }

    fn route(&self, to: SocketAddr) -> Route {
        let mut state = self.0.lock();
        state.dials += 1;
        state.next_port = state.next_port.wrapping_add(1).max(1);
        if state.silent.contains(&to) {
            return Route::Silent;
        }
        if state.unreachable.contains(&to) {
            return Route::Refused(io::ErrorKind::NetworkUnreachable);
        }
        match state.listeners.get(&to) {
            Some(listener) => Route::Open(listener.clone(), state.next_port),
            None => Route::Refused(io::ErrorKind::ConnectionRefused),
        }
    }
}

enum Route {
    Open(mpsc::Sender<Incoming>, u16),
    Refused(io::ErrorKind),
    Silent,
}

impl Dialer for SimNet {
    fn dial(&self, to: SocketAddr, from: Option<IpAddr>) -> BoxFuture<'_, io::Result<Dialed>> {
        Box::pin(async move {
            let (listener, port) = match self.route(to) {
                Route::Open(listener, port) => (listener, port),
                Route::Refused(why) => return Err(why.into()),
                Route::Silent => std::future::pending().await,
            };
            let local = from.unwrap_or(Ipv4Addr::LOCALHOST.into());
            let stream = connect(&listener, SocketAddr::new(local, port)).await?;
            Ok(Dialed { stream, local: Some(local) })
        })
    }

    fn dial_path<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Dialed>> {
        Box::pin(async move {
            let listener = {
                let mut state = self.0.lock();
                state.dials += 1;
                state.paths.get(path).cloned().ok_or(io::ErrorKind::NotFound)?
            };
            Ok(Dialed { stream: connect(&listener, NOWHERE).await?, local: None })
        })
    }
}

/// Where connections to sockets in the file system come from.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

async fn connect(listener: &mpsc::Sender<Incoming>, peer: SocketAddr) -> io::Result<BoxStream> {
    let (ours, theirs) = duplex(WINDOW);
    let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
    listener.send((Box::new(theirs), peer)).await.map_err(refused)?;
    Ok(Box::new(ours))
}

/// The listening end of an address; dropping it makes the address refuse.
pub struct SimListener {
    addr: SocketAddr,
    incoming: mpsc::Receiver<Incoming>,
}

impl SimListener {
    /// The address listened on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next connection and the dialer's address. Never resolves once
    /// another listener has taken the address over.
    pub async fn accept(&mut self) -> Incoming {
        match self.incoming.recv().await {
            Some(incoming) => incoming,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const ADDR: &str = "192.0.2.1:25";

    #[tokio::test]
    async fn connects_both_ends() {
        let (net, addr) = (SimNet::new(), ADDR.parse().unwrap());
        let mut listener = net.listen(addr);
        let from: IpAddr = "198.51.100.7".parse().unwrap();
        let Dialed { stream: mut client, local } = net.dial(addr, Some(from)).await.unwrap();
        let (mut server, peer) = listener.accept().await;
        assert_eq!((peer.ip(), local, net.dials()), (from, Some(from), 1));
        server.write_all(b"220").await.unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "220");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_refuses_and_silence_hangs() {
        let (net, addr) = (SimNet::new(), ADDR.parse().unwrap());
        let refused = |result: io::Result<Dialed>| result.err().unwrap().kind();
        assert_eq!(refused(net.dial(addr, None).await), io::ErrorKind::ConnectionRefused);
        drop(net.listen(addr));
        assert_eq!(refused(net.dial(addr, None).await), io::ErrorKind::ConnectionRefused);
        net.cut_off(addr);
        assert_eq!(refused(net.dial(addr, None).await), io::ErrorKind::NetworkUnreachable);
        net.silence(addr);
        let dial = net.dial(addr, None);
        assert!(tokio::time::timeout(Duration::from_secs(60), dial).await.is_err());
    }
    #[tokio::test]
    async fn sockets_in_the_file_system_are_acted_out() {
        let net = SimNet::new();
        let path = Path::new("/run/socket");
        assert!(net.dial_path(path).await.is_err());
        let mut listener = net.listen_path(path);
        let dialed = net.dial_path(path).await.unwrap();
        listener.accept().await;
        assert_eq!((dialed.local, net.dials()), (None, 2));
    }
}

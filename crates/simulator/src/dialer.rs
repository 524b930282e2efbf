//! Dials an inbox without a socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use postrider_base::{Dialed, Dialer, Scope};

use crate::Inbox;

/// Bytes in flight in one direction.
const WINDOW: usize = 64 * 1024;

/// A dialer that finds an inbox at one address, and everything else where it is.
#[derive(Clone)]
pub struct InboxDialer {
    inbox: Inbox,
    address: SocketAddr,
    others: Arc<dyn Dialer>,
    scope: Scope,
}

impl InboxDialer {
    /// Puts `inbox` at `address`; other addresses are dialled by `others`.
    /// Sessions are tasks of `scope`.
    pub fn new(inbox: Inbox, address: SocketAddr, others: Arc<dyn Dialer>, scope: Scope) -> InboxDialer {
        InboxDialer { inbox, address, others, scope }
    }
}

impl Dialer for InboxDialer {
    fn dial(&self, to: SocketAddr, from: Option<IpAddr>) -> BoxFuture<'_, io::Result<Dialed>> {
        if to != self.address {
            return self.others.dial(to, from);
        }
        Box::pin(async {
            if self.scope.is_cancelled() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(WINDOW);
            self.inbox.spawn(theirs, &self.scope);
            Ok(Dialed { stream: Box::new(ours), local: Some(self.address.ip()) })
        })
    }

    fn dial_path<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Dialed>> {
        self.others.dial_path(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use postrider_base::{BoxStream, Clock, Random, SimNet, TcpDialer, Timestamp, bind_tcp};
    use std::time::Duration;
    use tokio::io::AsyncReadExt;

    fn inbox() -> Inbox {
        let clock = Clock::simulated(Timestamp::from_millis(0));
        Inbox::new("inbox.example".parse().unwrap(), Settings::default(), clock, Random::seeded(1))
    }

    async fn is_greeted(stream: &mut BoxStream) -> bool {
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).await.is_ok() && &greeting == b"220 "
    }

    #[tokio::test]
    async fn one_address_is_the_inbox() {
        let scope = Scope::new("test");
        let address: SocketAddr = "127.0.0.1:25".parse().unwrap();
        let dialer = InboxDialer::new(inbox(), address, Arc::new(SimNet::new()), scope.clone());
        let mut stream = dialer.dial(address, None).await.unwrap().stream;
        assert!(is_greeted(&mut stream).await);
        let other = dialer.dial("127.0.0.1:26".parse().unwrap(), None).await;
        assert_eq!(other.err().map(|e| e.kind()), Some(io::ErrorKind::ConnectionRefused));
        assert!(scope.close(Duration::from_secs(5)).await.is_ok());
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(dialer.dial(address, None).await.is_err());
    }

    #[tokio::test]
    async fn the_inbox_behind_a_listener() {
        let scope = Scope::new("test");
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let address = listener.local_addr().unwrap();
        let (inbox, inner) = (inbox(), scope.clone());
        scope.spawn("serve", async move { inbox.serve(listener, &inner).await });
        let mut stream = TcpDialer.dial(address, None).await.unwrap().stream;
        assert!(is_greeted(&mut stream).await);
        assert!(scope.close(Duration::from_secs(5)).await.is_ok());
        assert!(TcpDialer.dial(address, None).await.is_err());
    }
}

//! Providers acted out: SMTP servers that greylist, throttle, stall, lie and
//! break, as their [`Conduct`] says. One listener plays as many hosts as it has
//! addresses; what each has seen is kept.
//!
//! Like the rest of the kit it speaks SMTP with code of its own.

mod conduct;
mod session;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use postrider_base::Clock;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

pub use conduct::{Act, Conduct, Point};

use crate::sink::Received;

/// A message that a host took, and how it came.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Envelope and content.
    pub received: Received,
    /// Whether it came over TLS.
    pub encrypted: bool,
    /// Where it came from.
    pub from: IpAddr,
    /// When.
    pub at: Instant,
}

/// What one host has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Connections so far.
    pub connections: usize,
    /// Connections now, and the most at the same time.
    pub open: (usize, usize),
    /// Commands in their order, over all connections; with `true` over TLS.
    pub commands: Vec<(bool, String)>,
    /// Messages that came whole, whatever was said to them.
    pub dots: u64,
    /// Messages that got a 2yz reply.
    pub messages: Vec<Taken>,
    /// How many they are: right even where they are not kept.
    pub taken: u64,
}

impl Seen {
    /// The commands that begin with `verb`.
    #[must_use]
    pub fn with(&self, verb: &str) -> Vec<&str> {
        self.commands.iter().map(|(_, line)| line.as_str()).filter(|line| line.starts_with(verb)).collect()
    }

    /// The commands that came in clear and told something: all but the
    /// greetings and goodbyes that come before TLS.
    #[must_use]
    pub fn told_in_clear(&self) -> Vec<&str> {
        const HARMLESS: [&str; 6] = ["EHLO", "HELO", "STARTTLS", "RSET", "NOOP", "QUIT"];
        let told = self.commands.iter().filter(|(encrypted, line)| {
            !encrypted && !HARMLESS.iter().any(|verb| line.to_ascii_uppercase().starts_with(verb))
        });
        told.map(|(_, line)| line.as_str()).collect()
    }
}

/// How much a provider keeps of what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Everything: for tests.
    All,
    /// Counts alone: for benchmarks.
    Counts,
}

/// Running hosts; they stop when the value is dropped.
#[derive(Debug)]
pub struct Provider {
    shared: Arc<Shared>,
    news: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Provider {
    /// Answers at `listener`. Every address behaves as usual until
    /// [`Provider::set`] says otherwise.
    ///
    /// # Errors
    /// The system's.
    pub fn start(listener: TcpListener, keep: Keep, clock: Clock) -> io::Result<Self> {
        // A thousand hosts share it: as many places as the system gives, where std asks for 128.
        rustix::net::listen(&listener, i32::MAX)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (count, news) = watch::channel(0);
        let shared = Arc::new(Shared {
            conducts: RwLock::default(),
            usual: Arc::default(),
            hosts: Mutex::default(),
            greylist: Mutex::default(),
            count,
            keep,
            clock,
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { shared, news, task })
    }

    /// Hangs up and frees the listener's address, both before this returns.
    pub async fn stop(mut self) {
        self.task.abort();
        // However it ended: it is over.
        let _ = (&mut self.task).await;
    }

    /// From its next connection on the host at `address` behaves so.
    pub fn set(&self, address: impl Into<IpAddr>, conduct: Conduct) {
        self.shared.conducts.write().insert(address.into(), Arc::new(conduct));
    }

    /// What the host at `address` has seen.
    #[must_use]
    pub fn seen(&self, address: impl Into<IpAddr>) -> Seen {
        self.shared.hosts.lock().get(&address.into()).cloned().unwrap_or_default()
    }

    /// Messages that all hosts took.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken_beside(&HashSet::new())
    }

    /// Waits until what the host at `address` has seen fulfils `condition`.
    pub async fn until(&mut self, address: impl Into<IpAddr>, condition: impl Fn(&Seen) -> bool) {
        let address = address.into();
        loop {
            self.news.borrow_and_update();
            if self.shared.hosts.lock().get(&address).is_some_and(&condition) {
                return;
            }
            // The sender lives as long as `self`.
            let _ = self.news.changed().await;
        }
    }

    /// Waits until all hosts together took so many messages.
    pub async fn until_taken(&mut self, messages: u64) {
        self.until_taken_beside(messages, &HashSet::new()).await;
    }

    /// The same; what these hosts take does not count.
    pub async fn until_taken_beside(&mut self, messages: u64, others: &HashSet<IpAddr>) {
        loop {
            self.news.borrow_and_update();
            if self.taken_beside(others) >= messages {
                return;
            }
            let _ = self.news.changed().await;
        }
    }

    fn taken_beside(&self, others: &HashSet<IpAddr>) -> u64 {
        let hosts = self.shared.hosts.lock();
        hosts.iter().filter(|(address, _)| !others.contains(*address)).map(|(_, seen)| seen.taken).sum()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sender, recipient, where the mail comes from and where it goes.
type Stranger = (String, String, IpAddr, IpAddr);

#[derive(Debug)]
struct Shared {
    conducts: RwLock<HashMap<IpAddr, Arc<Conduct>>>,
    usual: Arc<Conduct>,
    hosts: Mutex<HashMap<IpAddr, Seen>>,
    greylist: Mutex<HashMap<Stranger, Instant>>,
    /// Grows with everything that is seen.
    count: watch::Sender<u64>,
    keep: Keep,
    clock: Clock,
}

impl Shared {
    fn conduct(&self, address: IpAddr) -> Arc<Conduct> {
        self.conducts.read().get(&address).unwrap_or(&self.usual).clone()
    }

    fn note(&self, address: IpAddr, change: impl FnOnce(&mut Seen)) {
        change(self.hosts.lock().entry(address).or_default());
        self.count.send_modify(|count| *count += 1);
    }

    /// Whether a stranger has waited long enough since it was first seen.
    fn knows(&self, stranger: Stranger, wait: Duration) -> bool {
        let now = self.clock.instant();
        let first = *self.greylist.lock().entry(stranger).or_insert(now);
        now.duration_since(first) >= wait
    }
}

/// Owns the connections: they end with this task.
async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        let Ok(host) = stream.local_addr() else { continue };
        let shared = shared.clone();
        connections.spawn(async move {
            let (host, from) = (host.ip().to_canonical(), from.ip().to_canonical());
            shared.note(host, |seen| {
                seen.connections += 1;
                seen.open.0 += 1;
                seen.open.1 = seen.open.1.max(seen.open.0);
            });
            // However it ended, on purpose or not: it is over.
            let _ = session::serve(stream, &shared, host, from).await;
            shared.note(host, |seen| seen.open.0 -= 1);
        });
        while connections.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests;

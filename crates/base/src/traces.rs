//! Transcripts of sessions that an operator asked to see while they happen.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::{Network, Timestamp};

/// Most traces at the same time.
const MAX_TRACES: usize = 16;
/// Lines that may wait for a slow reader; further ones are counted and dropped.
const BACKLOG: usize = 1_024;

/// Which sessions to trace: those that match all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// The peer's address is in this network.
    pub peer: Option<Network>,
    /// The session authenticated as this user.
    pub user: Option<String>,
}

impl TraceFilter {
    fn matches(&self, peer: IpAddr, user: Option<&str>) -> bool {
        self.peer.is_none_or(|network| network.contains(peer))
            && self.user.as_deref().is_none_or(|wanted| user == Some(wanted))
    }
}

/// Who said a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The client.
    Client,
    /// The server.
    Server,
    /// Nobody: something that happened.
    Note,
}

/// One line of a transcript. It holds no secret and no content: whoever makes
/// it has taken them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceLine {
    /// When it was said.
    pub at: Timestamp,
    /// The session's id.
    pub session: Arc<str>,
    /// The client's address.
    pub peer: IpAddr,
    /// Who said it.
    pub speaker: Speaker,
    /// What was said: printable, one line.
    pub text: String,
}

/// All traces that are on. A cheap handle; clones are the same.
#[derive(Clone, Default)]
pub struct Traces(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// As many as there are in `list`: sessions look at this alone while there are none.
    count: AtomicUsize,
    list: RwLock<Vec<Arc<Trace>>>,
}

struct Trace {
    filter: TraceFilter,
    lines: mpsc::Sender<TraceLine>,
    lost: AtomicU64,
}

/// All places for traces are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_TRACES} traces are on already")]
pub struct TooManyTraces;

impl Traces {
    /// None.
    #[must_use]
    pub fn new() -> Traces {
        Traces::default()
    }

    /// Begins a trace. It ends when the reader is dropped.
    ///
    /// # Errors
    /// [`TooManyTraces`]; passes when another one ends.
    pub fn add(&self, filter: TraceFilter) -> Result<TraceReader, TooManyTraces> {
        let mut list = self.0.list.write();
        if list.len() >= MAX_TRACES {
            return Err(TooManyTraces);
        }
        let (sender, lines) = mpsc::channel(BACKLOG);
        let trace = Arc::new(Trace { filter, lines: sender, lost: AtomicU64::new(0) });
        list.push(trace.clone());
        self.0.count.store(list.len(), Ordering::Relaxed);
        Ok(TraceReader { traces: self.clone(), trace, lines })
    }

    /// Whether any trace is on: one relaxed load, for every session to ask at any time.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 0
    }

    /// Whether some trace may come to want a session of this peer, whoever it
    /// authenticates as.
    #[must_use]
    pub fn may_want(&self, peer: IpAddr) -> bool {
        self.is_active()
            && self.0.list.read().iter().any(|trace| trace.filter.peer.is_none_or(|network| network.contains(peer)))
    }

    /// Whether some trace wants a session of this peer and user.
    #[must_use]
    pub fn wants(&self, peer: IpAddr, user: Option<&str>) -> bool {
        self.is_active() && self.0.list.read().iter().any(|trace| trace.filter.matches(peer, user))
    }

    /// Hands a line that was said before the user was known to the traces of this user.
    pub fn catch_up(&self, line: &TraceLine, user: &str) {
        self.deliver(line, |filter| filter.user.is_some() && filter.matches(line.peer, Some(user)));
    }

    /// Hands a line to every trace that wants it. Never waits: a reader that
    /// is too slow loses lines, and learns how many.
    pub fn send(&self, line: &TraceLine, user: Option<&str>) {
        self.deliver(line, |filter| filter.matches(line.peer, user));
    }

    fn deliver(&self, line: &TraceLine, wants: impl Fn(&TraceFilter) -> bool) {
        for trace in self.0.list.read().iter().filter(|trace| wants(&trace.filter)) {
            if trace.lines.try_send(line.clone()).is_err() {
                trace.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").field("count", &self.0.count).finish_non_exhaustive()
    }
}

/// The reading end of a trace.
pub struct TraceReader {
    traces: Traces,
    trace: Arc<Trace>,
    lines: mpsc::Receiver<TraceLine>,
}

impl TraceReader {
    /// The next line.
    pub async fn next(&mut self) -> Option<TraceLine> {
        self.lines.recv().await
    }

    /// Lines lost since the last call because they were not read in time.
    #[must_use]
    pub fn take_lost(&self) -> u64 {
        self.trace.lost.swap(0, Ordering::Relaxed)
    }
}

impl fmt::Debug for TraceReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceReader").field("filter", &self.trace.filter).finish_non_exhaustive()
    }
}

impl Drop for TraceReader {
    fn drop(&mut self) {
        let mut list = self.traces.0.list.write();
        list.retain(|trace| !Arc::ptr_eq(trace, &self.trace));
        self.traces.0.count.store(list.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn line(text: &str) -> TraceLine {
        let text = text.to_owned();
        TraceLine { at: Timestamp::from_millis(1), session: "S".into(), peer: PEER, speaker: Speaker::Client, text }
    }

    fn filter(peer: &str, user: Option<&str>) -> TraceFilter {
        TraceFilter { peer: Some(peer.parse().unwrap()), user: user.map(str::to_owned) }
    }

    #[tokio::test]
    async fn lines_go_to_those_who_asked() {
        let traces = Traces::new();
        assert!(!traces.is_active() && !traces.may_want(PEER));
        let mut mine = traces.add(filter("192.0.2.0/24", None)).unwrap();
        let mut other = traces.add(filter("198.51.100.0/24", None)).unwrap();
        let mut named = traces.add(filter("192.0.2.7", Some("AKIA"))).unwrap();
        assert!(traces.is_active() && traces.may_want(PEER) && traces.wants(PEER, None));
        traces.send(&line("EHLO"), None);
        traces.send(&line("MAIL"), Some("AKIA"));
        assert_eq!(mine.next().await.unwrap().text, "EHLO");
        assert_eq!(mine.next().await.unwrap().text, "MAIL");
        assert_eq!(named.next().await.unwrap().text, "MAIL");
        assert!(other.lines.try_recv().is_err() && named.lines.try_recv().is_err());
        traces.catch_up(&line("EHLO"), "AKIA");
        traces.catch_up(&line("EHLO"), "AKIB");
        assert_eq!(named.next().await.unwrap().text, "EHLO");
        assert!(mine.lines.try_recv().is_err() && named.lines.try_recv().is_err());
        drop((mine, other, named));
        assert!(!traces.is_active() && !traces.wants(PEER, None));
    }

    #[test]
    fn a_slow_reader_loses_lines_and_is_told() {
        let traces = Traces::new();
        let reader = traces.add(TraceFilter::default()).unwrap();
        for _ in 0..BACKLOG + 3 {
            traces.send(&line("x"), None);
        }
        assert_eq!((reader.take_lost(), reader.take_lost()), (3, 0));
    }

    #[test]
    fn their_number_is_bounded() {
        let traces = Traces::new();
        let readers: Vec<_> = (0..MAX_TRACES).map(|_| traces.add(TraceFilter::default()).unwrap()).collect();
        assert_eq!(traces.add(TraceFilter::default()).unwrap_err(), TooManyTraces);
        drop(readers);
        assert!(traces.add(TraceFilter::default()).is_ok());
    }
}

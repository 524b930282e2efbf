//! The load generator: many sessions that submit as fast as they are answered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use postrider_base::Clock;

use crate::client::{Client, Endpoint};

/// How sessions use their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// One connection a session, for all its messages.
    Kept,
    /// A connection for each message.
    PerMessage,
}

/// What to submit, and how.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to.
    pub endpoint: Endpoint,
    /// User name and password, where the server wants AUTH.
    pub credentials: Option<(String, String)>,
    /// Sessions at the same time.
    pub sessions: usize,
    /// Messages in all.
    pub messages: u64,
    /// Bytes of one message, headers included.
    pub size: usize,
    /// Connections kept or not.
    pub pattern: Pattern,
    /// The envelope's sender.
    pub sender: String,
    /// The envelope's recipient; `{}` in it is the message's number.
    pub recipient: String,
    /// Numbers begin anew after so many.
    pub spread: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Messages that got a 250.
    pub accepted: u64,
    /// Messages that got anything else.
    pub refused: u64,
    /// From the first connection to the last reply.
    pub elapsed: Duration,
    /// Microseconds from the end of DATA's 354 to the 250.
    pub latency: Histogram<u64>,
}

impl Load {
    /// Runs to the end.
    ///
    /// # Errors
    /// The first network error of any session.
    pub async fn run(self, clock: &Clock) -> io::Result<Report> {
        let start = clock.instant();
        let left = Arc::new(AtomicU64::new(self.messages));
        let content: Arc<[u8]> = message(&self.sender, &self.recipient, self.size).into();
        let sessions: Vec<_> = (0..self.sessions)
            .map(|_| tokio::spawn(session(self.clone(), Arc::clone(&left), Arc::clone(&content), clock.clone())))
            .collect();
        let mut total = Report { accepted: 0, refused: 0, elapsed: Duration::ZERO, latency: histogram() };
        for session in sessions {
            let part = session.await.map_err(io::Error::other)??;
            total.accepted += part.accepted;
            total.refused += part.refused;
            total.latency.add(&part.latency).map_err(io::Error::other)?;
        }
        total.elapsed = clock.instant() - start;
        Ok(total)
    }

    async fn connect(&self) -> io::Result<Client> {
        let mut client = self.endpoint.connect().await?;
        if let Some((user, password)) = &self.credentials {
            client.login(user, password).await?;
        }
        Ok(client)
    }
}

async fn session(load: Load, left: Arc<AtomicU64>, content: Arc<[u8]>, clock: Clock) -> io::Result<Report> {
    let mut report = Report { accepted: 0, refused: 0, elapsed: Duration::ZERO, latency: histogram() };
    let mut kept: Option<Client> = None;
    while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
        let recipient = load.recipient.replace("{}", &(number % load.spread.max(1)).to_string());
        let mut client = match kept.take() {
            Some(client) => client,
            None => load.connect().await?,
        };
        let accepted = match client.begin(&load.sender, &[&recipient]).await? {
            Ok(()) => {
                let start = clock.instant();
                let reply = client.finish(&content).await?;
                let micros = (clock.instant() - start).as_micros();
                report.latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
                reply.code == 250
            }
            Err(_) => false,
        };
        if accepted {
            report.accepted += 1;
        } else {
            report.refused += 1;
        }
        match load.pattern {
            Pattern::Kept => kept = Some(client),
            Pattern::PerMessage => client.quit().await?,
        }
    }
    if let Some(client) = kept {
        client.quit().await?;
    }
    Ok(report)
}

/// From 1 us to ten minutes.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order and the digits within 0 to 5")
}

/// A plain message of about `size` bytes, CRLF lines, no line with a leading dot.
#[must_use]
pub fn message(sender: &str, recipient: &str, size: usize) -> Vec<u8> {
    let mut message = format!(
        "From: Load <{sender}>\r\nTo: <{recipient}>\r\nSubject: load\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n"
    )
    .into_bytes();
    while message.len() < size {
        message.extend_from_slice(b"The quick brown fox jumps over the lazy dog, and then it does so once more.\r\n");
    }
    message
}

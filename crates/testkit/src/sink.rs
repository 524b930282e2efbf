//! The world at the other end: an SMTP server that takes mail and says of each
//! recipient and message what its policy says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use parking_lot::Mutex;
use postrider_base::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// A message as the sink got it, dot-stuffing still in place.
#[derive(Debug, Clone)]
pub struct Received {
    /// The address in MAIL FROM, empty for the null sender.
    pub sender: String,
    /// The addresses of the RCPT commands that were accepted.
    pub recipients: Vec<String>,
    /// Everything before the final dot, which is not part of it.
    pub content: Bytes,
}

/// Decides what the sink answers.
pub trait Policy: Send + Sync + 'static {
    /// The reply to RCPT; a 2yz one accepts.
    fn recipient(&self, address: &str) -> String;
    /// The reply to the final dot.
    fn message(&self, message: Received) -> String;
}

/// Takes everything and keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accept;

impl Policy for Accept {
    fn recipient(&self, _: &str) -> String {
        "250 2.1.5 Ok".to_owned()
    }

    fn message(&self, _: Received) -> String {
        "250 2.0.0 Ok: queued".to_owned()
    }
}

/// Takes everything and keeps it.
#[derive(Debug, Clone, Default)]
pub struct Record(Arc<Mutex<Vec<Received>>>);

impl Record {
    /// What came so far, in order.
    #[must_use]
    pub fn messages(&self) -> Vec<Received> {
        self.0.lock().clone()
    }

    /// Forgets some of them.
    pub fn forget(&self, which: impl Fn(&Received) -> bool) {
        self.0.lock().retain(|message| !which(message));
    }
}

impl Policy for Record {
    fn recipient(&self, address: &str) -> String {
        Accept.recipient(address)
    }

    fn message(&self, message: Received) -> String {
        self.0.lock().push(message.clone());
        Accept.message(message)
    }
}

impl Received {
    /// The content without the dots that protect lines which start with one
    /// (RFC 5321 section 4.5.2).
    #[must_use]
    pub fn unstuffed(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(self.content.len());
        for line in self.content.split_inclusive(|&byte| byte == b'\n') {
            plain.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        plain
    }
}

/// A running sink; it stops when it is dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    accepted: watch::Receiver<u64>,
    last: Arc<AtomicU64>,
    origin: tokio::time::Instant,
    task: AbortHandle,
}

impl Sink {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The network's.
    pub async fn start(policy: impl Policy, clock: Clock) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (count, accepted) = watch::channel(0);
        let last = Arc::new(AtomicU64::new(0));
        let origin = clock.instant();
        let shared = Arc::new(Shared { policy: Box::new(policy), count, last: Arc::clone(&last), origin, clock });
        let task = tokio::spawn(accept(listener, shared)).abort_handle();
        Ok(Self { address, accepted, last, origin, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Messages that got a 2yz reply so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        *self.accepted.borrow()
    }

    /// Waits until that many messages got a 2yz reply; gives the moment of the
    /// last one.
    pub async fn wait_for(&mut self, messages: u64) -> tokio::time::Instant {
        // The sender lives as long as the listener, which ends with `self`.
        let _ = self.accepted.wait_for(|&count| count >= messages).await;
        self.last_accepted()
    }

    /// The moment of the last 2yz reply to a message.
    #[must_use]
    pub fn last_accepted(&self) -> tokio::time::Instant {
        self.origin + std::time::Duration::from_micros(self.last.load(Ordering::Relaxed))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    policy: Box<dyn Policy>,
    count: watch::Sender<u64>,
    last: Arc<AtomicU64>,
    origin: tokio::time::Instant,
    clock: Clock,
}

impl Shared {
    fn took_one(&self) {
        let micros = (self.clock.instant() - self.origin).as_micros();
        self.last.fetch_max(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.count.send_modify(|count| *count += 1);
    }
}

/// Owns the connections: they end with this task.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // A client that goes away in the middle is not the sink's trouble.
            let _ = serve(stream, &shared).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

#[derive(Default)]
struct Transaction {
    sender: String,
    recipients: Vec<String>,
    receiving: bool,
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(64 * 1024);
    let mut output = String::from("220 sink.test ESMTP\r\n");
    let mut transaction = Transaction::default();
    // How much of the content was searched already, so that a large message is
    // not searched again from its beginning at each read.
    let mut searched = 0;
    loop {
        let open = step(&mut input, &mut output, &mut transaction, &mut searched, shared);
        if !output.is_empty() {
            stream.write_all(output.as_bytes()).await?;
            output.clear();
        }
        if !open {
            return stream.shutdown().await;
        }
        input.reserve(16 * 1024);
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

/// Answers all that is complete in `input`; false after QUIT.
fn step(
    input: &mut BytesMut,
    output: &mut String,
    transaction: &mut Transaction,
    searched: &mut usize,
    shared: &Shared,
) -> bool {
    loop {
        if transaction.receiving {
            let Some(end) = end_of_data(input, searched) else { return true };
            let mut content = input.split_to(end + 3);
            content.truncate(end);
            let done = std::mem::take(transaction);
            let message = Received { sender: done.sender, recipients: done.recipients, content: content.freeze() };
            let reply = shared.policy.message(message);
            if reply.starts_with('2') {
                shared.took_one();
            }
            answer(output, &reply);
            continue;
        }
        let Some(end) = memchr::memchr(b'\n', input) else { return true };
        let line = input.split_to(end + 1);
        let line = String::from_utf8_lossy(&line);
        if !command(line.trim_end(), output, transaction, shared) {
            return false;
        }
        *searched = 0;
    }
}

/// The offset of the final dot: content stands before it.
pub(crate) fn end_of_data(input: &[u8], searched: &mut usize) -> Option<usize> {
    if input.starts_with(b".\r\n") {
        return Some(0);
    }
    let from = searched.saturating_sub(4);
    let found = memmem::find(&input[from..], b"\r\n.\r\n").map(|at| from + at + 2);
    *searched = if found.is_some() { 0 } else { input.len() };
    found
}

fn command(line: &str, output: &mut String, transaction: &mut Transaction, shared: &Shared) -> bool {
    let verb = line.get(..4).unwrap_or(line).to_ascii_uppercase();
    match verb.as_str() {
        "EHLO" => {
            answer(output, "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000");
        }
        "HELO" | "NOOP" => answer(output, "250 Ok"),
        "MAIL" => {
            *transaction = Transaction { sender: path(line), ..Transaction::default() };
            answer(output, "250 2.1.0 Ok");
        }
        "RCPT" => {
            let address = path(line);
            let reply = shared.policy.recipient(&address);
            if reply.starts_with('2') {
                transaction.recipients.push(address);
            }
            answer(output, &reply);
        }
        "DATA" if transaction.recipients.is_empty() => answer(output, "554 5.5.1 no valid recipients"),
        "DATA" => {
            transaction.receiving = true;
            answer(output, "354 go on");
        }
        "RSET" => {
            *transaction = Transaction::default();
            answer(output, "250 Ok");
        }
        "QUIT" => {
            answer(output, "221 bye");
            return false;
        }
        _ => answer(output, "502 not implemented"),
    }
    true
}

fn answer(output: &mut String, reply: &str) {
    output.push_str(reply);
    output.push_str("\r\n");
}

/// What stands between the angle brackets.
pub(crate) fn path(line: &str) -> String {
    let inside = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inside.map_or_else(String::new, |(address, _)| address.to_owned())
}

//! One connection to one host: a thin loop between the socket and the
//! conversation, which knows the protocol.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use postrider_base::metrics::Held;
use postrider_base::{BoxStream, Scope};
use postrider_mail::{MessageId, Remote, Stage, TlsInfo};
use postrider_smtp::{Action, Conversation, Ended, Gate, Transaction, TransactionResult};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use crate::finding::Finding;
use crate::progress::Progress;
use crate::slots::Slot;
use crate::tls::Level;

/// Room for the replies to a pipelined group.
const READ_BUFFER: usize = 4 * 1024;

/// How long to look for a last reply after a host stopped reading, and to say
/// the last words of TLS.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Most slices in one write: what systems take at once.
const MAX_SLICES: usize = 64;

/// A connection to a host.
pub(crate) struct Connection {
    pub(crate) stream: BoxStream,
    pub(crate) conversation: Conversation,
    pub(crate) remote: Remote,
    pub(crate) tls: Option<TlsInfo>,
    /// How sure it is whom we speak to, and that nobody else listens.
    pub(crate) level: Level,
    pub(crate) opened: Instant,
    /// What those see who ask.
    progress: Arc<Progress>,
    final_dot: FinalDot,
    input: BytesMut,
    /// When the replies to the commands of a transaction must have come.
    deadline: Option<Instant>,
    write_failed: bool,
    timed_out: bool,
    _counted: Held,
    /// Given up when others want it more.
    pub(crate) slot: Slot,
}

/// Between a message's final dot and the reply to it nobody knows what became
/// of it.
#[derive(Default)]
struct FinalDot {
    message: Option<MessageId>,
    waits: bool,
}

impl Drop for FinalDot {
    fn drop(&mut self) {
        if let (true, Some(id)) = (self.waits, self.message) {
            tracing::warn!(%id, "outcome unknown: stopped before the reply to the final dot; it will be sent again");
        }
    }
}

/// The relay stops: the connection was left as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stopped;

/// Says when the relay stops. One for each task, because asking the scope anew
/// for each reply would be work for a lock that all tasks share.
pub(crate) struct Stop(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Stop {
    pub(crate) fn new(scope: Scope) -> Self {
        Self(Some(Box::pin(async move { scope.cancelled().await })))
    }

    /// Resolves when the relay stops, and at once when it has.
    pub(crate) async fn wait(&mut self) {
        if let Some(stopped) = &mut self.0 {
            stopped.await;
            self.0 = None;
        }
    }
}

impl Connection {
    /// On a fresh stream; the host has not greeted yet.
    pub(crate) fn new(
        stream: BoxStream,
        conversation: Conversation,
        remote: Remote,
        opened: Instant,
        progress: Arc<Progress>,
        counted: Held,
        slot: Slot,
    ) -> Self {
        Self {
            stream,
            conversation,
            remote,
            tls: None,
            level: Level::default(),
            opened,
            progress,
            final_dot: FinalDot::default(),
            input: BytesMut::with_capacity(READ_BUFFER),
            deadline: None,
            write_failed: false,
            timed_out: false,
            _counted: counted,
            slot,
        }
    }

    /// Runs the conversation until it wants something that is not bytes.
    pub(crate) async fn drive(&mut self, gate: &mut (dyn Gate + Send), stop: &mut Stop) -> Result<Action, Stopped> {
        let mut patience = pin!(sleep(Duration::ZERO));
        let mut heard = None;
        loop {
            self.conversation.tick(self.progress.instant().duration_since(self.opened));
            match self.conversation.advance(&mut self.input, gate) {
                Action::NeedInput => {
                    self.progress.reached(self.conversation.stage());
                    let has_written = self.write(stop).await?;
                    // A reply has its time as a whole, in however many pieces it comes.
                    if has_written || heard != Some(self.conversation.heard()) {
                        heard = Some(self.conversation.heard());
                        patience.set(self.patience());
                    }
                    self.read(patience.as_mut(), stop).await?;
                }
                action => {
                    self.final_dot.waits = false;
                    return Ok(action);
                }
            }
        }
    }

    /// Runs one transaction, whose content is asked for by `deadline`. The connection
    /// may have ended with it: see [`Connection::settle_down`].
    pub(crate) async fn transact(
        &mut self,
        id: MessageId,
        transaction: Transaction,
        deadline: Instant,
        gate: &mut (dyn Gate + Send),
        stop: &mut Stop,
    ) -> Result<Option<TransactionResult>, Stopped> {
        self.listen();
        if self.conversation.begin(transaction).is_err() {
            return Ok(None);
        }
        self.final_dot.message = Some(id);
        self.deadline = Some(deadline);
        let action = self.drive(gate, stop).await;
        self.deadline = None;
        match action? {
            Action::Done(result) => Ok(Some(result)),
            Action::NeedInput | Action::StartTls | Action::Ready | Action::Closed(_) => Ok(None),
        }
    }

    /// Takes in what came while nobody waited for anything: a farewell, an end,
    /// or more than was asked for, but never the reply to what is written next.
    fn listen(&mut self) {
        self.input.reserve(READ_BUFFER);
        match self.stream.read_buf(&mut self.input).now_or_never() {
            None | Some(Ok(1..)) => {}
            Some(Ok(0) | Err(_)) => self.conversation.lost(),
        }
    }

    /// Finishes what a transaction left to say. True when the host is ready
    /// for another one.
    pub(crate) async fn settle_down(&mut self, stop: &mut Stop) -> bool {
        let mut nobody = |_: usize, _: &postrider_mail::Recipient| false;
        matches!(self.drive(&mut nobody, stop).await, Ok(Action::Ready))
    }

    /// Says goodbye.
    pub(crate) async fn quit(mut self, stop: &mut Stop) {
        self.conversation.quit();
        self.settle_down(stop).await;
        // The end of TLS and of the stream; nobody waits for it.
        let _ = timeout(LAST_WORDS, self.stream.shutdown()).await;
    }

    /// What the end of the conversation says about the attempt.
    pub(crate) fn ending(&self, ended: &Ended) -> Finding {
        match ended {
            Ended::Refused { stage, reply } => Finding::reply(*stage, reply),
            Ended::TlsNotOffered => Finding::no_tls("the host does not offer STARTTLS"),
            Ended::AuthNotOffered => Finding::no_auth(),
            Ended::BadReply { stage } => Finding::not_smtp(*stage),
            Ended::Lost { stage } => self.loss(*stage),
            Ended::Quit => self.loss(Stage::MailFrom),
        }
    }

    /// What a connection that is of no use any more says about the attempt.
    pub(crate) fn loss(&self, stage: Stage) -> Finding {
        match self.conversation.ended() {
            Some(Ended::BadReply { .. }) => Finding::not_smtp(stage),
            _ if self.timed_out => Finding::timed_out(stage),
            _ => Finding::lost(stage),
        }
    }

    /// Writes what there is to write; false when that is nothing.
    async fn write(&mut self, stop: &mut Stop) -> Result<bool, Stopped> {
        let output = self.conversation.take_output();
        if output.is_empty() {
            return Ok(false);
        }
        let (whole, step) = (self.conversation.content_timeout(), self.conversation.write_timeout());
        let writing = timeout(whole, write_all(&mut self.stream, output, step));
        let written = tokio::select! {
            biased;
            written = writing => written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = stop.wait() => return Err(Stopped),
        };
        match written {
            Ok(()) => self.final_dot.waits = self.conversation.is_past_content(),
            Err(error) => {
                self.write_failed = true;
                self.timed_out = error.kind() == io::ErrorKind::TimedOut;
                self.conversation.write_failed();
            }
        }
        Ok(true)
    }

    /// How long to wait for the next reply.
    fn patience(&self) -> Sleep {
        let patience = sleep(match self.write_failed {
            false => self.conversation.timeout(),
            // A host that refuses in the middle of the content may have said why.
            true => LAST_WORDS.min(self.conversation.timeout()),
        });
        match self.deadline {
            Some(deadline) if deadline < patience.deadline() && !self.conversation.is_past_content() => {
                sleep_until(deadline)
            }
            _ => patience,
        }
    }

    async fn read(&mut self, patience: Pin<&mut Sleep>, stop: &mut Stop) -> Result<(), Stopped> {
        self.input.reserve(READ_BUFFER);
        tokio::select! {
            biased;
            read = self.stream.read_buf(&mut self.input) => match read {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) => self.conversation.lost(),
            },
            () = patience => {
                self.timed_out |= !self.write_failed;
                self.conversation.lost();
            }
            () = stop.wait(), if !self.final_dot.waits => return Err(Stopped),
        }
        Ok(())
    }
}

/// Writes all of `chunks`; each step must get on within `limit`.
async fn write_all(stream: &mut BoxStream, chunks: Vec<Bytes>, limit: Duration) -> io::Result<()> {
    let too_slow = |_| io::Error::from(io::ErrorKind::TimedOut);
    let mut chunks = std::collections::VecDeque::from(chunks);
    while !chunks.is_empty() {
        let slices: Vec<IoSlice<'_>> = chunks.iter().take(MAX_SLICES).map(|chunk| IoSlice::new(chunk)).collect();
        let mut written = timeout(limit, stream.write_vectored(&slices)).await.map_err(too_slow)??;
        if written == 0 && chunks.iter().any(|chunk| !chunk.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = chunks.front_mut() {
            if first.len() > written {
                first.advance(written);
                break;
            }
            written -= first.len();
            chunks.pop_front();
        }
    }
    timeout(limit, stream.flush()).await.map_err(too_slow)?
}

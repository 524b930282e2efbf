//! A connection to `clamd` for each question, which is how it is used at its best: it gives
//! each a thread.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postrider_base::{BoxStream, Dialer};
use postrider_mail::sanitize_text;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::time::timeout;

use super::{END, INSTREAM, PING, ReplyParser, TooLong, VERSION, Verdict, chunk_head};
use crate::{Error, Socket};

/// Longest chunk that content is sent in.
const CHUNK: usize = 256 * 1024;
/// What is shown of a reply that is none.
const MAX_SHOWN: usize = 120;
/// A scanner that is there says so at once.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A scanner. A cheap handle.
#[derive(Clone)]
pub struct Clamd {
    socket: Socket,
    dialer: Arc<dyn Dialer>,
    timeout: Duration,
}

impl Clamd {
    /// The scanner behind `socket`; a scan may last as long as `timeout`.
    #[must_use]
    pub fn new(socket: Socket, dialer: Arc<dyn Dialer>, timeout: Duration) -> Self {
        Self { socket, dialer, timeout }
    }

    /// Has a message scanned. Its pieces are sent as they are, without a copy. Never
    /// [`Verdict::Failed`], which is [`Error::Refused`] here.
    ///
    /// # Errors
    /// Any [`Error`]; the message has not been scanned.
    pub async fn scan(&self, content: &[Bytes]) -> Result<Verdict, Error> {
        let reply = within(self.timeout, async {
            let mut stream = BufWriter::new(self.socket.dial(&*self.dialer).await?);
            let sent = send(&mut stream, content).await;
            // A scanner that has seen enough answers and hangs up while it is still told more.
            match (receive(stream.get_mut()).await, sent) {
                (Ok(reply), _) => Ok(reply),
                (Err(Error::Broken(_)), Err(error)) => Err(Error::broken(error)),
                (Err(error), _) => Err(error),
            }
        });
        let reply = reply.await?;
        match Verdict::parse(&reply) {
            Some(Verdict::Failed(what)) => Err(Error::Refused(what)),
            Some(verdict) => Ok(verdict),
            None => Err(garbage(&reply)),
        }
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// As [`Clamd::scan`], but [`Error::Refused`].
    pub async fn ping(&self) -> Result<(), Error> {
        match self.ask(PING).await?.as_str() {
            "PONG" => Ok(()),
            other => Err(garbage(other)),
        }
    }

    /// Its version and that of its signatures: printable text on one line.
    ///
    /// # Errors
    /// As [`Clamd::ping`].
    pub async fn version(&self) -> Result<String, Error> {
        Ok(sanitize_text(self.ask(VERSION).await?, MAX_SHOWN))
    }

    async fn ask(&self, question: &[u8]) -> Result<String, Error> {
        within(PING_TIMEOUT.min(self.timeout), async {
            let mut stream = self.socket.dial(&*self.dialer).await?;
            stream.write_all(question).await.map_err(Error::broken)?;
            receive(&mut stream).await
        })
        .await
    }
}

impl fmt::Debug for Clamd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clamd").field("socket", &self.socket).finish_non_exhaustive()
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(limit, work).await.unwrap_or(Err(Error::Timeout))
}

async fn send(stream: &mut BufWriter<BoxStream>, content: &[Bytes]) -> std::io::Result<()> {
    stream.write_all(INSTREAM).await?;
    for chunk in content.iter().flat_map(|piece| piece.chunks(CHUNK)) {
        // Within `CHUNK`.
        stream.write_all(&chunk_head(u32::try_from(chunk.len()).unwrap_or(u32::MAX))).await?;
        stream.write_all(chunk).await?;
    }
    stream.write_all(&END).await?;
    stream.flush().await
}

async fn receive(stream: &mut BoxStream) -> Result<String, Error> {
    let (mut parser, mut input) = (ReplyParser::default(), BytesMut::with_capacity(512));
    loop {
        match parser.next(&mut input) {
            Ok(Some(reply)) => return Ok(reply),
            Ok(None) => {}
            Err(TooLong) => return Err(garbage(&String::from_utf8_lossy(&input))),
        }
        match stream.read_buf(&mut input).await {
            Ok(0) if input.is_empty() => return Err(Error::broken(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(0) => return Err(garbage(&String::from_utf8_lossy(&input))),
            Ok(_) => {}
            Err(error) => return Err(Error::broken(error)),
        }
    }
}

fn garbage(reply: &str) -> Error {
    Error::Garbage(sanitize_text(reply, MAX_SHOWN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_base::TcpDialer;
    use tokio::net::UnixListener;

    /// A scanner that answers `reply` when it has read all of what it is sent, or at once;
    /// what it was sent.
    async fn asked(reply: &'static [u8], at_once: bool, ask: impl AsyncFnOnce(Clamd)) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clamd");
        let listener = UnixListener::bind(&path).unwrap();
        let scanner = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !at_once && !is_whole(&seen) {
                assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
            }
            stream.write_all(reply).await.unwrap();
            seen
        });
        ask(Clamd::new(Socket::Unix(path), Arc::new(TcpDialer), Duration::from_secs(5))).await;
        scanner.await.unwrap()
    }

    fn is_whole(seen: &[u8]) -> bool {
        if seen.starts_with(INSTREAM) { seen.ends_with(&END) } else { seen.ends_with(&[0]) }
    }

    #[tokio::test]
    async fn content_is_sent_in_chunks() {
        let content = [Bytes::from_static(b"ab"), Bytes::new(), Bytes::from(vec![b'c'; CHUNK + 1])];
        let seen = asked(b"stream: OK\0", false, async |clamd| {
            assert_eq!(clamd.scan(&content).await.unwrap(), Verdict::Clean);
        })
        .await;
        let mut expected = INSTREAM.to_vec();
        expected.extend(b"\0\0\0\x02ab\0\x04\0\0");
        expected.extend(vec![b'c'; CHUNK]);
        expected.extend(b"\0\0\0\x01c\0\0\0\0");
        assert!(seen == expected);
    }

    #[tokio::test]
    async fn an_answer_before_the_end_of_the_content_counts() {
        let content = [Bytes::from(vec![b'x'; 4 << 20])];
        asked(b"INSTREAM size limit exceeded. ERROR\0", true, async |clamd| {
            let error = clamd.scan(&content).await.unwrap_err();
            assert!(matches!(&error, Error::Refused(what) if what == "INSTREAM size limit exceeded"), "{error:?}");
            assert!(error.is_about_the_message());
        })
        .await;
    }

    #[tokio::test]
    async fn garbage_is_no_verdict() {
        for reply in [&b"220 mail.example.com ESMTP\0"[..], b"half a reply", b"\0"] {
            asked(reply, false, async |clamd| {
                let error = clamd.scan(&[]).await.unwrap_err();
                assert!(matches!(error, Error::Garbage(_)), "{error:?}");
                assert!(!error.is_about_the_message());
            })
            .await;
        }
    }

    #[tokio::test]
    async fn a_scanner_that_hangs_up_or_is_not_there_gives_none() {
        asked(b"", false, async |clamd| {
            assert!(matches!(clamd.scan(&[Bytes::from_static(b"x")]).await, Err(Error::Broken(_))));
        })
        .await;
        let nowhere = Clamd::new("unix:/nowhere/clamd".parse().unwrap(), Arc::new(TcpDialer), Duration::from_secs(5));
        assert!(matches!(nowhere.ping().await, Err(Error::Unreachable(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_scanner_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clamd");
        let _listener = UnixListener::bind(&path).unwrap();
        let silent = Clamd::new(Socket::Unix(path), Arc::new(TcpDialer), Duration::from_secs(60));
        assert!(matches!(silent.scan(&[]).await, Err(Error::Timeout)));
    }

    #[tokio::test]
    async fn ping_and_version() {
        let seen = asked(b"PONG\0", false, async |clamd| clamd.ping().await.unwrap()).await;
        assert_eq!(seen, PING);
        asked(b"ClamAV 1.0/27000/now\0", false, async |clamd| {
            assert_eq!(clamd.version().await.unwrap(), "ClamAV 1.0/27000/now");
        })
        .await;
    }
}

//! One session of an inbox.

use std::io;

use bytes::BytesMut;
use postrider_base::Stream;
use postrider_mail::SmtpReply;
use postrider_smtp::{AuthEvent, Event, RcptRequest, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::Inbox;

/// Bytes asked for in one read.
const READ: usize = 16 * 1024;

/// Speaks with one client until either side ends the session; without `room`
/// it only says so.
pub(crate) async fn run(inbox: &Inbox, stream: impl Stream, id: String, room: bool) {
    let session = Session::new(inbox.profile().clone(), id);
    let mut driver = Driver { inbox, stream, session };
    // A client that hangs up in the middle is no news for anybody.
    if let Err(error) = driver.run(room).await {
        tracing::debug!(%error, "inbox: session lost");
    }
}

struct Driver<'a, S> {
    inbox: &'a Inbox,
    stream: S,
    session: Session,
}

impl<S: Stream> Driver<'_, S> {
    async fn run(&mut self, room: bool) -> io::Result<()> {
        if room {
            self.session.greet();
        } else {
            self.session.shutdown(&SmtpReply::new(421, "4.3.2 Too many connections"));
        }
        let mut input = BytesMut::new();
        loop {
            match self.session.receive(&mut input) {
                Event::NeedInput => {
                    self.flush().await?;
                    self.read(&mut input).await?;
                }
                Event::Mail(_) | Event::MessageBegin => self.session.accept(),
                Event::Rcpt(request) => self.answer_rcpt(&request),
                Event::Message(message) => {
                    let number = self.inbox.take(message);
                    self.session.accept_message(&number);
                }
                // Neither is offered, so the session has refused them by itself.
                Event::StartTls | Event::Auth(AuthEvent::Cancelled) => {}
                Event::Auth(_) => self.session.auth_failure(&SmtpReply::new(502, "5.5.1 AUTH is not offered")),
                Event::Close => {
                    self.flush().await?;
                    return self.stream.shutdown().await;
                }
            }
        }
    }

    fn answer_rcpt(&mut self, request: &RcptRequest) {
        match self.inbox.refusal(&request.recipient.address) {
            None => self.session.accept(),
            Some(refusal) => self.session.reply(&refusal),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let idle = self.inbox.settings().idle_timeout.as_duration();
        let output = self.session.output().split();
        timeout(idle, async {
            self.stream.write_all(&output).await?;
            self.stream.flush().await
        })
        .await?
    }

    /// Reads more, or ends the session of a client that is silent or gone.
    async fn read(&mut self, input: &mut BytesMut) -> io::Result<()> {
        input.reserve(READ);
        let idle = self.inbox.settings().idle_timeout.as_duration();
        match timeout(idle, self.stream.read_buf(input)).await {
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read.map(drop),
            Err(_) => {
                self.session.shutdown(&SmtpReply::new(421, "4.4.2 Idle for too long"));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use postrider_base::{Clock, Random, Timestamp};
    use std::time::Duration;
    use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream};

    struct Client(BufReader<DuplexStream>);

    impl Client {
        /// The code of the next reply, and its last line.
        async fn reply(&mut self) -> String {
            loop {
                let mut line = String::new();
                assert_ne!(self.0.read_line(&mut line).await.unwrap(), 0, "the session ended");
                if line.as_bytes()[3] != b'-' {
                    return line.trim_end().to_owned();
                }
            }
        }

        async fn say(&mut self, line: &str) -> String {
            self.0.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            self.reply().await
        }
    }

    fn inbox(settings: Settings) -> Inbox {
        let clock = Clock::simulated(Timestamp::from_millis(0));
        Inbox::new("inbox.example".parse().unwrap(), settings, clock, Random::seeded(1))
    }

    fn connect(inbox: &Inbox) -> Client {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let inbox = inbox.clone();
        tokio::spawn(async move { inbox.converse(theirs).await });
        Client(BufReader::new(ours))
    }

    #[tokio::test]
    async fn a_message_arrives() {
        let inbox = inbox(Settings::default());
        let mut arrivals = inbox.subscribe();
        let mut client = connect(&inbox);
        assert!(client.reply().await.starts_with("220 inbox.example ESMTP"));
        assert!(client.say("EHLO relay.example.org").await.starts_with("250 "));
        assert!(client.say("MAIL FROM:<a@example.org>").await.starts_with("250 "));
        assert!(client.say("RCPT TO:<anyone@Inbox.Example>").await.starts_with("250 "));
        assert_eq!(client.say("RCPT TO:<b@example.net>").await, "550 5.1.1 No such user here");
        assert!(client.say("DATA").await.starts_with("354 "));
        let reply = client.say("Subject: hello\r\nFrom: a@example.org\r\n\r\n..dot\r\n.").await;
        assert_eq!(reply, "250 2.0.0 Ok 1");
        let arrived = arrivals.recv().await.unwrap();
        assert_eq!((arrived.subject.as_str(), arrived.from.as_str()), ("hello", "a@example.org"));
        assert_eq!(arrived.content.concat(), b"Subject: hello\r\nFrom: a@example.org\r\n\r\n.dot\r\n");
        assert_eq!(arrived.envelope.recipients.len(), 1);
        assert_eq!(inbox.messages(), [arrived]);
        assert!(client.say("QUIT").await.starts_with("221 "));
    }

    #[tokio::test]
    async fn what_is_not_offered_is_refused() {
        let inbox = inbox(Settings::default());
        let mut client = connect(&inbox);
        client.reply().await;
        client.say("EHLO relay.example.org").await;
        assert!(client.say("STARTTLS").await.starts_with("50"));
        assert!(client.say("AUTH PLAIN AGEAYg==").await.starts_with("50"));
        assert!(client.say("nonsense").await.starts_with("50"));
        assert!(client.say("NOOP").await.starts_with("250"));
    }

    #[tokio::test]
    async fn too_large_a_message_is_refused() {
        let inbox = inbox(Settings { max_message_bytes: postrider_base::Size::from_bytes(100), ..Settings::default() });
        let mut client = connect(&inbox);
        client.reply().await;
        client.say("EHLO relay.example.org").await;
        client.say("MAIL FROM:<>").await;
        client.say("RCPT TO:<a@inbox.example>").await;
        client.say("DATA").await;
        let reply = client.say(&format!("{}\r\n.", "x".repeat(200))).await;
        assert!(reply.starts_with("552 "), "{reply}");
        assert!(inbox.messages().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_are_sent_away() {
        let inbox = inbox(Settings::default());
        let mut client = connect(&inbox);
        client.reply().await;
        tokio::time::advance(Duration::from_secs(299)).await;
        assert!(client.say("NOOP").await.starts_with("250"));
        assert_eq!(client.reply().await, "421 4.4.2 Idle for too long");
        assert_eq!(client.0.read_line(&mut String::new()).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn one_session_too_many() {
        let inbox = inbox(Settings { max_connections: 1, ..Settings::default() });
        let mut first = connect(&inbox);
        assert!(first.reply().await.starts_with("220 "));
        let mut second = connect(&inbox);
        assert_eq!(second.reply().await, "421 4.3.2 Too many connections");
    }
}

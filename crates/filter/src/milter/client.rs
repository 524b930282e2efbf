//! A connection to a filter for each message.

use bytes::BytesMut;
use postrider_base::{BoxStream, Dialer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::time::timeout;

use super::packet::{Fault, PacketParser};
use super::reply::Reply;
use super::session::{FAREWELL, Letter, Next, Session, Verdict};
use crate::{Error, MilterSettings};

/// What a filter says of a message.
///
/// # Errors
/// Any [`Error`]: it gave no verdict, within the time of the settings.
pub async fn ask(dialer: &dyn Dialer, settings: &MilterSettings, letter: Letter<'_>) -> Result<Verdict, Error> {
    let session = Session::new(letter, settings.other_changes).map_err(|error| Error::Refused(error.to_string()))?;
    let asked = async {
        let stream = settings.socket.dial(dialer).await?;
        converse(BufWriter::new(stream), session).await
    };
    timeout(settings.timeout.as_duration(), asked).await.unwrap_or(Err(Error::Timeout))
}

async fn converse(mut stream: BufWriter<BoxStream>, mut session: Session<'_>) -> Result<Verdict, Error> {
    let mut input = BytesMut::with_capacity(1024);
    loop {
        match session.turn() {
            Next::Send(head, rest) => {
                stream.write_all(&head).await.map_err(Error::broken)?;
                stream.write_all(rest).await.map_err(Error::broken)?;
            }
            Next::Listen => {
                stream.flush().await.map_err(Error::broken)?;
                let packet = loop {
                    if let Some(packet) = PacketParser.next(&mut input).map_err(garbage)? {
                        break packet;
                    }
                    if stream.get_mut().read_buf(&mut input).await.map_err(Error::broken)? == 0 {
                        return Err(Error::broken(std::io::ErrorKind::UnexpectedEof.into()));
                    }
                };
                let reply = Reply::parse(&packet).map_err(garbage)?;
                session.heard(reply, packet.letter).map_err(garbage)?;
            }
            Next::Done(verdict) => {
                // The verdict holds, whether or not it hears this.
                let _ = stream.write_all(&FAREWELL).await;
                let _ = stream.flush().await;
                return Ok(verdict);
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn garbage(fault: Fault) -> Error {
    Error::Garbage(fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Socket;
    use crate::milter::Packet;
    use postrider_base::{Period, TcpDialer};
    use tokio::net::UnixListener;

    const LETTER: Letter<'static> = Letter {
        client_ip: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        helo: "client.example",
        sender: "",
        recipients: &["b@example.net"],
        header: b"Subject: hi\r\n",
        body: &[],
        macros: &[],
    };

    /// Asks a filter that answers each command as `answer` says.
    async fn asked(answer: fn(u8) -> &'static [u8]) -> Result<Verdict, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("filter");
        let listener = UnixListener::bind(&path).unwrap();
        let filter = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut input = BytesMut::new();
            loop {
                while let Ok(Some(Packet { letter, .. })) = PacketParser.next(&mut input) {
                    if stream.write_all(answer(letter)).await.is_err() || answer(letter) == b"hang up" {
                        return;
                    }
                }
                if stream.read_buf(&mut input).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        });
        let settings = MilterSettings { timeout: Period::from_secs(5), ..MilterSettings::new(Socket::Unix(path)) };
        let verdict = ask(&TcpDialer, &settings, LETTER).await;
        filter.await.unwrap();
        verdict
    }

    const AGREED: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\0\x11\0\0\0\0";
    const CONTINUE: &[u8] = b"\0\0\0\x01c";

    #[tokio::test]
    async fn a_filter_adds_a_field() {
        let verdict = asked(|letter| match letter {
            b'O' => AGREED,
            b'D' | b'Q' => b"",
            b'E' => b"\0\0\0\x07hX-A\0b\0\0\0\0\x01c",
            _ => CONTINUE,
        });
        let Verdict::Accept(changes) = verdict.await.unwrap() else { panic!("taken") };
        assert_eq!(changes.apply(LETTER.header).unwrap(), b"Subject: hi\r\nX-A: b\r\n");
    }

    #[tokio::test]
    async fn a_filter_refuses() {
        let verdict = asked(|letter| match letter {
            b'O' => AGREED,
            b'R' => b"\0\0\0\x0fy550 5.7.1 Bad\0",
            b'D' | b'Q' => b"",
            _ => CONTINUE,
        });
        let Verdict::Refuse(reply) = verdict.await.unwrap() else { panic!("refused") };
        assert_eq!(reply.to_string(), "550 5.7.1 Bad");
    }

    #[tokio::test]
    async fn other_programs_give_no_verdict() {
        assert!(matches!(asked(|_| b"220 mail.example.com ESMTP\r\n").await, Err(Error::Garbage(_))));
        assert!(matches!(asked(|_| b"\0\0\0\x01?").await, Err(Error::Garbage(_))));
        assert!(matches!(asked(|_| b"hang up").await, Err(Error::Garbage(_))));
        let nowhere = MilterSettings::new("unix:/nowhere/filter".parse().unwrap());
        assert!(matches!(ask(&TcpDialer, &nowhere, LETTER).await, Err(Error::Unreachable(_))));
    }
}

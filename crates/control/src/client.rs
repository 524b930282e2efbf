//! The asking side of the control socket.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::wire::{Frame, encode, read_line};
use crate::{Error, Operation, Response};

/// Longest answer line that the client takes: a full page of the longest rows.
const MAX_ANSWER_LINE: usize = 16 * 1024 * 1024;

/// A connection to a running daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon's socket; `None` when no daemon listens there.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] when this user may not use the socket, [`Error::Connection`] otherwise.
    pub async fn connect(path: &Path) -> Result<Option<Client>, Error> {
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Some(Client { stream: BufReader::new(stream) })),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                io::ErrorKind::PermissionDenied => Err(Error::Forbidden(path.to_owned())),
                _ => Err(Error::Connection(error)),
            },
        }
    }

    /// Runs an operation and gives each item of the answer to `each`, until it says to stop.
    ///
    /// After a stop in mid-answer the connection is not usable for another operation.
    ///
    /// # Errors
    ///
    /// What the daemon answered, or a broken connection.
    pub async fn run(
        &mut self,
        operation: &Operation,
        each: &mut (dyn FnMut(Response) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        self.stream.get_mut().write_all(&encode(operation)?).await.map_err(Error::Connection)?;
        loop {
            let line = read_line(&mut self.stream, MAX_ANSWER_LINE)
                .await
                .map_err(Error::Connection)?
                .ok_or_else(|| Error::Connection(io::ErrorKind::UnexpectedEof.into()))?;
            match serde_json::from_slice(&line).map_err(|error| Error::Protocol(error.to_string()))? {
                Frame::End => return Ok(()),
                Frame::Error { kind, message } => return Err(kind.with(message)),
                Frame::Item(response) => {
                    if each(response).is_break() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

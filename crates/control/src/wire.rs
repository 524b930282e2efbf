//! The control socket's language: one JSON object a line, in both directions.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

use crate::{Error, ErrorKind, Response};

/// One line of an answer. An answer is any number of items and then `End` or `Error`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Frame {
    /// The operation is done.
    End,
    /// The operation did not happen, or stopped here.
    Error {
        /// What sort of failure.
        kind: ErrorKind,
        /// What to tell the operator, in one line.
        message: String,
    },
    /// A part of the answer.
    Item(Response),
}

impl Frame {
    pub(crate) fn failure(error: &Error) -> Frame {
        Frame::Error { kind: error.kind(), message: error.to_string() }
    }
}

/// A message as one line with its end.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    let mut line = serde_json::to_vec(message).map_err(|error| Error::Protocol(error.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

/// The next line without its end, `None` at the end of the stream.
///
/// A line of more than `max` bytes is an `InvalidData` error: the peer is not one of ours.
pub(crate) async fn read_line<R: AsyncBufRead + Unpin>(reader: &mut R, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(limit).read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() >= max => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line of more than {max} bytes")))
        }
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded() {
        let mut input: &[u8] = b"12345678\n123456789\n";
        assert_eq!(read_line(&mut input, 8).await.unwrap().unwrap(), b"12345678");
        let error = read_line(&mut input, 8).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn the_end_is_none_and_half_a_line_an_error() {
        let mut input: &[u8] = b"";
        assert!(read_line(&mut input, 8).await.unwrap().is_none());
        let mut input: &[u8] = b"half";
        assert_eq!(read_line(&mut input, 8).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

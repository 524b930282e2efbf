//! The answering side of the control socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider_account::Actor;
use postrider_base::Scope;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{info, warn};

use crate::audit::user;
use crate::wire::{Frame, encode, read_line};
use crate::{Control, Error, Operation, Response, Settings};

/// Items of an answer that may wait for a slow asker before the operation pauses.
const ANSWER_BACKLOG: usize = 64;

/// A bound control socket; the file goes away when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    settings: Settings,
}

impl Socket {
    /// Makes the socket file, readable and writable for its owner and group.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when another daemon answers there; what the system says otherwise.
    pub fn bind(settings: &Settings) -> io::Result<Socket> {
        let path = settings.socket.clone();
        remove_stale(&path)?;
        // Bound aside and renamed, so that nobody finds it before it has its mode.
        let aside = path.with_extension("sock-new");
        let _ = fs::remove_file(&aside);
        let listener = UnixListener::bind(&aside)?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o660))?;
        fs::rename(&aside, &path)?;
        Ok(Socket { listener, path, settings: settings.clone() })
    }

    /// Where the socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until the scope is closed.
    pub async fn serve(self, control: Control, scope: Scope) {
        let slots = Arc::new(Semaphore::new(self.settings.max_connections));
        loop {
            let permit = tokio::select! {
                () = scope.cancelled() => return,
                permit = Arc::clone(&slots).acquire_owned() => permit,
            };
            let Ok(permit) = permit else { return };
            tokio::select! {
                () = scope.cancelled() => return,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let session = Session { control: control.clone(), settings: self.settings.clone(), _permit: permit };
                        scope.spawn("control connection", session.run(stream, scope.clone()));
                    }
                    Err(error) => {
                        warn!(%error, "control socket does not accept");
                        tokio::time::sleep(self.settings.idle_timeout.as_duration().min(std::time::Duration::from_secs(1))).await;
                    }
                },
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes a socket file that nobody listens on any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        let text = format!("{} is there and is not a socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let text = format!("another daemon answers on {}", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    fs::remove_file(path)
}

struct Session {
    control: Control,
    settings: Settings,
    _permit: OwnedSemaphorePermit,
}

impl Session {
    async fn run(self, stream: UnixStream, scope: Scope) {
        let peer = match stream.peer_cred() {
            Ok(peer) => peer,
            Err(error) => return warn!(%error, "the control socket does not say who asks: not answered"),
        };
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let uid = peer.uid();
        let actor = Actor::Peer(user(uid, peer.pid()));
        loop {
            let line = tokio::select! {
                () = scope.cancelled() => return,
                line = tokio::time::timeout(
                    self.settings.idle_timeout.as_duration(),
                    read_line(&mut reader, self.settings.max_request.as_usize()),
                ) => line,
            };
            let line = match line {
                Ok(Ok(Some(line))) => line,
                Ok(Ok(None)) | Err(_) => return,
                Ok(Err(error)) => {
                    let _ = send(&mut writer, &Frame::failure(&Error::Invalid(error.to_string()))).await;
                    return;
                }
            };
            let answered = match serde_json::from_slice::<Operation>(&line) {
                Err(error) => {
                    let error = Error::Invalid(format!("not an operation: {error}"));
                    send(&mut writer, &Frame::failure(&error)).await
                }
                Ok(operation) => {
                    info!(uid, operation = operation.name(), "control");
                    tokio::select! {
                        () = scope.cancelled() => return,
                        answered = self.answer(&actor, operation, &mut reader, &mut writer) => answered,
                    }
                }
            };
            if answered.is_err() {
                return;
            }
        }
    }

    /// Streams the answer; an asker who hangs up stops the operation.
    async fn answer(
        &self,
        actor: &Actor,
        operation: Operation,
        reader: &mut BufReader<OwnedReadHalf>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let (items, mut answer) = mpsc::channel::<Response>(ANSWER_BACKLOG);
        let mut execution = std::pin::pin!(self.control.execute(actor, operation, items));
        let mut result = None;
        let mut asker_waits = true;
        loop {
            tokio::select! {
                biased;
                item = answer.recv() => match item {
                    Some(item) => send(writer, &Frame::Item(item)).await?,
                    None if result.is_some() => break,
                    None => result = Some(execution.as_mut().await),
                },
                done = execution.as_mut(), if result.is_none() => result = Some(done),
                more = reader.fill_buf(), if asker_waits => {
                    if more?.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    asker_waits = false;
                }
            }
        }
        match result {
            Some(Err(error)) => send(writer, &Frame::failure(&error)).await,
            _ => send(writer, &Frame::End).await,
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, frame: &Frame) -> io::Result<()> {
    let line = encode(frame).map_err(|error| io::Error::other(error.to_string()))?;
    writer.write_all(&line).await
}

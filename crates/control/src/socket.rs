//! The answering side of the control socket.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postrider_account::Actor;
use postrider_base::Scope;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::{info, warn};

use crate::audit::{is_change, user};
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

    /// Answers until the scope is closed. A change that was asked for is made whole within the
    /// scope, also when the asker has hung up or the scope is closed meanwhile.
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
                        let session = Session {
                            control: control.clone(),
                            settings: self.settings.clone(),
                            scope: scope.clone(),
                            permit: Arc::new(permit),
                        };
                        scope.spawn("control connection", session.run(stream));
                    }
                    Err(error) => {
                        warn!(%error, "control socket does not accept");
                        tokio::time::sleep(self.settings.idle_timeout.as_duration().min(Duration::from_secs(1))).await;
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
    scope: Scope,
    /// A change that outlives its asker keeps it.
    permit: Arc<OwnedSemaphorePermit>,
}

impl Session {
    async fn run(self, stream: UnixStream) {
        let peer = match stream.peer_cred() {
            Ok(peer) => peer,
            Err(error) => return warn!(%error, "the control socket does not say who asks: not answered"),
        };
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut writer = Writer { stream: writer, timeout: self.settings.answer_timeout.as_duration() };
        let uid = peer.uid();
        let actor = Actor::Peer(user(uid, peer.pid()));
        loop {
            let line = tokio::select! {
                () = self.scope.cancelled() => return,
                line = tokio::time::timeout(
                    self.settings.idle_timeout.as_duration(),
                    read_line(&mut reader, self.settings.max_request.as_usize()),
                ) => line,
            };
            let line = match line {
                Ok(Ok(Some(line))) => line,
                Ok(Ok(None)) | Err(_) => return,
                Ok(Err(error)) => {
                    let _ = writer.send(&Frame::failure(&Error::Invalid(error.to_string()))).await;
                    return;
                }
            };
            let answered = match serde_json::from_slice::<Operation>(&line) {
                Err(error) => {
                    let error = Error::Invalid(format!("not an operation: {error}"));
                    writer.send(&Frame::failure(&error)).await
                }
                Ok(operation) => {
                    info!(uid, operation = operation.name(), "control");
                    self.answer(&actor, operation, &mut reader, &mut writer).await
                }
            };
            match answered {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return warn!(uid, "hung up on a command that does not take its answer");
                }
                Err(_) => return,
            }
        }
    }

    /// Streams the answer. An asker who hangs up, or a stop, ends an operation that only looks.
    /// A change goes on in a task of its own: cut off, it might be in the store and not in
    /// memory, or half of it in neither.
    async fn answer(
        &self,
        actor: &Actor,
        operation: Operation,
        reader: &mut BufReader<OwnedReadHalf>,
        writer: &mut Writer,
    ) -> io::Result<()> {
        let (items, answer) = mpsc::channel::<Response>(ANSWER_BACKLOG);
        if !must_be_whole(&operation) {
            let execution = self.control.execute(actor, operation, items);
            return tokio::select! {
                () = self.scope.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
                answered = stream(execution, answer, reader, writer) => answered,
            };
        }
        let (tell, told) = oneshot::channel();
        let (control, actor, permit) = (self.control.clone(), actor.clone(), Arc::clone(&self.permit));
        self.scope.spawn("control change", async move {
            let _permit = permit;
            // Nobody hears it: the asker has gone.
            let _ = tell.send(control.execute(&actor, operation, items).await);
        });
        let execution = async {
            let cut_off = |_| Err(Error::Failed("cut off: what came of it is unknown".to_owned()));
            told.await.unwrap_or_else(cut_off)
        };
        stream(execution, answer, reader, writer).await
    }
}

/// Whether it must not be cut off. A backup changes nothing here, and the queue's own task
/// compacts the queue, whoever waits for it.
fn must_be_whole(operation: &Operation) -> bool {
    is_change(operation) && !matches!(operation, Operation::Backup(_) | Operation::SpoolCompact)
}

/// Sends what comes until the execution has ended, or the asker hangs up.
async fn stream(
    execution: impl Future<Output = Result<(), Error>>,
    mut answer: mpsc::Receiver<Response>,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut Writer,
) -> io::Result<()> {
    let mut execution = std::pin::pin!(execution);
    let mut result = None;
    let mut asker_waits = true;
    loop {
        tokio::select! {
            biased;
            item = answer.recv() => match item {
                Some(item) => writer.send(&Frame::Item(item)).await?,
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
        Some(Err(error)) => writer.send(&Frame::failure(&error)).await,
        _ => writer.send(&Frame::End).await,
    }
}

/// Where answers go. An asker who takes nothing must not hold what the operation holds, such
/// as the store's log.
struct Writer {
    stream: OwnedWriteHalf,
    timeout: Duration,
}

impl Writer {
    async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        let line = encode(frame).map_err(|error| io::Error::other(error.to_string()))?;
        let mut left = &line[..];
        while !left.is_empty() {
            let written = tokio::time::timeout(self.timeout, self.stream.write(left)).await;
            match written.map_err(|_| io::ErrorKind::TimedOut)?? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => left = &left[count..],
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

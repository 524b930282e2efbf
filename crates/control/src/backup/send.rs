//! The sending side of a copy: reads what is there while it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use postrider_account::{Actor, Audit, AuditFile};
use postrider_base::{Disk, DiskFile, OpenMode};
use postrider_events::{Events, Start};
use postrider_store::Checkpoint;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::archive::failed;
use super::manifest::Sum;
use super::{BackupItem, BackupRequest, CHUNK, FORMAT, JOURNAL, Manifest, STORE, rows};
use crate::control::Deps;
use crate::{Error, Response};

/// Directories of the copy, and of the state.
const KEYS: &str = "keys";
const AUDIT: &str = "audit";

/// Sends a copy of the state as it is now.
///
/// # Errors
/// [`Error::Invalid`] for a user who may not have the keys; [`Error::Failed`].
pub(crate) async fn execute(
    deps: &Deps,
    actor: &Actor,
    request: BackupRequest,
    answer: &mpsc::Sender<Response>,
) -> Result<(), Error> {
    check_actor(actor)?;
    let about = &deps.about;
    let manifest = Manifest {
        format: FORMAT,
        version: about.version.clone(),
        node: format!("{:04x}", about.node),
        instance: about.instance.clone(),
        made_at: deps.world.clock.now().rfc3339(),
        files: Vec::new(),
    };
    let events = match (request.journal, &deps.events) {
        (false, _) => None,
        (true, Some(events)) => Some(events.clone()),
        (true, None) => return Err(Error::Failed("the journal is not open here".to_owned())),
    };
    let copying = Copying {
        disk: Arc::clone(&deps.world.disk),
        state: PathBuf::from(&about.state_dir),
        checkpoint: deps.store.checkpoint().await?,
        audit: deps.accounts.audit().clone(),
        events,
        sending: Sending { answer: answer.clone(), open: None },
    };
    let runtime = Handle::current();
    let sent = tokio::task::spawn_blocking(move || copying.run(manifest, &runtime)).await;
    match sent.map_err(|error| Error::Failed(error.to_string()))? {
        // Nobody receives any more: the asker has gone.
        Err(Stop::Gone) => Ok(()),
        Err(Stop::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

/// The copy has what opens the DKIM keys. The group that may use the control socket need not
/// see that; who owns the files, and root, can read them anyhow.
fn check_actor(actor: &Actor) -> Result<(), Error> {
    let own = rustix::process::geteuid().as_raw();
    match actor {
        Actor::Peer(user) if user.uid != Some(0) && user.uid != Some(own) => Err(Error::Invalid(
            "a backup has the keys of the node in it: only root and the user that the daemon runs as can make one"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Why sending ended early.
enum Stop {
    Gone,
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

struct Copying {
    disk: Arc<dyn Disk>,
    state: PathBuf,
    checkpoint: Checkpoint,
    audit: Audit,
    events: Option<Events>,
    sending: Sending,
}

impl Copying {
    /// Blocks for the disk and for the receiver.
    fn run(mut self, manifest: Manifest, runtime: &Handle) -> Result<(), Stop> {
        self.tables()?;
        let files = self.checkpoint.files().to_vec();
        for file in &files {
            self.file(&format!("store/{}", file.name), &*file.file)?;
        }
        self.dir(KEYS)?;
        for AuditFile { name, file, length } in self.audit.files().map_err(Error::from)? {
            self.part(&format!("{AUDIT}/{name}"), &*file, length)?;
        }
        if let Some(events) = self.events.take() {
            self.journal(&events, runtime)?;
        }
        self.sending.send(BackupItem::Whole(manifest))
    }

    fn tables(&mut self) -> Result<(), Stop> {
        self.sending.begin(STORE)?;
        self.sending.write(rows::MARK)?;
        let mut count = 0;
        for record in self.checkpoint.records() {
            self.sending.write(&rows::framed(&record.map_err(Error::from)?))?;
            count += 1;
        }
        self.sending.write(&rows::end(count))?;
        self.sending.end()
    }

    fn dir(&mut self, dir: &str) -> Result<(), Stop> {
        let path = self.state.join(dir);
        if !self.disk.exists(&path) {
            return Ok(());
        }
        for path in self.disk.read_dir(&path).map_err(|error| failed(&path, &error))? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            match self.disk.open(&path, OpenMode::Read) {
                Ok(file) => self.file(&format!("{dir}/{name}"), &*file)?,
                // Removed meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&path, &error).into()),
            }
        }
        Ok(())
    }

    /// As long as the file is now: it may grow.
    fn file(&mut self, name: &str, file: &dyn DiskFile) -> Result<(), Stop> {
        let length = file.len().map_err(|error| failed(Path::new(name), &error))?;
        self.part(name, file, length)
    }

    /// The beginning of a file.
    fn part(&mut self, name: &str, file: &dyn DiskFile, length: u64) -> Result<(), Stop> {
        self.sending.begin(name)?;
        let (mut at, mut buffer) = (0, vec![0; CHUNK]);
        while at < length {
            let count = usize::try_from(length - at).unwrap_or(CHUNK).min(CHUNK);
            file.read_exact_at(&mut buffer[..count], at).map_err(|error| failed(Path::new(name), &error))?;
            self.sending.write(&buffer[..count])?;
            at += count as u64;
        }
        self.sending.end()
    }

    fn journal(&mut self, events: &Events, runtime: &Handle) -> Result<(), Stop> {
        self.sending.begin(JOURNAL)?;
        let mut reader = events.since(Start::Oldest);
        loop {
            let lines = runtime.block_on(reader.next()).map_err(Error::from)?;
            if lines.is_empty() {
                return self.sending.end();
            }
            for line in lines {
                self.sending.write(&line.json)?;
                self.sending.write(b"\n")?;
            }
        }
    }
}

struct Sending {
    answer: mpsc::Sender<Response>,
    open: Option<Open>,
}

struct Open {
    name: String,
    waiting: Vec<u8>,
    sum: Sum,
}

impl Sending {
    fn begin(&mut self, name: &str) -> Result<(), Stop> {
        self.open = Some(Open { name: name.to_owned(), waiting: Vec::with_capacity(CHUNK), sum: Sum::new() });
        self.send(BackupItem::File { name: name.to_owned() })
    }

    fn write(&mut self, mut data: &[u8]) -> Result<(), Stop> {
        while !data.is_empty() {
            let Some(open) = &mut self.open else { return Ok(()) };
            let (now, later) = data.split_at(data.len().min(CHUNK - open.waiting.len()));
            open.waiting.extend_from_slice(now);
            data = later;
            if open.waiting.len() == CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        self.flush()?;
        match self.open.take() {
            Some(open) => self.send(BackupItem::End(open.sum.of(&open.name))),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        let Some(open) = self.open.as_mut().filter(|open| !open.waiting.is_empty()) else { return Ok(()) };
        open.sum.update(&open.waiting);
        let text = STANDARD.encode(&open.waiting);
        open.waiting.clear();
        self.send(BackupItem::Data(text))
    }

    fn send(&self, item: BackupItem) -> Result<(), Stop> {
        self.answer.blocking_send(Response::Backup(item)).map_err(|_| Stop::Gone)
    }
}

//! How a command reaches the node: through its daemon's socket, or in process when none runs.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;

use anyhow::{Context as _, Result, bail};
use postrider_account::Actor;
use postrider_base::Metrics;
use postrider_control::{Client, Control, Error as ControlError, Operation, Response};
use postrider_mail::AccountId;
use rustix::process::{Gid, Uid};
use tokio::sync::mpsc;

use crate::config::{self, Config};
use crate::rooms::{self, Open, Rooms};
use crate::state;

/// Items of an answer that may wait in process.
const ANSWER_BACKLOG: usize = 16;

/// What a command needs when no daemon runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Need {
    /// The account tables alone.
    Accounts,
    /// A running daemon, whatever it takes.
    Daemon,
    /// The queue and the journal too.
    Everything,
}

/// A node that takes operations.
#[derive(Debug)]
pub(crate) struct Access {
    account: AccountId,
    max_request: usize,
    operator: Operator,
}

#[derive(Debug)]
enum Operator {
    Daemon(Client),
    Here(Control, Actor),
}

impl Access {
    /// Runs `command` against the node of the configuration.
    pub(crate) fn with(
        file: Option<&Path>,
        need: Need,
        command: impl AsyncFnOnce(&mut Access) -> Result<()>,
    ) -> Result<()> {
        let (_, config) = config::find(file)?;
        let daemon = daemon_listens(&config.control.socket)?;
        let asker = asker();
        if !daemon {
            let state_dir = &config.server.state_dir;
            match need {
                Need::Daemon => return Err(ControlError::NoDaemon.into()),
                _ => become_owner(state_dir)?,
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            if daemon { through_daemon(&config, command).await } else { here(&config, need, asker, command).await }
        })
    }

    /// Runs `command` on the files of a node whose daemon does not run.
    pub(crate) fn offline(file: Option<&Path>, command: impl AsyncFnOnce(&Config, Actor) -> Result<()>) -> Result<()> {
        let (_, config) = config::find(file)?;
        if daemon_listens(&config.control.socket)? {
            bail!("the daemon is running, and this works on the files behind it: stop the daemon first");
        }
        let spool = config.server.state_dir.join("spool");
        if !spool.is_dir() {
            bail!("there is no spool in {}", config.server.state_dir.display());
        }
        let asker = asker();
        become_owner(&config.server.state_dir)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(command(&config, asker))
    }

    /// The account that a command is about.
    pub(crate) fn account(&self, named: Option<AccountId>) -> AccountId {
        named.unwrap_or(self.account)
    }

    /// The longest request that the node takes, in bytes.
    pub(crate) fn max_request(&self) -> usize {
        self.max_request
    }

    /// An operation with one item for an answer.
    pub(crate) async fn ask(&mut self, operation: Operation) -> Result<Response> {
        let mut answer = None;
        self.each(operation, &mut |response| {
            answer = Some(response);
            Ok(())
        })
        .await?;
        answer.context("the answer was empty")
    }

    /// An operation with any number of items; stops at the first error of `take`.
    pub(crate) async fn each(
        &mut self,
        operation: Operation,
        take: &mut (dyn FnMut(Response) -> Result<()> + Send),
    ) -> Result<()> {
        let mut stopped = None;
        let mut each = |response| match take(response) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                stopped = Some(error);
                ControlFlow::Break(())
            }
        };
        match &mut self.operator {
            Operator::Daemon(client) => client.run(&operation, &mut each).await?,
            Operator::Here(control, actor) => execute_here(control, actor, operation, &mut each).await?,
        }
        stopped.map_or(Ok(()), Err)
    }
}

async fn through_daemon(config: &Config, command: impl AsyncFnOnce(&mut Access) -> Result<()>) -> Result<()> {
    let client = Client::connect(&config.control.socket).await?.ok_or(ControlError::NoDaemon)?;
    let mut access = Access {
        account: config.server.account,
        max_request: config.control.max_request.as_usize(),
        operator: Operator::Daemon(client),
    };
    command(&mut access).await
}

async fn here(
    config: &Config,
    need: Need,
    actor: Actor,
    command: impl AsyncFnOnce(&mut Access) -> Result<()>,
) -> Result<()> {
    let open = if need == Need::Accounts { Open::Accounts } else { Open::Everything };
    let rooms =
        Rooms::open(config, open, Metrics::new()).await.context("no daemon answers, and the state cannot be opened")?;
    if let Some(queue) = &rooms.queue {
        queue.spool.recovered().await.context("no daemon answers, and the queue cannot be recovered")?;
    }
    let control = Control::new(rooms.control_deps(config, None));
    let mut access = Access {
        account: config.server.account,
        max_request: config.control.max_request.as_usize(),
        operator: Operator::Here(control, actor),
    };
    let result = command(&mut access).await;
    drop(access);
    let closed = rooms.close(rooms::CLOSE_DEADLINE).await;
    result.and(closed)
}

async fn execute_here(
    control: &Control,
    actor: &Actor,
    operation: Operation,
    each: &mut (dyn FnMut(Response) -> ControlFlow<()> + Send),
) -> Result<(), ControlError> {
    let (items, mut answer) = mpsc::channel(ANSWER_BACKLOG);
    let mut execution = pin!(control.execute(actor, operation, items));
    let mut result = None;
    loop {
        tokio::select! {
            biased;
            item = answer.recv() => match item {
                Some(item) => {
                    if each(item).is_break() {
                        return Ok(());
                    }
                }
                None => return match result {
                    Some(result) => result,
                    None => execution.await,
                },
            },
            done = execution.as_mut(), if result.is_none() => result = Some(done),
        }
    }
}

/// Who runs this command, before it becomes somebody else.
pub(crate) fn asker() -> Actor {
    let pid = rustix::process::getpid().as_raw_pid();
    Actor::Command(postrider_control::user(rustix::process::getuid().as_raw(), Some(pid)))
}

/// Asked before there is a runtime, because the answer decides whether this process gives up root.
pub(crate) fn daemon_listens(socket: &Path) -> Result<bool> {
    match UnixStream::connect(socket) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(false),
            io::ErrorKind::PermissionDenied => Err(ControlError::Forbidden(socket.to_owned()).into()),
            _ => Err(error).with_context(|| format!("cannot use the control socket {}", socket.display())),
        },
    }
}

/// Root works on the state directory as its owner, so that no file of root's is left in it.
///
/// Must run while the process has one thread: the system calls change the calling thread alone,
/// and threads started later inherit from it.
pub(crate) fn become_owner(state_dir: &Path) -> Result<()> {
    let Some(owner) = state::owner(state_dir) else { return Ok(()) };
    let own = rustix::process::geteuid();
    if owner.uid == own.as_raw() {
        return Ok(());
    }
    if !own.is_root() {
        bail!(
            "the state directory {} belongs to user {}: run this as that user or as root",
            state_dir.display(),
            owner.uid,
        );
    }
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::thread::set_thread_groups(&[gid])
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .with_context(|| format!("cannot become user {}, who owns {}", owner.uid, state_dir.display()))
}

//! From an operation to the room that it is about.

use std::fmt;
use std::sync::Arc;

use postrider_account::{Accounts, Actor, Realm};
use postrider_base::{Timestamp, TraceFilter, Traces};
use postrider_delivery::Delivery;
use postrider_dns::Validation;
use postrider_events::Events;
use postrider_mail::MessageId;
use postrider_spool::Spool;
use postrider_store::Store;
use postrider_submission::KeyRing;
use postrider_upkeep::Upkeep;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Error, Operation, QueueOperation, ReloadReport, Response, SiteRow, SpoolStat, Status, World, audit, backup, bans,
    dns_plan, events, explain, feedback, message, queue, quota, sending, sts, suppression, trace, why,
};

/// A wish for a reload; the daemon answers when it has happened.
pub type ReloadRequest = oneshot::Sender<Result<ReloadReport, String>>;

/// The rooms that operations act on.
pub struct Deps {
    /// What does not change while the process runs.
    pub about: About,
    /// Credentials and suppression lists.
    pub accounts: Accounts,
    /// Where all of that is kept.
    pub store: Store,
    /// The keys that sign.
    pub ring: KeyRing,
    /// The running delivery; none in a command.
    pub delivery: Option<Delivery>,
    /// The journal; none when only the account tables are open.
    pub events: Option<Events>,
    /// The queue; none when only the account tables are open.
    pub spool: Option<Spool>,
    /// Where a daemon takes reloads; none in a command.
    pub reload: Option<mpsc::Sender<ReloadRequest>>,
    /// Where sessions hand their transcripts to; none in a command.
    pub traces: Option<Traces>,
    /// What lies outside.
    pub world: World,
    /// Who looks after identities; none in a command.
    pub upkeep: Option<Upkeep>,
}

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct About {
    /// postrider's version.
    pub version: String,
    /// The name that the node greets with.
    pub hostname: String,
    /// The region that credentials are derived for.
    pub region: String,
    /// The partition in ARNs.
    pub partition: String,
    /// The node's number.
    pub node: u16,
    /// The random id that was made with the state directory.
    pub instance: String,
    /// The state directory.
    pub state_dir: String,
    /// When the daemon started; none in a command.
    pub running_since: Option<Timestamp>,
    /// Addresses that take mail.
    pub listeners: Vec<String>,
    /// Names of the sources in the configuration that was read.
    pub sources: Vec<String>,
}

/// Executes operations. Clones share everything.
#[derive(Clone)]
pub struct Control {
    deps: Arc<Deps>,
}

impl About {
    /// Where ARNs are.
    #[must_use]
    pub fn realm(&self) -> Realm {
        Realm { partition: self.partition.clone(), region: self.region.clone() }
    }
}

impl Control {
    /// Operations on these rooms.
    #[must_use]
    pub fn new(deps: Deps) -> Control {
        Control { deps: Arc::new(deps) }
    }

    /// Does what `actor` asks for and sends the answer's items to `answer`; the channel closes
    /// at the end. When nobody receives any more, a stream of items stops and the operation
    /// ends well. A change is in the audit log before it is made; dropped before its end, it may
    /// be on the disk and not in force.
    ///
    /// # Errors
    ///
    /// Why it was not done; items of a stream may have been sent before.
    pub async fn execute(
        &self,
        actor: &Actor,
        operation: Operation,
        answer: mpsc::Sender<Response>,
    ) -> Result<(), Error> {
        let Some(entry) = audit::entry(&self.deps, actor, &operation) else {
            return self.perform(actor, operation, answer).await;
        };
        let log = self.deps.accounts.audit();
        let audited = log.begin(vec![entry]).await?;
        let done = self.perform(actor, operation, answer).await;
        if let Err(error) = &done {
            log.failed(audited, error.kind().as_str(), &error.to_string()).await;
        }
        done
    }

    async fn perform(&self, actor: &Actor, operation: Operation, answer: mpsc::Sender<Response>) -> Result<(), Error> {
        let deps = &*self.deps;
        let response = match operation {
            Operation::Accounts(operation) => return operation.execute(deps, &answer).await,
            Operation::Audit(filter) => return audit::list(deps, filter, &answer).await,
            Operation::Backup(request) => return backup::execute(deps, actor, request, &answer).await,
            Operation::Bans(operation) => bans::execute(deps.accounts.guard(), operation).await?,
            Operation::ConfigurationSets(operation) => operation.execute(deps.accounts.configuration_sets()).await?,
            Operation::Credentials(operation) => return operation.execute(deps, &answer).await,
            Operation::Dkim(operation) => operation.execute(deps).await?,
            Operation::DnsPlan(request) => dns_plan::execute(deps, request).await?,
            Operation::FeedbackRead(request) => feedback::execute(deps, request).await?,
            Operation::Doctor(operation) => operation.execute(deps).await?,
            Operation::Events(operation) => return events::execute(self.events()?, operation, &answer).await,
            Operation::Explain(request) => explain::execute(deps, &request)?,
            Operation::Identities(operation) => operation.execute(deps).await?,
            Operation::Message { id } => {
                Response::Message(Box::new(message::life(self.events()?, self.spool()?, id).await?))
            }
            Operation::Policies(operation) => operation.execute(deps).await?,
            Operation::Pools(operation) => operation.execute(deps.accounts.pools(), &deps.sources()).await?,
            Operation::Queue(QueueOperation::Why { id }) => self.why(id).await?,
            Operation::Queue(operation) => queue::execute(self.spool()?, operation).await?,
            Operation::Quota { account } => return quota::execute(deps, account, &answer).await,
            Operation::Reload => self.reload().await?,
            Operation::Reputation(operation) => return operation.execute(deps, &answer).await,
            Operation::Shaping(operation) => operation.execute(self.delivery()?).await?,
            Operation::Sites => self.sites()?,
            Operation::Sources(operation) => operation.execute(self.delivery()?).await?,
            Operation::SpoolCompact => self.compact().await?,
            Operation::SpoolStat => Response::SpoolStat(self.spool_stat()?),
            Operation::State(operation) => return operation.execute(deps, actor, &answer).await,
            Operation::Status => Response::Status(Box::new(self.status()?)),
            Operation::Sts(operation) => sts::execute(self.delivery()?, operation)?,
            Operation::Suppression(operation) => {
                return suppression::execute(&deps.accounts, operation, &answer).await;
            }
            Operation::Trace { peer, user } => {
                return trace::follow(deps, TraceFilter { peer, user }, &answer).await;
            }
        };
        // Nobody receives: the asker has gone, and the operation is done all the same.
        let _ = answer.send(response).await;
        Ok(())
    }

    fn sites(&self) -> Result<Response, Error> {
        let sites = self.delivery()?.sites();
        Ok(Response::Sites(sites.into_iter().map(SiteRow::from).collect()))
    }

    async fn why(&self, id: MessageId) -> Result<Response, Error> {
        let (delivery, events) = (self.deps.delivery.as_ref(), self.deps.events.as_ref());
        let rooms = why::Rooms { spool: self.spool()?, events, delivery };
        Ok(Response::Why(Box::new(why::explain(rooms, id).await?)))
    }

    async fn compact(&self) -> Result<Response, Error> {
        // In a daemon, whoever reads the feed says so.
        if self.deps.delivery.is_none() {
            self.events()?.acknowledge(self.spool()?);
        }
        queue::compact(self.spool()?).await
    }

    /// What is wrong, as far as the process has found out.
    fn warnings(&self) -> Vec<String> {
        let accounts = &self.deps.accounts;
        let about_sources = self.deps.delivery.as_ref().map(|delivery| sending::warnings(delivery, accounts.pools()));
        let damaged = accounts.suppression().damaged_files();
        let about_lists = (damaged > 0).then(|| {
            format!(
                "files of suppression lists that are damaged: {damaged}; the log names them. Import the lists again, \
                 then `postrider suppression repair`"
            )
        });
        about_sources.into_iter().flatten().chain(about_lists).collect()
    }

    fn delivery(&self) -> Result<&Delivery, Error> {
        self.deps.delivery.as_ref().ok_or(Error::NoDaemon)
    }

    fn events(&self) -> Result<&Events, Error> {
        self.deps.events.as_ref().ok_or_else(|| Error::Failed("the journal is not open here".to_owned()))
    }

    fn spool(&self) -> Result<&Spool, Error> {
        self.deps.spool.as_ref().ok_or_else(|| Error::Failed("the queue is not open here".to_owned()))
    }

    async fn reload(&self) -> Result<Response, Error> {
        let requests = self.deps.reload.as_ref().ok_or(Error::NoDaemon)?;
        let (reply, answer) = oneshot::channel();
        requests.send(reply).await.map_err(|_| Error::NoDaemon)?;
        let report = answer.await.map_err(|_| Error::NoDaemon)?;
        report.map(Response::Reloaded).map_err(Error::Invalid)
    }

    fn spool_stat(&self) -> Result<SpoolStat, Error> {
        Ok(queue::stat(&self.spool()?.stat()))
    }

    fn status(&self) -> Result<Status, Error> {
        let about = &self.deps.about;
        Ok(Status {
            version: about.version.clone(),
            hostname: about.hostname.clone(),
            region: about.region.clone(),
            node: format!("{:04x}", about.node),
            instance: about.instance.clone(),
            state_dir: about.state_dir.clone(),
            running_since: about.running_since,
            pid: about.running_since.map(|_| std::process::id()),
            listeners: about.listeners.clone(),
            dnssec: self.deps.delivery.as_ref().map(|delivery| dnssec_words(&delivery.dns_validation())),
            warnings: self.warnings(),
            spool: self.spool_stat()?,
        })
    }
}

fn dnssec_words(validation: &Validation) -> String {
    match validation {
        Validation::Works => "validated".to_owned(),
        Validation::Broken { reason } => format!("not validated, DANE is off: {reason}"),
        _ => "off".to_owned(),
    }
}

impl Deps {
    /// Names of the sources; a daemon may have read its configuration again.
    pub(crate) fn sources(&self) -> Vec<String> {
        match &self.delivery {
            Some(delivery) => delivery.sources().into_iter().map(|source| source.name).collect(),
            None => self.about.sources.clone(),
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("about", &self.deps.about).finish_non_exhaustive()
    }
}

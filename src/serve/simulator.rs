//! The mailbox simulator: a destination inside the process, and the mail of those of its
//! mailboxes that write back.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postrider_base::{Clock, Dialer, Random, Scope, SimNet};
use postrider_events::{Acceptance, Events, LifeEntry};
use postrider_mail::{AccountId, EmailAddress, SimulatedMailbox};
use postrider_simulator::{Answer, Arrived, Inbox, InboxDialer};
use postrider_spool::{OriginKind, Spool};
use postrider_submission::{OwnMessage, ReturnPaths, Submission};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

/// What the simulator works with.
pub(crate) struct Simulator {
    pub(crate) submission: Submission,
    pub(crate) spool: Spool,
    pub(crate) events: Events,
    pub(crate) return_paths: ReturnPaths,
    /// Whether senders get complaints by mail (`delivery.feedback_forwarding`).
    pub(crate) forwarding: Arc<AtomicBool>,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
}

impl Simulator {
    /// Starts it, as tasks of `scope`; how it is dialled.
    pub(crate) fn start(self, scope: &Scope) -> Arc<dyn Dialer> {
        let inbox = Inbox::simulator(self.operator_domain(), self.clock.clone(), self.random.clone());
        let simulator = Arc::new(self);
        // Apart: a complaint waits for the journal, and nobody else does.
        for mailbox in [SimulatedMailbox::OutOfOffice, SimulatedMailbox::Complaint] {
            let (simulator, arrivals, ended) = (simulator.clone(), inbox.subscribe(), scope.clone());
            scope.spawn("answers of the simulator", async move {
                tokio::select! {
                    () = ended.cancelled() => {}
                    () = simulator.answer_all(arrivals, mailbox) => {}
                }
            });
        }
        let nowhere = Arc::new(SimNet::new());
        Arc::new(InboxDialer::new(inbox, (Ipv4Addr::LOCALHOST, 25).into(), nowhere, scope.clone()))
    }

    /// Answers for the recipients that are such a mailbox.
    async fn answer_all(&self, mut arrivals: Receiver<Arc<Arrived>>, mailbox: SimulatedMailbox) {
        loop {
            match arrivals.recv().await {
                Ok(arrived) => self.answer(&arrived, mailbox).await,
                Err(RecvError::Lagged(missed)) => warn!(missed, "messages to the simulator may have no answer"),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn operator_domain(&self) -> &str {
        self.submission.settings().operator_domain()
    }

    async fn answer(&self, arrived: &Arrived, mailbox: SimulatedMailbox) {
        let addresses = arrived.envelope.recipients.iter().map(|recipient| &recipient.address);
        let mut addresses = addresses.filter(|address| self.is_mailbox(address, mailbox));
        if mailbox == SimulatedMailbox::Complaint {
            if addresses.next().is_some() {
                self.complain(arrived).await;
            }
            return;
        }
        for address in addresses {
            self.reply(address, arrived).await;
        }
    }

    fn is_mailbox(&self, address: &EmailAddress, mailbox: SimulatedMailbox) -> bool {
        SimulatedMailbox::of(address, self.operator_domain()) == Some(mailbox)
    }

    async fn reply(&self, mailbox: &EmailAddress, about: &Arrived) {
        let Some(to) = about.reply_to() else { return };
        let id = self.submission.new_id();
        let content = Answer { id, mailbox, to: &to, about }.out_of_office();
        let require_tls = about.envelope.require_tls;
        self.send(OwnMessage {
            id,
            account: AccountId::default(),
            to,
            kind: OriginKind::Operator,
            require_tls,
            content,
        })
        .await;
    }

    /// The events are journaled with the delivery; this is the mail about the first of a message,
    /// as of any complaint.
    async fn complain(&self, about: &Arrived) {
        if !self.forwarding.load(Ordering::Relaxed) {
            return;
        }
        let Some(message) = self.message(about).await else { return };
        let mut complainers = message.recipients.iter().filter(|to| self.is_mailbox(to, SimulatedMailbox::Complaint));
        let Some(mailbox) = complainers.next() else { return };
        if about.envelope.recipients.iter().all(|recipient| recipient.address != *mailbox) {
            return;
        }
        let Some(to) = message.sender.filter(|_| message.credential.is_some()) else { return };
        let Ok(reporter) = format!("MAILER-DAEMON@{}", self.operator_domain()).parse() else { return };
        let id = self.submission.new_id();
        let content = Answer { id, mailbox, to: &to, about }.complaint(&reporter, self.random.u128());
        let (account, kind, require_tls) =
            (message.account, OriginKind::Dsn { of: message.id }, about.envelope.require_tls);
        self.send(OwnMessage { id, account, to, kind, require_tls, content }).await;
    }

    /// What was submitted: by its return path, or by the Message-ID that it got. Any client may
    /// write the id of another's message: only who sends a message is told of it.
    async fn message(&self, arrived: &Arrived) -> Option<Acceptance> {
        let by_path = arrived.envelope.sender.as_ref().and_then(|sender| self.return_paths.read(sender));
        let is_told = |message: &Acceptance| by_path.is_some() || message.sender == arrived.envelope.sender;
        let id = match &by_path {
            Some(verp) => verp.id,
            None => arrived.message_id()?.rsplit_once('@')?.0.parse().ok()?,
        };
        // All that was accepted by now is journaled then.
        self.spool.told(Events::FEED).await;
        let life = self.events.message(id).await.ok()?;
        life.into_iter().find_map(|entry| match entry {
            LifeEntry::Accepted(message) if message.origin == OriginKind::Submission && is_told(&message) => {
                Some(message)
            }
            _ => None,
        })
    }

    async fn send(&self, own: OwnMessage) {
        if let Err(error) = self.submission.send(own).await {
            warn!(%error, "a message to the simulator has no answer");
        }
    }
}

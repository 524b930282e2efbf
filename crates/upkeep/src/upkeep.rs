//! The handle, and what is done at an operator's or a follower's word.

use std::fmt;
use std::sync::Arc;

use postrider_account::{Accounts, Identity, IdentityName, MailedLink, Verification, VerificationStatus};
use postrider_base::{Clock, Metrics, Random, Scope};
use postrider_dns::Resolver;
use postrider_mail::{AccountId, Domain, EmailAddress};
use postrider_mailauth::MacKey;
use postrider_submission::{Letter, Submission};
use tokio::sync::Notify;

use crate::link::{self, Link, LinkError};
use crate::notices::{self, Change, Notices};
use crate::{Error, Settings, reputation, round};

/// What upkeep works with.
pub struct Deps {
    /// Whose identities.
    pub accounts: Accounts,
    /// Takes the mails, and knows the relay's names.
    pub submission: Submission,
    /// Says what is published.
    pub resolver: Arc<dyn Resolver>,
    /// Time.
    pub clock: Clock,
    /// Jitter, and serial numbers of links.
    pub random: Random,
    /// Where it is counted.
    pub metrics: Metrics,
    /// Tells our links from forged ones.
    pub mac_key: MacKey,
    /// What the operator says, validated.
    pub settings: Settings,
}

/// Looks after identities and MAIL FROM domains. A cheap handle; clones are the same.
#[derive(Clone)]
pub struct Upkeep(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) accounts: Accounts,
    pub(crate) submission: Submission,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) metrics: Metrics,
    pub(crate) settings: Settings,
    pub(crate) bounce_host: Domain,
    /// Something is to be looked at that was not there at the last round.
    pub(crate) nudge: Notify,
    mac_key: MacKey,
    notices: Notices,
}

impl Upkeep {
    /// Begins to look after what the accounts have, until `scope` is closed.
    ///
    /// # Errors
    /// A text that names the key of the settings: the relay's host name is no domain name and
    /// no other host takes bounces.
    pub fn start(deps: Deps, scope: &Scope) -> Result<Upkeep, String> {
        let bounce_host = deps.settings.bounce_host(deps.submission.settings().hostname())?;
        let notices = Notices::new(deps.settings.operator_address.clone(), deps.settings.notices_per_hour);
        let shared = Arc::new(Shared {
            accounts: deps.accounts,
            submission: deps.submission,
            resolver: deps.resolver,
            clock: deps.clock,
            random: deps.random,
            metrics: deps.metrics,
            settings: deps.settings,
            bounce_host,
            nudge: Notify::new(),
            mac_key: deps.mac_key,
            notices,
        });
        scope.spawn("upkeep", round::run(shared.clone(), scope.clone()));
        scope.spawn("review of reputations", reputation::run(shared.clone(), scope.clone()));
        Ok(Upkeep(shared))
    }

    /// The host that the MX record of each MAIL FROM domain must name.
    #[must_use]
    pub fn bounce_host(&self) -> &Domain {
        &self.0.bounce_host
    }

    /// Says that an identity is new or has changed, so that it is looked at now.
    pub fn nudge(&self) {
        self.0.nudge.notify_one();
    }

    /// Begins to verify an identity, anew when it had failed, and does at once what can be
    /// done: looks for a domain's keys, mails a link to an address. What is verified already
    /// is only looked at.
    ///
    /// # Errors
    /// [`Error::Account`], [`Error::NoLinks`] or [`Error::NotMailed`].
    pub async fn verify(&self, account: AccountId, name: &IdentityName) -> Result<Arc<Identity>, Error> {
        let shared = &*self.0;
        let now = shared.clock.now();
        let begin = |identity: &mut Identity| {
            if !identity.is_verified() {
                let link = identity.verification.link.take();
                identity.verification = Verification { link, ..Verification::pending(now) };
            }
        };
        let identity = shared.accounts.identities().change(account, name, begin).await?;
        match &identity.name {
            IdentityName::Domain(_) => round::look_at_proof(shared, &identity).await?,
            IdentityName::Address(_) if identity.is_verified() => {}
            IdentityName::Address(address) => shared.mail_link(&identity, address).await?,
        }
        // What was verified may have been forgotten meanwhile.
        shared.accounts.identities().find(account, name).ok_or_else(|| not_found(name))
    }

    /// Looks at the MAIL FROM domain of an identity, anew when it had failed.
    ///
    /// # Errors
    /// [`Error::Account`] or [`Error::NoMailFrom`].
    pub async fn verify_mail_from(&self, account: AccountId, name: &IdentityName) -> Result<Arc<Identity>, Error> {
        let shared = &*self.0;
        let now = shared.clock.now();
        let begin = |identity: &mut Identity| {
            if let Some(mail_from) = &mut identity.mail_from
                && mail_from.status == VerificationStatus::Failed
            {
                (mail_from.status, mail_from.since) = (VerificationStatus::Pending, now);
            }
        };
        let identity = shared.accounts.identities().change(account, name, begin).await?;
        if identity.mail_from.is_none() {
            return Err(Error::NoMailFrom(name.to_string()));
        }
        round::look_at_mail_from(shared, &identity).await?;
        shared.accounts.identities().find(account, name).ok_or_else(|| not_found(name))
    }

    /// The address that a link would prove, if it was followed now. Changes nothing: programs
    /// that look at links in mail follow them too.
    ///
    /// # Errors
    /// Why it would not.
    pub fn link(&self, token: &str) -> Result<EmailAddress, LinkError> {
        Ok(self.0.valid(token)?.address)
    }

    /// Takes the word of a link's follower: the address is verified.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn confirm(&self, token: &str) -> Result<EmailAddress, LinkError> {
        let shared = &*self.0;
        let link = shared.valid(token)?;
        let now = shared.clock.now();
        let name = IdentityName::Address(link.address.clone());
        let mut change = None;
        let confirm = |identity: &mut Identity| {
            let before = identity.verification.status;
            if before != VerificationStatus::Success && link.is_of(identity) {
                let link = identity.verification.link.take();
                let status = VerificationStatus::Success;
                identity.verification =
                    Verification { status, since: now, checked: Some(now), link, found_wrong: None };
                change = Some(before);
            }
        };
        let written = shared.accounts.identities().change(link.account, &name, confirm).await;
        written.map_err(|error| {
            tracing::warn!(%error, "an address was proved, and that could not be kept");
            LinkError::NotKept
        })?;
        if let Some(before) = change {
            let (what, after) = ("identity".to_owned(), VerificationStatus::Success);
            shared.tell(Change { account: link.account, name, what, before, after, problem: None }).await;
        }
        Ok(link.address)
    }
}

impl Shared {
    /// Mails a link that takes the place of those mailed before. It is known before it is
    /// mailed, so that nobody can follow it too early.
    pub(crate) async fn mail_link(&self, identity: &Identity, address: &EmailAddress) -> Result<(), Error> {
        let url = self.settings.link_url.as_deref().ok_or(Error::NoLinks)?;
        let (sent, serial) = (self.clock.now(), self.random.u64());
        let link = Link { account: identity.account, address: address.clone(), sent, serial };
        let ours = Some(MailedLink { sent, serial });
        let mailed = |identity: &mut Identity| identity.verification.link = ours.clone();
        self.accounts.identities().change(identity.account, &identity.name, mailed).await?;
        let url = format!("{}/verify?t={}", url.trim_end_matches('/'), link.token(&self.mac_key));
        let text = notices::link_text(self.submission.settings().hostname(), identity, &url);
        let letter = Letter {
            account: identity.account,
            to: address,
            subject: "Please confirm that mail may be sent in your name",
            text: &text,
        };
        match self.submission.write(letter).await {
            Ok(id) => {
                tracing::info!(account = %identity.account, %id, "a link was mailed to {address}");
                Ok(())
            }
            Err(error) => {
                // Nobody can follow it: the next round mails another.
                let unmailed = |identity: &mut Identity| {
                    if identity.verification.link == ours {
                        identity.verification.link = None;
                    }
                };
                self.accounts.identities().change(identity.account, &identity.name, unmailed).await?;
                Err(Error::NotMailed(error.to_string()))
            }
        }
    }

    /// Logs a change and mails it.
    pub(crate) async fn tell(&self, change: Change) {
        let Change { account, name, what, before, after, problem } = &change;
        let parameters = serde_json::json!({
            "account": account, "name": name, "what": what, "before": before, "after": after, "problem": problem,
        });
        self.accounts.audit().by_relay("upkeep", "UpdateVerificationStatus", parameters).await;
        self.notices.tell(&self.submission, self.clock.now(), &change).await;
    }

    /// Mails the operator what a person has to do.
    pub(crate) async fn mail_operator(&self, subject: &str, text: &str) {
        self.notices.mail(&self.submission, self.clock.now(), subject, text).await;
    }

    /// Mails the operator and the owner of an account.
    pub(crate) async fn mail_owner(&self, owner: Option<&EmailAddress>, subject: &str, text: &str) {
        self.notices.mail_all(&self.submission, self.clock.now(), owner, subject, text).await;
    }

    fn valid(&self, token: &str) -> Result<Link, LinkError> {
        let link = Link::read(token, &self.mac_key).ok_or(LinkError::Unknown)?;
        if self.clock.now().saturating_since(link.sent) >= link::LIFE {
            return Err(LinkError::Expired);
        }
        let name = IdentityName::Address(link.address.clone());
        let identity = self.accounts.identities().find(link.account, &name);
        identity.filter(|identity| link.is_of(identity)).map(|_| link).ok_or(LinkError::Superseded)
    }
}

impl Link {
    /// Whether it is the last one that was mailed for the identity.
    fn is_of(&self, identity: &Identity) -> bool {
        let last = identity.verification.link.as_ref();
        last == Some(&MailedLink { sent: self.sent, serial: self.serial })
    }
}

fn not_found(name: &IdentityName) -> Error {
    Error::Account(postrider_account::Error::NotFound { what: "identity", name: name.to_string() })
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").field("settings", &self.settings).finish_non_exhaustive()
    }
}

//! The way of a message into the spool.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_account::{Accounts, Authenticated, ConfigurationSet, Guard, MailFrom, MailFromFailure, Resolved};
use postrider_base::{Clock, Dialer, Metrics, Random, TcpDialer, Timestamp};
use postrider_mail::{AccountId, Domain, EmailAddress, Envelope, MessageId, TlsInfo};
use postrider_spool::{Content, NewMessage, Origin, OriginKind, OriginalHeaders, SOURCE_ARN_TAG, Spool};
use rsasl::config::SASLConfig;

use crate::header::Stamp;
use crate::milter::Filters;
use crate::rewritten::Rewritten;
use crate::rules::quota::Quota;
use crate::rules::{Rules, Submitted};
use crate::trace::write_received;
use crate::{Refusal, ReturnPath, SaslExchange, Settings, Signing, sasl};

/// What acceptance works with.
#[derive(Clone, Debug)]
pub struct SubmissionDeps {
    /// Where accepted messages go.
    pub spool: Spool,
    /// Who may submit.
    pub accounts: Accounts,
    /// What time it is.
    pub clock: Clock,
    /// For message ids.
    pub random: Random,
    /// Where to count.
    pub metrics: Metrics,
}

/// Accepts mail. A cheap handle; clones are the same.
#[derive(Clone)]
pub struct Submission(Arc<Inner>);

struct Inner {
    spool: Spool,
    clock: Clock,
    random: Random,
    settings: Settings,
    metrics: Metrics,
    message_id_domain: String,
    sasl: Arc<SASLConfig>,
    accounts: Accounts,
    rules: Rules,
    signing: Option<Signing>,
    filters: Filters,
}

/// The connection that a message came by.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its address.
    pub ip: IpAddr,
    /// What it called itself in EHLO; can be anything.
    pub name: String,
    /// In the words of RFC 3848: `ESMTPSA`.
    pub protocol: String,
    /// How it is encrypted.
    pub tls: Option<TlsInfo>,
}

/// A whole message from an authenticated client.
#[derive(Clone, Debug)]
pub struct SubmissionRequest {
    /// From MAIL and RCPT.
    pub envelope: Envelope,
    /// The content in pieces: CRLF line ends, not dot-stuffed.
    pub content: Vec<Bytes>,
    /// Who sends it.
    pub authenticated: Authenticated,
    /// Where it comes from.
    pub client: Client,
    /// When delivery may begin (RFC 4865). `None`, or a time that has passed, for at once.
    pub hold: Option<Timestamp>,
}

/// A message that may be taken.
struct Prepared {
    message: NewMessage,
    author: Option<EmailAddress>,
    /// Whose keys sign it.
    signer: AccountId,
}

impl Submission {
    /// Acceptance by these settings, which have been validated. Nothing is signed.
    #[must_use]
    pub fn new(deps: SubmissionDeps, settings: Settings) -> Self {
        Self::with(deps, settings, None, Arc::new(TcpDialer))
    }

    /// As [`Submission::new`]; what there is a key for is signed.
    #[must_use]
    pub fn signing(deps: SubmissionDeps, settings: Settings, signing: Signing) -> Self {
        Self::with(deps, settings, Some(signing), Arc::new(TcpDialer))
    }

    /// As both, with what opens the connections to the operator's filters.
    #[must_use]
    pub fn with(deps: SubmissionDeps, settings: Settings, signing: Option<Signing>, dialer: Arc<dyn Dialer>) -> Self {
        Self(Arc::new(Inner {
            filters: Filters::new(&settings.filters, dialer, settings.hostname(), &deps.metrics),
            signing,
            sasl: sasl::config(deps.accounts.credentials().clone()),
            rules: Rules::new(deps.accounts.clone(), &settings),
            accounts: deps.accounts,
            message_id_domain: settings.message_id_domain(),
            spool: deps.spool,
            clock: deps.clock,
            random: deps.random,
            metrics: deps.metrics,
            settings,
        }))
    }

    /// The rules in effect.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// An authentication exchange with the client at this address.
    #[must_use]
    pub fn sasl(&self, client: IpAddr) -> SaslExchange {
        let guard = self.0.accounts.guard().clone();
        SaslExchange::new(Arc::clone(&self.0.sasl), guard, client, self.0.metrics.clone())
    }

    /// Who guesses passwords.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        self.0.accounts.guard()
    }

    /// The credential of this user name, for a client that is known by other means than
    /// its password: an address or a certificate that the operator has bound to it.
    ///
    /// # Errors
    /// [`Refusal::Disabled`], or [`Refusal::InvalidCredentials`] when there is none.
    pub fn credential(&self, user_name: &str) -> Result<Authenticated, Refusal> {
        Ok(self.0.accounts.credentials().find(user_name)?)
    }

    /// Whether a message of this size (from `SIZE=`; 0 when not given) could be taken
    /// now, so that a client hears at MAIL that there is no room, before it sends megabytes.
    ///
    /// # Errors
    /// [`Refusal::TooLong`], [`Refusal::NoRoom`] or [`Refusal::Unavailable`].
    pub fn check_mail(&self, size: u64) -> Result<(), Refusal> {
        if size > self.0.settings.max_message_bytes.bytes() {
            return Err(Refusal::TooLong);
        }
        let _room = self.0.spool.admit(size)?;
        Ok(())
    }

    /// Whether a message may wait for its delivery until this time, so that a client hears
    /// at MAIL that it may not.
    ///
    /// # Errors
    /// [`Refusal::HoldTooLong`].
    pub fn check_hold(&self, until: Timestamp) -> Result<(), Refusal> {
        let longest = self.0.settings.max_hold.as_duration();
        if until.saturating_since(self.0.clock.now()) > longest {
            return Err(Refusal::HoldTooLong(longest.as_secs()));
        }
        Ok(())
    }

    /// Takes a message. When this returns `Ok`, the message is on disk and the relay
    /// answers for it.
    ///
    /// The null sender is taken from every client, as long as the author may send: smarthosts
    /// relay bounces.
    ///
    /// # Errors
    /// A [`Refusal`]. After [`Refusal::Unavailable`] the message may be queued all the same.
    pub async fn submit(&self, request: SubmissionRequest) -> Result<MessageId, Refusal> {
        self.check(&request)?;
        let tls = self.0.filters.are_there().then(|| request.client.tls.clone()).flatten();
        let Prepared { message, author, signer } = self.prepare(request)?;
        let id = message.id;
        let Some(message) = self.filtered(message, tls.as_ref()).await? else { return Ok(id) };
        // The last that is asked: what it takes goes back when the message is not accepted.
        let settings = &self.0.settings;
        let quota = Quota::take(&self.0.accounts, &message, settings.operator_domain(), &self.0.metrics)?;
        let message = self.signed(message, author.as_ref(), signer).await?;
        let size = message.content.len();
        let recipients = message.envelope.recipients.len() as u64;
        let accepted = self.0.spool.accept(message).await;
        quota.settle(&accepted);
        if let Err(error) = accepted {
            tracing::warn!(%id, %error, "message not accepted");
            return Err(error.into());
        }
        let metrics = &self.0.metrics;
        metrics.messages_accepted.inc();
        metrics.messages_accepted_bytes.inc_by(size);
        metrics.recipients_accepted.inc_by(recipients);
        if author.is_none() {
            metrics.messages_without_author.inc();
            tracing::debug!(%id, "its From field names no address");
        }
        Ok(id)
    }

    fn check(&self, request: &SubmissionRequest) -> Result<(), Refusal> {
        let (envelope, settings) = (&request.envelope, &self.0.settings);
        let size: usize = request.content.iter().map(Bytes::len).sum();
        if size as u64 > settings.max_message_bytes.bytes() {
            return Err(Refusal::TooLong);
        }
        if envelope.recipients.len() as u64 > u64::from(settings.max_recipients) {
            return Err(Refusal::TooManyRecipients(settings.max_recipients));
        }
        let recipients = envelope.recipients.iter().map(|recipient| &recipient.address);
        // RFC 6531 section 3.4
        if !envelope.smtp_utf8 && envelope.sender.iter().chain(recipients).any(|address| !address.is_ascii()) {
            return Err(Refusal::NonAsciiAddress);
        }
        request.hold.map_or(Ok(()), |until| self.check_hold(until))
    }

    /// The message as the operator's filters leave it; nothing when one has it thrown away.
    async fn filtered(&self, message: NewMessage, tls: Option<&TlsInfo>) -> Result<Option<NewMessage>, Refusal> {
        if !self.0.filters.are_there() {
            return Ok(Some(message));
        }
        self.0.filters.judge(message, tls).await
    }

    /// Puts signatures on the message, where there are keys: the last thing that is done to
    /// its bytes.
    async fn signed(
        &self,
        message: NewMessage,
        author: Option<&EmailAddress>,
        signer: AccountId,
    ) -> Result<NewMessage, Refusal> {
        let Some(signing) = &self.0.signing else { return Ok(message) };
        let NewMessage { id, accepted_at, content, .. } = &message;
        match signing.of_author(signer, author, *accepted_at, content.clone()).await {
            Ok(content) => Ok(NewMessage { content, ..message }),
            Err(error) => {
                tracing::error!(%id, %error, "message not accepted: it could not be signed");
                Err(error.into())
            }
        }
    }

    /// A message from [`Submission::own_message`] with the signature of the operator's
    /// domain, which it is sent from, where there is a key. What can not be signed goes out
    /// without: nobody waits for a reply that could say so.
    pub async fn signed_own(&self, message: NewMessage) -> NewMessage {
        let domain: Option<Domain> = self.0.settings.operator_domain().parse().ok();
        let (Some(signing), Some(domain)) = (&self.0.signing, domain) else { return message };
        match signing.of_relay(&domain, message.accepted_at, message.content.clone()).await {
            Ok(content) => NewMessage { content, ..message },
            Err(error) => {
                tracing::error!(id = %message.id, %error, "a message of the relay's own is not signed");
                message
            }
        }
    }

    /// Gives the message its id, its time and all of its final bytes but the signatures, and
    /// decides whether it may be taken.
    fn prepare(&self, request: SubmissionRequest) -> Result<Prepared, Refusal> {
        let SubmissionRequest { envelope, content, authenticated, client, hold } = request;
        let (id, settings) = (self.new_id(), &self.0.settings);
        let now = id.timestamp();
        let rewritten = self.rewritten(id, content, &client, &envelope)?;
        let account = authenticated.account;
        let submitted = Submitted {
            account,
            credential: &authenticated.user_name,
            envelope: &envelope,
            senders: &rewritten.understood.senders,
            set: rewritten.understood.configuration_set.as_deref(),
            client_ip: Some(client.ip),
            has_tls: client.tls.is_some(),
            now,
        };
        let decision = self.0.rules.decide(&submitted)?;
        let source_arn = self.0.rules.source_arn(&submitted, &decision);
        if envelope.sender.is_some() && settings.return_path == ReturnPath::Verp {
            check_mail_from(decision.resolved.as_ref())?;
        }
        let signer = decision.signer.unwrap_or(account);
        let lifetime = self.lifetime(decision.set.as_deref());
        let configuration_set = decision.set.map(|set| set.name.clone());
        let (understood, content) = rewritten.checked(&settings.blocked_attachments)?;
        let mut tags = understood.tags;
        tags.extend(source_arn.map(|arn| (SOURCE_ARN_TAG.to_owned(), arn)));
        let not_before = hold.filter(|at| *at > now);
        let message = NewMessage {
            id,
            account,
            accepted_at: now,
            expires_at: not_before.unwrap_or(now).saturating_add(lifetime),
            not_before,
            // RFC 8689 section 4.1: the field is ignored beside the parameter.
            tls_optional: understood.tls_optional && !envelope.require_tls,
            envelope,
            origin: Origin {
                configuration_set,
                tags,
                headers: understood.original,
                ..origin(authenticated.user_name, client)
            },
            content: Content::new(content),
        };
        let author = understood.senders.from.into_iter().next().map(|author| author.address);
        Ok(Prepared { message, author, signer })
    }

    /// The message with the header that it will leave with.
    fn rewritten(
        &self,
        id: MessageId,
        content: Vec<Bytes>,
        client: &Client,
        envelope: &Envelope,
    ) -> Result<Rewritten, Refusal> {
        let settings = &self.0.settings;
        let (id, date) = (id.to_string(), id.timestamp().rfc5322());
        let stamp = Stamp {
            date: &date,
            message_id: &format!("{id}@{}", self.0.message_id_domain),
            preserve: settings.preserve,
            max_received: settings.max_received,
            rules: settings.header_rules,
        };
        let only = match envelope.recipients.as_slice() {
            [only] => Some(&only.address),
            _ => None,
        };
        let received = |out: &mut Vec<u8>| write_received(out, client, settings.hostname(), &id, only, &date);
        Rewritten::new(content, &stamp, received)
    }

    /// How long delivery is tried for a message that is sent with this configuration
    /// set: as the settings say, or shorter where the set says so.
    fn lifetime(&self, set: Option<&ConfigurationSet>) -> Duration {
        let longest = self.0.settings.expiry.as_duration();
        let shorter = set.and_then(|set| set.max_lifetime).map(|lifetime| lifetime.as_duration());
        shorter.map_or(longest, |shorter| shorter.min(longest))
    }

    /// A new message id, of this node and this moment.
    #[must_use]
    pub fn new_id(&self) -> MessageId {
        MessageId::new(self.0.settings.node, self.now(), self.0.random.uuid_v4())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub(crate) fn random(&self) -> &Random {
        &self.0.random
    }

    pub(crate) fn spool(&self) -> &Spool {
        &self.0.spool
    }

    /// What stands behind the `@` in a `Message-ID` of ours.
    #[must_use]
    pub fn message_id_domain(&self) -> &str {
        &self.0.message_id_domain
    }
}

/// Who hands a message in, and from where.
fn origin(user_name: String, client: Client) -> Origin {
    Origin {
        credential: Some(user_name),
        client_ip: Some(client.ip),
        client_name: Some(client.name),
        protocol: client.protocol,
        kind: OriginKind::Submission,
        configuration_set: None,
        tags: Vec::new(),
        headers: OriginalHeaders::default(),
        hold: false,
    }
}

/// Whether the owner of the author's identity rather has its mail refused than sent with
/// another return path than that of its MAIL FROM domain. Not to be asked where no return path
/// is in that domain: the null sender and what a client said stay what they are.
fn check_mail_from(resolved: Option<&Resolved>) -> Result<(), Refusal> {
    let is_refused = |mail_from: &MailFrom| mail_from.on_failure == MailFromFailure::Reject && !mail_from.is_usable();
    match resolved.and_then(Resolved::mail_from) {
        Some(mail_from) if is_refused(mail_from) => Err(Refusal::MailFromDomainNotVerified),
        _ => Ok(()),
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

//! What became of a recipient: attempts and their outcomes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use postrider_base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{AttemptRecord, EnhancedStatus, Error};

/// The result of one attempt for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptOutcome {
    /// Index of the recipient in the envelope.
    pub recipient: u16,
    /// When the attempt ended.
    pub at: Timestamp,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// What the attempt decided.
    pub disposition: Disposition,
    /// The status code for notifications and events.
    pub status: EnhancedStatus,
    /// The remote's reply or our own words, one printable line, such as
    /// `550 5.1.1 user unknown`.
    pub diagnostic: String,
    /// Whom the attempt spoke to, or would have; `None` when no host was chosen.
    pub remote: Option<Remote>,
    /// The session's TLS; `None` in clear or without a session.
    pub tls: Option<TlsInfo>,
    /// Where the time went.
    pub delays: Delays,
    /// When the next attempt is due: given exactly for a deferral.
    pub next_attempt: Option<Timestamp>,
    /// What was said, where it was recorded. Stored beside the outcome, not in
    /// it: see [`crate::store_records`].
    #[serde(skip)]
    pub record: Option<Arc<AttemptRecord>>,
}

/// What an attempt decided about its recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Disposition {
    /// The remote took responsibility.
    Delivered,
    /// To be tried again.
    Deferred(DelayType),
    /// Failed for good.
    Bounced(BounceKind),
    /// Not sent, because the address is on a suppression list.
    Suppressed(SuppressionSource),
    /// Taken out of the queue by the operator.
    Deleted,
    /// Not sent, because its content is bad: a virus was found before the first attempt
    /// (SES's Reject event).
    Rejected,
}

impl Disposition {
    /// Whether the recipient is done with.
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Disposition::Deferred(_))
    }

    /// The word for log lines and tables.
    pub fn as_str(&self) -> &'static str {
        match self {
            Disposition::Delivered => "delivered",
            Disposition::Deferred(_) => "deferred",
            Disposition::Bounced(_) => "bounced",
            Disposition::Suppressed(_) => "suppressed",
            Disposition::Deleted => "deleted",
            Disposition::Rejected => "rejected",
        }
    }
}

/// The host that an attempt spoke to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Its name in the MX record or route.
    pub host: String,
    /// The address dialled; `None` when the name had none.
    pub ip: Option<IpAddr>,
    /// The port dialled; 0 for a socket in the file system, whose path `host` is.
    pub port: u16,
    /// The address dialled from, where known.
    pub source_ip: Option<IpAddr>,
    /// How far the session came.
    pub stage: Stage,
}

impl fmt::Display for Remote {
    /// `host[address]:port`, as Postfix logs it; the path of a socket.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if let Some(ip) = self.ip {
            write!(f, "[{ip}]")?;
        }
        if self.port != 0 {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// The step of a delivery that decided its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Finding the hosts.
    Route,
    /// Connecting.
    Connect,
    /// The server's greeting.
    Banner,
    /// `EHLO` or `HELO`.
    Ehlo,
    /// `STARTTLS` and the handshake.
    StartTls,
    /// `AUTH`.
    Auth,
    /// `MAIL`.
    MailFrom,
    /// `RCPT`.
    RcptTo,
    /// `DATA` or `BDAT`, up to the go-ahead.
    Data,
    /// The reply to the end of the content.
    EndOfData,
}

impl Stage {
    /// The word for log lines and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Route => "route",
            Stage::Connect => "connect",
            Stage::Banner => "banner",
            Stage::Ehlo => "ehlo",
            Stage::StartTls => "starttls",
            Stage::Auth => "auth",
            Stage::MailFrom => "mail-from",
            Stage::RcptTo => "rcpt-to",
            Stage::Data => "data",
            Stage::EndOfData => "end-of-data",
        }
    }
}

/// The TLS of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsInfo {
    /// Such as `TLSv1.3`.
    pub version: String,
    /// Such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// Whether the certificate was verified for the host's name.
    pub authenticated: bool,
}

/// Where a delivery's time went, in milliseconds (Postfix's `delays=a/b/c/d`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delays {
    /// From the first byte of the message until it was accepted.
    pub before_queue_ms: u32,
    /// In the queue, until the attempt began.
    pub queue_ms: u32,
    /// Connecting, greeting, TLS, AUTH; 0 on a kept connection.
    pub connect_ms: u32,
    /// The transaction.
    pub transmit_ms: u32,
}

impl fmt::Display for Delays {
    /// Seconds: `0.01/2.5/0.03/0.2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u32| f64::from(ms) / 1000.0;
        write!(
            f,
            "{}/{}/{}/{}",
            seconds(self.before_queue_ms),
            seconds(self.queue_ms),
            seconds(self.connect_ms),
            seconds(self.transmit_ms)
        )
    }
}

/// Why a delivery is late: the `delayType` of SES's DeliveryDelay event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DelayType {
    /// Trouble on our side.
    InternalFailure,
    /// Anything without a name of its own.
    General,
    /// The mailbox is full.
    MailboxFull,
    /// The remote took the mail for spam, in bulk.
    SpamDetected,
    /// The remote has trouble.
    RecipientServerError,
    /// The remote blocks or throttles our address.
    #[serde(rename = "IPFailure")]
    IpFailure,
    /// The network between us and the remote has trouble.
    TransientCommunicationFailure,
    /// Our own address has no host name.
    #[serde(rename = "BYOIPHostNameLookupUnavailable")]
    ByoipHostNameLookupUnavailable,
    /// The reply says nothing.
    Undetermined,
}

impl DelayType {
    /// SES's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            DelayType::InternalFailure => "InternalFailure",
            DelayType::General => "General",
            DelayType::MailboxFull => "MailboxFull",
            DelayType::SpamDetected => "SpamDetected",
            DelayType::RecipientServerError => "RecipientServerError",
            DelayType::IpFailure => "IPFailure",
            DelayType::TransientCommunicationFailure => "TransientCommunicationFailure",
            DelayType::ByoipHostNameLookupUnavailable => "BYOIPHostNameLookupUnavailable",
            DelayType::Undetermined => "Undetermined",
        }
    }
}

/// Why a delivery failed: `bounceType` and `bounceSubType` of SES's Bounce event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BounceKind {
    /// The reply says nothing.
    Undetermined,
    /// A hard bounce without a name of its own.
    PermanentGeneral,
    /// The address does not exist.
    PermanentNoEmail,
    /// The address is on the relay's global suppression list.
    PermanentSuppressed,
    /// The address is on the account's suppression list.
    PermanentOnAccountSuppressionList,
    /// A soft bounce without a name of its own, expiry included.
    TransientGeneral,
    /// The mailbox is full.
    TransientMailboxFull,
    /// The message is too large for the recipient.
    TransientMessageTooLarge,
    /// The content was refused.
    TransientContentRejected,
    /// An attachment was refused.
    TransientAttachmentRejected,
}

impl BounceKind {
    /// SES's `bounceType`.
    pub fn bounce_type(self) -> &'static str {
        match self {
            BounceKind::Undetermined => "Undetermined",
            BounceKind::PermanentGeneral
            | BounceKind::PermanentNoEmail
            | BounceKind::PermanentSuppressed
            | BounceKind::PermanentOnAccountSuppressionList => "Permanent",
            BounceKind::TransientGeneral
            | BounceKind::TransientMailboxFull
            | BounceKind::TransientMessageTooLarge
            | BounceKind::TransientContentRejected
            | BounceKind::TransientAttachmentRejected => "Transient",
        }
    }

    /// SES's `bounceSubType`.
    pub fn bounce_sub_type(self) -> &'static str {
        match self {
            BounceKind::Undetermined => "Undetermined",
            BounceKind::PermanentGeneral | BounceKind::TransientGeneral => "General",
            BounceKind::PermanentNoEmail => "NoEmail",
            BounceKind::PermanentSuppressed => "Suppressed",
            BounceKind::PermanentOnAccountSuppressionList => "OnAccountSuppressionList",
            BounceKind::TransientMailboxFull => "MailboxFull",
            BounceKind::TransientMessageTooLarge => "MessageTooLarge",
            BounceKind::TransientContentRejected => "ContentRejected",
            BounceKind::TransientAttachmentRejected => "AttachmentRejected",
        }
    }

    /// Whether it counts as a hard bounce (`Permanent`).
    pub fn is_hard(self) -> bool {
        self.bounce_type() == "Permanent"
    }
}

/// Which suppression list named an address, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SuppressionSource {
    /// The list.
    pub list: SuppressionList,
    /// Why the address is on it.
    pub reason: SuppressionReason,
}

/// The suppression lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SuppressionList {
    /// The account's own.
    Account,
    /// The relay's, over all accounts.
    Global,
}

impl SuppressionList {
    /// The word for log lines and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            SuppressionList::Account => "account",
            SuppressionList::Global => "global",
        }
    }
}

/// Why an address is suppressed, in the spelling of SES's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SuppressionReason {
    /// It bounced hard.
    #[serde(rename = "BOUNCE")]
    Bounce,
    /// Its owner complained.
    #[serde(rename = "COMPLAINT")]
    Complaint,
}

impl SuppressionReason {
    /// SES's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            SuppressionReason::Bounce => "BOUNCE",
            SuppressionReason::Complaint => "COMPLAINT",
        }
    }
}

impl fmt::Display for SuppressionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SuppressionReason {
    type Err = Error;

    /// Reads SES's spelling, in any case.
    fn from_str(text: &str) -> Result<SuppressionReason, Error> {
        [SuppressionReason::Bounce, SuppressionReason::Complaint]
            .into_iter()
            .find(|reason| text.eq_ignore_ascii_case(reason.as_str()))
            .ok_or(Error::SuppressionReason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(disposition: Disposition) -> AttemptOutcome {
        AttemptOutcome {
            recipient: 3,
            at: Timestamp::from_millis(1_500_000_000_000),
            attempt: 2,
            disposition,
            status: EnhancedStatus::new(4, 4, 1),
            diagnostic: "421 4.4.1 no".into(),
            remote: Some(Remote {
                host: "mx.example.com".into(),
                ip: Some("192.0.2.1".parse().unwrap()),
                port: 25,
                source_ip: None,
                stage: Stage::Banner,
            }),
            tls: None,
            delays: Delays::default(),
            next_attempt: None,
            record: None,
        }
    }

    #[test]
    fn a_remote_is_written_as_it_was_dialled() {
        let remote = outcome(Disposition::Delivered).remote.unwrap();
        assert_eq!(remote.to_string(), "mx.example.com[192.0.2.1]:25");
        let socket = Remote { host: "/run/dovecot/lmtp".into(), ip: None, port: 0, ..remote };
        assert_eq!(socket.to_string(), "/run/dovecot/lmtp");
    }

    #[test]
    fn outcomes_survive_disk_and_json() {
        for disposition in [
            Disposition::Delivered,
            Disposition::Deferred(DelayType::IpFailure),
            Disposition::Bounced(BounceKind::PermanentNoEmail),
            Disposition::Suppressed(SuppressionSource {
                list: SuppressionList::Account,
                reason: SuppressionReason::Complaint,
            }),
            Disposition::Deleted,
            Disposition::Rejected,
        ] {
            let outcome = outcome(disposition);
            let bytes = postcard::to_allocvec(&outcome).unwrap();
            assert_eq!(postcard::from_bytes(&bytes), Ok(outcome.clone()));
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<AttemptOutcome>(&json).unwrap(), outcome);
        }
    }

    #[test]
    fn spellings_agree_with_serde() {
        for delay in [
            DelayType::InternalFailure,
            DelayType::IpFailure,
            DelayType::ByoipHostNameLookupUnavailable,
            DelayType::TransientCommunicationFailure,
        ] {
            let json = serde_json::to_string(&delay).unwrap();
            assert_eq!(json.trim_matches('"'), delay.as_str());
        }
        assert_eq!("bounce".parse(), Ok(SuppressionReason::Bounce));
        assert_eq!("spam".parse::<SuppressionReason>(), Err(Error::SuppressionReason));
    }

    #[test]
    fn only_a_deferral_goes_on() {
        assert!(!Disposition::Deferred(DelayType::General).is_terminal());
        assert!(Disposition::Deleted.is_terminal() && Disposition::Rejected.is_terminal());
        assert!(BounceKind::PermanentNoEmail.is_hard());
        assert!(!BounceKind::TransientContentRejected.is_hard());
    }

    #[test]
    fn people_read_hosts_and_delays() {
        let remote = outcome(Disposition::Delivered).remote.unwrap();
        assert_eq!(remote.to_string(), "mx.example.com[192.0.2.1]:25");
        let delays = Delays { before_queue_ms: 10, queue_ms: 2500, connect_ms: 0, transmit_ms: 1 };
        assert_eq!(delays.to_string(), "0.01/2.5/0/0.001");
    }
}

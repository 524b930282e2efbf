//! Why a remote host did not take a message, and what that means in SES's
//! vocabulary.

use postrider_mail::{BounceKind, DelayType, Stage};

/// Why a remote host did not take a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    /// The message has an attachment that the host does not take.
    Attachment,
    /// The message is not signed or authorised as the host wants it.
    Authentication,
    /// The host does not like what the message says.
    Content,
    /// The host wants to see the message again later (RFC 6647).
    Greylisted,
    /// The mailbox gets more mail than it may at the moment.
    MailboxBusy,
    /// The mailbox exists, or may exist, and takes no mail, or none from this
    /// sender.
    MailboxClosed,
    /// The mailbox has no room.
    MailboxFull,
    /// The host cannot reach what is behind it.
    Network,
    /// The host names the mailbox as unknown.
    NoMailbox,
    /// Nothing known.
    Other,
    /// The host refuses the sender or the relay before it has seen the message,
    /// and says no more than that it is its policy.
    Policy,
    /// The host did not expect what the relay said, or wanted something else
    /// first: encryption, a password.
    Protocol,
    /// The host does not take mail for the domain.
    Relaying,
    /// The sender's domain has a bad name with the host.
    Reputation,
    /// The host does not take mail from this sender.
    Sender,
    /// The host is out of order.
    Server,
    /// The host does not take mail from this address.
    SourceBlocked,
    /// The host does not like the name of this address.
    SourceName,
    /// The host takes no more mail from this address for now.
    Throttled,
    /// The message is too large.
    TooLarge,
    /// More recipients than the host takes in one transaction.
    TooManyRecipients,
}

impl Cause {
    /// What a reply that asks to come back says in a DeliveryDelay event.
    pub(super) fn delay_type(self, stage: Stage) -> DelayType {
        match self {
            // A password that is refused is the relay's own trouble.
            _ if stage == Stage::Auth => DelayType::InternalFailure,
            Self::Content | Self::Reputation => DelayType::SpamDetected,
            Self::MailboxFull => DelayType::MailboxFull,
            Self::Network => DelayType::TransientCommunicationFailure,
            Self::Server => DelayType::RecipientServerError,
            Self::SourceBlocked | Self::Throttled => DelayType::IpFailure,
            Self::SourceName => DelayType::ByoipHostNameLookupUnavailable,
            _ => DelayType::General,
        }
    }

    /// What a reply that ends a recipient says in a Bounce event.
    ///
    /// Only a mailbox that is unknown, closed, or not served where the mail
    /// went makes a `Permanent` bounce, and a reply that says nothing, as SES
    /// has it. Anything that is about the message, the relay or the host's own
    /// state is `Transient`: the address may be good.
    pub(super) fn bounce_kind(self) -> BounceKind {
        match self {
            Self::Attachment => BounceKind::TransientAttachmentRejected,
            Self::Content => BounceKind::TransientContentRejected,
            Self::MailboxFull => BounceKind::TransientMailboxFull,
            Self::NoMailbox => BounceKind::PermanentNoEmail,
            Self::TooLarge => BounceKind::TransientMessageTooLarge,
            Self::MailboxClosed | Self::Other | Self::Relaying => BounceKind::PermanentGeneral,
            Self::Authentication
            | Self::Greylisted
            | Self::MailboxBusy
            | Self::Network
            | Self::Policy
            | Self::Protocol
            | Self::Reputation
            | Self::Sender
            | Self::Server
            | Self::SourceBlocked
            | Self::SourceName
            | Self::Throttled
            | Self::TooManyRecipients => BounceKind::TransientGeneral,
        }
    }

    /// Whether the operator should look: nothing gets better by itself.
    pub(super) fn is_about_us(self) -> bool {
        matches!(
            self,
            Self::Authentication
                | Self::Policy
                | Self::Protocol
                | Self::Reputation
                | Self::Sender
                | Self::SourceBlocked
                | Self::SourceName
        )
    }
}

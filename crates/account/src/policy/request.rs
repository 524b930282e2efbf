//! What a policy is asked, and what its condition keys stand for.

use std::borrow::Cow;
use std::net::IpAddr;

use postrider_base::Timestamp;
use postrider_mail::{AccountId, EmailAddress};

use crate::Arn;

/// The right that submission by SMTP needs, as SES names it.
pub const SEND_RAW_EMAIL: &str = "ses:SendRawEmail";

/// A wish to send, as policies see it. What is not known has no value: conditions about it
/// hold only where they are negated or end in `IfExists`.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRequest<'a> {
    /// What is to be done: [`SEND_RAW_EMAIL`].
    pub action: &'a str,
    /// The identity that it is done with.
    pub resource: &'a Arn,
    /// The account of who does it.
    pub account: AccountId,
    /// The name of who does it, in that account.
    pub user_name: &'a str,
    /// `aws:PrincipalArn`: the whole name of who does it.
    pub principal: &'a Arn,
    /// `ses:FromAddress`: an author of the message.
    pub from: Option<&'a EmailAddress>,
    /// `ses:FromDisplayName`: the author's name, decoded. With U+FFFD, which stands for what can
    /// not be decoded, it is a name that nobody can tell.
    pub from_display_name: Option<&'a str>,
    /// `ses:FeedbackAddress`: where bounces and complaints go.
    pub feedback: Option<&'a EmailAddress>,
    /// `ses:Recipients`: everybody that the message goes to.
    pub recipients: &'a [&'a EmailAddress],
    /// `aws:SourceIp`: the client's address.
    pub source_ip: Option<IpAddr>,
    /// `aws:SecureTransport`: whether the client's connection is encrypted.
    pub is_secure: bool,
    /// `aws:UserAgent`: what the client calls its program. Nothing over SMTP.
    pub user_agent: Option<&'a str>,
    /// `aws:CurrentTime` and `aws:EpochTime`, to the second.
    pub now: Timestamp,
}

/// What stands for octets that are no text.
const UNREADABLE: char = char::REPLACEMENT_CHARACTER;

/// A condition key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Recipients,
    FromAddress,
    FromDisplayName,
    FeedbackAddress,
    CurrentTime,
    EpochTime,
    SecureTransport,
    SourceIp,
    UserAgent,
    PrincipalAccount,
    PrincipalArn,
    UserName,
}

/// The keys as they are written; found without regard to case, as in IAM.
pub(super) const KEYS: [(&str, Key); 12] = [
    ("ses:Recipients", Key::Recipients),
    ("ses:FromAddress", Key::FromAddress),
    ("ses:FromDisplayName", Key::FromDisplayName),
    ("ses:FeedbackAddress", Key::FeedbackAddress),
    ("aws:CurrentTime", Key::CurrentTime),
    ("aws:EpochTime", Key::EpochTime),
    ("aws:SecureTransport", Key::SecureTransport),
    ("aws:SourceIp", Key::SourceIp),
    ("aws:UserAgent", Key::UserAgent),
    ("aws:PrincipalAccount", Key::PrincipalAccount),
    ("aws:PrincipalArn", Key::PrincipalArn),
    ("aws:username", Key::UserName),
];

/// One value of a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    /// A text of which a part can not be read.
    Unreadable,
    Account(AccountId),
    /// Seconds since the Unix epoch.
    Seconds(u64),
    Flag(bool),
    Ip(IpAddr),
}

impl Key {
    /// Whether a request can have several values of it.
    pub(super) fn is_many(self) -> bool {
        self == Self::Recipients
    }

    /// Whether its values are addresses, whose domains have no case.
    pub(super) fn is_address(self) -> bool {
        matches!(self, Self::Recipients | Self::FromAddress | Self::FeedbackAddress)
    }

    /// Its values in a request; none when the request does not say.
    pub(super) fn values<'a>(self, request: &PolicyRequest<'a>) -> impl Iterator<Item = Value<'a>> {
        let text = |text: &'a str| Value::Text(Cow::Borrowed(text));
        let address = move |address: &'a EmailAddress| match address.unquoted() {
            Cow::Borrowed(address) => text(address.as_str()),
            Cow::Owned(address) => Value::Text(Cow::Owned(address.to_string())),
        };
        let one = match self {
            Self::Recipients => None,
            Self::FromAddress => request.from.map(address),
            Self::FromDisplayName => request.from_display_name.map(|name| match name.contains(UNREADABLE) {
                true => Value::Unreadable,
                false => text(name),
            }),
            Self::FeedbackAddress => request.feedback.map(address),
            Self::CurrentTime | Self::EpochTime => Some(Value::Seconds(request.now.as_millis() / 1_000)),
            Self::SecureTransport => Some(Value::Flag(request.is_secure)),
            Self::SourceIp => request.source_ip.map(Value::Ip),
            Self::UserAgent => request.user_agent.map(text),
            Self::PrincipalAccount => Some(Value::Account(request.account)),
            Self::PrincipalArn => Some(text(request.principal.as_str())),
            Self::UserName => Some(text(request.user_name)),
        };
        let recipients = if self == Self::Recipients { request.recipients } else { &[] };
        one.into_iter().chain(recipients.iter().copied().map(address))
    }
}

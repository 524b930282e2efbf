//! The rules asked about a message that nobody has sent.

use std::net::IpAddr;

use postrider_account::Accounts;
use postrider_base::Timestamp;
use postrider_mail::{AccountId, EmailAddress, Envelope};

use super::{CHECKS, Decision, Rules, Submitted};
use crate::header::{Mailbox, Senders};
use crate::{Refusal, Settings};

/// A message that might be sent, over TLS and without ARNs.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Whose it would be.
    pub account: AccountId,
    /// The user name of the credential that would send it.
    pub credential: &'a str,
    /// Its sender and its recipients.
    pub envelope: &'a Envelope,
    /// Its author.
    pub from: &'a EmailAddress,
    /// The configuration set that it would name.
    pub set: Option<&'a str>,
    /// Where it would come from; none where conditions about it are to find nothing.
    pub client_ip: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
}

/// What one check says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// A word of a closed set: `account`, `senders`, `policies`, `configuration-set`,
    /// `recipients`.
    pub check: &'static str,
    /// Why the message would be refused.
    pub refusal: Option<Refusal>,
}

impl Rules {
    /// The rules over these accounts.
    #[must_use]
    pub fn new(accounts: Accounts, settings: &Settings) -> Self {
        Self {
            accounts,
            realm: settings.realm(),
            unverified_senders: settings.unverified_senders,
            operator_domain: settings.operator_domain().to_owned(),
        }
    }

    /// What each check says, those behind a refusal too.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Vec<Answer> {
        let senders = senders(question);
        let (submitted, mut decision) = (submitted(question, &senders), Decision::default());
        let answer = |check: &super::Check| Answer {
            check: check.name,
            refusal: (check.ask)(self, &submitted, &mut decision).err(),
        };
        CHECKS.iter().map(answer).collect()
    }

    /// Whether the message would be taken.
    ///
    /// # Errors
    /// The refusal of the first check that it does not pass.
    pub fn ask(&self, question: &Question<'_>) -> Result<(), Refusal> {
        let senders = senders(question);
        self.decide(&submitted(question, &senders)).map(drop)
    }
}

fn senders(question: &Question<'_>) -> Senders {
    Senders { from: vec![Mailbox { address: question.from.clone(), name: None }], ..Senders::default() }
}

fn submitted<'a>(question: &Question<'a>, senders: &'a Senders) -> Submitted<'a> {
    Submitted {
        account: question.account,
        credential: question.credential,
        envelope: question.envelope,
        senders,
        set: question.set,
        client_ip: question.client_ip,
        has_tls: true,
        now: question.now,
    }
}

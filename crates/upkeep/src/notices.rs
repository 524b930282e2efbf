//! The mails that upkeep writes: to the operator about changes, to an address with its link.

use std::time::Duration;

use parking_lot::Mutex;
use postrider_account::{DkimKey, Identity, IdentityName, VerificationStatus};
use postrider_base::Timestamp;
use postrider_mail::{AccountId, EmailAddress};
use postrider_submission::{Letter, Submission};

const HOUR: Duration = Duration::from_secs(3600);

/// What changed of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) account: AccountId,
    pub(crate) name: IdentityName,
    /// `identity`, or `MAIL FROM domain x of identity`.
    pub(crate) what: String,
    pub(crate) before: VerificationStatus,
    pub(crate) after: VerificationStatus,
    pub(crate) problem: Option<String>,
}

/// Who is told of changes, and how often.
#[derive(Debug)]
pub(crate) struct Notices {
    operator: Option<EmailAddress>,
    most: u32,
    /// Since when it is counted, and how many there were.
    hour: Mutex<(Timestamp, u32)>,
}

impl Notices {
    pub(crate) fn new(operator: Option<EmailAddress>, most: u32) -> Self {
        Self { operator, most, hour: Mutex::default() }
    }

    /// Logs a change, and mails it to the operator.
    pub(crate) async fn tell(&self, submission: &Submission, now: Timestamp, change: &Change) {
        let Change { account, name, what, before, after, problem } = change;
        let (before, after) = (before.as_str(), after.as_str());
        let problem = problem.as_deref().unwrap_or("as it should be");
        match change.after {
            VerificationStatus::Success => tracing::info!(%account, "{what} {name}: {before} -> {after}"),
            _ => tracing::warn!(%account, "{what} {name}: {before} -> {after}: {problem}"),
        }
        let text = format!(
            "The state of the {what} {name}\nof account {account} has changed.\n\n\
             Before: {before}\nNow:    {after}\nFound:  {problem}\n\n{}\n",
            advice(change.after),
        );
        self.mail(submission, now, &format!("{what} is {after}"), &text).await;
    }

    /// Mails the operator, if there is one and the hour has room.
    pub(crate) async fn mail(&self, submission: &Submission, now: Timestamp, subject: &str, text: &str) {
        self.mail_all(submission, now, None, subject, text).await;
    }

    /// As [`Notices::mail`], and to somebody else whom it concerns.
    pub(crate) async fn mail_all(
        &self,
        submission: &Submission,
        now: Timestamp,
        concerned: Option<&EmailAddress>,
        subject: &str,
        text: &str,
    ) {
        for to in self.operator.iter().chain(concerned.filter(|to| self.operator.as_ref() != Some(to))) {
            if !self.has_room(now) {
                tracing::warn!("upkeep.notices_per_hour = {} is reached: not mailed", self.most);
                return;
            }
            let letter = Letter { account: AccountId::default(), to, subject, text };
            if let Err(error) = submission.write(letter).await {
                tracing::warn!(%error, "a notice could not be mailed");
            }
        }
    }

    /// Counts a mail; whether it may be sent.
    fn has_room(&self, now: Timestamp) -> bool {
        let mut hour = self.hour.lock();
        if now.saturating_since(hour.0) >= HOUR {
            *hour = (now, 0);
        }
        hour.1 = hour.1.saturating_add(1);
        hour.1 <= self.most
    }
}

fn advice(after: VerificationStatus) -> &'static str {
    match after {
        VerificationStatus::TemporaryFailure => "It is looked for during 72 hours, and counts as failed then.",
        VerificationStatus::Failed => {
            "It is not looked for any more. When it is mended, start again with\n`postrider identities verify` \
             or, for a MAIL FROM domain,\n`postrider identities mail-from`."
        }
        _ => "Nothing needs to be done.",
    }
}

/// The mail about a key that signs, and whose record is gone.
pub(crate) fn gone_text(key: &DkimKey, problem: &str) -> String {
    let DkimKey { account, domain, selector, .. } = key;
    format!(
        "A DKIM key of account {account} signs mail, and nobody can verify that:\n\n    {}\n\n\
         Found:  {problem}\n\n\
         Publish the record that\n`postrider dkim show {domain} {selector}` prints. \
         A next key that is published\nsigns in its place; own keys are left alone.\n",
        key.record_name(),
    )
}

/// The mail about a new key under the selector of one that nobody needs any more.
pub(crate) fn renewed_text(key: &DkimKey) -> String {
    let DkimKey { account, domain, selector, .. } = key;
    format!(
        "There is a new DKIM key of account {account}, to sign in its turn:\n\n    {}\n\n\
         Publish the record that\n`postrider dkim show {domain} {selector}` prints, \
         in the place of the old one there:\nnobody needs that any more.\n",
        key.record_name(),
    )
}

/// The mail with a link, to the address that it proves.
pub(crate) fn link_text(hostname: &str, identity: &Identity, url: &str) -> String {
    format!(
        "Somebody who sends mail through {hostname}\nwants to send it in the name of\n\n    {}\n\n\
         If you want that, open this page within 24 hours and press its button:\n\n{url}\n\n\
         If you do not, or do not know what this is about, do nothing.\nWithout you nothing is allowed.\n",
        identity.name,
    )
}

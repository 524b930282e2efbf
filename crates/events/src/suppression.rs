//! Automatic suppression: an address whose mailbox a server said does not exist gets no more mail.

use postrider_account::Accounts;
use postrider_base::Scope;
use postrider_mail::{AccountId, EmailAddress};
use postrider_store::{Store, Table};
use serde::Deserialize;
use tracing::{error, warn};

use crate::error::Result;
use crate::journal::Events;
use crate::reader::{Reader, Start};
use crate::record::{Cursor, Kind, Line};

/// Name of the table that holds how far readers of the journal have come.
const TABLE: &str = "journal-cursors";

/// Events after which the place is kept although nothing came of them: a sync is dearer than
/// reading as many again at the next start.
const SAVE_EVERY: usize = 10_000;

/// This reader's row in it.
const READER: &str = "suppression";

impl Events {
    /// Starts to put the recipients of hard bounces on their account's suppression list, until
    /// the scope ends. It goes on where the last run ended; telling the list of a bounce twice
    /// changes nothing.
    ///
    /// # Errors
    /// When the store can not be read.
    pub fn suppress(
        &self,
        accounts: &Accounts,
        store: &Store,
        scope: &Scope,
    ) -> std::result::Result<(), postrider_store::Error> {
        let cursors: Table<String, Cursor> = store.table(TABLE);
        let start = cursors.get(&READER.to_owned())?.map_or(Start::Oldest, Start::After);
        let suppressor = Suppressor { accounts: accounts.clone(), cursors };
        let reader = self.since(start);
        let ended = scope.clone();
        scope.spawn("suppression", async move {
            tokio::select! {
                () = ended.cancelled() => {}
                result = suppressor.run(reader) => {
                    if let Err(error) = result {
                        error!(%error, "automatic suppression has stopped until the next start");
                    }
                }
            }
        });
        Ok(())
    }
}

struct Suppressor {
    accounts: Accounts,
    cursors: Table<String, Cursor>,
}

impl Suppressor {
    async fn run(&self, mut reader: Reader) -> Result<()> {
        let mut unsaved = 0;
        loop {
            let lines = reader.follow().await?;
            let mut suppressed = false;
            for line in lines.iter().filter(|line| line.kind == Kind::Bounce) {
                suppressed |= self.take(line).await;
            }
            unsaved += lines.len();
            let Some(last) = lines.last().filter(|_| suppressed || unsaved >= SAVE_EVERY) else { continue };
            unsaved = 0;
            if let Err(error) = self.cursors.put(&READER.to_owned(), &last.cursor).await {
                warn!(%error, "the place in the journal is not kept");
            }
        }
    }

    /// Whether the event was a hard bounce.
    async fn take(&self, line: &Line) -> bool {
        let Some(bounce) = hard_bounce(&line.json) else { return false };
        for address in &bounce.recipients {
            let list = self.accounts.suppression();
            if let Err(error) = list.record_hard_bounce(bounce.account, address, line.at).await {
                warn!(%error, id = %line.id, "the recipient of a hard bounce is not suppressed");
            }
        }
        true
    }
}

#[derive(Debug, PartialEq)]
struct HardBounce {
    account: AccountId,
    recipients: Vec<EmailAddress>,
}

/// Only a reply that calls the mailbox unknown (`NoEmail`) suppresses: every other permanent
/// failure may be about the message or about us.
fn hard_bounce(json: &[u8]) -> Option<HardBounce> {
    let event: Event = serde_json::from_slice(json).ok()?;
    if event.bounce.bounce_type != "Permanent" || event.bounce.bounce_sub_type != "NoEmail" {
        return None;
    }
    let addresses = event.bounce.bounced_recipients.iter().map(|recipient| recipient.email_address.parse());
    Some(HardBounce { account: event.mail.sending_account_id.parse().ok()?, recipients: addresses.flatten().collect() })
}

/// What is read of an event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    bounce: Bounce,
    mail: Mail,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bounce {
    bounce_type: String,
    bounce_sub_type: String,
    bounced_recipients: Vec<Bounced>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bounced {
    email_address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mail {
    sending_account_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounce(kind: &str, sub_type: &str) -> String {
        format!(
            r#"{{"eventType":"Bounce","bounce":{{"bounceType":"{kind}","bounceSubType":"{sub_type}","bouncedRecipients":[{{"emailAddress":"gone@example.com","action":"failed"}}]}},"mail":{{"sendingAccountId":"000000000001"}}}}"#
        )
    }

    #[test]
    fn only_unknown_mailboxes_are_hard() {
        let hard = hard_bounce(bounce("Permanent", "NoEmail").as_bytes()).unwrap();
        assert_eq!(hard.account, AccountId::default());
        assert_eq!(hard.recipients, ["gone@example.com".parse().unwrap()]);
        for (kind, sub_type) in
            [("Permanent", "General"), ("Permanent", "OnAccountSuppressionList"), ("Transient", "MailboxFull")]
        {
            assert_eq!(hard_bounce(bounce(kind, sub_type).as_bytes()), None);
        }
    }

    #[test]
    fn other_events_and_rubbish_are_not() {
        assert_eq!(hard_bounce(br#"{"eventType":"Send","mail":{"sendingAccountId":"000000000001"}}"#), None);
        assert_eq!(hard_bounce(b"{"), None);
    }
}

//! Changes that are made all the time, by several accounts at once: one that was acknowledged
//! holds for the next message, and after a restart.

use std::path::Path;
use std::sync::Arc;

use postrider_account::{Identity, NewCredential, Pause, PausedBy, PolicyOwner, Sending};
use postrider_base::{Clock, Random, SimDisk};
use postrider_mail::Recipient;
use postrider_store::Store;

use super::*;
use crate::Settings;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const ACCOUNTS: u64 = 4;
const CHANGES: usize = 150;
const SET: &str = "news";
const DOMAIN: &str = "example.com";

/// What is in the way of an account's mail.
#[derive(Debug)]
struct Sender {
    account: AccountId,
    user: String,
    is_paused: bool,
    is_unverified: bool,
    is_denied: bool,
    is_disabled: bool,
    has_no_set: bool,
    is_set_paused: bool,
}

impl Sender {
    async fn new(accounts: &Accounts, account: AccountId) -> Self {
        let new = NewCredential { account, ..NewCredential::default() };
        let user = accounts.credentials().create(new).await.unwrap().credential.user_name;
        Self {
            account,
            user,
            is_paused: false,
            is_unverified: true,
            is_denied: false,
            is_disabled: false,
            has_no_set: true,
            is_set_paused: false,
        }
    }

    /// Turns one of these over, which is acknowledged when it returns.
    async fn change(&mut self, accounts: &Accounts, which: u64) {
        let (account, sets) = (self.account, accounts.configuration_sets());
        match which {
            0 => {
                turn(&mut self.is_paused);
                let sending = sending(self.is_paused);
                accounts.tenants().change(account, |tenant| tenant.sending = sending).await.unwrap();
            }
            1 => {
                let name = DOMAIN.parse().unwrap();
                match turn(&mut self.is_unverified) {
                    true => accounts.identities().delete(account, &name).await.unwrap(),
                    false => {
                        let identity = Identity { trusted: true, ..Identity::new(account, name) };
                        accounts.identities().create(identity).await.unwrap();
                    }
                }
            }
            2 => {
                let effect = if turn(&mut self.is_denied) { "Deny" } else { "Allow" };
                let text = format!(r#"{{"Statement":{{"Effect":"{effect}","Action":"*","Resource":"*"}}}}"#);
                let (owner, realm) = (PolicyOwner::Credential(self.user.clone()), Settings::default().realm());
                accounts.policies().put(&owner, "all", &text, &realm).await.unwrap();
            }
            3 => {
                match turn(&mut self.is_disabled) {
                    true => accounts.credentials().disable(&self.user).await.unwrap(),
                    false => accounts.credentials().enable(&self.user).await.unwrap(),
                };
            }
            4 => match turn(&mut self.has_no_set) {
                true => sets.delete(account, SET).await.unwrap(),
                false => {
                    self.is_set_paused = false;
                    sets.create(account, SET, Vec::new()).await.unwrap();
                }
            },
            _ if self.has_no_set => {}
            _ => {
                let sending = sending(turn(&mut self.is_set_paused));
                sets.set_sending(account, SET, sending).await.unwrap();
            }
        }
    }

    /// The check that its next message does not pass.
    fn expected(&self) -> Option<&'static str> {
        let checks = [
            ("account", self.is_paused),
            ("senders", self.is_unverified),
            ("policies", self.is_denied || self.is_disabled),
            ("configuration-set", self.has_no_set || self.is_set_paused),
        ];
        checks.iter().find(|(_, refuses)| *refuses).map(|(check, _)| *check)
    }

    fn assert_holds(&self, accounts: &Accounts) {
        let from = format!("ann@{DOMAIN}").parse().unwrap();
        let envelope = Envelope {
            sender: Some(format!("ann@{DOMAIN}").parse().unwrap()),
            recipients: vec![Recipient::new("bob@example.org".parse().unwrap())],
            ..Envelope::default()
        };
        let question = Question {
            account: self.account,
            credential: &self.user,
            envelope: &envelope,
            from: &from,
            set: Some(SET),
            client_ip: None,
            now: NOW,
        };
        let settings = Settings { unverified_senders: UnverifiedSenders::Reject, ..Settings::default() };
        let answers = Rules::new(accounts.clone(), &settings).explain(&question);
        let refusing = answers.iter().find(|answer| answer.refusal.is_some()).map(|answer| answer.check);
        assert_eq!(refusing, self.expected(), "{self:?}");
    }
}

/// What it is from now on.
fn turn(flag: &mut bool) -> bool {
    *flag = !*flag;
    *flag
}

fn sending(is_paused: bool) -> Sending {
    let pause = || Pause { by: PausedBy::Operator, at: NOW, reason: String::new(), hold: false };
    if is_paused { Sending::Paused(pause()) } else { Sending::Enabled }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_holds_for_the_next_message_and_after_a_restart() {
    let index = tempfile::tempdir().unwrap();
    let options = postrider_store::Options { index_dir: Some(index.path().to_owned()), ..Default::default() };
    let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).unwrap();
    let open = || Accounts::open(&store, &Clock::simulated(NOW), &Random::seeded(3), &Default::default()).unwrap();
    let accounts = open();
    let mut walks = Vec::new();
    for number in 1..=ACCOUNTS {
        let accounts = accounts.clone();
        walks.push(tokio::spawn(async move {
            let random = Random::seeded(number);
            let mut sender = Sender::new(&accounts, AccountId::new(number).unwrap()).await;
            for _ in 0..CHANGES {
                sender.assert_holds(&accounts);
                sender.change(&accounts, random.below(6)).await;
            }
            sender
        }));
    }
    let mut senders = Vec::new();
    for walk in walks {
        senders.push(walk.await.unwrap());
    }
    let restarted = open();
    for sender in &senders {
        sender.assert_holds(&accounts);
        sender.assert_holds(&restarted);
    }
}

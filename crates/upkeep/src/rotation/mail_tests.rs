//! The mails about keys: what a person has to do, told once, and to nobody where there is nothing
//! to do.

use postrider_account::Identity;
use postrider_base::Random;
use postrider_dns::zones::Failure;
use postrider_mailauth::dkim::Sealing;
use postrider_submission::KeyRingDeps;
use tokio::sync::Mutex;

use super::*;
use crate::tests::World;

const DAY: Duration = Duration::from_hours(24);
const RETENTION: Duration = Duration::from_hours(7 * 24);
const GONE: &str = "A DKIM key that signs is not published";
const RENEWED: &str = "A new DKIM key is to be published";

/// A domain whose keys are looked after, and an operator.
struct Desk {
    world: World,
    rotation: Rotation,
    watch: Mutex<Watch>,
}

fn com() -> Domain {
    "example.com".parse().unwrap()
}

fn name() -> IdentityName {
    IdentityName::Domain(com())
}

impl Desk {
    async fn new() -> Self {
        let world = World::new().await;
        let random = Random::seeded(7);
        let ring = KeyRing::new(KeyRingDeps {
            accounts: world.accounts.clone(),
            sealer: Sealing::ephemeral(&random).unwrap().into(),
            clock: world.clock.clone(),
            random,
            max_open: 10,
            retention: RETENTION,
        });
        let rotation = Rotation {
            ring,
            identities: world.accounts.identities().clone(),
            resolver: Arc::new(world.zones.clone()),
            clock: world.clock.clone(),
            period: 90 * DAY,
            interval: Duration::from_mins(15),
            recheck: Duration::from_hours(6),
            lookups: 8,
            operator: Some(world.upkeep.clone()),
        };
        let desk = Self { world, rotation, watch: Mutex::default() };
        desk.world.accounts.identities().create(Identity::new(AccountId::default(), name())).await.unwrap();
        desk.rotation.ring.create_managed(AccountId::default(), &com(), DkimAlgorithm::RsaSha256).await.unwrap();
        desk.publish();
        desk.step().await;
        desk
    }

    /// Publishes every key there is.
    fn publish(&self) {
        for key in self.world.accounts.dkim_keys().all() {
            self.world.zones.remove(&key.record_name()).add_txt(&key.record_name(), &key.public);
        }
    }

    fn unpublish(&self) {
        for key in self.world.accounts.dkim_keys().all() {
            self.world.zones.remove(&key.record_name());
        }
    }

    fn current(&self) -> Arc<DkimKey> {
        let mut keys = self.world.accounts.dkim_keys().of_domain(AccountId::default(), &com());
        keys.retain(|key| key.state == KeyState::Current);
        keys.remove(0)
    }

    async fn sign(&self, signs: bool) {
        let set = |identity: &mut Identity| identity.dkim.enabled = signs;
        self.world.accounts.identities().change(AccountId::default(), &name(), set).await.unwrap();
    }

    async fn step(&self) {
        self.rotation.step(&mut *self.watch.lock().await).await;
    }

    async fn after(&self, time: Duration) {
        tokio::time::advance(time).await;
        self.step().await;
    }

    /// The texts of the operator's mails with this subject since the last time.
    async fn told(&self, subject: &str) -> Vec<String> {
        let line = format!("\r\nSubject: {subject}\r\n");
        let mails = self.world.mails().await;
        let about = mails.into_iter().filter(|(to, mail)| to == "operator@example.net" && mail.contains(&line));
        about.map(|(_, mail)| mail).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_gone_is_told_once_until_it_was_there_again() {
    let desk = Desk::new().await;
    desk.after(DAY).await;
    assert_eq!(desk.told(GONE).await, Vec::<String>::new(), "all is published");
    for _ in 0..2 {
        let key = desk.current();
        desk.unpublish();
        desk.after(DAY).await;
        let told = desk.told(GONE).await;
        let [mail] = &told[..] else { panic!("{told:?}") };
        assert!(mail.contains(&key.record_name()), "{mail}");
        assert!(mail.contains(&format!("postrider dkim show example.com {}", key.selector)), "{mail}");
        assert!(mail.contains("Found:  ") && !mail.contains("PRIVATE"), "{mail}");
        desk.after(DAY).await;
        assert_eq!(desk.told(GONE).await.len(), 0, "it is known");
        desk.publish();
        desk.after(DAY).await;
        assert_eq!(desk.told(GONE).await.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_no_reason_for_a_mail() {
    let desk = Desk::new().await;
    desk.world.zones.fail(&desk.current().record_name(), Failure::ServFail);
    desk.after(DAY).await;
    assert_eq!(desk.told(GONE).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_in_the_place_of_an_old_one_is_to_be_published() {
    let desk = Desk::new().await;
    let first = desk.current();
    desk.after(90 * DAY).await;
    assert_ne!(desk.current().selector, first.selector, "its time is over");
    assert_eq!(desk.told(RENEWED).await.len(), 0, "mail that it signed is under way");
    desk.after(RETENTION).await;
    let told = desk.told(RENEWED).await;
    let [mail] = &told[..] else { panic!("{told:?}") };
    assert!(mail.contains(&first.record_name()), "{mail}");
    assert!(mail.contains(&format!("postrider dkim show example.com {}", first.selector)), "{mail}");
    desk.after(DAY).await;
    assert_eq!(desk.told(RENEWED).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_keys_that_are_not_used() {
    let desk = Desk::new().await;
    desk.after(90 * DAY).await;
    desk.sign(false).await;
    desk.unpublish();
    desk.after(RETENTION).await;
    assert_eq!(desk.told(GONE).await.len() + desk.told(RENEWED).await.len(), 0);
}

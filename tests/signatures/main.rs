//! Signatures on real and made-up messages, put on by the real daemon and
//! verified by three programs of others: dkimpy, OpenDKIM and mail-auth. As
//! they leave the relay, and after real mail servers have passed them on.

mod hops;
mod varied;
mod verifiers;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_account::{Accounts, DkimKey, Identity};
use postrider_base::{Clock, Random, RealDisk};
use postrider_mail::{AccountId, DkimAlgorithm, Domain};
use postrider_store::Store;
use postrider_submission::{KeyRing, KeyRingDeps, Sealer};
use postrider_testkit::lines::stuffed;
use postrider_testkit::relay::{Relay, RelayOptions};
use postrider_testkit::{Record, Sink};

use hops::Hop;
use varied::Sample;
use verifiers::{Key, Verdict};

type Outcome = Result<(), Box<dyn Error>>;

/// Whose mail is signed twice, by RSA and by Ed25519.
const AUTHORS: &str = "example.com";
/// Who signs all mail besides.
const OPERATOR: &str = "operator.example";
/// How long all of a test's mail may take.
const PATIENCE: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
async fn as_they_leave_the_relay() -> Outcome {
    Scene::new(Hop::None).await?.holds().await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_postfix() -> Outcome {
    Scene::new(Hop::Postfix).await?.holds().await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_exim() -> Outcome {
    Scene::new(Hop::Exim).await?.holds().await
}

/// Keys change under load, and each message is good by the keys that are listed to publish then.
#[tokio::test(flavor = "multi_thread")]
async fn while_keys_change() -> Outcome {
    const ROTATIONS: u64 = 2;
    const BETWEEN: u64 = 200;
    let mut scene = Scene::new(Hop::None).await?;
    let mut samples = varied::samples(&Random::seeded(6377))?;
    samples.retain(|sample| sample.is_ours && sample.content.len() < 20_000);
    samples.truncate(900);
    let rotations = async {
        for rotation in 1..=ROTATIONS {
            while scene.sink.accepted() < rotation * BETWEEN {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            scene.relay.cli(&["dkim", "rotate", AUTHORS, "--force"])?;
        }
        Ok(())
    };
    let (sent, rotated) = tokio::join!(scene.send(&samples), rotations);
    sent.and(rotated)?;
    let folder = tempfile::tempdir()?;
    scene.arrived(&samples, folder.path()).await?;
    let listed = scene.relay.cli(&["dkim", "list", "--json"])?.stdout;
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed)?;
    let keys: Vec<Key> = listed.iter().filter_map(Key::listed).filter(|key| key.domain == AUTHORS).collect();
    for verifier in verifiers::ALL {
        let verdicts = verifier.verify(folder.path(), &keys)?;
        let bad: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.passes).collect();
        assert!(bad.is_empty(), "{}: {bad:?}", verifier.name());
        let used: BTreeSet<&str> = verdicts.iter().map(|verdict| verdict.selector.as_str()).collect();
        assert_eq!((verdicts.len(), used.len()), (2 * samples.len(), 6), "RSA and Ed25519, three keys of each");
    }
    Ok(())
}

/// A relay with keys, a hop perhaps, and a sink that keeps what came through.
struct Scene {
    relay: Relay,
    sink: Sink,
    kept: Record,
    keys: Vec<Key>,
    hop: hops::Running,
}

impl Scene {
    async fn new(hop: Hop) -> Result<Self, Box<dyn Error>> {
        let kept = Record::default();
        let sink = Sink::start(kept.clone(), Clock::system()).await?;
        let hop = hop.start(sink.address()).await?;
        let text =
            "[dns]\nservers = [\"127.0.0.1:9\"]\n\n[dkim]\noperator_signature = true\n\n[delivery]\nretry = [\"1s\"]\n";
        let mut relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), hop.address(), text))?;
        relay.stop()?;
        let keys = give_keys(&relay).await?;
        let file = relay.path("relay.toml");
        let named = std::fs::read_to_string(&file)?.replacen(
            "[server]\n",
            &format!("[server]\noperator_domain = \"{OPERATOR}\"\n"),
            1,
        );
        std::fs::write(&file, named)?;
        relay.launch()?;
        // What the samples name.
        relay.cli(&["configuration-sets", "create", "ConfigSet"])?;
        Ok(Self { relay, sink, kept, keys, hop })
    }

    /// Every signature of ours on every message is good, say all three.
    async fn holds(mut self) -> Outcome {
        let mut samples = varied::samples(&Random::seeded(6376))?;
        samples.retain(|sample| self.hop.passes(sample));
        assert!(samples.len() >= 1_000, "only {} samples", samples.len());
        self.send(&samples).await?;
        let folder = tempfile::tempdir()?;
        let arrived = self.arrived(&samples, folder.path()).await?;
        for verifier in verifiers::ALL {
            let verdicts = verifier.verify(folder.path(), &self.keys)?;
            self.check(verifier.name(), &samples, &verdicts);
        }
        assert_eq!(arrived, samples.len());
        Ok(())
    }

    async fn send(&self, samples: &[Sample]) -> Outcome {
        let mut client = self.relay.connect().await?;
        for (index, sample) in samples.iter().enumerate() {
            let recipient = format!("m{index}@example.net");
            let reply = client.send("app@example.com", &[&recipient], &stuffed(&sample.content)).await?;
            assert_eq!(reply.code, 250, "{}: {reply}", sample.name);
            // A session has its bound of messages.
            if index % 500 == 499 {
                client.quit().await?;
                client = self.relay.connect().await?;
            }
        }
        Ok(client.quit().await?)
    }

    /// Writes what came through into files named by their number.
    async fn arrived(&mut self, samples: &[Sample], folder: &Path) -> Result<usize, Box<dyn Error>> {
        let all = tokio::time::timeout(PATIENCE, self.sink.wait_for(samples.len() as u64)).await;
        all.map_err(|_| {
            format!(
                "{} of {} came\n{}",
                self.sink.accepted(),
                samples.len(),
                self.hop.log() + &self.relay.log().unwrap_or_default()
            )
        })?;
        let mut names = BTreeMap::new();
        for message in self.kept.messages() {
            let [recipient] = message.recipients.as_slice() else { return Err("recipients were joined".into()) };
            let (name, _) = recipient.split_once('@').ok_or("no recipient")?;
            std::fs::write(folder.join(name), message.unstuffed())?;
            names.insert(name.to_owned(), ());
        }
        Ok(names.len())
    }

    /// Compares what a verifier says with what must be.
    fn check(&self, verifier: &str, samples: &[Sample], verdicts: &[Verdict]) {
        let mut good: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut bad = Vec::new();
        for verdict in verdicts {
            if !verdict.passes {
                bad.push(format!("{}: {verdict:?}", self.sample(samples, &verdict.message).name));
            }
            good.entry(&verdict.message).or_default().push(&verdict.selector);
        }
        assert!(bad.is_empty(), "{verifier} on {} of {}:\n{}", bad.len(), verdicts.len(), bad.join("\n"));
        for (index, sample) in samples.iter().enumerate() {
            let mut found = good.get(format!("m{index}").as_str()).cloned().unwrap_or_default();
            let wanted = self.keys.iter().filter(|key| key.domain == OPERATOR || sample.is_ours);
            let mut wanted: Vec<&str> = wanted.map(|key| key.selector.as_str()).collect();
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{verifier} on {}", sample.name);
        }
    }

    fn sample<'s>(&self, samples: &'s [Sample], message: &str) -> &'s Sample {
        let index: usize = message.trim_start_matches('m').parse().expect("messages are named by their numbers");
        &samples[index]
    }
}

/// Makes identities and keys while the daemon does not run, and lets them sign.
async fn give_keys(relay: &Relay) -> Result<Vec<Key>, Box<dyn Error>> {
    let (clock, random) = (Clock::system(), Random::system());
    let store = Store::open(Arc::new(RealDisk), &relay.state().join("store"))?;
    let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default())?;
    let ring = KeyRing::new(KeyRingDeps {
        accounts: accounts.clone(),
        sealer: Sealer::file(Arc::new(RealDisk), relay.state().join("keys/dkim-sealing.key"), random.clone()),
        clock,
        random,
        max_open: 10,
        retention: Duration::ZERO,
    });
    let account = AccountId::default();
    let mut keys = Vec::new();
    for (name, algorithms) in [
        (AUTHORS, &[DkimAlgorithm::RsaSha256, DkimAlgorithm::Ed25519Sha256][..]),
        (OPERATOR, &[DkimAlgorithm::RsaSha256][..]),
    ] {
        let domain: Domain = name.parse()?;
        let mut identity = Identity::new(account, name.parse()?);
        (identity.trusted, identity.dkim.ed25519) = (true, true);
        accounts.identities().create(identity).await?;
        for algorithm in algorithms {
            ring.create_managed(account, &domain, *algorithm).await?;
        }
        let current = ring.rotate(account, &domain, None, true).await?;
        keys.extend(current.iter().map(|key| Key::from(DkimKey::clone(key))));
    }
    store.close().await?;
    Ok(keys)
}

//! The AUTH exchange.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use postrider_account::{Accounts, ImportedSecret, NewCredential};
use postrider_base::{Clock, Metrics, Random, SimDisk, Timestamp};
use postrider_spool::{Driver, Spool, SpoolOptions};
use postrider_store::Store;
use postrider_submission::{AuthStep, Settings, Submission, SubmissionDeps};
use secrecy::SecretString;

const USER: &str = "AKIAIOSFODNN7EXAMPLE";
const PASSWORD: &str = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longest exchange that is tried.
const STEPS: usize = 8;

/// A client's side of an exchange, its responses between line feeds: never
/// panics, ends, and succeeds only for those who know the password.
pub fn sasl(data: &[u8]) {
    static SUBMISSION: OnceLock<Submission> = OnceLock::new();
    let submission = SUBMISSION.get_or_init(|| runtime().block_on(submission()));
    let mut responses = data.split(|octet| *octet == b'\n');
    let mechanism = String::from_utf8_lossy(responses.next().unwrap_or_default()).into_owned();
    let initial = responses.next().filter(|initial| !initial.is_empty());
    let mut exchange = submission.sasl(CLIENT);
    let mut step = exchange.start(&mechanism, initial.map(<[u8]>::to_vec));
    for _ in 0..STEPS {
        match step {
            AuthStep::Challenge(_) => {}
            AuthStep::Success(who) => {
                assert_eq!(who.user_name, USER);
                let knows = |word: &str| data.windows(word.len()).any(|window| window == word.as_bytes());
                assert!(knows(USER) && knows(PASSWORD), "accepted without the password");
                return;
            }
            _ => return,
        }
        let Some(response) = responses.next() else { return exchange.cancel() };
        step = exchange.respond(response.to_vec());
    }
    assert!(!matches!(step, AuthStep::Success(_)), "a success nobody asked for");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A submission service in memory with one credential.
async fn submission() -> Submission {
    let index = tempfile::tempdir().expect("a temporary directory");
    let options =
        postrider_store::Options { index_dir: Some(index.path().to_owned()), ..postrider_store::Options::default() };
    let clock = Clock::simulated(Timestamp::from_millis(1_501_893_662_669));
    let (random, metrics) = (Random::seeded(3), Metrics::new());
    let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).expect("a store");
    let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).expect("accounts");
    let secret = ImportedSecret::parse(&SecretString::from(PASSWORD)).expect("a password");
    accounts.credentials().import(USER, secret, NewCredential::default()).await.expect("a credential");
    let spool = Spool::open(SpoolOptions {
        disk: Arc::new(SimDisk::new()),
        dir: PathBuf::from("/spool"),
        index_dir: None,
        clock: clock.clone(),
        settings: postrider_spool::Settings::default(),
        metrics: metrics.clone(),
        feeds: &[],
        start_held: false,
        accept_loss: false,
        driver: Driver::Task,
    });
    let spool = spool.await.expect("a spool");
    Submission::new(SubmissionDeps { spool, accounts, clock, random, metrics }, Settings::default())
}

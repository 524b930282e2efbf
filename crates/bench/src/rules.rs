//! What the rules about senders cost a message: account, identities, policies, configuration
//! set, recipients and quota. Prints a table and `figure NAME VALUE UNIT` lines.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use postrider_account::{Accounts, Identity, Limits, NewCredential, PolicyOwner};
use postrider_base::{Clock, Random, SimDisk, Timestamp};
use postrider_mail::{AccountId, EmailAddress, Envelope, Recipient};
use postrider_store::{Options as StoreOptions, Store};
use postrider_submission::{Question, Rules, Settings};
use postrider_testkit::process::Usage;

/// The daemon's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Accounts that everything belongs to in turns.
const ACCOUNTS: usize = 100;

/// Bounds that are asked and never reached.
const LIMITS: Limits = Limits { per_day: Some(u64::MAX / 2), per_second: Some(u32::MAX) };

const POLICY: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["ses:SendEmail", "ses:SendRawEmail"], "Resource": "*",
     "Condition": {"StringLike": {"ses:FromAddress": ["*@*.example", "*@*.test"]}}},
    {"Effect": "Deny", "Action": "ses:Send*", "Resource": "*",
     "Condition": {"ForAnyValue:StringLike": {"ses:Recipients": "*@competitor.example"}}}
]}"#;

#[derive(Parser)]
struct Options {
    /// Interleaved runs; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Messages of a thread in a run
    #[arg(long, default_value_t = 200_000)]
    messages: usize,
    /// Identities
    #[arg(long, default_value_t = 10_000)]
    identities: usize,
    /// Configuration sets
    #[arg(long, default_value_t = 10_000)]
    sets: usize,
    /// Credentials with policies; as many are without
    #[arg(long, default_value_t = 1_000)]
    credentials: usize,
    /// Threads that decide at the same time, beside one alone
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-rules: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A message that is asked about.
struct Letter {
    account: AccountId,
    user_name: String,
    envelope: Envelope,
    from: EmailAddress,
    set: String,
}

struct World {
    accounts: Accounts,
    rules: Rules,
    with_policies: Vec<Letter>,
    without: Vec<Letter>,
    _index: tempfile::TempDir,
}

fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let world = runtime.block_on(world(options)).map_err(io::Error::other)?;
    let cases = [
        ("policies", &world.with_policies, 1),
        ("policies_threads", &world.with_policies, options.threads),
        ("plain", &world.without, 1),
    ];
    let mut measured = vec![Vec::new(); cases.len()];
    let clock = Clock::system();
    for _ in 0..options.runs.max(1) {
        for ((_, letters, threads), measured) in cases.iter().zip(&mut measured) {
            measured.push(measure(&world, letters, *threads, options.messages, &clock)?);
        }
    }
    say("all checks of a message: processor time, and messages a second on all threads");
    for ((name, _, threads), measured) in cases.iter().zip(&measured) {
        let (cpu, rate) = (median(measured.iter().map(|run| run.0)), median(measured.iter().map(|run| run.1)));
        say(&format!("  {name:>17} ({threads} threads) {cpu:>8.2} us {rate:>12.0} /s"));
        say(&format!("figure rules_{name}_cpu {cpu:.2} us/message"));
        say(&format!("figure rules_{name}_rate {rate:.0} messages/s"));
    }
    Ok(())
}

/// Microseconds of processor time a message, and messages a second.
fn measure(
    world: &World,
    letters: &[Letter],
    threads: usize,
    messages: usize,
    clock: &Clock,
) -> io::Result<(f64, f64)> {
    let (before, began) = (Usage::of(std::process::id())?, clock.instant());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let turns = letters.iter().cycle().skip(thread * letters.len() / threads);
                turns.take(messages).for_each(|letter| decide(world, letter, clock.now()));
            });
        }
    });
    let cpu = Usage::of(std::process::id())?.since(before).cpu;
    let total = (threads * messages) as f64;
    let passed = clock.instant().saturating_duration_since(began).max(Duration::from_nanos(1));
    Ok((cpu.as_secs_f64() * 1e6 / total, total / passed.as_secs_f64()))
}

fn decide(world: &World, letter: &Letter, now: Timestamp) {
    let question = Question {
        account: letter.account,
        credential: &letter.user_name,
        envelope: &letter.envelope,
        from: &letter.from,
        set: Some(&letter.set),
        client_ip: None,
        now,
    };
    world.rules.ask(&question).expect("the message may be sent");
    let limits = Limits { ..LIMITS };
    let reserved = world.accounts.quotas().reserve(letter.account, &limits, 1, now).expect("there is room");
    reserved.keep();
    black_box(&world.accounts);
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn world(options: &Options) -> Result<World, Failure> {
    let index = tempfile::tempdir()?;
    let store = StoreOptions { index_dir: Some(index.path().to_owned()), ..StoreOptions::default() };
    let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), store)?;
    let (clock, random, settings) = (Clock::system(), Random::system(), Settings::default());
    let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default())?;
    for number in 0..options.identities {
        let name = domain(number).parse()?;
        let identity = Identity { trusted: true, ..Identity::new(account(number), name) };
        accounts.identities().create(identity).await?;
    }
    for number in 0..options.sets {
        accounts.configuration_sets().create(account(number), &format!("set-{number}"), Vec::new()).await?;
    }
    let with_policies = letters(&accounts, options, true).await?;
    let without = letters(&accounts, options, false).await?;
    let rules = Rules::new(accounts.clone(), &settings);
    Ok(World { accounts, rules, with_policies, without, _index: index })
}

/// One for each credential, from different identities and with different sets: half of them
/// from an address below the domain.
async fn letters(accounts: &Accounts, options: &Options, with_policy: bool) -> Result<Vec<Letter>, Failure> {
    let realm = Settings::default().realm();
    let mut letters = Vec::new();
    for number in 0..options.credentials {
        let new = NewCredential { account: account(number), region: realm.region.clone(), ..NewCredential::default() };
        let user_name = accounts.credentials().create(new).await?.credential.user_name;
        if with_policy {
            let owner = PolicyOwner::Credential(user_name.clone());
            accounts.policies().put(&owner, "senders", POLICY, &realm).await?;
        }
        // Of the same account, since that comes again after so many.
        let identity = (number * (ACCOUNTS + 1) * ACCOUNTS + number % ACCOUNTS) % options.identities.max(1);
        let host = if number % 2 == 0 { "" } else { "mail.eu." };
        let from: EmailAddress = format!("news{number}@{host}{}", domain(identity)).parse()?;
        let to = format!("customer{number}@customer.test").parse()?;
        let envelope =
            Envelope { sender: Some(from.clone()), recipients: vec![Recipient::new(to)], ..Envelope::default() };
        let set = (number * ACCOUNTS + number % ACCOUNTS) % options.sets.max(1);
        letters.push(Letter { account: account(number), user_name, envelope, from, set: format!("set-{set}") });
    }
    Ok(letters)
}

fn domain(number: usize) -> String {
    format!("customer-{number}.example")
}

fn account(number: usize) -> AccountId {
    AccountId::new((number % ACCOUNTS) as u64 + 1).expect("few accounts")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]
fn say(line: &str) {
    println!("{line}");
}

//! A node's store and lists in one process.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_account::{Accounts, ImportEntry, Settings, Suppression};
use postrider_base::{Clock, Random, RealDisk};
use postrider_mail::{AccountId, EmailAddress, SuppressionReason};
use postrider_store::Store;

use crate::{IMPORTED, failed, figure, say, seconds};

/// Entries of one batch while the lists are filled.
const BATCH: u64 = 4_000;
/// Entries between two words of how far it is.
const STEP: u64 = 1_000_000;
/// How long the lists are waited for to be in order.
const PATIENCE: Duration = Duration::from_mins(10);

/// The `number`th address: as long as they are, and in no order.
pub(crate) fn address_text(number: u64) -> String {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("user.{:x}@d{}.example.com", scattered >> 24, number % 5_000)
}

fn address(number: u64) -> io::Result<EmailAddress> {
    address_text(number).parse().map_err(failed)
}

fn entries(numbers: std::ops::Range<u64>) -> io::Result<Vec<ImportEntry>> {
    let reason = SuppressionReason::Bounce;
    numbers.map(|number| Ok(ImportEntry { address: address(number)?, reason, updated_at: None })).collect()
}

/// What a daemon has of it.
struct Node {
    store: Store,
    accounts: Accounts,
    clock: Clock,
}

impl Node {
    fn open(dir: &Path) -> io::Result<(Self, Duration)> {
        let clock = Clock::system();
        let before = clock.instant();
        let store = Store::open(Arc::new(RealDisk), &dir.join("store")).map_err(failed)?;
        let settings = Settings { max_suppressed: 100_000_000, ..Settings::default() };
        let accounts = Accounts::open(&store, &clock, &Random::system(), &settings).map_err(failed)?;
        let took = clock.instant() - before;
        Ok((Self { store, accounts, clock }, took))
    }

    fn lists(&self) -> &Suppression {
        self.accounts.suppression()
    }

    /// Until nothing is to be moved or merged any more.
    async fn settled(&self) -> io::Result<()> {
        let (started, mut last, mut quiet) = (self.clock.instant(), self.lists().usage(), 0);
        while quiet < 20 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = self.lists().usage();
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
            if self.clock.instant() - started > PATIENCE {
                return Err(failed("the lists do not come to rest"));
            }
        }
        Ok(())
    }
}

pub(crate) async fn fill(dir: &Path, addresses: u64) -> io::Result<()> {
    let (node, _) = Node::open(dir)?;
    let before = node.clock.instant();
    let mut done = 0;
    while done < addresses {
        let next = (done + BATCH).min(addresses);
        node.lists().add(AccountId::default(), entries(done..next)?).await.map_err(failed)?;
        if next / STEP > done / STEP {
            say(&format!("{next} addresses after {:.0} s", seconds(node.clock.instant() - before)));
        }
        done = next;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    figure("suppression_fill", addresses as f64 / seconds(node.clock.instant() - before), "addresses/s");
    node.settled().await?;
    node.store.close().await.map_err(failed)
}

pub(crate) async fn work(dir: &Path, addresses: u64, lookups: u64) -> io::Result<()> {
    let (node, took) = Node::open(dir)?;
    figure("suppression_start", seconds(took), "s");
    figure("suppression_rss", memory()?, "MB");
    let usage = node.lists().usage();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    {
        figure("suppression_index_memory", usage.memory as f64 / 1e6, "MB");
        figure("suppression_disk", usage.run_bytes as f64 / 1e6, "MB");
        figure("suppression_files", usage.runs as f64, "files");
    }
    // Once over all, so that the files are in the system's cache, as they are on a relay that works.
    look_up(&node, addresses, 0..lookups, true)?;
    for (name, base, is_hit) in [("hit", 0, true), ("miss", addresses, false)] {
        let mut times = look_up(&node, addresses, base..base + lookups, is_hit)?;
        report(name, &mut times);
    }
    import(&node, addresses).await?;
    figure("suppression_rss_after", memory()?, "MB");
    // No close: the next start is one after a crash.
    std::process::exit(0);
}

pub(crate) async fn restart(dir: &Path, addresses: u64) -> io::Result<()> {
    let (node, took) = Node::open(dir)?;
    if !node.store.report().rebuilt {
        return Err(failed("the store was not made anew"));
    }
    figure("suppression_start_after_crash", seconds(took), "s");
    let expected = addresses + IMPORTED;
    let rows = node.lists().usage().rows;
    if rows != expected {
        return Err(failed(format!("{rows} addresses instead of {expected}")));
    }
    node.store.close().await.map_err(failed)
}

/// Each look-up's nanoseconds. Hits are drawn from the whole list.
fn look_up(node: &Node, addresses: u64, numbers: std::ops::Range<u64>, is_hit: bool) -> io::Result<Vec<u64>> {
    let (account, lists) = (AccountId::default(), node.lists());
    let mut times = Vec::with_capacity(usize::try_from(numbers.end - numbers.start).unwrap_or(0));
    for number in numbers {
        let number = if is_hit { number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % addresses } else { number };
        let address = address(number)?;
        let before = node.clock.instant();
        let found = lists.check(account, None, &address);
        let took = node.clock.instant() - before;
        if found.is_some() != is_hit {
            return Err(failed(format!("{address} is wrongly {}", if is_hit { "absent" } else { "there" })));
        }
        times.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(times)
}

fn report(name: &str, times: &mut [u64]) {
    times.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a look-up")]
    for (part, permille) in [("p50", 500), ("p99", 990), ("p999", 999)] {
        let at = (times.len() * permille / 1000).min(times.len().saturating_sub(1));
        let nanos = times.get(at).copied().unwrap_or_default();
        figure(&format!("suppression_lookup_{name}_{part}"), nanos as f64 / 1e3, "us");
    }
}

/// From text, as `CreateImportJob` takes it; and look-ups meanwhile.
async fn import(node: &Node, addresses: u64) -> io::Result<()> {
    let mut text = String::new();
    for number in addresses..addresses + IMPORTED {
        text.push_str(&address_text(number));
        text.push_str(", BOUNCE\n");
    }
    let (lists, before) = (node.lists().clone(), node.clock.instant());
    let importing = tokio::spawn(async move { lists.import(AccountId::default(), &text, |_| {}).await });
    let mut times = Vec::new();
    while !importing.is_finished() {
        times.extend(look_up(node, addresses, 0..1_000, true)?);
        tokio::task::yield_now().await;
    }
    let report_of = importing.await.map_err(failed)?.map_err(failed)?;
    figure("suppression_import", seconds(node.clock.instant() - before), "s");
    if report_of.added != IMPORTED {
        return Err(failed(format!("{} of {IMPORTED} were added", report_of.added)));
    }
    report("while_importing", &mut times);
    Ok(())
}

/// Resident memory of this process, MB.
fn memory() -> io::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0 / 1e6).ok_or_else(|| failed("no VmRSS"))
}

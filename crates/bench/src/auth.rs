//! What DKIM signatures cost: alone, beside the bare operation on the key, and
//! in the running relay. Prints tables and `figure NAME VALUE UNIT` lines.

use std::hint::black_box;
use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256};
use clap::Parser;
use postrider_base::{Clock, Timestamp};
use postrider_mail::HeaderBlock;
use postrider_mailauth::dkim::{Algorithm, Digested, PrivateKey, Signer};
use postrider_testkit::client::Security;
use postrider_testkit::load::{self, Load, Pattern};
use postrider_testkit::process::{Usage, by_thread};
use postrider_testkit::relay::{Relay, RelayOptions, built_beside};
use postrider_testkit::{Accept, Sink};

/// The daemon's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Bytes that a body comes in pieces of.
const PIECE: usize = 64 * 1024;

const SENDER: &str = "app@example.com";

#[derive(Parser)]
struct Options {
    /// Interleaved runs; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Milliseconds of one measurement of signatures
    #[arg(long, default_value_t = 500)]
    time: u64,
    /// Messages of one run through the relay
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Sessions at the same time
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Kilobytes of a message through the relay
    #[arg(long, default_value_t = 10)]
    size: usize,
    /// Signatures alone, no relay
    #[arg(long)]
    alone: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-auth: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    signatures(options)?;
    if options.alone {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(relay(options))
}

/// One thing that is measured: what it is called, and how to do it once.
type Work<'a> = (String, Box<dyn Fn() + 'a>);

fn signatures(options: &Options) -> io::Result<()> {
    let clock = Clock::system();
    for (name, algorithm) in [("rsa2048", Algorithm::RsaSha256), ("ed25519", Algorithm::Ed25519Sha256)] {
        let key = PrivateKey::generate(algorithm).map_err(io::Error::other)?;
        let bare = bare(algorithm, &key)?;
        let key = PrivateKey::from_der(key.to_der()).map_err(io::Error::other)?;
        let domain = "example.com".parse().map_err(io::Error::other)?;
        let signer = &Signer::new(domain, "s1".parse().map_err(io::Error::other)?, key);
        let messages: Vec<_> = [("2k", 2_000), ("10k", 10_000), ("1m", 1_000_000)]
            .map(|(size, bytes)| (size, load::message(SENDER, "b@example.net", bytes)))
            .into();
        let mut work: Vec<Work<'_>> = vec![("bare".to_owned(), bare)];
        for (size, content) in &messages {
            work.push(((*size).to_owned(), Box::new(|| sign(signer, content))));
        }
        let rates = interleaved(&work, options, &clock);
        say(&format!("\n{name}: signatures a second on one core, and beside the bare operation"));
        for ((what, _), rate) in work.iter().zip(&rates) {
            say(&format!("  {what:>5} {rate:>10.0}  {:.3}", rate / rates[0]));
        }
        for ((what, _), rate) in work.iter().zip(&rates) {
            say(&format!("figure auth_{name}_{what} {rate:.0} signatures/s"));
            if what != "bare" {
                say(&format!("figure auth_{name}_{what}_of_bare {:.3} ratio", rate / rates[0]));
            }
        }
    }
    Ok(())
}

/// The key's operation on next to nothing.
fn bare(algorithm: Algorithm, key: &PrivateKey) -> io::Result<Box<dyn Fn()>> {
    let der = key.to_der();
    Ok(match algorithm {
        Algorithm::RsaSha256 => {
            let pair = RsaKeyPair::from_pkcs8(der).map_err(io::Error::other)?;
            let random = SystemRandom::new();
            Box::new(move || {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, b"x", &mut signature);
                black_box((signed.is_ok(), signature));
            })
        }
        Algorithm::Ed25519Sha256 => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(io::Error::other)?;
            Box::new(move || {
                black_box(pair.sign(b"x"));
            })
        }
    })
}

/// All that a signature takes: reading the header, canonical forms, hashes, the operation, the field.
fn sign(signer: &Signer, content: &[u8]) {
    let header = HeaderBlock::parse(content).expect("the header is short");
    let body = &content[header.body_offset()..];
    let digested = Digested::new(&header, body.chunks(PIECE)).expect("there is an author");
    let mut field = Vec::with_capacity(1024);
    signer.sign(&digested, Timestamp::from_millis(1_700_000_000_000), &mut field).expect("the key works");
    black_box(field);
}

/// Medians of so many runs, a second each.
fn interleaved(work: &[Work<'_>], options: &Options, clock: &Clock) -> Vec<f64> {
    let mut rates = vec![Vec::new(); work.len()];
    for _ in 0..options.runs {
        for ((_, once), rates) in work.iter().zip(&mut rates) {
            let (start, mut count) = (clock.instant(), 0_u32);
            let time = Duration::from_millis(options.time);
            while clock.instant() - start < time {
                once();
                count += 1;
            }
            rates.push(f64::from(count) / (clock.instant() - start).as_secs_f64());
        }
    }
    rates.into_iter().map(median).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// One run through the relay.
struct Run {
    /// Messages a second.
    rate: f64,
    /// Processor time of the relay a message, microseconds.
    cpu: f64,
    /// The share of it that the threads which sign took.
    share: f64,
}

async fn relay(options: &Options) -> io::Result<()> {
    let (unsigned, signed) = (start(false).await?, start(true).await?);
    let clock = Clock::system();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        without.push(through(&unsigned, options, &clock).await?);
        with.push(through(&signed, options, &clock).await?);
    }
    let of = |runs: &[Run], value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    say(&format!("\n{} KB messages from {} sessions through the relay to a sink", options.size, options.sessions));
    for (name, runs) in [("unsigned", &without), ("signed", &with)] {
        let (rate, cpu) = (of(runs, |run| run.rate), of(runs, |run| run.cpu));
        say(&format!("  {name:>8} {rate:>8.0} messages/s {cpu:>6.0} us/message"));
    }
    for (name, runs) in [("unsigned", &without), ("signed", &with)] {
        say(&format!("figure auth_relay_{name} {:.0} messages/s", of(runs, |run| run.rate)));
        say(&format!("figure auth_relay_{name}_cpu {:.1} us/message", of(runs, |run| run.cpu)));
    }
    say(&format!(
        "figure auth_relay_signed_of_unsigned {:.3} ratio",
        of(&with, |run| run.rate) / of(&without, |run| run.rate)
    ));
    say(&format!("figure auth_relay_signing_share {:.3} ratio", of(&with, |run| run.share)));
    Ok(())
}

/// A relay before a sink, whose mail is signed or not.
async fn start(signs: bool) -> io::Result<(Relay, Sink)> {
    let sink = Sink::start(Accept, Clock::system()).await?;
    let text = "[dns]\nservers = [\"127.0.0.1:9\"]\n\n[sessions]\nmax_messages = 0x7fffffff\n";
    let binary: PathBuf = built_beside(&std::env::current_exe()?)?;
    let relay = Relay::start(RelayOptions::to(binary, sink.address(), text))?;
    if signs {
        relay.cli(&["identities", "create", "example.com", "--trust"])?;
        // Making the identity may have made the keys.
        let _ = relay.cli(&["dkim", "create", "example.com"]);
        relay.cli(&["dkim", "rotate", "example.com", "--force"])?;
    }
    Ok((relay, sink))
}

async fn through((relay, sink): &(Relay, Sink), options: &Options, clock: &Clock) -> io::Result<Run> {
    let (user, password) = relay.credentials();
    let load = Load {
        endpoint: relay.endpoint(Security::StartTls, true)?,
        credentials: Some((user.to_owned(), password.to_owned())),
        sessions: options.sessions,
        messages: options.messages,
        size: options.size * 1000,
        pattern: Pattern::Kept,
        sender: SENDER.to_owned(),
        recipient: "r{}@example.net".to_owned(),
        spread: 1_000,
    };
    let pid = relay.pid().ok_or_else(|| io::Error::other("the relay is gone"))?;
    let (usage, signing, arrived) = (Usage::of(pid)?, signing(pid)?, sink.accepted());
    let start = clock.instant();
    let report = load.run(clock).await?;
    if report.refused > 0 {
        return Err(io::Error::other(format!("{} messages were refused", report.refused)));
    }
    while sink.accepted() < arrived + options.messages {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let elapsed = clock.instant() - start;
    let cpu = Usage::of(pid)?.since(usage).cpu;
    let signing = self::signing(pid)?.saturating_sub(signing);
    let messages = f64::from(u32::try_from(options.messages).unwrap_or(u32::MAX));
    Ok(Run {
        rate: messages / elapsed.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / messages,
        share: signing.as_secs_f64() / cpu.as_secs_f64(),
    })
}

/// Processor time of the threads that sign.
fn signing(pid: u32) -> io::Result<Duration> {
    let threads = by_thread(pid)?;
    Ok(threads.iter().filter(|(name, _)| name.starts_with("dkim-")).map(|(_, (user, system))| *user + *system).sum())
}

fn say(text: &str) {
    // A reader that has gone away is no reason to stop.
    let _ = writeln!(io::stdout(), "{text}");
}

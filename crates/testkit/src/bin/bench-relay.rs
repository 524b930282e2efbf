//! Load generator, relay and sink on this machine; the same relay without syncing
//! and Postfix with the same work beside it, in turns. Prints a table and `figure NAME VALUE UNIT` lines.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use postrider_base::Clock;
use postrider_testkit::client::{Endpoint, Security};
use postrider_testkit::postfix::{self, Postfix};
use postrider_testkit::process::{Usage, by_thread, disk_written};
use postrider_testkit::relay::{Relay, RelayOptions, built_beside};
use postrider_testkit::{Accept, Authority, Load, Pattern, Report, Sink, authority};

#[derive(Parser)]
struct Arguments {
    /// Messages of one run over kept connections
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Messages of one run with a connection each
    #[arg(long, default_value_t = 4_000)]
    connections: u64,
    /// Interleaved runs; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Bytes of one message
    #[arg(long, default_value_t = 10 * 1024)]
    size: usize,
    /// Sessions at the same time
    #[arg(long, value_delimiter = ',', default_values_t = [20, 100])]
    sessions: Vec<usize>,
    /// Who is measured
    #[arg(long, value_delimiter = ',', default_values = ["postrider", "unsynced", "postfix"])]
    systems: Vec<String>,
}

/// One way to use connections.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    pattern: Pattern,
    resume: bool,
}

const WAYS: [Way; 3] = [
    Way { name: "kept", pattern: Pattern::Kept, resume: true },
    Way { name: "resumed", pattern: Pattern::PerMessage, resume: true },
    Way { name: "full", pattern: Pattern::PerMessage, resume: false },
];

/// The figures of one run.
#[derive(Clone)]
struct Sample {
    accepted_rate: f64,
    delivered_rate: f64,
    p50: Duration,
    p99: Duration,
    cpu_per_message: Duration,
    written_per_message: f64,
    peak_rss: u64,
    /// Microseconds of user and system time a message, by thread name.
    threads: BTreeMap<String, (f64, f64)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-relay: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> io::Result<()> {
    let measured = |system: &str| arguments.systems.iter().any(|named| named == system);
    say(
        "system     sessions way      accepted/s delivered/s   p50 ms   p99 ms  cpu us/msg  written B/msg  peak RSS MB",
    );
    for &sessions in &arguments.sessions {
        for way in WAYS {
            let (mut ours, mut careless, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..arguments.runs {
                if measured("postrider") {
                    ours.push(measure_postrider(arguments, sessions, way, true).await?);
                }
                if measured("unsynced") {
                    careless.push(measure_postrider(arguments, sessions, way, false).await?);
                }
                if measured("postfix") {
                    theirs.push(measure_postfix(arguments, sessions, way).await?);
                }
            }
            let ours = report("postrider", sessions, way, &ours);
            let careless = report("unsynced", sessions, way, &careless);
            let theirs = report("postfix", sessions, way, &theirs);
            if let (Some(ours), Some(careless)) = (&ours, careless) {
                let ratio = ours.delivered_rate / careless.delivered_rate;
                say(&format!("figure relay_{}_{sessions}_times_unsynced {ratio:.2} times", way.name));
            }
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                let ratio = ours.delivered_rate / theirs.delivered_rate;
                say(&format!("figure relay_{}_{sessions}_times_postfix {ratio:.2} times", way.name));
            }
        }
    }
    Ok(())
}

async fn measure_postrider(arguments: &Arguments, sessions: usize, way: Way, synced: bool) -> io::Result<Sample> {
    let clock = Clock::system();
    let sink = Sink::start(Accept, clock.clone()).await?;
    let directory = tempfile::tempdir()?;
    let binary = built_beside(&std::env::current_exe()?)?;
    let binary = if synced { binary } else { without_syncing(&binary, directory.path())? };
    let options = RelayOptions::to(binary, sink.address(), "");
    let relay = Relay::start(options)?;
    let endpoint = relay.endpoint(Security::StartTls, way.resume)?;
    let (user, password) = relay.credentials();
    let credentials = (user.to_owned(), password.to_owned());
    let pid = relay.pid().ok_or_else(|| io::Error::other("the relay is not running"))?;
    // A library that is not found is only complained of.
    if synced == std::fs::read_to_string(format!("/proc/{pid}/maps"))?.contains(EATMYDATA) {
        return Err(io::Error::other(format!("{EATMYDATA} is there where it must not be, or the other way round")));
    }
    measure(arguments, load(arguments, sessions, way, endpoint, credentials), sink, pid, &clock).await
}

/// Debian's libeatmydata, in whose presence `fsync`, `fdatasync` and their kin do nothing.
const EATMYDATA: &str = "libeatmydata.so";

/// A program that is the relay with that library.
fn without_syncing(binary: &Path, directory: &Path) -> io::Result<PathBuf> {
    let script = directory.join("postrider-unsynced");
    let text = format!("#!/bin/sh\nLD_PRELOAD={EATMYDATA} exec '{}' \"$@\"\n", binary.display());
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

async fn measure_postfix(arguments: &Arguments, sessions: usize, way: Way) -> io::Result<Sample> {
    let clock = Clock::system();
    let sink = Sink::start(Accept, clock.clone()).await?;
    let authority = Authority::new().map_err(io::Error::other)?;
    let certificate = authority.issue(&["localhost", "127.0.0.1"]).map_err(io::Error::other)?;
    let relayhost = format!("[127.0.0.1]:{}", sink.address().port());
    let parameters = [
        ("relayhost", relayhost.as_str()),
        ("smtpd_tls_security_level", "encrypt"),
        ("smtpd_tls_chain_files", "$config_directory/sasl/chain.pem"),
        ("smtpd_tls_auth_only", "yes"),
        ("smtpd_sasl_auth_enable", "yes"),
        ("smtpd_sasl_local_domain", "postfix.test"),
        ("smtpd_relay_restrictions", "permit_sasl_authenticated, reject"),
        ("mynetworks", ""),
        ("smtpd_client_connection_count_limit", "0"),
        ("default_process_limit", "250"),
        ("in_flow_delay", "0"),
        ("smtp_tls_security_level", "may"),
        ("smtp_destination_concurrency_limit", "50"),
        ("initial_destination_concurrency", "20"),
    ];
    let instance =
        Postfix::start(&parameters, |configuration| prepare_sasl(&configuration.join("sasl"), &certificate))?;
    let trust = authority::roots(&authority.pem()).map_err(io::Error::other)?;
    let address = ([127, 0, 0, 1], instance.port()).into();
    let endpoint =
        Endpoint::new(address, Security::StartTls, "localhost", trust, way.resume).map_err(io::Error::other)?;
    let credentials = ("bench@postfix.test".to_owned(), "secret".to_owned());
    let pid = instance.pid()?;
    let measured = measure(arguments, load(arguments, sessions, way, endpoint, credentials), sink, pid, &clock).await;
    measured.map_err(|error| io::Error::other(format!("{error}\n{}", instance.log().unwrap_or_default())))
}

/// Cyrus SASL with its own password database, and the certificate; Debian's
/// Postfix looks for `smtpd.conf` in the folder `sasl` of its configuration.
fn prepare_sasl(directory: &Path, certificate: &postrider_testkit::Issued) -> io::Result<()> {
    std::fs::create_dir(directory)?;
    let database = directory.join("sasldb2");
    std::fs::write(
        directory.join("smtpd.conf"),
        format!(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\nmech_list: PLAIN LOGIN\n",
            database.display()
        ),
    )?;
    std::fs::write(directory.join("chain.pem"), certificate.key_pem.clone() + &certificate.chain_pem)?;
    let script = format!("printf secret | /usr/sbin/saslpasswd2 -p -c -f {} -u postfix.test bench", database.display());
    postfix::run("sh", &["-c", &script])?;
    postfix::run("chown", &["postfix", &database.display().to_string()])
}

fn load(arguments: &Arguments, sessions: usize, way: Way, endpoint: Endpoint, credentials: (String, String)) -> Load {
    let messages = if way.pattern == Pattern::Kept { arguments.messages } else { arguments.connections };
    Load {
        endpoint,
        credentials: Some(credentials),
        sessions,
        messages,
        size: arguments.size,
        pattern: way.pattern,
        sender: "load@example.com".to_owned(),
        recipient: "sink@example.net".to_owned(),
        spread: 1,
    }
}

async fn measure(arguments: &Arguments, load: Load, mut sink: Sink, pid: u32, clock: &Clock) -> io::Result<Sample> {
    // Warm up: code paths, connections of the relay to the sink, caches.
    let warm = Load { messages: arguments.messages.min(500), pattern: Pattern::Kept, ..load.clone() };
    let warmed = warm.run(clock).await?.accepted;
    sink.wait_for(warmed).await;

    let disk = std::env::temp_dir();
    let written = disk_written(&disk)?;
    let threads = by_thread(pid)?;
    let before = Usage::of_tree(pid)?;
    let start = clock.instant();
    let report = load.run(clock).await?;
    if report.refused > 0 {
        return Err(io::Error::other(format!("{} messages were refused", report.refused)));
    }
    let last = sink.wait_for(warmed + report.accepted).await;
    let used = Usage::of_tree(pid)?.since(before);
    let written = disk_written(&disk)?.saturating_sub(written);
    let threads = spent(&threads, by_thread(pid)?, report.accepted);
    Ok(Sample { threads, ..sample(&report, last - start, used, written) })
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn sample(report: &Report, until_last: Duration, used: Usage, written: u64) -> Sample {
    let messages = report.accepted as f64;
    Sample {
        accepted_rate: messages / report.elapsed.as_secs_f64(),
        delivered_rate: messages / until_last.as_secs_f64(),
        p50: Duration::from_micros(report.latency.value_at_quantile(0.5)),
        p99: Duration::from_micros(report.latency.value_at_quantile(0.99)),
        cpu_per_message: used.cpu.div_f64(messages),
        written_per_message: written as f64 / messages,
        peak_rss: used.peak_rss,
        threads: BTreeMap::new(),
    }
}

/// What each kind of thread spent on a message, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn spent(
    before: &BTreeMap<String, (Duration, Duration)>,
    after: BTreeMap<String, (Duration, Duration)>,
    messages: u64,
) -> BTreeMap<String, (f64, f64)> {
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / messages as f64;
    let parts = after.into_iter().map(|(name, (user, system))| {
        let (was_user, was_system) = before.get(&name).copied().unwrap_or_default();
        (name, (each(user.saturating_sub(was_user)), each(system.saturating_sub(was_system))))
    });
    parts.collect()
}

/// Prints the medians as a row and as figures.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(system: &str, sessions: usize, way: Way, samples: &[Sample]) -> Option<Sample> {
    if samples.is_empty() {
        return None;
    }
    let median = Sample {
        accepted_rate: middle(samples, |s| s.accepted_rate),
        delivered_rate: middle(samples, |s| s.delivered_rate),
        p50: Duration::from_secs_f64(middle(samples, |s| s.p50.as_secs_f64())),
        p99: Duration::from_secs_f64(middle(samples, |s| s.p99.as_secs_f64())),
        cpu_per_message: Duration::from_secs_f64(middle(samples, |s| s.cpu_per_message.as_secs_f64())),
        written_per_message: middle(samples, |s| s.written_per_message),
        peak_rss: samples.iter().map(|s| s.peak_rss).max().unwrap_or_default(),
        threads: BTreeMap::new(),
    };
    let p50 = median.p50.as_secs_f64() * 1e3;
    let p99 = median.p99.as_secs_f64() * 1e3;
    let cpu = median.cpu_per_message.as_secs_f64() * 1e6;
    let rss = median.peak_rss as f64 / 1e6;
    say(&format!(
        "{system:<10} {sessions:>8} {:<8} {:>10.0} {:>11.0} {p50:>8.2} {p99:>8.2} {cpu:>11.0} {:>14.0} {rss:>12.1}",
        way.name, median.accepted_rate, median.delivered_rate, median.written_per_message
    ));
    let name = format!("relay_{system}_{}_{sessions}", way.name);
    say(&format!("figure {name}_accepted {:.0} messages/s", median.accepted_rate));
    say(&format!("figure {name}_delivered {:.0} messages/s", median.delivered_rate));
    say(&format!("figure {name}_p50 {p50:.2} ms"));
    say(&format!("figure {name}_p99 {p99:.2} ms"));
    say(&format!("figure {name}_cpu {cpu:.0} us/message"));
    say(&format!("figure {name}_written {:.0} bytes/message", median.written_per_message));
    say(&format!("figure {name}_peak_rss {rss:.1} MB"));
    if system == "postrider" {
        budget(&name, samples);
    }
    Some(median)
}

/// Prints where the processor time of a message goes: what each kind of thread
/// spends in our code and in the kernel.
fn budget(name: &str, samples: &[Sample]) {
    let threads: BTreeSet<&String> = samples.iter().flat_map(|sample| sample.threads.keys()).collect();
    for thread in threads {
        let part = |of: fn(&(f64, f64)) -> f64| middle(samples, |s| s.threads.get(thread).map_or(0.0, of));
        let (user, system) = (part(|spent| spent.0), part(|spent| spent.1));
        if user + system >= 1.0 {
            say(&format!("           thread {thread:<16} {user:>6.0} us user {system:>6.0} us system a message"));
            let thread = thread.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            say(&format!("figure {name}_cpu_{thread} {:.0} us/message", user + system));
        }
    }
}

fn middle(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "a benchmark talks to its terminal")]
fn say(line: &str) {
    println!("{line}");
}

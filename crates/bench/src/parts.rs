//! The parts of the benchmark.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::client::{Client, Endpoint, Security};
use postrider_testkit::process::Usage;
use postrider_testkit::relay::{Relay, RelayOptions, built_beside};
use postrider_testkit::{Load, Pattern, load};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::null_server::NullServer;
use crate::trace::Strace;
use crate::{Arguments, Part, machine, say};

/// Sessions in the parts that count something of one message.
const SESSIONS: usize = 20;
/// Handshakes at the same time while idle connections are opened.
const OPENING: usize = 50;
const SENDER: &str = "a@example.com";
const RECIPIENT: &str = "b@example.org";
/// No bound may stand in the way of the figures; nothing is delivered.
const CONFIGURATION: &str = "[sessions]\nmax_connections = 30000\nmax_connections_per_address = 30000\n\
    max_connections_per_network = 30000\nmax_unauthenticated = 30000\nidle = \"30m\"\n";

pub(crate) async fn run(arguments: &Arguments) -> io::Result<()> {
    raise_limit();
    if arguments.wants(Part::Messages) {
        messages(arguments).await?;
    }
    if arguments.wants(Part::Connections) {
        connections(arguments).await?;
    }
    if arguments.wants(Part::Idle) {
        idle(arguments).await?;
    }
    if arguments.wants(Part::Calls) {
        calls(arguments).await?;
    }
    if arguments.wants(Part::Allocations) {
        allocations(arguments).await?;
    }
    if arguments.wants(Part::Instructions) {
        let count = machine::instructions(arguments.size)?;
        say(&format!("figure server_instructions_per_message {count} instructions"));
    }
    Ok(())
}

/// Children inherit it.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it can not be raised the part with idle connections says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The daemon, which keeps what it gets.
fn real() -> io::Result<Relay> {
    let binary = built_beside(&std::env::current_exe()?)?;
    let options = RelayOptions {
        binary,
        routes: vec![("*".to_owned(), "hold:".to_owned())],
        configuration: CONFIGURATION.to_owned(),
        state: None,
        prefix: Vec::new(),
    };
    Relay::start(options)
}

fn real_load(arguments: &Arguments, relay: &Relay) -> io::Result<Load> {
    let (user, password) = relay.credentials();
    let credentials = (user.to_owned(), password.to_owned());
    Ok(load_of(arguments, relay.endpoint(Security::Wrapper, true)?, credentials))
}

fn null_load(arguments: &Arguments, server: &NullServer) -> io::Result<Load> {
    Ok(load_of(arguments, server.endpoint(true)?, server.credentials()))
}

fn load_of(arguments: &Arguments, endpoint: Endpoint, credentials: (String, String)) -> Load {
    Load {
        endpoint,
        credentials: Some(credentials),
        sessions: SESSIONS,
        messages: arguments.messages,
        size: arguments.size,
        pattern: Pattern::Kept,
        sender: SENDER.to_owned(),
        recipient: RECIPIENT.to_owned(),
        spread: 1,
    }
}

async fn messages(arguments: &Arguments) -> io::Result<()> {
    let clock = Clock::system();
    say("spool sessions  accepted/s   p50 ms   p99 ms  server cpu us/msg");
    for &sessions in &arguments.sessions {
        let (mut null, mut real) = (Vec::new(), Vec::new());
        for _ in 0..arguments.runs {
            // Fresh servers each time: a queue that has grown must not count.
            let server = NullServer::start()?;
            let pid = server.pid();
            null.push(measure(Load { sessions, ..null_load(arguments, &server)? }, pid, &clock).await?);
            drop(server);
            let relay = self::real()?;
            let pid = relay.pid().ok_or_else(|| io::Error::other("the relay is gone"))?;
            real.push(measure(Load { sessions, ..real_load(arguments, &relay)? }, pid, &clock).await?);
        }
        report("null", sessions, &mut null);
        report("real", sessions, &mut real);
    }
    Ok(())
}

/// One run.
struct Sample {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

async fn measure(mut load: Load, pid: u32, clock: &Clock) -> io::Result<Sample> {
    // One session is slow alone.
    load.messages = if load.sessions == 1 { load.messages / 5 } else { load.messages };
    let messages = load.messages;
    let before = Usage::of(pid)?;
    let report = load.run(clock).await?;
    let used = Usage::of(pid)?.since(before);
    if report.refused > 0 {
        return Err(io::Error::other(format!("{} messages were refused", report.refused)));
    }
    let millis = |quantile| report.latency.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Sample {
        rate: messages as f64 / report.elapsed.as_secs_f64(),
        p50: millis(0.5),
        p99: millis(0.99),
        cpu: used.cpu.as_secs_f64() * 1e6 / messages as f64,
    })
}

fn report(spool: &str, sessions: usize, samples: &mut [Sample]) {
    let mut median = |value: fn(&Sample) -> f64| {
        samples.sort_by(|one, other| value(one).total_cmp(&value(other)));
        value(&samples[samples.len() / 2])
    };
    let (rate, p50, p99, cpu) = (median(|s| s.rate), median(|s| s.p50), median(|s| s.p99), median(|s| s.cpu));
    say(&format!("{spool:5} {sessions:8} {rate:11.0} {p50:8.2} {p99:8.2} {cpu:18.1}"));
    say(&format!("figure server_{spool}_{sessions}_accepted {rate:.0} messages/s"));
    say(&format!("figure server_{spool}_{sessions}_cpu {cpu:.1} us/message"));
}

async fn connections(arguments: &Arguments) -> io::Result<()> {
    let clock = Clock::system();
    for (name, resume) in [("full", false), ("resumed", true)] {
        let server = NullServer::start()?;
        let (endpoint, credentials) = (server.endpoint(resume)?, server.credentials());
        // So that there is a session to resume; a figure for the wrong kind is none.
        connect_often(&endpoint, &credentials, SESSIONS as u64).await?;
        let resumed = endpoint.connect().await?.resumed;
        if resumed != resume {
            return Err(io::Error::other(format!("a {name} handshake was asked for, and resumed is {resumed}")));
        }
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..arguments.runs {
            let (before, start) = (Usage::of(server.pid())?, clock.instant());
            connect_often(&endpoint, &credentials, arguments.connections).await?;
            let elapsed = (clock.instant() - start).as_secs_f64();
            rates.push(arguments.connections as f64 / elapsed);
            let cpu = Usage::of(server.pid())?.since(before).cpu.as_secs_f64();
            costs.push(cpu * 1e6 / arguments.connections as f64);
        }
        let (rate, cost) = (median(&mut rates), median(&mut costs));
        say(&format!("figure server_connections_{name} {rate:.0} connections/s"));
        say(&format!("figure server_connections_{name}_cpu {cost:.0} us/connection"));
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Connects, authenticates and quits, so often.
async fn connect_often(endpoint: &Endpoint, credentials: &(String, String), times: u64) -> io::Result<()> {
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS as u64 {
        // They add up to exactly so many.
        let each = (times + number) / SESSIONS as u64;
        let (endpoint, (user, password)) = (endpoint.clone(), credentials.clone());
        sessions.spawn(async move {
            for _ in 0..each {
                let mut client = endpoint.connect().await?;
                client.login(&user, &password).await?;
                client.quit().await?;
            }
            io::Result::Ok(())
        });
    }
    while let Some(done) = sessions.join_next().await {
        done??;
    }
    Ok(())
}

async fn idle(arguments: &Arguments) -> io::Result<()> {
    let relay = real()?;
    let pid = relay.pid().ok_or_else(|| io::Error::other("the relay is gone"))?;
    let load = real_load(arguments, &relay)?;
    // Warm: what is there once is nobody's connection.
    Load { messages: 200, ..load.clone() }.run(&Clock::system()).await?;
    let before = rss(pid)?;
    let mut clients = open_many(&load, arguments.idle).await?;
    let each = |now: u64| (now.saturating_sub(before)) as f64 / clients.len() as f64 / 1024.0;
    let silent = each(rss(pid)?);
    say(&format!("figure server_idle_rss {silent:.1} KiB/connection"));
    let content: Arc<[u8]> = load::message(SENDER, RECIPIENT, arguments.size).into();
    for client in &mut clients {
        client.send(SENDER, &[RECIPIENT], &content).await?.expect(250)?;
    }
    // What the queue itself keeps in memory for young messages is gone after a while.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = (rss(pid)?.saturating_sub(before)) as f64 / clients.len() as f64 / 1024.0;
    say(&format!("figure server_idle_rss_after_message {after:.1} KiB/connection"));
    Ok(())
}

async fn open_many(load: &Load, count: usize) -> io::Result<Vec<Client>> {
    let places = Arc::new(Semaphore::new(OPENING));
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let (load, places) = (load.clone(), places.clone());
        opening.spawn(async move {
            let _place = places.acquire().await.map_err(io::Error::other)?;
            let mut client = load.endpoint.connect().await?;
            let (user, password) = load.credentials.as_ref().ok_or_else(|| io::Error::other("no credentials"))?;
            client.login(user, password).await?;
            io::Result::Ok(client)
        });
    }
    let mut clients = Vec::with_capacity(count);
    while let Some(client) = opening.join_next().await {
        clients.push(client??);
    }
    Ok(clients)
}

/// Resident memory of a process, bytes.
fn rss(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS"))
}

async fn calls(arguments: &Arguments) -> io::Result<()> {
    let relay = real()?;
    let pid = relay.pid().ok_or_else(|| io::Error::other("the relay is gone"))?;
    let load = Load { messages: arguments.messages.min(4_000), ..real_load(arguments, &relay)? };
    Load { messages: 200, ..load.clone() }.run(&Clock::system()).await?;
    let strace = Strace::attach(pid)?;
    let messages = load.messages as f64;
    load.run(&Clock::system()).await?;
    let calls = strace.finish()?;
    let total: u64 = calls.values().sum();
    let mut rows: Vec<_> = calls.iter().collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (name, count) in rows.iter().take(12) {
        say(&format!("{name:20} {:6.2} a message", **count as f64 / messages));
    }
    // A message is answered twice: MAIL, RCPT and DATA come as one group.
    let writes = ["sendto", "writev", "sendmsg"].iter().filter_map(|name| calls.get(*name)).sum::<u64>();
    say(&format!("figure server_system_calls {:.2} calls/message", total as f64 / messages));
    say(&format!("figure server_writes_per_group {:.2} writes", writes as f64 / messages / 2.0));
    Ok(())
}

async fn allocations(arguments: &Arguments) -> io::Result<()> {
    let mut server = NullServer::start()?;
    let load = null_load(arguments, &server)?;
    Load { messages: 1_000, ..load.clone() }.run(&Clock::system()).await?;
    let before = server.allocated()?;
    let messages = load.messages as f64;
    load.run(&Clock::system()).await?;
    let after = server.allocated()?;
    say(&format!(
        "figure server_allocations {:.1} allocations/message",
        (after.times - before.times) as f64 / messages
    ));
    say(&format!("figure server_allocated {:.0} bytes/message", (after.bytes - before.bytes) as f64 / messages));
    Ok(())
}

//! From a full queue to hosts that take mail: one, a thousand, ten thousand
//! domains at fifty, and a thousand of which some hang and some say "later".
//! Everything is on this machine, in a network of its own, with a real name
//! server; Postfix empties the same queue beside it. It needs root. Prints a
//! table and `figure NAME VALUE UNIT` lines.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use postrider_base::Clock;
use postrider_testkit::client::{Endpoint, Security};
use postrider_testkit::network::Network;
use postrider_testkit::nsd::{Nsd, Zone};
use postrider_testkit::postfix::Postfix;
use postrider_testkit::process::Usage;
use postrider_testkit::provider::{Act, Conduct, Keep, Point, Provider};
use postrider_testkit::relay::{Relay, RelayOptions, built_beside};
use postrider_testkit::{Accept, Authority, Load, Pattern, Sink, load};

#[derive(Parser)]
struct Arguments {
    /// Messages of one run
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Messages that wait at each of a thousand sites when memory is measured
    #[arg(long, default_value_t = 1_000)]
    waiting: u64,
    /// Interleaved runs; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Bytes of one message
    #[arg(long, default_value_t = 10 * 1024)]
    size: usize,
    /// Only these cases
    #[arg(long, value_enum)]
    only: Vec<Case>,
}

/// What the queue is full of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Case {
    /// Mail for one host by a route, Postfix beside it
    One,
    /// The same over TLS 1.3, in kept connections, and in clear beside it
    Tls,
    /// 1,000 domains, each with a host of its own
    Sites,
    /// 10,000 domains at 50 hosts
    Shared,
    /// The healthy 850 of 1,000 sites: while 50 others hang and 100 defer, while those are
    /// healthy too, and alone
    Trouble,
    /// One message at a time through an idle relay
    Idle,
    /// 1,000 sites with a thousand messages each: memory
    Memory,
}

const SITES: u64 = 1_000;
const HEALTHY: u64 = 850;
const HANGING: u64 = 50;
const HOSTS: u64 = 50;
const DOMAINS: u64 = 10_000;
/// Sessions that fill the queue.
const FILLERS: usize = 100;
/// The one host. Not 127.0.0.1, which Postfix takes for itself.
const ALONE: Ipv4Addr = Ipv4Addr::new(198, 19, 200, 1);
const ZONE: &str = "bench.test";
const RESOLVER: &str = "127.0.0.1:53";

/// What the other 150 of a thousand sites do in [`Case::Trouble`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Others {
    /// There is no mail for them.
    Absent,
    /// They take their mail.
    Well,
    /// They hang, or defer it.
    Ill,
}

/// The figures of one run.
#[derive(Clone, Copy, Default)]
struct Sample {
    rate: f64,
    /// Microseconds of processor time a message.
    cpu: f64,
    peak_rss: f64,
    questions: f64,
}

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-delivery: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// All threads and programs that come from here are in the network.
fn start(arguments: &Arguments) -> io::Result<()> {
    let network = Network::new()?;
    network.enter()?;
    let nsd = Nsd::start(RESOLVER.parse().map_err(io::Error::other)?, &[zone()], Duration::from_secs(3600))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(arguments))?;
    drop(nsd);
    Ok(())
}

async fn run(arguments: &Arguments) -> io::Result<()> {
    let wanted = |case: Case| arguments.only.is_empty() || arguments.only.contains(&case);
    say("case       system     delivered/s  cpu us/msg  peak RSS MB  DNS questions/msg");
    for case in [Case::One, Case::Tls, Case::Sites, Case::Shared, Case::Trouble] {
        if wanted(case) {
            compare(arguments, case).await?;
        }
    }
    if wanted(Case::Idle) {
        idle(arguments).await?;
    }
    if wanted(Case::Memory) {
        memory(arguments).await?;
    }
    Ok(())
}

/// A case, and what it is compared with, in turns.
async fn compare(arguments: &Arguments, case: Case) -> io::Result<()> {
    let name = format!("{case:?}").to_lowercase();
    let (mut ours, mut beside) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for _ in 0..arguments.runs {
        match case {
            Case::One => {
                ours.push(postrider(arguments, case, Others::Absent).await?);
                beside.entry("postfix").or_default().push(postfix(arguments).await?);
            }
            // What TLS costs: the same in clear beside it.
            Case::Tls => {
                beside.entry("clear").or_default().push(postrider(arguments, Case::One, Others::Absent).await?);
                ours.push(postrider(arguments, case, Others::Absent).await?);
            }
            Case::Trouble => {
                for (name, others) in [("alone", Others::Absent), ("healthy", Others::Well)] {
                    beside.entry(name).or_default().push(postrider(arguments, case, others).await?);
                }
                ours.push(postrider(arguments, case, Others::Ill).await?);
            }
            _ => ours.push(postrider(arguments, case, Others::Absent).await?),
        }
    }
    let ours_rate = report(&name, "postrider", &ours);
    for (other, samples) in beside {
        let rate = report(&name, other, &samples);
        say(&format!("figure delivery_{name}_times_{other} {:.2} times", ours_rate / rate));
    }
    Ok(())
}

/// Fills the queue of a relay that holds it, lets go, and waits for the last
/// message that a healthy host gets, of those that are healthy in any case.
async fn postrider(arguments: &Arguments, case: Case, others: Others) -> io::Result<Sample> {
    let clock = Clock::system();
    let mut provider = Provider::start(TcpListener::bind("0.0.0.0:25")?, Keep::Counts, clock.clone())?;
    let authority = Authority::new().map_err(io::Error::other)?;
    let certificate = authority.issue(&["localhost"]).map_err(io::Error::other)?;
    if case == Case::Tls {
        provider.set(ALONE, Conduct::with_tls(certificate.server().map_err(io::Error::other)?));
    }
    if others == Others::Ill {
        misbehave(&provider);
    }
    let relay = relay(case)?;
    let fills = fills(arguments, case, others);
    relay.cli(&["queue", "hold", "--all"])?;
    let healthy = fills.first().map_or(0, |fill| fill.2);
    for mail in fills {
        fill(&relay, mail, arguments.size, &clock).await?;
    }
    let uncounted =
        if case == Case::Trouble { (HEALTHY..SITES).map(|other| site(other).into()).collect() } else { HashSet::new() };
    let pid = relay.pid().ok_or_else(|| io::Error::other("the relay is not running"))?;
    let (before, asked) = (Usage::of(pid)?, questions(relay.http())?);
    let begin = clock.instant();
    relay.cli(&["queue", "release", "--all"])?;
    provider.until_taken_beside(healthy, &uncounted).await;
    let took = clock.instant() - begin;
    let used = Usage::of(pid)?.since(before);
    let sample = sample(healthy, took, used, questions(relay.http())? - asked);
    drop(relay);
    provider.stop().await;
    Ok(sample)
}

/// Some hosts hang and some defer.
fn misbehave(provider: &Provider) {
    for number in HEALTHY..SITES {
        let conduct = match number < HEALTHY + HANGING {
            true => Conduct::but(Point::Rcpt, Act::Silence),
            false => Conduct::refusing(Point::Rcpt, "451 4.3.0 later"),
        };
        provider.set(site(number), conduct);
    }
}

/// What a case's queue is full of; mail for healthy hosts first.
fn fills(arguments: &Arguments, case: Case, others: Others) -> Vec<Fill> {
    let all = arguments.messages;
    let sites = |spread, messages| (format!("s{{}}@s{{}}.{ZONE}"), spread, messages);
    match case {
        Case::One | Case::Tls | Case::Idle => vec![("one@one.test".to_owned(), 1, all)],
        Case::Shared => vec![(format!("d{{}}@d{{}}.{ZONE}"), DOMAINS, all)],
        Case::Sites | Case::Memory => vec![sites(SITES, all)],
        Case::Trouble => {
            let other = (format!("t{{}}@t{{}}.{ZONE}"), SITES - HEALTHY, all * (SITES - HEALTHY) / SITES);
            let healthy = sites(HEALTHY, all * HEALTHY / SITES);
            if others == Others::Absent { vec![healthy] } else { vec![healthy, other] }
        }
    }
}

fn relay(case: Case) -> io::Result<Relay> {
    let binary = built_beside(&std::env::current_exe()?)?;
    // A queue of a million is more than a hundred connections may fill by default.
    let sessions = "[sessions]\nmax_messages = 1000000\n";
    let configuration = format!("{sessions}[dns]\nservers = [\"{RESOLVER}\"]\n[dns.dnssec]\nvalidate = false\n");
    let by_route = matches!(case, Case::One | Case::Tls | Case::Idle);
    let routes = by_route.then(|| ("*".to_owned(), format!("smtp://{ALONE}:25")));
    Relay::start(RelayOptions {
        routes: routes.into_iter().collect(),
        ..RelayOptions::to(binary, SocketAddr::from((ALONE, 25)), &configuration)
    })
}

/// Mail for the queue: to whom, to how many domains, how many messages.
type Fill = (String, u64, u64);

async fn fill(relay: &Relay, fill: Fill, size: usize, clock: &Clock) -> io::Result<()> {
    let endpoint = relay.endpoint(Security::StartTls, true)?;
    let (user, password) = relay.credentials();
    let credentials = Some((user.to_owned(), password.to_owned()));
    submit(Load { credentials, ..load_of(endpoint, fill, size) }, clock).await
}

fn load_of(endpoint: Endpoint, (recipient, spread, messages): Fill, size: usize) -> Load {
    Load {
        endpoint,
        credentials: None,
        sessions: FILLERS,
        messages,
        size,
        pattern: Pattern::Kept,
        sender: "bench@example.com".to_owned(),
        recipient,
        spread,
    }
}

async fn submit(load: Load, clock: &Clock) -> io::Result<()> {
    let report = load.run(clock).await?;
    match report.refused {
        0 => Ok(()),
        refused => Err(io::Error::other(format!("{refused} messages were refused"))),
    }
}

/// The same for Postfix and one host.
async fn postfix(arguments: &Arguments) -> io::Result<Sample> {
    let clock = Clock::system();
    let mut provider = Provider::start(TcpListener::bind("0.0.0.0:25")?, Keep::Counts, clock.clone())?;
    let relayhost = format!("[{ALONE}]:25");
    let parameters = [
        ("relayhost", relayhost.as_str()),
        ("smtpd_client_restrictions", "check_client_access static:HOLD"),
        ("smtpd_client_connection_count_limit", "0"),
        ("default_process_limit", "250"),
        ("in_flow_delay", "0"),
        ("smtp_tls_security_level", "none"),
        ("smtp_destination_concurrency_limit", "50"),
        ("initial_destination_concurrency", "20"),
    ];
    let postfix = Postfix::start(&parameters, |_| Ok(()))?;
    let trust = postrider_testkit::authority::roots(&Authority::new().map_err(io::Error::other)?.pem());
    let address = ([127, 0, 0, 1], postfix.port()).into();
    let endpoint = Endpoint::new(address, Security::None, "localhost", trust.map_err(io::Error::other)?, true)
        .map_err(io::Error::other)?;
    let mail = ("one@one.test".to_owned(), 1, arguments.messages);
    submit(load_of(endpoint, mail, arguments.size), &clock).await?;
    let pid = postfix.pid()?;
    let before = Usage::of_tree(pid)?;
    let begin = clock.instant();
    postfix.tool("postsuper", &["-H", "ALL"])?;
    postfix.tool("postqueue", &["-f"])?;
    provider.until_taken(arguments.messages).await;
    let took = clock.instant() - begin;
    let sample = sample(arguments.messages, took, Usage::of_tree(pid)?.since(before), 0.0);
    drop(postfix);
    provider.stop().await;
    Ok(sample)
}

/// From our 250 to the other host's, when nothing else is to be done.
async fn idle(arguments: &Arguments) -> io::Result<()> {
    let clock = Clock::system();
    let mut sink = Sink::start(Accept, clock.clone()).await?;
    let binary = built_beside(&std::env::current_exe()?)?;
    let relay = Relay::start(RelayOptions::to(binary, sink.address(), ""))?;
    let mut client = relay.endpoint(Security::StartTls, true)?.connect().await?;
    let (user, password) = relay.credentials();
    client.login(user, password).await?;
    let content = load::message("bench@example.com", "one@one.test", arguments.size);
    let mut waits = Vec::new();
    for number in 1..=1_000 {
        if client.begin("bench@example.com", &["one@one.test"]).await?.is_err() {
            return Err(io::Error::other("a message was refused"));
        }
        client.finish(&content).await?;
        let accepted = clock.instant();
        let delivered = sink.wait_for(number).await;
        waits.push(delivered.saturating_duration_since(accepted).as_secs_f64() * 1e3);
    }
    client.quit().await?;
    waits.sort_by(f64::total_cmp);
    let at = |share: usize| waits.get(waits.len() * share / 100).copied().unwrap_or_default();
    say(&format!("idle: from 250 to the host's 250 {:.2} ms (median), {:.2} ms (99 of 100)", at(50), at(99)));
    say(&format!("figure delivery_idle_p50 {:.2} ms", at(50)));
    say(&format!("figure delivery_idle_p99 {:.2} ms", at(99)));
    Ok(())
}

/// Memory while a great many messages wait for many sites, and leave.
async fn memory(arguments: &Arguments) -> io::Result<()> {
    let larger = Arguments {
        messages: arguments.waiting * SITES,
        size: 2 * 1024,
        only: Vec::new(),
        waiting: arguments.waiting,
        runs: 1,
    };
    let sample = postrider(&larger, Case::Memory, Others::Absent).await?;
    report("memory", "postrider", &[sample]);
    Ok(())
}

/// Names of all hosts and domains.
fn zone() -> Zone {
    let mut zone = Zone::new(ZONE);
    for number in 0..SITES {
        zone.domain(&format!("s{number}"), site(number));
    }
    for number in 0..SITES - HEALTHY {
        zone.domain(&format!("t{number}"), site(HEALTHY + number));
    }
    for number in 0..HOSTS {
        zone.host(&format!("h{number}"), host(number));
    }
    for number in 0..DOMAINS {
        zone.mx(&format!("d{number}"), &[&format!("h{}", number % HOSTS)]);
    }
    zone
}

fn site(number: u64) -> Ipv4Addr {
    address(18, number)
}

fn host(number: u64) -> Ipv4Addr {
    address(19, number)
}

fn address(second: u8, number: u64) -> Ipv4Addr {
    let byte = |value: u64| u8::try_from(value % 250).unwrap_or_default();
    Ipv4Addr::new(198, second, byte(number / 250), byte(number) + 1)
}

/// What the relay has asked the name server so far.
fn questions(http: SocketAddr) -> io::Result<f64> {
    let mut stream = TcpStream::connect(http)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let asked = text.lines().filter(|line| line.starts_with("postrider_dns_questions_total"));
    let asked = asked.filter(|line| !line.contains("cached"));
    Ok(asked.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn sample(messages: u64, took: Duration, used: Usage, questions: f64) -> Sample {
    let count = messages as f64;
    Sample {
        rate: count / took.as_secs_f64(),
        cpu: used.cpu.as_secs_f64() * 1e6 / count,
        peak_rss: used.peak_rss as f64 / 1e6,
        questions: questions / count,
    }
}

/// Prints the medians as a row and as figures; the rate.
fn report(case: &str, system: &str, samples: &[Sample]) -> f64 {
    let rate = middle(samples, |sample| sample.rate);
    let cpu = middle(samples, |sample| sample.cpu);
    let rss = middle(samples, |sample| sample.peak_rss);
    let questions = middle(samples, |sample| sample.questions);
    say(&format!("{case:<10} {system:<10} {rate:>11.0} {cpu:>11.0} {rss:>12.1} {questions:>18.3}"));
    let name = format!("delivery_{case}_{system}");
    say(&format!("figure {name}_delivered {rate:.0} messages/s"));
    say(&format!("figure {name}_cpu {cpu:.0} us/message"));
    say(&format!("figure {name}_peak_rss {rss:.1} MB"));
    if system != "postfix" {
        say(&format!("figure {name}_questions {questions:.3} questions/message"));
    }
    rate
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

//! What a receiver makes of the relay's mail: a real Postfix with OpenDKIM and
//! OpenDMARC judges it by the records that `postrider dns plan` says to publish,
//! as a real name server serves them. SES's three cases (an address identity, a
//! domain identity, a domain with a MAIL FROM domain), relaxed and strict.

mod receiver;
mod rotation;

use std::collections::BTreeSet;
use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::client::{Client, Security};
use postrider_testkit::{Network, Nsd, Record, Relay, RelayOptions, Sink, Zone};

use receiver::Receiver;

type Outcome = Result<(), Box<dyn Error>>;

/// Where the relay sends from, and who takes it.
const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const RECEIVER: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
/// A return path of the operator's, as SES has for mail without a MAIL FROM domain.
const OPERATORS: &str = "bounces@bounces.operator.example";
/// How long anything may take before the test calls it hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// Policies: what aligns is up to `loose.example` and `strict.example`; nobody has keys of `address.example`.
const POLICIES: &str = "_dmarc.loose IN TXT \"v=DMARC1; p=reject\"\n\
    _dmarc.strict IN TXT \"v=DMARC1; p=reject; adkim=s; aspf=s\"\n\
    _dmarc.address IN TXT \"v=DMARC1; p=quarantine\"\n\
    bounces.operator IN TXT \"v=spf1 include:_spf.operator.example -all\"";

const CONFIGURATION: &str = "[dns]\nservers = [\"127.0.0.1:53\"]\ntimeout = \"500ms\"\nfailure_ttl = \"1s\"\n\
    dnssec = { validate = false }\n\n[dkim]\noperator_signature = true\n\n[delivery]\nretry = [\"1s\"]\n\n\
    [delivery.sources.out1]\nipv4 = \"198.18.0.1\"\nehlo_name = \"out.operator.example\"\n\n\
    [upkeep]\nbounce_host = \"feedback.operator.example\"\n";

/// A message, and what the receiver must write on it.
struct Case {
    what: &'static str,
    /// The address in From.
    author: &'static str,
    /// The address in MAIL FROM.
    sender: &'static str,
    /// Domains besides the operator's whose signature is there and good.
    signed: &'static [&'static str],
    /// What aligns with the author's domain: DKIM, SPF.
    aligned: [bool; 2],
}

impl Case {
    /// Whether it passes DMARC: one of them is enough (RFC 9989).
    fn passes(&self) -> bool {
        self.aligned.contains(&true)
    }
}

const fn case(
    what: &'static str,
    author: &'static str,
    sender: &'static str,
    signed: &'static [&'static str],
    aligned: [bool; 2],
) -> Case {
    Case { what, author, sender, signed, aligned }
}

const LOOSE: &[&str] = &["loose.example"];
const STRICT: &[&str] = &["strict.example"];

// OpenDMARC 1.4 takes a MAIL FROM domain below the author's for the same where the policy is
// strict, which RFC 9989 does not; so what is strict is shown by domains beside each other.
const CASES: &[Case] = &[
    case("an address identity has the operator's names alone", "app@address.example", OPERATORS, &[], [false, false]),
    case("a domain identity is signed for", "app@loose.example", OPERATORS, LOOSE, [true, false]),
    case("with a MAIL FROM domain both align", "app@loose.example", "b@bounce.loose.example", LOOSE, [true, true]),
    case("the author's own address is a return path", "app@loose.example", "app@loose.example", LOOSE, [true, true]),
    case("a subdomain aligns", "app@news.loose.example", "b@bounce.loose.example", LOOSE, [true, true]),
    case("strictly a domain identity is signed for", "app@strict.example", OPERATORS, STRICT, [true, false]),
    case("strictly all are the same domain", "app@strict.example", "app@strict.example", STRICT, [true, true]),
    case("strictly no subdomain aligns", "app@news.strict.example", "b@bounce.strict.example", STRICT, [false, false]),
    case("unsigned, SPF alone aligns", "quiet@loose.example", "b@bounce.loose.example", &[], [false, true]),
    case(
        "unsigned, strictly the author's own does",
        "quiet@strict.example",
        "quiet@strict.example",
        &[],
        [false, true],
    ),
    case("unsigned, the operator's return path is no help", "quiet@loose.example", OPERATORS, &[], [false, false]),
];

/// The relay, and all around it.
struct World {
    relay: Relay,
    receiver: Receiver,
    sink: Sink,
    kept: Record,
    _dns: Nsd,
    _network: Network,
}

#[tokio::test]
async fn a_receiver_finds_what_should_align_aligned() -> Outcome {
    let Some(mut world) = World::new().await? else { return Ok(()) };
    for case in CASES {
        let message = world.pass(case).await?;
        let results = results(&message);
        let whole = format!("{}:\n{}\n{}", case.what, results.join("\n"), world.receiver.log());
        let says = |words: &str| results.iter().any(|result| result.contains(words));
        let domain = |address: &'static str| address.rsplit('@').next().unwrap_or_default();

        // Each name that it has is good; so it is alignment that makes the difference.
        assert!(says(&format!("spf=pass smtp.mailfrom={}", domain(case.sender))), "SPF of {whole}");
        let signed: BTreeSet<&str> = results.iter().flat_map(|result| passes(result)).collect();
        let wanted: BTreeSet<&str> = case.signed.iter().copied().chain(["operator.example"]).collect();
        assert_eq!(signed, wanted, "DKIM of {whole}");
        assert!(!says("dkim=fail") && !says("dkim=neutral"), "DKIM of {whole}");
        let verdict = if case.passes() { "dmarc=pass" } else { "dmarc=fail" };
        assert!(says(verdict) && says(&format!("header.from={}", domain(case.author))), "DMARC of {whole}");
        assert_eq!(aligned(&world.receiver.history()?), Some(case.aligned), "alignment of {whole}");
    }
    Ok(())
}

impl World {
    async fn new() -> Result<Option<Self>, Box<dyn Error>> {
        let Some(network) = Network::if_allowed()? else { return Ok(None) };
        network.enter()?;
        let kept = Record::default();
        let sink = Sink::start(kept.clone(), Clock::system()).await?;
        let mut relay = Relay::start(RelayOptions {
            binary: env!("CARGO_BIN_EXE_postrider").into(),
            routes: Vec::new(),
            configuration: CONFIGURATION.to_owned(),
            state: None,
            prefix: Vec::new(),
        })?;
        let file = relay.path("relay.toml");
        let named = std::fs::read_to_string(&file)?.replacen(
            "[server]\n",
            "[server]\noperator_domain = \"operator.example\"\n",
            1,
        );
        std::fs::write(&file, named)?;
        relay.stop()?;
        relay.launch()?;
        let dns = Nsd::start("127.0.0.1:53".parse()?, &[published(&relay)?], Duration::from_secs(5))?;
        for domain in ["loose.example", "strict.example"] {
            verified(&relay, domain).await?;
        }
        let receiver = Receiver::start(RECEIVER, sink.address())?;
        Ok(Some(Self { relay, receiver, sink, kept, _dns: dns, _network: network }))
    }

    /// Sends the message of a case; gives what comes out behind the receiver.
    async fn pass(&mut self, case: &Case) -> Result<String, Box<dyn Error>> {
        let mut client: Client = self.relay.endpoint(Security::StartTls, true)?.connect().await?;
        let (user, password) = self.relay.credentials();
        client.login(user, password).await?;
        let content = format!(
            "From: <{}>\r\nTo: <someone@receiver.example>\r\nSubject: {}\r\n\r\nbody\r\n",
            case.author, case.what
        );
        client.send(case.sender, &["someone@receiver.example"], content.as_bytes()).await?.expect(250)?;
        client.quit().await?;
        let count = self.kept.messages().len() as u64 + 1;
        if tokio::time::timeout(PATIENCE, self.sink.wait_for(count)).await.is_err() {
            return Err(format!("{} never came\n{}{}", case.what, self.relay.log()?, self.receiver.log()).into());
        }
        let message = self.kept.messages().pop().ok_or("nothing came")?;
        assert_eq!(message.sender, case.sender, "{}", case.what);
        Ok(String::from_utf8(message.unstuffed())?)
    }
}

/// Makes identities, keys and MAIL FROM domains; gives the zone that they ask for.
fn published(relay: &Relay) -> Result<Zone, Box<dyn Error>> {
    let mut lines = BTreeSet::new();
    for name in ["app@address.example", "quiet@loose.example", "quiet@strict.example"] {
        relay.cli(&["identities", "create", name, "--trust"])?;
    }
    for domain in ["operator.example", "loose.example", "strict.example"] {
        relay.cli(&["identities", "create", domain])?;
        relay.cli(&["dkim", "rotate", domain, "--force"])?;
        if domain != "operator.example" {
            let back = format!("bounce.{domain}");
            relay.cli(&["identities", "mail-from", domain, &back, "--on-failure", "reject"])?;
            relay.cli(&["identities", "dkim", &format!("quiet@{domain}"), "--signing", "off"])?;
        }
        let plan = String::from_utf8(relay.cli(&["dns", "plan", domain])?.stdout)?;
        // The policies are the test's own.
        let own = plan.lines().filter(|line| named(line) && !line.starts_with("_dmarc."));
        lines.extend(own.map(str::to_owned));
    }
    let mut zone = Zone::new("example");
    zone.line(POLICIES).domain("receiver", RECEIVER).host("feedback.operator", SOURCE);
    for line in lines {
        zone.line(&line);
    }
    Ok(zone)
}

/// Whether a line of a plan is a record of the zone `example`, not a remark or a reverse name.
fn named(line: &str) -> bool {
    !line.starts_with(';') && line.contains(".example. 3600 IN ") && !line.contains(" PTR ")
}

/// The relay itself finds everything published, once it asks again.
async fn verified(relay: &Relay, domain: &str) -> Outcome {
    let mut shown = serde_json::Value::Null;
    for _ in 0..100 {
        relay.cli(&["identities", "verify", domain])?;
        shown = serde_json::from_slice(&relay.cli(&["identities", "show", domain, "--json"])?.stdout)?;
        let own = &shown["MailFromAttributes"]["MailFromDomainStatus"];
        if [&shown["DkimAttributes"]["Status"], own] == ["SUCCESS", "SUCCESS"] && shown["Problem"].is_null() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("{domain} is not verified: {shown}").into())
}

/// The receiver's `Authentication-Results`, each on one line.
fn results(message: &str) -> Vec<String> {
    let header = message.split("\r\n\r\n").next().unwrap_or_default();
    let unfolded = header.replace("\r\n\t", " ").replace("\r\n ", " ");
    let own = format!("authentication-results: {}", receiver::NAME);
    unfolded.split("\r\n").filter(|line| line.to_lowercase().starts_with(&own)).map(str::to_owned).collect()
}

/// The domains whose signatures it found good.
fn passes(result: &str) -> Vec<&str> {
    let good = result.split("dkim=").filter(|part| part.starts_with("pass"));
    good.filter_map(|part| part.split("header.d=").nth(1)?.split_whitespace().next()).collect()
}

/// What OpenDMARC found aligned in the last message: DKIM, SPF.
fn aligned(history: &str) -> Option<[bool; 2]> {
    // DMARC_POLICY_*_ALIGNMENT_PASS in its dmarc.h
    let of = |name: &str| Some(history.lines().rev().find_map(|line| line.strip_prefix(name))?.trim() == "4");
    Some([of("align_dkim ")?, of("align_spf ")?])
}

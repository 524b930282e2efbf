//! The doctor, in a network where the relay's feedback listener is a public mail exchanger.

use std::error::Error;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use postrider_testkit::{Network, Nsd, Relay, RelayOptions, Zone};
use serde_json::Value;

use crate::Outcome;

/// Where the feedback listener is, and where another mail server is.
const FEEDBACK: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 25);
const ANOTHER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 26);

const CONFIGURATION: &str = "[dns]\nservers = [\"127.0.0.1:53\"]\ntimeout = \"500ms\"\nattempts = 1\ndnssec = { validate = false }\n\n\
    [delivery.sources.out1]\nipv4 = \"198.18.0.1\"\nehlo_name = \"out.relay.test\"\n\n\
    [[listener]]\naddress = \"198.18.0.25:25\"\nrole = \"feedback\"\n\n\
    [submission]\nreturn_path = \"verp\"\nreturn_path_domain = \"bounces.relay.test\"\n\n\
    [upkeep]\nbounce_host = \"feedback.relay.test\"\n\n[doctor]\ntimeout = \"2s\"\n";

/// The zone as `dns plan` wants it, with the feedback listener at this address.
fn zone(feedback: Ipv4Addr) -> Zone {
    let mut zone = Zone::new("test");
    zone.line("bounces.relay IN MX 10 feedback.relay\nback.sender IN MX 10 feedback.relay");
    zone.line("back.sender IN TXT \"v=spf1 ip4:198.18.0.1 -all\"");
    zone.host("feedback.relay", feedback);
    zone
}

/// The verdicts of this check, with what was found.
fn verdicts(relay: &Relay, arguments: &[&str], check: &str) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    // It ends with another status than 0 where anything is wrong.
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    let output =
        command.arg("doctor").args(arguments).arg("--json").arg("--config").arg(relay.path("relay.toml")).output()?;
    let examined: Value = serde_json::from_slice(&output.stdout)?;
    let findings = examined["findings"].as_array().ok_or("no findings")?;
    let of = findings.iter().filter(|finding| finding["check"] == check);
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    Ok(of.map(|finding| (text(finding, "verdict"), text(finding, "found"))).collect())
}

fn only(mut found: Vec<(String, String)>) -> Result<(String, String), Box<dyn Error>> {
    let first = found.pop().ok_or("nothing found")?;
    if found.is_empty() { Ok(first) } else { Err(format!("more than one: {first:?}, {found:?}").into()) }
}

#[tokio::test]
async fn the_doctor_finds_whether_bounces_come_back() -> Outcome {
    let Some(network) = Network::if_allowed()? else { return Ok(()) };
    network.enter()?;
    let mut dns = Nsd::start("127.0.0.1:53".parse()?, &[zone(FEEDBACK)], Duration::from_secs(5))?;
    let options = RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), "198.18.1.1:25".parse()?, CONFIGURATION);
    let mut relay = Relay::start(options)?;
    relay.cli(&["identities", "create", "sender.test", "--trust"])?;
    relay.cli(&["identities", "mail-from", "sender.test", "back.sender.test"])?;

    for arguments in [&["--self"][..], &["other.test"]] {
        let (verdict, found) = only(verdicts(&relay, arguments, "return-path-mx")?)?;
        assert_eq!((verdict.as_str(), found.as_str()), ("pass", "its one MX record names feedback.relay.test"));
        let (verdict, found) = only(verdicts(&relay, arguments, "feedback")?)?;
        assert_eq!(verdict, "pass", "{found}");
        assert!(found.starts_with("it takes our bounces to bounces.relay.test: 250"), "{found}");
    }
    let (verdict, found) = only(verdicts(&relay, &["sender.test"], "mail-from-mx")?)?;
    assert_eq!(verdict, "pass", "{found}");

    // With other eyes: nobody is there.
    relay.stop()?;
    let (verdict, found) = only(verdicts(&relay, &["--self"], "feedback")?)?;
    assert!(verdict == "fail" && found.starts_with("nobody answers"), "{verdict} {found}");
    relay.launch()?;

    // Somebody else is there: another relay, whose key is another.
    dns.kill()?;
    let _dns = Nsd::start("127.0.0.1:53".parse()?, &[zone(ANOTHER)], Duration::from_secs(5))?;
    let elsewhere = CONFIGURATION.replace("198.18.0.25:25", "198.18.0.26:25");
    let options = RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), "198.18.1.1:25".parse()?, &elsewhere);
    let other = Relay::start(options)?;
    let (verdict, found) = only(verdicts(&relay, &["--self"], "feedback")?)?;
    assert!(
        verdict == "fail" && found.contains("does not take our bounces") && found.contains("550"),
        "{verdict} {found}"
    );
    drop(other);
    Ok(())
}

//! Keys change under load: what leaves is signed, and good by the DNS as it is
//! then, and stays good as long as the plan lists the keys.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use mail_auth::hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator};
use postrider_base::Clock;
use postrider_testkit::client::Security;
use postrider_testkit::{Load, Network, Nsd, Pattern, Received, Record, Relay, RelayOptions, Sink, Zone};
use serde_json::Value;

use crate::{Outcome, PATIENCE, named};

const DOMAIN: &str = "loose.example";
/// Messages in all, and between two changes of the key.
const MESSAGES: u64 = 900;
const BETWEEN: u64 = 250;
/// A domain has three managed keys, so it can change twice until the first is free again.
const ROTATIONS: u64 = 2;

/// Looks at keys as soon after they are published as it can be told to.
const CONFIGURATION: &str = "[dns]\nservers = [\"127.0.0.1:53\"]\ntimeout = \"500ms\"\nfailure_ttl = \"1s\"\n\
    dnssec = { validate = false }\n\n[dkim]\ncheck_interval = \"10s\"\n";

#[tokio::test]
async fn mail_is_verifiable_while_keys_change_and_after() -> Outcome {
    let Some(network) = Network::if_allowed()? else { return Ok(()) };
    network.enter()?;
    let kept = Record::default();
    let sink = Sink::start(kept.clone(), Clock::system()).await?;
    let relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), CONFIGURATION))?;
    told(&relay, &["identities", "create", DOMAIN, "--trust"]).await?;
    let dns = serve(&plan(&relay).await?)?;
    until_keys_are_seen(&relay).await?;

    let load = load(&relay)?;
    let clock = Clock::system();
    let (report, rotated, verified) = tokio::join!(load.run(&clock), rotate(&relay, &sink), all_good(&kept));
    assert_eq!(report?.accepted, MESSAGES);
    rotated?;
    let by_selector = verified.map_err(|error| format!("{error}\n{}", relay.log().unwrap_or_default()))?;
    assert_eq!(by_selector.len() as u64, ROTATIONS + 1, "{by_selector:?}");

    // Only what the relay says to publish now is published: no key that signed is missing.
    drop(dns);
    let plan = plan(&relay).await?;
    let dns = serve(&plan)?;
    let messages = kept.messages();
    for message in &messages {
        let (selector, result) = verify(message).await?;
        assert_eq!(result, DkimResult::Pass, "{selector}, after the keys have changed");
    }
    // And without the retired keys their mail, and no other, can not be verified.
    drop(dns);
    let current = of_state(&relay, "current").await?;
    let [current] = current.as_slice() else { return Err(format!("more than one signs: {current:?}").into()) };
    let _dns = serve(&plan.lines().filter(|line| line.starts_with(current.as_str())).collect::<Vec<_>>().join("\n"))?;
    for (selector, message) in &by_selector {
        let (_, result) = verify(message).await?;
        assert_eq!(result == DkimResult::Pass, selector == current, "{selector}: {result:?}");
    }
    Ok(())
}

fn load(relay: &Relay) -> Result<Load, Box<dyn Error>> {
    let (user, password) = relay.credentials();
    Ok(Load {
        endpoint: relay.endpoint(Security::StartTls, true)?,
        credentials: Some((user.to_owned(), password.to_owned())),
        sessions: 4,
        messages: MESSAGES,
        size: 3_000,
        pattern: Pattern::Kept,
        sender: format!("app@{DOMAIN}"),
        recipient: "m{}@receiver.example".to_owned(),
        spread: MESSAGES,
    })
}

/// Changes the key whenever so much mail has arrived. The relay has seen the next one in the DNS.
async fn rotate(relay: &Relay, sink: &Sink) -> Outcome {
    for rotation in 1..=ROTATIONS {
        while sink.accepted() < rotation * BETWEEN {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        told(relay, &["dkim", "rotate", DOMAIN]).await?;
    }
    assert!(sink.accepted() < MESSAGES, "the keys changed after the load");
    Ok(())
}

/// Verifies each message as it arrives; gives one of each selector.
async fn all_good(kept: &Record) -> Result<BTreeMap<String, Received>, Box<dyn Error>> {
    let mut by_selector = BTreeMap::new();
    let mut done: usize = 0;
    let verify_all = async {
        while (done as u64) < MESSAGES {
            for message in kept.messages().into_iter().skip(done) {
                let (selector, result) = verify(&message).await?;
                if result != DkimResult::Pass {
                    return Err(format!("message {done}, by {selector}: {result:?}").into());
                }
                by_selector.entry(selector).or_insert(message);
                done += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<(), Box<dyn Error>>(())
    };
    let result = tokio::time::timeout(2 * PATIENCE, verify_all).await;
    result.map_err(|_| format!("{done} of {MESSAGES} came"))??;
    Ok(by_selector)
}

/// The selector of a message's only signature, and what mail-auth says of it, which asks the
/// DNS anew each time.
async fn verify(message: &Received) -> Result<(String, DkimResult), Box<dyn Error>> {
    let connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let server = NameServerConfig::new("127.0.0.1".parse()?, true, connections);
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    let authenticator = MessageAuthenticator::new(ResolverConfig::from_parts(None, Vec::new(), vec![server]), options)?;
    let content = message.unstuffed();
    let parsed = AuthenticatedMessage::parse(&content).ok_or("no message")?;
    let outputs = authenticator.verify_dkim(&parsed).await;
    let [output] = outputs.as_slice() else {
        return Err(format!("{} signatures:\n{}", outputs.len(), String::from_utf8_lossy(&content)).into());
    };
    let text = String::from_utf8_lossy(&content).replace("\r\n\t", " ");
    let field = text.lines().find(|line| line.starts_with("DKIM-Signature:")).ok_or("unsigned")?;
    let tag = |name: &str| field.split(';').find_map(|tag| tag.trim().strip_prefix(name)).unwrap_or_default();
    assert_eq!(tag("d="), DOMAIN, "{field}");
    Ok((tag("s=").to_owned(), output.result().clone()))
}

/// A name server with these lines.
fn serve(lines: &str) -> Result<Nsd, Box<dyn Error>> {
    let mut zone = Zone::new("example");
    zone.line(lines);
    Ok(Nsd::start("127.0.0.1:53".parse()?, &[zone], Duration::from_secs(1))?)
}

/// What is to be published of the domain.
async fn plan(relay: &Relay) -> Result<String, Box<dyn Error>> {
    let plan = told(relay, &["dns", "plan", DOMAIN]).await?;
    Ok(plan
        .lines()
        .filter(|line| line.contains("._domainkey."))
        .filter(|line| named(line))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// One signs then, and the others may.
async fn until_keys_are_seen(relay: &Relay) -> Outcome {
    for _ in 0..300 {
        let seen = keys(relay).await?.iter().filter(|key| !key["seen"].is_null()).count();
        if seen == 3 && of_state(relay, "current").await?.len() == 1 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("keys are not seen: {:?}\n{}", keys(relay).await?, relay.log()?).into())
}

async fn keys(relay: &Relay) -> Result<Vec<Value>, Box<dyn Error>> {
    Ok(serde_json::from_str(&told(relay, &["dkim", "list", "--json"]).await?)?)
}

/// The selectors of the keys in this state.
async fn of_state(relay: &Relay, state: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let keys = keys(relay).await?;
    let those = keys.iter().filter(|key| key["state"] == state);
    Ok(those.filter_map(|key| key["selector"].as_str().map(str::to_owned)).collect())
}

/// Runs a command while the load goes on.
async fn told(relay: &Relay, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_postrider"));
    let output = command.args(arguments).arg("--config").arg(relay.path("relay.toml")).output().await?;
    if !output.status.success() {
        return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

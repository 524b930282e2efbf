//! Domains that publish what their mail hosts are like (MTA-STS, RFC 8461), at
//! real policy hosts: mail goes to such hosts or waits.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use postrider_testkit::{Authority, Conduct};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::Outcome;
use crate::world::{Plan, SHORT, World, address, first_attempt};

/// Policies by the name of their host.
type Policies = Arc<BTreeMap<String, String>>;

/// Serves policies at all addresses, until it is aborted.
async fn serve(tls: Arc<ServerConfig>, policies: Policies) -> std::io::Result<JoinHandle<()>> {
    let listener = TcpListener::bind("0.0.0.0:443").await?;
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(reply(stream, TlsAcceptor::from(tls.clone()), policies.clone()));
        }
    }))
}

async fn reply(stream: TcpStream, acceptor: TlsAcceptor, policies: Policies) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let is_path = request.starts_with("get /.well-known/mta-sts.txt http/1.1\r\n");
    let (status, policy) = match policies.get(host).filter(|_| is_path) {
        Some(policy) => ("200 OK", policy.as_str()),
        None => ("404 Not Found", ""),
    };
    let length = policy.len();
    let reply = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{policy}");
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}

/// Name, host, mode of the policy and the host that it names, and what becomes
/// of mail.
type Case = (&'static str, Conduct, &'static str, String, &'static str);

fn cases(authority: &Authority) -> Result<Vec<Case>, Box<dyn Error>> {
    let shows = |authority: &Authority, name: &str| {
        let names = [format!("mx.{name}.test")];
        Ok::<_, Box<dyn Error>>(Conduct::with_tls(authority.issue(&[names[0].as_str()])?.server()?))
    };
    let stranger = Authority::new()?;
    let own = |name: &str| format!("mx.{name}.test");
    Ok(vec![
        ("good", shows(authority, "good")?, "enforce", own("good"), "Delivery"),
        ("star", shows(authority, "star")?, "enforce", "*.star.test".to_owned(), "Delivery"),
        ("wrong-mx", shows(authority, "wrong-mx")?, "enforce", own("other"), "DeliveryDelay"),
        ("wrong-name", shows(authority, "another")?, "enforce", own("wrong-name"), "DeliveryDelay"),
        ("untrusted", shows(&stranger, "untrusted")?, "enforce", own("untrusted"), "DeliveryDelay"),
        ("clear", Conduct::default(), "enforce", own("clear"), "DeliveryDelay"),
        ("testing", shows(&stranger, "testing")?, "testing", own("testing"), "Delivery"),
    ])
}

/// A world with the cases, each domain with its policy host; the web server is not
/// part of it.
fn plan(cases: &[Case], trusted: &std::path::Path) -> (Plan, Policies) {
    let sites: Vec<_> = cases.iter().map(|(name, conduct, ..)| ((*name).to_owned(), conduct.clone())).collect();
    let trusted = trusted.display();
    let configuration = format!("[delivery]\nretry = [\"1h\"]\n{SHORT}[delivery.tls]\nca_file = \"{trusted}\"\n");
    let mut plan = Plan::of(sites, configuration);
    let mut policies = BTreeMap::new();
    for (number, (name, _, mode, mx, _)) in cases.iter().enumerate() {
        plan.zone.line(&format!("_mta-sts.{name} IN TXT \"v=STSv1; id={number};\""));
        plan.zone.host(&format!("mta-sts.{name}"), address(number));
        let policy = format!("version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 604800\r\n");
        policies.insert(format!("mta-sts.{name}.test"), policy);
    }
    (plan, Arc::new(policies))
}

#[tokio::test]
async fn hosts_that_a_policy_does_not_mean_get_nothing_and_a_restart_changes_nothing() -> Outcome {
    let authority = Authority::new()?;
    let cases = cases(&authority)?;
    let files = tempfile::tempdir()?;
    let trusted = files.path().join("authorities.pem");
    std::fs::write(&trusted, authority.pem())?;
    let (plan, policies) = plan(&cases, &trusted);
    let hosts: Vec<&str> = policies.keys().map(String::as_str).collect();
    let certificate = authority.issue(&hosts)?.server()?;
    let Some(mut world) = World::of(plan)? else { return Ok(()) };
    let web = serve(certificate, policies.clone()).await?;

    let recipients: Vec<String> = cases.iter().map(|(name, ..)| format!("you@{name}.test")).collect();
    world.send(&recipients, 100).await?;
    let events = world.until_tried(&recipients).await?;
    for (number, (name, _, mode, _, expected)) in cases.iter().enumerate() {
        let (kind, said) = first_attempt(&events[&recipients[number]]).unwrap_or_default();
        assert_eq!(kind, *expected, "{name}: {said}\n{}", world.relay.log()?);
        assert!(
            kind == "Delivery" || (said.contains("454 4.7.5 ") && said.contains("MTA-STS policy")),
            "{name}: {said}"
        );
        let seen = world.provider.seen(address(number));
        assert_eq!(seen.taken, u64::from(*expected == "Delivery"), "{name}");
        assert!(*mode == "testing" || seen.messages.iter().all(|message| message.encrypted), "{name}");
    }
    let shown = String::from_utf8(world.relay.cli(&["sts", "show", "good.test"])?.stdout)?;
    assert!(shown.contains("enforce") && shown.contains("mx.good.test"), "{shown}");

    // What was fetched once holds, whoever keeps the policy host from us.
    web.abort();
    let _ = web.await;
    assert!(world.relay.stop()?.success());
    world.relay.launch()?;
    let again = ["again@good.test", "again@untrusted.test"].map(str::to_owned);
    world.send(&again, 100).await?;
    let events = world.until_tried(&again).await?;
    let kinds = again.each_ref().map(|recipient| first_attempt(&events[recipient]).unwrap_or_default().0);
    assert_eq!(kinds, ["Delivery", "DeliveryDelay"], "{}", world.relay.log()?);
    Ok(())
}

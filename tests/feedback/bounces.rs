//! Real mail servers that take the relay's mail, and find only then that nobody wants it.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use postrider_testkit::peers::{Peer, Running};
use postrider_testkit::postfix::Postfix;

use crate::Outcome;
use crate::world::{BACK, Ground, SENDER, World};

/// What the journal, the list and the sender have to say when a server bounces what it took.
async fn bounces_come_back(mut world: World) -> Outcome {
    let id = world.send(&["one@example.net", "gone@example.net", "full@example.org"], "late").await?;
    world.arrived("Subject: late\r\n").await?;
    world.until("two bounces", || Ok(world.events(&id, "Bounce")?.len() == 2)).await?;
    let bounces = world.events(&id, "Bounce")?;
    let of = |address: &str| {
        let is_of = |event: &&serde_json::Value| event["bounce"]["bouncedRecipients"][0]["emailAddress"] == address;
        bounces.iter().find(is_of).map(|event| &event["bounce"]).ok_or_else(|| format!("{address}: {bounces:?}"))
    };
    let gone = of("gone@example.net")?;
    assert_eq!((&gone["bounceType"], &gone["bounceSubType"]), (&"Permanent".into(), &"NoEmail".into()), "{gone:#}");
    let recipients = gone["bouncedRecipients"].as_array().ok_or("nobody")?;
    assert_eq!((recipients.len(), &recipients[0]["action"]), (1, &"failed".into()), "{gone:#}");
    // Some leave what the next host said in the text, and write 5.0.0.
    assert!(["5.1.1", "5.0.0"].iter().any(|status| recipients[0]["status"] == *status), "{gone:#}");
    let diagnostic = recipients[0]["diagnosticCode"].as_str().unwrap_or_default();
    assert!(diagnostic.contains("user unknown"), "{gone:#}");
    let full = of("full@example.org")?;
    assert_eq!((&full["bounceType"], &full["bounceSubType"]), (&"Transient".into(), &"MailboxFull".into()), "{full:#}");

    assert_eq!(world.suppressed("gone@example.net").await?, "BOUNCE");
    assert!(!world.is_suppressed("full@example.org") && !world.is_suppressed("one@example.net"));
    // What the host said first, and what came later.
    let life = world.ask(&["message", &id])?;
    let steps = life["steps"].as_array().ok_or("no life")?;
    let gone = steps.iter().filter(|step| step["recipient"] == "gone@example.net");
    // In any order: a mail has whole seconds.
    let words: BTreeSet<&str> = gone.filter_map(|step| step["what"].as_str()).collect();
    assert_eq!(words, BTreeSet::from(["delivered", "returned"]), "{life:#}");

    // And who sent is told, by the relay and not by the stranger.
    for recipient in ["gone@example.net", "full@example.org"] {
        let told = world.arrived(&format!("Final-Recipient: rfc822; {recipient}")).await?;
        assert!(told.sender.is_empty() && told.recipients == [SENDER], "{told:?}");
    }
    let told = world.mailboxes().iter().filter(|message| message.sender.is_empty()).count();
    assert_eq!(told, 2, "one mail for each");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_bounces_what_it_took() -> Outcome {
    let ground = Ground::new().await?;
    postfix_bounces(ground, "none").await
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_brings_bounces_over_tls() -> Outcome {
    let ground = Ground::new().await?;
    postfix_bounces(ground, "encrypt").await
}

async fn postfix_bounces(ground: Ground, security: &str) -> Outcome {
    let relayhost = format!("[127.0.0.1]:{}", ground.mailboxes().port());
    let back = format!("inline:{{ {BACK}=smtp:[127.0.0.1]:{} }}", ground.feedback.port());
    let policy = format!("inline:{{ [127.0.0.1]:{}={security} }}", ground.feedback.port());
    let parameters = [
        ("relayhost", relayhost.as_str()),
        ("transport_maps", &back),
        ("smtp_tls_policy_maps", &policy),
        ("smtp_dns_support_level", "disabled"),
    ];
    let postfix = Postfix::start(&parameters, |_| Ok(()))?;
    let world = ground.world(([127, 0, 0, 1], postfix.port()).into(), "")?;
    bounces_come_back(world).await.map_err(|error| format!("{error}\n{}", postfix.log().unwrap_or_default()).into())
}

/// Nobody tells when it listens.
async fn until_it_listens(port: u16, peer: &Peer) -> Outcome {
    for _ in 0..400 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("it does not listen: {}", std::fs::read_to_string(peer.path("output"))?).into())
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn exim_bounces_what_it_took() -> Outcome {
    let ground = Ground::new().await?;
    let peer = Peer::new(Path::new(env!("CARGO_MANIFEST_DIR")), &["exim4-daemon-light"])?;
    let (own, port) = (peer.path("").display().to_string(), free_port()?);
    let text = format!(
        "exim_user = Debian-exim\nexim_group = Debian-exim\nspool_directory = {own}spool\nlog_file_path = {own}log/%slog\n\
         primary_hostname = exim.test\ndomainlist local_domains =\nkeep_environment =\ndisable_ipv6 = true\n\
         local_interfaces = 127.0.0.1\ndaemon_smtp_ports = {port}\nacl_smtp_rcpt = all\nacl_smtp_data = all\n\n\
         begin acl\nall:\n  accept\n\n\
         begin routers\n\
         back:\n  driver = manualroute\n  domains = {BACK}\n  route_list = * 127.0.0.1 byname\n  transport = back\n  self = send\n\
         sink:\n  driver = manualroute\n  route_list = * 127.0.0.1 byname\n  transport = sink\n  self = send\n\n\
         begin transports\n\
         back:\n  driver = smtp\n  port = {}\n  allow_localhost\n  tls_verify_hosts =\n  tls_try_verify_hosts =\n\
         sink:\n  driver = smtp\n  port = {}\n  allow_localhost\n\nbegin retry\n\n* * F,1m,1s\n",
        ground.feedback.port(),
        ground.mailboxes().port()
    );
    peer.write("exim.conf", &text)?;
    let script = format!(
        "mkdir {own}spool {own}log; chown Debian-exim: {own}spool {own}log; exec exim4 -C {own}exim.conf -bdf -q1m"
    );
    let _running: Running = peer.spawn(&script)?;
    until_it_listens(port, &peer).await?;
    let log = || std::fs::read_to_string(peer.path("log/mainlog")).unwrap_or_default();
    let world = ground.world(([127, 0, 0, 1], port).into(), "")?;
    bounces_come_back(world).await.map_err(|error| format!("{error}\n{}", log()).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn opensmtpd_bounces_what_it_took() -> Outcome {
    let ground = Ground::new().await?;
    let peer = Peer::new(Path::new(env!("CARGO_MANIFEST_DIR")), &["opensmtpd"])?;
    let (own, port) = (peer.path("").display().to_string(), free_port()?);
    let text = format!(
        "listen on 127.0.0.1 port {port}\naction \"sink\" relay host \"smtp://127.0.0.1:{}\"\n\
         action \"back\" relay host \"smtp://127.0.0.1:{}\"\n\
         match from any for domain \"{BACK}\" action \"back\"\nmatch from any for any action \"sink\"\n",
        ground.mailboxes().port(),
        ground.feedback.port()
    );
    peer.write("smtpd.conf", &text)?;
    let script = format!(
        "mount -t tmpfs none /var; mkdir /var/spool; ln -s /run /var/run; mount -t tmpfs none /run\n\
         mkdir -m 711 /var/spool/smtpd\n\
         for q in corrupt incoming purge queue temporary; do mkdir -m 700 /var/spool/smtpd/$q; chown opensmtpq /var/spool/smtpd/$q; done\n\
         mkdir -m 770 /var/spool/smtpd/offline; chgrp opensmtpq /var/spool/smtpd/offline; mkdir -p /run/smtpd /var/lib/opensmtpd/empty /var/empty\n\
         exec smtpd -d -f {own}smtpd.conf"
    );
    let _running = peer.spawn(&script)?;
    until_it_listens(port, &peer).await?;
    let log = || std::fs::read_to_string(peer.path("output")).unwrap_or_default();
    let world = ground.world(([127, 0, 0, 1], port).into(), "")?;
    bounces_come_back(world).await.map_err(|error| format!("{error}\n{}", log()).into())
}

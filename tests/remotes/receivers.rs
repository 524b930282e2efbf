//! Real mail servers that take the relay's mail, over TLS, and pass it on to a
//! sink: what comes out there is what they understood.

use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::peers::{Peer, Running};
use postrider_testkit::postfix::Postfix;
use postrider_testkit::{Authority, Client, Record, Relay, RelayOptions, Security, Sink};
use serde_json::Value;

use crate::Outcome;

const SENDER: &str = "app@sender.test";
/// What the servers take at most.
const SIZE_LIMIT: usize = 3_000_000;
/// How long anything may take before the test calls it lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stands in a notification after the name of the field.
const ENVELOPE_ID: &str = ": QQ314159\r\n";

/// What a server can.
struct Abilities {
    /// STARTTLS that works.
    tls: bool,
    /// Addresses beyond ASCII (RFC 6531).
    smtputf8: bool,
    /// Words that are in what it tells of a delivery when it is asked to.
    success: &'static str,
}

/// A relay, a server that gets all its mail, and the sink behind that.
struct Scene {
    relay: Relay,
    sink: Sink,
    kept: Record,
}

/// Before the server: where it can pass mail on, and its certificate.
struct Ground {
    sink: Sink,
    kept: Record,
    port: u16,
    certificate: String,
    key: String,
}

impl Ground {
    async fn new() -> Result<Self, Box<dyn Error>> {
        let kept = Record::default();
        let sink = Sink::start(kept.clone(), Clock::system()).await?;
        let issued = Authority::new()?.issue(&["mx.test"])?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { sink, kept, port, certificate: issued.chain_pem, key: issued.key_pem })
    }

    fn scene(self, port: u16) -> Result<Scene, Box<dyn Error>> {
        let remote = ([127, 0, 0, 1], port).into();
        let options = RelayOptions::to(
            env!("CARGO_BIN_EXE_postrider"),
            remote,
            "[delivery]\nretry = [\"1s\"]\n\n[log]\nlevel = \"info,postrider_delivery=debug\"\n",
        );
        Ok(Scene { relay: Relay::start(options)?, sink: self.sink, kept: self.kept })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_receives() -> Outcome {
    let ground = Ground::new().await?;
    let files = tempfile::Builder::new().prefix("receiver-").tempdir()?;
    let chain = files.path().join("chain.pem");
    std::fs::write(&chain, ground.key.clone() + &ground.certificate)?;
    let relayhost = format!("[127.0.0.1]:{}", ground.sink.address().port());
    let parameters = [
        ("relayhost", relayhost.as_str()),
        ("smtp_dns_support_level", "disabled"),
        ("message_size_limit", &SIZE_LIMIT.to_string()),
        ("smtpd_tls_security_level", "may"),
        ("smtpd_tls_chain_files", &chain.display().to_string()),
        ("smtpd_recipient_restrictions", "check_recipient_access inline:{gone@example.net=REJECT}, permit_mynetworks"),
        ("access_map_reject_code", "550"),
    ];
    let postfix = Postfix::start(&parameters, |_| Ok(()))?;
    let scene = ground.scene(postfix.port())?;
    scene
        .receives(&Abilities { tls: true, smtputf8: true, success: ENVELOPE_ID })
        .await
        .map_err(|error| format!("{error}\n{}", postfix.log().unwrap_or_default()).into())
}

fn peer(package: &str, ground: &Ground) -> Result<Peer, Box<dyn Error>> {
    let peer = Peer::new(Path::new(env!("CARGO_MANIFEST_DIR")), &[package])?;
    peer.write("certificate.pem", &ground.certificate)?;
    peer.write("key.pem", &ground.key)?;
    Ok(peer)
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

#[tokio::test(flavor = "multi_thread")]
async fn exim_receives() -> Outcome {
    let ground = Ground::new().await?;
    let peer = peer("exim4-daemon-light", &ground)?;
    let own = peer.path("").display().to_string();
    let text = format!(
        "exim_user = Debian-exim\nexim_group = Debian-exim\nspool_directory = {own}spool\nlog_file_path = {own}log/%slog\n\
         primary_hostname = exim.test\ndomainlist local_domains =\nkeep_environment =\ndisable_ipv6 = true\n\
         local_interfaces = 127.0.0.1\ndaemon_smtp_ports = {}\nmessage_size_limit = {SIZE_LIMIT}\n\
         tls_advertise_hosts = *\ntls_certificate = {own}certificate.pem\ntls_privatekey = {own}key.pem\n\
         smtputf8_advertise_hosts = *\ndsn_advertise_hosts = *\nacl_smtp_rcpt = rcpt\nacl_smtp_data = data\n\n\
         begin acl\nrcpt:\n  deny local_parts = gone\n    message = 5.1.1 unknown user\n  accept\ndata:\n  accept\n\n\
         begin routers\nsink:\n  driver = manualroute\n  route_list = * 127.0.0.1 byname\n  transport = sink\n  self = send\n\n\
         begin transports\nsink:\n  driver = smtp\n  port = {}\n  allow_localhost\n\nbegin retry\n\n* * F,1m,1s\n",
        ground.port,
        ground.sink.address().port()
    );
    peer.write("exim.conf", &text)?;
    let script = format!(
        "mkdir {own}spool {own}log; chown Debian-exim: {own}spool {own}log {own}key.pem; exec exim4 -C {own}exim.conf -bdf -q1m"
    );
    let _running: Running = peer.spawn(&script)?;
    until_it_listens(ground.port, &peer).await?;
    let port = ground.port;
    let log = || std::fs::read_to_string(peer.path("log/mainlog")).unwrap_or_default();
    let scene = ground.scene(port)?;
    scene
        .receives(&Abilities { tls: true, smtputf8: true, success: ENVELOPE_ID })
        .await
        .map_err(|error| format!("{error}\n{}", log()).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn opensmtpd_receives() -> Outcome {
    let ground = Ground::new().await?;
    let peer = peer("opensmtpd", &ground)?;
    let own = peer.path("").display().to_string();
    let text = format!(
        "pki own cert \"{own}certificate.pem\"\npki own key \"{own}key.pem\"\nsmtp max-message-size {SIZE_LIMIT}\n\
         listen on 127.0.0.1 port {} tls pki own\naction \"sink\" relay host \"smtp://127.0.0.1:{}\"\n\
         match from any for rcpt-to \"gone@example.net\" reject\nmatch from any for any action \"sink\"\n",
        ground.port,
        ground.sink.address().port()
    );
    peer.write("smtpd.conf", &text)?;
    let script = format!(
        "chmod 600 {own}key.pem; mount -t tmpfs none /var; mkdir /var/spool; ln -s /run /var/run; mount -t tmpfs none /run\n\
         mkdir -m 711 /var/spool/smtpd\n\
         for q in corrupt incoming purge queue temporary; do mkdir -m 700 /var/spool/smtpd/$q; chown opensmtpq /var/spool/smtpd/$q; done\n\
         mkdir -m 770 /var/spool/smtpd/offline; chgrp opensmtpq /var/spool/smtpd/offline; mkdir -p /run/smtpd /var/lib/opensmtpd/empty /var/empty\n\
         exec smtpd -d -f {own}smtpd.conf"
    );
    let _running = peer.spawn(&script)?;
    until_it_listens(ground.port, &peer).await?;
    let port = ground.port;
    let log = || std::fs::read_to_string(peer.path("output")).unwrap_or_default();
    let scene = ground.scene(port)?;
    // It tells of success in words of its own, and offers STARTTLS; but where its privilege separation and OpenSSL 3 do not
    // get on (Debian 12), every handshake fails: then mail comes in clear.
    scene
        .receives(&Abilities { tls: false, smtputf8: false, success: "Your message was relayed" })
        .await
        .map_err(|error| format!("{error}\n{}", log()).into())
}

impl Scene {
    /// Everything that the relay says to hosts, to this one.
    async fn receives(mut self, abilities: &Abilities) -> Outcome {
        self.takes_content_as_it_is(abilities).await?;
        self.knows_some_and_not_others().await?;
        self.refuses_what_is_too_large().await?;
        self.tells_of_success(abilities).await?;
        self.takes_addresses_beyond_ascii(abilities).await
    }

    async fn takes_content_as_it_is(&mut self, abilities: &Abilities) -> Outcome {
        for (name, body) in bodies() {
            let id = self.send(SENDER, "", &[("one@example.net", "")], name, &body).await?;
            let message = self.arrived(&format!("Subject: {name}\r\n")).await?;
            let (header, arrived) = split(&message.unstuffed()).ok_or("a message without body")?;
            assert!(arrived == body, "the body of {name} changed");
            assert_eq!(
                (message.sender.as_str(), message.recipients.as_slice()),
                (SENDER, &["one@example.net".to_owned()][..])
            );
            // The server's own words, on top.
            let first = header.split("\r\nReceived:").next().unwrap_or_default().to_lowercase();
            if abilities.tls && !first.contains("esmtps") {
                return Err(format!("not over TLS: {first}\n{}", self.relay.log()?).into());
            }
            let delivered = self.event(&id, "Delivery").await?;
            assert!(
                delivered["delivery"]["smtpResponse"].as_str().unwrap_or_default().starts_with("250"),
                "{delivered}"
            );
        }
        Ok(())
    }

    async fn knows_some_and_not_others(&mut self) -> Outcome {
        let recipients = [("one@example.net", ""), ("gone@example.net", ""), ("two@example.net", "")];
        let id = self.send(SENDER, "", &recipients, "some", b"body\r\n").await?;
        let bounce = self.event(&id, "Bounce").await?;
        let affected = bounce["bounce"]["bouncedRecipients"].as_array().ok_or("nobody")?;
        assert_eq!((affected.len(), &affected[0]["emailAddress"]), (1, &"gone@example.net".into()));
        assert!(affected[0]["diagnosticCode"].as_str().unwrap_or_default().starts_with("smtp; 550"), "{bounce}");
        let message = self.arrived("Subject: some\r\n").await?;
        let mut named: Vec<String> = Vec::new();
        // The server may make one transaction of it, or two.
        for message in self.kept.messages().iter().filter(|other| other.unstuffed().ends_with(b"\r\n\r\nbody\r\n")) {
            named.extend(message.recipients.clone());
        }
        assert!(named.contains(&"one@example.net".to_owned()), "{named:?} {message:?}");
        assert!(!named.contains(&"gone@example.net".to_owned()));
        // And the sender is told.
        self.arrived("Final-Recipient: rfc822; gone@example.net").await?;
        Ok(())
    }

    async fn refuses_what_is_too_large(&mut self) -> Outcome {
        let body = b"0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnop\r\n".repeat(SIZE_LIMIT / 60);
        let id = self.send(SENDER, "", &[("one@example.net", "")], "too large", &body).await?;
        let bounce = self.event(&id, "Bounce").await?;
        assert_eq!(
            (&bounce["bounce"]["bounceType"], &bounce["bounce"]["bounceSubType"]),
            (&"Transient".into(), &"MessageTooLarge".into()),
            "{bounce}"
        );
        Ok(())
    }

    /// Whoever knows how tells the sender: the server, or the relay where the
    /// server does not.
    async fn tells_of_success(&mut self, abilities: &Abilities) -> Outcome {
        let recipients = [("one@example.net", " NOTIFY=SUCCESS ORCPT=rfc822;first@example.net")];
        let id = self.send(SENDER, " RET=HDRS ENVID=QQ314159", &recipients, "notify", b"body\r\n").await?;
        self.event(&id, "Delivery").await?;
        let told = self.arrived(abilities.success).await?;
        assert!(told.sender.is_empty() && told.recipients == [SENDER], "{told:?}");
        if abilities.success == ENVELOPE_ID {
            let text = String::from_utf8_lossy(&told.unstuffed()).to_lowercase().replace("rfc822; ", "rfc822;");
            assert!(text.contains("action: relayed") || text.contains("action: delivered"), "{text}");
            assert!(text.contains("original-recipient: rfc822;first@example.net"), "{text}");
        }
        Ok(())
    }

    async fn takes_addresses_beyond_ascii(&mut self, abilities: &Abilities) -> Outcome {
        let recipient = "jösé@example.net";
        let id = self.send(SENDER, " SMTPUTF8", &[(recipient, "")], "Grüße", "Grüße\r\n".as_bytes()).await?;
        if abilities.smtputf8 {
            let message = self.arrived("Subject: Grüße\r\n").await?;
            assert_eq!(message.recipients, [recipient]);
            self.event(&id, "Delivery").await?;
        } else {
            let bounce = self.event(&id, "Bounce").await?;
            assert_eq!(bounce["bounce"]["bouncedRecipients"][0]["status"], "5.6.7", "{bounce}");
        }
        Ok(())
    }

    /// Submits a message; parameters stand behind the addresses.
    async fn send(
        &self,
        sender: &str,
        parameters: &str,
        recipients: &[(&str, &str)],
        subject: &str,
        body: &[u8],
    ) -> Result<String, Box<dyn Error>> {
        let mut client: Client = self.relay.endpoint(Security::StartTls, true)?.connect().await?;
        let (user, password) = self.relay.credentials();
        client.login(user, password).await?;
        client.command(&format!("MAIL FROM:<{sender}>{parameters}")).await?.expect(250)?;
        for (recipient, parameters) in recipients {
            client.command(&format!("RCPT TO:<{recipient}>{parameters}")).await?.expect(250)?;
        }
        client.command("DATA").await?.expect(354)?;
        let header = format!(
            "From: App <{sender}>\r\nTo: one@example.net\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        );
        let reply = client.finish(&stuffed(&[header.as_bytes(), body].concat())).await?.expect(250)?;
        Ok(reply.text().split_whitespace().last().ok_or("no id")?.to_owned())
    }

    /// The first message at the sink with this text in it.
    async fn arrived(&mut self, text: &str) -> Result<postrider_testkit::Received, Box<dyn Error>> {
        let has = |message: &postrider_testkit::Received| contains(&message.unstuffed(), text.as_bytes());
        let find = async {
            loop {
                let count = self.sink.accepted();
                if let Some(message) = self.kept.messages().into_iter().find(has) {
                    return message;
                }
                self.sink.wait_for(count + 1).await;
            }
        };
        Ok(tokio::time::timeout(PATIENCE, find).await.map_err(|_| format!("never came: {text}"))?)
    }

    /// The event of this type for this message.
    async fn event(&self, id: &str, kind: &str) -> Result<Value, Box<dyn Error>> {
        let mut last = String::new();
        for _ in 0..300 {
            last = String::from_utf8(self.relay.cli(&["events", "since", "1h"])?.stdout)?;
            let mut events = last.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(event) = events.find(|event| event["eventType"] == kind && event["mail"]["messageId"] == id) {
                return Ok(event);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("no {kind} of {id}: {last}").into())
    }
}

/// Bodies that a hop could spoil: dots, octets beyond ASCII, lines as long as
/// they may be, no last words, and much.
fn bodies() -> [(&'static str, Vec<u8>); 4] {
    let long = "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnop\r\n".repeat(2_000_000 / 64);
    [
        ("dots", b"\r\n.\r\n..\r\n...dots\r\n \r\n\r\nlast line\r\n".to_vec()),
        ("8bit", "Schöne Grüße\r\n日本語\r\n".as_bytes().to_vec()),
        ("lines", format!("{}\r\n{}\r\n", "x".repeat(998), "ü".repeat(499)).into_bytes()),
        ("large", long.into_bytes()),
    ]
}

fn stuffed(content: &[u8]) -> Vec<u8> {
    let lines = content.split_inclusive(|octet| *octet == b'\n');
    lines.flat_map(|line| [if line.starts_with(b".") { &b"."[..] } else { b"" }, line].concat()).collect()
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Header and body.
fn split(content: &[u8]) -> Option<(String, Vec<u8>)> {
    let end = content.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((String::from_utf8_lossy(&content[..end]).into_owned(), content[end + 4..].to_vec()))
}

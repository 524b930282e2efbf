//! Real clients, as their users set them up for SES.

use std::error::Error;
use std::process::{Command, Output};

use postrider_base::Clock;
use postrider_testkit::postfix::{Postfix, smarthost_files};
use postrider_testkit::relay::{Relay, RelayOptions};
use postrider_testkit::{Client, Endpoint, Received, Record, Security, Sink, authority};

type Outcome = Result<(), Box<dyn Error>>;

/// A relay whose mail all goes to a sink that keeps it.
struct Scene {
    relay: Relay,
    sink: Sink,
    kept: Record,
}

impl Scene {
    async fn new() -> Result<Self, Box<dyn Error>> {
        let kept = Record::default();
        let sink = Sink::start(kept.clone(), Clock::system()).await?;
        let relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), ""))?;
        std::fs::write(relay.path("ca.pem"), relay.authority_pem())?;
        Ok(Self { relay, sink, kept })
    }

    async fn delivered(&mut self, count: u64) -> Vec<Received> {
        self.sink.wait_for(count).await;
        self.kept.messages()
    }
}

fn run(program: &str, arguments: &[String]) -> Result<Output, Box<dyn Error>> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}; `cargo xtask test` installs it"))?;
    if output.status.success() {
        return Ok(output);
    }
    let printed = [output.stdout, output.stderr].concat();
    Err(format!("{program} failed: {}", String::from_utf8_lossy(&printed)).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn swaks_submits_over_starttls_and_wrapper() -> Outcome {
    let mut scene = Scene::new().await?;
    let (user, password) = scene.relay.credentials();
    for (tls, port) in [("--tls", scene.relay.starttls().port()), ("--tls-on-connect", scene.relay.wrapper().port())] {
        for mechanism in ["PLAIN", "LOGIN"] {
            let ca = scene.relay.path("ca.pem").display().to_string();
            let port = port.to_string();
            let words = [
                "--server",
                "localhost",
                "--port",
                &port,
                tls,
                "--tls-verify",
                "--tls-ca-path",
                &ca,
                "--auth",
                mechanism,
                "--auth-user",
                user,
                "--auth-password",
                password,
                "--from",
                "app@example.com",
                "--to",
                "one@example.net,two@example.net",
                "--header",
                "Subject: from swaks",
                "--body",
                ".dot\nlast line",
            ];
            run("/usr/bin/swaks", &words.map(str::to_owned))?;
        }
    }
    for message in scene.delivered(4).await {
        assert_eq!(message.sender, "app@example.com");
        assert_eq!(message.recipients, ["one@example.net", "two@example.net"]);
        let text = String::from_utf8(message.unstuffed())?;
        assert!(text.contains("Subject: from swaks\r\n"), "{text}");
        assert!(text.contains("\r\n.dot\r\nlast line\r\n"), "{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn swaks_with_a_wrong_password_hears_ses_words() -> Outcome {
    let scene = Scene::new().await?;
    let (user, _) = scene.relay.credentials();
    let port = scene.relay.starttls().port().to_string();
    let words = [
        "--server",
        "localhost",
        "--port",
        &port,
        "--tls",
        "--auth",
        "LOGIN",
        "--auth-user",
        user,
        "--auth-password",
        "wrong",
        "--from",
        "app@example.com",
        "--to",
        "one@example.net",
    ];
    let output = Command::new("/usr/bin/swaks").args(words).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(printed.contains("535 Authentication Credentials Invalid"), "{printed}");
    assert_eq!(scene.sink.accepted(), 0);
    Ok(())
}

const PYTHON: &str = r#"
import smtplib, ssl, sys
from email.message import EmailMessage
ca, starttls, wrapper, user, password = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
message = EmailMessage()
message["From"] = "Anwendung <app@example.com>"
message["To"] = "one@example.net"
message["Bcc"] = "hidden@example.net"
message["Subject"] = "Grüße aus Python"
message.set_content("Schöne Grüße\n.\nEnde\n")
message.add_attachment(bytes(range(256)), maintype="application", subtype="octet-stream", filename="all.bin")
with smtplib.SMTP("localhost", int(starttls)) as smtp:
    smtp.starttls(context=context)
    smtp.login(user, password)
    smtp.send_message(message)
    smtp.send_message(message)
with smtplib.SMTP_SSL("localhost", int(wrapper), context=context) as smtp:
    smtp.login(user, password)
    smtp.send_message(message)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn python_submits_over_starttls_and_wrapper() -> Outcome {
    let mut scene = Scene::new().await?;
    let (user, password) = scene.relay.credentials();
    let arguments = [
        "-c".to_owned(),
        PYTHON.to_owned(),
        scene.relay.path("ca.pem").display().to_string(),
        scene.relay.starttls().port().to_string(),
        scene.relay.wrapper().port().to_string(),
        user.to_owned(),
        password.to_owned(),
    ];
    run("/usr/bin/python3", &arguments)?;
    let messages = scene.delivered(3).await;
    assert_eq!(messages.len(), 3);
    for message in messages {
        assert_eq!(message.recipients, ["one@example.net", "hidden@example.net"]);
        let text = String::from_utf8(message.unstuffed())?;
        assert!(!text.contains("hidden@example.net"), "the Bcc leaked: {text}");
        assert!(text.contains("filename=\"all.bin\""), "{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_uses_the_relay_as_its_smarthost() -> Outcome {
    let mut scene = Scene::new().await?;
    let (user, password) = scene.relay.credentials();
    let relayhost = format!("[localhost]:{}", scene.relay.starttls().port());
    let authority_pem = scene.relay.authority_pem();
    let files = tempfile::Builder::new().prefix("smarthost-").tempdir()?;
    let passwords = smarthost_files(files.path(), &relayhost, user, password, &authority_pem)?;
    let postfix = Postfix::start(
        &[
            ("relayhost", relayhost.as_str()),
            ("smtp_sasl_auth_enable", "yes"),
            ("smtp_sasl_security_options", "noanonymous"),
            ("smtp_sasl_password_maps", &format!("hash:{}", passwords.display())),
            ("smtp_tls_security_level", "secure"),
            ("smtp_tls_secure_cert_match", "nexthop"),
            ("smtp_tls_CAfile", &files.path().join("ca.pem").display().to_string()),
            ("smtp_tls_note_starttls_offer", "yes"),
            ("smtp_dns_support_level", "disabled"),
        ],
        |_| Ok(()),
    )?;
    let address = ([127, 0, 0, 1], postfix.port()).into();
    let trust = authority::roots(&authority_pem)?;
    let mut client: Client = Endpoint::new(address, Security::None, "localhost", trust, true)?.connect().await?;
    let content = b"From:Sender Name <sender@example.com>\r\nSubject:cron\r\n\r\n.. two dots\r\nend\r\n";
    for sender in ["sender@example.com", ""] {
        let recipients = ["one@example.net", "two@example.net", "three@example.org"];
        let reply = client.send(sender, &recipients, content).await?;
        assert_eq!(reply.code, 250, "{reply}");
    }
    client.quit().await?;
    // Postfix hands over one message for all recipients; the relay makes one
    // transaction of each recipient domain.
    let messages = scene.delivered(4).await;
    assert_eq!(messages.len(), 4, "{}", postfix.log()?);
    for sender in ["sender@example.com", ""] {
        let mut domains: Vec<_> = messages
            .iter()
            .filter(|message| message.sender == sender)
            .map(|message| message.recipients.clone())
            .collect();
        domains.sort();
        assert_eq!(domains, [vec!["one@example.net", "two@example.net"], vec!["three@example.org"]]);
    }
    for message in &messages {
        let text = String::from_utf8(message.unstuffed())?;
        assert!(text.contains("From:Sender Name <sender@example.com>\r\nSubject:cron\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n. two dots\r\nend\r\n"), "{text}");
    }
    Ok(())
}

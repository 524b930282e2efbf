//! Libraries that applications send with, in the languages that they are used in.

use std::path::PathBuf;
use std::process::Command;

use lettre::message::{Attachment, MultiPart, SinglePart, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use crate::{Outcome, Scene, contains, pipe};

fn program(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop/programs").join(name)
}

/// Runs a program that sends over STARTTLS and over the wrapper: the same
/// message with a large part to two recipients and a hidden one.
async fn sends_twice(mut command: Command) -> Outcome {
    let scene = Scene::new().await?;
    let (user, password) = scene.relay.credentials();
    command.arg(scene.relay.path("ca.pem"));
    command.args([scene.relay.starttls().port().to_string(), scene.relay.wrapper().port().to_string()]);
    pipe(command.args([user, password]), b"")?;
    assert_sent(scene).await
}

async fn assert_sent(mut scene: Scene) -> Outcome {
    let messages = scene.delivered(2).await?;
    for message in messages {
        assert_eq!(message.sender, "app@example.com");
        let mut recipients = message.recipients.clone();
        recipients.sort();
        assert_eq!(recipients, ["hidden@example.net", "one@example.net", "two@example.net"]);
        let content = message.unstuffed();
        let header = &content[..content.len().min(4_000)];
        assert!(
            contains(header, b"SMTPSA id ") && !contains(header, b"hidden@"),
            "{}",
            String::from_utf8_lossy(header)
        );
        assert!(!contains(header, b"X-SES-"));
        assert!(contains(&content, b"large.bin") && content.len() > 5_000_000, "{} octets", content.len());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodemailer_submits() -> Outcome {
    let mut command = Command::new("node");
    let modules = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers/nodemailer/node_modules");
    command.env("NODE_PATH", modules).arg(program("nodemailer.js"));
    sends_twice(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn phpmailer_submits() -> Outcome {
    let mut command = Command::new("php");
    command.args(["-d", "memory_limit=512M"]).arg(program("phpmailer.php"));
    sends_twice(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn jakarta_mail_submits() -> Outcome {
    let mut command = Command::new("java");
    let jars = "/usr/share/java/jakarta-mail.jar:/usr/share/java/jakarta-activation.jar";
    command.args(["-Dfile.encoding=UTF-8", "-cp", jars]).arg(program("JakartaMail.java"));
    sends_twice(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn go_submits() -> Outcome {
    let mut command = Command::new("go");
    let home = tempfile::tempdir()?;
    command
        .env("HOME", home.path())
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off")
        .arg("run")
        .arg(program("smtp.go"));
    sends_twice(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lettre_submits() -> Outcome {
    let scene = Scene::new().await?;
    let (user, password) = scene.relay.credentials();
    let authority = Certificate::from_pem(scene.relay.authority_pem().as_bytes())?;
    let tls = TlsParameters::builder("localhost".to_owned()).add_root_certificate(authority).build()?;
    let text = SinglePart::plain("Schöne Grüße\r\n.\r\nlast line\r\n".to_owned());
    let part = Attachment::new("large.bin".to_owned())
        .body(vec![7; 5_000_000], ContentType::parse("application/octet-stream")?);
    let message = Message::builder()
        .from("App <app@example.com>".parse()?)
        .to("one@example.net".parse()?)
        .to("two@example.net".parse()?)
        .bcc("hidden@example.net".parse()?)
        .subject("Grüße from lettre")
        .multipart(MultiPart::mixed().singlepart(text).singlepart(part))?;
    for (port, tls) in
        [(scene.relay.starttls().port(), Tls::Required(tls.clone())), (scene.relay.wrapper().port(), Tls::Wrapper(tls))]
    {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("localhost")
            .port(port)
            .tls(tls)
            .credentials(Credentials::new(user.to_owned(), password.to_owned()))
            .build();
        transport.send(message.clone()).await?;
    }
    assert_sent(scene).await
}

//! Programs that send one message, as their users set them up for SES.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::{Outcome, Scene, assert_arrived, mails, pipe, run, smarthost};

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
    for message in scene.delivered(4).await? {
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
    let messages = scene.delivered(3).await?;
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
async fn curl_submits_every_kind_of_mail() -> Outcome {
    let mut scene = Scene::new().await?;
    let (user, password) = scene.relay.credentials();
    let (login, ca) = (format!("{user}:{password}"), scene.relay.path("ca.pem").display().to_string());
    let urls = [
        format!("smtp://localhost:{}", scene.relay.starttls().port()),
        format!("smtps://localhost:{}", scene.relay.wrapper().port()),
    ];
    for url in &urls {
        for mail in mails() {
            let mut words = vec!["--silent", "--show-error", "--ssl-reqd", "--cacert", &ca, "--user", &login];
            words.extend(["--url", url, "--crlf", "--mail-from", "app@example.com", "--upload-file", "-"]);
            mail.recipients.iter().for_each(|recipient| words.extend(["--mail-rcpt", recipient]));
            pipe(Command::new("curl").args(words), &mail.content)?;
        }
    }
    assert_arrived(&mut scene, "app@example.com", urls.len()).await
}

/// A whole session in one write, right behind the handshake: commands without
/// brackets, AUTH LOGIN without waiting for its questions.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_sends_a_whole_session_in_one_write() -> Outcome {
    let mut scene = Scene::new().await?;
    let (user, password) = scene.relay.credentials();
    let session = format!(
        "EHLO example.com\nAUTH LOGIN\n{}\n{}\nMAIL FROM: sender@example.com\nRCPT TO: recipient@example.com\nDATA\n\
         From: Sender Name <sender@example.com>\nTo: recipient@example.com\nSubject: from openssl\n\nThis message was sent.\n.\nQUIT\n",
        BASE64.encode(user),
        BASE64.encode(password)
    );
    let ca = scene.relay.path("ca.pem").display().to_string();
    for (port, starttls) in [(scene.relay.starttls().port(), true), (scene.relay.wrapper().port(), false)] {
        let server = format!("localhost:{port}");
        let mut words =
            vec!["s_client", "-crlf", "-quiet", "-verify_return_error", "-CAfile", &ca, "-connect", &server];
        if starttls {
            words.extend(["-starttls", "smtp"]);
        }
        let output = pipe(Command::new("openssl").args(words), session.as_bytes())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        for reply in
            ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 Authentication successful.", "354 ", "250 Ok 0100", "221 "]
        {
            assert!(said.contains(reply), "{reply} in {said}");
        }
    }
    for message in scene.delivered(2).await? {
        assert_eq!(
            (message.sender.as_str(), message.recipients.as_slice()),
            ("sender@example.com", ["recipient@example.com".to_owned()].as_slice())
        );
        assert!(message.unstuffed().ends_with(b"\r\n\r\nThis message was sent.\r\n"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn msmtp_submits_every_kind_of_mail() -> Outcome {
    let mut scene = Scene::new().await?;
    let ports = [(scene.relay.starttls().port(), "on"), (scene.relay.wrapper().port(), "off")];
    for (port, starttls) in ports {
        let text = smarthost(&scene, "msmtprc", port)?.replace("tls_starttls on", &format!("tls_starttls {starttls}"));
        let file = scene.relay.path("msmtprc");
        std::fs::write(&file, text)?;
        // It has a password in it, and msmtp insists.
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        for mail in mails() {
            let mut command = Command::new("msmtp");
            command.arg("--file").arg(&file).args(["--from", "app@example.com", "--"]).args(&mail.recipients);
            pipe(&mut command, &mail.content)?;
        }
    }
    assert_arrived(&mut scene, "app@example.com", ports.len()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s_nail_submits() -> Outcome {
    let mut scene = Scene::new().await?;
    let (_, password) = scene.relay.credentials();
    let encoded = password.replace('+', "%2B").replace('/', "%2F");
    let text = smarthost(&scene, "mailrc", scene.relay.starttls().port())?.replace(password, &encoded);
    std::fs::write(scene.relay.path("mailrc"), text)?;
    std::fs::write(scene.relay.path("attached.bin"), (0..=255).collect::<Vec<u8>>())?;
    let mut command = Command::new("s-nail");
    command.env("MAILRC", scene.relay.path("mailrc")).args(["-r", "app@example.com", "-s", "Grüße from s-nail"]);
    command.arg("-a").arg(scene.relay.path("attached.bin")).args(["one@example.net", "two@example.net"]);
    pipe(command.env("LC_ALL", "C.UTF-8"), "Schöne Grüße\n".as_bytes())?;
    let message = scene.delivered(1).await?.remove(0);
    assert_eq!((message.sender.as_str(), message.recipients.len()), ("app@example.com", 2));
    let text = String::from_utf8(message.unstuffed())?;
    assert!(text.contains("attached.bin") && text.contains("ESMTPSA"), "{text}");
    Ok(())
}

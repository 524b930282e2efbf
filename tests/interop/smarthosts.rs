//! Mail servers with the relay as their smarthost.

use std::path::Path;

use postrider_testkit::peers::{HOST, Peer};
use postrider_testkit::postfix::{self, Postfix};
use postrider_testkit::{Client, Endpoint, Reply, Security, authority};

use crate::{Outcome, Scene, assert_arrived, contains, mails, smarthost};

const SENDER: &str = "app@example.com";

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_uses_the_relay_as_its_smarthost() -> Outcome {
    postfix_sends(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_uses_the_tls_wrapper() -> Outcome {
    postfix_sends(true).await
}

async fn postfix_sends(wrapper: bool) -> Outcome {
    let mut scene = Scene::new().await?;
    let port = scene.port(wrapper);
    let (user, password) = scene.relay.credentials();
    let files = tempfile::Builder::new().prefix("smarthost-").tempdir()?;
    let relayhost = format!("[localhost]:{port}");
    let passwords = postfix::smarthost_files(files.path(), &relayhost, user, password, &scene.relay.authority_pem())?;
    let ca = files.path().join("ca.pem").display().to_string();
    let text = smarthost(&scene, "postfix-main.cf", port)?
        .replace("SASL_PASSWD", &passwords.display().to_string())
        .replace(&scene.relay.path("ca.pem").display().to_string(), &ca);
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    let mut parameters: Vec<(&str, &str)> = lines.collect();
    parameters.extend([("smtp_dns_support_level", "disabled"), ("message_size_limit", "20480000")]);
    parameters.push(("smtp_tls_wrappermode", if wrapper { "yes" } else { "no" }));
    let postfix = Postfix::start(&parameters, |_| Ok(()))?;
    let address = ([127, 0, 0, 1], postfix.port()).into();
    let trust = authority::roots(&scene.relay.authority_pem())?;
    let mut client: Client = Endpoint::new(address, Security::None, "localhost", trust, true)?.connect().await?;
    for mail in mails() {
        let recipients: Vec<&str> = mail.recipients.iter().map(String::as_str).collect();
        client.send(SENDER, &recipients, &on_the_wire(&mail.content)).await?.expect(250)?;
    }
    // A bounce has no sender, and goes its way too.
    let bounce = b"Subject:bounce\r\nFrom:Mailer <mailer@example.com>\r\n\r\n.. two dots\r\n";
    client.send("", &["one@example.net"], bounce).await?.expect(250)?;
    client.quit().await?;
    let messages = scene.delivered(7).await?;
    let bounces: Vec<_> = messages.iter().filter(|message| message.sender.is_empty()).collect();
    assert_eq!(bounces.len(), 1, "{}", postfix.log()?);
    assert!(bounces[0].unstuffed().ends_with(b"\r\n\r\n. two dots\r\n"));
    scene.kept.forget(|message| message.sender.is_empty());
    assert_arrived(&mut scene, SENDER, 1).await
}

/// For a server that does not take commands in groups.
async fn one_by_one(client: &mut Client, recipients: &[&str], content: &[u8]) -> std::io::Result<Reply> {
    client.command(&format!("MAIL FROM:<{SENDER}>")).await?.expect(250)?;
    for recipient in recipients {
        client.command(&format!("RCPT TO:<{recipient}>")).await?.expect(250)?;
    }
    client.command("DATA").await?.expect(354)?;
    client.finish(content).await
}

/// With CRLF and dots doubled.
fn on_the_wire(content: &[u8]) -> Vec<u8> {
    let lines = content.split_inclusive(|octet| *octet == b'\n');
    lines
        .flat_map(|line| {
            let dot: &[u8] = if line.starts_with(b".") { b"." } else { b"" };
            [dot, line.strip_suffix(b"\n").unwrap_or(line), b"\r\n"].concat()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn exim_uses_the_relay_as_its_smarthost() -> Outcome {
    exim_sends(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn exim_uses_the_tls_wrapper() -> Outcome {
    exim_sends(true).await
}

async fn exim_sends(wrapper: bool) -> Outcome {
    let mut scene = Scene::new().await?;
    let peer = Peer::new(workspace(), &["exim4-daemon-light"])?;
    peer.write("ca.pem", &scene.relay.authority_pem())?;
    let own = peer.path("").display().to_string();
    let protocol = if wrapper { "  protocol = smtps\n" } else { "" };
    let text = smarthost(&scene, "exim.conf", scene.port(wrapper))?
        .replace("  hosts_require_auth", &format!("{protocol}  hosts_require_auth"))
        .replace(&scene.relay.path("ca.pem").display().to_string(), &format!("{own}ca.pem"))
        // There is no DNS here.
        .replace("route_list = * localhost", "route_list = * localhost byname")
        // The next host is this very machine, which is a loop anywhere else.
        .replace("  transport = smarthost_smtp\n", "  transport = smarthost_smtp\n  self = send\n");
    let head = format!(
        "exim_user = Debian-exim\nexim_group = Debian-exim\nspool_directory = {own}spool\nlog_file_path = {own}log/%slog\n\
         primary_hostname = exim.test\ndomainlist local_domains =\ntrusted_users = root\nkeep_environment =\n\
         disable_ipv6 = true\n\n"
    );
    peer.write("exim.conf", &(head + &text + "\nbegin retry\n\n* * F,1m,1s\n"))?;
    peer.run(&format!("mkdir {own}spool {own}log; chown Debian-exim: {own}spool {own}log"), b"")?;
    for mail in mails() {
        let script = format!("exim4 -C {own}exim.conf -odf -oi -f {SENDER} {}", mail.recipients.join(" "));
        peer.run(&script, &mail.content)?;
        assert_eq!(std::fs::read_dir(peer.path("spool/input"))?.count(), 0, "{}", exim_log(&peer));
    }
    assert_arrived(&mut scene, SENDER, 1).await
}

fn exim_log(peer: &Peer) -> String {
    std::fs::read_to_string(peer.path("log/mainlog")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn sendmail_uses_the_relay_as_its_smarthost() -> Outcome {
    let mut scene = Scene::new().await?;
    let peer = Peer::new(workspace(), &["sendmail-bin", "sendmail-base", "sendmail-cf"])?;
    let (user, password) = scene.relay.credentials();
    let own = peer.path("").display().to_string();
    peer.write("switch", "hosts\tfiles\naliases\tfiles\n")?;
    // The name behind 127.0.0.1 can be either.
    let secret = format!("\"U:root\" \"I:{user}\" \"P:{password}\" \"M:PLAIN\"");
    peer.write("authinfo", &format!("AuthInfo:{HOST} {secret}\nAuthInfo:localhost {secret}\n"))?;
    let text = smarthost(&scene, "sendmail.mc", scene.relay.starttls().port())?
        .replace("AUTHINFO", &format!("{own}authinfo.db"))
        .replace("`localhost'", &format!("`[{HOST}]'"));
    let head = format!(
        "include(`/usr/share/sendmail/cf/m4/cf.m4')dnl\nOSTYPE(`linux')dnl\ndefine(`confDOMAIN_NAME', `sendmail.test')dnl\n\
         define(`QUEUE_DIR', `{own}queue')dnl\ndefine(`confPID_FILE', `{own}pid')dnl\ndefine(`STATUS_FILE', `{own}status')dnl\n\
         define(`ALIAS_FILE', `')dnl\ndefine(`confBIND_OPTS', `-DNSRCH -DEFNAMES')dnl\nFEATURE(`nocanonify')dnl\n\
         FEATURE(`promiscuous_relay')dnl\nFEATURE(`accept_unresolvable_domains')dnl\nundefine(`confHOST_STATUS_DIRECTORY')dnl\n\
         define(`confSERVICE_SWITCH_FILE', `{own}switch')dnl\ndefine(`confDONT_PROBE_INTERFACES', `true')dnl\ndefine(`confDONT_BLAME_SENDMAIL', `MapInUnsafeDirPath')dnl\n\
         define(`confTO_IDENT', `0')dnl\ndefine(`confTRUSTED_USERS', `root')dnl\n"
    );
    peer.write("sendmail.mc", &(head + &text + "MAILER(`smtp')dnl\n"))?;
    peer.run(
        &format!(
            "cd {own}; mkdir queue; m4 -D_CF_DIR_=/usr/share/sendmail/cf/ sendmail.mc > sendmail.cf\n\
             /usr/libexec/sendmail/makemap -C sendmail.cf hash authinfo.db < authinfo; chmod 600 authinfo.db"
        ),
        b"",
    )?;
    for mail in mails() {
        let recipients = mail.recipients.join(" ");
        // -odi: delivered before it returns.
        let script = format!("/usr/libexec/sendmail/sendmail -C {own}sendmail.cf -odi -i -v -f {SENDER} {recipients}");
        let said = peer.run(&script, &mail.content)?;
        let said = [said.stdout, said.stderr].concat();
        assert!(contains(&said, b"... Sent (Ok 0100"), "{}", String::from_utf8_lossy(&said));
    }
    assert_arrived(&mut scene, SENDER, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn opensmtpd_uses_the_relay_as_its_smarthost() -> Outcome {
    opensmtpd_sends(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn opensmtpd_uses_the_tls_wrapper() -> Outcome {
    opensmtpd_sends(true).await
}

async fn opensmtpd_sends(wrapper: bool) -> Outcome {
    let mut scene = Scene::new().await?;
    let peer = Peer::new(workspace(), &["opensmtpd"])?;
    let (user, password) = scene.relay.credentials();
    let own = peer.path("").display().to_string();
    let secrets = peer.write("secrets", &format!("relay {user}:{password}\n"))?;
    let ca = peer.write("ca.pem", &scene.relay.authority_pem())?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let scheme = if wrapper { "smtps://" } else { "smtp+tls://" };
    let text = smarthost(&scene, "opensmtpd.conf", scene.port(wrapper))?
        .replace("smtp+tls://", scheme)
        .replace("SECRETS", &secrets.display().to_string());
    peer.write("smtpd.conf", &format!("listen on 127.0.0.1 port {port}\nsmtp max-message-size 20M\n{text}"))?;
    let script = format!(
        "chown root:opensmtpd {own}secrets; chmod 640 {own}secrets; mount -t tmpfs none /var; mkdir /var/spool; ln -s /run /var/run; mount -t tmpfs none /run\n\
         mkdir -m 711 /var/spool/smtpd; mount --bind {ca} /etc/ssl/certs/ca-certificates.crt\n\
         for q in corrupt incoming purge queue temporary; do mkdir -m 700 /var/spool/smtpd/$q; chown opensmtpq /var/spool/smtpd/$q; done\n\
         mkdir -m 770 /var/spool/smtpd/offline; chgrp opensmtpq /var/spool/smtpd/offline; mkdir -p /run/smtpd /var/lib/opensmtpd/empty /var/empty\n\
         exec smtpd -d -f {own}smtpd.conf",
        ca = ca.display()
    );
    let _running = peer.spawn(&script)?;
    let address = ([127, 0, 0, 1], port).into();
    let trust = authority::roots(&scene.relay.authority_pem())?;
    let endpoint = Endpoint::new(address, Security::None, "localhost", trust, true)?;
    let mut tries = 0;
    let mut client = loop {
        match endpoint.connect().await {
            Ok(client) => break client,
            Err(error) if tries == 200 => {
                let said = std::fs::read_to_string(peer.path("output"))?;
                return Err(format!("OpenSMTPD does not answer: {error}: {said}").into());
            }
            // It says nothing that could be waited for when it listens.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
        tries += 1;
    };
    for mail in mails() {
        let recipients: Vec<&str> = mail.recipients.iter().map(String::as_str).collect();
        let sent = one_by_one(&mut client, &recipients, &on_the_wire(&mail.content)).await;
        let said = || std::fs::read_to_string(peer.path("output")).unwrap_or_default();
        sent.and_then(|reply| reply.expect(250)).map_err(|error| format!("{error}: {}", said()))?;
    }
    client.quit().await?;
    assert_arrived(&mut scene, SENDER, 1).await
}

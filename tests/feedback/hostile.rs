//! Those who forge, relay, answer automatically, or send what is no report.

use crate::Outcome;
use crate::world::{BACK, COMPLAINTS, SENDER, World};

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_relay_has_written_is_a_recipient() -> Outcome {
    let mut world = World::direct("").await?;
    let sent = world.delivered(&["ann@example.net"], "kept").await?;
    let (local, domain) = sent.return_path.split_once('@').ok_or("no address")?;
    assert_eq!(domain, BACK);
    let mut changed = local.to_owned().into_bytes();
    changed[20] = if changed[20] == b'a' { b'b' } else { b'a' };
    let changed = String::from_utf8(changed)?;
    let mut client = world.stranger().await?;
    client.command("MAIL FROM:<>").await?.expect(250)?;
    for forged in [changed.as_str(), &local[..local.len() - 1], "app", "a\"b", "x"] {
        let reply = client.command(&format!("RCPT TO:<{forged}@{BACK}>")).await?;
        assert!(reply.code == 550 || reply.code == 501, "{forged}: {reply}");
    }
    let reply = client.command(&format!("RCPT TO:<{changed}@{BACK}>")).await?.expect(550)?;
    assert!(reply.text().starts_with("5.1.1 "), "{reply}");
    for other in [SENDER, "ann@example.net", &format!("{changed}@example.net"), "a%example.net@other.example"] {
        let reply = client.command(&format!("RCPT TO:<{other}>")).await?;
        assert_eq!(reply.code, 550, "no open relay, {other}: {reply}");
    }
    client.command(&format!("RCPT TO:<{}@{BACK}>", local.to_uppercase())).await?.expect(250)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_submits_mail_there() -> Outcome {
    let world = World::direct("").await?;
    let mut client = world.stranger().await?;
    assert!(!client.capabilities.iter().any(|line| line.starts_with("AUTH")), "{:?}", client.capabilities);
    assert!(client.capabilities.iter().any(|line| line == "STARTTLS"), "{:?}", client.capabilities);
    let reply = client.command("AUTH PLAIN AGEAYg==").await?;
    assert!(reply.code >= 500, "{reply}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_automatic_answer_is_no_event() -> Outcome {
    let mut world = World::direct("").await?;
    let sent = world.delivered(&["ann@example.net"], "answered").await?;
    let vacation = format!(
        "From: ann@example.net\r\nTo: {}\r\nSubject: Out of office\r\nAuto-Submitted: auto-replied\r\n\
         Precedence: bulk\r\n\r\nI am away. Undeliverable, user unknown, 550 5.1.1, says nobody.\r\n",
        sent.return_path
    );
    world.bring(&sent.return_path, &vacation).await?.expect(250)?;
    let delayed =
        sent.bounce("ann@example.net", "4.4.1", "421 4.4.1 busy").replace("Action: failed", "Action: delayed");
    world.bring(&sent.return_path, &delayed).await?.expect(250)?;
    after_this(&mut world).await?;
    assert!(world.events(&sent.id, "Bounce")?.is_empty() && world.events(&sent.id, "Complaint")?.is_empty());
    assert!(!world.is_suppressed("ann@example.net"));
    Ok(())
}

/// Waits until a report that came later has been told of.
async fn after_this(world: &mut World) -> Outcome {
    let last = world.delivered(&["last@example.net"], "last").await?;
    world.bring(&last.return_path, &last.bounce("last@example.net", "5.1.1", "550 5.1.1 no")).await?.expect(250)?;
    world.event(&last.id, "Bounce").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_about_others_suppress_nobody() -> Outcome {
    let mut world = World::direct("").await?;
    let sent = world.delivered(&["ann@example.net"], "own").await?;
    // The path is right, and names somebody who was no recipient.
    let other = sent.bounce("victim@example.org", "5.1.1", "550 5.1.1 user unknown");
    world.bring(&sent.return_path, &other).await?;
    // A complaint with a return path that was never written, and a message id that was.
    let forged = sent.complaint("abuse", "victim@example.org").replace(&sent.return_path, "x@bounces.relay.test");
    world.bring(COMPLAINTS, &forged).await?;
    after_this(&mut world).await?;
    assert!(!world.is_suppressed("victim@example.org"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_report_goes_nowhere_and_is_no_error() -> Outcome {
    let mut world = World::direct("").await?;
    let sent = world.delivered(&["ann@example.net"], "kept").await?;
    for content in [
        "\r\n",
        "Subject: x\r\n\r\n\r\n",
        "Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\n--x\r\n",
        "Content-Type: multipart/report; report-type=feedback-report; boundary=x\r\n\r\n--x--\r\n",
        "Content-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822;\r\nAction: failed\r\nStatus: 9.9.9\r\n",
    ] {
        let reply = world.bring(&sent.return_path, content).await?;
        assert!(reply.code == 250 || reply.code >= 500, "{content:?}: {reply}");
    }
    after_this(&mut world).await?;
    assert!(!world.is_suppressed("ann@example.net"));
    Ok(())
}

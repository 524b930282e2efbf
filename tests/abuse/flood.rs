//! Clients that send too much of something.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::AsyncWriteExt as _;

use crate::support::{MEMORY, Outcome, Siege, attack_from, last_words, pour};

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_line_is_dropped_as_it_comes() -> Outcome {
    let siege = Siege::lay("").await?;
    let good = siege.good_client().await?;
    let mut stream = attack_from(2, siege.relay.starttls()).await?;
    pour(&mut stream, &[b'x'; 64 * 1024], 1_024).await;
    stream.write_all(b"\r\nQUIT\r\n").await?;
    let said = last_words(&mut stream).await?;
    assert!(said.ends_with("500 Error: line too long\r\n221 Bye\r\n"), "{said}");
    assert!(siege.metric("postrider_refused_total", "50x").await? >= 1);
    siege.assert_bounded(MEMORY)?;
    good.assert_served().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_header_is_refused_at_its_end() -> Outcome {
    let siege = Siege::lay("").await?;
    let good = siege.good_client().await?;
    for (line, megabytes, reply) in [
        // Over the message's bound.
        ("X-Endless: x\r\n", 64, "552 Message is too long."),
        // Within it, and over what a header may have.
        ("X-Endless: x\r\n", 8, "554 Transaction failed: Header exceeds"),
    ] {
        let mut client = siege.client().await?;
        client.begin("a@b.example", &["c@d.example"]).await?.map_err(|refused| refused.to_string())?;
        let block = line.repeat((1 << 20) / line.len());
        for _ in 0..megabytes {
            client.write(block.as_bytes()).await?;
        }
        let said = client.finish(b"").await?.to_string();
        assert!(said.starts_with(reply), "{said}");
    }
    assert_eq!(siege.metric("postrider_refused_total", "552").await?, 1);
    siege.assert_bounded(MEMORY)?;
    good.assert_served().await
}

/// Some too many are taken, to refuse the message at its end as SES does;
/// without end they are errors, and errors end the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_of_recipients_is_the_end_of_the_session() -> Outcome {
    let siege = Siege::lay("").await?;
    let good = siege.good_client().await?;
    let mut client = siege.client().await?;
    let rcpt = "RCPT TO:<somebody@example.com>\r\n";
    client.command("MAIL FROM:<a@b.example>").await?.expect(250)?;
    // This client reads nothing before it has written everything, or can not.
    let _ = client.write(rcpt.repeat((1 << 20) / rcpt.len()).as_bytes()).await;
    let mut replies = Vec::new();
    while let Ok(reply) = client.reply().await {
        replies.push(reply.to_string());
    }
    let count = |text: &str| replies.iter().filter(|reply| *reply == text).count();
    assert_eq!(count("250 Ok"), 1_050);
    assert_eq!(count("452 Too many recipients"), 20);
    assert_eq!(replies.last().map(String::as_str), Some("421 Error: too many errors"));
    siege.assert_bounded(MEMORY)?;
    good.assert_served().await
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_passwords_earns_a_ban_and_locks_nobody_out() -> Outcome {
    let siege = Siege::lay("[bans]\nfailures = 5\nmax_delay = \"10ms\"\n").await?;
    let good = siege.good_client().await?;
    let (user, _) = siege.relay.credentials();
    let mut guesses = 0;
    loop {
        let mut stream = attack_from(3, siege.relay.wrapper()).await?;
        let Ok(mut stream) = crate::tls::wrap(&siege, &mut stream).await else { break };
        let mut wire = String::from("EHLO x\r\n");
        for _ in 0..2 {
            guesses += 1;
            wire += &format!("AUTH PLAIN {}\r\n", BASE64.encode(format!("\0{user}\0guess {guesses}")));
        }
        stream.write_all(format!("{wire}QUIT\r\n").as_bytes()).await?;
        let said = last_words(&mut stream).await?;
        assert!(said.contains("535 Authentication Credentials Invalid\r\n"), "{said}");
        assert!(guesses < 20, "no ban after {guesses} guesses");
    }
    // Where the server speaks first it says so.
    let mut stream = attack_from(3, siege.relay.starttls()).await?;
    let said = last_words(&mut stream).await?;
    assert!(said.starts_with("421 "), "{said}");
    assert!(siege.metric("postrider_connections_refused_reason_total", "banned").await? >= 2);
    let bans = siege.relay.cli(&["bans", "list", "--json"])?;
    assert!(String::from_utf8_lossy(&bans.stdout).contains("127.0.3.3"));
    // The user whose password was guessed is not locked out.
    good.assert_served().await?;
    siege.client().await?;
    siege.relay.cli(&["bans", "clear", "127.0.3.3"])?;
    let mut stream = attack_from(3, siege.relay.starttls()).await?;
    stream.write_all(b"QUIT\r\n").await?;
    assert!(last_words(&mut stream).await?.starts_with("220 "));
    Ok(())
}

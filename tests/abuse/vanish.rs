//! Clients that are gone in the middle.

use std::os::fd::AsFd as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{MEMORY, Outcome, Siege, attack_from};

/// A session cut off after every one of its octets that begins a command, and
/// in the middle of each: with a close and with a reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_gone_leaves_nothing_behind() -> Outcome {
    let siege = Siege::lay("").await?;
    let good = siege.good_client().await?;
    let (user, password) = siege.relay.credentials();
    let auth = BASE64.encode(format!("\0{user}\0{password}"));
    let script = format!(
        "EHLO x\r\nAUTH PLAIN {auth}\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@d.example>\r\n\
         DATA\r\nSubject: half\r\n\r\nhalf a body"
    );
    let mut cuts: Vec<usize> =
        script.match_indices("\r\n").flat_map(|(at, _)| [at.saturating_sub(3), at + 1, at + 2]).collect();
    cuts.push(script.len());
    let accepted = siege.metric("postrider_messages_accepted_total", "").await?;
    for cut in cuts {
        for reset in [false, true] {
            let mut stream = attack_from(2, siege.relay.wrapper()).await?;
            if reset {
                // RST instead of FIN, as a crashed host sends it.
                rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO))?;
            }
            let mut tls = crate::tls::wrap(&siege, &mut stream).await?;
            tls.write_all(&script.as_bytes()[..cut]).await?;
            tls.flush().await?;
            // The banner at least, so that the session has begun.
            tls.read_u8().await?;
        }
    }
    // The good client's connection is the only one left.
    siege.until("postrider_connections_open", "", |open| open == 1).await?;
    siege.assert_bounded(MEMORY)?;
    good.assert_served().await?;
    let subjects = siege.relay.log()?;
    assert!(!subjects.contains("half"), "a body is in the log");
    assert!(siege.metric("postrider_messages_accepted_total", "").await? > accepted);
    Ok(())
}

/// A client that sends commands and never reads the replies.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_not_waited_for() -> Outcome {
    let siege = Siege::lay("[sessions]\nidle = \"2s\"\nidle_before_auth = \"2s\"\n").await?;
    let good = siege.good_client().await?;
    let mut stream = attack_from(2, siege.relay.starttls()).await?;
    let block = "NOOP\r\n".repeat(1_000);
    // Until the server stops reading, or has enough of it.
    let _ = tokio::time::timeout(Duration::from_secs(30), async {
        while stream.write_all(block.as_bytes()).await.is_ok() {}
    })
    .await;
    siege.until("postrider_connections_open", "", |open| open == 1).await?;
    siege.assert_bounded(MEMORY)?;
    good.assert_served().await
}

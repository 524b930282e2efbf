//! Nonsense where TLS is expected.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use postrider_testkit::authority::roots;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{MEMORY, Outcome, Siege, attack_from, last_words};

/// Does the handshake on a raw connection.
pub(crate) async fn wrap<'s>(siege: &Siege, stream: &'s mut TcpStream) -> io::Result<TlsStream<&'s mut TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots(&siege.relay.authority_pem()).map_err(io::Error::other)?)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_instead_of_a_handshake_ends_the_connection() -> Outcome {
    let siege = Siege::lay("").await?;
    let good = siege.good_client().await?;
    for garbage in [
        &b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n"[..],
        &[0xff; 4096],
        b"\x16\x03\x01\xff\xff\x01",
        b"\x80\x2e\x01\x00\x02",
    ] {
        let mut stream = attack_from(2, siege.relay.wrapper()).await?;
        stream.write_all(garbage).await?;
        stream.shutdown().await?;
        let said = last_words(&mut stream).await?;
        assert!(!said.contains("250"), "{said}");
        let mut stream = attack_from(2, siege.relay.starttls()).await?;
        stream.write_all(b"EHLO x\r\nSTARTTLS\r\n").await?;
        let mut greeting = String::new();
        while !greeting.contains("220 Ready") {
            let mut block = [0; 1024];
            let length = stream.read(&mut block).await?;
            assert!(length > 0, "{greeting}");
            greeting += &String::from_utf8_lossy(&block[..length]);
        }
        stream.write_all(garbage).await?;
        stream.shutdown().await?;
        let said = last_words(&mut stream).await?;
        assert!(!said.contains("250"), "{said}");
    }
    siege.until("postrider_tls_failures_total", "", |count| count == 8).await?;
    siege.assert_bounded(MEMORY)?;
    good.assert_served().await
}

/// TLS 1.2 lets a client ask for another handshake in the middle; a server
/// that follows pays for each. TLS 1.3 has none.
#[tokio::test(flavor = "multi_thread")]
async fn renegotiation_is_refused() -> Outcome {
    let siege = Siege::lay("").await?;
    let good = siege.good_client().await?;
    let address = siege.relay.wrapper().to_string();
    let before = siege.metric("postrider_tls_handshakes_total", "submission_tls").await?;
    let said = tokio::task::spawn_blocking(move || -> io::Result<String> {
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-tls1_2", "-legacy_renegotiation", "-connect", &address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = openssl.stdin.take().ok_or_else(|| io::Error::other("no stdin"))?;
        // A line of a single R asks for it.
        input.write_all(b"R\n")?;
        drop(input);
        let output = openssl.wait_with_output()?;
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    })
    .await??;
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation") || said.contains("alert"), "{said}");
    assert_eq!(siege.metric("postrider_tls_handshakes_total", "submission_tls").await?, before + 1);
    good.assert_served().await
}

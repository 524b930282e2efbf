use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// What a host with this conduct says when it is told everything at once.
async fn dialogue(conduct: Conduct, told: &str) -> (io::Result<String>, Seen) {
    let (provider, address) = host(conduct);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(told.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let end = stream.read_to_end(&mut said).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    (end.map(|_| said), provider.seen(Ipv4Addr::LOCALHOST))
}

fn host(conduct: Conduct) -> (Provider, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let provider = Provider::start(listener, Keep::All, Clock::system()).unwrap();
    provider.set(Ipv4Addr::LOCALHOST, conduct);
    (provider, address)
}

const MESSAGE: &str = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n";
const CONTENT: &str = "Subject: x\r\n\r\n..\r\n.\r\n";

#[tokio::test]
async fn the_usual_is_a_well_behaved_host() {
    let told = format!("EHLO me\r\n{MESSAGE}{CONTENT}QUIT\r\n");
    let (said, seen) = dialogue(Conduct::default(), &told).await;
    let said = said.unwrap();
    assert!(said.starts_with("220 mx.test ESMTP\r\n250-mx.test\r\n250-PIPELINING\r\n"), "{said}");
    assert!(said.ends_with("354 go on\r\n250 2.0.0 Ok: queued\r\n221 bye\r\n"), "{said}");
    assert_eq!((seen.taken, seen.connections, seen.told_in_clear().len()), (1, 1, 3));
    assert_eq!(seen.messages[0].received.unstuffed(), b"Subject: x\r\n\r\n.\r\n");
}

#[tokio::test]
async fn acts_take_the_place_of_replies() {
    let (said, seen) = dialogue(Conduct::refusing(Point::Mail, "451 later"), &format!("{MESSAGE}QUIT\r\n")).await;
    assert_eq!(said.unwrap().lines().nth(1), Some("451 later"));
    assert_eq!(seen.taken, 0);
    let (said, _) = dialogue(Conduct::but(Point::Rcpt, Act::Close), MESSAGE).await;
    assert!(said.unwrap().ends_with("250 2.1.0 Ok\r\n"));
    let (said, _) = dialogue(Conduct::but(Point::Data, Act::Reset), MESSAGE).await;
    assert_eq!(said.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn too_many_messages_are_a_421_and_the_end() {
    let conduct = Conduct { messages_per_connection: Some(1), ..Conduct::default() };
    let (said, seen) = dialogue(conduct, &format!("{MESSAGE}{CONTENT}{MESSAGE}")).await;
    assert!(said.unwrap().lines().last().unwrap().starts_with("421 "));
    assert_eq!(seen.taken, 1);
}

#[tokio::test(start_paused = true)]
async fn strangers_wait_and_acquaintances_do_not() {
    let clock = Clock::simulated(postrider_base::Timestamp::from_millis(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let provider = Provider::start(listener, Keep::All, clock).unwrap();
    let wait = Duration::from_secs(300);
    let stranger = |sender: &str| {
        let nobody = IpAddr::from(Ipv4Addr::LOCALHOST);
        provider.shared.knows((sender.to_owned(), "b@y".to_owned(), nobody, nobody), wait)
    };
    assert!(!stranger("a@x"));
    tokio::time::advance(wait / 2).await;
    assert!(!stranger("a@x") && !stranger("c@x"));
    tokio::time::advance(wait / 2).await;
    assert!(stranger("a@x") && !stranger("c@x"));
}

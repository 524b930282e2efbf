//! Somebody between the relay and its name server.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};
use postrider_dns::{NameServer, Settings};

/// Hands questions on to an honest server and answers some itself; it ends with
/// the test.
pub(crate) struct Liar {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The server behind a liar.
pub(crate) struct Honest(SocketAddr);

impl Honest {
    /// What it answers, with signatures.
    pub(crate) fn ask(&self, name: &str, kind: RecordType) -> Message {
        let mut question = Message::query();
        let mut edns = Edns::new();
        edns.enable_dnssec();
        edns.set_max_payload(4096);
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind)).set_edns(edns);
        Message::from_vec(&self.hand_on(&question.to_vec().unwrap())).unwrap()
    }

    fn hand_on(&self, question: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(question, self.0).unwrap();
        let mut answer = vec![0; 65_535];
        let length = socket.recv(&mut answer).unwrap();
        answer.truncate(length);
        answer
    }
}

impl Liar {
    /// Stands before the server of these settings and changes them. What `lie`
    /// has no answer to is handed on.
    pub(crate) fn before(
        settings: &mut Settings,
        lie: impl Fn(&Query, &Honest) -> Option<Message> + Send + 'static,
    ) -> Liar {
        let honest = Honest(settings.servers[0].0);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        settings.servers = vec![NameServer(socket.local_addr().unwrap())];
        let ending = ends.clone();
        let thread = std::thread::spawn(move || {
            let mut bytes = vec![0; 65_535];
            while !ending.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
                let question = Message::from_vec(&bytes[..length]).unwrap();
                let answer = match lie(&question.queries[0], &honest) {
                    Some(answer) => dressed(answer, &question),
                    None => honest.hand_on(&bytes[..length]),
                };
                let _ = socket.send_to(&answer, from);
            }
        });
        Liar { ends, thread: Some(thread) }
    }
}

/// A lie as the answer to a question.
fn dressed(lie: Message, question: &Message) -> Vec<u8> {
    let mut answer = lie.into_response();
    answer.metadata.id = question.metadata.id;
    answer.queries.clone_from(&question.queries);
    answer.to_vec().unwrap()
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

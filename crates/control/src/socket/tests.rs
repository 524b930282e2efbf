//! Askers that hang up, wait, or take nothing, over a disk that is slow when it is told to be.

use postrider_account::{Accounts, NewCredential};
use postrider_base::{Clock, Random, SimDisk, TcpDialer};
use postrider_store::{Options, Store};
use postrider_submission::{KeyRing, KeyRingDeps, Sealer};

use super::*;
use crate::{About, CredentialOperation, Deps, World};

const MINUTE: Duration = Duration::from_secs(60);

struct Node {
    disk: SimDisk,
    store: Store,
    accounts: Accounts,
    scope: Scope,
    settings: Settings,
    _place: tempfile::TempDir,
}

impl Node {
    /// Answers on a socket, without a queue.
    fn start() -> Node {
        let (disk, place) = (SimDisk::new(), tempfile::tempdir().unwrap());
        let options = Options { index_dir: Some(place.path().join("index")), ..Options::default() };
        let store = Store::open_with(Arc::new(disk.clone()), Path::new("/store"), options).unwrap();
        let settings = Settings { socket: place.path().join("control.sock"), ..Settings::default() };
        let accounts = accounts(&store);
        let control = Control::new(deps(&store, &accounts, &disk));
        let scope = Scope::new("test");
        scope.spawn("control socket", Socket::bind(&settings).unwrap().serve(control, scope.clone()));
        Node { disk, store, accounts, scope, settings, _place: place }
    }

    /// A user whose credential somebody asks to disable, while the disk takes no more.
    async fn disabling(&self) -> (String, UnixStream) {
        let issued = self.accounts.credentials().create(NewCredential::default()).await.unwrap();
        let user_name = issued.credential.user_name;
        self.disk.stall_syncs(true);
        let written = self.disk.stats().written_bytes;
        let mut stream = UnixStream::connect(&self.settings.socket).await.unwrap();
        let operation = CredentialOperation::Disable { user_name: user_name.clone() };
        stream.write_all(&encode(&Operation::Credentials(operation)).unwrap()).await.unwrap();
        // The log may write of itself: only with the socket's, the asker's and the change's task is it the change.
        until(|| self.scope.len() == 3 && self.disk.stats().written_bytes > written).await;
        (user_name, stream)
    }

    fn is_disabled(&self, user_name: &str) -> bool {
        self.accounts.credentials().get(user_name).unwrap().disabled
    }
}

fn accounts(store: &Store) -> Accounts {
    Accounts::open(store, &Clock::system(), &Random::seeded(1), &postrider_account::Settings::default()).unwrap()
}

fn deps(store: &Store, accounts: &Accounts, disk: &SimDisk) -> Deps {
    let (clock, disk) = (Clock::system(), Arc::new(disk.clone()));
    let ring = KeyRing::new(KeyRingDeps {
        accounts: accounts.clone(),
        sealer: Sealer::file(disk.clone(), "/key".into(), Random::seeded(2)),
        clock: clock.clone(),
        random: Random::seeded(3),
        max_open: 2,
        retention: MINUTE,
    });
    let text = str::to_owned;
    Deps {
        about: About {
            version: text("1"),
            hostname: text("relay.example.com"),
            region: text("us-east-1"),
            partition: text("aws"),
            node: 1,
            instance: text("test"),
            state_dir: text("/state"),
            running_since: None,
            listeners: Vec::new(),
            sources: Vec::new(),
        },
        accounts: accounts.clone(),
        store: store.clone(),
        ring,
        delivery: None,
        events: None,
        spool: None,
        reload: None,
        traces: None,
        world: World {
            resolver: Err(text("there are no name servers")),
            dialer: Arc::new(TcpDialer),
            clock,
            disk,
            doctor: postrider_upkeep::doctor::Settings::default(),
            upkeep: postrider_upkeep::Settings::default(),
            operator_domain: None,
            operator_signature: false,
            submission: postrider_submission::Settings::default(),
            return_paths: None,
            feedback: postrider_feedback::Settings::default(),
            delivery: postrider_delivery::Settings::default(),
            certificates: Vec::new(),
            min_free: 0,
        },
        upkeep: None,
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    tokio::time::timeout(MINUTE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it does not come to that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_asker_hangs_up_is_made_whole() {
    let node = Node::start();
    let (user_name, stream) = node.disabling().await;
    assert!(!node.is_disabled(&user_name), "not before it is on the disk");
    let before = node.scope.len();
    drop(stream);
    until(|| node.scope.len() < before).await;
    node.disk.stall_syncs(false);
    until(|| accounts(&node.store).credentials().get(&user_name).unwrap().disabled).await;
    node.scope.clone().close(MINUTE).await.unwrap();
    assert!(node.is_disabled(&user_name), "it is on the disk, and so it holds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_a_change_and_its_asker_hears_of_it() {
    let node = Node::start();
    let (user_name, stream) = node.disabling().await;
    let closing = tokio::spawn(node.scope.clone().close(MINUTE));
    node.scope.cancelled().await;
    node.disk.stall_syncs(false);
    closing.await.unwrap().unwrap();
    assert!(node.is_disabled(&user_name));
    let mut reader = BufReader::new(stream);
    for expected in [r#""changed""#, "end"] {
        let line = read_line(&mut reader, 1 << 20).await.unwrap().unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(line.contains(expected), "{line}");
    }
}

#[tokio::test]
async fn who_takes_no_answer_is_hung_up_on() {
    let (stream, other) = UnixStream::pair().unwrap();
    let (_reader, stream) = stream.into_split();
    let mut writer = Writer { stream, timeout: Duration::from_millis(20) };
    let error = Error::Invalid("x".repeat(100_000));
    let sending = async {
        loop {
            if let Err(error) = writer.send(&Frame::failure(&error)).await {
                return error.kind();
            }
        }
    };
    assert_eq!(tokio::time::timeout(MINUTE, sending).await.unwrap(), io::ErrorKind::TimedOut);
    drop(other);
}

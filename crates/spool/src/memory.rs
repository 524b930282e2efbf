//! What the documentation says of memory, held against the code.

use postrider_base::Timestamp;
use postrider_mail::{AccountId, Envelope, MessageId, Recipient};
use postrider_wal::Location;

use crate::due::{Queue, Slot};
use crate::message::{AcceptedRecord, Origin, QueueKey};
use crate::row::Row;
use crate::state::Active;

fn row() -> Row {
    let record = AcceptedRecord {
        id: MessageId::new(1, Timestamp::from_millis(1_700_000_000_000), 7),
        account: AccountId::default(),
        accepted_at: Timestamp::from_millis(1_700_000_000_000),
        expires_at: Timestamp::from_millis(1_700_300_000_000),
        envelope: Envelope {
            recipients: vec![Recipient::new("someone@a-usual-domain.example".parse().unwrap())],
            ..Envelope::default()
        },
        origin: Origin::default(),
        size: 10_000,
        not_before: None,
        tls_optional: false,
    };
    let location = Location { segment: 1 << 20, offset: 60 << 20, len: 10_000, crc: u32::MAX };
    Row::fresh(&record, location)
}

#[test]
fn a_waiting_message_takes_little_while_it_is_recovered() {
    // Key, pointer and length, in nodes that are half full at worst; the row
    // in an allocation of its own.
    let node = 2 * (24 + size_of::<Box<[u8]>>());
    let row = row().encode().len();
    assert!(row <= 64, "{row}");
    assert!(node + 64 <= 144, "{node}");
}

#[test]
fn a_queue_and_a_message_in_memory_take_what_is_said() {
    let leaf = 11 * size_of::<Slot>() + 16;
    let queue = 2 * size_of::<QueueKey>() + size_of::<Queue>() + leaf;
    assert!(queue <= 800, "{queue}");
    assert_eq!(size_of::<Slot>(), 48);
    let message = size_of::<MessageId>() + size_of::<Active>();
    assert!(message <= 200, "{message}");
}

//! What SES's events do not have: the record of an attempt.

use bytes::{BufMut, BytesMut};
use postrider_base::Timestamp;
use postrider_mail::{AttemptOutcome, HostRecord};
use serde::Serialize;

use super::put;
use super::shape::Text;
use crate::error::Result;

/// Adds the record of an attempt to the event at the end of `out`, where there
/// is one: all outcomes of an event are of one attempt.
pub(crate) fn add_attempt(out: &mut BytesMut, outcome: &AttemptOutcome) -> Result<()> {
    let (Some(record), Some(b'}')) = (&outcome.record, out.last()) else { return Ok(()) };
    out.truncate(out.len() - 1);
    out.put_slice(b",\"postrider\":");
    let attempt = Attempt {
        number: outcome.attempt,
        began: Text(record.began),
        ended: Text(outcome.at),
        site: &record.site,
        ehlo: &record.ehlo,
        hosts: outcome.hosts(),
        omitted: record.omitted,
    };
    put(out, &Own { attempt })?;
    out.put_u8(b'}');
    Ok(())
}

/// The member `postrider`.
#[derive(Serialize)]
struct Own<'a> {
    attempt: Attempt<'a>,
}

#[derive(Serialize)]
struct Attempt<'a> {
    number: u32,
    began: Text<Timestamp>,
    ended: Text<Timestamp>,
    site: &'a str,
    ehlo: &'a str,
    hosts: Vec<HostRecord>,
    omitted: u16,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use postrider_mail::{AttemptRecord, Disposition, Exchange};
    use serde_json::{Value, json};

    use super::*;
    use crate::samples::{ACCEPTED, outcome};

    #[test]
    fn what_was_said_is_added_where_it_is_asked_for() {
        let host =
            HostRecord { exchanges: vec![Exchange::new("RCPT TO:<a@b>", "450 \"no\"", 7)], ..HostRecord::named("mx") };
        let mut record = AttemptRecord { began: ACCEPTED, site: "site".into(), ..AttemptRecord::default() };
        record.push(host);
        let bare = outcome(0, ACCEPTED, Disposition::Delivered, "250 ok");
        let recorded = AttemptOutcome { record: Some(Arc::new(record)), ..bare.clone() };
        let event = |outcome: &AttemptOutcome| {
            let mut out = BytesMut::from(r#"{"eventType":"Delivery"}"#);
            add_attempt(&mut out, outcome).unwrap();
            serde_json::from_slice::<Value>(&out).unwrap()
        };
        assert_eq!(event(&bare).get("postrider"), None);
        let mut with = event(&recorded);
        let own = with.as_object_mut().unwrap().remove("postrider").unwrap();
        assert_eq!(with, event(&bare));
        assert_eq!(own["attempt"]["began"], "2017-08-05T00:40:02.012Z");
        let exchange = json!({"command": "RCPT TO:<a@b>", "reply": "450 \"no\"", "ms": 7});
        assert_eq!(own["attempt"]["hosts"][0]["exchanges"], json!([exchange]));
    }
}

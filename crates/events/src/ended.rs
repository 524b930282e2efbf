//! Recipients that have come to an end, as those who count them read it from the journal.

use postrider_mail::{AccountId, EmailAddress};
use serde::Deserialize;

use crate::record::{Body, Kind};
use crate::returned::is_objection;

/// What one record says of the recipients of a message.
#[derive(Debug, PartialEq)]
pub(crate) struct Ended {
    /// Whose message it is.
    pub(crate) account: AccountId,
    /// The message's configuration set.
    pub(crate) set: Option<String>,
    pub(crate) how: How,
    /// It came back after the dialogue: the recipients are counted by what the dialogue says of
    /// them, before or after.
    pub(crate) late: bool,
    pub(crate) recipients: Vec<EmailAddress>,
}

/// What became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Delivered,
    Bounced(Bounce),
    Complained,
    /// The dialogue ended badly, after they had bounced in a report.
    Gone,
}

/// What kind of bounce, as far as it matters to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bounce {
    /// A permanent one that calls the mailbox unknown.
    NoMailbox,
    /// Any other permanent one; that of the global suppression list too.
    Permanent,
    /// What blocks our addresses, or passes.
    Soft,
}

impl Ended {
    /// `None` for every record that ends nothing, or does not count: an address on the account's
    /// own suppression list has not been written to.
    pub(crate) fn of(body: &Body) -> Option<Self> {
        match body.kind {
            Kind::Delivery => Self::counted(body, How::Delivered).or_else(|| Self::read(&body.json)),
            Kind::Internal => Self::counted(body, How::Gone),
            Kind::Bounce | Kind::Complaint => {
                Self::read(&body.json).map(|ended| Self { late: body.is_returned(), ..ended })
            }
            _ => None,
        }
    }

    fn counted(body: &Body, how: How) -> Option<Self> {
        let whose = body.whose()?;
        let recipients = whose.recipients.iter().filter_map(|recipient| recipient.parse().ok());
        Some(Self {
            account: whose.account,
            set: whose.set.map(str::to_owned),
            how,
            late: false,
            recipients: recipients.collect(),
        })
    }

    /// From the event itself.
    fn read(json: &[u8]) -> Option<Self> {
        let event: Event = serde_json::from_slice(json).ok()?;
        let (how, recipients) = match (event.delivery, event.bounce, event.complaint) {
            (Some(delivery), None, None) => (How::Delivered, delivery.recipients),
            (None, Some(bounce), None) => (bounce.how()?, addresses(bounce.bounced_recipients)),
            (None, None, Some(complaint)) if complaint.counts() => {
                (How::Complained, addresses(complaint.complained_recipients))
            }
            _ => return None,
        };
        Some(Self {
            account: event.mail.sending_account_id.parse().ok()?,
            set: event.mail.tags.set.into_iter().next(),
            how,
            late: false,
            recipients: recipients.iter().filter_map(|recipient| recipient.parse().ok()).collect(),
        })
    }
}

fn addresses(concerned: Vec<Concerned>) -> Vec<String> {
    concerned.into_iter().map(|recipient| recipient.email_address).collect()
}

/// What is read of an event.
#[derive(Deserialize)]
struct Event {
    mail: Mail,
    delivery: Option<DeliveryPart>,
    bounce: Option<BouncePart>,
    complaint: Option<ComplaintPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mail {
    sending_account_id: String,
    #[serde(default)]
    tags: Tags,
}

#[derive(Default, Deserialize)]
struct Tags {
    #[serde(default, rename = "ses:configuration-set")]
    set: Vec<String>,
}

#[derive(Deserialize)]
struct DeliveryPart {
    recipients: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BouncePart {
    bounce_type: String,
    bounce_sub_type: String,
    bounced_recipients: Vec<Concerned>,
}

impl BouncePart {
    fn how(&self) -> Option<How> {
        let bounce = match (self.bounce_type.as_str(), self.bounce_sub_type.as_str()) {
            ("Permanent", ON_LIST) => return None,
            ("Permanent", "NoEmail") => Bounce::NoMailbox,
            ("Permanent", _) => Bounce::Permanent,
            _ => Bounce::Soft,
        };
        Some(How::Bounced(bounce))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ComplaintPart {
    complained_recipients: Vec<Concerned>,
    complaint_sub_type: Option<String>,
    complaint_feedback_type: Option<String>,
}

impl ComplaintPart {
    fn counts(&self) -> bool {
        self.complaint_sub_type.as_deref() != Some(ON_LIST) && is_objection(self.complaint_feedback_type.as_deref())
    }
}

const ON_LIST: &str = "OnAccountSuppressionList";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Concerned {
    email_address: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    use crate::record::{LifeRef, Whose};
    use crate::returned::{ReturnedComplaint, ReturnedKind, ReturnedRecord, ReturnedSource};
    use crate::samples::{ACCEPTED, outcome};
    use postrider_mail::Disposition;

    fn body(kind: Kind, json: &str, life: &LifeRef<'_>) -> Body {
        let mut out = BytesMut::new();
        Body::begin(&mut out, kind);
        out.extend_from_slice(json.as_bytes());
        Body::parse(&Body::end(&mut out, life).unwrap()).unwrap()
    }

    fn of(kind: Kind, json: &str) -> Option<Ended> {
        Ended::of(&body(kind, json, &LifeRef::Outcomes(&[])))
    }

    #[test]
    fn a_delivery_is_the_same_with_and_without_its_own_words() {
        let json = r#"{"eventType":"Delivery","mail":{"sendingAccountId":"000000000007","tags":{"ses:configuration-set":["Set"]}},"delivery":{"recipients":["a@example.net","b@example.net"]}}"#;
        let read = of(Kind::Delivery, json).unwrap();
        assert_eq!((read.how, read.set.as_deref(), read.recipients.len()), (How::Delivered, Some("Set"), 2));
        let whose =
            Whose { account: read.account, set: Some("Set"), recipients: vec!["a@example.net", "b@example.net"] };
        let delivered = outcome(0, ACCEPTED, Disposition::Delivered, "250 ok");
        let life = LifeRef::Counted(whose, &[&delivered]);
        assert_eq!(Ended::of(&body(Kind::Delivery, "not even read", &life)), Some(read));
    }

    #[test]
    fn what_came_back_later_is_told_apart() {
        let json = r#"{"eventType":"Bounce","bounce":{"bounceType":"Permanent","bounceSubType":"NoEmail","bouncedRecipients":[{"emailAddress":"gone@example.com"}]},"mail":{"sendingAccountId":"000000000001"}}"#;
        let record = ReturnedRecord {
            recipients: vec![0],
            at: ACCEPTED,
            what: ReturnedKind::Complaint(ReturnedComplaint::default()),
            source: ReturnedSource::default(),
            notice: None,
        };
        assert!(Ended::of(&body(Kind::Bounce, json, &LifeRef::Returned(&record))).unwrap().late);
        assert!(!of(Kind::Bounce, json).unwrap().late);
    }

    #[test]
    fn bounces_are_of_three_kinds_and_those_of_the_own_list_are_none() {
        let bounce = |kind: &str, sub_type: &str| {
            let json = format!(
                r#"{{"eventType":"Bounce","bounce":{{"bounceType":"{kind}","bounceSubType":"{sub_type}","bouncedRecipients":[{{"emailAddress":"gone@example.com","action":"failed"}}]}},"mail":{{"sendingAccountId":"000000000001"}}}}"#
            );
            of(Kind::Bounce, &json)
        };
        let gone = bounce("Permanent", "NoEmail").unwrap();
        assert_eq!((gone.account, gone.set), (AccountId::default(), None));
        assert_eq!(gone.recipients, ["gone@example.com".parse().unwrap()]);
        for (kind, sub_type, how) in [
            ("Permanent", "NoEmail", Bounce::NoMailbox),
            ("Permanent", "General", Bounce::Permanent),
            ("Permanent", "Suppressed", Bounce::Permanent),
            ("Transient", "MailboxFull", Bounce::Soft),
            ("Undetermined", "Undetermined", Bounce::Soft),
        ] {
            assert_eq!(bounce(kind, sub_type).map(|ended| ended.how), Some(How::Bounced(how)), "{kind} {sub_type}");
        }
        assert_eq!(bounce("Permanent", ON_LIST), None);
    }

    #[test]
    fn a_real_complaint_is_one_and_rubbish_is_nothing() {
        let complaint = |more: &str| {
            let json = format!(
                r#"{{"eventType":"Complaint","mail":{{"sendingAccountId":"000000000001","headers":[{{"name":"x","value":"y\"z"}}],"tags":{{}}}},"complaint":{{"complainedRecipients":[{{"emailAddress":"a@example.net"}}]{more}}}}}"#
            );
            of(Kind::Complaint, &json)
        };
        let ended = complaint("").unwrap();
        assert_eq!((ended.how, ended.recipients.len(), ended.set), (How::Complained, 1, None));
        assert!(complaint(r#","complaintSubType":null"#).is_some());
        assert_eq!(complaint(r#","complaintSubType":"OnAccountSuppressionList""#), None);
        assert!(complaint(r#","complaintFeedbackType":"abuse""#).is_some());
        assert_eq!(complaint(r#","complaintFeedbackType":"not-spam""#), None);
        assert_eq!(of(Kind::Bounce, "{"), None);
        assert_eq!(of(Kind::Bounce, r#"{"mail":{"sendingAccountId":"x"},"bounce":{}}"#), None);
        assert_eq!(of(Kind::Delivery, r#"{"mail":{"sendingAccountId":"000000000001"}}"#), None);
        assert_eq!(of(Kind::Send, "{}"), None);
    }
}

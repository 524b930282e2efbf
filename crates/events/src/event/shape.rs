//! The parts of events as serde writes them, in the order and spelling of
//! SES's.

use std::borrow::Cow;

use postrider_base::Timestamp;
use postrider_mail::{AccountId, MessageId, Recipient};
use postrider_spool::AcceptedRecord;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// Serializes as its text.
pub(super) struct Text<T>(pub(super) T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Base<'a> {
    pub(super) timestamp: Text<Timestamp>,
    pub(super) source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_arn: Option<String>,
    pub(super) sending_account_id: AccountId,
    pub(super) message_id: MessageId,
    pub(super) destination: Addresses<'a>,
    pub(super) headers_truncated: bool,
}

pub(super) struct Addresses<'a>(pub(super) &'a [Recipient]);

impl Serialize for Addresses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|recipient| recipient.address.as_str()))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Headers<'a> {
    pub(super) headers: Fields<'a>,
    pub(super) common_headers: CommonHeaders<'a>,
}

pub(super) struct Fields<'a>(pub(super) &'a [(String, String)]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Field<'a> {
            name: &'a str,
            value: &'a str,
        }
        serializer.collect_seq(self.0.iter().map(|(name, value)| Field { name, value }))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommonHeaders<'a> {
    pub(super) from: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<Vec<&'a str>>,
    pub(super) message_id: MessageId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct Tags<'a> {
    pub(super) tags: TagMap<'a>,
}

/// The relay's own tags, then the message's, each name once.
pub(super) struct TagMap<'a> {
    pub(super) record: &'a AcceptedRecord,
    pub(super) domain: Option<&'a str>,
    pub(super) caller: Option<&'a str>,
}

impl Serialize for TagMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let origin = &self.record.origin;
        let mut map = serializer.serialize_map(None)?;
        if let Some(set) = &origin.configuration_set {
            map.serialize_entry("ses:configuration-set", &[set])?;
        }
        if let Some(ip) = origin.client_ip {
            map.serialize_entry("ses:source-ip", &[ip])?;
        }
        if let Some(domain) = self.domain {
            map.serialize_entry("ses:from-domain", &[domain])?;
        }
        if let Some(caller) = self.caller {
            map.serialize_entry("ses:caller-identity", &[caller])?;
        }
        for (at, (name, _)) in origin.tags.iter().enumerate() {
            let before = &origin.tags[..at];
            if name.starts_with("ses:") || before.iter().any(|(n, _)| n == name) {
                continue;
            }
            let same = origin.tags.iter().filter(|(n, _)| n == name);
            let values: Vec<&str> = same.map(|(_, value)| value.as_str()).collect();
            map.serialize_entry(name, &values)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery<'a> {
    pub(super) timestamp: Text<Timestamp>,
    pub(super) processing_time_millis: u128,
    pub(super) recipients: Vec<&'a str>,
    pub(super) smtp_response: &'a str,
    #[serde(rename = "reportingMTA")]
    pub(super) reporting_mta: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryDelay<'a> {
    pub(super) timestamp: Text<Timestamp>,
    pub(super) delay_type: &'static str,
    pub(super) expiration_time: Text<Timestamp>,
    pub(super) delayed_recipients: Vec<Affected<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bounce<'a> {
    pub(super) bounce_type: &'static str,
    pub(super) bounce_sub_type: &'static str,
    pub(super) bounced_recipients: Vec<Affected<'a>>,
    pub(super) timestamp: Text<Timestamp>,
    pub(super) feedback_id: MessageId,
    #[serde(rename = "reportingMTA", skip_serializing_if = "Option::is_none")]
    pub(super) reporting_mta: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Affected<'a> {
    pub(super) email_address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Text<postrider_mail::EnhancedStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) diagnostic_code: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Complaint<'a> {
    pub(super) complained_recipients: Vec<Complained<'a>>,
    pub(super) timestamp: Text<Timestamp>,
    pub(super) feedback_id: MessageId,
    /// SES's is null for a complaint of now.
    pub(super) complaint_sub_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) complaint_feedback_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arrival_date: Option<Text<Timestamp>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Complained<'a> {
    pub(super) email_address: &'a str,
}

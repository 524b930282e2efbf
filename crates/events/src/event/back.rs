//! Events of what came back after the dialogue.

use bytes::{BufMut, BytesMut};
use postrider_base::Timestamp;

use super::shape::{Affected, Bounce, Complained, Complaint, Text};
use super::{Subject, put};
use crate::error::Result;
use crate::returned::{ReturnedBounce, ReturnedComplaint};

impl Subject<'_> {
    /// Appends the Bounce event of a report about these recipients. It says what the report
    /// says: nothing is made up where it is none that programs read.
    pub(crate) fn write_late_bounce(
        &self,
        out: &mut BytesMut,
        recipients: &[u16],
        bounce: &ReturnedBounce,
        at: Timestamp,
    ) -> Result<()> {
        out.put_slice(b"{\"eventType\":\"Bounce\",\"mail\":");
        out.put_slice(&self.mail.json);
        out.put_slice(b",\"bounce\":");
        let bounced = |recipient: &u16| Affected {
            // Not the report's `Final-Recipient`, which may be where somebody has their mail
            // forwarded to: it is this address that must not be written to again.
            email_address: self.address_at(*recipient),
            action: bounce.action.map(|action| action.as_str()),
            status: bounce.status.map(Text),
            diagnostic_code: bounce.diagnostic.as_deref().map(Into::into),
        };
        put(
            out,
            &Bounce {
                bounce_type: bounce.kind.bounce_type(),
                bounce_sub_type: bounce.kind.bounce_sub_type(),
                bounced_recipients: recipients.iter().map(bounced).collect(),
                timestamp: Text(at),
                feedback_id: self.late_id(recipients, 1 + bounce.kind as u64, at),
                reporting_mta: bounce.reporting_mta.as_deref().map(Into::into),
            },
        )?;
        out.put_u8(b'}');
        Ok(())
    }

    /// Appends the Complaint event of a report about these recipients.
    pub(crate) fn write_late_complaint(
        &self,
        out: &mut BytesMut,
        recipients: &[u16],
        complaint: &ReturnedComplaint,
        at: Timestamp,
    ) -> Result<()> {
        out.put_slice(b"{\"eventType\":\"Complaint\",\"mail\":");
        out.put_slice(&self.mail.json);
        out.put_slice(b",\"complaint\":");
        let complained = |recipient: &u16| Complained { email_address: self.address_at(*recipient) };
        put(
            out,
            &Complaint {
                complained_recipients: recipients.iter().map(complained).collect(),
                timestamp: Text(at),
                feedback_id: self.late_id(recipients, 0x100 + u64::from(complaint.is_objection()), at),
                complaint_sub_type: None,
                user_agent: complaint.user_agent.as_deref(),
                complaint_feedback_type: complaint.feedback_type.as_deref(),
                arrival_date: complaint.arrival_date.map(Text),
            },
        )?;
        out.put_u8(b'}');
        Ok(())
    }

    /// Each recipient is told of once for each `what`; no batch of the feed has so large a number.
    fn late_id(&self, recipients: &[u16], what: u64, at: Timestamp) -> postrider_mail::MessageId {
        let first = recipients.first().copied().unwrap_or_default();
        self.feedback_id_of(at, !(what << 16 | u64::from(first)))
    }
}

//! The mailbox simulator: a destination inside the process, and the answers of those of its
//! mailboxes whose owner is out of the office.

use std::net::Ipv4Addr;
use std::sync::Arc;

use postrider_base::{Clock, Dialer, Random, Scope, SimNet};
use postrider_mail::{AccountId, EmailAddress, HeaderBlock, SimulatedMailbox, header_of};
use postrider_simulator::{Arrived, Inbox, InboxDialer};
use postrider_spool::{OriginKind, Spool};
use postrider_submission::{OwnMessage, Submission};
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

/// Bytes looked at for what an answer needs.
const MAX_HEADER: usize = 64 * 1024;
/// Longest Message-ID that is answered to, so that its line needs no folding (RFC 5322 section 2.1.1).
const MAX_ID: usize = 900;

/// Starts it, as tasks of `scope`; how it is dialled.
pub(crate) fn start(
    submission: &Submission,
    spool: &Spool,
    clock: &Clock,
    random: &Random,
    scope: &Scope,
) -> Arc<dyn Dialer> {
    let operator_domain = submission.settings().operator_domain().to_owned();
    let inbox = Inbox::simulator(&operator_domain, clock.clone(), random.clone());
    let mut arrivals = inbox.subscribe();
    let (submission, spool, ended) = (submission.clone(), spool.clone(), scope.clone());
    scope.spawn("automatic replies of the simulator", async move {
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                arrived = arrivals.recv() => match arrived {
                    Ok(arrived) => answer(&submission, &spool, &operator_domain, &arrived).await,
                    Err(RecvError::Lagged(missed)) => warn!(missed, "messages to the simulator may have no answer"),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    });
    let nowhere = Arc::new(SimNet::new());
    Arc::new(InboxDialer::new(inbox, (Ipv4Addr::LOCALHOST, 25).into(), nowhere, scope.clone()))
}

/// Answers for each recipient who is out of the office.
async fn answer(submission: &Submission, spool: &Spool, operator_domain: &str, arrived: &Arrived) {
    let Some((to, in_reply_to)) = answerable(arrived) else { return };
    for recipient in &arrived.envelope.recipients {
        let from = &recipient.address;
        if SimulatedMailbox::of(from, operator_domain) != Some(SimulatedMailbox::OutOfOffice) {
            continue;
        }
        let id = submission.new_id();
        // One line, of what is printable.
        let subject = &arrived.subject;
        // RFC 3834 section 3.1
        let content = format!(
            "From: <{from}>\r\n\
             To: <{to}>\r\n\
             Date: {}\r\n\
             Message-ID: <{id}@{}>\r\n\
             {in_reply_to}\
             Subject: Auto: {subject}\r\n\
             Auto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: 8bit\r\n\
             \r\n\
             I am out of the office. The mailbox simulator of this relay wrote this.\r\n",
            id.timestamp().rfc5322(),
            from.domain(),
        );
        let own = OwnMessage {
            id,
            account: AccountId::default(),
            to: to.clone(),
            kind: OriginKind::Operator,
            require_tls: arrived.envelope.require_tls,
            content: content.into_bytes(),
        };
        let message = submission.signed_own(submission.own_message(own)).await;
        if let Err(error) = spool.accept(message).await {
            warn!(%error, "a message to the simulator has no answer");
        }
    }
}

/// Whom to answer, and the line that says to what; nobody where the sender wants no answer or a
/// program wrote (RFC 3834 section 2).
fn answerable(arrived: &Arrived) -> Option<(EmailAddress, String)> {
    let header = header_of(&arrived.content, MAX_HEADER);
    let header = HeaderBlock::parse(&header).ok()?;
    let value = |name| header.find(name).map(|field| field.value().trim().to_owned());
    if value("Auto-Submitted").is_some_and(|how| !how.eq_ignore_ascii_case("no")) {
        return None;
    }
    let sender = arrived.envelope.sender.clone()?;
    let return_path = value("Return-Path").and_then(|path| path.trim_matches(['<', '>']).parse().ok());
    let is_id = |id: &String| id.len() <= MAX_ID && id.starts_with('<') && id.bytes().all(|b| b.is_ascii_graphic());
    let in_reply_to = value("Message-ID").filter(is_id);
    let line = in_reply_to.map(|id| format!("In-Reply-To: {id}\r\nReferences: {id}\r\n")).unwrap_or_default();
    Some((return_path.unwrap_or(sender), line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_base::Timestamp;
    use postrider_mail::Envelope;

    fn arrived(sender: Option<&str>, header: &str) -> Arrived {
        Arrived {
            number: 1,
            at: Timestamp::default(),
            envelope: Envelope { sender: sender.map(|sender| sender.parse().unwrap()), ..Envelope::default() },
            size: 0,
            subject: String::new(),
            from: String::new(),
            content: vec![format!("{header}Subject: x\r\n\r\n").into()],
        }
    }

    fn answered(sender: Option<&str>, header: &str) -> Option<(String, String)> {
        answerable(&arrived(sender, header)).map(|(to, line)| (to.to_string(), line))
    }

    #[test]
    fn answers_go_to_the_return_path_or_the_sender_and_never_to_programs() {
        let sender = Some("a@example.com");
        assert_eq!(answered(sender, ""), Some(("a@example.com".into(), String::new())));
        let (to, line) = answered(sender, "Return-Path: <b@example.com>\r\nMessage-ID: <x@y>\r\n").unwrap();
        assert_eq!((to.as_str(), line.as_str()), ("b@example.com", "In-Reply-To: <x@y>\r\nReferences: <x@y>\r\n"));
        assert_eq!(answered(sender, "Message-ID: <x y>\r\n").unwrap().1, "", "that is no id");
        assert_eq!(answered(None, ""), None);
        assert_eq!(answered(sender, "Auto-Submitted: auto-generated\r\n"), None);
        assert!(answered(sender, "Auto-Submitted: no\r\n").is_some());
    }
}

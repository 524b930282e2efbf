//! Replies as mail hosts send them, names and addresses replaced by those of
//! RFC 2606 and RFC 5737, with what they mean.

use postrider_mail::{BounceKind, DelayType, SmtpReply, Stage};

use super::Verdict;

/// Reads `550 5.1.1 text`.
pub(super) fn reply(text: &str) -> SmtpReply {
    let (code, rest) = text.split_at(3);
    SmtpReply::new(code.parse().unwrap(), rest.get(1..).unwrap_or_default())
}

const fn hard(kind: BounceKind) -> Verdict {
    Verdict::Bounced(kind)
}

const fn soft(kind: DelayType) -> Verdict {
    Verdict::Deferred(kind)
}

const RCPT: Stage = Stage::RcptTo;
const MAIL: Stage = Stage::MailFrom;
const END: Stage = Stage::EndOfData;
const BANNER: Stage = Stage::Banner;

const NO_EMAIL: Verdict = hard(BounceKind::PermanentNoEmail);
const GENERAL: Verdict = hard(BounceKind::PermanentGeneral);
const US: Verdict = hard(BounceKind::TransientGeneral);
const FULL: Verdict = hard(BounceKind::TransientMailboxFull);
const LARGE: Verdict = hard(BounceKind::TransientMessageTooLarge);
const CONTENT: Verdict = hard(BounceKind::TransientContentRejected);
const ATTACHMENT: Verdict = hard(BounceKind::TransientAttachmentRejected);

const LATER: Verdict = soft(DelayType::General);
const LATER_FULL: Verdict = soft(DelayType::MailboxFull);
const LATER_SERVER: Verdict = soft(DelayType::RecipientServerError);
const LATER_IP: Verdict = soft(DelayType::IpFailure);
const LATER_SPAM: Verdict = soft(DelayType::SpamDetected);
const LATER_NETWORK: Verdict = soft(DelayType::TransientCommunicationFailure);
const LATER_NAME: Verdict = soft(DelayType::ByoipHostNameLookupUnavailable);

pub(super) const SAMPLES: &[(Stage, &str, Verdict)] = &[
    // Taken.
    (END, "250 2.0.0 OK  1700000000 d2e1a72fcca58-6c4cb1c9a1csi1234567b3a.123 - gsmtp", Verdict::Delivered),
    (END, "250 2.6.0 <id@example.net> [InternalId=1234] Queued mail for delivery", Verdict::Delivered),
    (END, "250 Ok: queued as 4T1xYz3k2Wz9sT7", Verdict::Delivered),
    // The mailbox is unknown.
    (
        RCPT,
        "550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking the recipient's email address for typos or unnecessary spaces. For more information, go to https://support.google.com/mail/?p=NoSuchUser - gsmtp",
        NO_EMAIL,
    ),
    (RCPT, "550 5.1.1 <ann@example.com>: Recipient address rejected: User unknown in virtual mailbox table", NO_EMAIL),
    (RCPT, "550 5.1.1 <ann@example.com>: Recipient address rejected: User unknown in local recipient table", NO_EMAIL),
    (RCPT, "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", GENERAL),
    (
        RCPT,
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient ann@example.com not found by SMTP address lookup",
        NO_EMAIL,
    ),
    (
        RCPT,
        "554 delivery error: dd Requested mail action aborted, mailbox not found - mta4054.mail.gq1.yahoo.com",
        NO_EMAIL,
    ),
    (END, "552 1 Requested mail action aborted, mailbox not found", NO_EMAIL),
    (RCPT, "550 No such user here", NO_EMAIL),
    (RCPT, "550 No Such User Here\"", NO_EMAIL),
    (RCPT, "550 Unrouteable address", NO_EMAIL),
    (RCPT, "550 5.1.1 User Unknown", NO_EMAIL),
    (RCPT, "550 Invalid Recipient - https://community.mimecast.com/docs/DOC-1369#550 [abcDEF]", NO_EMAIL),
    (
        RCPT,
        "550 5.4.1 Recipient address rejected: Access denied. AS(201806281) [CO1NAM11FT012.eop-nam11.prod.protection.outlook.com]",
        GENERAL,
    ),
    (RCPT, "511 5.1.1 Recipient unknown", NO_EMAIL),
    (RCPT, "550 <ann@example.com> User not found", NO_EMAIL),
    (RCPT, "550 sorry, no mailbox here by that name (#5.1.1 - chkuser)", NO_EMAIL),
    (RCPT, "550 5.1.6 recipient no longer on server: ann@example.com", NO_EMAIL),
    (RCPT, "553 5.1.3 The recipient address <ann..b@example.com> is not a valid RFC 5321 address. - gsmtp", NO_EMAIL),
    (RCPT, "550 Unknown recipient ann@example.com", NO_EMAIL),
    (END, "550 5.1.1 <ann@example.com> unknown user account", NO_EMAIL),
    // The mailbox is closed, or nothing is said of why.
    (
        RCPT,
        "550 5.2.1 The email account that you tried to reach is disabled. Learn more at https://support.google.com/mail/?p=DisabledUser - gsmtp",
        GENERAL,
    ),
    (RCPT, "550 5.2.1 This mailbox has been blocked due to inactivity", GENERAL),
    (
        RCPT,
        "554 30 Sorry, your message to ann@example.com cannot be delivered. This mailbox is disabled (554.30).",
        GENERAL,
    ),
    (RCPT, "550 Requested action not taken: mailbox unavailable", GENERAL),
    (RCPT, "550 permanent failure for one or more recipients (ann@example.com:blocked)", GENERAL),
    (RCPT, "554 5.7.1 <ann@example.com>: Recipient address rejected: Access denied", GENERAL),
    (RCPT, "550 5.7.193 UserNotMemberOfExternalTenant; Recipient does not take mail from outside", GENERAL),
    (RCPT, "550 rejected", GENERAL),
    (RCPT, "554 5.4.6 Hop count exceeded - possible mail loop", GENERAL),
    // The domain is not taken.
    (RCPT, "554 5.7.1 <ann@example.com>: Relay access denied", GENERAL),
    (RCPT, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", GENERAL),
    (RCPT, "550 relay not permitted", GENERAL),
    (RCPT, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", GENERAL),
    // The mailbox is full.
    (
        RCPT,
        "552 5.2.2 The recipient's inbox is out of storage space and inactive. Please direct the recipient to https://support.google.com/mail/?p=OverQuotaPerm - gsmtp",
        FULL,
    ),
    (
        RCPT,
        "452 4.2.2 The recipient's inbox is out of storage space. Please direct the recipient to https://support.google.com/mail/?p=OverQuotaTemp - gsmtp",
        LATER_FULL,
    ),
    (END, "552 5.2.2 <ann@example.com> Quota exceeded (mailbox for user is full)", FULL),
    (RCPT, "450 4.2.2 <ann@example.com>: Recipient address rejected: Mailbox is full", LATER_FULL),
    (RCPT, "552 Requested mail action aborted: exceeded storage allocation", FULL),
    (RCPT, "550 Mailbox quota exceeded", FULL),
    (RCPT, "422 4.2.2 The recipient's mailbox is over quota", LATER_FULL),
    // The message is too large.
    (MAIL, "552 5.3.4 Message size exceeds fixed limit", LARGE),
    (
        MAIL,
        "552 5.3.4 Your message exceeded Google's message size limits. Please visit https://support.google.com/mail/?p=MaxSizeError - gsmtp",
        LARGE,
    ),
    (MAIL, "552 Message size exceeds maximum permitted", LARGE),
    (END, "552 5.2.3 Message exceeds the recipient's maximum message size", LARGE),
    (END, "554 5.3.4 Message too big for system", LARGE),
    // Attachments.
    (
        END,
        "552 5.7.0 This message was blocked because its content presents a potential security issue. Please visit https://support.google.com/mail/?p=BlockedMessage - gsmtp",
        ATTACHMENT,
    ),
    (END, "550 5.7.1 Message contains a prohibited attachment type (.exe)", ATTACHMENT),
    (END, "554 5.7.1 Virus detected: Eicar-Test-Signature", ATTACHMENT),
    (END, "550 This message contains malware (Heuristics.Phishing.Email)", ATTACHMENT),
    // Content.
    (
        END,
        "550 5.7.1 Our system has detected that this message is likely unsolicited mail. To reduce the amount of spam sent to Gmail, this message has been blocked. - gsmtp",
        CONTENT,
    ),
    (END, "554 5.7.1 Message rejected as spam by Content Filtering.", CONTENT),
    (
        END,
        "554 Message not allowed - [PH01] Email not accepted for policy reasons. Please visit https://postmaster.yahooinc.com/error-codes",
        CONTENT,
    ),
    (END, "550 5.7.1 This message is not RFC 5322 compliant. There are multiple From headers.", CONTENT),
    (
        END,
        "554 5.7.1 The message from (<a@example.net>) with the subject of (Offer) matches a profile the Internet community may consider spam.",
        CONTENT,
    ),
    (END, "550 5.7.1 Message content rejected", CONTENT),
    (END, "550 5.6.0 Lone CR or LF in headers", CONTENT),
    (
        END,
        "421 4.7.0 This message is suspicious due to the nature of the content. To best protect our users from spam, the message has been deferred.",
        LATER_SPAM,
    ),
    (END, "554 5.7.1 Message contains a URL listed by dbl.spamhaus.org", CONTENT),
    // Our address.
    (
        RCPT,
        "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.7",
        US,
    ),
    (BANNER, "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org", LATER_IP),
    (
        MAIL,
        "550 5.7.1 Unfortunately, messages from [192.0.2.7] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150).",
        LATER_IP,
    ),
    (
        RCPT,
        "550 5.7.606 Access denied, banned sending IP [192.0.2.7]. To request removal from this list please visit https://sender.office.com/",
        US,
    ),
    (
        RCPT,
        "451 4.7.650 The mail server [192.0.2.7] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see https://postmaster.live.com",
        LATER_IP,
    ),
    (
        BANNER,
        "421 4.7.0 [TSS04] Messages from 192.0.2.7 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
        LATER_IP,
    ),
    (BANNER, "421 4.7.0 192.0.2.7 Error: too many connections from 192.0.2.7", LATER_IP),
    (
        END,
        "421 4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP address. To protect our users from spam, mail sent from your IP address has been temporarily rate limited.",
        LATER_IP,
    ),
    (BANNER, "554 nemesis mx.example.com ESMTP not accepting connections: bad DNS PTR record", LATER_NAME),
    (RCPT, "450 4.7.25 Client host rejected: cannot find your reverse hostname, [192.0.2.7]", LATER_NAME),
    (BANNER, "421 4.3.2 All server ports are busy", LATER_SERVER),
    (
        BANNER,
        "554 IP=192.0.2.7 - A problem occurred. Your IP address has been blocked. (Ask your postmaster for help or to contact tobr@rx.t-online.de to clarify.)",
        LATER_IP,
    ),
    (RCPT, "550 5.7.25 The IP address sending this message does not have a PTR record setup", US),
    (
        RCPT,
        "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered.",
        LATER,
    ),
    // Our signatures and our sender.
    (
        END,
        "550 5.7.26 This mail has been blocked because the sender is unauthenticated. Gmail requires all senders to authenticate with either SPF or DKIM.",
        US,
    ),
    (
        END,
        "550 5.7.509 Access denied, sending domain example.net does not pass DMARC verification and has a DMARC policy of reject.",
        US,
    ),
    (RCPT, "550 5.7.23 The message was rejected because of Sender Policy Framework violation", US),
    (END, "421 4.7.26 This mail has been rate limited because it is unauthenticated.", LATER),
    (RCPT, "450 4.1.8 <a@example.net>: Sender address rejected: Domain not found", LATER),
    (RCPT, "550 Sender verify failed", US),
    (MAIL, "553 5.1.8 <a@example.net>... Domain of sender address a@example.net does not exist", LATER),
    // Come back later.
    (
        RCPT,
        "450 4.2.0 <ann@example.com>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/example.com.html",
        LATER,
    ),
    (RCPT, "451 4.7.1 Greylisting in action, please come back in 00:05:00", LATER),
    (RCPT, "451 Greylisted, please try again in 300 seconds", LATER),
    (
        RCPT,
        "450 4.1.1 <ann@example.com>: Recipient address rejected: unverified address: Address verification in progress",
        LATER,
    ),
    (RCPT, "452 4.5.3 Error: too many recipients", LATER),
    (RCPT, "552 5.5.3 Too many recipients", LATER),
    (RCPT, "452 4.5.3 Recipients belong to multiple regions ATTR38", LATER),
    (
        RCPT,
        "451 4.3.0 Multiple destination domains per transaction is unsupported. Please try again. - gsmtp",
        LATER_SERVER,
    ),
    (END, "451 4.3.0 Mail server temporarily rejected message. Please try again later. - gsmtp", LATER_SERVER),
    (RCPT, "451 4.3.5 Server configuration problem", LATER_SERVER),
    (RCPT, "451 Temporary local problem - please try later", LATER_SERVER),
    (MAIL, "452 4.3.1 Insufficient system storage", LATER_SERVER),
    (END, "451 4.4.0 DNS query failed", LATER_NETWORK),
    (MAIL, "421 4.3.2 Service shutting down", LATER_SERVER),
    (END, "421 example.com Service not available, closing transmission channel", LATER_SERVER),
    (END, "421 4.4.2 mx.example.com Error: timeout exceeded", LATER_NETWORK),
];

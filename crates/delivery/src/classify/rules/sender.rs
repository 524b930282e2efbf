//! The sender: his address, his domain's name, what he signed.

use super::super::cause::Cause;
use super::super::rule::{Rule, Stages, both, status, words};

/// What beats the rules about addresses, because the words are much the same.
pub(super) const LABELS: &[Rule] = &[
    words(
        Cause::Reputation,
        Stages::Any,
        &["your dkim domain", "your spf domain", "your url domain", "reputation of the sending domain"],
        "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your DKIM domain \
         [example.net 36]. To protect our users from spam, mail sent from your domain has been temporarily rate limited.",
    ),
    words(
        Cause::Reputation,
        Stages::Any,
        &["sender address..blocked using", "sender refused by the dnsbl", "mailfrom domain is listed"],
        "554 5.7.1 Service unavailable; Sender address [a@example.net] blocked using dbl.spamhaus.org; \
         https://www.spamhaus.org/query/domain/example.net",
    ),
    words(
        Cause::Other,
        Stages::Any,
        &["same message-id"],
        "421 4.7.28 Gmail has detected this message exceeded its quota for sending messages with the same Message-ID:.",
    ),
    words(
        Cause::Sender,
        Stages::Any,
        &["unresolvable rfc.5321", "dns mx or a/aaaa resource record"],
        "451 Message temporarily deferred due to unresolvable RFC.5321 from domain. See \
         https://senders.yahooinc.com/error-codes#unresolvable-from-domain",
    ),
    words(
        Cause::Authentication,
        Stages::Any,
        &[
            "(au01)",
            "both spf and dkim",
            "spf/dns de votre",
            "either spf or dkim",
            "not authorized to send email directly",
        ],
        "554 5.7.1 [HME1] This message was blocked for failing both SPF and DKIM authentication checks.",
    ),
];

/// Enhanced codes (RFC 7372, RFC 8601, and what Google and Microsoft made of
/// the numbers behind them).
pub(super) const CODES: &[Rule] = &[
    status(
        Cause::Authentication,
        Stages::Any,
        &[(7, 20), (7, 21), (7, 22), (7, 24), (7, 26), (7, 27), (7, 30), (7, 32), (7, 40), (7, 509), (7, 515)],
        "550 5.7.515 Access denied, sending domain EXAMPLE.NET doesn't meet the required authentication level.",
    ),
    words(
        Cause::Authentication,
        Stages::Any,
        &[
            "dmarc",
            " spf",
            "dkim",
            "unauthenticated",
            "not authenticated",
            "authentication checks",
            "sender policy framework",
            "email authentication",
        ],
        "550 5.7.1 Email rejected per DMARC policy for example.net",
    ),
    status(
        Cause::Sender,
        Stages::Any,
        &[(1, 7), (1, 8), (7, 501), (7, 502), (7, 503)],
        "450 4.1.8 <a@example.net>: Sender address rejected: Domain not found",
    ),
    both(
        Cause::Sender,
        &[(1, 0)],
        &["sender rejected", "invalid sender", "emetteur invalide"],
        "550 5.1.0 sender rejected. AUP#In-1310",
    ),
];

/// Words about the sender, of whom much is said that is also said of recipients.
pub(super) const WORDS: &[Rule] = &[words(
    Cause::Sender,
    Stages::Any,
    &[
        "sender address",
        "sender rejected",
        "sender is rejected",
        "sender denied",
        "sender blocked",
        "sender is blocked",
        "sender not allowed",
        "sender domain",
        "sender verify failed",
        "complete sender verify",
        "sender verification",
        "sender..not exist",
        "verification failed for sender",
        "verify mailfrom failed",
        "invalid sender",
        "emetteur invalide",
        "domain of sender",
        "from:domain must",
        "from: domain",
        "from address..not",
        "from: address",
        "mail from..mismatch",
        "not allowed to send",
        "badmailfrom",
        "blocked senders",
        "anti-spoofing",
        "administrative prohibition",
        "envelope blocked",
        "envelope rejected",
    ],
    "550 Sender verify failed",
)];

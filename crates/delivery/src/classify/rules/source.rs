//! The relay's own address: blocked, listed, nameless, too busy.

use super::super::cause::Cause;
use super::super::rule::{Rule, Stages, both, status, words};

/// Its name, and the name it greets with.
pub(super) const NAME: &[Rule] = &[
    status(
        Cause::SourceName,
        Stages::Any,
        &[(7, 23), (7, 25)],
        "550 5.7.25 The IP address sending this message does not have a PTR record setup, or the corresponding \
         forward DNS entry does not point to the sending IP.",
    ),
    words(
        Cause::SourceName,
        Stages::Any,
        &[
            "reverse dns",
            "reverse hostname",
            "reverse lookup",
            "reverse mapping",
            " ptr record",
            " dns ptr",
            " rdns",
            "no ptr",
            "cannot find your hostname",
            "cannot find your reverse",
            "ip name lookup failed",
            "helo..host not found",
        ],
        "450 4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.7]",
    ),
    words(
        Cause::Protocol,
        Stages::Any,
        &["bad helo", "helo/ehlo argument", "helo command rejected"],
        "501 5.5.4 HELO/EHLO argument is invalid. https://support.google.com/mail/?p=helo",
    ),
];

/// RFC 6647.
pub(super) const GREYLISTED: &[Rule] = &[words(
    Cause::Greylisted,
    Stages::Any,
    &["greylist", "graylist", "grey-list", "gray-list", "grey listed", "unverified address"],
    "450 4.2.0 <ann@example.com>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/",
)];

/// What providers write where nobody else does.
pub(super) const LABELS: &[Rule] = &[
    words(
        Cause::SourceBlocked,
        Stages::Any,
        &[
            // Microsoft.
            "on our block list",
            "banned sending ip",
            "banned sender",
            "customer block list",
            "exceeded permitted limits within",
            "access denied, please try again later",
            "access denied, rejected by recipient",
            // Yahoo, AOL.
            "[tss07]",
            "[tss09]",
            "[tss11]",
            "[bl21]",
            "[bl23]",
            "will be permanently deferred",
            "vs98-ip0 deferred",
            "(rtr:",
            "(con:b1)",
            // T-Online, GMX.
            "a problem occurred..ask your postmaster",
            "no smtp service",
            // Orange, Laposte.
            "adresse ip source bloquee",
            "service refuse. veuillez",
            // Comcast, Cox, Charter.
            "codes.php#bl",
            "cmsmtp..blocked",
            "#cxbl",
            "#cdrbl",
            // NetEase.
            " hl:rep",
            " hl:ifc",
            " hl:mep",
            " hl:itc",
            " hl:ihu",
            " hl:ipb",
            " dt:rbl",
            // Google.
            "ip not in whitelist",
            "reputation of the sending ip",
        ],
        "550 5.7.1 Unfortunately, messages from [192.0.2.7] weren't sent. Please contact your Internet service \
         provider since part of their network is on our block list (S3150).",
    ),
    words(
        Cause::Throttled,
        Stages::Any,
        &[
            "[tss04]",
            "[tss05]",
            "[ts01]",
            "[ts02]",
            "[ts03]",
            "[ipts0",
            "(dyn:t",
            "temporarily deferred - 4.16",
            "[hcm1]",
            "rp-001",
            "rp-002",
            "rp-003",
            "server busy. please try again later from",
            "try again later, closing connection. - gsmtp",
            "max message per connection",
            "account service is temporarily unavailable",
            "throttling failure",
            "sending quota",
            "submission quota",
            "frequency limited",
            "trop de connexions",
            " hl:icc",
            " mi:dmc",
            " mi:sfq",
            " rp:drc",
            " rp:orq",
        ],
        "421 4.7.0 [TSS04] Messages from 192.0.2.7 temporarily deferred due to unexpected volume or user complaints - \
         4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
    ),
];

/// Lists of others.
pub(super) const LISTED: &[Rule] = &[words(
    Cause::SourceBlocked,
    Stages::Any,
    &[
        "spamhaus",
        "spamcop",
        "barracudacentral",
        "sorbs.net",
        "uceprotect",
        "senderscore",
        "cloudmark",
        "dnsbl",
        "client host..blocked using",
        "client address..blocked",
        "client..blocked by",
        "proofpoint.com/?ip=",
        "dnsbl-lookup",
        "listed..rbl",
        "listed in..dnsbl",
        "listed by the lookup",
        "sending ip..is listed",
        "is listed at",
        "black listed at",
        "in an rbl",
        "rbl reject",
    ],
    "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org; \
     https://www.spamhaus.org/query/ip/192.0.2.7",
)];

/// Enhanced codes.
pub(super) const CODES: &[Rule] = &[
    status(
        Cause::SourceBlocked,
        Stages::Any,
        &[(7, 606), (7, 507), (7, 508), (7, 511), (7, 513)],
        "550 5.7.508 Access denied, your address sent too much",
    ),
    both(
        Cause::SourceBlocked,
        &[(7, 28)],
        &["has been blocked"],
        "550 5.7.28 There is an unusual rate of unsolicited mail originating from your IP address. To protect our \
         users from spam, mail sent from your IP address has been blocked.",
    ),
    status(
        Cause::Throttled,
        Stages::Any,
        &[(7, 28), (7, 450), (7, 500), (7, 650), (7, 651), (7, 652), (7, 708), (7, 750)],
        "421 4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP address.",
    ),
];

/// Words.
pub(super) const WORDS: &[Rule] = &[
    words(
        Cause::Throttled,
        Stages::Any,
        &[
            "too many connections",
            "connection limit",
            "concurrent connection",
            "number of connections",
            "rate limit",
            "ratelimit",
            "rate-limit",
            "rate overlimit",
            "too many messages",
            "too many emails",
            "too many sessions",
            "too many concurrent",
            "too much mail",
            "unusual rate",
            "throttl",
            "temporarily deferred due to",
            "unexpected volume",
            "user complaints",
            "exceeded the rate",
            "rate exceeded",
            "too fast",
            "slow down",
            "try again slower",
            "max connection",
            "messages per session",
            "sent too many",
            "sending rate",
            "message rate",
            "relay limit exceeded",
            "reputation..temporarily",
        ],
        "452 Too many messages for this session",
    ),
    words(
        Cause::SourceBlocked,
        Stages::Any,
        &[
            "blacklist",
            "blocklist",
            "block list",
            "black list",
            "black listed",
            "poor..reputation",
            "bad reputation",
            "low reputation",
            "bad rep",
            " ip reputation",
            "reputation of",
            "sender reputation",
            "client host rejected",
            "client host blocked",
            "access denied.. ip",
            "blocked by.. ip",
            " ip..blocked",
            " ip..not allowed",
            " ip is rejected",
            "suspected spam ip",
            " ip address..block",
            " ip address..banned",
            "from your ip address",
            "access from ip",
            "not accepted from your",
            "dynamic.. ip",
            "your host is not allowed",
            "allowed to connect",
            " host..blocked",
            "connection refused",
            "not accepting connections",
            "connections from this host",
            "connection rejected by policy",
            "no access for this ip",
            "denyip",
            "access to this mail system has been rejected",
            "access to submit messages to this e-mail system",
            "network not allowed",
            "network, not allowed",
            "network is on",
            "no smtp service here",
        ],
        "554-mx.example.com Your access to this mail system has been rejected due to the sending MTA's poor \
         reputation. If you believe that this failure is in error, please contact the intended recipient",
    ),
];

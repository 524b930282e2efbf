//! The host: what it takes mail for, what it understands, how it is.

use super::super::cause::Cause;
use super::super::rule::{Rule, Stages, both, coded, status, words};

/// Words beyond doubt.
pub(super) const LABELS: &[Rule] = &[
    words(
        Cause::Throttled,
        Stages::Any,
        &["recipients received this hour", "recipients this hour", "recipients received from"],
        "452 Too many recipients received this hour",
    ),
    // RFC 5321 section 4.5.3.1.10
    words(
        Cause::TooManyRecipients,
        Stages::Recipient,
        &["too many recipients", "recipient limit", "maximum number of recipients", "try this recipient in a separate"],
        "452 4.5.3 Error: too many recipients",
    ),
    words(
        Cause::Relaying,
        Stages::Recipient,
        &["allowed rcpthosts"],
        "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.5.3 - chkuser)",
    ),
];

/// Enhanced codes, and words that are said beside them of something else too.
pub(super) const CODES: &[Rule] = &[
    status(
        Cause::TooManyRecipients,
        Stages::Recipient,
        &[(5, 3)],
        "452 4.5.3 Recipients belong to multiple regions ATTR38",
    ),
    both(
        Cause::Relaying,
        &[(1, 2), (4, 1), (4, 4), (4, 310)],
        &["does not exist", "host unknown", "invalid domain", "relay access denied", "unable to route"],
        "550 5.4.310 DNS domain example.com does not exist",
    ),
    both(
        Cause::Server,
        &[(4, 0), (4, 3), (4, 5), (4, 22), (4, 23), (4, 28)],
        &["failed to be replicated", "temporary server error", "server busy"],
        "451 4.4.0 Message failed to be replicated: No healthy secondary server available to accept replica at this \
         time.",
    ),
    status(
        Cause::Protocol,
        Stages::Any,
        &[(7, 3), (7, 4), (7, 8), (7, 9), (7, 10), (7, 11), (7, 14), (7, 29), (7, 57)],
        "421 4.7.29 Your email has been rate limited because this message wasn't sent over a TLS connection.",
    ),
];

/// It does not take mail for the domain.
pub(super) const RELAYING: &[Rule] = &[words(
    Cause::Relaying,
    Stages::Recipient,
    &[
        "relay access denied",
        "relay denied",
        "relay not permitted",
        "relay not allowed",
        "relay is not allowed",
        "relaying denied",
        "relaying disallowed",
        "relaying is not allowed",
        "relaying not allowed",
        "relaying prohibited",
        "relaying to",
        "open relay",
        "unable to relay",
        "as a relay",
        "allowed to relay",
        "permitted to relay",
        "we do not relay",
        "not relay",
        "not local",
        "no-domain",
        "domain not found",
        "domain not hosted",
        "no mail hub",
        "not handled here",
    ],
    "554 5.7.1 <ann@example.com>: Relay access denied",
)];

/// Words.
pub(super) const WORDS: &[Rule] = &[
    words(
        Cause::Protocol,
        Stages::Any,
        &[
            "starttls",
            "requires encryption",
            "requires tls",
            "tls required",
            "connection required",
            "authentication required",
            "authentication is required",
            "too many errors",
            "protocol error",
            "syntax error",
            "bad sequence of commands",
            "bad notify parameter",
        ],
        "530 5.7.0 Must issue a STARTTLS command first.",
    ),
    words(
        Cause::Network,
        Stages::Any,
        &["too many hops", "hop count", "mail loop", "loops back"],
        "554 sendall: too many hops 19 (17 max)",
    ),
    words(Cause::Policy, Stages::Any, &["policy", "policies"], "550 5.7.1 Policy rejection on the target address"),
    coded(
        Cause::Server,
        &[421, 422, 450, 451, 452, 454, 550, 553, 554],
        &[
            "insufficient system",
            "insufficient storage",
            "insufficient disk",
            "system storage",
            "system full",
            "local error",
            "local problem",
            "lookup failure",
            "config error",
            "configuration error",
            "server configuration",
            "temporary lookup",
            "temporary domain failure",
            "temporary server error",
            "temporary system",
            "internal error",
            "internal server error",
            "internal resource",
            "service not available",
            "service unavailable",
            "service is currently unavailable",
            "server busy",
            "server is busy",
            "agent busy",
            "system error",
            "system busy",
            "overload",
            "temporarily unable",
            "temporary failure",
            "resources temporarily unavailable",
            "server temporarily unavailable",
            "service temporarily unavailable",
            "system not accepting",
            "low resources",
            "load average",
            "license expired",
        ],
        "451 4.3.0 <ann@example.com>: Temporary lookup failure",
    ),
];

//! Automatic replies: what machines answer for people, and what is therefore no bounce.

use postrider_mail::HeaderBlock;

use crate::fields::{decoded, text};

/// Fields that only programs write that answer mail.
const MARKS: [&str; 6] =
    ["X-Autoreply", "X-Autorespond", "X-Autoresponder", "X-Auto-Reply", "X-Auto-Reply-From", "X-Mail-Autoreply"];

/// Values of `Precedence` that mail of people does not have (RFC 3834 section 3.1.8).
const PRECEDENCES: [&str; 5] = ["auto_reply", "auto-reply", "bulk", "junk", "list"];

/// What subjects of automatic replies begin with, in lower case; several languages.
const SUBJECTS: [&str; 30] = [
    "abwesenheit",
    "absence",
    "auto reply",
    "auto response",
    "auto-reply",
    "auto-response",
    "auto:",
    "automatic reply",
    "automatic response",
    "automatisch antwoord",
    "automatische antwort",
    "automatiskt svar",
    "automatisk svar",
    "automaattinen vastaus",
    "autoreply",
    "autosvar",
    "away from",
    "fuera de la oficina",
    "i am away",
    "i am currently out",
    "i am on vacation",
    "odpowiedź automatyczna",
    "on vacation",
    "out of office",
    "out of the office",
    "resposta automática",
    "respuesta automática",
    "risposta automatica",
    "réponse automatique",
    "автоответ",
];

/// Whether a message says of itself that a program answered with it. Delivery reports say
/// that too: they are to be looked for before.
pub(crate) fn is_automatic(header: &HeaderBlock<'_>) -> bool {
    // RFC 3834 section 5
    let submitted = text(header, "Auto-Submitted");
    let keyword = submitted.as_deref().and_then(|value| value.split([';', ' ', '(']).next());
    if keyword.is_some_and(|keyword| !keyword.eq_ignore_ascii_case("no")) {
        return true;
    }
    if MARKS.iter().any(|name| header.find(name).is_some()) {
        return true;
    }
    let precedence = text(header, "Precedence");
    if precedence.is_some_and(|value| PRECEDENCES.iter().any(|known| value.eq_ignore_ascii_case(known))) {
        return true;
    }
    decoded(header, "Subject").is_some_and(|subject| is_automatic_subject(&subject))
}

fn is_automatic_subject(subject: &str) -> bool {
    let subject = subject.trim_start_matches("re:").trim_start();
    SUBJECTS.iter().any(|known| subject.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn automatic(header: &str) -> bool {
        is_automatic(&HeaderBlock::parse(header.as_bytes()).unwrap())
    }

    #[test]
    fn automatic_replies_are_known_by_their_header() {
        for header in [
            "Auto-Submitted: auto-replied\r\n",
            "Auto-Submitted: auto-replied (vacation)\r\n",
            "Auto-submitted: auto-generated; owner-email=a@b.example\r\n",
            "X-Autoreply: yes\r\n",
            "X-Autorespond: \r\n",
            "Precedence: bulk\r\n",
            "Precedence: AUTO_REPLY\r\n",
            "Subject: Out of Office: Minutes\r\n",
            "Subject: Automatic reply: Minutes\r\n",
            "Subject: Re: Auto: away\r\n",
            "Subject: =?utf-8?Q?R=C3=A9ponse_automatique?= : Minutes\r\n",
            "Subject: =?iso-8859-1?Q?Respuesta_autom=E1tica:_hola?=\r\n",
        ] {
            assert!(automatic(header), "{header:?}");
        }
    }

    #[test]
    fn mail_of_people_is_not() {
        for header in [
            "",
            "Auto-Submitted: no\r\nSubject: Re: Minutes\r\n",
            "Auto-Submitted: NO (by hand)\r\n",
            "Subject: Is the automatic reply on?\r\n",
            "Subject: We are out of office paper\r\n",
            "Precedence: first-class\r\n",
        ] {
            assert!(!automatic(header), "{header:?}");
        }
    }
}

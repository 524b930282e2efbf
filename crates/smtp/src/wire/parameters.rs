//! The arguments of MAIL and RCPT: a path and parameters.

use postrider_base::Timestamp;
use postrider_mail::{BodyType, EmailAddress, Recipient, Ret};

use super::CommandError;
use super::path::{split_path, strip_keyword};
use super::values::{
    is_keyword, is_value, parse_body, parse_envid, parse_interval, parse_orcpt, parse_ret, parse_size, parse_time,
};

const MAIL_USAGE: &str = "MAIL FROM:<address>";
const RCPT_USAGE: &str = "RCPT TO:<address>";
/// Octets shown of an unknown parameter's name.
const MAX_SHOWN: usize = 64;

/// The extensions that a server announces, and whose parameters it takes.
/// SIZE is always among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extensions {
    /// PIPELINING (RFC 2920). Pipelined input works either way.
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtp_utf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// REQUIRETLS (RFC 8689), inside TLS.
    pub require_tls: bool,
    /// CHUNKING (RFC 3030): BDAT.
    pub chunking: bool,
    /// BINARYMIME (RFC 3030), only with CHUNKING. What is accepted with it can
    /// only be handed on to hosts that offer it too.
    pub binary_mime: bool,
    /// LIMITS (RFC 9422): the bounds on recipients and messages.
    pub limits: bool,
    /// FUTURERELEASE (RFC 4865): the longest time that a message may be held
    /// back, in seconds. Only where the session has been told the time.
    pub future_release: Option<u32>,
}

impl Default for Extensions {
    /// All but BINARYMIME and FUTURERELEASE.
    fn default() -> Extensions {
        Extensions {
            pipelining: true,
            eight_bit_mime: true,
            smtp_utf8: true,
            dsn: true,
            require_tls: true,
            chunking: true,
            binary_mime: false,
            limits: true,
            future_release: None,
        }
    }
}

/// How long a message is to be held back (RFC 4865 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldUntil {
    /// HOLDFOR: so many seconds, from 1 to what is announced.
    For(u32),
    /// HOLDUNTIL: until then. Whether that is in the past or too far away is
    /// for the driver to say, which knows the time.
    Until(Timestamp),
}

/// What a MAIL command asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct MailRequest {
    /// The reverse-path; `None` is `<>`.
    pub sender: Option<EmailAddress>,
    /// SIZE (RFC 1870): the size in octets that the client declares.
    pub size: Option<u64>,
    /// BODY (RFC 6152).
    pub body: BodyType,
    /// SMTPUTF8 (RFC 6531).
    pub smtp_utf8: bool,
    /// RET (RFC 3461).
    pub ret: Option<Ret>,
    /// ENVID (RFC 3461), decoded.
    pub envid: Option<String>,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// HOLDFOR or HOLDUNTIL (RFC 4865).
    pub hold: Option<HoldUntil>,
}

/// What a RCPT command asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct RcptRequest {
    /// The recipient with its notification wishes.
    pub recipient: Recipient,
}

/// Parses what follows `MAIL`.
pub(super) fn mail(arguments: &str, extensions: &Extensions) -> Result<MailRequest, CommandError> {
    let arguments = strip_keyword(arguments, "FROM:").ok_or(CommandError::Syntax(MAIL_USAGE))?;
    let (path, rest) = split_path(arguments).ok_or(CommandError::Syntax(MAIL_USAGE))?;
    let sender = match path {
        "" => None,
        path => Some(path.parse().map_err(|_| CommandError::BadSender)?),
    };
    let mut request = MailRequest {
        sender,
        size: None,
        body: BodyType::SevenBit,
        smtp_utf8: false,
        ret: None,
        envid: None,
        require_tls: false,
        hold: None,
    };
    each_parameter(rest, MAIL_USAGE, extensions, |parameter| request.apply(parameter, extensions))?;
    Ok(request)
}

/// Parses what follows `RCPT`.
pub(super) fn rcpt(arguments: &str, extensions: &Extensions) -> Result<RcptRequest, CommandError> {
    let arguments = strip_keyword(arguments, "TO:").ok_or(CommandError::Syntax(RCPT_USAGE))?;
    let (path, rest) = split_path(arguments).ok_or(CommandError::Syntax(RCPT_USAGE))?;
    let address = path.parse().map_err(|_| CommandError::BadRecipient)?;
    let mut recipient = Recipient::new(address);
    each_parameter(rest, RCPT_USAGE, extensions, |parameter| {
        match parameter.keyword {
            Keyword::Notify if extensions.dsn => recipient.notify = parameter.read(|value| value.parse().ok())?,
            Keyword::Orcpt if extensions.dsn => recipient.orcpt = Some(parameter.read(parse_orcpt)?),
            _ => return Err(parameter.unsupported()),
        }
        Ok(())
    })?;
    Ok(RcptRequest { recipient })
}

impl MailRequest {
    fn apply(&mut self, parameter: &Parameter<'_>, extensions: &Extensions) -> Result<(), CommandError> {
        match parameter.keyword {
            Keyword::Size => self.size = Some(parameter.read(parse_size)?),
            Keyword::Body if extensions.eight_bit_mime => {
                self.body = parameter.read(|value| parse_body(value, extensions))?;
            }
            // RFC 4954 section 5: who submitted it first. We trust no one's word on that.
            Keyword::Auth => parameter.read(|_| Some(()))?,
            Keyword::SmtpUtf8 if extensions.smtp_utf8 => self.smtp_utf8 = parameter.flag()?,
            Keyword::RequireTls if extensions.require_tls => self.require_tls = parameter.flag()?,
            Keyword::Ret if extensions.dsn => self.ret = Some(parameter.read(parse_ret)?),
            Keyword::Envid if extensions.dsn => self.envid = Some(parameter.read(parse_envid)?),
            Keyword::HoldFor | Keyword::HoldUntil => self.hold(parameter, extensions)?,
            _ => return Err(parameter.unsupported()),
        }
        Ok(())
    }

    /// RFC 4865 section 4: one of both, within what is announced.
    fn hold(&mut self, parameter: &Parameter<'_>, extensions: &Extensions) -> Result<(), CommandError> {
        let longest = extensions.future_release.ok_or_else(|| parameter.unsupported())?;
        if self.hold.is_some() {
            return Err(parameter.bad());
        }
        self.hold = Some(match parameter.keyword {
            Keyword::HoldFor => HoldUntil::For(parameter.read(|value| parse_interval(value, longest))?),
            _ => HoldUntil::Until(parameter.read(parse_time)?),
        });
        Ok(())
    }
}

/// The parameters that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keyword {
    Size,
    Body,
    Auth,
    SmtpUtf8,
    RequireTls,
    Ret,
    Envid,
    HoldFor,
    HoldUntil,
    Notify,
    Orcpt,
}

const KEYWORDS: [(&str, Keyword); 11] = [
    ("SIZE", Keyword::Size),
    ("BODY", Keyword::Body),
    ("AUTH", Keyword::Auth),
    ("SMTPUTF8", Keyword::SmtpUtf8),
    ("REQUIRETLS", Keyword::RequireTls),
    ("RET", Keyword::Ret),
    ("ENVID", Keyword::Envid),
    ("HOLDFOR", Keyword::HoldFor),
    ("HOLDUNTIL", Keyword::HoldUntil),
    ("NOTIFY", Keyword::Notify),
    ("ORCPT", Keyword::Orcpt),
];

struct Parameter<'a> {
    name: &'a str,
    keyword: Keyword,
    value: Option<&'a str>,
}

impl Parameter<'_> {
    fn read<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Result<T, CommandError> {
        self.value.and_then(read).ok_or_else(|| self.bad())
    }

    /// A parameter that has no value.
    fn flag(&self) -> Result<bool, CommandError> {
        if self.value.is_some() { Err(self.bad()) } else { Ok(true) }
    }

    fn bad(&self) -> CommandError {
        CommandError::BadParameter(self.name.to_ascii_uppercase())
    }

    fn unsupported(&self) -> CommandError {
        CommandError::UnsupportedParameter(self.name.to_ascii_uppercase())
    }
}

/// Reads `keyword[=value]` words, each keyword at most once (RFC 5321 section
/// 4.1.2; that none may come twice, RFC 3461 section 4 and others say).
fn each_parameter<'a>(
    text: &'a str,
    usage: &'static str,
    extensions: &Extensions,
    mut apply: impl FnMut(&Parameter<'a>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut seen = 0_u32;
    for word in text.split_ascii_whitespace() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        if !is_keyword(name) {
            return Err(CommandError::Syntax(usage));
        }
        let known = KEYWORDS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        let Some((_, keyword)) = known else {
            let shown = &name[..name.len().min(MAX_SHOWN)];
            return Err(CommandError::UnsupportedParameter(shown.to_ascii_uppercase()));
        };
        let parameter = Parameter { name, keyword: *keyword, value };
        if value.is_some_and(|value| !is_value(value, extensions.smtp_utf8)) {
            return Err(parameter.bad());
        }
        let bit = 1 << (*keyword as u32);
        if seen & bit != 0 {
            return Err(CommandError::RepeatedParameter(name.to_ascii_uppercase()));
        }
        seen |= bit;
        apply(&parameter)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Extensions = Extensions {
        pipelining: true,
        eight_bit_mime: true,
        smtp_utf8: true,
        dsn: true,
        require_tls: true,
        chunking: true,
        binary_mime: true,
        limits: true,
        future_release: Some(86_400),
    };

    fn sender(arguments: &str) -> Result<Option<String>, CommandError> {
        mail(arguments, &ALL).map(|request| request.sender.map(|sender| sender.to_string()))
    }

    #[test]
    fn every_spelling_of_a_path_is_understood() {
        for spelling in [
            "FROM:<a@b.example>",
            "from: <a@b.example>",
            "FROM: a@b.example",
            "FROM:a@b.example SIZE=3",
            "FROM:< a@b.example > SIZE=3",
            "FROM:<@x.example,@y.example:a@b.example>",
        ] {
            assert_eq!(sender(spelling), Ok(Some("a@b.example".into())), "{spelling}");
        }
        assert_eq!(sender("FROM:<>"), Ok(None));
        assert_eq!(sender("FROM:<\"a> b\"@c.example>"), Ok(Some("\"a> b\"@c.example".into())));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for bad in ["", "FROM", "FROM:", "TO:<a@b.example>", "FROM:<a@b.example", "FROM:<a@b.example>SIZE=1"] {
            assert_eq!(sender(bad), Err(CommandError::Syntax(MAIL_USAGE)), "{bad}");
        }
        for bad in ["FROM:<a>", "FROM:<a b@c.example>", "FROM:<a@>", "FROM:<\"a@b.example>x>"] {
            assert!(matches!(sender(bad), Err(CommandError::BadSender | CommandError::Syntax(_))), "{bad}");
        }
        assert_eq!(rcpt("TO:<>", &ALL), Err(CommandError::BadRecipient));
        assert_eq!(rcpt("TO:<postmaster>", &ALL), Err(CommandError::BadRecipient));
    }

    #[test]
    fn mail_parameters() {
        let request = mail(
            "FROM:<a@b.example> size=99999999999999999999 BODY=8bitmime AUTH=<> SMTPUTF8 RET=hdrs ENVID=a+2Bb REQUIRETLS",
            &ALL,
        )
        .unwrap();
        assert_eq!(request.size, Some(u64::MAX));
        assert_eq!((request.body, request.ret), (BodyType::EightBitMime, Some(Ret::Headers)));
        assert_eq!(request.envid.as_deref(), Some("a+b"));
        assert!(request.smtp_utf8 && request.require_tls);
    }

    #[test]
    fn what_is_not_announced_is_not_taken() {
        let none = Extensions {
            eight_bit_mime: false,
            smtp_utf8: false,
            dsn: false,
            require_tls: false,
            ..Extensions::default()
        };
        for parameter in [
            "BODY=8BITMIME",
            "SMTPUTF8",
            "RET=FULL",
            "ENVID=x",
            "REQUIRETLS",
            "HOLDFOR=1",
            "HOLDUNTIL=2026-11-21T05:00:00Z",
            "X-FOO=1",
            "NOTIFY=NEVER",
        ] {
            let name = parameter.split('=').next().unwrap().to_owned();
            assert_eq!(
                mail(&format!("FROM:<a@b.example> {parameter}"), &none),
                Err(CommandError::UnsupportedParameter(name)),
            );
        }
        assert!(matches!(rcpt("TO:<a@b.example> NOTIFY=NEVER", &none), Err(CommandError::UnsupportedParameter(_))));
    }

    #[test]
    fn impossible_values_are_refused() {
        for parameter in [
            "SIZE",
            "SIZE=",
            "SIZE=1x",
            "SIZE=-1",
            "BODY=9BIT",
            "RET=ALL",
            "ENVID=+0D",
            "ENVID=+C3+A9",
            "ENVID=a=b",
            "AUTH",
            "SMTPUTF8=1",
            "REQUIRETLS=",
            "HOLDFOR=0",
            "HOLDFOR=86401",
            "HOLDFOR=0000000001",
            "HOLDUNTIL=2026-11-21T05:00:00+01:00",
            "HOLDUNTIL=tomorrow",
            "HOLDFOR=1 HOLDUNTIL=2026-11-21T05:00:00Z",
        ] {
            let result = mail(&format!("FROM:<a@b.example> {parameter}"), &ALL);
            assert!(matches!(result, Err(CommandError::BadParameter(_))), "{parameter}");
        }
        for parameter in [
            "NOTIFY=NEVER,SUCCESS",
            "NOTIFY=",
            "ORCPT=x",
            "ORCPT=;x",
            "ORCPT=rfc822;",
            "ORCPT=rfc822;é",
            "ORCPT=rfc822;+0A",
        ] {
            let result = rcpt(&format!("TO:<a@b.example> {parameter}"), &ALL);
            assert!(matches!(result, Err(CommandError::BadParameter(_))), "{parameter}");
        }
    }

    #[test]
    fn rcpt_parameters() {
        let request = rcpt("TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bx@b.example", &ALL).unwrap();
        assert_eq!(request.recipient.notify.to_string(), "SUCCESS,DELAY");
        assert_eq!(request.recipient.orcpt.as_deref(), Some("rfc822;a+x@b.example"));
    }

    #[test]
    fn the_time_to_wait_is_read() {
        let hold = |parameter| mail(&format!("FROM:<a@b.example> {parameter}"), &ALL).map(|request| request.hold);
        assert_eq!(hold("holdfor=86400"), Ok(Some(HoldUntil::For(86_400))));
        let time = Timestamp::from_millis(1_795_237_200_000);
        assert_eq!(hold("HOLDUNTIL=2026-11-21T05:00:00Z"), Ok(Some(HoldUntil::Until(time))));
    }

    #[test]
    fn binary_content_needs_both_extensions() {
        let body = |extensions| mail("FROM:<> BODY=BinaryMime", &extensions).map(|request| request.body);
        assert_eq!(body(ALL), Ok(BodyType::BinaryMime));
        for lacking in [Extensions { binary_mime: false, ..ALL }, Extensions { chunking: false, ..ALL }] {
            assert_eq!(body(lacking), Err(CommandError::BadParameter("BODY".into())));
        }
    }

    #[test]
    fn no_parameter_comes_twice() {
        for (name, parameters) in
            [("SIZE", "SIZE=1 size=1"), ("RET", "RET=FULL ENVID=x RET=HDRS"), ("AUTH", "AUTH=<> AUTH=<>")]
        {
            let result = mail(&format!("FROM:<> {parameters}"), &ALL);
            assert_eq!(result, Err(CommandError::RepeatedParameter(name.into())));
        }
        let result = rcpt("TO:<a@b.example> NOTIFY=NEVER NOTIFY=NEVER", &ALL);
        assert_eq!(result, Err(CommandError::RepeatedParameter("NOTIFY".into())));
    }

    #[test]
    fn words_that_are_no_parameters() {
        for word in ["=x", "-X=1", "X_Y=1", "é=1", "\"a"] {
            assert_eq!(mail(&format!("FROM:<> {word}"), &ALL), Err(CommandError::Syntax(MAIL_USAGE)), "{word}");
        }
        let long = "X".repeat(500);
        let shown = CommandError::UnsupportedParameter("X".repeat(MAX_SHOWN));
        assert_eq!(mail(&format!("FROM:<> {long}"), &ALL), Err(shown));
        let ascii = Extensions { smtp_utf8: false, ..ALL };
        let orcpt = "TO:<a@b.example> ORCPT=utf-8;é@b.example";
        assert_eq!(rcpt(orcpt, &ascii), Err(CommandError::BadParameter("ORCPT".into())));
        assert_eq!(rcpt(orcpt, &ALL).unwrap().recipient.orcpt.as_deref(), Some("utf-8;é@b.example"));
    }
}

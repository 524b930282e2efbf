//! The arguments of MAIL and RCPT: a path and parameters.

use postrider_base::Timestamp;
use postrider_mail::{BodyType, EmailAddress, Recipient, Ret};

use super::CommandError;
use super::xtext::decode_xtext;

const MAIL_USAGE: &str = "MAIL FROM:<address>";
const RCPT_USAGE: &str = "RCPT TO:<address>";
/// RFC 3461 section 4.4.
const MAX_ENVID: usize = 100;
/// RFC 3461 section 4.2.
const MAX_ORCPT: usize = 500;

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
    for parameter in parameters(rest) {
        request.apply(&parameter, extensions)?;
    }
    Ok(request)
}

/// Parses what follows `RCPT`.
pub(super) fn rcpt(arguments: &str, extensions: &Extensions) -> Result<RcptRequest, CommandError> {
    let arguments = strip_keyword(arguments, "TO:").ok_or(CommandError::Syntax(RCPT_USAGE))?;
    let (path, rest) = split_path(arguments).ok_or(CommandError::Syntax(RCPT_USAGE))?;
    let address = path.parse().map_err(|_| CommandError::BadRecipient)?;
    let mut recipient = Recipient::new(address);
    for parameter in parameters(rest) {
        match (parameter.name.as_str(), parameter.value) {
            ("NOTIFY", Some(value)) if extensions.dsn => {
                recipient.notify = value.parse().map_err(|_| parameter.bad())?;
            }
            ("ORCPT", Some(value)) if extensions.dsn => {
                recipient.orcpt = Some(parse_orcpt(value).ok_or_else(|| parameter.bad())?);
            }
            _ => return Err(CommandError::UnsupportedParameter(parameter.name)),
        }
    }
    Ok(RcptRequest { recipient })
}

impl MailRequest {
    fn apply(&mut self, parameter: &Parameter<'_>, extensions: &Extensions) -> Result<(), CommandError> {
        let bad = || parameter.bad();
        match (parameter.name.as_str(), parameter.value) {
            ("SIZE", Some(value)) => self.size = Some(parse_size(value).ok_or_else(bad)?),
            ("BODY", Some(value)) if extensions.eight_bit_mime => {
                self.body = match value.to_ascii_uppercase().as_str() {
                    "7BIT" => BodyType::SevenBit,
                    "8BITMIME" => BodyType::EightBitMime,
                    _ => return Err(bad()),
                };
            }
            // RFC 4954 section 5: who submitted it first. We trust no one's word on that.
            ("AUTH", Some(_)) => {}
            ("SMTPUTF8", None) if extensions.smtp_utf8 => self.smtp_utf8 = true,
            ("REQUIRETLS", None) if extensions.require_tls => self.require_tls = true,
            ("RET", Some(value)) if extensions.dsn => {
                self.ret = Some(match value.to_ascii_uppercase().as_str() {
                    "FULL" => Ret::Full,
                    "HDRS" => Ret::Headers,
                    _ => return Err(bad()),
                });
            }
            ("ENVID", Some(value)) if extensions.dsn && value.len() <= MAX_ENVID => {
                self.envid = Some(decode_xtext(value).ok_or_else(bad)?);
            }
            _ => return Err(CommandError::UnsupportedParameter(parameter.name.clone())),
        }
        Ok(())
    }
}

struct Parameter<'a> {
    /// Upper case.
    name: String,
    value: Option<&'a str>,
}

impl Parameter<'_> {
    fn bad(&self) -> CommandError {
        CommandError::BadParameter(self.name.clone())
    }
}

fn parameters(text: &str) -> impl Iterator<Item = Parameter<'_>> {
    text.split_ascii_whitespace().map(|word| {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        Parameter { name: name.to_ascii_uppercase(), value }
    })
}

/// Takes `FROM:` or `TO:` off, with the blanks that some clients put after it.
fn strip_keyword<'a>(arguments: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, rest) = arguments.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| rest.trim_start())
}

/// Splits `<path> parameters` or `path parameters`; the path comes without
/// brackets and without source route. `None` when there is none.
fn split_path(text: &str) -> Option<(&str, &str)> {
    let bracketed = text.starts_with('<');
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if bracketed && !quoted => {
                let (path, rest) = (&text[1..at], &text[at + 1..]);
                let separated = rest.is_empty() || rest.starts_with([' ', '\t']);
                return separated.then(|| (strip_route(path.trim()), rest));
            }
            ' ' | '\t' if !bracketed && !quoted => return Some((&text[..at], &text[at..])),
            _ => {}
        }
    }
    (!bracketed && !quoted && !text.is_empty()).then_some((text, ""))
}

/// RFC 5321 section 4.1.1.3: a source route is accepted and ignored.
fn strip_route(path: &str) -> &str {
    match path.split_once(':') {
        Some((route, path)) if route.starts_with('@') => path,
        _ => path,
    }
}

/// RFC 1870 section 5: 1 to 20 digits; a number beyond 64 bits is over any limit.
fn parse_size(value: &str) -> Option<u64> {
    let digits = (1..=20).contains(&value.len()) && value.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| value.parse().unwrap_or(u64::MAX))
}

/// RFC 3461 section 4.2: an address type, a semicolon, xtext.
fn parse_orcpt(value: &str) -> Option<String> {
    let (kind, address) = value.split_once(';')?;
    let fits = value.len() <= MAX_ORCPT
        && !kind.is_empty()
        && kind.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    if !fits {
        return None;
    }
    Some(format!("{kind};{}", decode_xtext(address)?))
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
        for parameter in ["BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=x", "REQUIRETLS", "X-FOO=1", "SMTPUTF8=1"] {
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
        for parameter in ["SIZE=", "SIZE=1x", "SIZE=-1", "BODY=9BIT", "RET=ALL", "ENVID=+0D"] {
            let result = mail(&format!("FROM:<a@b.example> {parameter}"), &ALL);
            assert!(matches!(result, Err(CommandError::BadParameter(_))), "{parameter}");
        }
        for parameter in ["NOTIFY=NEVER,SUCCESS", "NOTIFY=", "ORCPT=x", "ORCPT=;x", "ORCPT=rfc822;+0A"] {
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
}

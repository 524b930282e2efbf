//! Commands of RFC 5321 and of the extensions that we speak.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::parameters::{self, Extensions, MailRequest, RcptRequest};

/// Longest client name in EHLO or HELO that is kept; RFC 5321 section
/// 4.5.3.1.2 allows 255 octets for a domain.
const MAX_CLIENT_NAME: usize = 255;
/// Letters of STARTTLS.
const LONGEST_VERB: usize = 8;

/// A command, parsed and valid.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// EHLO with the name that the client gives itself.
    Ehlo(String),
    /// HELO with the name that the client gives itself.
    Helo(String),
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954): the mechanism in upper case and the decoded initial response.
    Auth {
        /// Upper case.
        mechanism: String,
        /// `Some` and empty where the client sent `=`.
        initial: Option<Vec<u8>>,
    },
    /// MAIL.
    Mail(MailRequest),
    /// RCPT.
    Rcpt(RcptRequest),
    /// DATA.
    Data,
    /// BDAT (RFC 3030): a chunk follows the line at once.
    Bdat {
        /// Its size in octets.
        size: u64,
        /// It is the message's last one.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP, with or without an argument.
    Noop,
    /// VRFY with what is to be looked up.
    Vrfy(String),
    /// QUIT.
    Quit,
}

/// Why a line is not a command. Always the client's fault; it does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// No such command.
    Unknown,
    /// A command that exists and is not offered.
    NotImplemented,
    /// A command of another protocol: the client is no mail client.
    Foreign,
    /// Octets that no command has: control characters or broken UTF-8.
    BadCharacters,
    /// Wrong arguments; the text shows the right ones.
    Syntax(&'static str),
    /// The address in MAIL can not be one.
    BadSender,
    /// The address in RCPT can not be one.
    BadRecipient,
    /// A parameter that is not offered (its name).
    UnsupportedParameter(String),
    /// A parameter with an impossible value (its name).
    BadParameter(String),
    /// A parameter that is given more than once (its name).
    RepeatedParameter(String),
    /// A BDAT that does not say where its chunk ends: what follows can not be
    /// told from commands.
    BadChunk,
    /// The initial response of AUTH is not base64.
    BadBase64,
}

impl Command {
    /// Parses one line without its end. Verbs, keywords and parameter names
    /// are compared without regard to case (RFC 5321 section 2.4).
    pub fn parse(line: &[u8], extensions: &Extensions) -> Result<Command, CommandError> {
        if let Some(arguments) = strip_bdat(line) {
            return bdat(arguments).ok_or(CommandError::BadChunk);
        }
        let line = std::str::from_utf8(line).map_err(|_| CommandError::BadCharacters)?;
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(CommandError::BadCharacters);
        }
        let line = line.trim_end();
        let (verb, arguments) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let arguments = arguments.trim_start();
        let mut upper = [0; LONGEST_VERB];
        let upper = upper.get_mut(..verb.len()).ok_or(CommandError::Unknown)?;
        upper.copy_from_slice(verb.as_bytes());
        upper.make_ascii_uppercase();
        match &*upper {
            b"EHLO" => client_name(arguments).map(Command::Ehlo).ok_or(CommandError::Syntax("EHLO hostname")),
            b"HELO" => client_name(arguments).map(Command::Helo).ok_or(CommandError::Syntax("HELO hostname")),
            b"STARTTLS" => bare(arguments, Command::StartTls, "STARTTLS"),
            b"AUTH" => auth(arguments),
            b"MAIL" => parameters::mail(arguments, extensions).map(Command::Mail),
            b"RCPT" => parameters::rcpt(arguments, extensions).map(Command::Rcpt),
            b"DATA" => bare(arguments, Command::Data, "DATA"),
            b"RSET" => bare(arguments, Command::Rset, "RSET"),
            // A client that wants to go may say why.
            b"QUIT" => Ok(Command::Quit),
            b"NOOP" => Ok(Command::Noop),
            b"VRFY" => vrfy(arguments, extensions),
            b"EXPN" | b"ETRN" | b"TURN" => Err(CommandError::NotImplemented),
            b"GET" | b"POST" | b"CONNECT" => Err(CommandError::Foreign),
            _ => Err(CommandError::Unknown),
        }
    }

    /// Whether a line, or the beginning of one, is BDAT, whatever else is wrong with it.
    pub fn is_bdat(line: &[u8]) -> bool {
        strip_bdat(line).is_some()
    }

    /// Decodes a line of an AUTH exchange (RFC 4954 section 4): `None` when it is not base64.
    pub fn decode_response(line: &[u8]) -> Option<Vec<u8>> {
        STANDARD.decode(line.trim_ascii()).ok()
    }
}

/// What follows the verb, if it is BDAT; looked for first, whatever else is
/// wrong with the line, as the chunk behind it must not be taken for commands.
fn strip_bdat(line: &[u8]) -> Option<&[u8]> {
    let (verb, arguments) = line.split_at_checked(4)?;
    let alone = arguments.first().is_none_or(u8::is_ascii_whitespace);
    (verb.eq_ignore_ascii_case(b"BDAT") && alone).then_some(arguments)
}

/// RFC 3030 section 2: a size, and `LAST` where it is the last one.
fn bdat(arguments: &[u8]) -> Option<Command> {
    let mut words = std::str::from_utf8(arguments).ok()?.split_ascii_whitespace();
    let size = words.next().filter(|size| size.bytes().all(|octet| octet.is_ascii_digit()))?;
    let size = size.parse().ok()?;
    match (words.next(), words.next()) {
        (None, _) => Some(Command::Bdat { size, last: false }),
        (Some(last), None) if last.eq_ignore_ascii_case("LAST") => Some(Command::Bdat { size, last: true }),
        _ => None,
    }
}

/// RFC 6531 section 3.7.4.2: a name that is not ASCII takes the parameter.
fn vrfy(arguments: &str, extensions: &Extensions) -> Result<Command, CommandError> {
    let usage = if extensions.smtp_utf8 { "VRFY address [SMTPUTF8]" } else { "VRFY address" };
    let (name, utf8) = match arguments.rsplit_once([' ', '\t']) {
        Some((name, last)) if extensions.smtp_utf8 && last.eq_ignore_ascii_case("SMTPUTF8") => (name.trim_end(), true),
        _ => (arguments, false),
    };
    let fits = !name.is_empty() && (utf8 || name.is_ascii());
    fits.then(|| Command::Vrfy(name.to_owned())).ok_or(CommandError::Syntax(usage))
}

fn bare(arguments: &str, command: Command, usage: &'static str) -> Result<Command, CommandError> {
    if arguments.is_empty() { Ok(command) } else { Err(CommandError::Syntax(usage)) }
}

/// Any printable name is taken: what clients send here is often not a domain,
/// and RFC 5321 section 4.1.4 forbids refusing mail for it. Spaces are not, as
/// the name goes into the Received field.
fn client_name(arguments: &str) -> Option<String> {
    let fits = (1..=MAX_CLIENT_NAME).contains(&arguments.len());
    (fits && !arguments.contains([' ', '\t'])).then(|| arguments.to_owned())
}

fn auth(arguments: &str) -> Result<Command, CommandError> {
    let mut words = arguments.split_ascii_whitespace();
    let mechanism = words.next().ok_or(CommandError::Syntax("AUTH mechanism"))?.to_ascii_uppercase();
    let initial = match words.next() {
        None => None,
        // RFC 4954 section 4: a response of no octets.
        Some("=") => Some(Vec::new()),
        Some(text) => Some(Command::decode_response(text.as_bytes()).ok_or(CommandError::BadBase64)?),
    };
    match words.next() {
        None => Ok(Command::Auth { mechanism, initial }),
        Some(_) => Err(CommandError::Syntax("AUTH mechanism [initial-response]")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Result<Command, CommandError> {
        Command::parse(line.as_bytes(), &Extensions::default())
    }

    #[test]
    fn verbs_have_no_case_and_tolerate_blanks_at_the_end() {
        assert_eq!(parse("quit"), Ok(Command::Quit));
        assert_eq!(parse("DaTa  "), Ok(Command::Data));
        assert_eq!(parse("ehlo [192.0.2.1]"), Ok(Command::Ehlo("[192.0.2.1]".into())));
        assert_eq!(parse("NOOP what ever"), Ok(Command::Noop));
        assert_eq!(parse("DATA now"), Err(CommandError::Syntax("DATA")));
        assert_eq!(parse("HELO"), Err(CommandError::Syntax("HELO hostname")));
        assert_eq!(parse("EHLO a b"), Err(CommandError::Syntax("EHLO hostname")));
        assert_eq!(parse("QUIT now"), Ok(Command::Quit));
        assert_eq!(parse("RSET all"), Err(CommandError::Syntax("RSET")));
    }

    #[test]
    fn what_is_no_command_says_why() {
        assert_eq!(parse(""), Err(CommandError::Unknown));
        assert_eq!(parse("XYZZY"), Err(CommandError::Unknown));
        assert_eq!(parse("EXPN list"), Err(CommandError::NotImplemented));
        assert_eq!(parse("HELP"), Err(CommandError::Unknown));
        assert_eq!(parse("GET / HTTP/1.1"), Err(CommandError::Foreign));
        assert_eq!(parse("EHLO a\rb"), Err(CommandError::BadCharacters));
        assert_eq!(Command::parse(b"EHLO \xff", &Extensions::default()), Err(CommandError::BadCharacters));
    }

    #[test]
    fn auth_takes_an_initial_response_or_none() {
        let auth = |initial: Option<&[u8]>| {
            Ok(Command::Auth { mechanism: "LOGIN".into(), initial: initial.map(<[u8]>::to_vec) })
        };
        assert_eq!(parse("AUTH login"), auth(None));
        assert_eq!(parse("auth LOGIN dXNlcg=="), auth(Some(b"user")));
        assert_eq!(parse("AUTH LOGIN ="), auth(Some(b"")));
        assert_eq!(parse("AUTH LOGIN !!"), Err(CommandError::BadBase64));
        assert_eq!(parse("AUTH"), Err(CommandError::Syntax("AUTH mechanism")));
        assert!(parse("AUTH PLAIN dXNlcg== x").is_err());
    }

    #[test]
    fn a_chunk_says_where_it_ends() {
        let chunk = |size, last| Ok(Command::Bdat { size, last });
        assert_eq!(parse("BDAT 86"), chunk(86, false));
        assert_eq!(parse("bdat 0 last "), chunk(0, true));
        assert_eq!(parse("BDAT\t18446744073709551615 LAST"), chunk(u64::MAX, true));
        for bad in [
            "",
            " ",
            " -1",
            " +1",
            " 1x",
            " 0x10",
            " LAST",
            " 1 LAST x",
            " 1 FIRST",
            " 18446744073709551616",
            " 1\u{e9}",
        ] {
            assert_eq!(parse(&format!("BDAT{bad}")), Err(CommandError::BadChunk), "{bad:?}");
        }
        assert_eq!(Command::parse(b"BDAT 1\xff", &Extensions::default()), Err(CommandError::BadChunk));
        assert_eq!(parse("BDATA 1"), Err(CommandError::Unknown));
    }

    #[test]
    fn what_is_to_be_verified_is_ascii_or_says_that_it_is_not() {
        assert_eq!(parse("VRFY Jos\u{e9} SMTPUTF8"), Ok(Command::Vrfy("Jos\u{e9}".into())));
        assert_eq!(parse("VRFY a b"), Ok(Command::Vrfy("a b".into())));
        for bad in ["VRFY", "VRFY Jos\u{e9}"] {
            assert_eq!(parse(bad), Err(CommandError::Syntax("VRFY address [SMTPUTF8]")));
        }
    }

    proptest! {
        #[test]
        fn random_lines_never_panic(line: Vec<u8>) {
            let _ = Command::parse(&line, &Extensions::default());
        }

        #[test]
        fn random_arguments_never_panic(verb in "(MAIL FROM:|RCPT TO:|AUTH |EHLO )", rest in "[ -~é\t]{0,40}") {
            let _ = parse(&format!("{verb}{rest}"));
        }
    }
}

//! The grammar of the field (RFC 8601 section 2.2).

use super::{AuthenticationResults, MethodResult, Property};

/// Results that one field may have; who writes more is not believed anyway.
const MOST_RESULTS: usize = 100;

pub(super) fn field(value: &str) -> Option<AuthenticationResults> {
    let mut cursor = Cursor { rest: value };
    let authserv_id = cursor.id()?;
    let mut results = Vec::new();
    while cursor.take(';') {
        if cursor.at_end() {
            // A final semicolon is common, though the grammar has none.
            break;
        }
        if results.len() == MOST_RESULTS {
            return None;
        }
        let method = cursor.word()?;
        if method.eq_ignore_ascii_case("none") && results.is_empty() && cursor.at_end() {
            break;
        }
        results.push(cursor.result(&method)?);
    }
    cursor.at_end().then_some(AuthenticationResults { authserv_id, results })
}

/// Who wrote the field.
pub(super) fn authserv_id(value: &str) -> Option<String> {
    Cursor { rest: value }.id()
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    /// `authserv-id [CFWS authres-version]`
    fn id(&mut self) -> Option<String> {
        let id = self.value(false)?;
        self.space()?;
        let version = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        self.rest = &self.rest[version..];
        self.space()?;
        let ends = self.rest.is_empty() || self.rest.starts_with(';');
        (ends && !id.is_empty()).then_some(id)
    }

    /// What follows the name of a method.
    fn result(&mut self, method: &str) -> Option<MethodResult> {
        let method = method.split_once('/').map_or(method, |(name, _version)| name).to_owned();
        // A version may stand apart.
        if self.take('/') {
            self.word()?;
        }
        if !self.take('=') {
            return None;
        }
        let result = self.word()?;
        let mut one = MethodResult { method, result, reason: None, properties: Vec::new() };
        while !self.at_end() && !self.rest.starts_with(';') {
            let name = self.word()?;
            if !self.take('=') {
                return None;
            }
            let value = self.value(true)?;
            match name.split_once('.') {
                Some((kind, name)) => {
                    one.properties.push(Property { kind: kind.to_owned(), name: name.to_owned(), value });
                }
                None if name.eq_ignore_ascii_case("reason") => one.reason = Some(value),
                None => return None,
            }
            self.space()?;
        }
        Some(one)
    }

    /// Passes over space and comments; none when a comment does not end.
    fn space(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        let mut escaped = false;
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if depth > 0 => escaped = true,
                '(' => depth += 1,
                ')' if depth > 0 => depth -= 1,
                ' ' | '\t' | '\r' | '\n' => {}
                _ if depth > 0 => {}
                _ => {
                    self.rest = &self.rest[at..];
                    return Some(());
                }
            }
        }
        self.rest = "";
        (depth == 0).then_some(())
    }

    fn at_end(&mut self) -> bool {
        self.space().is_some() && self.rest.is_empty()
    }

    fn take(&mut self, c: char) -> bool {
        let taken = self.space().and_then(|()| self.rest.strip_prefix(c));
        taken.map(|rest| self.rest = rest).is_some()
    }

    /// A keyword, or several with dots or a slash between.
    fn word(&mut self) -> Option<String> {
        self.space()?;
        let length = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-_./".contains(c));
        let (word, rest) = self.rest.split_at(length.unwrap_or(self.rest.len()));
        self.rest = rest;
        (!word.is_empty()).then(|| word.to_owned())
    }

    /// A token, a quoted string, or an address made of them; `loose` lets more characters stand
    /// in a token than the grammar does, as others write them.
    fn value(&mut self, loose: bool) -> Option<String> {
        self.space()?;
        let mut value = String::new();
        loop {
            if let Some(inside) = self.rest.strip_prefix('"') {
                self.rest = inside;
                self.quoted(&mut value)?;
                continue;
            }
            let ends = |c: char| c.is_ascii_whitespace() || matches!(c, ';' | '(' | '"') || (!loose && c == '=');
            let (word, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
            self.rest = rest;
            value.push_str(word);
            if !rest.starts_with('"') {
                return Some(value);
            }
        }
    }

    fn quoted(&mut self, value: &mut String) -> Option<()> {
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(());
                }
                '\\' => value.push(chars.next()?.1),
                '\r' | '\n' => {}
                c => value.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8601 appendix B
    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(field(" example.org 1; none").unwrap().results, []);
        let one = field(" example.com;\r\n spf=pass smtp.mailfrom=example.net").unwrap();
        assert_eq!((one.authserv_id.as_str(), one.results[0].result.as_str()), ("example.com", "pass"));
        let many = field(
            " example.com;\r\n auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n spf=pass smtp.mailfrom=example.net;\r\n sender-id=pass header.from=example.net",
        );
        assert_eq!(many.unwrap().results.len(), 3);
        let dkim = field(
            " example.com;\r\n dkim=pass reason=\"good signature\"\r\n header.i=@mail-router.example.net;\r\n dkim=fail reason=\"bad signature\"\r\n header.i=@newyork.example.com",
        )
        .unwrap();
        assert_eq!(dkim.results[1].reason.as_deref(), Some("bad signature"));
        assert_eq!(dkim.results[0].properties[0].value, "@mail-router.example.net");
        let comments = field(
            " foo.example.net (foobar) 1 (baz);\r\n dkim (Because I like it) / 1 (One yay) = (wait for it) fail\r\n policy (A dot can go here) . (like that) expired\r\n (this surprised me) = (as I wasn't expecting it) 1362471462",
        );
        // The name of a property in pieces is the one thing that is not read.
        assert!(comments.is_none());
    }

    #[test]
    fn as_the_world_writes_it() {
        let google = field(
            " mx.google.com;\r\n       dkim=pass header.i=@example.com header.s=s1 header.b=AbC/d+e=;\r\n       spf=pass (google.com: domain of a@example.com designates 192.0.2.1 as permitted sender) smtp.mailfrom=\"a=b@example.com\";\r\n       dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=example.com;",
        )
        .unwrap();
        assert_eq!(google.results.len(), 3);
        assert_eq!(google.results[0].properties[2].value, "AbC/d+e=");
        assert_eq!(google.results[1].properties[0].value, "a=b@example.com");
    }

    #[test]
    fn what_breaks_the_grammar_is_not_believed() {
        for bad in [
            "",
            ";",
            "a b",
            "a; spf",
            "a; spf=",
            "a; =pass",
            "a; spf=pass x",
            "a; spf=pass x=y",
            "a; spf=pass (",
            "a (",
            "\"a",
            "a; spf=pass a.b=\"c",
        ] {
            assert!(field(bad).is_none(), "{bad}");
        }
        assert!(field(&format!("a{}", "; spf=pass".repeat(101))).is_none());
    }
}

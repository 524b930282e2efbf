//! Messages of all kinds: the real ones of the corpus, and made-up ones that
//! try what canonical forms and header selection can get wrong.

use std::path::Path;

use postrider_base::Random;
use postrider_testkit::lines::with_crlf;

/// How many are made up.
const MADE_UP: usize = 1_020;

/// A message, lines ending with CRLF.
pub(crate) struct Sample {
    /// What to call it when it fails.
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    /// Its author is in the domain that signs for its authors.
    pub(crate) is_ours: bool,
}

/// The corpus as far as it has authors, then what is made up, the same for the same seed.
pub(crate) fn samples(random: &Random) -> std::io::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for folder in ["mail-parser", "cpython", "made-up"] {
        for entry in std::fs::read_dir(root.join(folder))? {
            let path = entry?.path();
            let content = with_crlf(&std::fs::read(&path)?);
            if let Some(domain) = author_domain(&content) {
                let is_ours = domain == "example.com" || domain.ends_with(".example.com");
                samples.push(Sample { name: path.display().to_string(), content, is_ours });
            }
        }
    }
    samples.sort_by(|one, other| one.name.cmp(&other.name));
    samples.extend((0..MADE_UP).map(|number| made_up(number, random)));
    Ok(samples)
}

/// The domain of the author, in messages whose From is written simply; others are left out.
fn author_domain(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    let (header, _) = text.split_once("\r\n\r\n")?;
    let from = header.split("\r\n").find(|line| line.to_ascii_lowercase().starts_with("from:"))?;
    let (_, after) = from.rsplit_once('@')?;
    let plain = |character: char| character.is_ascii_alphanumeric() || ".-".contains(character);
    let domain: String = after.chars().take_while(|character| plain(*character)).collect();
    let simple = from.matches('@').count() == 1 && !from.contains(['"', '(', ',']);
    (simple && domain.contains('.') && !domain.ends_with('.')).then(|| domain.to_ascii_lowercase())
}

fn made_up(number: usize, random: &Random) -> Sample {
    let mut header = vec![field(random, "From", "App <app@example.com>")];
    for (name, value) in [
        ("To", "One <one@example.net>, two@example.net"),
        ("Subject", "hello, how  are\tyou"),
        ("Cc", "three@example.net"),
        ("Reply-To", "answers@example.com"),
        ("Date", "Mon, 1 Jan 2024 00:00:00 +0000"),
        ("Message-ID", "<1@example.com>"),
        ("MIME-Version", "1.0"),
        ("References", "<a@example.com> <b@example.com> <c@example.com>"),
        ("List-Unsubscribe", "<https://example.com/u?a=1;b=2>, <mailto:u@example.com>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("List-Id", "News <news.example.com>"),
        ("Feedback-ID", "1:2:3:example"),
        ("Auto-Submitted", "auto-generated"),
        ("X-Empty", ""),
        ("X-Long", &"word ".repeat(150)),
        ("Sender", "app@example.com"),
        ("In-Reply-To", ""),
        ("Comments", "Gr\u{fc}\u{df}e =?utf-8?q?x?= ; = : \\ \""),
    ] {
        if one_in(random, 2) {
            header.push(field(random, name, value));
        }
    }
    // Fields that may be there more than once.
    for name in ["To", "Received", "Resent-To", "X-Twice", "List-Help", "Keywords"] {
        for _ in 0..random.below(3) {
            header.push(field(random, name, &format!("value {}@example.net", random.below(100))));
        }
    }
    let (kind, body) = body(random);
    shuffle(random, &mut header);
    let mut content: Vec<u8> = header.concat().into_bytes();
    content.extend_from_slice(b"\r\n");
    content.extend_from_slice(&body);
    Sample { name: format!("made up {number} ({kind})"), content, is_ours: true }
}

/// A field written in one of the many ways that mean the same.
fn field(random: &Random, name: &str, value: &str) -> String {
    let name = match random.below(4) {
        0 => name.to_ascii_lowercase(),
        1 => name.to_ascii_uppercase(),
        _ => name.to_owned(),
    };
    let mut text = name;
    text.push_str(pick(random, &[":", ": ", ":  ", ":\t", ": \t ", ":\r\n "]));
    for (index, word) in value.split(' ').enumerate() {
        if index > 0 {
            // A fold must not make a line of blanks alone: some hops take that for the end of the header.
            text.push_str(pick(random, &[" ", " ", "  ", "\t", "\r\n ", "\r\n\t", " \r\n  "]));
        }
        text.push_str(word);
    }
    while text.ends_with([' ', '\t', '\r', '\n']) {
        text.pop();
    }
    text.push_str(pick(random, &["\r\n", "\r\n", " \r\n", "\t \r\n"]));
    text
}

fn body(random: &Random) -> (&'static str, Vec<u8>) {
    let lines = |random: &Random, count: u64, endings: &[&str]| -> String {
        let line = |_| format!("line {} of some text{}", random.below(1_000), pick(random, endings));
        (0..count).map(line).collect()
    };
    let (kind, text) = match random.below(12) {
        0 => ("empty", String::new()),
        1 => ("one empty line", "\r\n".to_owned()),
        2 => ("empty lines alone", "\r\n".repeat(usize::try_from(random.below(40)).unwrap_or_default())),
        3 => ("blanks at the end of lines", lines(random, 20, &["\r\n", " \r\n", "\t\r\n", "  \t \r\n"])),
        4 => ("empty lines at the end", lines(random, 5, &["\r\n"]) + &"\r\n".repeat(7)),
        5 => ("lines of blanks at the end", lines(random, 5, &["\r\n"]) + " \r\n\t\r\n  \r\n"),
        6 => ("dots", lines(random, 5, &["\r\n.\r\n", "\r\n..\r\n", "\r\n.text\r\n"])),
        7 => ("8-bit", "Sch\u{f6}ne Gr\u{fc}\u{df}e \u{1f600}\r\n".repeat(10)),
        8 => ("long lines", "0123456789".repeat(99) + "\r\n"),
        9 => ("too long lines", "0123456789".repeat(300) + "\r\nend\r\n"),
        10 => ("large", lines(random, 3_000, &["\r\n", "\r\n", "\r\n\r\n"])),
        _ => ("MIME", mime(random)),
    };
    (kind, text.into_bytes())
}

fn mime(random: &Random) -> String {
    let encoded = (0..random.below(50)).map(|_| "AAECAwQFBgcICQ==\r\n").collect::<String>();
    format!(
        "preamble\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ntext\r\n--b\r\nContent-Type: application/octet-stream\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{encoded}--b--\r\nFrom: not a field\r\n"
    )
}

fn one_in(random: &Random, of: u64) -> bool {
    random.below(of) == 0
}

fn pick<'t>(random: &Random, texts: &[&'t str]) -> &'t str {
    let index = random.below(texts.len() as u64);
    texts[usize::try_from(index).unwrap_or_default()]
}

fn shuffle(random: &Random, header: &mut [String]) {
    for index in (1..header.len()).rev() {
        let other = random.below(index as u64 + 1);
        header.swap(index, usize::try_from(other).unwrap_or_default());
    }
}

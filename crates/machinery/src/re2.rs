//! Go's regular expressions on the `regex` crate. The two engines agree but for spelling: here `\d`, `\w` and `\s` are ASCII,
//! brackets inside classes are plain, `{` may be literal, and what does not parse is refused in Go's words.
//!
//! Used for `pattern` in schemas and by whatever else evaluates a user's expression. Memory is bounded.

mod properties;

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::CharIndices;

use regex::{Regex, RegexBuilder};

/// The most a compiled expression may take.
pub const BYTES_MAX: usize = 4 << 20;
const REPEAT_MAX: u32 = 1000;

/// Compiles an expression. The error is Go's: ``error parsing regexp: missing closing ): `(` ``.
pub fn compile(text: &str) -> Result<Regex, String> {
    compile_within(text, BYTES_MAX)
}

/// As [`compile`], with a limit of its own.
pub fn compile_within(text: &str, bytes_max: usize) -> Result<Regex, String> {
    let translated = translate(text)?;
    let built = RegexBuilder::new(&translated).size_limit(bytes_max).dfa_size_limit(bytes_max.min(1 << 18)).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("error parsing regexp: expression too large: `{text}`"),
        _ => format!("error parsing regexp: invalid character class range: `{text}`"),
    })
}

/// Whether an expression is one, without the cost of compiling it.
pub fn check(text: &str) -> Result<(), String> {
    match RegexBuilder::new(&translate(text)?).size_limit(1).build() {
        Ok(_) | Err(regex::Error::CompiledTooBig(_)) => Ok(()),
        Err(_) => refuse("invalid character class range", text),
    }
}

/// The expression as the `regex` crate spells it.
fn translate(text: &str) -> Result<String, String> {
    let mut t = Translator { text, chars: text.char_indices().peekable(), out: String::with_capacity(text.len() + 8) };
    t.expression()?;
    Ok(t.out)
}

struct Translator<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    out: String,
}

/// A group, or the whole expression, as far as it was read.
#[derive(Default)]
struct Level {
    /// Where the last thing is written.
    start: usize,
    end: usize,
    /// Whether there is something a repetition may follow.
    repeatable: bool,
    /// How often the counted repetitions in the last thing repeat what is innermost; and in all before it.
    repeats: u32,
    most: u32,
}

impl Level {
    fn next(&mut self, start: usize) {
        (self.most, self.repeats, self.start) = (self.most(), 0, start);
    }

    fn most(&self) -> u32 {
        self.most.max(self.repeats)
    }
}

struct Repetition {
    /// In bytes, with its `?`.
    length: usize,
    /// The most of a counted one, or the least where it has no most.
    times: Option<u32>,
}

impl Repetition {
    /// How often this one repeats what is innermost in what it repeats; `None`: too often.
    fn nested(&self, inner: u32) -> Option<u32> {
        let Some(times) = self.times else { return Some(inner) };
        Some(times.saturating_mul(inner.max(1))).filter(|all| times < 2 || *all <= REPEAT_MAX)
    }
}

fn refuse<T>(what: &str, part: &str) -> Result<T, String> {
    Err(format!("error parsing regexp: {what}: `{part}`"))
}

impl<'a> Translator<'a> {
    /// Where the next character is.
    fn at(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn rest(&mut self) -> &'a str {
        let at = self.at();
        &self.text[at..]
    }

    fn skip(&mut self, bytes: usize) {
        let end = self.at() + bytes;
        while self.chars.next_if(|(at, _)| *at < end).is_some() {}
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii_punctuation() {
            self.out.push('\\');
        }
        // `\<` and `\>` mean something else.
        if matches!(c, '<' | '>') {
            self.out.pop();
        }
        self.out.push(c);
    }

    fn expression(&mut self) -> Result<(), String> {
        let mut outer: Vec<Level> = Vec::new();
        let mut here = Level::default();
        // Where the last repetition began, if nothing came since.
        let mut repeated: Option<usize> = None;
        while let Some((at, c)) = self.chars.peek().copied() {
            if let Some(repetition) = self.repetition(c)? {
                let op = &self.text[at..at + repetition.length];
                if let Some(first) = repeated {
                    return refuse("invalid nested repetition operator", &self.text[first..at + repetition.length]);
                }
                if !here.repeatable {
                    return refuse("missing argument to repetition operator", op);
                }
                here.repeats = repetition.nested(here.repeats).map_or_else(|| refuse("invalid repeat count", op), Ok)?;
                self.repeat(&mut here, op);
                self.skip(op.len());
                repeated = Some(at);
                continue;
            }
            repeated = None;
            let start = self.out.len();
            match c {
                '(' => {
                    // Flags are nothing that could be repeated: a repetition after them is of what was before.
                    if !self.group()? {
                        here.next(start);
                        outer.push(std::mem::take(&mut here));
                    }
                    continue;
                }
                ')' => {
                    let Some(above) = outer.pop() else { return refuse("unexpected )", self.text) };
                    let repeats = here.most();
                    here = Level { repeats, ..above };
                    self.chars.next();
                    self.out.push(')');
                }
                '|' => {
                    self.chars.next();
                    self.out.push('|');
                    here.next(start);
                    here.repeatable = false;
                    continue;
                }
                _ => {
                    here.next(start);
                    self.atom(c)?;
                }
            }
            (here.repeatable, here.end) = (true, self.out.len());
        }
        if outer.is_empty() { Ok(()) } else { refuse("missing closing )", self.text) }
    }

    fn atom(&mut self, c: char) -> Result<(), String> {
        match c {
            '[' => return self.class(),
            '\\' => return self.escaped(),
            '^' | '$' | '.' => self.out.push(c),
            _ => self.literal(c),
        }
        self.chars.next();
        Ok(())
    }

    /// Writes a repetition of the last thing, which flags may have come after.
    fn repeat(&mut self, here: &mut Level, op: &str) {
        if here.end < self.out.len() {
            let flags = self.out.split_off(here.end);
            self.out.insert_str(here.start, "(?:");
            self.out.push(')');
            self.out.push_str(op);
            here.end = self.out.len();
            self.out.push_str(&flags);
        } else {
            self.out.push_str(op);
            here.end = self.out.len();
        }
    }

    /// The length of a repetition that begins here, with its `?`.
    fn repetition(&mut self, c: char) -> Result<Option<Repetition>, String> {
        let rest = self.rest();
        let (length, times) = match c {
            '*' | '+' | '?' => (1, None),
            '{' => {
                let Some((inner, _)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) else { return Ok(None) };
                let (low, high) = inner.split_once(',').unwrap_or((inner, inner));
                let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) && (s.len() == 1 || !s.starts_with('0'));
                if !digits(low) || !(high.is_empty() || digits(high)) {
                    return Ok(None);
                }
                let number = |s: &str| s.parse::<u32>().unwrap_or(u32::MAX);
                let length = inner.len() + 2;
                if number(low) > REPEAT_MAX || (!high.is_empty() && (number(high) > REPEAT_MAX || number(high) < number(low))) {
                    return refuse("invalid repeat count", &rest[..length]);
                }
                (length, Some(number(if high.is_empty() { low } else { high })))
            }
            _ => return Ok(None),
        };
        Ok(Some(Repetition { length: length + usize::from(rest[length..].starts_with('?')), times }))
    }

    /// An opening parenthesis. True when it is a whole thing of its own: `(?i)`.
    fn group(&mut self) -> Result<bool, String> {
        let rest = self.rest();
        let Some(after) = rest.strip_prefix("(?") else {
            self.skip(1);
            self.out.push('(');
            return Ok(false);
        };
        if let Some(named) = after.strip_prefix("P<").or_else(|| after.strip_prefix('<')) {
            let name = named.split_once('>').map_or("", |(name, _)| name);
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                let end = rest.find('>').map_or(rest.len(), |end| end + 1);
                return refuse("invalid named capture", &rest[..end]);
            }
            // Names are of no use here, and Go lets them begin with digits.
            self.skip(rest.len() - named.len() + name.len() + 1);
            self.out.push('(');
            return Ok(false);
        }
        for (at, c) in after.char_indices() {
            match c {
                'i' | 'm' | 's' | 'U' | '-' => {}
                ':' | ')' => {
                    let length = 2 + at + 1;
                    let flags = &rest[..length];
                    if flags.ends_with("-)") || flags.ends_with("-:") || flags.matches('-').count() > 1 {
                        return refuse("invalid or unsupported Perl syntax", flags);
                    }
                    self.skip(length);
                    self.out.push_str(if flags == "(?)" { "(?:)" } else { flags });
                    return Ok(c == ')');
                }
                _ => return refuse("invalid or unsupported Perl syntax", &rest[..2 + at + c.len_utf8()]),
            }
        }
        refuse("missing closing )", self.text)
    }

    /// A backslash outside a class.
    fn escaped(&mut self) -> Result<(), String> {
        let rest = self.rest();
        if let Some(quoted) = rest.strip_prefix("\\Q") {
            let (inner, skipped) = quoted.split_once("\\E").map_or((quoted, rest.len()), |(inner, _)| (inner, inner.len() + 4));
            for c in inner.chars() {
                self.literal(c);
            }
            self.skip(skipped);
            return Ok(());
        }
        let plain = match rest.as_bytes().get(1) {
            Some(b'A') => "\\A",
            Some(b'z') => "\\z",
            Some(b'b') => "(?-u:\\b)",
            Some(b'B') => "(?-u:\\B)",
            _ => return self.class_escape(false),
        };
        self.out.push_str(plain);
        self.skip(2);
        Ok(())
    }

    /// `\d`, `\pL`, `\x41` and the like; `inside` a class.
    fn class_escape(&mut self, inside: bool) -> Result<(), String> {
        let rest = self.rest();
        let set = match rest.as_bytes().get(1) {
            Some(b'd') => (false, "0-9"),
            Some(b'D') => (true, "0-9"),
            Some(b'w') => (false, "0-9A-Za-z_"),
            Some(b'W') => (true, "0-9A-Za-z_"),
            Some(b's') => (false, "\\t\\n\\x0C\\r\\x20"),
            Some(b'S') => (true, "\\t\\n\\x0C\\r\\x20"),
            Some(b'p' | b'P') => return self.property(),
            _ => {
                let c = self.character()?;
                self.literal(c);
                return Ok(());
            }
        };
        self.skip(2);
        let _ = match (set, inside) {
            ((false, set), true) => write!(self.out, "{set}"),
            ((false, set), false) => write!(self.out, "[{set}]"),
            ((true, set), _) => write!(self.out, "[^{set}]"),
        };
        Ok(())
    }

    fn property(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let length =
            if rest[2..].starts_with('{') { rest.find('}').map(|end| end + 1) } else { rest[2..].chars().next().map(|c| 2 + c.len_utf8()) };
        let Some(length) = length else { return refuse("invalid character class range", rest) };
        let text = &rest[..length];
        let name = text[2..].trim_start_matches('{').trim_end_matches('}');
        let (negated, name) = name.strip_prefix('^').map_or((false, name), |name| (true, name));
        if !properties::is_known(name) {
            return refuse("invalid character class range", text);
        }
        let letter = if negated == rest.starts_with("\\P") { 'p' } else { 'P' };
        let _ = match (properties::is_empty(name), letter) {
            (false, _) => write!(self.out, "\\{letter}{{{name}}}"),
            (true, 'p') => write!(self.out, r"[^\x00-\x{{10FFFF}}]"),
            (true, _) => write!(self.out, r"[\x00-\x{{10FFFF}}]"),
        };
        self.skip(length);
        Ok(())
    }

    /// One escaped character, as itself.
    fn character(&mut self) -> Result<char, String> {
        let rest = self.rest();
        self.chars.next();
        let Some((_, c)) = self.chars.next() else {
            return Err("error parsing regexp: trailing backslash at end of expression: ``".to_owned());
        };
        let bad = |length: usize| refuse("invalid escape sequence", rest.get(..length).unwrap_or(rest));
        let octal = |s: &str| s.chars().take_while(|c| ('0'..='7').contains(c)).count();
        match c {
            'a' => Ok('\u{7}'),
            'f' => Ok('\u{c}'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'v' => Ok('\u{b}'),
            '0'..='7' => {
                let digits = octal(&rest[1..]).min(3);
                if c != '0' && digits < 2 {
                    return bad(2);
                }
                self.skip(digits - 1);
                u32::from_str_radix(&rest[1..=digits], 8).ok().and_then(char::from_u32).map_or_else(|| bad(2), Ok)
            }
            'x' => {
                let after = &rest[2..];
                let (hex, length) = match after.strip_prefix('{') {
                    Some(braced) => braced.split_once('}').map_or(("", 0), |(hex, _)| (hex, hex.len() + 2)),
                    None => (after.get(..2).unwrap_or(""), 2),
                };
                let value = u32::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+')).and_then(char::from_u32);
                self.skip(if value.is_some() { length } else { 0 });
                value.map_or_else(|| bad(2 + misread(after)), Ok)
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(c),
            c => bad(1 + c.len_utf8()),
        }
    }

    fn class(&mut self) -> Result<(), String> {
        let whole = self.rest();
        self.chars.next();
        self.out.push('[');
        if self.chars.next_if(|(_, c)| *c == '^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else { return refuse("missing closing ]", whole) };
            if c == ']' && !first {
                self.chars.next();
                self.out.push(']');
                return Ok(());
            }
            first = false;
            if let Some(end) = rest.strip_prefix("[:").and_then(|r| r.find(":]")) {
                let name = &rest[..end + 4];
                if !is_named_class(&name[2..name.len() - 2]) {
                    return refuse("invalid character class range", name);
                }
                self.out.push_str(name);
                self.skip(name.len());
                continue;
            }
            if c == '\\' && matches!(rest.as_bytes().get(1), Some(b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'p' | b'P')) {
                self.class_escape(true)?;
                continue;
            }
            self.range(whole, rest)?;
        }
    }

    /// One character of a class, or a range of them.
    fn range(&mut self, whole: &str, rest: &'a str) -> Result<(), String> {
        let low = self.one(whole)?;
        self.literal(low);
        let mut ahead = self.rest().chars();
        if ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']') {
            self.chars.next();
            let high = self.one(whole)?;
            if high < low {
                let length = rest.len() - self.rest().len();
                return refuse("invalid character class range", &rest[..length]);
            }
            self.out.push('-');
            self.literal(high);
        }
        Ok(())
    }

    fn one(&mut self, whole: &str) -> Result<char, String> {
        match self.chars.peek() {
            Some((_, '\\')) => self.character(),
            Some((_, c)) => {
                let c = *c;
                self.chars.next();
                Ok(c)
            }
            None => refuse("missing closing ]", whole),
        }
    }
}

/// How much of what follows `\x` Go reads before it gives up.
fn misread(after: &str) -> usize {
    let length = |text: &str, count: usize| text.chars().take(count).map(char::len_utf8).sum::<usize>();
    let Some(braced) = after.strip_prefix('{') else { return length(after, 2) };
    let mut value = 0_u32;
    for (at, c) in braced.char_indices() {
        value = c.to_digit(16).map_or(u32::MAX, |digit| value * 16 + digit);
        if value > u32::from(char::MAX) {
            return 1 + at + c.len_utf8();
        }
    }
    after.len()
}

/// Whether `[:name:]` is a class.
fn is_named_class(name: &str) -> bool {
    const NAMES: [&str; 14] =
        ["alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit"];
    NAMES.contains(&name.strip_prefix('^').unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_are_ascii_and_literals_are_literal() {
        for (pattern, text, wanted) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "\u{0661}", false),
            (r"^\w$", "\u{e9}", false),
            (r"^[^\W\d]+$", "ab_", true),
            (r"^[\w.-]+$", "a-b.c", true),
            ("^[[&&x]+$", "[&x", true),
            ("^[a~~-]+$", "a~-", true),
            ("^[]a]+$", "]a", true),
            ("^a{,3}$", "a{,3}", true),
            ("^a{2}$", "aa", true),
            ("^{$", "{", true),
            (r"^\Qa.b\E+$", "a.bb", true),
            (r"^\Qa.b", "axb", false),
            (r"^\x41\x{42}\103$", "ABC", true),
            (r"(?i)^\pL+$", "\u{e9}A", true),
            ("^(?P<1a>x)(?<b>y)$", "xy", true),
            ("(?:a|b)c", "xbc", true),
            (r"^[[:alpha:]\-_]+$", "a-_", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^<a>$", "<a>", true),
            (r"^\s$", "\u{b}", false),
            ("a.c", "a\nc", false),
            (r"^[a\]b]+$", "]", true),
            (r"^\p{^Lu}$", "a", true),
            (r"^\P{^Lu}$", "a", false),
            (r"^\p{Letter}\p{old italic}$", "a\u{10300}", true),
            (r"\p{Cs}", "a", false),
            (r"^\P{Cs}$", "a", true),
            (r"^\Ba", "\u{e9}a", false),
            (r"\B", "\u{e9}", true),
            (r"^a(?i)*B$", "aab", true),
            (r"^a*(?i)?B$", "aab", true),
            (r"^(?:a{2}){3}(?:b{1000}|c)$", "aaaaaac", true),
        ] {
            assert_eq!(compile(pattern).map(|r| r.is_match(text)), Ok(wanted), "{pattern} {text}");
        }
    }

    #[test]
    fn refusals_are_in_gos_words() {
        for (pattern, wanted) in [
            ("(", "missing closing ): `(`"),
            ("a)", "unexpected ): `a)`"),
            ("[a", "missing closing ]: `[a`"),
            ("x[", "missing closing ]: `[`"),
            ("*", "missing argument to repetition operator: `*`"),
            ("a|*", "missing argument to repetition operator: `*`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            (r"(a)\1", r"invalid escape sequence: `\1`"),
            ("a\\", "trailing backslash at end of expression: ``"),
            ("[z-a]", "invalid character class range: `z-a`"),
            (r"\p{Nope}", r"invalid character class range: `\p{Nope}`"),
            (r"\p{Alphabetic}(", r"invalid character class range: `\p{Alphabetic}`"),
            (r"\p{sc=Greek}", r"invalid character class range: `\p{sc=Greek}`"),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
            ("(?:a{30}){40}?", "invalid repeat count: `{40}?`"),
            ("((a{100}){100}){100}", "invalid repeat count: `{100}`"),
            ("(?i)*", "missing argument to repetition operator: `*`"),
            (r"\x{2,3}", r"invalid escape sequence: `\x{2,`"),
            (r"\x{110000}", r"invalid escape sequence: `\x{110000`"),
            (r"\xfg1", r"invalid escape sequence: `\xfg`"),
        ] {
            assert_eq!(compile(pattern).map(|_| ()).unwrap_err(), format!("error parsing regexp: {wanted}"), "{pattern}");
            assert_eq!(check(pattern).unwrap_err(), format!("error parsing regexp: {wanted}"), "{pattern}");
        }
        assert!(check(r"\PL{1000}").is_ok());
        assert!(compile(r"\PL{1000}").unwrap_err().contains("too large"));
    }

    proptest! {
        #[test]
        fn anything_may_come(text in r"[\[\](){}?*+|\\^$.a-zA-Z0-9,:<>=!&~-]{0,24}") {
            let _ = compile_within(&text, 1 << 16);
        }

        #[test]
        fn plain_text_matches_itself(text in "[a-zA-Z0-9 _/@\u{e9}-]{0,16}") {
            let regex = compile(&format!("^{text}$")).unwrap();
            prop_assert!(regex.is_match(&text));
        }
    }
}

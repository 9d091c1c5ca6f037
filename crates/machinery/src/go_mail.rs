//! Addresses as Go's `net/mail.ParseAddress` reads them: RFC 5322 with a few liberties, groups of one member included. Called by
//! the `email` format of schemas, which asks only whether there is an address.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Why it is none does not matter to anyone.
struct Refused;

type Parsed<T> = Result<T, Refused>;

/// Whether a text is one address, alone or with a name: `a@b`, `A B <a@b>`, `a@b (A B)`, `group: a@b;`.
pub fn is_address(text: &str) -> bool {
    let mut parser = Parser { rest: text };
    parser.addresses(true).is_ok_and(|count| count == 1) && parser.skip_comments().is_ok() && parser.rest.is_empty()
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// Spaces and comments.
    fn skip_comments(&mut self) -> Parsed<()> {
        self.skip_space();
        while self.take('(') {
            self.comment()?;
            self.skip_space();
        }
        Ok(())
    }

    /// After its opening parenthesis.
    fn comment(&mut self) -> Parsed<&'t str> {
        let whole = self.rest;
        let mut depth = 1_usize;
        let mut chars = whole.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => drop(chars.next()),
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.rest = &whole[at + 1..];
                return Ok(&whole[..at]);
            }
        }
        Err(Refused)
    }

    /// How many addresses there are.
    fn addresses(&mut self, groups: bool) -> Parsed<usize> {
        self.skip_space();
        if self.rest.is_empty() {
            return Err(Refused);
        }
        let start = self.rest;
        if self.bare().is_ok() {
            self.skip_space();
            if self.take('(') {
                for word in self.comment()?.split([' ', '\t']) {
                    decodable(word)?;
                }
            }
            return Ok(1);
        }
        self.rest = start;
        if self.peek() != Some('<') {
            self.phrase()?;
        }
        self.skip_space();
        if groups && self.take(':') {
            return self.group();
        }
        if !self.take('<') {
            return Err(Refused);
        }
        self.bare()?;
        if self.take('>') { Ok(1) } else { Err(Refused) }
    }

    fn group(&mut self) -> Parsed<usize> {
        self.skip_space();
        if self.take(';') {
            // What follows is judged by the caller.
            drop(self.skip_comments());
            return Ok(0);
        }
        let mut count = 0;
        loop {
            count += self.addresses(false)?;
            self.skip_comments()?;
            if self.take(';') {
                drop(self.skip_comments());
                return Ok(count);
            }
            if !self.take(',') {
                return Err(Refused);
            }
        }
    }

    /// `local@domain`
    fn bare(&mut self) -> Parsed<()> {
        self.skip_space();
        if self.peek() == Some('"') {
            if self.quoted()? == 0 {
                return Err(Refused);
            }
        } else {
            dotted(self.atom()?)?;
        }
        if !self.take('@') {
            return Err(Refused);
        }
        self.skip_space();
        if self.take('[') {
            let (literal, rest) = self.rest.split_once(']').ok_or(Refused)?;
            self.rest = rest;
            let address = literal.parse::<Ipv4Addr>().is_ok() || literal.parse::<Ipv6Addr>().is_ok();
            return if address { Ok(()) } else { Err(Refused) };
        }
        dotted(self.atom()?)
    }

    /// One word at least; what is no word ends it.
    fn phrase(&mut self) -> Parsed<()> {
        let mut words = 0_usize;
        loop {
            if words > 0 {
                self.skip_comments()?;
            }
            self.skip_space();
            if self.rest.is_empty() {
                return Ok(());
            }
            let word = if self.peek() == Some('"') { self.quoted().map(drop) } else { self.atom().and_then(decodable) };
            match word {
                Ok(()) => words += 1,
                Err(refused) if words == 0 => return Err(refused),
                Err(_) => return Ok(()),
            }
        }
    }

    /// How many characters stand between quotes.
    fn quoted(&mut self) -> Parsed<usize> {
        let (mut escaped, mut count) = (false, 0);
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                _ if escaped => {
                    if !is_visible(c) && !is_space(c) {
                        return Err(Refused);
                    }
                    escaped = false;
                    count += 1;
                }
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(count);
                }
                '\\' => escaped = true,
                c if is_visible(c) || is_space(c) => count += 1,
                _ => return Err(Refused),
            }
        }
        Err(Refused)
    }

    /// Atoms with dots anywhere.
    fn atom(&mut self) -> Parsed<&'t str> {
        let end = self.rest.find(|c: char| !is_visible(c) || "()<>[]:;@\\,\"".contains(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(Refused);
        }
        let (atom, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(atom)
    }
}

/// No dot begins or ends it or follows another.
fn dotted(atom: &str) -> Parsed<()> {
    if atom.split('.').any(str::is_empty) { Err(Refused) } else { Ok(()) }
}

fn is_visible(c: char) -> bool {
    ('!'..='~').contains(&c) || !c.is_ascii()
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// A word encoded as RFC 2047 has it must be of a character set that is known; what only looks like one stands for itself.
fn decodable(word: &str) -> Parsed<()> {
    let Some(inner) = word.strip_prefix("=?").and_then(|w| w.strip_suffix("?=")).filter(|_| word.len() >= 8) else { return Ok(()) };
    let parts: Vec<&str> = inner.split('?').collect();
    let [charset, encoding, text] = parts.as_slice() else { return Ok(()) };
    let decodes = match *encoding {
        "b" | "B" => STANDARD.decode(text).is_ok(),
        "q" | "Q" => text.split('=').enumerate().all(|(i, part)| {
            let hex = i == 0 || (part.len() >= 2 && part.bytes().take(2).all(|b| b.is_ascii_hexdigit()));
            hex && part.chars().all(|c| (' '..='~').contains(&c) || matches!(c, '\n' | '\r' | '\t'))
        }),
        _ => false,
    };
    let known = ["utf-8", "iso-8859-1", "us-ascii"].iter().any(|known| known.eq_ignore_ascii_case(charset));
    if !charset.is_empty() && decodes && !known { Err(Refused) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::is_address;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_taken_or_refused_as_go_does() {
        for text in [
            "jdoe@machine.example",
            "a@b",
            "john.q.public@example.com",
            "\"John (middle) Doe\" <jdoe@machine.example>",
            "John (middle) Doe <jdoe@machine.example>",
            "\"Joe Q. Public\" <john.q.public@example.com>",
            "Mary Smith <mary@x.test>",
            "<boss@nil.test>",
            "=?iso-8859-1?q?J=F6rg_Doe?= <joerg@example.com>",
            "=?utf-8?q?J=C3=B6rg_Doe?= <joerg@example.com>",
            "=?US-ASCII?B?YQ==?= <a@b>",
            "=?bogus?q?=zz?= <a@b>",
            "Asem H. <noreply@example.com>",
            "\"Gø Pher\" <gopher@example.com>",
            "µ <micro@example.com>",
            "Micro@µ.example.com",
            "\" \"@example.com",
            "\"\\\\\"@example.com",
            "\"john..doe\"@example.com",
            "mary@x.test (Mary Smith)",
            "mary@x.test(c)(d (e) \\) f)",
            "group1: groupaddr1@example.com;",
            "jdoe#blah@example.com",
            "\t a@b \t",
            "jdoe@[192.168.0.1]",
            "jdoe@[2001:db8::1]",
            "John Doe <jdoe@[192.168.0.1]>",
            "a@ b",
            "name. with .dots <a@b>",
            "a@-b-",
            "a@b_c",
        ] {
            assert!(is_address(text), "{text}");
        }
        for text in [
            "",
            " ",
            "a",
            "a@",
            "@b",
            "a@b@c",
            "a b@c",
            "a @b",
            "a@b c",
            "a@b, c@d",
            "john.doe",
            "Full Name",
            "=?foo?q?test?= <a@b>",
            "\"\"@b",
            "\"a@b",
            ".a@b",
            "a.@b",
            "a..b@c",
            "a@b.",
            "a@.b",
            "a@b..c",
            "<a@b",
            "a@b>",
            "a@b <a@b>",
            "<a@b> c",
            "g:;",
            "g: a@b, c@d;",
            "g: h: a@b;;",
            "g: a@b",
            "a@b (c",
            "a(c)@b",
            "a@[b]",
            "a@[1.2.3.4",
            "a@[IPv6:::1]",
            "a@[fe80::1%eth0]",
            "cfws@example.com (",
            "a\n@b",
            "a@b\n",
            "John Doe@foo.bar",
            "(c) a@b",
            "a;b@c",
            "a,b <a@b>",
        ] {
            assert!(!is_address(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_may_come(text in any::<String>(), part in "[a-z@.<>()\"\\\\ :;,?=\\[\\]]{0,30}") {
            let _ = (is_address(&text), is_address(&part));
        }
    }
}

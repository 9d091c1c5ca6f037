//! Tokens of an expression. Called by the parser.

use crate::source::Source;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    /// A property in backquotes, after a dot.
    Quoted(String),
    Int(String),
    Uint(String),
    Float(String),
    String {
        raw: bool,
        body: String,
    },
    Bytes {
        raw: bool,
        body: String,
    },
    Op(&'static str),
    End,
}

pub(crate) struct Lexed {
    pub token: Token,
    /// In code points.
    pub at: usize,
    /// As written.
    pub text: String,
}

const OPERATORS: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*", "/", "%", "=", "&",
    "|",
];

/// All tokens, the last one being `End`. What is no token is reported and skipped.
pub(crate) fn lex(source: &mut Source<'_>) -> Vec<Lexed> {
    let chars: Vec<char> = source.text().chars().collect();
    let mut lexer = Lexer { chars, at: 0 };
    let mut out = Vec::new();
    while let Some(c) = lexer.peek(0) {
        if matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}') {
            lexer.at += 1;
        } else if c == '/' && lexer.peek(1) == Some('/') {
            while lexer.peek(0).is_some_and(|c| c != '\n') {
                lexer.at += 1;
            }
        } else {
            let start = lexer.at;
            match lexer.token(c) {
                Some(token) => out.push(Lexed { token, at: start, text: lexer.text(start) }),
                None => {
                    let end = lexer.at.max(start + 1);
                    lexer.at = end;
                    let text = lexer.text(start);
                    source.report(start, format!("Syntax error: token recognition error at: '{text}'"));
                }
            }
        }
    }
    out.push(Lexed { token: Token::End, at: lexer.at, text: "<EOF>".to_owned() });
    out
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn text(&self, start: usize) -> String {
        self.chars[start..self.at].iter().collect()
    }

    fn token(&mut self, c: char) -> Option<Token> {
        if let Some(token) = self.quoted(c) {
            return token;
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.at += 1;
            }
            return Some(Token::Ident(self.text(start)));
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|d| d.is_ascii_digit())) {
            return Some(self.number());
        }
        if c == '`' {
            let len = self.chars[self.at + 1..].iter().position(|c| *c == '`')?;
            let body: String = self.chars[self.at + 1..self.at + 1 + len].iter().collect();
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' ');
            if body.is_empty() || !body.chars().all(fits) {
                return None;
            }
            self.at += len + 2;
            return Some(Token::Quoted(body));
        }
        let operator = OPERATORS.iter().find(|op| op.chars().enumerate().all(|(i, o)| self.peek(i) == Some(o)))?;
        if matches!(*operator, "=" | "&" | "|") {
            // The generated lexer takes the next character into the error.
            self.at = (self.at + 2).min(self.chars.len());
            return None;
        }
        self.at += operator.len();
        Some(Token::Op(operator))
    }

    fn number(&mut self) -> Token {
        let start = self.at;
        let digits = |lexer: &mut Self, hex: bool| {
            while lexer.peek(0).is_some_and(|c| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() }) {
                lexer.at += 1;
            }
        };
        let hex = self.peek(0) == Some('0') && self.peek(1) == Some('x') && self.peek(2).is_some_and(|c| c.is_ascii_hexdigit());
        let mut float = false;
        if hex {
            self.at += 2;
            digits(self, true);
        } else {
            digits(self, false);
            if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
                float = true;
                self.at += 1;
                digits(self, false);
            }
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if matches!(self.peek(0), Some('e' | 'E')) && self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                float = true;
                self.at += 1 + sign;
                digits(self, false);
            }
        }
        let text = self.text(start);
        if float {
            return Token::Float(text);
        }
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return Token::Uint(text);
        }
        Token::Int(text)
    }

    /// `Some(None)` is a literal without an end.
    fn quoted(&mut self, c: char) -> Option<Option<Token>> {
        let (mut bytes, mut raw, mut skip) = (false, false, 0);
        for ahead in 0..2 {
            match self.peek(ahead) {
                Some('b' | 'B') if !bytes && !raw => bytes = true,
                Some('r' | 'R') if !raw => raw = true,
                _ => break,
            }
            skip = ahead + 1;
        }
        let quote = if skip == 0 { Some(c) } else { self.peek(skip) }.filter(|q| matches!(q, '"' | '\''))?;
        let start = self.at;
        self.at += skip;
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let open = if triple { 3 } else { 1 };
        self.at += open;
        let body_start = self.at;
        while let Some(c) = self.peek(0) {
            if c == quote && (!triple || (self.peek(1) == Some(quote) && self.peek(2) == Some(quote))) {
                let body = self.text(body_start);
                self.at += open;
                return Some(Some(if bytes { Token::Bytes { raw, body } } else { Token::String { raw, body } }));
            }
            if !triple && matches!(c, '\n' | '\r') {
                break;
            }
            self.at += if c == '\\' && !raw { 2 } else { 1 };
        }
        self.at = self.at.min(self.chars.len());
        if self.at == start {
            self.at += 1;
        }
        Some(None)
    }
}

//! The grammar of label selectors in text: `a=b,c in (d,e),!f,g>1`. A scanner and a recursive descent after upstream's, so
//! that every error reads as upstream's does.

use super::{Operator, Requirement, Selector};
use crate::field::{self, Error, Path, aggregate};
use crate::names;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

const SPECIAL: &[u8] = b"=!(),><";

fn special(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "(" => Token::Open,
        _ => return None,
    })
}

/// Splits the text into tokens; the literal of [`Token::Error`] is a message.
fn scan(text: &str) -> Vec<(Token, String)> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let b = bytes[at];
        if matches!(b, b' ' | b'\t' | b'\r' | b'\n') {
            at += 1;
        } else if b == 0 {
            break;
        } else if SPECIAL.contains(&b) {
            let two = bytes.get(at + 1).filter(|n| SPECIAL.contains(n)).and_then(|_| special(&text[at..at + 2]));
            let len = if two.is_some() { 2 } else { 1 };
            let literal = &text[at..at + len];
            out.push(match special(literal) {
                Some(token) => (token, literal.to_owned()),
                None => (Token::Error, format!("error expected: keyword found '{literal}'")),
            });
            at += len;
        } else {
            let len = bytes[at..].iter().take_while(|b| !SPECIAL.contains(b) && !matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0)).count();
            let literal = &text[at..at + len];
            let token = match literal {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Identifier,
            };
            out.push((token, literal.to_owned()));
            at += len;
        }
    }
    out
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

/// Parses a selector. The error is the message of upstream's 400.
pub fn parse(text: &str) -> Result<Selector, String> {
    let mut parser = Parser { tokens: scan(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        let (token, literal) = parser.look_value();
        match token {
            Token::Identifier | Token::Not => {
                requirements.push(parser.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
                match parser.take_value() {
                    (Token::End, _) => break,
                    (Token::Comma, _) => {
                        let (next, literal) = parser.look_value();
                        if !matches!(next, Token::Identifier | Token::Not) {
                            return Err(format!("found '{literal}', expected: identifier after ','"));
                        }
                    }
                    (_, literal) => return Err(format!("found '{literal}', expected: ',' or 'end of string'")),
                }
            }
            Token::End => break,
            _ => return Err(format!("found '{literal}', expected: !, identifier, or 'end of string'")),
        }
    }
    Ok(Selector::from_requirements(requirements))
}

impl Parser {
    fn look(&self) -> (Token, String) {
        self.tokens.get(self.at).cloned().unwrap_or((Token::End, String::new()))
    }

    fn take(&mut self) -> (Token, String) {
        let token = self.look();
        self.at += 1;
        token
    }

    /// Where a value may stand, `in` and `notin` are plain words.
    fn look_value(&self) -> (Token, String) {
        let (token, literal) = self.look();
        (if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token }, literal)
    }

    fn take_value(&mut self) -> (Token, String) {
        let token = self.look_value();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.take_value();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take_value();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let problems = names::qualified_name(&key);
        if !problems.is_empty() {
            return Err(format!("<nil>: Invalid value: {}: {}", field::go_quote(&key), problems.join("; ")));
        }
        if negated {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() });
        }
        if matches!(self.look_value().0, Token::End | Token::Comma) {
            return Ok(Requirement { key, operator: Operator::Exists, values: Vec::new() });
        }
        let operator = self.operator()?;
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        values.sort();
        values.dedup();
        check(&key, operator, &values)?;
        Ok(Requirement { key, operator, values })
    }

    fn operator(&mut self) -> Result<Operator, String> {
        Ok(match self.take() {
            (Token::In, _) => Operator::In,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::Greater, _) => Operator::GreaterThan,
            (Token::Less, _) => Operator::LessThan,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::NotEquals, _) => Operator::NotEquals,
            (_, literal) => return Err(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let (token, literal) = self.take_value();
        if token != Token::Open {
            return Err(format!("found '{literal}' expected: '('"));
        }
        let (token, literal) = self.look_value();
        match token {
            Token::Identifier | Token::Comma => {
                let values = self.identifiers()?;
                match self.take_value().0 {
                    Token::Close => Ok(values),
                    _ => Err(format!("found '{literal}', expected: ')'")),
                }
            }
            Token::Close => {
                self.at += 1;
                // As upstream reads it: one empty value.
                Ok(vec![String::new()])
            }
            _ => Err(format!("found '{literal}', expected: ',', ')' or identifier")),
        }
    }

    /// `a,b,,c`: empty places count as the empty value.
    fn identifiers(&mut self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        loop {
            match self.take_value() {
                (Token::Identifier, literal) => {
                    values.push(literal);
                    match self.look_value() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.look_value().0 {
                        Token::Close => {
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.at += 1;
                            values.push(String::new());
                        }
                        _ => {}
                    }
                }
                (_, literal) => return Err(format!("found '{literal}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.look_value().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.take_value() {
            (Token::Identifier, literal) => Ok(literal),
            (_, literal) => Err(format!("found '{literal}', expected: identifier")),
        }
    }
}

/// The values a requirement may have (`NewRequirement`).
fn check(key: &str, operator: Operator, values: &[String]) -> Result<(), String> {
    let path = Path::new("values");
    let mut errors = Vec::new();
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            errors.push(Error::invalid(&path, &serde_json::json!([]), "for 'in', 'notin' operators, values set can't be empty"));
        }
        Operator::GreaterThan | Operator::LessThan => {
            for (i, value) in values.iter().enumerate() {
                if value.parse::<i64>().is_err() {
                    errors.push(Error::invalid_str(&path.index(i), value, "for 'Gt', 'Lt' operators, the value must be an integer"));
                }
            }
        }
        _ => {}
    }
    for (i, value) in values.iter().enumerate() {
        let problems = names::label_value(value);
        if !problems.is_empty() {
            errors.push(Error::invalid_str(&path.index(i).key(key), value, problems.join("; ")));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(aggregate(&errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match() {
        let labels = json!({"a": "1", "b": "x", "e": ""});
        for (text, matches) in [
            ("", true),
            ("a", true),
            ("!a", false),
            ("z", false),
            ("!z", true),
            ("a=1", true),
            ("a==1", true),
            ("a!=1", false),
            ("z!=1", true),
            ("e=", true),
            ("e=,a=1", true),
            ("a in (1,2)", true),
            ("a notin (1,2)", false),
            ("z notin (1)", true),
            ("e in (,x)", true),
            ("e in (x,)", true),
            ("a>0", true),
            ("a<1", false),
            ("b>0", false),
            ("in in (in)", false),
            ("a = 1 , b in ( x , y )", true),
        ] {
            assert_eq!(parse(text).unwrap().matches(&labels), matches, "{text}");
        }
    }

    #[test]
    fn errors_read_as_upstreams() {
        for (text, error) in [
            ("n in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("odd in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("n=a,", "found '', expected: identifier after ','"),
            (",", "found ',', expected: !, identifier, or 'end of string'"),
            ("odd gt 0", "unable to parse requirement: found 'gt', expected: in, notin, =, ==, !=, gt, lt"),
            ("n=a=b", "found '=', expected: ',' or 'end of string'"),
            ("n=bad value", "found 'value', expected: ',' or 'end of string'"),
            ("n in in", "unable to parse requirement: found 'in' expected: '('"),
            ("n=(a)", "unable to parse requirement: found '(', expected: identifier"),
            ("!n=a", "found '=', expected: ',' or 'end of string'"),
            (
                "odd>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
        assert!(
            parse("n=-bad")
                .unwrap_err()
                .starts_with("unable to parse requirement: values[0][n]: Invalid value: \"-bad\": a valid label must")
        );
        assert!(
            parse("a/b/c=d").unwrap_err().starts_with("unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key")
        );
    }

    proptest::proptest! {
        #[test]
        fn text_round_trips(text in "[a-c!=<>(), in]{0,24}") {
            if let Ok(selector) = parse(&text) {
                proptest::prop_assert_eq!(parse(&selector.to_string()).unwrap(), selector);
            }
        }

        #[test]
        fn any_text_is_safe(text in "\\PC{0,40}") {
            drop(parse(&text));
        }
    }
}

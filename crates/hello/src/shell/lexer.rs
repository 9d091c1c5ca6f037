//! Text to tokens. Words keep their quotes; `run` expands them.

/// An operator, or a word with the place in the text where it starts and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Word(String),
    /// `;` `&` `&&` `||` `|` `(` `)` `<` `>` `>>` and a newline as `\n`. A redirection carries its descriptor in front: `2>`.
    Operator(String),
}

/// `None`: a quote or substitution is still open.
pub fn tokens(text: &str) -> Option<Vec<Token>> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let start = i;
        match bytes[i] {
            b' ' | b'\t' | b'\r' => i += 1,
            b'#' => i = text[i..].find('\n').map_or(bytes.len(), |n| i + n),
            b'\\' if bytes.get(i + 1) == Some(&b'\n') => i += 2,
            _ => {
                let operator = operator(&text[i..]);
                if let Some(found) = operator {
                    i += found.len();
                    out.push(Token { kind: Kind::Operator(found.to_owned()), start, end: i });
                } else {
                    i = word_end(bytes, i)?;
                    out.push(Token { kind: Kind::Word(text[start..i].to_owned()), start, end: i });
                }
            }
        }
    }
    Some(out)
}

const OPERATORS: [&str; 16] = ["2>&1", ">&2", "1>&2", "2>>", "2>", "1>", "&&", "||", ">>", ";", "&", "|", "(", ")", "<", ">"];

fn operator(text: &str) -> Option<&'static str> {
    if text.starts_with('\n') {
        return Some("\n");
    }
    OPERATORS.into_iter().find(|o| text.starts_with(o))
}

fn word_end(bytes: &[u8], mut i: usize) -> Option<usize> {
    while i < bytes.len() {
        match bytes[i] {
            b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'(' | b')' | b'<' | b'>' => break,
            b'\\' => i += 2,
            b'\'' => i += 2 + bytes.get(i + 1..)?.iter().position(|b| *b == b'\'')?,
            b'"' => i = double_end(bytes, i + 1)?,
            b'$' if bytes.get(i + 1) == Some(&b'(') => i = paren_end(bytes, i + 2)?,
            b'$' if bytes.get(i + 1) == Some(&b'{') => i += 2 + bytes.get(i + 1..)?.iter().position(|b| *b == b'}')?,
            _ => i += 1,
        }
    }
    Some(i.min(bytes.len()))
}

fn double_end(bytes: &[u8], mut i: usize) -> Option<usize> {
    loop {
        match bytes.get(i)? {
            b'"' => return Some(i + 1),
            b'\\' => i += 2,
            b'$' if bytes.get(i + 1) == Some(&b'(') => i = paren_end(bytes, i + 2)?,
            _ => i += 1,
        }
    }
}

/// The end of `$( ... )`, from behind its opening.
pub fn paren_end(bytes: &[u8], mut i: usize) -> Option<usize> {
    let mut depth = 1;
    loop {
        match bytes.get(i)? {
            b'(' => depth += 1,
            b')' => {
                depth -= 1;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            b'\'' => i += 1 + bytes.get(i + 1..)?.iter().position(|b| *b == b'\'')?,
            b'\\' => i += 1,
            _ => {}
        }
        i += 1;
    }
}

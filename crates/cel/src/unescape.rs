//! Escapes in string and bytes literals.

/// The text of a string literal's body; why not otherwise.
pub(crate) fn string(body: &str, raw: bool) -> Result<String, &'static str> {
    let mut out = String::with_capacity(body.len());
    walk(body, raw, false, |unit| match unit {
        Unit::Char(c) => out.push(c),
        Unit::Byte(b) => out.push(char::from(b)),
    })?;
    Ok(out)
}

/// The bytes of a bytes literal's body.
pub(crate) fn bytes(body: &str, raw: bool) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(body.len());
    walk(body, raw, true, |unit| match unit {
        Unit::Char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        Unit::Byte(b) => out.push(b),
    })?;
    Ok(out)
}

enum Unit {
    Char(char),
    Byte(u8),
}

fn walk(body: &str, raw: bool, bytes: bool, mut push: impl FnMut(Unit)) -> Result<(), &'static str> {
    let text = body.replace("\r\n", "\n").replace('\r', "\n");
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if raw || c != '\\' {
            push(Unit::Char(c));
            continue;
        }
        let escape = chars.next().ok_or("unable to unescape string, found '\\' as last character")?;
        let simple = match escape {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' | '?' => escape,
            'x' | 'X' | 'u' | 'U' => {
                let count = match escape {
                    'u' => 4,
                    'U' => 8,
                    _ => 2,
                };
                if bytes && count > 2 {
                    return Err("unable to unescape string");
                }
                let digits: String = chars.by_ref().take(count).collect();
                let valid = digits.len() == count && digits.chars().all(|c| c.is_ascii_hexdigit());
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| valid).ok_or("unable to unescape string")?;
                push(unit(code, bytes)?);
                continue;
            }
            '0'..='3' => {
                let digits: String = std::iter::once(escape).chain(chars.by_ref().take(2)).collect();
                let valid = digits.len() == 3 && digits.chars().all(|c| c.is_digit(8));
                let code = u32::from_str_radix(&digits, 8).ok().filter(|_| valid).ok_or("unable to unescape octal sequence in string")?;
                push(unit(code, bytes)?);
                continue;
            }
            _ => return Err("unable to unescape string"),
        };
        push(Unit::Char(simple));
    }
    Ok(())
}

fn unit(code: u32, bytes: bool) -> Result<Unit, &'static str> {
    match u8::try_from(code) {
        Ok(byte) if bytes => Ok(Unit::Byte(byte)),
        _ => char::from_u32(code).map(Unit::Char).ok_or("invalid unicode code point"),
    }
}

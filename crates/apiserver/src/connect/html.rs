//! Links of a page, led back through a proxy (upstream's `proxyutil.Transport`): the attributes of tags that hold addresses.
//! Nothing else of the page is touched. Called by `proxy`.

/// Which attributes of which tags hold addresses.
const ADDRESSES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// What is in these is no markup, up to their end tag.
const RAW: &[&str] = &["iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"];

/// Where an attribute's name and value are.
struct Attribute {
    name: std::ops::Range<usize>,
    value: std::ops::Range<usize>,
    quoted: bool,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

fn find(page: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    page.get(from..).and_then(|rest| rest.iter().position(|b| wanted(*b))).map_or(page.len(), |at| from + at)
}

/// The page with every address led through `lead`, which says nothing of those that stay.
pub fn rewrite(page: &[u8], lead: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 8);
    let (mut written, mut at) = (0, 0);
    loop {
        let open = find(page, at, |b| b == b'<');
        let Some(next) = page.get(open + 1) else { break };
        if page[open..].starts_with(b"<!--") {
            at = after(page, open + 4, b"-->");
            continue;
        }
        if !next.is_ascii_alphabetic() {
            // An end tag, a declaration, or a sign alone.
            at = if matches!(next, b'/' | b'!' | b'?') { find(page, open, |b| b == b'>') } else { open + 1 };
            continue;
        }
        let name_end = find(page, open + 1, |b| is_blank(b) || matches!(b, b'/' | b'>'));
        let name = String::from_utf8_lossy(&page[open + 1..name_end]).to_ascii_lowercase();
        let (attributes, end) = attributes(page, name_end);
        let addresses = ADDRESSES.iter().find(|(tag, _)| *tag == name).map_or(&[][..], |(_, names)| names);
        for attribute in attributes {
            let key = String::from_utf8_lossy(&page[attribute.name]).to_ascii_lowercase();
            let Ok(value) = std::str::from_utf8(&page[attribute.value.clone()]) else { continue };
            if let Some(led) = addresses.contains(&key.as_str()).then(|| lead(&plain(value))).flatten() {
                out.extend_from_slice(&page[written..attribute.value.start]);
                let quote = if attribute.quoted { "" } else { "\"" };
                out.extend_from_slice(format!("{quote}{}{quote}", escaped(&led)).as_bytes());
                written = attribute.value.end;
            }
        }
        at = if RAW.contains(&name.as_str()) { raw_end(page, end, &name) } else { end };
    }
    out.extend_from_slice(&page[written..]);
    out
}

fn after(page: &[u8], from: usize, end: &[u8]) -> usize {
    let found = page.get(from..).and_then(|rest| rest.windows(end.len()).position(|w| w == end));
    found.map_or(page.len(), |at| from + at + end.len())
}

/// Where the end tag of a raw element begins.
fn raw_end(page: &[u8], from: usize, name: &str) -> usize {
    let mut at = from;
    loop {
        at = find(page, at, |b| b == b'<');
        let Some(rest) = page.get(at + 2..) else { return page.len() };
        let ends = page[at + 1] == b'/' && rest.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes()));
        if ends && rest.get(name.len()).is_none_or(|b| is_blank(*b) || matches!(b, b'/' | b'>')) {
            return at;
        }
        at += 1;
    }
}

/// The attributes of a tag, and where it ends.
fn attributes(page: &[u8], from: usize) -> (Vec<Attribute>, usize) {
    let (mut all, mut at) = (Vec::new(), from);
    loop {
        at = find(page, at, |b| !is_blank(b) && b != b'/');
        if at >= page.len() || page[at] == b'>' {
            return (all, (at + 1).min(page.len()));
        }
        let name = at..find(page, at + 1, |b| is_blank(b) || matches!(b, b'/' | b'>' | b'='));
        at = name.end;
        let equals = find(page, at, |b| !is_blank(b));
        if page.get(equals) != Some(&b'=') {
            continue;
        }
        let start = find(page, equals + 1, |b| !is_blank(b));
        let (value, quoted) = match page.get(start) {
            Some(quote @ (b'"' | b'\'')) => (start + 1..find(page, start + 1, |b| b == *quote), true),
            _ => (start..find(page, start, |b| is_blank(b) || b == b'>'), false),
        };
        at = (value.end + usize::from(quoted)).min(page.len());
        all.push(Attribute { name, value, quoted });
    }
}

/// A value without its escapes; those of letters stay as they are.
fn plain(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(';').filter(|end| *end <= 10);
        let read = end.and_then(|end| Some((escape(&rest[1..end])?, end + 1)));
        let (letter, length) = read.unwrap_or(('&', 1));
        out.push(letter);
        rest = &rest[length..];
    }
    out + rest
}

fn escape(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('\'', "&#39;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(page: &str) -> String {
        let lead = |url: &str| url.starts_with('/').then(|| format!("/p{url}"));
        String::from_utf8(rewrite(page.as_bytes(), lead)).unwrap()
    }

    #[test]
    fn addresses_are_led_and_nothing_else_changes() {
        for (page, want) in [
            ("<a href=\"/x?a=1&amp;b=2\">/x</a>", "<a href=\"/p/x?a=1&amp;b=2\">/x</a>"),
            ("<A HREF = '/x' class=c>", "<A HREF = '/p/x' class=c>"),
            ("<img src=/x/ alt=\"<a href='/y'>\">", "<img src=\"/p/x/\" alt=\"<a href='/y'>\">"),
            ("<img\n src=\"/i\"\tlongdesc=\"/l\"/>", "<img\n src=\"/p/i\"\tlongdesc=\"/p/l\"/>"),
            (
                "<script src=\"/s\">let a = '<a href=\"/x\">';</script><a href=\"/y\">",
                "<script src=\"/p/s\">let a = '<a href=\"/x\">';</script><a href=\"/p/y\">",
            ),
            ("<!-- <a href=\"/x\"> --><p href=\"/x\"><a href=\"rel\">", "<!-- <a href=\"/x\"> --><p href=\"/x\"><a href=\"rel\">"),
            ("<!DOCTYPE html><form action=\"/f&#39;\">1 < 2", "<!DOCTYPE html><form action=\"/p/f&#39;\">1 < 2"),
        ] {
            assert_eq!(led(page), want);
        }
    }

    #[test]
    fn broken_pages_stay_what_they_are() {
        for page in [
            "<",
            "<a",
            "<a href",
            "<a href=",
            "<a href=\"/x",
            "<!--",
            "<script>",
            "</",
            "<a href='x",
            "&#x;<a href=\"&#99999999;\">",
            "<title></titl",
        ] {
            let out = led(page);
            assert!(out.len() >= page.len() && out.starts_with(&page[..1]), "{page}: {out}");
        }
        assert_eq!(led("<a href=\"/x"), "<a href=\"/p/x");
    }
}

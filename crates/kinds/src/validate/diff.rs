//! The unified diff that upstream puts into "pod updates may not change fields other than": of indented JSON, line by line.

/// Indents compact JSON by one space a level.
pub fn indent(json: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    let mut chars = json.chars().peekable();
    let new_line = |out: &mut Vec<String>, depth: usize| out.push(" ".repeat(depth));
    while let Some(c) = chars.next() {
        let push = |out: &mut Vec<String>, c: char| {
            if let Some(line) = out.last_mut() {
                line.push(c);
            }
        };
        if in_text {
            push(&mut out, c);
            in_text = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                in_text = true;
                push(&mut out, c);
            }
            '{' | '[' => {
                push(&mut out, c);
                if matches!(chars.peek(), Some('}' | ']')) {
                    if let Some(close) = chars.next() {
                        push(&mut out, close);
                    }
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                push(&mut out, c);
            }
            ',' => {
                push(&mut out, c);
                new_line(&mut out, depth);
            }
            ':' => {
                push(&mut out, c);
                push(&mut out, ' ');
            }
            c => push(&mut out, c),
        }
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Keep(usize, usize),
    Remove(usize),
    Add(usize),
}

/// The longest common subsequence, found on the part between equal heads and tails.
fn edits(a: &[String], b: &[String]) -> Vec<Edit> {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| x == y).count();
    let (ma, mb) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    let mut out: Vec<Edit> = (0..head).map(|i| Edit::Keep(i, i)).collect();
    // Bounded work: middles too large to compare are replaced whole.
    if ma.len().saturating_mul(mb.len()) > 4_000_000 {
        out.extend((0..ma.len()).map(|i| Edit::Remove(head + i)));
        out.extend((0..mb.len()).map(|j| Edit::Add(head + j)));
    } else {
        let width = mb.len() + 1;
        let mut table = vec![0u32; (ma.len() + 1) * width];
        for i in (0..ma.len()).rev() {
            for j in (0..mb.len()).rev() {
                table[i * width + j] = if ma[i] == mb[j] {
                    table[(i + 1) * width + j + 1] + 1
                } else {
                    table[(i + 1) * width + j].max(table[i * width + j + 1])
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < ma.len() || j < mb.len() {
            if i < ma.len() && j < mb.len() && ma[i] == mb[j] {
                out.push(Edit::Keep(head + i, head + j));
                i += 1;
                j += 1;
            } else if i < ma.len() && (j >= mb.len() || table[(i + 1) * width + j] >= table[i * width + j + 1]) {
                out.push(Edit::Remove(head + i));
                i += 1;
            } else {
                out.push(Edit::Add(head + j));
                j += 1;
            }
        }
    }
    out.extend((0..tail).map(|k| Edit::Keep(a.len() - tail + k, b.len() - tail + k)));
    out
}

/// `@@ -1,4 +1,4 @@` and three lines around each change.
pub fn unified(a: &[String], b: &[String]) -> String {
    const CONTEXT: usize = 3;
    let edits = edits(a, b);
    let changed: Vec<usize> = edits.iter().enumerate().filter(|(_, e)| !matches!(e, Edit::Keep(..))).map(|(i, _)| i).collect();
    let mut out = String::new();
    let mut at = 0;
    while at < changed.len() {
        let mut end = at;
        while end + 1 < changed.len() && changed[end + 1] - changed[end] <= 2 * CONTEXT {
            end += 1;
        }
        let from = changed[at].saturating_sub(CONTEXT);
        let to = (changed[end] + CONTEXT + 1).min(edits.len());
        hunk(&edits, from, to, a, b, &mut out);
        at = end + 1;
    }
    out
}

fn hunk(edits: &[Edit], from: usize, to: usize, a: &[String], b: &[String], out: &mut String) {
    use std::fmt::Write as _;
    let before = |wanted: fn(&Edit) -> bool, range: std::ops::Range<usize>| edits[range].iter().filter(|e| wanted(e)).count();
    let in_a = |e: &Edit| !matches!(e, Edit::Add(_));
    let in_b = |e: &Edit| !matches!(e, Edit::Remove(_));
    let (a0, b0) = (before(in_a, 0..from), before(in_b, 0..from));
    let (an, bn) = (before(in_a, from..to), before(in_b, from..to));
    let _ = writeln!(out, "@@ -{},{an} +{},{bn} @@", a0 + 1, b0 + 1);
    for edit in &edits[from..to] {
        let (sign, line) = match *edit {
            Edit::Keep(i, _) => (' ', &a[i]),
            Edit::Remove(i) => ('-', &a[i]),
            Edit::Add(j) => ('+', &b[j]),
        };
        let _ = writeln!(out, "{sign}{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diffs_read_as_diff_u_writes_them() {
        let a = indent("{\"a\":1,\"b\":[],\"c\":\"x,{\"}");
        let b = indent("{\"a\":2,\"b\":[],\"c\":\"x,{\"}");
        assert_eq!(unified(&a, &b), "@@ -1,5 +1,5 @@\n {\n- \"a\": 1,\n+ \"a\": 2,\n  \"b\": [],\n  \"c\": \"x,{\"\n }\n");
    }
}

//! The unified diff that upstream puts into "pod updates may not change fields other than": of indented JSON,
//! line by line, found as Python's `difflib` finds it.

use std::collections::HashMap;
use std::fmt::Write as _;

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

/// A run of lines: `a[i1..i2]` became `b[j1..j2]`.
#[derive(Clone, Copy)]
struct Step {
    equal: bool,
    a: (usize, usize),
    b: (usize, usize),
}

/// Where each line of `b` stands. In long texts lines that come often are no anchors, as in Python's `difflib`.
fn anchors(b: &[String]) -> HashMap<&str, Vec<usize>> {
    const LONG: usize = 200;
    let mut out: HashMap<&str, Vec<usize>> = HashMap::new();
    for (j, line) in b.iter().enumerate() {
        out.entry(line).or_default().push(j);
    }
    if b.len() >= LONG {
        let often = b.len() / 100 + 1;
        out.retain(|_, at| at.len() <= often);
    }
    out
}

type Block = (usize, usize, usize);

/// The longest run both have within the bounds, and the earliest of those.
fn longest(a: &[String], b: &[String], at: &HashMap<&str, Vec<usize>>, (alo, ahi): (usize, usize), (blo, bhi): (usize, usize)) -> Block {
    let (mut i0, mut j0, mut size) = (alo, blo, 0);
    let mut before: HashMap<usize, usize> = HashMap::new();
    for (i, line) in a.iter().enumerate().take(ahi).skip(alo) {
        let mut now: HashMap<usize, usize> = HashMap::new();
        for &j in at.get(line.as_str()).into_iter().flatten().filter(|j| (blo..bhi).contains(*j)) {
            let k = j.checked_sub(1).and_then(|j| before.get(&j)).copied().unwrap_or(0) + 1;
            now.insert(j, k);
            if k > size {
                (i0, j0, size) = (i + 1 - k, j + 1 - k, k);
            }
        }
        before = now;
    }
    while i0 > alo && j0 > blo && a[i0 - 1] == b[j0 - 1] {
        (i0, j0, size) = (i0 - 1, j0 - 1, size + 1);
    }
    while i0 + size < ahi && j0 + size < bhi && a[i0 + size] == b[j0 + size] {
        size += 1;
    }
    (i0, j0, size)
}

/// Ratcliff and Obershelp's way, as `difflib` goes it: the longest run first, then what is left and right of it.
fn steps(a: &[String], b: &[String]) -> Vec<Step> {
    // Bounded work: texts too large to compare are replaced whole.
    const WORK_MAX: usize = 25_000_000;
    let mut blocks: Vec<Block> = Vec::new();
    if a.len().saturating_mul(b.len()) <= WORK_MAX {
        let at = anchors(b);
        let mut queue = vec![((0, a.len()), (0, b.len()))];
        while let Some((ra, rb)) = queue.pop() {
            let (i, j, size) = longest(a, b, &at, ra, rb);
            if size > 0 {
                blocks.push((i, j, size));
                queue.push(((ra.0, i), (rb.0, j)));
                queue.push(((i + size, ra.1), (j + size, rb.1)));
            }
        }
    }
    blocks.sort_unstable();
    blocks.push((a.len(), b.len(), 0));
    let (mut out, mut i, mut j): (Vec<Step>, usize, usize) = (Vec::new(), 0, 0);
    for (bi, bj, size) in blocks {
        if i < bi || j < bj {
            out.push(Step { equal: false, a: (i, bi), b: (j, bj) });
        }
        (i, j) = (bi + size, bj + size);
        match out.last_mut().filter(|last| last.equal && size > 0) {
            Some(last) => (last.a.1, last.b.1) = (i, j),
            None if size > 0 => out.push(Step { equal: true, a: (bi, i), b: (bj, j) }),
            None => {}
        }
    }
    out
}

/// `@@ -1,4 +1,4 @@` and three lines around each change.
pub fn unified(a: &[String], b: &[String]) -> String {
    const CONTEXT: usize = 3;
    let mut all = steps(a, b);
    if let Some(first) = all.first_mut().filter(|s| s.equal) {
        (first.a.0, first.b.0) = (first.a.1.saturating_sub(CONTEXT).max(first.a.0), first.b.1.saturating_sub(CONTEXT).max(first.b.0));
    }
    if let Some(last) = all.last_mut().filter(|s| s.equal) {
        (last.a.1, last.b.1) = (last.a.1.min(last.a.0 + CONTEXT), last.b.1.min(last.b.0 + CONTEXT));
    }
    let mut out = String::new();
    let mut group: Vec<Step> = Vec::new();
    for mut step in all {
        if step.equal && step.a.1 - step.a.0 > 2 * CONTEXT {
            group.push(Step { equal: true, a: (step.a.0, step.a.0 + CONTEXT), b: (step.b.0, step.b.0 + CONTEXT) });
            hunk(&std::mem::take(&mut group), a, b, &mut out);
            (step.a.0, step.b.0) = (step.a.1 - CONTEXT, step.b.1 - CONTEXT);
        }
        group.push(step);
    }
    hunk(&group, a, b, &mut out);
    out
}

fn hunk(group: &[Step], a: &[String], b: &[String], out: &mut String) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
    if group.iter().all(|s| s.equal) {
        return;
    }
    let range = |from: usize, to: usize| match to - from {
        1 => (from + 1).to_string(),
        0 => format!("{from},0"),
        n => format!("{},{n}", from + 1),
    };
    let _ = writeln!(out, "@@ -{} +{} @@", range(first.a.0, last.a.1), range(first.b.0, last.b.1));
    for step in group {
        let sign = if step.equal { ' ' } else { '-' };
        for line in &a[step.a.0..step.a.1] {
            let _ = writeln!(out, "{sign}{line}");
        }
        if !step.equal {
            for line in &b[step.b.0..step.b.1] {
                let _ = writeln!(out, "+{line}");
            }
        }
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

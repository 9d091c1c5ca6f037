//! The text of an expression, and problems found in it, shown as cel-go shows them: with the line and a caret.

use crate::error::CompileError;

/// Problems beyond these are counted, not shown.
const SHOWN_MAX: usize = 100;
/// Longer lines are not shown.
const SNIPPET_MAX: usize = 16_384;

pub(crate) struct Source<'t> {
    text: &'t str,
    /// Offset of each line's first character, in code points.
    lines: Vec<usize>,
    problems: Vec<(usize, String)>,
}

impl<'t> Source<'t> {
    pub fn new(text: &'t str) -> Self {
        let starts = text.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(i, _)| i + 1);
        Self { text, lines: std::iter::once(0).chain(starts).collect(), problems: Vec::new() }
    }

    pub fn text(&self) -> &'t str {
        self.text
    }

    pub fn report(&mut self, at: usize, message: impl Into<String>) {
        self.problems.push((at, message.into()));
    }

    pub fn failed(&self) -> bool {
        !self.problems.is_empty()
    }

    pub fn error(mut self) -> CompileError {
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort_by_key(|(at, _)| *at);
        let more = problems.len().saturating_sub(SHOWN_MAX);
        let mut shown: Vec<String> = problems.iter().take(SHOWN_MAX).map(|(at, message)| self.show(*at, message)).collect();
        if more > 0 {
            shown.push(format!("{more} more errors were truncated"));
        }
        CompileError { issues: shown.join("\n") }
    }

    fn show(&self, at: usize, message: &str) -> String {
        if self.text.is_empty() {
            return format!("ERROR: <input>:1:0: {message}");
        }
        let line = self.lines.partition_point(|start| *start <= at).saturating_sub(1);
        let column = at - self.lines[line];
        let head = format!("ERROR: <input>:{}:{}: {message}", line + 1, column + 1);
        let Some(snippet) = self.text.split('\n').nth(line).filter(|s| s.len() <= SNIPPET_MAX) else { return head };
        let mut chars = snippet.chars();
        let dots: String = chars.by_ref().take(column).map(|c| if c.len_utf8() > 1 { '．' } else { '.' }).collect();
        let caret = if chars.next().is_some_and(|c| c.len_utf8() > 1) { '＾' } else { '^' };
        format!("{head}\n | {}\n | {dots}{caret}", snippet.replace('\t', " "))
    }
}

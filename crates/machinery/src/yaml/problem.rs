//! What is wrong with a YAML text, in the words and with the line that upstream's parser (a translation of libyaml) would give:
//! it counts lines from the start of the collection that could not be finished, and leaves out the first line. `read` calls it.

use granit_parser::{ErrorKind, ScanError};

use super::read::YamlError;

/// A collection that was begun before the error.
pub(super) struct Collection {
    /// Counted from 1.
    pub line: usize,
    pub flow: bool,
    pub map: bool,
}

pub(super) fn of(text: &str, error: &ScanError, open: &[Collection]) -> YamlError {
    if matches!(error.kind(), ErrorKind::UnknownAnchor) {
        return YamlError::yaml(format!("unknown anchor '{}' referenced", anchor_at(text, error)));
    }
    let unfinished = matches!(
        error.kind(),
        ErrorKind::UnclosedFlowCollection { .. } | ErrorKind::UnexpectedEofFlowSequence | ErrorKind::UnexpectedEofFlowMapping
    );
    let at_end = unfinished || error.marker().index() >= text.trim_end().chars().count();
    let (problem, by_parser) = problem(text, error, open, at_end);
    // What the parser misses at the end it misses on a line of its own.
    let here = match error.kind() {
        _ if at_end && by_parser => text.lines().count(),
        // It is told where the text before the tab begins.
        ErrorKind::TabInPlainScalar => error.marker().line(),
        _ => error.marker().line().saturating_sub(1),
    };
    let context = open.last().filter(|_| by_parser && names_context(&problem)).map_or(0, |c| c.line.saturating_sub(1));
    let line = if context > 0 { context } else { here };
    // Those of the scanner count from 1.
    let shown = line + usize::from(line > 0 && !by_parser);
    YamlError::yaml(if shown > 0 { format!("line {shown}: {problem}") } else { problem })
}

/// Problems that are told of the collection they are in.
fn names_context(problem: &str) -> bool {
    problem != "did not find expected node content" && problem != "did not find expected <document start>"
}

/// The words, and whether the parser says them or the scanner below it.
fn problem(text: &str, error: &ScanError, open: &[Collection], at_end: bool) -> (String, bool) {
    let parser = |text: &str| (text.to_owned(), true);
    let scanner = |text: &str| (text.to_owned(), false);
    let in_map = match error.kind() {
        ErrorKind::UnclosedFlowCollection { open } => *open == '{',
        _ => open.last().is_some_and(|c| c.map),
    };
    let unfinished = || match text.trim_end().chars().last() {
        Some('[' | '{' | ',' | ':') | None => parser("did not find expected node content"),
        _ if in_map => parser("did not find expected ',' or '}'"),
        _ => parser("did not find expected ',' or ']'"),
    };
    match error.kind() {
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::UnexpectedEof => unfinished(),
        ErrorKind::ExpectedFlowSequenceSeparator | ErrorKind::ExpectedFlowMappingSeparator if at_end => unfinished(),
        ErrorKind::ExpectedFlowSequenceSeparator => parser("did not find expected ',' or ']'"),
        ErrorKind::ExpectedFlowMappingSeparator => parser("did not find expected ',' or '}'"),
        ErrorKind::MismatchedFlowCollectionEnd { .. } => match open.last() {
            Some(c) if c.flow && c.map => parser("did not find expected ',' or '}'"),
            _ => parser("did not find expected ',' or ']'"),
        },
        ErrorKind::MisplacedFlowCollectionEnd | ErrorKind::ExpectedNodeContent => parser("did not find expected node content"),
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::UnexpectedEofBlockMapping | ErrorKind::InvalidIndentation => {
            parser("did not find expected key")
        }
        ErrorKind::ExpectedBlockSequenceEntry | ErrorKind::UnexpectedEofBlockSequence => parser("did not find expected '-' indicator"),
        ErrorKind::ExpectedDocumentStart | ErrorKind::InvalidDocumentEnd => parser("did not find expected <document start>"),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => scanner("could not find expected ':'"),
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::UnexpectedCharacter { .. } => scanner("found character that cannot start any token"),
        ErrorKind::TabInPlainScalar => scanner("found a tab character that violates indentation"),
        ErrorKind::UnclosedQuotedScalar => scanner("found unexpected end of stream"),
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => parser("did not find expected key"),
        ErrorKind::BlockSequenceEntryNotAllowed | ErrorKind::BlockEntryInFlowCollection => {
            scanner("block sequence entries are not allowed in this context")
        }
        ErrorKind::RecursionLimitExceeded => scanner("exceeded max depth"),
        _ => {
            let info = error.info();
            let words = info.split_once(", ").filter(|(context, _)| context.starts_with("while ")).map_or(info.as_str(), |(_, rest)| rest);
            scanner(words)
        }
    }
}

fn anchor_at(text: &str, error: &ScanError) -> String {
    let rest: String = text.chars().skip(error.marker().index()).take(200).collect();
    let name = rest.trim_start_matches('*').split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-')).next();
    name.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn problems_have_upstreams_words_and_lines() {
        for (text, want) in [
            ("x: [", "line 1: did not find expected node content"),
            ("a: [b", "line 1: did not find expected ',' or ']'"),
            ("{\"apiVersion\":", "line 1: did not find expected node content"),
            ("{a: b", "line 1: did not find expected ',' or '}'"),
            ("a: b: c", "mapping values are not allowed in this context"),
            ("x: 1\na: b: c", "line 2: mapping values are not allowed in this context"),
            ("x: 1\ny: *z", "unknown anchor 'z' referenced"),
            ("a:\n\tb: 2", "line 2: found character that cannot start any token"),
            ("a: 1\n\tb: 2", "line 2: found a tab character that violates indentation"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("error converting YAML to JSON: yaml: {want}"), "{text}");
        }
    }
}

//! Tokens to a tree.

use super::lexer::{Kind, Token, tokens};

pub type List = Vec<Item>;

/// A pipeline and what joins it to the one before.
#[derive(Clone, Debug)]
pub struct Item {
    pub join: Join,
    pub negate: bool,
    pub commands: Vec<Command>,
    pub background: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    Then,
    And,
    Or,
}

#[derive(Clone, Debug)]
pub struct Command {
    pub body: Body,
    pub redirects: Vec<(String, String)>,
    /// As written, for a child shell.
    pub source: String,
}

#[derive(Clone, Debug)]
pub enum Body {
    Simple(Vec<String>),
    If(Vec<(List, List)>, List),
    While { until: bool, test: List, body: List },
    For { name: String, words: Vec<String>, body: List },
    Group(List),
}

pub enum Parse {
    Done(List),
    /// More text may complete it.
    Incomplete,
    Error(String),
}

pub fn parse(text: &str) -> Parse {
    let Some(tokens) = tokens(text) else { return Parse::Incomplete };
    let mut parser = Parser { text, tokens, at: 0 };
    match parser.list(&[]) {
        Ok(list) if parser.at == parser.tokens.len() => Parse::Done(list),
        Ok(_) => Parse::Error(format!("syntax error near {:?}", parser.shown())),
        Err(Stop::End) => Parse::Incomplete,
        Err(Stop::Bad(why)) => Parse::Error(why),
    }
}

enum Stop {
    End,
    Bad(String),
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl Parser<'_> {
    fn shown(&self) -> &str {
        self.tokens.get(self.at).map_or("", |t| &self.text[t.start..t.end])
    }

    fn operator(&self) -> Option<&str> {
        match &self.tokens.get(self.at)?.kind {
            Kind::Operator(o) => Some(o),
            Kind::Word(_) => None,
        }
    }

    fn word(&self) -> Option<&str> {
        match &self.tokens.get(self.at)?.kind {
            Kind::Word(w) => Some(w),
            Kind::Operator(_) => None,
        }
    }

    fn skip_newlines(&mut self) {
        while matches!(self.operator(), Some("\n" | ";")) {
            self.at += 1;
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), Stop> {
        self.skip_newlines();
        match self.tokens.get(self.at) {
            None => Err(Stop::End),
            Some(_) if self.word() == Some(word) => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(Stop::Bad(format!("syntax error near {:?}: expected {word}", self.shown()))),
        }
    }

    /// Pipelines up to one of `ends`, which is left standing.
    fn list(&mut self, ends: &[&str]) -> Result<List, Stop> {
        let mut out = List::new();
        let mut join = Join::Then;
        loop {
            self.skip_newlines();
            let ended = self.word().is_some_and(|w| ends.contains(&w)) || self.operator().is_some_and(|o| o == ")");
            if ended || self.at == self.tokens.len() {
                if join != Join::Then || !ends.is_empty() && !ended {
                    return Err(Stop::End);
                }
                return Ok(out);
            }
            let mut item = self.pipeline(join)?;
            join = Join::Then;
            match self.operator() {
                Some("&&") => join = Join::And,
                Some("||") => join = Join::Or,
                Some("&") => item.background = true,
                Some(";" | "\n" | ")") | None => {}
                Some(other) => return Err(Stop::Bad(format!("syntax error near {other:?}"))),
            }
            if self.operator().is_some_and(|o| o != ")") {
                self.at += 1;
            }
            out.push(item);
        }
    }

    fn pipeline(&mut self, join: Join) -> Result<Item, Stop> {
        let negate = self.word() == Some("!");
        self.at += usize::from(negate);
        let mut commands = vec![self.command()?];
        while self.operator() == Some("|") {
            self.at += 1;
            while self.operator() == Some("\n") {
                self.at += 1;
            }
            commands.push(self.command()?);
        }
        Ok(Item { join, negate, commands, background: false })
    }

    fn command(&mut self) -> Result<Command, Stop> {
        let start = self.tokens.get(self.at).ok_or(Stop::End)?.start;
        let mut redirects = Vec::new();
        let body = match self.word() {
            Some("if") => self.conditional()?,
            Some("while") => self.repeat(false)?,
            Some("until") => self.repeat(true)?,
            Some("for") => self.each()?,
            Some("{") => {
                self.at += 1;
                let list = self.list(&["}"])?;
                self.expect("}")?;
                Body::Group(list)
            }
            None if self.operator() == Some("(") => {
                self.at += 1;
                let list = self.list(&[])?;
                if self.operator() != Some(")") {
                    return Err(Stop::End);
                }
                self.at += 1;
                Body::Group(list)
            }
            _ => Body::Simple(self.words(&mut redirects)?),
        };
        while let Some(redirect) = self.redirect()? {
            redirects.push(redirect);
        }
        let end = self.tokens[self.at - 1].end;
        Ok(Command { body, redirects, source: self.text[start..end].to_owned() })
    }

    fn words(&mut self, redirects: &mut Vec<(String, String)>) -> Result<Vec<String>, Stop> {
        let mut words = Vec::new();
        loop {
            if let Some(word) = self.word() {
                words.push(word.to_owned());
                self.at += 1;
            } else if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
            } else if words.is_empty() && redirects.is_empty() {
                return Err(Stop::Bad(format!("syntax error near {:?}", self.shown())));
            } else {
                return Ok(words);
            }
        }
    }

    fn redirect(&mut self) -> Result<Option<(String, String)>, Stop> {
        let Some(operator) = self.operator().filter(|o| o.contains(['<', '>'])).map(str::to_owned) else { return Ok(None) };
        self.at += 1;
        if operator.contains('&') {
            return Ok(Some((operator, String::new())));
        }
        let target = self.word().ok_or(Stop::End)?.to_owned();
        self.at += 1;
        Ok(Some((operator, target)))
    }

    fn conditional(&mut self) -> Result<Body, Stop> {
        let mut arms = Vec::new();
        loop {
            self.at += 1;
            let test = self.list(&["then"])?;
            self.expect("then")?;
            arms.push((test, self.list(&["elif", "else", "fi"])?));
            match self.word() {
                Some("elif") => {}
                Some("else") => {
                    self.at += 1;
                    let otherwise = self.list(&["fi"])?;
                    self.expect("fi")?;
                    return Ok(Body::If(arms, otherwise));
                }
                _ => {
                    self.expect("fi")?;
                    return Ok(Body::If(arms, List::new()));
                }
            }
        }
    }

    fn body(&mut self) -> Result<List, Stop> {
        self.expect("do")?;
        let body = self.list(&["done"])?;
        self.expect("done")?;
        Ok(body)
    }

    fn repeat(&mut self, until: bool) -> Result<Body, Stop> {
        self.at += 1;
        let test = self.list(&["do"])?;
        Ok(Body::While { until, test, body: self.body()? })
    }

    fn each(&mut self) -> Result<Body, Stop> {
        self.at += 1;
        let name = self.word().ok_or(Stop::End)?.to_owned();
        self.at += 1;
        let mut words = vec!["$@".to_owned()];
        if self.word() == Some("in") {
            self.at += 1;
            words.clear();
            while let Some(word) = self.word() {
                words.push(word.to_owned());
                self.at += 1;
            }
        }
        Ok(Body::For { name, words, body: self.body()? })
    }
}

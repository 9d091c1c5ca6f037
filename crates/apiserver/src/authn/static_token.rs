//! `--token-auth-file`: lines of `token,user,uid,"group1,group2"`, read once at the start.

use std::path::Path;

use auth::{User, bootstrap_token::same};

use crate::error::{Error, Result};

pub struct Tokens(Vec<(String, User)>);

impl Tokens {
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::File { doing: "read", path: path.to_owned(), source })?;
        parse(&text).map_err(|why| Error::Damaged { path: path.to_owned(), why })
    }

    /// Every token is compared, each in the same time.
    pub fn user(&self, token: &str) -> Option<User> {
        let mut found = None;
        for (known, user) in &self.0 {
            if same(known.as_bytes(), token.as_bytes()) {
                found = Some(user.clone());
            }
        }
        found
    }
}

fn parse(text: &str) -> Result<Tokens, String> {
    let mut tokens: Vec<(String, User)> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let fields = fields(line).ok_or_else(|| format!("line {}: a quote is not closed", number + 1))?;
        let [token, name, uid, rest @ ..] = fields.as_slice() else {
            return Err(format!("line {}: a token, a user name and a user uid are needed", number + 1));
        };
        if token.is_empty() {
            continue;
        }
        let groups = rest.first().map_or("", String::as_str);
        let groups: Vec<&str> = groups.split(',').filter(|g| !g.is_empty()).collect();
        let mut user = User::new(name.clone(), &groups);
        user.uid.clone_from(uid);
        // A later line wins.
        tokens.retain(|(t, _)| t != token);
        tokens.push((token.clone(), user));
    }
    Ok(Tokens(tokens))
}

/// The fields of a CSV line; `""` in quotes is a quote.
fn fields(line: &str) -> Option<Vec<String>> {
    let (mut out, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.trim_end_matches('\r').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut field)),
            ' ' if !quoted && field.is_empty() => {}
            c => field.push(c),
        }
    }
    out.push(field);
    (!quoted).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_users() {
        let tokens = parse("t1,alice,1\nt2,bob,2,\"a,b\"\n\nt3, carol,3,a\r\n").unwrap();
        assert_eq!(tokens.user("t1").unwrap().groups, ["system:authenticated"]);
        let bob = tokens.user("t2").unwrap();
        assert_eq!((bob.name.as_str(), bob.uid.as_str()), ("bob", "2"));
        assert_eq!(bob.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(tokens.user("t3").unwrap().name, "carol");
        assert!(tokens.user("t").is_none() && tokens.user("").is_none());
        assert!(parse("t,u").is_err() && parse("t,u,1,\"a").is_err());
    }
}

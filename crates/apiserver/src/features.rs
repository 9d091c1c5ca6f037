//! Feature gates by upstream's names: which there are, which are on, and what `--feature-gates` may say. Most of them gate
//! code that lies in other components or is always on here; whoever depends on one asks [`Gates::enabled`].

use std::collections::BTreeMap;

use crate::error::Error;

/// One gate as upstream v1.36 has it.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// `ALPHA`, `BETA`, `GA` or `DEPRECATED`.
    pub stage: &'static str,
    pub default: bool,
    /// Nobody may change it.
    pub locked: bool,
}

/// What was set, over the defaults.
#[derive(Clone, Debug, Default)]
pub struct Gates(BTreeMap<&'static str, bool>);

fn find(name: &str) -> Option<(&'static str, Gate)> {
    all().find(|(known, _)| *known == name)
}

impl Gates {
    /// Reads `A=true,B=false`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut set = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let bad = |why: String| Error::Config(format!("--feature-gates: {why}"));
            let (name, value) = pair.split_once('=').ok_or_else(|| bad(format!("missing bool value for {pair}")))?;
            let (name, value) = (name.trim(), value.trim());
            let on = match value.to_ascii_lowercase().as_str() {
                "true" | "t" | "1" => true,
                "false" | "f" | "0" => false,
                _ => {
                    return Err(bad(format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")));
                }
            };
            let (name, gate) = find(name).ok_or_else(|| bad(format!("unrecognized feature gate: {name}")))?;
            if gate.locked && on != gate.default {
                return Err(bad(format!("cannot set feature gate {name} to {on}, feature is locked to {}", gate.default)));
            }
            set.insert(name, on);
        }
        Ok(Self(set))
    }

    pub fn enabled(&self, name: &str) -> bool {
        let Some((name, gate)) = find(name) else { return false };
        let group = match gate.stage {
            "ALPHA" => "AllAlpha",
            "BETA" => "AllBeta",
            _ => "",
        };
        self.0.get(name).or_else(|| self.0.get(group).filter(|_| name != group)).copied().unwrap_or(gate.default)
    }

    /// Those that were set, as they are written on a command line.
    pub fn text(&self) -> String {
        self.0.iter().map(|(name, on)| format!("{name}={on}")).collect::<Vec<_>>().join(",")
    }
}

/// All gates, by name.
pub fn all() -> impl Iterator<Item = (&'static str, Gate)> {
    TABLE.lines().filter_map(|row| {
        let mut parts = row.split_whitespace();
        let (name, stage) = (parts.next()?, parts.next()?);
        let (default, locked) = (parts.next() == Some("on"), parts.next() == Some("locked"));
        Some((name, Gate { stage, default, locked }))
    })
}

/// Name, stage, default, and whether it is locked to that.
const TABLE: &str = include_str!("features.tsv");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_set_as_upstream_sets_them() {
        let gates = Gates::parse("AllAlpha=true, APIServerIdentity=false").unwrap();
        let on = |name: &str| gates.enabled(name);
        assert!(on("APIServingWithRoutine") && !on("APIServerIdentity") && on("APIResponseCompression") && !on("NoSuchThing"));
        let refused = |text: &str| Gates::parse(text).unwrap_err().to_string();
        assert!(refused("NoSuchThing=true").ends_with("unrecognized feature gate: NoSuchThing"));
        assert!(
            refused("APIServerTracing=false").ends_with("cannot set feature gate APIServerTracing to false, feature is locked to true")
        );
        assert!(refused("AllAlpha").ends_with("missing bool value for AllAlpha"));
        assert!(all().count() > 200);
    }
}

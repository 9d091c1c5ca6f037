//! The operations that turn one table into another, in an order the kernel accepts as one transaction: what is referred
//! to is made first and removed last. Elements are added and removed one by one, never a whole map.

use std::collections::BTreeMap;

use super::{Base, Chain, Field, Key, Rule, Set, Table, Value};

/// One operation of a transaction on a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make the table empty, whether or not it exists.
    ResetTable,
    AddSet {
        name: String,
        set: Set,
    },
    AddChain {
        name: String,
        base: Option<Base>,
    },
    /// Remove all rules of a chain.
    FlushChain {
        name: String,
    },
    AddRule {
        chain: String,
        rule: Rule,
    },
    DeleteElements {
        set: String,
        elements: BTreeMap<Key, Value>,
    },
    AddElements {
        set: String,
        elements: BTreeMap<Key, Value>,
    },
    DeleteChain {
        name: String,
    },
    DeleteSet {
        name: String,
    },
}

/// A transaction: all of it happens, or nothing. The shapes of sets are carried for the encoder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub ops: Vec<Op>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// The whole table anew, whatever there was.
pub fn create(table: &Table) -> Batch {
    let mut ops = vec![Op::ResetTable];
    ops.extend(changes(&Table::new(table.family, table.name.clone()), table));
    Batch { ops }
}

/// From `old`, which the kernel has, to `new`. Both must have the same name and family.
pub fn diff(old: &Table, new: &Table) -> Batch {
    let reshaped = new.sets.iter().any(|(name, set)| old.sets.get(name).is_some_and(|o| !o.same_shape(set)))
        || new.chains.iter().any(|(name, chain)| old.chains.get(name).is_some_and(|o| o.base != chain.base));
    if reshaped { create(new) } else { Batch { ops: changes(old, new) } }
}

fn changes(old: &Table, new: &Table) -> Vec<Op> {
    let mut ops = Vec::new();
    for (name, set) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
        ops.push(Op::AddSet { name: name.clone(), set: Set { elements: BTreeMap::new(), ..set.clone() } });
    }
    for (name, chain) in new.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
        ops.push(Op::AddChain { name: name.clone(), base: chain.base.clone() });
    }
    for (name, chain) in &old.chains {
        let keeps = new.chains.get(name).is_some_and(|c| c.rules == chain.rules);
        if !keeps && !chain.rules.is_empty() {
            ops.push(Op::FlushChain { name: name.clone() });
        }
    }
    for (name, chain) in &new.chains {
        if old.chains.get(name).is_some_and(|c| c.rules == chain.rules) {
            continue;
        }
        ops.extend(chain.rules.iter().map(|rule| Op::AddRule { chain: name.clone(), rule: rule.clone() }));
    }
    let mut additions = Vec::new();
    let nothing = BTreeMap::new();
    for (name, set) in &new.sets {
        let before = old.sets.get(name).map_or(&nothing, |s| &s.elements);
        let (gone, added) = element_changes(before, &set.elements);
        if !gone.is_empty() {
            ops.push(Op::DeleteElements { set: name.clone(), elements: gone });
        }
        if !added.is_empty() {
            additions.push(Op::AddElements { set: name.clone(), elements: added });
        }
    }
    for (name, set) in old.sets.iter().filter(|(name, _)| !new.sets.contains_key(*name)) {
        if !set.elements.is_empty() {
            ops.push(Op::DeleteElements { set: name.clone(), elements: set.elements.clone() });
        }
    }
    ops.extend(additions);
    let dropped = old.chains.keys().filter(|name| !new.chains.contains_key(*name));
    ops.extend(dropped.map(|name| Op::DeleteChain { name: name.clone() }));
    let dropped = old.sets.keys().filter(|name| !new.sets.contains_key(*name));
    ops.extend(dropped.map(|name| Op::DeleteSet { name: name.clone() }));
    ops
}

type Elements = BTreeMap<Key, Value>;

/// What to remove and what to add. A changed value is both.
fn element_changes(old: &Elements, new: &Elements) -> (Elements, Elements) {
    let mut gone = Elements::new();
    let mut added = Elements::new();
    let mut olds = old.iter().peekable();
    let mut news = new.iter().peekable();
    let copy = |(k, v): (&Vec<Field>, &Value)| (k.clone(), v.clone());
    loop {
        match (olds.peek(), news.peek()) {
            (None, None) => return (gone, added),
            (Some(_), None) => gone.extend(olds.next().map(copy)),
            (None, Some(_)) => added.extend(news.next().map(copy)),
            (Some((a, va)), Some((b, vb))) => match a.cmp(b) {
                std::cmp::Ordering::Less => gone.extend(olds.next().map(copy)),
                std::cmp::Ordering::Greater => added.extend(news.next().map(copy)),
                std::cmp::Ordering::Equal => {
                    let changed = va != vb;
                    let (was, is) = (olds.next(), news.next());
                    if changed {
                        gone.extend(was.map(copy));
                        added.extend(is.map(copy));
                    }
                }
            },
        }
    }
}

/// What the kernel does with a batch, refusing what it would refuse: for tests, and the model the properties are about.
pub fn apply(table: &mut Table, batch: &Batch) -> Result<(), String> {
    for op in &batch.ops {
        apply_op(table, op)?;
    }
    match table.dangling() {
        Some(name) => Err(format!("{name} is referred to and does not exist")),
        None => Ok(()),
    }
}

fn apply_op(table: &mut Table, op: &Op) -> Result<(), String> {
    match op {
        Op::ResetTable => *table = Table::new(table.family, table.name.clone()),
        Op::AddSet { name, set } => {
            if table.sets.insert(name.clone(), set.clone()).is_some() {
                return Err(format!("set {name} exists"));
            }
        }
        Op::AddChain { name, base } => {
            let chain = Chain { base: base.clone(), rules: Vec::new() };
            if table.chains.insert(name.clone(), chain).is_some() {
                return Err(format!("chain {name} exists"));
            }
        }
        Op::FlushChain { name } => chain_mut(table, name)?.rules.clear(),
        Op::AddRule { chain, rule } => chain_mut(table, chain)?.rules.push(rule.clone()),
        Op::DeleteElements { set, elements } => {
            let target = table.sets.get_mut(set).ok_or_else(|| format!("no set {set}"))?;
            for key in elements.keys() {
                target.elements.remove(key).ok_or_else(|| format!("no element {key:?} in {set}"))?;
            }
        }
        Op::AddElements { set, elements } => {
            let target = table.sets.get_mut(set).ok_or_else(|| format!("no set {set}"))?;
            for (key, value) in elements {
                if target.elements.insert(key.clone(), value.clone()).is_some() {
                    return Err(format!("element {key:?} of {set} exists"));
                }
            }
        }
        Op::DeleteChain { name } => {
            let chain = table.chains.remove(name).ok_or_else(|| format!("no chain {name}"))?;
            if !chain.rules.is_empty() {
                return Err(format!("chain {name} has rules"));
            }
        }
        Op::DeleteSet { name } => {
            table.sets.remove(name).ok_or_else(|| format!("no set {name}"))?;
        }
    }
    Ok(())
}

fn chain_mut<'a>(table: &'a mut Table, name: &str) -> Result<&'a mut Chain, String> {
    table.chains.get_mut(name).ok_or_else(|| format!("no chain {name}"))
}

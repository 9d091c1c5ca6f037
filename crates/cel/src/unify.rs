//! Which types fit which, and what type parameters turn out to be. cel-go's rules. Used by the checker.

use crate::types::Type;

/// What is known of type parameters so far. Attempts that fail are undone.
#[derive(Default)]
pub(crate) struct Unifier {
    known: Vec<Option<Type>>,
    trail: Vec<(usize, Option<Type>)>,
}

/// Types nest no deeper than expressions; this stops cycles all the same.
const DEPTH_MAX: usize = 600;

impl Unifier {
    pub fn fresh(&mut self) -> Type {
        self.known.push(None);
        Type::Param(u32::try_from(self.known.len() - 1).unwrap_or(u32::MAX))
    }

    /// A signature's own parameters replaced by fresh ones, which start at `base`.
    pub fn instantiate(of: &Type, base: u32) -> Type {
        match of {
            Type::Param(n) => Type::Param(base + n),
            _ => map_parts(of, &mut |t| Self::instantiate(t, base)),
        }
    }

    pub fn reserve(&mut self, count: u32) -> u32 {
        let base = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        self.known.extend((0..count).map(|_| None));
        base
    }

    /// Whether a value of the first type may stand where the second is asked for; learns parameters when so.
    pub fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        let mark = self.trail.len();
        let fits = self.fits(from, to, 0);
        if !fits {
            self.undo(mark);
        }
        fits
    }

    pub fn all_assignable(&mut self, from: &[Type], to: &[Type]) -> bool {
        let mark = self.trail.len();
        let fits = from.len() == to.len() && from.iter().zip(to).all(|(f, t)| self.fits(f, t, 0));
        if !fits {
            self.undo(mark);
        }
        fits
    }

    fn undo(&mut self, mark: usize) {
        while self.trail.len() > mark {
            if let Some((at, was)) = self.trail.pop() {
                self.known[at] = was;
            }
        }
    }

    fn find(&self, n: u32) -> Option<&Type> {
        self.known.get(n as usize)?.as_ref()
    }

    fn set(&mut self, n: u32, to: Type) {
        let at = n as usize;
        if let Some(slot) = self.known.get_mut(at) {
            self.trail.push((at, slot.replace(to)));
        }
    }

    fn fits(&mut self, from: &Type, to: &Type, depth: usize) -> bool {
        if depth > DEPTH_MAX {
            return false;
        }
        if let Type::Param(n) = to {
            match self.substitution(from, *n, depth) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Param(n) = from {
            return self.substitution(to, *n, depth).0;
        }
        match (from, to) {
            (Type::Dyn | Type::Error, _) | (_, Type::Dyn | Type::Error) => true,
            (Type::Null, to) => {
                matches!(to, Type::Null | Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Timestamp | Type::Duration)
            }
            (Type::List(a), Type::List(b)) => self.fits(&a.elem, &b.elem, depth + 1),
            (Type::Map(a), Type::Map(b)) => self.fits(&a.key, &b.key, depth + 1) && self.fits(&a.value, &b.value, depth + 1),
            (Type::Optional(a), Type::Optional(b)) => self.fits(a, b, depth + 1),
            (Type::Type(_), Type::Type(_)) => true,
            (a, b) => a == b,
        }
    }

    /// Whether a parameter may stand for a type, and whether it already stood for something.
    fn substitution(&mut self, with: &Type, n: u32, depth: usize) -> (bool, bool) {
        if let Some(known) = self.find(n).cloned() {
            if *with == known {
                return (true, true);
            }
            if self.fits(with, &known, depth + 1) {
                self.set(n, if more_general(with, &known) { with.clone() } else { known });
                return (true, true);
            }
            return (false, true);
        }
        if *with == Type::Param(n) {
            return (true, false);
        }
        if !self.occurs(n, with, depth) {
            self.set(n, with.clone());
            return (true, false);
        }
        (false, false)
    }

    fn occurs(&self, n: u32, within: &Type, depth: usize) -> bool {
        if depth > DEPTH_MAX {
            return true;
        }
        match within {
            Type::Param(m) if *m == n => true,
            Type::Param(m) => self.find(*m).is_some_and(|t| self.occurs(n, t, depth + 1)),
            Type::List(l) => self.occurs(n, &l.elem, depth + 1),
            Type::Map(m) => self.occurs(n, &m.key, depth + 1) || self.occurs(n, &m.value, depth + 1),
            Type::Optional(t) | Type::Type(t) => self.occurs(n, t, depth + 1),
            _ => false,
        }
    }

    /// With all that is known put in; parameters nothing is known of become `dyn` if `finish`.
    pub fn resolve(&self, of: &Type, finish: bool) -> Type {
        match of {
            Type::Param(n) => match self.find(*n) {
                Some(known) => self.resolve(known, finish),
                None if finish => Type::Dyn,
                None => of.clone(),
            },
            _ => map_parts(of, &mut |t| self.resolve(t, finish)),
        }
    }
}

fn map_parts(of: &Type, with: &mut dyn FnMut(&Type) -> Type) -> Type {
    match of {
        Type::List(l) if has_params(&l.elem) => Type::list(with(&l.elem)),
        Type::Map(m) if has_params(&m.key) || has_params(&m.value) => Type::map(with(&m.key), with(&m.value)),
        Type::Optional(t) => Type::optional(with(t)),
        Type::Type(t) => Type::type_of(with(t)),
        _ => of.clone(),
    }
}

fn has_params(of: &Type) -> bool {
    match of {
        Type::Param(_) => true,
        Type::List(l) => has_params(&l.elem),
        Type::Map(m) => has_params(&m.key) || has_params(&m.value),
        Type::Optional(t) | Type::Type(t) => has_params(t),
        _ => false,
    }
}

/// Equal, or less specific by having `dyn` or a parameter where the other says more.
pub(crate) fn more_general(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) => more_general(&a.elem, &b.elem),
        (Type::Map(a), Type::Map(b)) => more_general(&a.key, &b.key) && more_general(&a.value, &b.value),
        (Type::Optional(a), Type::Optional(b)) => more_general(a, b),
        (Type::Type(_), Type::Type(_)) => true,
        _ => a == b,
    }
}

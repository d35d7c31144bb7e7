//! Symbolic integers, canonical when built.
//!
//! A [`Dim`] is an integer or a polynomial over *atoms*: named symbols, floored quotients, maxima and minima of other
//! dims. Only the operators here build one, and each of them returns the canonical form, so `==` is the only equality
//! there is. Arithmetic saturates: shapes come from files, and a size that does not fit 64 bits is refused where it
//! meets memory.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    ops::{Add, Mul, Neg, Sub},
    sync::Arc,
};

/// A symbolic integer: a tensor's size along one axis, or an integer value computed from sizes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dim(Repr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Known(i64),
    Expr(Arc<Poly>),
}

/// A sum of products, sorted by monomial; the empty monomial carries the constant. Never a bare constant.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Poly {
    terms: Vec<(Monomial, i64)>,
    depth: u32,
}

/// A sorted product of atoms.
type Monomial = Vec<Atom>;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Atom {
    Symbol(Arc<str>),
    /// `floor(a / b)`.
    Floor(Dim, Dim),
    /// The greatest of at least two dims, sorted.
    Max(Vec<Dim>),
    /// The least of at least two dims, sorted.
    Min(Vec<Dim>),
    /// Some integer. Stands for an expression too large to carry, by its hash.
    Opaque(u64),
}

/// Nesting of atoms beyond which an expression becomes opaque: hostile graphs nest without end.
const MAX_DEPTH: u32 = 24;
/// Terms beyond which a product becomes opaque.
const MAX_TERMS: usize = 64;

impl Dim {
    /// The symbol called `name`.
    pub fn symbol(name: impl Into<Arc<str>>) -> Self {
        Self::atom(Atom::Symbol(name.into()))
    }

    /// The integer, if it is known.
    pub fn as_known(&self) -> Option<i64> {
        match self.0 {
            Repr::Known(n) => Some(n),
            Repr::Expr(_) => None,
        }
    }

    /// The size, if it is known and not negative.
    pub fn as_usize(&self) -> Option<usize> {
        usize::try_from(self.as_known()?).ok()
    }

    /// The symbol's name, if this is one symbol and nothing else.
    pub fn as_symbol(&self) -> Option<&Arc<str>> {
        let Repr::Expr(poly) = &self.0 else { return None };
        match poly.terms.as_slice() {
            [(m, 1)] => match m.as_slice() {
                [Atom::Symbol(name)] => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the two may be equal for some values of their symbols: not where both are known and differ.
    pub fn may_equal(&self, other: &Self) -> bool {
        self.as_known().zip(other.as_known()).is_none_or(|(a, b)| a == b)
    }

    /// Whether this is the integer `n`.
    pub fn is(&self, n: i64) -> bool {
        self.as_known() == Some(n)
    }

    fn atom(atom: Atom) -> Self {
        let depth = 1 + match &atom {
            Atom::Symbol(_) | Atom::Opaque(_) => 0,
            Atom::Floor(a, b) => a.depth().max(b.depth()),
            Atom::Max(v) | Atom::Min(v) => v.iter().map(Self::depth).max().unwrap_or(0),
        };
        if depth > MAX_DEPTH {
            return Self::opaque(&atom);
        }
        Self(Repr::Expr(Arc::new(Poly { terms: vec![(vec![atom], 1)], depth })))
    }

    fn opaque(what: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self::atom(Atom::Opaque(hasher.finish()))
    }

    fn depth(&self) -> u32 {
        match &self.0 {
            Repr::Known(_) => 0,
            Repr::Expr(p) => p.depth,
        }
    }

    fn terms(&self) -> Vec<(Monomial, i64)> {
        match &self.0 {
            Repr::Known(0) => vec![],
            Repr::Known(n) => vec![(vec![], *n)],
            Repr::Expr(p) => p.terms.clone(),
        }
    }

    fn collect(terms: impl IntoIterator<Item = (Monomial, i64)>) -> Self {
        let mut sum: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (m, c) in terms {
            let slot = sum.entry(m).or_insert(0);
            *slot = slot.saturating_add(c);
        }
        let terms: Vec<_> = sum.into_iter().filter(|(_, c)| *c != 0).collect();
        match terms.as_slice() {
            [] => Self::from(0),
            [(m, c)] if m.is_empty() => Self::from(*c),
            _ => {
                let depth = terms.iter().flat_map(|(m, _)| m).map(Atom::depth).max().unwrap_or(0);
                let poly = Poly { terms, depth };
                if poly.terms.len() > MAX_TERMS || poly.terms.iter().any(|(m, _)| m.len() > MAX_DEPTH as usize) {
                    return Self::opaque(&poly);
                }
                Self(Repr::Expr(Arc::new(poly)))
            }
        }
    }

    /// `floor(self / by)`; by zero it is zero, as nothing is known of it.
    pub fn div_floor(&self, by: &Self) -> Self {
        match (self.as_known(), by.as_known()) {
            (_, Some(0)) => Self::from(0),
            (_, Some(1)) => self.clone(),
            (Some(a), Some(b)) => Self::from(floor_div(a, b)),
            (None, Some(k)) if k > 1 => self.div_known(k),
            _ if self == by => Self::from(1),
            _ => match self.div_exact(by) {
                Some(exact) => exact,
                None => Self::atom(Atom::Floor(self.clone(), by.clone())),
            },
        }
    }

    /// Takes out what `k` divides, then reduces what is left by the common divisor.
    fn div_known(&self, k: i64) -> Self {
        let (mut whole, mut rest) = (vec![], vec![]);
        for (m, c) in self.terms() {
            if m.is_empty() || c % k == 0 {
                whole.push((m.clone(), floor_div(c, k)));
                rest.push((m, c.rem_euclid(k)));
            } else {
                rest.push((m, c));
            }
        }
        let (whole, rest) = (Self::collect(whole), Self::collect(rest));
        if let Some(r) = rest.as_known() {
            return whole + Self::from(floor_div(r, k));
        }
        // The constant is below `k`, so after division by the common divisor of the others its fraction drops out.
        let g = rest.terms().iter().filter(|(m, _)| !m.is_empty()).fold(k, |g, (_, c)| gcd(g, *c));
        let reduced = Self::collect(rest.terms().into_iter().map(|(m, c)| (m, floor_div(c, g))));
        whole + if k / g == 1 { reduced } else { Self::atom(Atom::Floor(reduced, Self::from(k / g))) }
    }

    /// The quotient where `by` is a single product that divides every term.
    fn div_exact(&self, by: &Self) -> Option<Self> {
        let by = by.terms();
        let [(mono, coeff)] = by.as_slice() else { return None };
        let quotient = self.terms().into_iter().map(|(mut m, c)| {
            for atom in mono {
                let at = m.iter().position(|a| a == atom)?;
                m.remove(at);
            }
            // The least integer has no opposite.
            (c.checked_rem(*coeff)? == 0).then_some((m, c / coeff))
        });
        Some(Self::collect(quotient.collect::<Option<Vec<_>>>()?))
    }

    /// `ceil(self / by)`, for positive `by`.
    pub fn div_ceil(&self, by: &Self) -> Self {
        (self + by - Self::from(1)).div_floor(by)
    }

    /// `self - by * floor(self / by)`: the remainder that has the sign of `by`.
    pub fn modulo(&self, by: &Self) -> Self {
        self - &(by * &self.div_floor(by))
    }

    /// The greater of the two.
    pub fn maximum(&self, other: &Self) -> Self {
        Self::extreme(self, other, true)
    }

    /// The lesser of the two.
    pub fn minimum(&self, other: &Self) -> Self {
        Self::extreme(self, other, false)
    }

    fn extreme(a: &Self, b: &Self, greatest: bool) -> Self {
        let mut kept: Vec<Self> = vec![];
        let parts = |d: &Self| match d.as_single_atom() {
            Some(Atom::Max(v)) if greatest => v.clone(),
            Some(Atom::Min(v)) if !greatest => v.clone(),
            _ => vec![d.clone()],
        };
        for d in parts(a).into_iter().chain(parts(b)) {
            // Dims that differ by a known amount are comparable; only one of them is worth keeping.
            match kept.iter_mut().find_map(|k| (&d - &*k).as_known().map(|by| (k, by))) {
                Some((k, by)) if (by > 0) == greatest => *k = d,
                Some(_) => {}
                None => kept.push(d),
            }
        }
        kept.sort();
        match kept.len() {
            1 => kept.swap_remove(0),
            _ if greatest => Self::atom(Atom::Max(kept)),
            _ => Self::atom(Atom::Min(kept)),
        }
    }

    fn as_single_atom(&self) -> Option<&Atom> {
        let Repr::Expr(poly) = &self.0 else { return None };
        match poly.terms.as_slice() {
            [(m, 1)] if m.len() == 1 => m.first(),
            _ => None,
        }
    }

    /// The value where `symbol` gives that of every symbol; `None` where one is missing or nothing is known.
    pub fn eval(&self, symbol: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        self.compute(&mut Numbers(symbol))
    }

    /// The value in other integers than numbers; `None` where they lack a part of it.
    pub fn compute<A: Arithmetic>(&self, with: &mut A) -> Option<A::Int> {
        if let Some(given) = with.given(self) {
            return Some(given);
        }
        let Repr::Expr(poly) = &self.0 else { return None };
        let mut sum = None;
        for (m, c) in &poly.terms {
            let term = match m.as_slice() {
                [] => with.given(&Self::from(*c))?,
                atoms if *c == 1 => Self::product_of(atoms, with)?,
                atoms => {
                    let product = Self::product_of(atoms, with)?;
                    let factor = with.given(&Self::from(*c))?;
                    with.join(Operation::Mul, product, factor)?
                }
            };
            sum = Some(match sum {
                Some(sum) => with.join(Operation::Add, sum, term)?,
                None => term,
            });
        }
        sum
    }

    /// The product of at least one atom.
    fn product_of<A: Arithmetic>(atoms: &[Atom], with: &mut A) -> Option<A::Int> {
        if let Some(given) = with.given(&Self::collect([(atoms.to_vec(), 1)])) {
            return Some(given);
        }
        let mut product = None;
        for atom in atoms {
            let value = match with.given(&Self::atom(atom.clone())) {
                Some(given) => given,
                None => atom.compute(with)?,
            };
            product = Some(match product {
                Some(product) => with.join(Operation::Mul, product, value)?,
                None => value,
            });
        }
        product
    }

    /// Replaces symbols by other dims; `None` from `symbol` keeps one.
    pub fn substitute(&self, symbol: &dyn Fn(&str) -> Option<Self>) -> Self {
        let Repr::Expr(poly) = &self.0 else { return self.clone() };
        let mut sum = Self::from(0);
        for (m, c) in &poly.terms {
            let mut product = Self::from(*c);
            for atom in m {
                let part = |v: &[Self]| v.iter().map(|d| d.substitute(symbol)).collect::<Vec<_>>();
                let value = match atom {
                    Atom::Symbol(name) => symbol(name).unwrap_or_else(|| Self::atom(atom.clone())),
                    Atom::Floor(a, b) => a.substitute(symbol).div_floor(&b.substitute(symbol)),
                    Atom::Max(v) => part(v).into_iter().reduce(|a, b| a.maximum(&b)).unwrap_or_else(|| Self::from(0)),
                    Atom::Min(v) => part(v).into_iter().reduce(|a, b| a.minimum(&b)).unwrap_or_else(|| Self::from(0)),
                    Atom::Opaque(_) => Self::atom(atom.clone()),
                };
                product = &product * &value;
            }
            sum = sum + product;
        }
        sum
    }

    /// Calls `visit` with the name of every symbol in here, perhaps more than once.
    pub fn visit_symbols(&self, visit: &mut dyn FnMut(&Arc<str>)) {
        let Repr::Expr(poly) = &self.0 else { return };
        for atom in poly.terms.iter().flat_map(|(m, _)| m) {
            match atom {
                Atom::Symbol(name) => visit(name),
                Atom::Floor(a, b) => {
                    a.visit_symbols(visit);
                    b.visit_symbols(visit);
                }
                Atom::Max(v) | Atom::Min(v) => v.iter().for_each(|d| d.visit_symbols(visit)),
                Atom::Opaque(_) => {}
            }
        }
    }

    /// Bounds that hold whatever values within `symbols` the symbols take; `None` is no bound.
    pub fn bounds(&self, symbols: &Symbols) -> (Option<i64>, Option<i64>) {
        let poly = match &self.0 {
            Repr::Known(n) => return (Some(*n), Some(*n)),
            Repr::Expr(poly) => poly,
        };
        let mut sum = Interval::exactly(0);
        for (m, c) in &poly.terms {
            let product = m.iter().fold(Interval::exactly(*c), |acc, atom| acc.mul(atom.interval(symbols)));
            sum = sum.add(product);
        }
        sum.finite()
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut p = Parser { rest: text.trim(), depth: 0 };
        let dim = p.sum()?;
        p.rest.is_empty().then_some(dim)
    }
}

/// `a / b`, rounded down; `b` is not 0.
pub fn floor_div(a: i64, b: i64) -> i64 {
    let q = a.wrapping_div(b);
    if a.wrapping_rem(b) != 0 && (a < 0) != (b < 0) { q - 1 } else { q }
}

fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    i64::try_from(a).unwrap_or(1)
}

/// An operation on two integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Their sum.
    Add,
    /// Their product.
    Mul,
    /// Their quotient, floored.
    FloorDiv,
    /// The greater.
    Maximum,
    /// The lesser.
    Minimum,
}

/// Integers of some kind that a [`Dim`] can be computed in, such as numbers, or values of a program.
pub trait Arithmetic {
    /// One of them.
    type Int;
    /// What `dim` is, where that needs no computing: asked for the whole, its parts, and every number and symbol.
    fn given(&mut self, dim: &Dim) -> Option<Self::Int>;
    /// The result of an operation.
    fn join(&mut self, op: Operation, a: Self::Int, b: Self::Int) -> Option<Self::Int>;
}

/// Numbers, with those that symbols stand for.
struct Numbers<'a>(&'a dyn Fn(&str) -> Option<i64>);

impl Arithmetic for Numbers<'_> {
    type Int = i64;
    fn given(&mut self, dim: &Dim) -> Option<i64> {
        dim.as_known().or_else(|| (self.0)(dim.as_symbol()?))
    }
    fn join(&mut self, op: Operation, a: i64, b: i64) -> Option<i64> {
        Some(match op {
            Operation::Add => a.saturating_add(b),
            Operation::Mul => a.saturating_mul(b),
            Operation::FloorDiv if b == 0 => 0,
            Operation::FloorDiv => floor_div(a, b),
            Operation::Maximum => a.max(b),
            Operation::Minimum => a.min(b),
        })
    }
}

impl Atom {
    /// Computes it from its parts.
    fn compute<A: Arithmetic>(&self, with: &mut A) -> Option<A::Int> {
        let (op, parts) = match self {
            Self::Symbol(_) | Self::Opaque(_) => return None,
            Self::Floor(a, b) => {
                let (a, b) = (a.compute(with)?, b.compute(with)?);
                return with.join(Operation::FloorDiv, a, b);
            }
            Self::Max(parts) => (Operation::Maximum, parts),
            Self::Min(parts) => (Operation::Minimum, parts),
        };
        let mut all = parts.iter();
        let mut out = all.next()?.compute(with)?;
        for part in all {
            let part = part.compute(with)?;
            out = with.join(op, out, part)?;
        }
        Some(out)
    }

    fn depth(&self) -> u32 {
        match self {
            Self::Symbol(_) | Self::Opaque(_) => 1,
            Self::Floor(a, b) => 1 + a.depth().max(b.depth()),
            Self::Max(v) | Self::Min(v) => 1 + v.iter().map(Dim::depth).max().unwrap_or(0),
        }
    }

    fn interval(&self, symbols: &Symbols) -> Interval {
        let of = |d: &Dim| {
            let (lo, hi) = d.bounds(symbols);
            Interval { lo: lo.map_or(-INF, i128::from), hi: hi.map_or(INF, i128::from) }
        };
        match self {
            Self::Symbol(name) => {
                let info = symbols.get(name);
                let hi = info.and_then(|s| s.max).map_or(INF, i128::from);
                Interval { lo: info.map_or(0, |s| i128::from(s.min)), hi }
            }
            Self::Floor(a, b) => of(a).div_floor(of(b)),
            Self::Max(v) => v
                .iter()
                .map(of)
                .fold(Interval::exactly_i128(-INF), |a, b| Interval { lo: a.lo.max(b.lo), hi: a.hi.max(b.hi) }),
            Self::Min(v) => v
                .iter()
                .map(of)
                .fold(Interval::exactly_i128(INF), |a, b| Interval { lo: a.lo.min(b.lo), hi: a.hi.min(b.hi) }),
            Self::Opaque(_) => Interval { lo: -INF, hi: INF },
        }
    }
}

/// Larger than any 64-bit value, small enough that sums of a few do not overflow; the sign of infinity.
const INF: i128 = 1 << 100;

#[derive(Clone, Copy)]
struct Interval {
    lo: i128,
    hi: i128,
}

impl Interval {
    fn exactly(n: i64) -> Self {
        Self::exactly_i128(i128::from(n))
    }
    fn exactly_i128(n: i128) -> Self {
        Self { lo: n, hi: n }
    }
    fn clamp(lo: i128, hi: i128) -> Self {
        let wide = |n: i128| {
            if n >= 1 << 64 {
                INF
            } else if n <= -(1 << 64) {
                -INF
            } else {
                n
            }
        };
        Self { lo: wide(lo), hi: wide(hi) }
    }
    fn add(self, o: Self) -> Self {
        Self::clamp(self.lo + o.lo, self.hi + o.hi)
    }
    fn mul(self, o: Self) -> Self {
        // Zero times an infinite bound is zero: the bound itself is never attained.
        let product = |a: i128, b: i128| if a == 0 || b == 0 { 0 } else { a.saturating_mul(b) };
        let ends = [product(self.lo, o.lo), product(self.lo, o.hi), product(self.hi, o.lo), product(self.hi, o.hi)];
        Self::clamp(ends.into_iter().min().unwrap_or(-INF), ends.into_iter().max().unwrap_or(INF))
    }
    fn div_floor(self, o: Self) -> Self {
        if o.lo <= 0 {
            // A divisor that may be zero or negative: only a magnitude bound would hold, and nobody needs it.
            return Self { lo: -INF, hi: INF };
        }
        let div = |a: i128, b: i128| match (a.abs() >= INF, b >= INF) {
            (true, _) => a,
            (false, true) => {
                if a < 0 {
                    -1
                } else {
                    0
                }
            }
            (false, false) => a.div_euclid(b),
        };
        let ends = [div(self.lo, o.lo), div(self.lo, o.hi), div(self.hi, o.lo), div(self.hi, o.hi)];
        Self::clamp(ends.into_iter().min().unwrap_or(-INF), ends.into_iter().max().unwrap_or(INF))
    }
    fn finite(self) -> (Option<i64>, Option<i64>) {
        let end = |n: i128| if n.abs() >= INF { None } else { i64::try_from(n).ok() };
        (end(self.lo), end(self.hi))
    }
}

macro_rules! from_ints {
    ($($t:ty),*) => { $(impl From<$t> for Dim {
        fn from(n: $t) -> Self { Self(Repr::Known(i64::try_from(n).unwrap_or(i64::MAX))) }
    })* };
}
from_ints!(i32, i64, u32, u64, usize);

macro_rules! operators {
    ($($trait:ident $method:ident: $body:expr;)*) => { $(
        impl $trait<&Dim> for &Dim { type Output = Dim; fn $method(self, o: &Dim) -> Dim { ($body)(self, o) } }
        impl $trait<Dim> for Dim { type Output = Dim; fn $method(self, o: Dim) -> Dim { ($body)(&self, &o) } }
        impl $trait<Dim> for &Dim { type Output = Dim; fn $method(self, o: Dim) -> Dim { ($body)(self, &o) } }
        impl $trait<&Dim> for Dim { type Output = Dim; fn $method(self, o: &Dim) -> Dim { ($body)(&self, o) } }
        impl $trait<i64> for &Dim { type Output = Dim; fn $method(self, o: i64) -> Dim { ($body)(self, &Dim::from(o)) } }
        impl $trait<i64> for Dim { type Output = Dim; fn $method(self, o: i64) -> Dim { ($body)(&self, &Dim::from(o)) } }
    )* };
}
operators! {
    Add add: |a: &Dim, b: &Dim| match (a.as_known(), b.as_known()) {
        (Some(a), Some(b)) => Dim::from(a.saturating_add(b)),
        _ => Dim::collect(a.terms().into_iter().chain(b.terms())),
    };
    Sub sub: |a: &Dim, b: &Dim| match (a.as_known(), b.as_known()) {
        (Some(a), Some(b)) => Dim::from(a.saturating_sub(b)),
        _ => a + &-b,
    };
    Mul mul: |a: &Dim, b: &Dim| match (a.as_known(), b.as_known()) {
        (Some(a), Some(b)) => Dim::from(a.saturating_mul(b)),
        _ => {
            let b = b.terms();
            Dim::collect(a.terms().iter().flat_map(|(ma, ca)| b.iter().map(move |(mb, cb)| {
                let mut m: Monomial = ma.iter().chain(mb).cloned().collect();
                m.sort();
                (m, ca.saturating_mul(*cb))
            })))
        }
    };
}

impl Neg for &Dim {
    type Output = Dim;
    fn neg(self) -> Dim {
        self * -1
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let poly = match &self.0 {
            Repr::Known(n) => return n.fmt(f),
            Repr::Expr(poly) => poly,
        };
        // The constant sorts first and reads best last.
        let (constant, rest): (Vec<_>, Vec<_>) = poly.terms.iter().partition(|(m, _)| m.is_empty());
        for (i, (m, c)) in rest.into_iter().chain(constant).enumerate() {
            match (i, *c < 0) {
                (0, false) => {}
                (0, true) => f.write_str("-")?,
                (_, false) => f.write_str(" + ")?,
                (_, true) => f.write_str(" - ")?,
            }
            let c = c.unsigned_abs();
            if m.is_empty() || c != 1 {
                write!(f, "{c}{}", if m.is_empty() { "" } else { "*" })?;
            }
            for (k, atom) in m.iter().enumerate() {
                write!(f, "{}{atom}", if k == 0 { "" } else { "*" })?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name: &str, v: &[Dim]| {
            write!(f, "{name}(")?;
            for (i, d) in v.iter().enumerate() {
                write!(f, "{}{d}", if i == 0 { "" } else { ", " })?;
            }
            f.write_str(")")
        };
        match self {
            Self::Symbol(name) => f.write_str(name),
            Self::Floor(a, b) => write!(f, "floor({a}, {b})"),
            Self::Max(v) => list(f, "max", v),
            Self::Min(v) => list(f, "min", v),
            Self::Opaque(hash) => write!(f, "any({hash})"),
        }
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl Parser<'_> {
    fn eat(&mut self, token: char) -> bool {
        let rest = self.rest.trim_start();
        let Some(after) = rest.strip_prefix(token) else { return false };
        self.rest = after.trim_start();
        true
    }

    fn sum(&mut self) -> Option<Dim> {
        let mut sum = if self.eat('-') { -&self.product()? } else { self.product()? };
        loop {
            if self.eat('+') {
                sum = sum + self.product()?;
            } else if self.eat('-') {
                sum = sum - self.product()?;
            } else {
                return Some(sum);
            }
        }
    }

    fn product(&mut self) -> Option<Dim> {
        let mut product = self.atom()?;
        while self.eat('*') {
            product = product * self.atom()?;
        }
        Some(product)
    }

    fn atom(&mut self) -> Option<Dim> {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            return None;
        }
        self.rest = rest.trim_start();
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return word.parse::<i64>().ok().map(Dim::from);
        }
        if !self.eat('(') {
            return Some(Dim::symbol(word));
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut args = vec![self.sum()?];
        while self.eat(',') {
            args.push(self.sum()?);
        }
        self.depth -= 1;
        if !self.eat(')') {
            return None;
        }
        match (word, args.as_slice()) {
            ("floor", [a, b]) => Some(a.div_floor(b)),
            ("max", _) => args.into_iter().reduce(|a, b| a.maximum(&b)),
            ("min", _) => args.into_iter().reduce(|a, b| a.minimum(&b)),
            ("any", [hash]) => Some(Dim::atom(Atom::Opaque(u64::try_from(hash.as_known()?).ok()?))),
            _ => None,
        }
    }
}

/// What is known of a symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolInfo {
    /// The least value.
    pub min: i64,
    /// The greatest value; `None` is no limit.
    pub max: Option<i64>,
    /// The value used where one must be chosen.
    pub default: Option<i64>,
}

impl Default for SymbolInfo {
    fn default() -> Self {
        Self { min: 1, max: None, default: None }
    }
}

/// The symbols of a module, by name, in order of first appearance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols(Vec<(Arc<str>, SymbolInfo)>);

impl Symbols {
    /// What is known of `name`.
    pub fn get(&self, name: &str) -> Option<&SymbolInfo> {
        self.0.iter().find(|(n, _)| &**n == name).map(|(_, i)| i)
    }

    /// Adds or replaces what is known of `name`.
    pub fn set(&mut self, name: impl Into<Arc<str>>, info: SymbolInfo) {
        let name = name.into();
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = info,
            None => self.0.push((name, info)),
        }
    }

    /// Every symbol with what is known of it.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &SymbolInfo)> {
        self.0.iter().map(|(n, i)| (n, i))
    }

    /// A value to use for `name`: its default, or the least one.
    pub fn default_of(&self, name: &str) -> i64 {
        self.get(name).map_or(1, |s| s.default.unwrap_or(s.min.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn s(name: &str) -> Dim {
        Dim::symbol(name)
    }

    #[test]
    fn equal_expressions_are_equal_values() {
        let (a, b) = (s("a"), s("b"));
        assert_eq!((&a + &b) * (&a - &b), &a * &a - &b * &b);
        assert_eq!((&a * 4 + 6).div_floor(&Dim::from(4)), &a + 1);
        assert_eq!((&a * 6 + 4).div_floor(&Dim::from(4)), (&a * 3).div_floor(&Dim::from(2)) + 1);
        assert_eq!((&a * &b * 8).div_floor(&(&b * 2)), &a * 4);
        assert_eq!(a.maximum(&(&a + 1)), &a + 1);
        assert_eq!(a.maximum(&b).maximum(&a), b.maximum(&a));
        assert_eq!((&a * 2).modulo(&Dim::from(2)), Dim::from(0));
    }

    #[test]
    fn numbers_at_the_ends_of_integers_do_not_panic() {
        let least = s("a") * i64::MIN;
        let quotient = least.div_floor(&-&s("a"));
        assert_eq!(quotient.as_known(), None);
        let text = "floor(-9223372036854775807*a - a, -a)";
        assert!(Dim::parse(text).is_some());
    }

    #[test]
    fn prints_as_it_reads() {
        for text in ["7", "s0", "2*s0 + 1", "-s0 - 3", "a*b + floor(a, 2)", "max(b + 2, a) - min(4, a)"] {
            assert_eq!(Dim::parse(text).expect("an expression").to_string(), text);
        }
        for text in ["", "2*", "max(", "floor(a)", "a b", "a)"] {
            assert_eq!(Dim::parse(text), None, "{text}");
        }
    }

    #[test]
    fn endless_nesting_becomes_opaque() {
        let mut d = s("a");
        for k in 2..100_000 {
            d = (d + 1).div_floor(&Dim::from(k % 7 + 2)).maximum(&s("b"));
        }
        assert_eq!(d.eval(&|_| Some(3)), None);
        let mut p = s("a");
        for i in 0..200 {
            p = p * (s(&format!("x{i}")) + 1);
        }
        assert_eq!(p.as_known(), None);
    }

    /// An expression to be computed both symbolically and on plain numbers.
    #[derive(Clone, Debug)]
    enum Tree {
        Leaf(Dim),
        Node(u8, i64, Box<(Tree, Tree)>),
    }

    impl Tree {
        fn dim(&self) -> Dim {
            let Self::Node(op, k, parts) = self else {
                let Self::Leaf(d) = self else { unreachable!() };
                return d.clone();
            };
            let (x, y) = (parts.0.dim(), parts.1.dim());
            match op {
                0 => x + y,
                1 => x - y,
                2 => x * y,
                3 => x.div_floor(&Dim::from(*k)),
                4 => x.div_floor(&s("b")),
                5 => x.maximum(&y),
                _ => x.minimum(&y),
            }
        }

        fn plain(&self, a: i64, b: i64) -> i64 {
            let Self::Node(op, k, parts) = self else {
                let Self::Leaf(d) = self else { unreachable!() };
                return d.as_known().unwrap_or(if *d == s("a") { a } else { b });
            };
            let (x, y) = (parts.0.plain(a, b), parts.1.plain(a, b));
            match op {
                0 => x.saturating_add(y),
                1 => x.saturating_sub(y),
                2 => x.saturating_mul(y),
                3 => floor_div(x, *k),
                4 => floor_div(x, b),
                5 => x.max(y),
                _ => x.min(y),
            }
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![(-9i64..10).prop_map(Dim::from), Just(s("a")), Just(s("b"))].prop_map(Tree::Leaf);
        leaf.prop_recursive(4, 24, 2, |inner| {
            (0u8..7, 1i64..7, inner.clone(), inner).prop_map(|(op, k, x, y)| Tree::Node(op, k, Box::new((x, y))))
        })
    }

    proptest! {
        #[test]
        fn canonical_form_keeps_the_value(tree in trees(), a in 1i64..20, b in 1i64..20) {
            let (d, plain) = (tree.dim(), tree.plain(a, b));
            prop_assume!(plain.saturating_abs() < 1 << 40);
            if let Some(v) = d.eval(&|n| Some(if n == "a" { a } else { b })) {
                prop_assert_eq!(v, plain, "{}", d);
            }
        }

        #[test]
        fn printed_form_reads_back(d in trees().prop_map(|t| t.dim())) {
            prop_assert_eq!(Dim::parse(&d.to_string()), Some(d));
        }

        #[test]
        fn bounds_hold(d in trees().prop_map(|t| t.dim()), a in 2i64..9, b in 1i64..50) {
            let mut symbols = Symbols::default();
            symbols.set("a", SymbolInfo { min: 2, max: Some(8), default: None });
            symbols.set("b", SymbolInfo::default());
            let (lo, hi) = d.bounds(&symbols);
            if let Some(v) = d.eval(&|n| Some(if n == "a" { a } else { b })) {
                prop_assert!(lo.is_none_or(|lo| lo <= v) && hi.is_none_or(|hi| v <= hi), "{d} = {v}, not in {lo:?}..={hi:?}");
            }
        }
    }
}

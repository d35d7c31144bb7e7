//! Sizes as expressions over symbols.
//!
//! Exporters write them as sympy does: older ones as people would, `2*s0 + 1`, newer ones as calls that build them,
//! `Add(Mul(Integer(2), Symbol('s0', integer=True)), Integer(1))`. Both are read here.

use mlconv_tensor::Dim;

/// Nesting beyond which an expression is not read.
const MAX_DEPTH: usize = 64;

/// A fraction: sizes are whole, and parts of their expressions need not be.
#[derive(Clone, Debug)]
struct Fraction {
    top: Dim,
    bottom: i64,
}

impl Fraction {
    fn whole(top: Dim) -> Self {
        Self { top, bottom: 1 }
    }

    fn add(&self, other: &Self) -> Option<Self> {
        let bottom = self.bottom.checked_mul(other.bottom)?;
        let (a, b) = (&self.top * other.bottom, &other.top * self.bottom);
        Some(Self { top: a + b, bottom }.reduced())
    }

    fn mul(&self, other: &Self) -> Option<Self> {
        let bottom = self.bottom.checked_mul(other.bottom)?;
        Some(Self { top: &self.top * &other.top, bottom }.reduced())
    }

    fn negative(&self) -> Self {
        Self { top: -&self.top, bottom: self.bottom }
    }

    fn reduced(self) -> Self {
        // A quotient without a rest is whole.
        let by = Dim::from(self.bottom);
        let quotient = self.top.div_floor(&by);
        if &quotient * &by == self.top { Self::whole(quotient) } else { self }
    }

    /// `self / other`, where the other one is a number.
    fn div(&self, other: &Self) -> Option<Self> {
        let by = other.top.as_known().filter(|n| *n != 0)?;
        let (top, bottom) = (&self.top * other.bottom, self.bottom.checked_mul(by)?);
        let one = if bottom < 0 { Self { top: -&top, bottom: bottom.checked_neg()? } } else { Self { top, bottom } };
        Some(one.reduced())
    }

    fn floor(&self) -> Dim {
        self.top.div_floor(&Dim::from(self.bottom))
    }

    fn ceil(&self) -> Dim {
        -&(-&self.top).div_floor(&Dim::from(self.bottom))
    }

    /// The number, if it is whole.
    fn integer(&self) -> Option<Dim> {
        (self.bottom == 1).then(|| self.top.clone())
    }
}

/// The size that an expression means; `None` where it is of a form that is not known.
pub(crate) fn parse(text: &str) -> Option<Dim> {
    let mut p = Parser { rest: text.trim_start(), depth: 0 };
    let value = p.sum()?;
    if p.rest.is_empty() { value.integer() } else { None }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, token: &str) -> bool {
        let Some(after) = self.rest.strip_prefix(token) else { return false };
        self.rest = after.trim_start();
        true
    }

    fn word(&mut self, of: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c: char| !of(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn sum(&mut self) -> Option<Fraction> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut sum = self.product()?;
        loop {
            if self.eat("+") {
                sum = sum.add(&self.product()?)?;
            } else if self.eat("-") {
                sum = sum.add(&self.product()?.negative())?;
            } else {
                self.depth -= 1;
                return Some(sum);
            }
        }
    }

    fn product(&mut self) -> Option<Fraction> {
        if self.eat("-") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return None;
            }
            let negative = self.product()?.negative();
            self.depth -= 1;
            return Some(negative);
        }
        let mut product = self.power()?;
        loop {
            if self.eat("//") {
                product = floor_div(&product, &self.power()?)?;
            } else if self.eat("/") {
                product = product.div(&self.power()?)?;
            } else if self.eat("%") {
                product = modulo(&product, &self.power()?)?;
            } else if !self.rest.starts_with("**") && self.eat("*") {
                product = product.mul(&self.power()?)?;
            } else {
                return Some(product);
            }
        }
    }

    fn power(&mut self) -> Option<Fraction> {
        let base = self.atom()?;
        if !self.eat("**") {
            return Some(base);
        }
        let exponent = self.atom()?;
        power(&base, &exponent)
    }

    fn atom(&mut self) -> Option<Fraction> {
        if self.eat("(") {
            let inside = self.sum()?;
            return self.eat(")").then_some(inside);
        }
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            let number = self.word(|c| c.is_ascii_digit());
            return Some(Fraction::whole(Dim::from(number.parse::<i64>().ok()?)));
        }
        let name = self.word(|c| c.is_alphanumeric() || c == '_');
        if name.is_empty() {
            return None;
        }
        if !self.eat("(") {
            return Some(Fraction::whole(Dim::symbol(name)));
        }
        if name == "Symbol" || name == "Dummy" {
            return self.named();
        }
        let mut args = vec![];
        while !self.eat(")") {
            args.push(self.sum()?);
            if !self.eat(",") && !self.rest.starts_with(')') {
                return None;
            }
        }
        call(name, &args)
    }

    /// `'s0', positive=True, integer=True)`.
    fn named(&mut self) -> Option<Fraction> {
        let quote = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let inside = &self.rest[1..];
        let end = inside.find(quote)?;
        let name = &inside[..end];
        self.rest = &inside[end + 1..];
        let close = self.rest.find(')')?;
        self.rest = self.rest[close + 1..].trim_start();
        (!name.is_empty()).then(|| Fraction::whole(Dim::symbol(name)))
    }
}

fn floor_div(a: &Fraction, b: &Fraction) -> Option<Fraction> {
    let (top, bottom) = (&a.top * b.bottom, &b.top * a.bottom);
    if bottom.is(0) { None } else { Some(Fraction::whole(top.div_floor(&bottom))) }
}

fn modulo(a: &Fraction, b: &Fraction) -> Option<Fraction> {
    Some(Fraction::whole(a.integer()?.modulo(&b.integer()?)))
}

fn power(base: &Fraction, exponent: &Fraction) -> Option<Fraction> {
    let exponent = exponent.integer()?.as_known().filter(|e| (-8..=8).contains(e))?;
    let mut out = Fraction::whole(Dim::from(1));
    for _ in 0..exponent.abs() {
        out = out.mul(base)?;
    }
    if exponent < 0 { Fraction::whole(Dim::from(1)).div(&out) } else { Some(out) }
}

fn call(name: &str, args: &[Fraction]) -> Option<Fraction> {
    let fold = |f: &dyn Fn(&Fraction, &Fraction) -> Option<Fraction>| {
        let mut all = args.iter().cloned();
        let first = all.next()?;
        all.try_fold(first, |a, b| f(&a, &b))
    };
    let whole = |d: Dim| Some(Fraction::whole(d));
    match (name, args) {
        ("Integer" | "Float", [one]) => Some(one.clone()),
        ("Rational", [a, b]) => a.div(b),
        ("Add", _) => fold(&|a, b| a.add(b)),
        ("Mul", _) => fold(&|a, b| a.mul(b)),
        ("Pow" | "PowByNatural", [a, b]) => power(a, b),
        ("FloorDiv" | "CleanDiv", [a, b]) => floor_div(a, b),
        ("CeilDiv", [a, b]) => Some(floor_div(&a.negative(), b)?.negative()),
        ("Mod" | "PythonMod", [a, b]) => modulo(a, b),
        ("ModularIndexing", [a, b, c]) => modulo(&floor_div(a, b)?, c),
        ("Max" | "max", _) => fold(&|a, b| whole(a.integer()?.maximum(&b.integer()?))),
        ("Min" | "min", _) => fold(&|a, b| whole(a.integer()?.minimum(&b.integer()?))),
        ("IntTrueDiv" | "FloatTrueDiv", [a, b]) => a.div(b),
        ("floor" | "FloorToInt" | "TruncToInt" | "Floor", [a]) => whole(a.floor()),
        ("ceiling" | "CeilToInt" | "Ceiling", [a]) => whole(a.ceil()),
        ("ToFloat" | "Identity", [a]) => Some(a.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        parse(text).map(|d| d.to_string()).unwrap_or_default()
    }

    #[test]
    fn both_spellings_are_read() {
        assert_eq!(read("2*s0 + 1"), "2*s0 + 1");
        assert_eq!(read("((s0 - 1)//2) + 1"), read("FloorDiv(s0 + 1, 2)"));
        assert_eq!(read("Add(Mul(Integer(2), Symbol('s0', positive=True, integer=True)), Integer(-1))"), "2*s0 - 1");
        assert_eq!(
            read("floor(Add(Mul(Rational(1, 2), Symbol('s', integer=True)), Rational(-1, 2)))"),
            read("(s - 1)//2")
        );
        assert_eq!(read("CeilToInt(IntTrueDiv(s0, 2))"), read("-((-s0)//2)"));
        assert_eq!(read("Pow(Symbol('s0', positive=True, integer=True), Integer(2))"), read("s0**2"));
        assert_eq!(read("Max(1, s0)"), "max(1, s0)");
        assert_eq!(read("Mod(s0, 3)"), read("s0 - 3*(s0//3)"));
        assert_eq!(
            read("8 - s0 % 8"),
            read("Add(Integer(8), Mul(Integer(-1), Mod(Symbol('s0', integer=True), Integer(8))))")
        );
    }

    #[test]
    fn what_is_no_size_is_not_read() {
        for text in [
            "",
            "s0/2",
            "sqrt(s0)",
            "Symbol(",
            "Symbol('a'",
            "s0 + ",
            "1 // 0",
            "Piecewise(1, 2)",
            "((",
            "s0**s1",
            "s0**99",
        ] {
            assert_eq!(read(text), "", "{text}");
        }
        assert_eq!(read(&"(".repeat(10_000)), "");
        assert_eq!(read(&"-".repeat(1_000)), "");
    }
}

//! Computations that go along a sequence step by step.

use crate::{Lower, LowerError, Size};
use mlconv_mil::{
    ir::{Fact, Value},
    ops,
};

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Steps up to which they are written one after the other; more become a loop.
const UNROLLED: i64 = 256;

/// What to go along.
pub struct Walk<'a> {
    /// `[t, ..]` each.
    pub over: &'a [Value],
    /// Whether to begin at the end.
    pub reverse: bool,
    /// The sizes of what a step puts out; `None` where that is not wanted.
    pub item: Option<&'a [Size]>,
}

/// A step: given what stands at a time, the state and the time, it returns the next state and what it puts out.
pub type Step<'a> = &'a dyn Fn(&mut Lower<'_>, &[Value], &[Value], Value) -> Result<(Vec<Value>, Value)>;

impl Walk<'_> {
    /// The last state, and what the steps put out, `[t, ..]`, each at its time.
    pub fn run(&self, n: &mut Lower<'_>, state: &[Value], step: Step<'_>) -> Result<(Vec<Value>, Option<Value>)> {
        let Some(first) = self.over.first() else { return Err(LowerError::Poisoned) };
        match n.shape(*first)?.first().and_then(|d| d.as_known()) {
            Some(steps) if steps < 1 => Err(LowerError::core_ml("a sequence of no steps")),
            Some(steps) if steps <= UNROLLED => self.unrolled(n, steps, state.to_vec(), step),
            _ => self.looped(n, *first, state, step),
        }
    }

    fn unrolled(
        &self,
        n: &mut Lower<'_>,
        steps: i64,
        mut state: Vec<Value>,
        step: Step<'_>,
    ) -> Result<(Vec<Value>, Option<Value>)> {
        let mut values = vec![];
        for i in 0..steps {
            let at = if self.reverse { steps - 1 - i } else { i };
            let mut items = vec![];
            for v in self.over {
                let item = n.slice(*v, 0, at, Some(at + 1))?;
                items.push(n.squeeze(item, &[0])?);
            }
            let at = n.const_int(at)?;
            let (next, y) = step(n, &items, &state, at)?;
            state = next;
            values.push(y);
        }
        if self.reverse {
            values.reverse();
        }
        let sequence = if self.item.is_some() { Some(n.op(ops::Stack { values, axis: 0 })?) } else { None };
        Ok((state, sequence))
    }

    /// The loop counts steps, and carries the state and what there is of the sequence.
    fn looped(
        &self,
        n: &mut Lower<'_>,
        first: Value,
        state: &[Value],
        step: Step<'_>,
    ) -> Result<(Vec<Value>, Option<Value>)> {
        let steps = n.size_of(first, 0)?;
        let steps = n.squeeze(steps, &[0])?;
        let (zero, one) = (n.const_int(0)?, n.const_int(1)?);
        let mut vars = vec![zero];
        vars.extend(state);
        if let (Some(item), Some(like)) = (self.item, state.first()) {
            let sizes: Vec<Size> = [Size::Of(first, 0)].iter().chain(item).copied().collect();
            vars.push(n.zeros(*like, &sizes)?);
        }
        let facts = vars.iter().map(|v| Ok(Fact::of(n.ty(*v)?.clone()))).collect::<Result<Vec<_>>>()?;
        let cond = n.new_block(&facts, |n, vars| Ok(vec![n.less(vars[0], steps)?]))?;
        let body = n.new_block(&facts, |n, vars| {
            let at = if self.reverse {
                let left = n.sub(steps, one)?;
                n.sub(left, vars[0])?
            } else {
                vars[0]
            };
            let at_time = |x| ops::Gather { x, indices: at, axis: 0, batch_dims: 0, validate_indices: false };
            let items = self.over.iter().map(|v| n.op(at_time(*v))).collect::<Result<Vec<_>>>()?;
            let (next, y) = step(n, &items, &vars[1..=state.len()], at)?;
            let mut yields = vec![n.add(vars[0], one)?];
            yields.extend(next);
            if let Some(data) = vars.get(state.len() + 1) {
                let (indices, updates) = (n.expand_dims(at, &[0])?, n.expand_dims(y, &[0])?);
                let mode = ops::ScatterMode::Update;
                let put = ops::Scatter { data: *data, indices, updates, axis: 0, mode, validate_indices: false };
                yields.push(n.op(put)?);
            }
            Ok(yields)
        })?;
        let results = n.ops(ops::WhileLoop { loop_vars: vars, cond, body })?;
        let last = results.iter().skip(1).take(state.len()).copied().collect();
        Ok((last, results.get(state.len() + 1).copied()))
    }
}

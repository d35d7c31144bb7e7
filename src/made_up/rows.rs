//! Which integers may be made up for an input whose integers are rows of tables.

use super::is_place;
use mlconv_mil::{
    ir::{Function, OpId, Value},
    ops::{Add, Gather, Greater, GreaterEqual, Less, LessEqual, Mul, Select, Sub},
};
use mlconv_tensor::DType;
use std::collections::HashMap;

/// Elements of a constant that are looked at for the least and the greatest.
const LOOKED_AT: usize = 1 << 16;

/// Ops whose results have the elements of their first operand.
const MOVE: &[&str] =
    &["expand_dims", "identity", "reshape", "reverse", "slice_by_index", "split", "squeeze", "tile", "transpose"];

/// What is known of the numbers that follow from an input.
#[derive(Clone, Copy)]
enum Known {
    /// They are no less than the first and no greater than the second.
    Between(i64, i64),
    /// They are all true, or all false.
    Truth(bool),
    Nothing,
}

/// How many numbers from 0 on may be made up for the integers `v`: as many as the smallest table has rows that they, or what is
/// made of them, are places in. `None` where they are places in anything else, or sizes, or where that does not show.
pub(super) fn rows(f: &Function, v: Value) -> Option<i64> {
    let of_zeros = room(f, v, 0)??;
    // Sums of places and constants shift the last place; whatever else is made of them is seen now.
    room(f, v, of_zeros)??.ge(&0).then_some(of_zeros.checked_add(1)?)
}

/// How far the greatest place may still go up in every table, where `v` are numbers from 0 to `last`; within, `None` where they
/// are no places.
#[expect(clippy::option_option, reason = "one is that nothing is known, the other that nothing is bounded")]
fn room(f: &Function, v: Value, last: i64) -> Option<Option<i64>> {
    let (mut known, mut room) = (HashMap::from([(v, Known::Between(0, last))]), None::<i64>);
    for id in f.ops_in(f.body()) {
        let data = f.op_data(id);
        let (mut follows, mut nested) = (false, false);
        data.op.visit_operands(&mut |v| follows |= known.contains_key(&v));
        data.op.visit_regions(&mut |_| nested = true);
        if nested {
            // What blocks see of it is not followed.
            return None;
        }
        if !follows {
            continue;
        }
        let result = if let Some(op) = f.op::<Gather>(id) {
            if let Some(places) = known.get(&op.indices) {
                let Known::Between(low, high) = *places else { return None };
                let size = size(f, op)?;
                if low < 0 || low >= size {
                    return None;
                }
                let left = size - 1 - high;
                room = Some(room.map_or(left, |r| r.min(left)));
            }
            match known.get(&op.x) {
                Some(elements) => *elements,
                // What a table holds does not follow from the place.
                None => continue,
            }
        } else if data.op.name() == "range_1d" || is_place_of_any(f, id, &known) {
            return None;
        } else {
            made(f, id, &known)
        };
        known.extend(data.results.iter().map(|v| (*v, result)));
    }
    Some(room)
}

/// Whether an op takes anything that follows from the input as a place.
fn is_place_of_any(f: &Function, id: OpId, known: &HashMap<Value, Known>) -> bool {
    let op = &f.op_data(id).op;
    op.args().iter().any(|arg| {
        let follows = |v: &&Value| known.contains_key(*v);
        arg.operands().iter().filter(follows).any(|v| is_place(f, op.schema(), arg, *v))
    })
}

/// The rows of a table.
fn size(f: &Function, op: &Gather) -> Option<i64> {
    let shape = &f.ty(op.x).tensor()?.shape;
    let at = if op.axis < 0 { op.axis.checked_add(i64::try_from(shape.rank()).ok()?)? } else { op.axis };
    let size = shape.get(usize::try_from(at).ok()?)?.as_usize()?;
    i64::try_from(size).ok()
}

/// What is known of the results of an op that follows from the input.
fn made(f: &Function, id: OpId, known: &HashMap<Value, Known>) -> Known {
    let data = f.op_data(id);
    let between = |v: Value| match known.get(&v) {
        Some(Known::Between(low, high)) => Some((*low, *high)),
        Some(_) => None,
        None => constant(f, v),
    };
    let both = |x: Value, y: Value| between(x).zip(between(y));
    let is_int = |v: &Value| f.ty(*v).tensor().is_some_and(|t| t.dtype.is_int());
    let found = if let Some(op) = f.op::<Add>(id) {
        both(op.x, op.y).and_then(|(a, b)| Some((a.0.checked_add(b.0)?, a.1.checked_add(b.1)?)))
    } else if let Some(op) = f.op::<Sub>(id) {
        both(op.x, op.y).and_then(|(a, b)| Some((a.0.checked_sub(b.1)?, a.1.checked_sub(b.0)?)))
    } else if let Some(op) = f.op::<Mul>(id) {
        let product = |(a, b): ((i64, i64), (i64, i64))| {
            let all = [a.0.checked_mul(b.0)?, a.0.checked_mul(b.1)?, a.1.checked_mul(b.0)?, a.1.checked_mul(b.1)?];
            Some((all.into_iter().min()?, all.into_iter().max()?))
        };
        both(op.x, op.y).and_then(product)
    } else if let Some(op) = f.op::<Select>(id) {
        match known.get(&op.cond) {
            Some(Known::Truth(true)) => between(op.a),
            Some(Known::Truth(false)) => between(op.b),
            _ => both(op.a, op.b).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1))),
        }
    } else if data.op.name() == "cast" || MOVE.contains(&data.op.name()) {
        let mut first = None;
        data.op.visit_operands(&mut |v| first = first.or(Some(v)));
        first.and_then(between)
    } else {
        let order = if let Some(op) = f.op::<Less>(id) {
            both(op.x, op.y).map(|(a, b)| (a.1 < b.0, a.0 >= b.1))
        } else if let Some(op) = f.op::<LessEqual>(id) {
            both(op.x, op.y).map(|(a, b)| (a.1 <= b.0, a.0 > b.1))
        } else if let Some(op) = f.op::<Greater>(id) {
            both(op.x, op.y).map(|(a, b)| (a.0 > b.1, a.1 <= b.0))
        } else if let Some(op) = f.op::<GreaterEqual>(id) {
            both(op.x, op.y).map(|(a, b)| (a.0 >= b.1, a.1 < b.0))
        } else {
            None
        };
        return match order {
            Some((true, _)) => Known::Truth(true),
            Some((_, true)) => Known::Truth(false),
            _ => Known::Nothing,
        };
    };
    match found {
        Some((low, high)) if data.results.iter().all(is_int) => Known::Between(low, high),
        _ => Known::Nothing,
    }
}

/// The least and the greatest element of a constant of integers.
fn constant(f: &Function, v: Value) -> Option<(i64, i64)> {
    let t = f.constant(v).filter(|t| t.dtype() != DType::Str && t.dtype().is_int() && t.count() <= LOOKED_AT)?;
    let all = t.to_i64();
    Some((all.iter().copied().min()?, all.iter().copied().max()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::text::parse;

    fn rows_of(body: &str) -> Option<i64> {
        let text = format!(
            "func @main(%i: i32[1, 4]) ios17 {{\n  %w = const(val=f32[5, 1] [1.0, 2.0, 3.0, 4.0, 5.0])\n  %u = const(val=f32[9, 1] [1.0, \
             2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])\n  %zero = const(val=i32[] 0)\n  %two = const(val=i32[] 2)\n  \
             %five = const(val=i32[] 5)\n{body}}}\n"
        );
        let module = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let f = &module.functions[0];
        rows(f, f.inputs()[0])
    }

    #[test]
    fn places_are_in_all_tables_that_they_are_for() {
        assert_eq!(rows_of("  %y = gather(x=%w, indices=%i)\n  return %y\n"), Some(5));
        assert_eq!(
            rows_of("  %y = gather(x=%w, indices=%i)\n  %z = gather(x=%u, indices=%i)\n  return %y, %z\n"),
            Some(5)
        );
        let shifted = "  %j = add(x=%i, y=%two)\n  %y = gather(x=%u, indices=%j)\n  return %y\n";
        assert_eq!(rows_of(shifted), Some(7));
        // Numbers below 0 are counted from the end, and there are none.
        let wrapped = "  %n = less(x=%i, y=%zero)\n  %e = add(x=%i, y=%five)\n  %j = select(cond=%n, a=%e, b=%i)\n  \
                       %y = gather(x=%w, indices=%j)\n  return %y\n";
        assert_eq!(rows_of(wrapped), Some(5));
        let masked = "  %n = not_equal(x=%i, y=%zero)\n  %m = cast(x=%n, dtype=\"fp32\")\n  %y = gather(x=%w, indices=%i)\n  \
                      return %y, %m\n";
        assert_eq!(rows_of(masked), Some(5));
    }

    #[test]
    fn nothing_is_guessed() {
        for body in [
            // No table, another kind of place, places of which nothing is known, a size, and places that grow faster.
            "  %y = mul(x=%i, y=%two)\n  return %y\n",
            "  %t = transpose(x=%u, perm=[1, 0])\n  %y = gather_along_axis(x=%t, indices=%i, axis=1)\n  return %y\n",
            "  %j = cumsum(x=%i, axis=1)\n  %y = gather(x=%w, indices=%j)\n  return %y\n",
            "  %j = mul(x=%i, y=%two)\n  %y = gather(x=%w, indices=%j)\n  return %y\n",
            "  %j = sub(x=%i, y=%two)\n  %y = gather(x=%w, indices=%j)\n  return %y\n",
            "  %s = squeeze(x=%i, axes=[0])\n  %v = const(val=f32[] 1.0)\n  %y = fill(shape=%s, value=%v)\n  return %y\n",
        ] {
            assert_eq!(rows_of(body), None, "{body}");
        }
    }
}

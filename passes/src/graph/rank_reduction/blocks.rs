//! Branches and loops: what goes into their blocks and comes out of them.

use super::{
    axes::product,
    lower::{Lower, MAX_RANK, Why, require},
};
use mlconv_mil::{
    ir::{Block, Fact, Place, Value},
    ops::{Cond, Reshape, WhileLoop},
};
use mlconv_tensor::{Dim, TensorType, Type};
use std::any::Any;

/// A result of too many axes, under the shape that it has wherever it passes the border of a block.
struct Border {
    at: usize,
    ty: TensorType,
    /// Its sizes as a value.
    shape: Value,
}

/// Makes what passes the borders of an op's blocks flat, with reshapes on both sides; `None` where it has no blocks.
///
/// The op itself stays, and the reshapes are met after it.
pub(super) fn flatten(cx: &mut Lower<'_>) -> Option<Result<(), Why>> {
    let op = cx.op();
    let op = &*op as &dyn Any;
    if let Some(op) = op.downcast_ref::<Cond>() {
        return Some(flatten_cond(cx, op));
    }
    op.downcast_ref::<WhileLoop>().map(|op| flatten_loop(cx, op))
}

fn flatten_cond(cx: &mut Lower<'_>, op: &Cond) -> Result<(), Why> {
    let yields = [op.true_fn, op.false_fn].map(|b| cx.f.yields(b).to_vec());
    let borders = borders(cx, &[&yields[0], &yields[1]])?;
    for block in [op.true_fn, op.false_fn] {
        flatten_yields(cx, block, &borders)?;
    }
    flatten_results(cx, &borders)
}

fn flatten_loop(cx: &mut Lower<'_>, op: &WhileLoop) -> Result<(), Why> {
    let args = [op.cond, op.body].map(|b| cx.f.block(b).args.clone());
    let yields = cx.f.yields(op.body).to_vec();
    let borders = borders(cx, &[&op.loop_vars, &args[0], &args[1], &yields])?;
    let mut flat = op.clone();
    for Border { at, ty, .. } in &borders {
        flat.loop_vars[*at] = cx.view(op.loop_vars[*at], &[product(&ty.shape)])?;
    }
    for (block, args) in [op.cond, op.body].into_iter().zip(args) {
        let place = cx.f.ops_in(block).next().map_or(Place::End(block), Place::Before);
        for border in &borders {
            let arg = args[border.at];
            unflatten(cx, arg, place, border)?;
        }
    }
    flatten_yields(cx, op.body, &borders)?;
    let mut vars = flat.loop_vars.into_iter();
    let id = cx.id();
    // The operands are visited in the order of the loop variables, which are all there are.
    cx.f.replace_operands(id, &mut |v| vars.next().unwrap_or(v));
    flatten_results(cx, &borders)
}

/// The results of too many axes. Each has to have one type in all of `sides`.
fn borders(cx: &mut Lower<'_>, sides: &[&[Value]]) -> Result<Vec<Border>, Why> {
    let mut out = vec![];
    for (at, v) in cx.results().to_vec().into_iter().enumerate() {
        let Some(ty) = cx.f.ty(v).tensor().filter(|t| t.shape.rank() > MAX_RANK).cloned() else { continue };
        let same = sides.iter().all(|s| s.get(at).is_some_and(|v| cx.f.ty(*v).tensor() == Some(&ty)));
        require(same, "its blocks are given, or yield, tensors of other sizes")?;
        let shape = cx.vector("shape", &ty.shape)?;
        require(cx.known_elements(shape)?[..] == ty.shape[..], "the sizes of what passes its blocks are not known")?;
        out.push(Border { at, ty, shape });
    }
    Ok(out)
}

fn flatten_yields(cx: &mut Lower<'_>, block: Block, borders: &[Border]) -> Result<(), Why> {
    let mut yields = cx.f.yields(block).to_vec();
    let before = std::mem::replace(&mut cx.place, Place::End(block));
    for Border { at, .. } in borders {
        let shape = cx.constant("shape", &[-1])?;
        let hint = cx.f.value(yields[*at]).hint.clone();
        yields[*at] = cx.insert_named(&hint, Reshape { x: yields[*at], shape })?;
    }
    cx.place = before;
    cx.f.set_yields(block, yields);
    Ok(())
}

fn flatten_results(cx: &mut Lower<'_>, borders: &[Border]) -> Result<(), Why> {
    let (id, block) = (cx.id(), cx.block());
    let place = cx.f.next_op(id).map_or(Place::End(block), Place::Before);
    for border in borders {
        let result = cx.results()[border.at];
        unflatten(cx, result, place, border)?;
    }
    Ok(())
}

/// Makes `v` flat; whoever reads it gets it under its own axes, from `place` on.
fn unflatten(cx: &mut Lower<'_>, v: Value, place: Place, border: &Border) -> Result<(), Why> {
    let flat = TensorType::new(border.ty.dtype, vec![product(&border.ty.shape)] as Vec<Dim>);
    let hint = cx.f.value(v).hint.clone();
    let before = std::mem::replace(&mut cx.place, place);
    let own = cx.insert_named(&hint, Reshape { x: v, shape: border.shape })?;
    cx.place = before;
    cx.f.replace_uses(v, own);
    if let Some(reshape) = cx.f.def_op(own) {
        cx.f.replace_operands(reshape, &mut |x| if x == own { v } else { x });
    }
    cx.f.set_fact(v, Fact::of(Type::Tensor(flat)));
    Ok(())
}

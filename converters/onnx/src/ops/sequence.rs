//! Sequences and optionals, which Core ML does not have: lists of values that are known while lowering.
//!
//! Their nodes add no ops by themselves. What is only known when the program runs is the elements, and which of them is
//! read; how many there are is not.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered};
use mlconv_tensor::{DType, Dim, Tensor};

rows! {
    "ConcatFromSequence" 11..=LATEST => concat_from_sequence;
    "Optional" 15..=LATEST => optional;
    "OptionalGetElement" 15..=LATEST => optional_get_element;
    "OptionalHasElement" 15..=LATEST => optional_has_element;
    "SequenceAt" 11..=LATEST => sequence_at;
    "SequenceConstruct" 11..=LATEST => sequence_construct;
    "SequenceEmpty" 11..=LATEST => |n| { n.ignore("dtype"); made(n, vec![]) };
    "SequenceErase" 11..=LATEST => sequence_erase;
    "SequenceInsert" 11..=LATEST => sequence_insert;
    "SequenceLength" 11..=LATEST => sequence_length;
    "SequenceMap" 17..=LATEST => sequence_map;
    "SplitToSequence" 11..=LATEST => split_to_sequence;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Elements up to which a tensor is split into a sequence.
const MAX_PARTS: i64 = 4096;

fn made(n: &mut Lower<'_>, elements: Vec<Entry>) -> Lowered {
    Ok(vec![n.as_sequence(elements)?])
}

fn sequence_construct(n: &mut Lower<'_>) -> Lowered {
    let mut elements = vec![];
    for i in 0..n.input_count() {
        elements.push(n.entry(i)?.ok_or(LowerError::MissingInput { index: i })?);
    }
    made(n, elements)
}

/// Where input `i` points to in a sequence, which may count from the end; `default` where it is absent.
fn position(n: &mut Lower<'_>, i: usize, default: usize, places: usize, len: usize) -> Result<usize> {
    let Some(given) = n.ints_input(i)? else { return Ok(default) };
    let at = given.first().copied().ok_or(LowerError::MissingInput { index: i })?;
    // Lengths are bounded by what memory holds.
    let resolved = if at < 0 { at.saturating_add(len as i64) } else { at };
    let found = usize::try_from(resolved).ok().filter(|p| *p < places);
    found.ok_or_else(|| LowerError::form(format!("position {at} of a sequence of {len} elements")))
}

fn sequence_insert(n: &mut Lower<'_>) -> Lowered {
    let mut elements = n.sequence(0)?.to_vec();
    let element = n.entry(1)?.ok_or(LowerError::MissingInput { index: 1 })?;
    let len = elements.len();
    let at = position(n, 2, len, len + 1, len)?;
    elements.insert(at, element);
    made(n, elements)
}

fn sequence_erase(n: &mut Lower<'_>) -> Lowered {
    let mut elements = n.sequence(0)?.to_vec();
    let len = elements.len();
    let Some(last) = len.checked_sub(1) else { return Err(LowerError::form("erasing from an empty sequence")) };
    let at = position(n, 1, last, len, len)?;
    elements.remove(at);
    made(n, elements)
}

fn sequence_length(n: &mut Lower<'_>) -> Lowered {
    let len = n.sequence(0)?.len();
    n.literal(Tensor::from_i64(DType::I64, &[], &[len as i64]))
}

fn sequence_at(n: &mut Lower<'_>) -> Lowered {
    let elements = n.sequence(0)?;
    let len = elements.len();
    match position(n, 1, 0, len, len) {
        Ok(at) => Ok(elements.get(at).into_iter().cloned().collect()),
        Err(LowerError::NotConstant { .. }) => chosen(n, &elements),
        Err(e) => Err(e),
    }
}

/// The element at a place that only the run gives: elements of one type are stacked.
fn chosen(n: &mut Lower<'_>, elements: &[Entry]) -> Lowered {
    let values = tensors(n, elements)?;
    let types = values.iter().map(|v| n.ty(*v).cloned()).collect::<Result<Vec<_>>>()?;
    if types.windows(2).any(|pair| pair[0] != pair[1]) {
        let what = "a place, known only when the program runs, in a sequence of several shapes";
        return Err(LowerError::core_ml(what));
    }
    let at = n.input(1)?;
    let at = n.as_scalar(at)?;
    let (len, zero) = (values.len() as f64, n.const_int(0)?);
    let (below, from_end) = (n.less(at, zero)?, n.add_number(at, len)?);
    let indices = n.select(below, from_end, at)?;
    let x = n.op(ops::Stack { values, axis: 0 })?;
    n.emit(ops::Gather { x, indices, axis: 0, batch_dims: 0, validate_indices: false })
}

/// The elements as values, at least one.
fn tensors(n: &mut Lower<'_>, elements: &[Entry]) -> Result<Vec<Value>> {
    if elements.is_empty() {
        return Err(LowerError::form("a tensor of an empty sequence"));
    }
    elements.iter().map(|e| n.entry_value(e.clone())).collect()
}

fn concat_from_sequence(n: &mut Lower<'_>) -> Lowered {
    let elements = n.sequence(0)?;
    let Some(axis) = n.int("axis")? else { return Err(LowerError::MissingAttr { name: "axis" }) };
    let new_axis = n.switch("new_axis", false)?;
    let values = tensors(n, &elements)?;
    if new_axis {
        return n.emit(ops::Stack { values, axis });
    }
    let y = n.concat(values, axis)?;
    n.done(y)
}

/// As the sizes say; a last part may be smaller. Without sizes, each place is a part, without the axis if so asked.
fn split_to_sequence(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let (axis, keep) = (n.int_or("axis", 0)?, n.switch("keepdims", true)?);
    let axis = n.axis(x, axis)?;
    let given = n.ints_input(1)?;
    let scalar = match given {
        Some(_) => match n.constant(1)? {
            Some(t) => t.shape().is_empty(),
            None => {
                let sizes = n.input(1)?;
                n.rank(sizes)? == 0
            }
        },
        None => true,
    };
    let size = n.shape(x)?.get(axis).and_then(Dim::as_known);
    let open = || LowerError::NotFixed { what: "the number of parts".to_owned() };
    let sizes = match given.as_deref() {
        Some(sizes) if !scalar && sizes.len() as i64 > MAX_PARTS => {
            return Err(LowerError::form(format!("splitting {} into {} parts", n.ty(x)?, sizes.len())));
        }
        Some(sizes) if !scalar => {
            let sum = sizes.iter().try_fold(0i64, |sum, s| sum.checked_add(*s).filter(|_| *s >= 0));
            if sum.is_none() || size.is_some_and(|size| sum != Some(size)) {
                return Err(LowerError::form(format!("splitting {} at {sizes:?}", n.ty(x)?)));
            }
            sizes.to_vec()
        }
        given => {
            let size = size.ok_or_else(open)?;
            let part = given.and_then(|g| g.first().copied()).unwrap_or(1);
            if part < 1 || (size - 1) / part >= MAX_PARTS {
                return Err(LowerError::form(format!("splitting {} into parts of {part}", n.ty(x)?)));
            }
            (0..size).step_by(usize::try_from(part).unwrap_or(1)).map(|at| part.min(size - at)).collect()
        }
    };
    let mut elements = vec![];
    let mut begin = 0;
    for size in sizes {
        let mut part = n.slice(x, axis, begin, Some(begin + size))?;
        if given.is_none() && !keep {
            part = n.squeeze(part, &[axis as i64])?;
        }
        elements.push(Entry::Value(part));
        begin += size;
    }
    made(n, elements)
}

/// The body, once for each element of the first input; other sequences go along, and tensors are the same for all.
fn sequence_map(n: &mut Lower<'_>) -> Lowered {
    let body = n.graph("body")?;
    let len = n.sequence(0)?.len();
    let mut given = vec![];
    for i in 0..n.input_count() {
        let e = n.entry(i)?.ok_or(LowerError::MissingInput { index: i })?;
        if let Entry::Sequence(elements) = &e
            && elements.len() != len
        {
            let what = format!("sequences of {len} and {} elements that go together", elements.len());
            return Err(LowerError::form(what));
        }
        given.push(e);
    }
    if body.inputs.len() != given.len() {
        return Err(LowerError::form(format!("a body of {} inputs for {}", body.inputs.len(), given.len())));
    }
    let mut all: Vec<Vec<Entry>> = vec![vec![]; body.outputs.len()];
    for at in 0..len {
        let of = |e: &Entry| match e {
            Entry::Sequence(elements) => elements.get(at).cloned().unwrap_or(Entry::Poisoned),
            e => e.clone(),
        };
        let args = given.iter().map(of).collect();
        let returned = n.inline_entries(body, args)?;
        returned.into_iter().zip(&mut all).for_each(|(e, all)| all.push(e));
    }
    all.into_iter().map(|elements| n.as_sequence(elements)).collect()
}

fn optional(n: &mut Lower<'_>) -> Lowered {
    n.ignore("type");
    Ok(vec![n.entry(0)?.unwrap_or(Entry::Nothing)])
}

fn optional_has_element(n: &mut Lower<'_>) -> Lowered {
    let has = !matches!(n.entry(0)?, None | Some(Entry::Nothing));
    n.literal(Tensor::from_bools(&[], [has]))
}

fn optional_get_element(n: &mut Lower<'_>) -> Lowered {
    match n.entry(0)? {
        Some(Entry::Nothing) => Err(LowerError::form("the element of an optional that has none")),
        Some(e) => Ok(vec![e]),
        None => Err(LowerError::MissingInput { index: 0 }),
    }
}

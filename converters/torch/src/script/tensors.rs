//! Tensors that code makes of numbers and lists: `torch.tensor([[1, 2], [3, 4]])`.

use super::{
    binding::dtype_of,
    interpret::{Interpreter, Result},
    value::Item,
};
use mlconv_tensor::{DType, Tensor};
use std::rc::Rc;

/// Nested lists of numbers: sizes, the numbers, and the type that they have together.
#[derive(Default)]
struct Data {
    sizes: Vec<usize>,
    leaves: Vec<Item>,
}

impl Data {
    /// `None` where lists are ragged, or hold what is no number.
    fn of(item: &Item) -> Option<Self> {
        let Some(items) = item.elements() else {
            let is_number = item.number().is_some() || matches!(item, Item::Number(_) | Item::Tensor(_));
            return is_number.then(|| Self { sizes: vec![], leaves: vec![item.clone()] });
        };
        let mut all = Self { sizes: vec![items.len()], leaves: vec![] };
        for (i, item) in items.iter().enumerate() {
            let part = Self::of(item)?;
            if i == 0 {
                all.sizes.extend(&part.sizes);
            } else if all.sizes[1..] != part.sizes[..] {
                return None;
            }
            all.leaves.extend(part.leaves);
        }
        Some(all)
    }

    /// The type of numbers that are all known, as PyTorch has it.
    fn dtype(&self) -> Option<DType> {
        let is = |kind: fn(&Item) -> bool| self.leaves.iter().any(kind);
        if is(|i| matches!(i, Item::Number(_) | Item::Tensor(_))) {
            return None;
        }
        Some(match () {
            () if self.leaves.is_empty() || is(|i| matches!(i, Item::Float(_))) => DType::F32,
            () if is(|i| matches!(i, Item::Int(_))) => DType::I64,
            () => DType::Bool,
        })
    }
}

impl Interpreter {
    /// `torch.tensor`: of known numbers a constant, of others what joins them.
    pub(super) fn tensor_of(&mut self, args: &[Item], named: &[(Rc<str>, Item)]) -> Result<Item> {
        let argument = |at: usize, name: &str| {
            args.get(at).or_else(|| named.iter().find(|(n, _)| &**n == name).map(|(_, item)| item)).cloned()
        };
        let Some(data) = argument(0, "data") else { return self.fail("`tensor` of nothing") };
        self.bounded(&data)?;
        let wanted = argument(1, "dtype").filter(|i| !matches!(i, Item::None));
        let Some(data) = Data::of(&data) else {
            return self.fail(format!("`tensor` of {} that is no even list of numbers", data.kind()));
        };
        if let Some(dtype) = data.dtype() {
            let asked = wanted.as_ref().map(|code| code.int().and_then(dtype_of));
            let dtype = match asked {
                Some(None) => return self.fail("`tensor` of an element type that is not supported"),
                Some(Some(asked)) => asked,
                None => dtype,
            };
            let ints: Option<Vec<i64>> = data.leaves.iter().map(Item::int).collect();
            // Integers are exact beyond what floats hold.
            let t = match ints {
                Some(ints) => Tensor::from_vec(&data.sizes, ints).cast(dtype),
                None => {
                    let floats: Vec<f64> = data.leaves.iter().filter_map(Item::number).collect();
                    Tensor::from_f64(dtype, &data.sizes, &floats)
                }
            };
            let name = self.fresh("tensor");
            self.walk.define(name.clone(), t);
            return Ok(Item::Tensor(name));
        }
        let mut parts = vec![];
        for leaf in &data.leaves {
            parts.push(match leaf {
                Item::Number(name) => Item::Tensor(name.clone()),
                Item::Tensor(_) => leaf.clone(),
                known => self.literal(known),
            });
        }
        let sizes = data.sizes.iter().map(|n| Item::Int(*n as i64)).collect();
        let all = self.operator("aten", "stack", vec![Item::list(parts), Item::Int(0)], vec![])?;
        let whole = self.operator("aten", "reshape", vec![all, Item::list(sizes)], vec![])?;
        match wanted {
            Some(dtype) => self.operator("aten", "to.dtype", vec![whole, dtype], vec![]),
            None => Ok(whole),
        }
    }
}

//! What TorchScript has beside operators: questions for sizes, types and devices, checks, numbers of tensors.

use super::{
    binding::{COMPLEX, code_of},
    interpret::{Interpreter, Result},
    value::Item,
};
use mlconv_source::{Arg, Known};
use mlconv_tensor::{DType, Tensor};
use std::sync::Arc;

impl Interpreter {
    /// What is known of tensors, and what TorchScript has beside operators.
    pub(super) fn about(&mut self, domain: &str, op: &str, args: &[Item]) -> Result<Option<Item>> {
        let of = |item: &Item| if let Item::Tensor(n) = item { Some(n.clone()) } else { None };
        let first = args.first().and_then(of);
        Ok(Some(match (op, first, args) {
            ("RaiseException", _, [message, ..]) => return self.fail(format!("the model raises an error: {message}")),
            ("warn" | "Print" | "print" | "_assert" | "AutocastToReducedPrecision", ..)
                if domain == "prim" || op == "warn" =>
            {
                Item::None
            }
            ("unchecked_cast" | "unchecked_unwrap_optional" | "data" | "TensorToNum", _, [item, ..])
                if domain == "prim" =>
            {
                item.clone()
            }
            ("device" | "layout", ..) => Item::Memory,
            // Where a model takes other ways on other devices, it takes that of the processor.
            ("type", None, [Item::Memory]) if domain == "prim" => Item::Str("cpu".into()),
            (
                "is_cuda"
                | "is_mkldnn"
                | "is_mps"
                | "requires_grad"
                | "is_nested"
                | "is_quantized"
                | "is_sparse"
                | "is_scripting"
                | "is_autocast_enabled"
                | "is_autocast_cpu_enabled"
                | "is_grad_enabled"
                | "is_tracing"
                | "is_inference"
                | "is_conj"
                | "is_neg",
                ..,
            ) => Item::Bool(op == "is_scripting"),
            ("dim", Some(name), _) => {
                let name = self.now(&name);
                Item::Int(self.rank(&name)? as i64)
            }
            ("size" | "shape", Some(name), [_]) => {
                let name = self.now(&name);
                let sizes = (0..self.rank(&name)?).map(|axis| self.size(&name, axis)).collect::<Result<_>>()?;
                Item::list(sizes)
            }
            ("size", Some(name), [_, axis]) => {
                let Some(axis) = self.int(axis) else { return self.fail("the size of an axis that is known late") };
                let name = self.now(&name);
                let rank = self.rank(&name)? as i64;
                let at = if axis < 0 { axis + rank } else { axis };
                if !(0..rank).contains(&at) {
                    return self.fail(format!("axis {axis} of a tensor of {rank} axes"));
                }
                self.size(&name, at as usize)?
            }
            ("len", Some(name), _) => {
                let name = self.now(&name);
                self.rank(&name)?;
                self.size(&name, 0)?
            }
            ("numel", Some(name), _) => {
                let name = self.now(&name);
                let mut all = Item::Int(1);
                for axis in 0..self.rank(&name)? {
                    let size = self.size(&name, axis)?;
                    all = self.builtin("aten", "mul", vec![all, size], vec![])?;
                }
                all
            }
            ("dtype", Some(name), _) => {
                let name = self.now(&name);
                if self.complex.is_complex(&name) {
                    return Ok(Some(Item::Int(COMPLEX)));
                }
                match self.walk.dtype(&name) {
                    Some(dtype) => Item::Int(code_of(dtype)),
                    None => return self.fail("the element type of what is not known"),
                }
            }
            ("is_complex", Some(name), _) => {
                let name = self.now(&name);
                Item::Bool(self.complex.is_complex(&name))
            }
            ("is_same_size", Some(name), [_, Item::Tensor(other)]) => {
                let mut sizes = vec![];
                for name in [name, other.clone()] {
                    let name = self.now(&name);
                    sizes.push((0..self.rank(&name)?).map(|axis| self.size(&name, axis)).collect::<Result<Vec<_>>>()?);
                }
                match Item::list(sizes[0].clone()).same(&Item::list(sizes[1].clone())) {
                    Some(same) => Item::Bool(same),
                    None => return self.fail("sizes that are known late are compared"),
                }
            }
            ("is_signed", Some(name), _) => {
                let name = self.now(&name);
                match self.walk.dtype(&name) {
                    Some(dtype) => Item::Bool(!matches!(dtype, DType::Bool | DType::U8 | DType::U16)),
                    None => return self.fail("the element type of what is not known"),
                }
            }
            ("is_floating_point", Some(name), _) => {
                let name = self.now(&name);
                if self.complex.is_complex(&name) {
                    return Ok(Some(Item::Bool(false)));
                }
                match self.walk.dtype(&name) {
                    Some(dtype) => Item::Bool(dtype.is_float()),
                    None => return self.fail("the element type of what is not known"),
                }
            }
            ("NumToTensor" | "tensor" | "as_tensor" | "scalar_tensor", None, [item]) if item.number().is_some() => {
                self.literal(item)
            }
            (
                "Int" | "Float" | "Bool" | "IntImplicit" | "FloatImplicit" | "ScalarImplicit" | "item",
                Some(name),
                [_],
            ) => {
                let name = self.now(&name);
                self.number(op, name)?
            }
            ("Int" | "Float" | "Bool", None, [Item::Number(name)]) => self.number(op, name.clone())?,
            _ => return Ok(None),
        }))
    }

    /// The number that a tensor of one element holds, as `op` converts it.
    fn number(&mut self, op: &str, name: Arc<str>) -> Result<Item> {
        let wanted = match op {
            "Int" | "IntImplicit" => Some(DType::I64),
            "Float" | "FloatImplicit" => Some(DType::F64),
            "Bool" => Some(DType::Bool),
            _ => None,
        };
        let (int, float) = (wanted == Some(DType::I64), wanted == Some(DType::F64));
        Ok(match self.walk.known(&name) {
            Some(Known::Int(i)) if float => Item::Float(i as f64),
            Some(Known::Bool(b)) if float => Item::Float(f64::from(u8::from(b))),
            Some(Known::Float(x)) if int => Item::Int(x as i64),
            Some(Known::Bool(b)) if int => Item::Int(i64::from(b)),
            Some(Known::Int(i)) if wanted == Some(DType::Bool) => Item::Bool(i != 0),
            Some(Known::Float(x)) if wanted == Some(DType::Bool) => Item::Bool(x != 0.0),
            Some(Known::Int(i)) => Item::Int(i),
            Some(Known::Bool(b)) => Item::Bool(b),
            Some(Known::Float(x)) => Item::Float(x),
            None => {
                let is_so = |dtype: DType| match wanted {
                    Some(DType::Bool) => dtype == DType::Bool,
                    Some(DType::I64) => !dtype.is_float() && dtype != DType::Bool,
                    Some(_) => dtype.is_float(),
                    None => true,
                };
                if self.walk.dtype(&name).is_none_or(is_so) {
                    return Ok(Item::Number(name));
                }
                let (domain, op) = match wanted {
                    Some(DType::Bool) => ("_operator", "ne"),
                    Some(DType::I64) => ("torch", "sym_int"),
                    _ => ("torch", "sym_float"),
                };
                let mut args = vec![Item::Number(name)];
                if op == "ne" {
                    args.push(Item::Int(0));
                }
                self.operator(domain, op, args, vec![])?
            }
        })
    }

    /// The value that a tensor is now, with every node made so far lowered.
    pub(super) fn now(&mut self, name: &Arc<str>) -> Arc<str> {
        let now = self.functional.current(name);
        self.flush();
        now
    }

    pub(super) fn rank(&self, name: &Arc<str>) -> Result<usize> {
        match self.walk.rank(self.complex.real_of(name)) {
            Some(rank) => Ok(rank),
            None => self.fail("a tensor of which nothing is known"),
        }
    }

    /// A size of a tensor, as a number where it is known.
    pub(super) fn size(&mut self, name: &Arc<str>, axis: usize) -> Result<Item> {
        let name = &self.complex.real_of(name).clone();
        match self.walk.size(name, axis) {
            Some(Some(n)) => Ok(Item::Int(n)),
            Some(None) => {
                let mut node = self.node_of("aten", "sym_size.int");
                let out = self.fresh("size");
                node.name = out.clone();
                node.outputs = vec![out.clone()];
                node.attrs.insert("self".into(), Arg::Value(name.clone()));
                node.attrs.insert("dim".into(), Arg::Int(axis as i64));
                self.walk.node(&node);
                Ok(Item::Number(out))
            }
            None => self.fail(format!("axis {axis} of a tensor that does not have it")),
        }
    }

    /// A number as a tensor.
    pub(super) fn literal(&mut self, item: &Item) -> Item {
        let t = match item {
            Item::Bool(b) => Tensor::from_bools(&[], [*b]),
            Item::Int(i) => Tensor::scalar(*i),
            other => Tensor::scalar(other.number().unwrap_or_default() as f32),
        };
        let name = self.fresh("number");
        self.walk.define(name.clone(), t);
        Item::Tensor(name)
    }
}

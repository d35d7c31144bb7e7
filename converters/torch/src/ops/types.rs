//! Element types, and what programs say of tensors without computing anything.

use super::promote::converted;
use mlconv_mil::ir::Value;
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::DType;

aten! {
    "to.dtype(Tensor(a) self, ScalarType dtype, bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None) -> Tensor(a)",
    "to.dtype_layout(Tensor(a) self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None) -> Tensor(a)",
    "to.device(Tensor(a) self, Device device, ScalarType dtype, bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None) -> Tensor(a)",
    "to.prim_dtype(Tensor(a) self, int? dtype=None, bool non_blocking=False, bool copy=False) -> Tensor(a)",
    "to.prim_Device(Tensor(a) self, Device? device, int? dtype=None, bool non_blocking=False, bool copy=False) -> Tensor(a)",
    "_to_copy(Tensor self, *, ScalarType? dtype=None, bool non_blocking=False, MemoryFormat? memory_format=None) -> Tensor",
    "_autocast_to_reduced_precision(Tensor(a) self, bool cuda_enabled, bool cpu_enabled, ScalarType cuda_dtype, ScalarType cpu_dtype) -> Tensor(a)",
    "_autocast_to_full_precision(Tensor(a) self, bool cuda_enabled, bool cpu_enabled) -> Tensor(a)",
    "dim_order_ops::_to_dim_order_copy(Tensor self, *, ScalarType? dtype=None, bool non_blocking=False, int[]? dim_order=None) -> Tensor" => to;
    "to.other(Tensor(a) self, Tensor other, bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None) -> Tensor(a)",
    "type_as(Tensor(a) self, Tensor other) -> Tensor(a)" => |n| {
        let (x, like) = (n.value("self")?, n.value("other")?);
        let dtype = match n.dtype_of("other") {
            Some(d) => d,
            None => n.dtype(like)?,
        };
        let y = cast(n, x, dtype)?;
        n.done(y)
    };
    "view.dtype(Tensor(a) self, ScalarType dtype) -> Tensor(a)" => |n| {
        let x = n.value("self")?;
        match (n.dtype_of("self"), n.dtype_arg("dtype")?) {
            (Some(a), Some(b)) if a == b => n.done(x),
            _ => Err(LowerError::form("another element type for the same bits")),
        }
    };
    "_cast_Float(Tensor self, bool non_blocking=False) -> Tensor" => |n| as_type(n, DType::F32);
    "_cast_Double(Tensor self, bool non_blocking=False) -> Tensor" => |n| as_type(n, DType::F64);
    "_cast_Half(Tensor self, bool non_blocking=False) -> Tensor" => |n| as_type(n, DType::F16);
    "_cast_Long(Tensor self, bool non_blocking=False) -> Tensor" => |n| as_type(n, DType::I64);
    "_cast_Int(Tensor self, bool non_blocking=False) -> Tensor" => |n| as_type(n, DType::I32);
    "_cast_Short(Tensor self, bool non_blocking=False) -> Tensor" => |n| as_type(n, DType::I16);
    "_cast_Char(Tensor self, bool non_blocking=False) -> Tensor" => |n| as_type(n, DType::I8);
    "_cast_Byte(Tensor self, bool non_blocking=False) -> Tensor" => |n| as_type(n, DType::U8);
    "is_nonzero(Tensor self) -> bool" => |n| {
        let x = n.value("self")?;
        let x = n.as_scalar(x)?;
        let y = n.cast(x, DType::Bool)?;
        n.done(y)
    };
    "_assert_tensor_metadata(Tensor a, SymInt[]? size=None, SymInt[]? stride=None, ScalarType? dtype=None, *, Device? device=None, Layout? layout=None) -> ()" =>
        |n| nothing(n, &["a", "size", "stride", "dtype"]);
    "_assert_async(Tensor self) -> ()", "_assert_async.msg(Tensor self, str assert_msg) -> ()",
    "_assert_scalar(Scalar self, str assert_msg) -> ()" => |n| nothing(n, &["self", "assert_msg"]);
    "sym_constrain_range(Scalar size, *, int? min=None, int? max=None) -> ()",
    "sym_constrain_range_for_size(Scalar size, *, int? min=None, int? max=None) -> ()" => |n| nothing(n, &["size", "min", "max"]);
    "_print(str s) -> ()" => |n| nothing(n, &["s"]);
    "_functional_assert_async.msg(Tensor self, str assert_msg, Tensor dep_token) -> Tensor",
    "_functional_assert_scalar(Scalar self, str assert_msg, Tensor dep_token) -> Tensor" => |n| {
        nothing(n, &["self", "assert_msg", "dep_token"])?;
        let token = n.const_scalar(DType::F32, 0.0)?;
        n.done(token)
    };
}

/// Checks that a program makes of its own values: they hold for what it was exported for, and compute nothing.
fn nothing(n: &mut Lower<'_>, names: &[&'static str]) -> Lowered {
    names.iter().for_each(|name| n.ignore(name));
    Ok(vec![])
}

fn as_type(n: &mut Lower<'_>, dtype: DType) -> Lowered {
    let x = n.value("self")?;
    let y = cast(n, x, dtype)?;
    n.done(y)
}

fn to(n: &mut Lower<'_>) -> Lowered {
    for name in ["dim_order", "cuda_enabled", "cpu_enabled", "cuda_dtype", "cpu_dtype"] {
        n.ignore(name);
    }
    let x = n.value("self")?;
    let y = match n.dtype_arg("dtype")? {
        Some(dtype) => cast(n, x, dtype)?,
        None => x,
    };
    n.done(y)
}

/// `x` as an element type of the source. Integers of 8 and 16 bits wrap around as they do there.
pub(super) fn cast(n: &mut Lower<'_>, x: Value, to: DType) -> Result<Value, LowerError> {
    let from = n.dtype_of("self");
    let own = n.dtype(x)?;
    if !matches!(to, DType::U8 | DType::I8 | DType::U16 | DType::I16) {
        return converted(n, x, to);
    }
    let fits = match from {
        Some(from) => {
            from == to
                || from == DType::Bool
                || (from == DType::U8 && to.bits() == 16)
                || (from == DType::I8 && to == DType::I16)
        }
        None => false,
    };
    let whole = n.cast(x, DType::I32)?;
    if fits || own == DType::Bool { Ok(whole) } else { n.wrapped(whole, to) }
}

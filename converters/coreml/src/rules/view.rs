//! A program with its names resolved.

use crate::dtypes::dtype_of;
use mlconv_proto::coreml::{FeatureDescription, Model, mil, mil::argument::binding, model};
use mlconv_tensor::DType;
use std::collections::HashMap;

/// Specification versions by opset.
pub(super) const OPSETS: [(&str, i32); 5] =
    [("CoreML5", 6), ("CoreML6", 7), ("CoreML7", 8), ("CoreML8", 9), ("CoreML9", 10)];

/// The interface of one function.
pub(super) struct Interface<'a> {
    pub(super) function: &'a str,
    pub(super) inputs: &'a [FeatureDescription],
    pub(super) outputs: &'a [FeatureDescription],
    pub(super) states: &'a [FeatureDescription],
    pub(super) label: &'a str,
    pub(super) probabilities: &'a str,
}

/// One function.
pub(super) struct Body<'a> {
    pub(super) name: &'a str,
    pub(super) function: &'a mil::Function,
    /// The first body, which is the only one of a good program.
    pub(super) block: Option<&'a mil::Block>,
    /// All operations, each followed by those of its blocks.
    pub(super) ops: Vec<&'a mil::Operation>,
    /// Inputs, arguments of blocks and results; the first where a name is used twice.
    values: HashMap<&'a str, Def<'a>>,
    /// Which operations read a value, by its name.
    uses: HashMap<&'a str, Vec<&'a mil::Operation>>,
}

#[derive(Clone, Copy)]
struct Def<'a> {
    ty: Option<&'a mil::ValueType>,
    by: Option<&'a mil::Operation>,
}

pub(super) fn interfaces(model: &Model) -> Vec<Interface<'_>> {
    let Some(d) = &model.description else { return vec![] };
    if d.functions.is_empty() {
        return vec![Interface {
            function: "main",
            inputs: &d.input,
            outputs: &d.output,
            states: &d.state,
            label: &d.predicted_feature_name,
            probabilities: &d.predicted_probabilities_name,
        }];
    }
    let one = d.functions.iter().map(|f| Interface {
        function: &f.name,
        inputs: &f.input,
        outputs: &f.output,
        states: &f.state,
        label: &f.predicted_feature_name,
        probabilities: &f.predicted_probabilities_name,
    });
    one.collect()
}

pub(super) fn bodies(model: &Model) -> Vec<Body<'_>> {
    let Some(model::Type::MlProgram(program)) = &model.r#type else { return vec![] };
    program.functions.iter().map(|(name, function)| Body::new(name, function)).collect()
}

impl<'a> Body<'a> {
    fn new(name: &'a str, function: &'a mil::Function) -> Self {
        let block = function.block_specializations.values().next();
        let mut body = Self { name, function, block, ops: vec![], values: HashMap::new(), uses: HashMap::new() };
        body.define(&function.inputs, None);
        if let Some(block) = block {
            body.add(block);
        }
        body
    }

    /// Recursion ends, as decoding limits depth.
    fn add(&mut self, block: &'a mil::Block) {
        self.define(&block.inputs, None);
        for op in &block.operations {
            self.ops.push(op);
            for name in reads(op) {
                self.uses.entry(name).or_default().push(op);
            }
            self.define(&op.outputs, Some(op));
            for inner in &op.blocks {
                self.add(inner);
            }
        }
    }

    fn define(&mut self, values: &'a [mil::NamedValueType], by: Option<&'a mil::Operation>) {
        for v in values {
            self.values.entry(&v.name).or_insert(Def { ty: v.r#type.as_ref(), by });
        }
    }

    /// The specification version that the opset belongs to.
    pub(super) fn version(&self) -> Option<i32> {
        OPSETS.iter().find(|(name, _)| *name == self.function.opset).map(|(_, version)| *version)
    }

    pub(super) fn since(&self, version: i32) -> bool {
        self.version().is_some_and(|v| v >= version)
    }

    /// The type of the value called `name`.
    pub(super) fn ty(&self, name: &str) -> Option<&'a mil::ValueType> {
        self.values.get(name)?.ty
    }

    /// The operation that computes `name`; none for inputs and arguments of blocks.
    pub(super) fn def(&self, name: &str) -> Option<&'a mil::Operation> {
        self.values.get(name)?.by
    }

    pub(super) fn users(&self, name: &str) -> &[&'a mil::Operation] {
        self.uses.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether `name` is returned, by the function or a block.
    pub(super) fn is_returned(&self, name: &str) -> bool {
        let inner = self.ops.iter().flat_map(|o| &o.blocks);
        self.block.into_iter().chain(inner).any(|b| b.outputs.iter().any(|o| o == name))
    }

    /// The types that `param` of `op` is bound to; several for a variadic one.
    pub(super) fn operands(&self, op: &'a mil::Operation, param: &str) -> Vec<&'a mil::ValueType> {
        let ty = |b: &'a binding::Binding| match b {
            binding::Binding::Name(name) => self.ty(name),
            binding::Binding::Value(value) => value.r#type.as_ref(),
        };
        bindings(op, param).filter_map(ty).collect()
    }

    /// The tensor type that `param` of `op` is bound to.
    pub(super) fn operand(&self, op: &'a mil::Operation, param: &str) -> Option<Tensor> {
        tensor(self.operands(op, param).into_iter().next()?)
    }

    /// Whether a binding's value is known before the program runs.
    pub(super) fn is_constant(&self, b: &binding::Binding) -> bool {
        match b {
            binding::Binding::Value(_) => true,
            binding::Binding::Name(name) => self.def(name).is_some_and(|op| is_weight(&op.r#type)),
        }
    }

    /// Where `op` is, for people.
    pub(super) fn place(&self, op: &mil::Operation) -> String {
        let result = op.outputs.first().map(|o| o.name.as_str());
        format!("{}/{} ({})", self.name, result.or(name_of(op)).unwrap_or("?"), op.r#type)
    }

    pub(super) fn value(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }
}

/// A tensor type with what is known of its shape.
pub(super) struct Tensor {
    /// `None` for unknown codes.
    pub(super) dtype: Option<DType>,
    pub(super) dims: Vec<Option<u64>>,
}

impl Tensor {
    /// The number of elements, where every dimension is known.
    pub(super) fn count(&self) -> Option<usize> {
        self.dims.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from((*d)?).ok()?))
    }
}

pub(super) fn tensor(ty: &mil::ValueType) -> Option<Tensor> {
    let mil::value_type::Type::TensorType(t) = ty.r#type.as_ref()? else { return None };
    let dims = t.dimensions.iter().map(|d| match d.dimension {
        Some(mil::dimension::Dimension::Constant(ref c)) => Some(c.size),
        Some(mil::dimension::Dimension::Unknown(_)) | None => None,
    });
    Some(Tensor { dtype: dtype_of(t.data_type), dims: dims.collect() })
}

/// The tensor type of a state's content.
pub(super) fn state(ty: &mil::ValueType) -> Option<Tensor> {
    let Some(mil::value_type::Type::StateType(s)) = &ty.r#type else { return None };
    s.wrapped_type.as_deref().and_then(tensor)
}

pub(super) fn is_state(ty: &mil::ValueType) -> bool {
    matches!(ty.r#type, Some(mil::value_type::Type::StateType(_)))
}

pub(super) fn is_constexpr(op_type: &str) -> bool {
    op_type.starts_with("constexpr_")
}

/// Whether an operation of this type computes nothing at run time.
pub(super) fn is_weight(op_type: &str) -> bool {
    op_type == "const" || is_constexpr(op_type)
}

pub(super) fn bindings<'a>(op: &'a mil::Operation, param: &str) -> impl Iterator<Item = &'a binding::Binding> {
    op.inputs.get(param).into_iter().flat_map(|a| &a.arguments).filter_map(|b| b.binding.as_ref())
}

/// Names that `op` itself reads; its blocks read others.
pub(super) fn reads(op: &mil::Operation) -> impl Iterator<Item = &str> {
    let all = op.inputs.values().flat_map(|a| &a.arguments).filter_map(|b| b.binding.as_ref());
    all.filter_map(|b| match b {
        binding::Binding::Name(name) => Some(name.as_str()),
        binding::Binding::Value(_) => None,
    })
}

/// The attribute `name`, which is a text of rank 0.
pub(super) fn name_of(op: &mil::Operation) -> Option<&str> {
    use mil::{tensor_value as tv, value as v};
    let v::Value::ImmediateValue(i) = op.attributes.get("name")?.value.as_ref()? else { return None };
    let Some(v::immediate_value::Value::Tensor(t)) = &i.value else { return None };
    let Some(tv::Value::Strings(s)) = &t.value else { return None };
    s.values.first().map(String::as_str)
}

/// A type for people, as `f32[1, ?]`.
pub(super) fn show(ty: Option<&mil::ValueType>) -> String {
    use mil::value_type::Type as T;
    match ty.and_then(|t| t.r#type.as_ref().map(|kind| (t, kind))) {
        None => "nothing".into(),
        Some((t, T::TensorType(raw))) => tensor(t).map_or(String::new(), |t| {
            let dims: Vec<String> = t.dims.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
            let dtype = t.dtype.map_or(format!("type {}", raw.data_type), |d| d.to_string());
            format!("{dtype}[{}]", dims.join(", "))
        }),
        Some((_, T::StateType(s))) => format!("state<{}>", show(s.wrapped_type.as_deref())),
        Some((_, T::ListType(_))) => "a list".into(),
        Some((_, T::TupleType(_))) => "a tuple".into(),
        Some((_, T::DictionaryType(_))) => "a dictionary".into(),
    }
}

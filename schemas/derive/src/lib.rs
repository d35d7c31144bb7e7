//! `#[derive(Op)]` turns one plain struct into the declaration of one MIL op; `#[derive(AttrEnum)]` an enum into the
//! attribute values it may take.
//!
//! ```text
//! #[derive(Op, Clone, Debug, PartialEq)]
//! #[op(name = "conv", since = Ios15)]             // also: until = Ios18, constexpr, elementwise, effect = Read|Write
//! #[domain(T: Ios15 = F16 | F32)]                 // element types, by what each opset adds
//! #[domain(W: Ios15 = T, Ios17 = F16 | F32)]      // an alias holds until the next step
//! pub struct Conv {
//!     #[operand(T)]                               // Value, Option<Value> or Vec<Value>
//!     pub x: Value,
//!     #[operand(W, constant(..Ios17))]            // constant, always or below an opset; since = …, until = …
//!     pub bias: Option<Value>,
//!     #[attr(default = 1)]                        // any AttrField; `default_with = |cx| …` sees the operands
//!     pub groups: i64,
//!     #[attr(T, default = 1e-5)]                  // written to files in the type that T has; or dtype = U32
//!     pub epsilon: f32,
//!     #[region]                                   // a nested block
//!     pub body: Block,
//! }
//! ```

mod attr_enum;
mod op;

use proc_macro::TokenStream;
use syn::{Attribute, DeriveInput, Expr, ExprLit, Lit, Meta, MetaNameValue, parse_macro_input};

/// Derives the schema of an op, and all that follows from it, from a struct.
#[proc_macro_derive(Op, attributes(op, domain, operand, attr, region))]
pub fn derive_op(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    op::expand(&input).unwrap_or_else(|e| e.into_compile_error()).into()
}

/// Derives `AttrField` for an enum whose variants are spelled `#[name("…")]` in MIL.
#[proc_macro_derive(AttrEnum, attributes(name))]
pub fn derive_attr_enum(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    attr_enum::expand(&input).unwrap_or_else(|e| e.into_compile_error()).into()
}

/// The text of the doc comments in `attrs`, a line each.
fn docs(attrs: &[Attribute]) -> String {
    let line = |a: &Attribute| match &a.meta {
        Meta::NameValue(MetaNameValue { value: Expr::Lit(ExprLit { lit: Lit::Str(s), .. }), .. })
            if a.path().is_ident("doc") =>
        {
            let s = s.value();
            Some(s.strip_prefix(' ').unwrap_or(&s).trim_end().to_owned())
        }
        _ => None,
    };
    attrs.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

//! Expansion of `#[derive(Op)]`.

use crate::docs;
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    Attribute, Data, DataStruct, DeriveInput, Error, Expr, Field, Fields, Ident, LitStr, Meta, Result, Token,
    meta::ParseNestedMeta, parenthesized, parse::ParseStream, punctuated::Punctuated,
};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let ty = &input.ident;
    let Data::Struct(DataStruct { fields: Fields::Named(fields), .. }) = &input.data else {
        return Err(Error::new_spanned(ty, "an op is a struct with named fields"));
    };
    let head = Head::read(input)?;
    let fields = fields.named.iter().map(|f| Param::read(f, &head)).collect::<Result<Vec<_>>>()?;

    let Head { name, since, until, constexpr, elementwise, effect, domains, .. } = &head;
    let until = option(until.as_ref().map(|o| quote!(Opset::#o)));
    let effect = effect.clone().unwrap_or_else(|| format_ident!("None"));
    let doc = docs(&input.attrs);
    let schema = format_ident!("SCHEMA_{}", ty.to_string().to_uppercase());

    let params = fields.iter().map(Param::schema);
    let gets = fields.iter().enumerate().map(|(i, p)| p.get(i));
    let builds = fields.iter().map(Param::build);
    let of = |role: Role| fields.iter().filter(move |p| p.role == role).map(|p| &p.ident);
    let (operands, operands_mut) = (of(Role::Operand), of(Role::Operand));
    let (regions, regions_mut) = (of(Role::Region), of(Role::Region));

    Ok(quote! {
        #[doc(hidden)]
        static #schema: crate::schema::Schema = {
            use crate::schema::*;
            use mlconv_tensor::DType::*;
            Schema {
                name: #name, doc: #doc, since: Opset::#since, until: #until, constexpr: #constexpr,
                elementwise: #elementwise, effect: Effect::#effect, domains: &[#(#domains),*], params: &[#(#params),*],
            }
        };
        impl crate::schema::OpMeta for #ty {
            const SCHEMA: &'static crate::schema::Schema = &#schema;
            fn build(args: &mut crate::schema::Args<'_>) -> Result<Box<dyn crate::schema::Op>, crate::schema::OpError> {
                use crate::schema::*;
                #(#builds)*
                let op = #ty { #(#fields),* };
                Ok(Box::new(op))
            }
        }
        impl crate::schema::Op for #ty {
            fn schema(&self) -> &'static crate::schema::Schema { <Self as crate::schema::OpMeta>::SCHEMA }
            fn args(&self) -> Vec<crate::schema::NamedArg<'_>> {
                use crate::schema::*;
                let params = <Self as OpMeta>::SCHEMA.params;
                vec![#(#gets),*]
            }
            fn visit_operands(&self, visit: &mut dyn FnMut(crate::ir::Value)) {
                let _ = &visit;
                #(for v in crate::schema::OperandField::values(&self.#operands) { visit(*v); })*
            }
            fn visit_operands_mut(&mut self, visit: &mut dyn FnMut(&mut crate::ir::Value)) {
                let _ = &visit;
                #(for v in crate::schema::OperandField::values_mut(&mut self.#operands_mut) { visit(v); })*
            }
            fn visit_regions(&self, visit: &mut dyn FnMut(crate::ir::Block)) {
                let _ = &visit;
                #(visit(self.#regions);)*
            }
            fn visit_regions_mut(&mut self, visit: &mut dyn FnMut(&mut crate::ir::Block)) {
                let _ = &visit;
                #(visit(&mut self.#regions_mut);)*
            }
            fn clone_op(&self) -> Box<dyn crate::schema::Op> { Box::new(self.clone()) }
            fn same(&self, other: &dyn crate::schema::Op) -> bool {
                (other as &dyn std::any::Any).downcast_ref::<Self>() == Some(self)
            }
            fn infer(&self, cx: &crate::schema::InferCx<'_>) -> Result<crate::schema::Facts, crate::schema::OpError> {
                crate::schema::Semantics::infer(self, cx)
            }
            fn eval(&self, cx: &crate::schema::EvalCx<'_>) -> Result<crate::schema::Tensors, crate::schema::OpError> {
                crate::schema::Semantics::eval(self, cx)
            }
            fn default_operands(&self, cx: &crate::schema::InferCx<'_>) -> Vec<(&'static str, mlconv_tensor::Tensor)> {
                crate::schema::Semantics::default_operands(self, cx)
            }
            fn macs(&self, cx: &crate::schema::InferCx<'_>, result: &mlconv_tensor::Shape) -> Option<mlconv_tensor::Dim> {
                crate::schema::Semantics::macs(self, cx, result)
            }
        }
    })
}

/// What stands above the struct.
struct Head {
    name: LitStr,
    since: Ident,
    until: Option<Ident>,
    constexpr: bool,
    elementwise: bool,
    effect: Option<Ident>,
    vars: Vec<String>,
    domains: Vec<TokenStream>,
}

impl Head {
    fn read(input: &DeriveInput) -> Result<Self> {
        let (mut name, mut since, mut until, mut effect) = (None, None, None, None);
        let (mut constexpr, mut elementwise) = (false, false);
        let (mut vars, mut domains) = (vec![], vec![]);
        for a in &input.attrs {
            if a.path().is_ident("op") {
                a.parse_nested_meta(|m| {
                    match key(&m).as_str() {
                        "name" => name = Some(m.value()?.parse()?),
                        "since" => since = Some(m.value()?.parse()?),
                        "until" => until = Some(m.value()?.parse()?),
                        "effect" => effect = Some(m.value()?.parse()?),
                        "constexpr" => constexpr = true,
                        "elementwise" => elementwise = true,
                        _ => {
                            let want = "expected `name`, `since`, `until`, `effect`, `constexpr` or `elementwise`";
                            return Err(m.error(want));
                        }
                    }
                    Ok(())
                })?;
            } else if a.path().is_ident("domain") {
                let (var, tokens) = a.parse_args_with(|s: ParseStream<'_>| domain(s, &vars))?;
                vars.push(var);
                domains.push(tokens);
            }
        }
        let missing = |what| Error::new_spanned(&input.ident, format!("missing #[op({what} = …)]"));
        Ok(Self {
            name: name.ok_or_else(|| missing("name"))?,
            since: since.ok_or_else(|| missing("since"))?,
            until,
            constexpr,
            elementwise,
            effect,
            vars,
            domains,
        })
    }

    fn known(&self, var: &Ident) -> Result<String> {
        let name = var.to_string();
        if self.vars.contains(&name) {
            Ok(name)
        } else {
            Err(Error::new_spanned(var, format!("no #[domain({name}: …)] on this op")))
        }
    }
}

/// `T: Ios15 = F16 | F32, Ios17 = I32`: what each opset adds to a type variable; or another variable as an alias.
fn domain(s: ParseStream<'_>, vars: &[String]) -> Result<(String, TokenStream)> {
    let var = s.parse::<Ident>()?.to_string();
    s.parse::<Token![:]>()?;
    let mut steps = vec![];
    while !s.is_empty() {
        let opset: Ident = s.parse()?;
        s.parse::<Token![=]>()?;
        let types: Vec<Ident> = Punctuated::<Ident, Token![|]>::parse_separated_nonempty(s)?.into_iter().collect();
        steps.push(match types.as_slice() {
            [alias] if vars.contains(&alias.to_string()) => {
                let alias = alias.to_string();
                quote!((Opset::#opset, Step::Same(#alias)))
            }
            [any] if any == "Any" => quote!((Opset::#opset, Step::Any)),
            _ => quote!((Opset::#opset, Step::Adds(&[#(#types),*]))),
        });
        if s.parse::<Option<Token![,]>>()?.is_none() {
            break;
        }
    }
    let tokens = quote!(Domain { name: #var, steps: &[#(#steps),*] });
    Ok((var, tokens))
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Operand,
    Attr,
    Region,
}

/// One field of the struct.
struct Param<'a> {
    ident: &'a Ident,
    ty: &'a syn::Type,
    doc: String,
    role: Role,
    domain: Option<String>,
    dtype: Option<Ident>,
    since: Option<Ident>,
    until: Option<Ident>,
    constant: TokenStream,
    default: Option<Expr>,
    default_with: Option<Expr>,
    literal: bool,
    tuple: bool,
}

impl quote::ToTokens for Param<'_> {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.ident.to_tokens(tokens);
    }
}

impl<'a> Param<'a> {
    fn read(field: &'a Field, head: &Head) -> Result<Self> {
        let ident = field.ident.as_ref().ok_or_else(|| Error::new_spanned(field, "a named field"))?;
        let role_of = |a: &Attribute| match a.path() {
            p if p.is_ident("operand") => Some(Role::Operand),
            p if p.is_ident("attr") => Some(Role::Attr),
            p if p.is_ident("region") => Some(Role::Region),
            _ => None,
        };
        let (attr, role) =
            field.attrs.iter().find_map(|a| Some((a, role_of(a)?))).ok_or_else(|| {
                Error::new_spanned(ident, "each field is an #[operand(..)], an #[attr] or a #[region]")
            })?;
        let mut p = Self {
            ident,
            ty: &field.ty,
            doc: docs(&field.attrs),
            role,
            domain: None,
            dtype: None,
            since: None,
            until: None,
            constant: quote!(Constness::Never),
            default: None,
            default_with: None,
            literal: false,
            tuple: false,
        };
        if let Meta::List(_) = &attr.meta {
            attr.parse_nested_meta(|m| p.option(&m, head))?;
        }
        if role == Role::Operand && p.domain.is_none() {
            return Err(Error::new_spanned(attr, "an operand names its domain: #[operand(T)]"));
        }
        Ok(p)
    }

    fn option(&mut self, m: &ParseNestedMeta<'_>, head: &Head) -> Result<()> {
        match key(m).as_str() {
            "since" => self.since = Some(m.value()?.parse()?),
            "until" => self.until = Some(m.value()?.parse()?),
            "literal" => self.literal = true,
            "tuple" if self.role == Role::Attr => self.tuple = true,
            "constant" if self.role == Role::Operand => {
                self.constant = if m.input.peek(syn::token::Paren) {
                    let inner;
                    parenthesized!(inner in m.input);
                    inner.parse::<Token![..]>()?;
                    let opset: Ident = inner.parse()?;
                    quote!(Constness::Below(Opset::#opset))
                } else {
                    quote!(Constness::Always)
                };
            }
            "default" if self.role == Role::Attr => self.default = Some(m.value()?.parse()?),
            "default_with" if self.role == Role::Attr => self.default_with = Some(m.value()?.parse()?),
            "dtype" if self.role == Role::Attr => self.dtype = Some(m.value()?.parse()?),
            _ => {
                let var = m.path.require_ident()?;
                self.domain = Some(head.known(var)?);
            }
        }
        Ok(())
    }

    /// The `Param` of the schema.
    fn schema(&self) -> TokenStream {
        let Self { ident, ty, doc, domain, constant, literal, tuple, .. } = self;
        let name = ident.to_string();
        let opset = |o: &Option<Ident>| option(o.as_ref().map(|o| quote!(Opset::#o)));
        let (since, until) = (opset(&self.since), opset(&self.until));
        let kind = match self.role {
            Role::Operand => quote!(ParamKind::Operand {
                domain: #domain, arity: <#ty as OperandField>::ARITY, constant: #constant
            }),
            Role::Attr => {
                let default = match (&self.default, &self.default_with) {
                    (Some(e), _) => quote!(AttrDefault::Value(|| AttrField::to_attr(&{ let v: #ty = #e; v }))),
                    (None, Some(_)) => quote!(AttrDefault::Computed),
                    (None, None) => quote!(AttrDefault::Required),
                };
                let dtype = match (&self.dtype, domain) {
                    (Some(d), _) => quote!(AttrType::Exactly(#d)),
                    (None, Some(d)) => quote!(AttrType::Domain(#d)),
                    (None, None) => quote!(AttrType::Natural),
                };
                quote!(ParamKind::Attr {
                    default: #default, dtype: #dtype, literal: #literal, tuple: #tuple, choices: <#ty as AttrField>::choices
                })
            }
            Role::Region => quote!(ParamKind::Region),
        };
        quote!(Param { name: #name, doc: #doc, since: #since, until: #until, kind: #kind })
    }

    /// The argument that this field holds, for `Op::args`.
    fn get(&self, index: usize) -> TokenStream {
        let ident = self.ident;
        let arg = match self.role {
            Role::Operand => quote!(Arg::Operands(std::borrow::Cow::Borrowed(OperandField::values(&self.#ident)))),
            Role::Attr => quote!(Arg::Attr(AttrField::to_attr(&self.#ident))),
            Role::Region => quote!(Arg::Region(self.#ident)),
        };
        quote!(NamedArg { name: params[#index].name, param: Some(&params[#index]), arg: #arg })
    }

    /// Takes the field from named arguments, into a local of its name.
    fn build(&self) -> TokenStream {
        let (ident, ty) = (self.ident, self.ty);
        let name = ident.to_string();
        match (self.role, &self.default, &self.default_with) {
            (Role::Operand, ..) => quote!(let #ident: #ty = args.operand(#name)?;),
            (Role::Region, ..) => quote!(let #ident: #ty = args.region(#name)?;),
            (Role::Attr, Some(e), _) => quote!(let #ident: #ty = args.attr_or(#name, |_| #e)?;),
            (Role::Attr, None, Some(f)) => quote!(let #ident: #ty = args.attr_or(#name, #f)?;),
            (Role::Attr, None, None) => quote!(let #ident: #ty = args.attr(#name)?;),
        }
    }
}

fn key(m: &ParseNestedMeta<'_>) -> String {
    m.path.get_ident().map(ToString::to_string).unwrap_or_default()
}

fn option(tokens: Option<TokenStream>) -> TokenStream {
    tokens.map_or_else(|| quote!(None), |t| quote!(Some(#t)))
}

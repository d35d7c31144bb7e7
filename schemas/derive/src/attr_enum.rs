//! Expansion of `#[derive(AttrEnum)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, LitStr, Result};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let ty = &input.ident;
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(ty, "an attribute's values are an enum"));
    };
    let mut pairs = vec![];
    for variant in &data.variants {
        let name = variant.attrs.iter().find(|a| a.path().is_ident("name"));
        let name =
            name.ok_or_else(|| Error::new_spanned(variant, "each variant has #[name(\"…\")], its MIL spelling"))?;
        pairs.push((&variant.ident, name.parse_args::<LitStr>()?));
    }
    let (variants, names): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    Ok(quote! {
        impl #ty {
            /// Every value, with its MIL spelling.
            pub const ALL: &'static [(Self, &'static str)] = &[#((Self::#variants, #names)),*];
            /// The MIL spelling.
            pub fn name(self) -> &'static str { match self { #(Self::#variants => #names),* } }
        }
        impl crate::schema::AttrField for #ty {
            fn to_attr(&self) -> Option<crate::schema::Attr> {
                Some(crate::schema::Attr::Str(self.name().to_owned()))
            }
            fn from_attr(attr: crate::schema::Attr) -> Option<Self> {
                let crate::schema::Attr::Str(text) = attr else { return None };
                Self::ALL.iter().find(|(_, n)| *n == text).map(|(v, _)| *v)
            }
            fn choices() -> &'static [&'static str] { &[#(#names),*] }
        }
    })
}

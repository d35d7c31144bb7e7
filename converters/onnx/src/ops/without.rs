//! What is known of ONNX's operators that have no row: why, and what to do.

use mlconv_mil::diagnostic::Limit::{CoreMl, NotYet};
use mlconv_source::Without;

const STRINGS: &str = "Core ML computes with no strings";
const NUMBERS: &str = "do this outside of the model, and give it the numbers that strings become";

/// Every operator that ONNX defines and that has no row.
pub static WITHOUT: &[Without] = &[
    Without {
        domain: "",
        ops: &["ImageDecoder"],
        limit: CoreMl,
        why: "no op of an ML program decodes files of images",
        help: "decode the image outside of the model, and give it the pixels",
    },
    Without {
        domain: "",
        ops: &["RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"],
        limit: CoreMl,
        why: STRINGS,
        help: NUMBERS,
    },
    Without { domain: "ai.onnx.ml", ops: &["CategoryMapper"], limit: CoreMl, why: STRINGS, help: NUMBERS },
    Without {
        domain: "ai.onnx.ml",
        ops: &["CastMap", "DictVectorizer", "ZipMap"],
        limit: CoreMl,
        why: "ML programs have no maps",
        help: "do this outside of the model",
    },
    Without {
        domain: "ai.onnx.ml",
        ops: &[
            "LabelEncoder",
            "LinearClassifier",
            "OneHotEncoder",
            "SVMClassifier",
            "SVMRegressor",
            "TreeEnsemble",
            "TreeEnsembleClassifier",
            "TreeEnsembleRegressor",
        ],
        limit: NotYet,
        why: "of `ai.onnx.ml`, only linear regression and what prepares features are lowered",
        help: "export the network without it, and do this step outside of the model",
    },
    Without {
        domain: "ai.onnx.preview.training",
        ops: &["Adagrad", "Adam", "Gradient", "Momentum"],
        limit: CoreMl,
        why: "ML programs are not trained",
        help: "export the model for inference",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;
    use std::collections::HashSet;

    #[test]
    fn each_stands_once_and_has_no_row() {
        let mut seen = HashSet::new();
        for (domain, op) in WITHOUT.iter().flat_map(|w| w.ops.iter().map(|op| (w.domain, *op))) {
            assert!(seen.insert((domain, op)), "{domain}.{op} stands there twice");
            assert!(table().rows().all(|r| (r.domain, r.op) != (domain, op)), "{domain}.{op} has a row");
        }
    }
}

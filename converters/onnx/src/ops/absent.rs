//! The operators of ONNX that have no row, each with what stands in its way.

use mlconv_source::Absent;

const STRINGS: &str = "Core ML has no tensors of strings: do this before the model, and give it numbers";
const TRAINING: &str = "a program is for inference only: export the model without its training";
const MAPS: &str = "Core ML's programs have no maps: do this outside of the model";
const NOT_YET: &str = "not lowered yet: of `ai.onnx.ml`, only linear regression and what prepares features are";

macro_rules! absent {
    ($($domain:literal $why:expr => $($op:literal)*;)*) => {
        /// Every operator that ONNX defines and that has no row.
        pub static ABSENT: &[Absent] = &[$($(Absent { domain: $domain, op: $op, why: $why }),*),*];
    };
}

absent! {
    "" "Core ML has no op that decodes images: decode before the model, or give it an image input" => "ImageDecoder";
    "" STRINGS => "RegexFullMatch" "StringConcat" "StringNormalizer" "StringSplit";
    "ai.onnx.ml" MAPS => "CastMap" "DictVectorizer" "ZipMap";
    "ai.onnx.ml" STRINGS => "CategoryMapper";
    "ai.onnx.ml" NOT_YET => "LabelEncoder" "LinearClassifier" "OneHotEncoder" "SVMClassifier" "SVMRegressor"
        "TreeEnsemble" "TreeEnsembleClassifier" "TreeEnsembleRegressor";
    "ai.onnx.preview.training" TRAINING => "Adagrad" "Adam" "Gradient" "Momentum";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_has_no_row() {
        for a in ABSENT {
            assert!(crate::table().rows().all(|r| (r.domain, r.op) != (a.domain, a.op)), "{}.{}", a.domain, a.op);
        }
    }
}

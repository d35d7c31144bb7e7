//! What is known of ONNX's operators that have no row: why, and what to do.

use mlconv_mil::diagnostic::Limit::{CoreMl, NotYet};
use mlconv_source::Without;

const STRINGS: &str = "Core ML computes with no strings";
const SEQUENCES: &str = "sequences and optional values are not resolved yet";
const RANDOM: &str = "random numbers are not drawn while a program runs yet";

pub(crate) static WITHOUT: &[Without] = &[
    Without {
        domain: "",
        ops: &["RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"],
        limit: CoreMl,
        why: STRINGS,
        help: Some("do this outside of the model, and give it the numbers that strings become"),
    },
    Without {
        domain: "",
        ops: &["ImageDecoder"],
        limit: CoreMl,
        why: "no op of an ML program decodes files of images",
        help: Some("decode the image outside of the model, and give it the pixels"),
    },
    Without {
        domain: "",
        ops: &["BitCast"],
        limit: CoreMl,
        why: "no op of an ML program takes the bits of one type as another",
        help: None,
    },
    Without {
        domain: "",
        ops: &[
            "ConcatFromSequence",
            "Optional",
            "OptionalGetElement",
            "OptionalHasElement",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SplitToSequence",
        ],
        limit: NotYet,
        why: SEQUENCES,
        help: Some("rewrite the model with `Concat`, `Split` and plain tensors"),
    },
    Without {
        domain: "",
        ops: &["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"],
        limit: NotYet,
        why: RANDOM,
        help: Some("make the random numbers an input of the model"),
    },
    Without { domain: "", ops: &["MaxRoiPool"], limit: NotYet, why: "it has no lowering", help: None },
    Without {
        domain: "ai.onnx.ml",
        ops: &[],
        limit: NotYet,
        why: "trees and other classical models have no lowering",
        help: Some("export the network without them, and do this step outside of the model"),
    },
    Without {
        domain: "ai.onnx.preview.training",
        ops: &[],
        limit: CoreMl,
        why: "ML programs are not trained",
        help: Some("export the model for inference"),
    },
];

#[cfg(test)]
mod tests {
    use super::super::table;

    #[test]
    fn what_has_a_row_is_not_said_to_have_none() {
        for row in table().rows() {
            assert!(table().without(row.domain, row.op).is_none(), "{row:?} has a row, and a line in `WITHOUT`");
        }
    }
}

//! How Core ML spells and stores each element type.

use mlconv_proto::coreml::mil::DataType;
use mlconv_tensor::DType;

/// The field of a `TensorValue` that holds immediate elements of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Little-endian elements; sub-byte ones packed least significant bit first.
    Bytes,
    /// 32-bit integers.
    Ints,
    /// 64-bit integers.
    LongInts,
    /// 32-bit floats.
    Floats,
    /// 64-bit floats.
    Doubles,
    /// Booleans.
    Bools,
    /// Text.
    Strings,
}

struct Spelling {
    mil: DataType,
    /// The code in a blob's metadata; types without one never go to a weight file.
    blob: Option<u32>,
    field: Field,
}

fn spelling(dtype: DType) -> Spelling {
    let row = |mil, blob, field| Spelling { mil, blob, field };
    match dtype {
        DType::F16 => row(DataType::Float16, Some(1), Field::Bytes),
        DType::F32 => row(DataType::Float32, Some(2), Field::Floats),
        DType::F64 => row(DataType::Float64, None, Field::Doubles),
        DType::Bf16 => row(DataType::Bfloat16, Some(5), Field::Bytes),
        DType::F8E4M3 => row(DataType::Float8e4m3fn, Some(16), Field::Bytes),
        DType::F8E5M2 => row(DataType::Float8e5m2, Some(17), Field::Bytes),
        DType::I4 => row(DataType::Int4, Some(8), Field::Bytes),
        DType::I8 => row(DataType::Int8, Some(4), Field::Bytes),
        DType::I16 => row(DataType::Int16, Some(6), Field::Ints),
        DType::I32 => row(DataType::Int32, Some(14), Field::Ints),
        DType::I64 => row(DataType::Int64, None, Field::LongInts),
        DType::U1 => row(DataType::Uint1, Some(9), Field::Bytes),
        DType::U2 => row(DataType::Uint2, Some(10), Field::Bytes),
        DType::U3 => row(DataType::Uint3, Some(12), Field::Bytes),
        DType::U4 => row(DataType::Uint4, Some(11), Field::Bytes),
        DType::U6 => row(DataType::Uint6, Some(13), Field::Bytes),
        DType::U8 => row(DataType::Uint8, Some(3), Field::Bytes),
        DType::U16 => row(DataType::Uint16, Some(7), Field::Ints),
        DType::U32 => row(DataType::Uint32, Some(15), Field::Bytes),
        DType::U64 => row(DataType::Uint64, None, Field::LongInts),
        DType::Bool => row(DataType::Bool, None, Field::Bools),
        DType::Str => row(DataType::String, None, Field::Strings),
    }
}

/// The type as a program spells it.
pub fn data_type(dtype: DType) -> DataType {
    spelling(dtype).mil
}

/// The type that a program spells `code`; `None` for unknown codes.
pub fn dtype_of(code: i32) -> Option<DType> {
    DType::ALL.iter().copied().find(|d| spelling(*d).mil as i32 == code)
}

/// The type's code in a weight file; `None` for types that never go there.
pub fn blob_code(dtype: DType) -> Option<u32> {
    spelling(dtype).blob
}

/// The type that a weight file spells `code`.
pub fn dtype_of_blob(code: u32) -> Option<DType> {
    DType::ALL.iter().copied().find(|d| spelling(*d).blob == Some(code))
}

/// The field that holds immediate elements of the type.
pub fn immediate_field(dtype: DType) -> Field {
    spelling(dtype).field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_own_codes() {
        for d in DType::ALL {
            assert_eq!(dtype_of(data_type(*d) as i32), Some(*d));
            assert_eq!(blob_code(*d).map(dtype_of_blob), blob_code(*d).map(|_| Some(*d)));
        }
        assert_eq!((dtype_of(0), dtype_of(-1), dtype_of_blob(0), dtype_of_blob(18)), (None, None, None, None));
        assert_eq!(DType::ALL.iter().filter_map(|d| blob_code(*d)).count(), 17);
    }
}

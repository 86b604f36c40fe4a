//! The columns of a file: the typed fields of the record, and the row as a fixed-size list.
use super::arrow::{self, Type};
use super::compact::{Struct, Value};
use crate::export::Dtype;

pub(super) const INT32: i32 = 1;
pub(super) const INT64: i32 = 2;
const BOOLEAN: i32 = 0;
const FLOAT: i32 = 4;
const BYTE_ARRAY: i32 = 6;
const FIXED_LEN_BYTE_ARRAY: i32 = 7;

/// Coordinates of a box.
const SIDES: usize = 4;

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) of: Type,
    /// Whether rows may lack a value.
    pub(super) optional: bool,
    /// The values are lists of this length.
    pub(super) list: Option<usize>,
}

/// All columns of a file with `dim` numbers per row in the column `name`, in the order in which [`super::records`]
/// fills them. Only files of `migrated` rows have a column for the original space, so that all other files keep the
/// layout that readers know.
pub(super) fn columns(name: &'static str, dtype: Dtype, dim: usize, migrated: bool) -> Vec<Column> {
    let column = |name, of, optional| Column { name, of, optional, list: None };
    let number = match dtype {
        Dtype::F32 => Type::Float,
        Dtype::F16 => Type::Half,
    };
    let mut all = vec![
        column("schema", Type::Int(32, false), false),
        column("camera", Type::Text, false),
        column("frame", Type::Int(64, false), false),
        column("file", Type::Text, true),
        column("stamp_ns", Type::Int(64, true), false),
        column("wall_ns", Type::Int(64, true), true),
        column("segment", Type::Int(64, false), false),
        column("level", Type::Text, false),
        column("space", Type::Text, false),
        column("head", Type::Int(64, false), false),
        column("encoder", Type::Text, true),
        column("preparation", Type::Text, true),
        column("learner", Type::Text, true),
        column("novelty", Type::Float, true),
        column("novel", Type::Bool, false),
        Column { list: Some(SIDES), ..column("box", Type::Int(32, true), true) },
        column("track", Type::Int(64, true), true),
        column("class", Type::Int(64, true), true),
        column("score", Type::Float, true),
    ];
    if migrated {
        all.push(column("migrated_from", Type::Text, true));
    }
    all.push(Column { list: Some(dim), ..column(name, number, false) });
    all
}

/// The columns as a Parquet schema, the root first.
pub(super) fn elements(columns: &[Column]) -> Value {
    let root = Struct::default().with(4, "afterimage".into()).with(5, Value::I32(columns.len() as i32));
    let mut all = vec![Value::Struct(root)];
    for column in columns {
        let repetition = Value::I32(i32::from(column.optional));
        let own = Struct::default().with(3, repetition).with(4, column.name.into());
        if column.list.is_some() {
            let list = Struct::default().with(3, Value::Struct(Struct::default()));
            let converted = Value::I32(3);
            all.push(Value::Struct(own.with(5, Value::I32(1)).with(6, converted).with(10, Value::Struct(list))));
            let (repeated, one) = (Value::I32(2), Value::I32(1));
            let middle = Struct::default().with(3, repeated).with(4, "list".into()).with(5, one);
            all.push(Value::Struct(middle));
            // Some readers accept an optional list only if its values are optional too.
            let element = Struct::default().with(3, Value::I32(i32::from(column.optional))).with(4, "element".into());
            all.push(Value::Struct(column.typed(element)));
        } else {
            all.push(Value::Struct(column.typed(own)));
        }
    }
    Value::List(all)
}

/// The columns as an Arrow schema, for the metadata of the file.
pub(super) fn arrow(columns: &[Column]) -> String {
    let field = |c: &Column| arrow::Field { name: c.name, nullable: c.optional, of: c.of, list: c.list };
    arrow::schema(&columns.iter().map(field).collect::<Vec<_>>())
}

impl Column {
    /// Parquet's physical type of a value.
    pub(super) fn physical(&self) -> i32 {
        match self.of {
            Type::Int(32, _) => INT32,
            Type::Int(..) => INT64,
            Type::Float => FLOAT,
            Type::Half => FIXED_LEN_BYTE_ARRAY,
            Type::Text => BYTE_ARRAY,
            Type::Bool => BOOLEAN,
        }
    }

    /// Size in bytes of the values of `rows` rows.
    pub(super) fn bytes(&self, rows: usize) -> Option<usize> {
        let numbers = rows.checked_mul(self.list.unwrap_or(1))?;
        match self.of {
            Type::Int(bits, _) => numbers.checked_mul(usize::from(bits) / 8),
            Type::Float => numbers.checked_mul(4),
            Type::Half => numbers.checked_mul(2),
            Type::Bool => Some(numbers.div_ceil(8)),
            Type::Text => None,
        }
    }

    /// Path of the values in the schema.
    pub(super) fn path(&self) -> Value {
        let inner: &[&str] = if self.list.is_some() { &["list", "element"] } else { &[] };
        Value::List([self.name].iter().chain(inner).map(|name| Value::from(*name)).collect())
    }

    /// The schema element of the values, with their type.
    fn typed(&self, element: Struct) -> Struct {
        let element = element.with(1, Value::I32(self.physical()));
        let logical = |kind: i16, inner: Struct| Value::Struct(Struct::default().with(kind, Value::Struct(inner)));
        match self.of {
            Type::Text => element.with(6, Value::I32(0)).with(10, logical(1, Struct::default())),
            Type::Half => element.with(2, Value::I32(2)).with(10, logical(15, Struct::default())),
            Type::Int(bits, false) => {
                let unsigned = Struct::default().with(1, Value::Byte(bits as i8)).with(2, Value::Bool(false));
                let converted = if bits == 32 { 13 } else { 14 };
                element.with(6, Value::I32(converted)).with(10, logical(10, unsigned))
            }
            Type::Int(..) | Type::Float | Type::Bool => element,
        }
    }
}

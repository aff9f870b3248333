//! `AnyArguments` shows its values, hidden from its documentation only.

use std::borrow::Cow;

use sqlx::any::AnyArguments;
use sqlx_core::any::AnyValueKind;

use super::{ArgSource, ArgValue, Undecodable};

/// The arguments of a statement, which share what is large with it.
#[derive(Clone, Debug)]
pub struct AnyCaptured(Vec<AnyValueKind>);

impl AnyCaptured {
    pub(crate) fn of(args: &AnyArguments) -> Self {
        Self(args.values.0.clone())
    }
}

impl ArgSource for AnyCaptured {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn decode(&self, _: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Result<(), Undecodable> {
        for value in &self.0 {
            each(match value {
                AnyValueKind::Null(_) => ArgValue::Null,
                AnyValueKind::Bool(v) => ArgValue::Bool(*v),
                AnyValueKind::SmallInt(v) => ArgValue::Int((*v).into()),
                AnyValueKind::Integer(v) => ArgValue::Int((*v).into()),
                AnyValueKind::BigInt(v) => ArgValue::Int(*v),
                AnyValueKind::Real(v) => ArgValue::Real(*v),
                AnyValueKind::Double(v) => ArgValue::Float(*v),
                AnyValueKind::Text(text) => whole(text),
                AnyValueKind::TextSlice(text) => whole(text),
                AnyValueKind::Blob(bytes) => ArgValue::Bytes {
                    bytes: Cow::Borrowed(bytes),
                    len: Some(bytes.len()),
                },
                _ => return Err(Undecodable),
            });
        }
        Ok(())
    }
}

fn whole(text: &str) -> ArgValue<'_> {
    ArgValue::Text {
        text: Cow::Borrowed(text),
        len: Some(text.len()),
    }
}

mod handshake;
mod predecessor;

pub(crate) use handshake::Handover;
pub(crate) use predecessor::{Predecessor, READY};

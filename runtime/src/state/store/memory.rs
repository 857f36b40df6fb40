//! Placeholder.
#[derive(Debug)]
pub struct Memory;

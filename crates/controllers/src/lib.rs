//! What every controller decides. Pure.

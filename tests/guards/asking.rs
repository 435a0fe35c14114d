//! Guards that ask somebody else.
